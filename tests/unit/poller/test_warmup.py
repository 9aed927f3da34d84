"""Warm-up requests that are put into versions."""

from __future__ import annotations

import contextlib
import struct
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import google_crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_poller.errors import (
    AccessDeniedError,
    InsufficientDiskError,
    InvalidSettingsError,
    StoppedError,
    WarmupUnavailableError,
)
from model_poller.golden.answers import KINDS
from model_poller.model_server.records import COMPARED, check, framed, records
from model_poller.model_server.warmup import WarmupRequests, locate, overlay
from model_poller.stores.opening import SourceSettings
from model_poller.stores.uri import Location, parse_uri
from tests.unit.poller.answering import Answering, Reply, Request
from tests.unit.poller.doubles import MemorySource, field, model
from tests.unit.poller.gcs_server import GcsServer

PLACE = Path("assets.extra/tf_serving_warmup_requests")


def record(content: bytes) -> bytes:
    def masked(data: bytes) -> bytes:
        value = google_crc32c.value(data)
        return struct.pack("<I", ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF)

    length = struct.pack("<Q", len(content))
    return length + masked(length) + content + masked(content)


PREDICT = field(6, field(1, b"a request"))
GOOD = record(PREDICT) + record(field(1, b"metadata") + field(2, b""))


class Bucket(MemorySource):
    """Tells how it was opened, and whether it was closed again."""

    def __init__(self) -> None:
        super().__init__()
        self.opened: list[SourceSettings] = []
        self.closed = 0

    def open(self, chosen: SourceSettings) -> Any:
        self.opened.append(chosen)
        return self

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def version(tmp_path: Path) -> Path:
    folder = tmp_path / "7"
    folder.mkdir()
    for name, content in model().items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def put(requests: WarmupRequests, version: Path, free: int = 1 << 40) -> None:
    def room(needed: int) -> None:
        if needed > free:
            raise InsufficientDiskError("full", needed)

    requests.put(version, room=room, stopped=threading.Event())


def from_file(tmp_path: Path, content: bytes = GOOD) -> WarmupRequests:
    path = tmp_path / "requests"
    path.write_bytes(content)
    return WarmupRequests(path, SourceSettings())


def from_bucket(bucket: Bucket, **own: Any) -> WarmupRequests:
    settings = SourceSettings((parse_uri("gs://models/imagenet"),), **own)
    return WarmupRequests(parse_uri("gs://models/warm/requests"), settings, bucket.open)


def test_a_file_is_put_into_a_version(tmp_path: Path, version: Path) -> None:
    put(from_file(tmp_path), version)
    assert (version / PLACE).read_bytes() == GOOD


def test_a_versions_own_file_wins_unread(tmp_path: Path, version: Path) -> None:
    (version / PLACE).parent.mkdir()
    (version / PLACE).write_bytes(b"own")
    put(WarmupRequests(tmp_path / "missing", SourceSettings()), version)
    assert (version / PLACE).read_bytes() == b"own"


def test_a_file_beside_versions_is_found_without_a_look_into_them(version: Path) -> None:
    def answer(request: Request) -> Reply:
        if "list-type" not in request.target:
            return Reply(200, GOOD, {"ETag": '"x"'})
        if "delimiter" not in request.target and "prefix=imagenet%2F1" in request.target:
            return Reply(body="<ListBucketResult></ListBucketResult>")
        if "delimiter" not in request.target:
            more = "<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>"
            return Reply(body=f"<ListBucketResult>{more}</ListBucketResult>")
        folders = "".join(
            f"<CommonPrefixes><Prefix>imagenet/{number}/</Prefix></CommonPrefixes>"
            for number in (1, 10, 11)
        )
        shown = f"<Key>imagenet/requests</Key><Size>{len(GOOD)}</Size><ETag>x</ETag>"
        return Reply(
            body=f"<ListBucketResult>{folders}<Contents>{shown}</Contents></ListBucketResult>"
        )

    with Answering(answer) as server:
        settings = SourceSettings(
            (parse_uri("s3://models/imagenet"),),
            endpoint=server.url,
            path_style=True,
            anonymous=True,
        )
        put(WarmupRequests(parse_uri("s3://models/imagenet/requests"), settings), version)
        listed = [asked for asked in server.asked if "list-type" in asked.target]
    assert (version / PLACE).read_bytes() == GOOD
    assert len(listed) == 2


