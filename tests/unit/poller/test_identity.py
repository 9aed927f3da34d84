"""Which object the bytes are of, on servers that give bytes of whatever has the name now."""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from model_poller import fetch
from model_poller.errors import CorruptDownloadError, ObjectChangedError, UnreachableError
from model_poller.stores.credentials import Credentials
from model_poller.stores.gcs import GcsSource
from model_poller.stores.http import HttpSource
from model_poller.stores.local import LocalSource
from model_poller.stores.opening import SourceSettings, open_source
from model_poller.stores.s3 import S3Source
from model_poller.stores.uri import parse_uri
from model_poller.volume.journal import Journal
from tests.unit.poller.answering import Answering, Reply, Request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from model_poller.stores import ByteRange, Source, StoredObject

OLD, NEW = (bytes([number]) * 2500 for number in (1, 2))
PATH = "models/1.zip"
MONDAY, TUESDAY = (f"{day} Jan 2024 00:00:00 GMT" for day in ("Mon, 01", "Tue, 02"))


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "PART_BYTES", 1000)


class Careless:
    """A web server that reads no condition, and replaces its files when it likes."""

    def __init__(self, files: dict[str, bytes], *tells: str, listed: bool = True) -> None:
        """``tells`` are the headers beside the bytes; ``listed`` shows an ETag in the listing."""
        self.files = dict(files)
        self.tells = tells
        self.listed = listed
        self.modified = MONDAY
        self.ranges: list[tuple[str, int]] = []
        self.before: Callable[[int], None] = lambda _: None
        """Called before each range with the number of those before."""
        self._one_at_a_time = threading.Lock()

    def __call__(self, request: Request) -> Reply:
        with self._one_at_a_time:
            return self._answer(request)

    def _answer(self, request: Request) -> Reply:
        path = request.target.lstrip("/")
        if path.endswith("list.json"):
            entries = [self._entry(name) for name in self.files]
            return Reply(body=json.dumps(entries))
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers.get("Range", ""))
        if wanted:
            self.before(len(self.ranges))
            self.ranges.append((path, int(wanted[1])))
        content = self.files[path]
        headers = {"Accept-Ranges": "bytes", **self._validators(content)}
        if request.method == "HEAD" or not wanted:
            return Reply(200, content, headers)
        start, end = int(wanted[1]), min(int(wanted[2]) + 1, len(content))
        if "size" in self.tells:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(content)}"
        return Reply(206, content[start:end], headers)

    def replace(self, name: str, content: bytes) -> None:
        self.files[name] = content
        self.modified = TUESDAY

    def _entry(self, name: str) -> dict[str, object]:
        told: dict[str, object] = {
            "name": name.removeprefix("models/"),
            "size": len(self.files[name]),
        }
        if self.listed and "ETag" in self.tells:
            told["etag"] = _tag(self.files[name])
        elif self.listed:
            told["mtime"] = self.modified
        return told

    def _validators(self, content: bytes) -> dict[str, str]:
        told = {"ETag": f'"{_tag(content)}"', "Last-Modified": self.modified}
        return {name: told[name] for name in self.tells if name in told}


def _tag(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]


@contextmanager
def served(server: Careless) -> Iterator[HttpSource]:
    with Answering(server) as running:
        uri = parse_uri(f"{running.url}/models/list.json")
        source = HttpSource(uri, credentials=Credentials())
        try:
            yield source
        finally:
            source.close()


def download(
    source: Source, folder: Path, stored: list[StoredObject] | None = None, **options: Any
) -> None:
    fetch.download(
        source,
        {folder / one.path: one for one in stored or source.list()},
        stopped=threading.Event(),
        progress=lambda _: None,
        **options,
    )


@pytest.mark.parametrize("tells", ["ETag", "Last-Modified"])
@pytest.mark.parametrize("replaced_before", [0, 1, 2])
def test_a_file_that_is_replaced_meanwhile_is_not_mixed_where_conditions_are_not_read(
    tmp_path: Path, tells: str, replaced_before: int
) -> None:
    server = Careless({PATH: OLD}, tells)
    server.before = lambda count: server.replace(PATH, NEW) if count == replaced_before else None
    with served(server) as source, pytest.raises(ObjectChangedError):
        download(source, tmp_path)