def test_a_file_is_fetched_from_a_store_anew_for_each_version(
    tmp_path: Path, version: Path
) -> None:
    bucket = Bucket()
    bucket.put("requests", GOOD)
    bucket.put("requests.old", b"x")
    requests = from_bucket(bucket)
    put(requests, version)
    assert (version / PLACE).read_bytes() == GOOD
    bucket.put("requests", GOOD + GOOD)
    (tmp_path / "8").mkdir()
    put(requests, tmp_path / "8")
    assert (tmp_path / "8" / PLACE).read_bytes() == GOOD + GOOD
    assert bucket.closed == len(bucket.opened) == 2


def test_it_is_looked_for_in_its_folder_with_the_settings_of_the_same_store(
    version: Path,
) -> None:
    bucket = Bucket()
    bucket.put("requests", GOOD)
    put(from_bucket(bucket, endpoint="http://127.0.0.1:1", anonymous=True), version)
    assert bucket.opened == [
        SourceSettings(
            (Location("models", "warm", "gs"),), endpoint="http://127.0.0.1:1", anonymous=True
        )
    ]


def test_another_stores_endpoint_is_not_used_for_it(version: Path) -> None:
    bucket = Bucket()
    bucket.put("requests", GOOD)
    own = SourceSettings((parse_uri("s3://models/imagenet"),), endpoint="http://127.0.0.1:1")
    put(WarmupRequests(parse_uri("gs://m-o/requests"), own, bucket.open), version)
    assert bucket.opened == [SourceSettings((Location("m-o", "", "gs"),))]


def test_a_file_comes_from_a_bucket(version: Path) -> None:
    with GcsServer() as server:
        server.put("warm/requests", GOOD)
        own = SourceSettings(
            (parse_uri("gs://models/imagenet"),), endpoint=server.url, anonymous=True
        )
        put(WarmupRequests(parse_uri("gs://models/warm/requests"), own), version)
    assert (version / PLACE).read_bytes() == GOOD


def test_a_file_comes_from_a_web_server_that_shows_no_index(tmp_path: Path, version: Path) -> None:
    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given, directory=str(tmp_path))

        def list_directory(self, path: Any) -> None:
            self.send_error(403)

        def log_message(self, *_: Any) -> None:
            pass

    (tmp_path / "requests.bin").write_bytes(GOOD)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            uri = f"http://127.0.0.1:{server.server_address[1]}/requests.bin"
            put(WarmupRequests(parse_uri(uri), SourceSettings()), version)
            gone = WarmupRequests(parse_uri(f"{uri}.gone"), SourceSettings())
            (tmp_path / "8").mkdir()
            assert "there is nothing at" in unavailable(gone, tmp_path / "8")
        finally:
            server.shutdown()
            thread.join()
    assert (version / PLACE).read_bytes() == GOOD


def unavailable(requests: WarmupRequests, version: Path) -> str:
    with pytest.raises(WarmupUnavailableError, match="new versions wait for them") as caught:
        put(requests, version)
    return str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path, version: Path) -> None:
    gone = WarmupRequests(tmp_path / "gone", SourceSettings())
    assert f"{tmp_path}/gone can't be used (No such file" in unavailable(gone, version)
    folder = WarmupRequests(tmp_path, SourceSettings())
    assert "Is a directory" in unavailable(folder, version)
    message = unavailable(from_bucket(Bucket()), version)
    assert "gs://models/warm/requests can't be used (there is no such file)" in message


def test_a_store_that_refuses_is_told_with_its_own_words(version: Path) -> None:
    bucket = Bucket()
    bucket.error = AccessDeniedError("nobody lacks storage.objects.list")
    message = unavailable(from_bucket(bucket), version)
    assert "nobody lacks storage.objects.list" in message
    assert bucket.closed == 1


def test_a_file_beyond_the_limit_is_not_read(tmp_path: Path, version: Path) -> None:
    requests = from_file(tmp_path)
    with (tmp_path / "requests").open("r+b") as file:
        file.truncate((100 << 20) + 1)
    assert "104857601 bytes, more than 104857600" in unavailable(requests, version)
    assert not (version / PLACE).exists()


@pytest.mark.parametrize("stored", [True, False])
def test_room_is_asked_for_before_a_byte_is_written(
    tmp_path: Path, version: Path, stored: bool
) -> None:
    bucket = Bucket()
    bucket.put("requests", GOOD)
    requests = from_bucket(bucket) if stored else from_file(tmp_path)
    with pytest.raises(InsufficientDiskError):
        put(requests, version, free=len(GOOD) - 1)
    assert not (version / PLACE).exists()