def test_a_file_that_is_replaced_by_an_older_one_is_another_one(tmp_path: Path) -> None:
    server = Careless({PATH: OLD}, "Last-Modified", listed=False)
    with Answering(server) as running:
        source = HttpSource(parse_uri(f"{running.url}/models/1.zip"), credentials=Credentials())
        server.modified = TUESDAY
        listed = source.list()
        server.files[PATH], server.modified = NEW, MONDAY
        with pytest.raises(ObjectChangedError):
            download(source, tmp_path, listed)
        source.close()


def test_a_file_of_another_size_is_another_one(tmp_path: Path) -> None:
    server = Careless({PATH: OLD}, "size", listed=False)
    server.before = lambda count: server.replace(PATH, NEW + NEW) if count == 1 else None
    with served(server) as source, pytest.raises(ObjectChangedError):
        download(source, tmp_path)


def test_answers_that_tell_other_objects_are_of_others_whatever_the_listing_shows(
    tmp_path: Path,
) -> None:
    server = Careless({PATH: OLD}, "ETag", listed=False)
    server.before = lambda count: server.replace(PATH, NEW) if count == 1 else None
    with served(server) as source, pytest.raises(ObjectChangedError):
        download(source, tmp_path)


def test_files_that_no_listing_identifies_are_asked_for_again_when_all_are_there(
    tmp_path: Path,
) -> None:
    files = {f"models/1/{name}": OLD[:900] for name in "ab"}
    server = Careless(files, "ETag", listed=False)
    with served(server) as source:
        download(source, tmp_path / "whole")
        assert (tmp_path / "whole/1/a").read_bytes() == OLD[:900]
        # The first was read already when both are replaced.
        count = len(server.ranges)

        def replace(now: int) -> None:
            if now == count + 1:
                for name in files:
                    server.replace(name, NEW[:900])

        server.before = replace
        with pytest.raises(ObjectChangedError):
            download(source, tmp_path / "mixed", limits=fetch.FetchLimits(parallelism=1))


def test_what_nothing_identifies_is_read_twice(tmp_path: Path) -> None:
    server = Careless({PATH: OLD}, listed=False)
    with served(server) as source:
        download(source, tmp_path / "whole")
        assert (tmp_path / "whole/1.zip").read_bytes() == OLD
        assert sorted(server.ranges) == sorted([(PATH, at) for at in (0, 1000, 2000)] * 2)
        server.before = lambda count: server.replace(PATH, NEW) if count == 7 else None
        with pytest.raises(ObjectChangedError):
            download(source, tmp_path / "mixed")


def test_what_an_earlier_run_left_of_it_is_not_joined_with_another_file(tmp_path: Path) -> None:
    server = Careless({PATH: OLD}, "ETag", listed=False)
    tmp_path.joinpath("staged").mkdir()

    def fail(count: int) -> None:
        if count >= 2:
            raise ConnectionResetError

    server.before = fail
    one = fetch.FetchLimits(parallelism=1)
    with served(server) as source:
        listed = source.list()
        with Journal(tmp_path / "staged") as journal, pytest.raises(UnreachableError):
            download(source, tmp_path / "staged", listed, journal=journal, limits=one)
        server.before = lambda _: None
        server.replace(PATH, NEW)
        with Journal(tmp_path / "staged") as journal, pytest.raises(ObjectChangedError):
            download(source, tmp_path / "staged", listed, journal=journal, limits=one)


def test_what_is_identified_is_read_once(tmp_path: Path) -> None:
    server = Careless({PATH: OLD}, "ETag", "Last-Modified", "size")
    with served(server) as source:
        download(source, tmp_path)
    assert sorted(server.ranges) == [(PATH, at) for at in (0, 1000, 2000)]


@pytest.mark.parametrize("size_of_new", [2500, 3000])
def test_s3_without_conditions_mixes_nothing(tmp_path: Path, size_of_new: int) -> None:
    server = CarelessS3(OLD)
    server.before = lambda count: server.replace(bytes(size_of_new)) if count == 1 else None
    with s3(server) as source, pytest.raises(ObjectChangedError):
        download(source, tmp_path)


def test_a_question_about_another_object_is_no_answer(tmp_path: Path) -> None:
    server = CarelessS3(OLD)
    with s3(server) as source:
        listed = source.list()
        server.replace(NEW)
        with pytest.raises(ObjectChangedError):
            source.describe(listed[0])
        with pytest.raises(ObjectChangedError):
            download(source, tmp_path, listed)


class CarelessS3:
    """A store that speaks S3 and reads no condition."""

    def __init__(self, content: bytes, *, tag: Callable[[bytes], str] | None = None) -> None:
        self.content = content
        self.tag = tag or (lambda content: hashlib.md5(content).hexdigest())
        self.before: Callable[[int], None] = lambda _: None
        self.damage: set[int] = set()
        """Which of the ranges come damaged."""
        self.ranges = 0
        self._one_at_a_time = threading.Lock()

    def replace(self, content: bytes) -> None:
        self.content = content

    def __call__(self, request: Request) -> Reply:
        with self._one_at_a_time:
            return self._answer(request)

    def _answer(self, request: Request) -> Reply:
        tag, size = self.tag(self.content), len(self.content)
        if "list-type" in request.target:
            return Reply(
                body="<ListBucketResult><Contents><Key>1.zip</Key>"
                f"<Size>{size}</Size><ETag>&quot;{tag}&quot;</ETag></Contents></ListBucketResult>"
            )
        if request.method == "HEAD":
            return Reply(200, self.content, {"ETag": f'"{tag}"'})
        self.before(self.ranges)
        tag, size = self.tag(self.content), len(self.content)
        start, end = map(int, re.findall(r"\d+", request.headers["Range"]))
        piece = self.content[start : end + 1]
        if self.ranges in self.damage:
            piece = bytes([piece[0] ^ 1]) + piece[1:]
        self.ranges += 1
        told = f"bytes {start}-{start + len(piece) - 1}/{size}"
        return Reply(206, piece, {"ETag": f'"{tag}"', "Content-Range": told})


@contextmanager
def s3(server: CarelessS3) -> Iterator[S3Source]:
    with Answering(server) as running:
        source = S3Source(
            parse_uri("s3://models"),
            endpoint=running.url,
            region="us-east-1",
            path_style=True,
            anonymous=True,
            credentials=Credentials(),
        )
        try:
            yield source
        finally:
            source.close()