def test_a_fetch_that_is_given_up_is_not_the_files_fault(version: Path) -> None:
    bucket = Bucket()
    bucket.put("requests", GOOD)
    stopped = threading.Event()
    stopped.set()
    with pytest.raises(StoppedError):
        from_bucket(bucket).put(version, room=lambda _: None, stopped=stopped)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (record(PREDICT) * 1001, "it has more than 1000 records"),
        (b"not a record at all", "record 1 does not begin like one"),
        (b"short", "record 1 is cut"),
        (GOOD + GOOD[:5], "record 3 is cut"),
        (GOOD[:-1], "record 2 is cut"),
        (GOOD[:-4], "record 2 is cut"),
        (record(b"a" * 50)[:-20], "record 1 is cut"),
        (GOOD.replace(b"request", b"reQuest"), "the checksum of record 1 is wrong"),
        (GOOD + record(field(1, b"an Example")), "record 3 is no PredictionLog with a request"),
        (record(b""), "record 1 is no PredictionLog with a request"),
        (record(b'{"instances": [1.0]}'), "record 1 is no PredictionLog: wire type 3"),
        (record(PREDICT[:-1]), "record 1 is no PredictionLog: it ends at byte"),
    ],
)
def test_what_would_fail_every_load_is_refused(
    tmp_path: Path, version: Path, content: bytes, message: str
) -> None:
    assert f"({message}" in unavailable(from_file(tmp_path, content), version)


@given(at=st.integers(0, len(GOOD) - 1), bits=st.integers(1, 255))
def test_a_changed_byte_never_passes(
    tmp_path_factory: pytest.TempPathFactory, at: int, bits: int
) -> None:
    changed = bytearray(GOOD)
    changed[at] ^= bits
    path = tmp_path_factory.mktemp("warm") / "requests"
    path.write_bytes(changed)
    with pytest.raises(ValueError, match="record"):
        check(path)


def test_records_with_an_answer_beside_their_request_are_counted(tmp_path: Path) -> None:
    both = field(1, b"a request") + field(2, b"an answer")
    path = tmp_path / "requests"
    others = (
        field(6, field(2, b"an answer")),
        field(6, field(1, b"a request") + field(2, b"")),
        field(5, both),
    )
    path.write_bytes(b"".join((record(field(6, both)), GOOD, *map(record, others))))
    assert check(path) == 1
    path.write_bytes(b"".join(record(field(kind, both)) for kind in KINDS))
    assert check(path) == len(KINDS) == len(COMPARED)


@given(contents=st.lists(st.binary(max_size=60), max_size=5))
def test_what_is_framed_is_read_back(contents: list[bytes]) -> None:
    whole = b"".join(framed(content) for content in contents)
    assert whole == b"".join(record(content) for content in contents)
    assert [whole[place.start : place.stop] for place in records(whole)] == contents


@given(content=st.binary(max_size=60))
def test_no_bytes_make_the_check_fail_otherwise(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.mktemp("warm") / "requests"
    path.write_bytes(content)
    with contextlib.suppress(ValueError):
        check(path)


def test_a_version_on_a_volume_is_overlaid_and_not_touched(tmp_path: Path, version: Path) -> None:
    (version / "assets.extra").mkdir()
    (version / "assets.extra" / "other").write_bytes(b"kept")
    before = sorted(version.rglob("*"))
    overlay(version, tmp_path / "overlay")
    put(from_file(tmp_path), tmp_path / "overlay")
    assert sorted(version.rglob("*")) == before
    shown = {str(p.relative_to(version)): p.read_bytes() for p in before if p.is_file()}
    for name, content in shown.items():
        assert (tmp_path / "overlay" / name).read_bytes() == content
    assert (tmp_path / "overlay" / PLACE).read_bytes() == GOOD


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("/etc/warmup/requests", Path("/etc/warmup/requests")),
        ("file:///etc/warmup/requests", Path("/etc/warmup/requests")),
        ("pvc://models/warm/requests", Path("/mnt/warm/requests")),
        ("s3://models/warm/requests", Location("models", "warm/requests", "s3")),
    ],
)
def test_it_is_found_by_a_path_or_by_a_uri(text: str, where: Path | Location) -> None:
    settings = SourceSettings((parse_uri("pvc://models/imagenet"),), mount=Path("/mnt"))
    assert locate(text, settings) == where


@pytest.mark.parametrize("text", ["gs://models", "pvc://other/requests", "ftp://host/requests"])
def test_a_uri_that_leads_to_no_file_is_refused(text: str) -> None:
    settings = SourceSettings((parse_uri("pvc://models/imagenet"),), mount=Path("/mnt"))
    with pytest.raises(InvalidSettingsError):
        locate(text, settings)