def _no_md5(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


def test_an_etag_that_only_looks_like_an_md5_is_no_reason_to_refuse(tmp_path: Path) -> None:
    server = CarelessS3(OLD, tag=_no_md5)
    with s3(server) as source:
        download(source, tmp_path)
    assert (tmp_path / "1.zip").read_bytes() == OLD
    assert server.ranges == 6


def test_an_etag_that_is_an_md5_proves_what_came(tmp_path: Path) -> None:
    server = CarelessS3(OLD)
    with s3(server) as source:
        download(source, tmp_path)
    assert server.ranges == 3


@pytest.mark.parametrize("tag", [None, _no_md5])
def test_damage_is_noticed_whatever_the_etag_is(
    tmp_path: Path, tag: Callable[[bytes], str] | None
) -> None:
    server = CarelessS3(os.urandom(2500), tag=tag)
    server.damage = {1}
    with s3(server) as source, pytest.raises(CorruptDownloadError, match="with other bytes"):
        download(source, tmp_path)


def test_a_bucket_that_gives_another_generation_is_not_believed(tmp_path: Path) -> None:
    def answer(request: Request) -> Reply:
        if "/download/" not in request.target:
            item = {"name": "1.zip", "size": "3", "generation": "7"}
            return Reply(body=json.dumps({"items": [item]}), headers={"Content-Type": "text/json"})
        return Reply(206, b"new", {"x-goog-generation": "8"})

    with Answering(answer) as server:
        source = GcsSource(
            [parse_uri("gs://models")],
            endpoint=server.url,
            anonymous=True,
            credentials=Credentials(),
        )
        with pytest.raises(ObjectChangedError):
            download(source, tmp_path)
        source.close()


class Rewritten(LocalSource):
    """A folder in which somebody overwrites a file in place while it is read."""

    def __init__(self, folder: Path, *, keeps_time: bool, during: int) -> None:
        super().__init__(parse_uri(f"file://{folder}"), folder)
        self._keeps_time = keeps_time
        self._during = during

    @contextmanager
    def open_range(self, stored: StoredObject, start: int, length: int) -> Iterator[ByteRange]:
        with super().open_range(stored, start, length) as body:
            if length and start == self._during:
                path = self.mount / stored.path
                before = path.stat()
                with path.open("r+b") as file:
                    file.write(NEW)
                if self._keeps_time:
                    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
            yield body


@pytest.mark.parametrize("keeps_time", [False, True])
@pytest.mark.parametrize("during", [0, 1000, 2000])
def test_a_file_that_is_overwritten_in_place_while_it_is_read_is_another_one(
    tmp_path: Path, keeps_time: bool, during: int
) -> None:
    (tmp_path / "served").mkdir()
    (tmp_path / "served/1.zip").write_bytes(OLD)
    source = Rewritten(tmp_path / "served", keeps_time=keeps_time, during=during)
    with pytest.raises(ObjectChangedError):
        download(source, tmp_path, limits=fetch.FetchLimits(parallelism=1))


class Unlisted:
    """A store of any kind that lists no validator, and takes an empty one for another object's."""

    def __init__(self) -> None:
        self.content = OLD[:900]
        self.asked = 0
        self.before: Callable[[int], None] = lambda _: None

    def __call__(self, request: Request) -> Reply:
        size = len(self.content)
        if "list-type" in request.target:
            shown = f"<Contents><Key>1.zip</Key><Size>{size}</Size></Contents>"
            return Reply(body=f"<ListBucketResult>{shown}</ListBucketResult>")
        if "comp=list" in request.target:
            length = f"<Content-Length>{size}</Content-Length>"
            shown = f"<Blob><Name>1.zip</Name><Properties>{length}</Properties></Blob>"
            return Reply(body=f"<EnumerationResults><Blobs>{shown}</Blobs></EnumerationResults>")
        if "maxResults" in request.target:
            return Reply(body=json.dumps({"items": [{"name": "1.zip", "size": str(size)}]}))
        if "If-Match" in request.headers or "generation=" in request.target:
            return Reply(412)
        self.before(self.asked)
        self.asked += 1
        tag = _tag(self.content)
        told = {("x-goog-generation" if "/download/" in request.target else "ETag"): tag}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers.get("Range", ""))
        if not wanted:
            return Reply(200, self.content, told)
        start, end = int(wanted[1]), int(wanted[2])
        place = {"Content-Range": f"bytes {start}-{end}/{len(self.content)}"}
        return Reply(206, self.content[start : end + 1], {**told, **place})


@pytest.mark.parametrize("scheme", ["s3", "gs", "az"])
@pytest.mark.parametrize("is_replaced", [False, True])
def test_what_a_bucket_lists_without_a_validator_is_asked_for_again_when_it_is_there(
    tmp_path: Path, scheme: str, is_replaced: bool
) -> None:
    store = Unlisted()

    def replace(asked: int) -> None:
        if is_replaced and asked == 1:
            store.content = NEW[:900]

    store.before = replace
    with Answering(store) as running:
        settings = SourceSettings(
            locations=(parse_uri(f"{scheme}://models"),),
            endpoint=running.url,
            anonymous=True,
            path_style=True,
        )
        with closing(open_source(settings)) as source:
            if is_replaced:
                with pytest.raises(ObjectChangedError):
                    download(source, tmp_path)
                return
            download(source, tmp_path)
    assert (tmp_path / "1.zip").read_bytes() == OLD[:900]
