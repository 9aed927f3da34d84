"""Publishing to real servers of every store, and what a poller makes of it."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from model_poller.bring import Bringer, Demands
from model_poller.errors import BucketNotFoundError, UnreachableError, VersionExistsError
from model_poller.publishing import packing
from model_poller.publishing.publish import FOLDER
from model_poller.stores.credentials import Credentials
from model_poller.stores.gcs_upload import GcsUploads
from model_poller.stores.opening import SourceSettings, open_source
from model_poller.stores.s3_upload import PART_BYTES
from model_poller.stores.uri import parse_uri
from model_poller.versions import discover
from model_poller.volume.store import Store
from tests.support.faults import Fault, FaultyServer
from tests.support.stores import AZURE_ACCOUNT, AZURE_KEY
from tests.unit.poller.doubles import model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from demo.storage import Storage
    from model_poller.stores import Source
    from tests.support.stores import Aws, BlobContainer

pytestmark = pytest.mark.e2e


@dataclass(frozen=True)
class Place:
    """Where to publish to, and how."""

    uri: str
    endpoint: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str]

    def publish(self, export: Path, *more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "model_poller.publishing", str(export), self.uri),
                *(f"--endpoint={self.endpoint}", *self.arguments, *more),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": ":".join(sys.path),
                **self.environment,
            },
        )

    def source(self) -> closing[Source]:
        return closing(
            open_source(
                SourceSettings(
                    locations=(parse_uri(self.uri),),
                    endpoint=self.endpoint,
                    anonymous="--anonymous" in self.arguments,
                    path_style=True,
                    azure_account=AZURE_ACCOUNT,
                    credentials=Credentials(self.environment),
                )
            )
        )


@pytest.fixture
def gcs(storage: Storage) -> Place:
    return Place("gs://models/resnet", storage.url, ("--anonymous",), {})


@pytest.fixture
def s3(aws: Aws, fresh_name: Callable[[str], str]) -> Place:
    bucket = aws.bucket(fresh_name("models"))
    return Place(f"s3://{bucket.name}/resnet", aws.endpoint, (), aws.keys)


@pytest.fixture
def azure(azurite_url: str, container: BlobContainer) -> Place:
    return Place(
        f"az://{container.name}/resnet",
        azurite_url,
        (f"--azure-account={AZURE_ACCOUNT}",),
        {"AZURE_STORAGE_ACCOUNT_KEY": AZURE_KEY},
    )


@pytest.fixture(params=["gcs", "s3", "azure"])
def place(request: pytest.FixtureRequest) -> Place:
    made: Place = request.getfixturevalue(request.param)
    return made


def export(folder: Path, content: bytes = b"weights") -> Path:
    for name, held in model(content).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(held)
    return folder


def ended(publisher: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = publisher.communicate(timeout=60)
    return publisher.returncode, out, err


def brought(place: Place, version: int, root: Path, demands: Demands) -> dict[str, bytes]:
    """What a poller has on its disk when it has taken the version."""
    store = Store(root / "model", root)
    store.prepare()
    with place.source() as source:
        found = discover(source.list(), {}, marker=demands.marker, growing=source.growing)
        assert found[version].incomplete is None
        Bringer(source, store, demands).bring(
            found[version], stopped=threading.Event(), progress=lambda _: None
        )
    folder = root / f".retained/{version}"
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("form", [*packing.FORMATS, FOLDER])
def test_a_poller_takes_what_was_published(place: Place, tmp_path: Path, form: str) -> None:
    made = export(tmp_path / "export")
    marker = "DONE" if form == FOLDER else None
    more = [f"--marker={marker}"] if marker else []
    code, out, err = ended(place.publish(made, f"--format={form}", *more))
    assert (code, out) == (0, "1\n"), err
    taken = brought(place, 1, tmp_path / "pod", Demands(manifest=True, marker=marker))
    assert model().items() <= taken.items()


def test_a_version_that_is_there_is_left_as_it_is(place: Place, tmp_path: Path) -> None:
    made = export(tmp_path / "export")
    assert ended(place.publish(made))[0] == 0
    with place.source() as source:
        before = source.list()
        code, out, err = ended(place.publish(made, "--version=1", "--format=tar"))
        assert (code, out) == (4, "")
        assert f"version 1 is there already: {place.uri}/1.zip" in err
        assert source.list() == before


def test_publishers_at_the_same_time_get_versions_of_their_own(
    place: Place, tmp_path: Path
) -> None:
    contents = [b"one", b"two", b"three"]
    running = [place.publish(export(tmp_path / each.decode(), each)) for each in contents]
    results = [ended(publisher) for publisher in running]
    assert sorted(out for _, out, _ in results) == ["1\n", "2\n", "3\n"], results
    for content, (_, out, _) in zip(contents, results, strict=True):
        taken = brought(place, int(out), tmp_path / f"pod-{out.strip()}", Demands())
        assert taken["variables/variables.data-00000-of-00001"] == content + b"\0"


def test_a_bucket_that_is_not_there_is_named(place: Place, tmp_path: Path) -> None:
    nowhere = Place(
        f"{place.uri.partition('://')[0]}://nowhere/x",
        place.endpoint,
        place.arguments,
        place.environment,
    )
    code, out, err = ended(nowhere.publish(export(tmp_path / "export")))
    assert (code, out) == (5, "")
    assert "nowhere does not exist" in err.splitlines()[-1]


@pytest.fixture
def uploads(gcs: Place) -> Iterator[GcsUploads]:
    made = GcsUploads(
        parse_uri(gcs.uri), endpoint=gcs.endpoint, anonymous=True, credentials=Credentials()
    )
    yield made
    made.close()


def put(uploads: GcsUploads, content: bytes, name: str = "resnet/1 ü.zip") -> int:
    sent: list[int] = []
    uploads.put_new(name, io.BytesIO(content), len(content), progress=sent.append)
    return sum(sent)


@pytest.mark.parametrize("size", [0, 5, 3 * (256 << 10), 3 * (256 << 10) + 1])
def test_google_gets_an_object_in_one_or_more_pieces(
    uploads: GcsUploads, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr("model_poller.stores.gcs_upload.CHUNK_BYTES", 256 << 10)
    content = os.urandom(size)
    assert put(uploads, content) == size
    (stored,) = uploads.list()
    assert stored.size == size
    if size:
        buffer = bytearray(size)
        with uploads.open_range(stored, 0, size) as body:
            view, done = memoryview(buffer), 0
            while done < size:
                done += body.readinto(view[done:])
        assert bytes(buffer) == content


@pytest.mark.parametrize("size", [5, 600 << 10])
def test_google_keeps_the_object_that_was_there(
    uploads: GcsUploads, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """fake-gcs-server takes if-generation-match on writes as Google does."""
    monkeypatch.setattr("model_poller.stores.gcs_upload.CHUNK_BYTES", 256 << 10)
    put(uploads, b"first")
    before = uploads.list()
    with pytest.raises(VersionExistsError, match=r"gs://models/resnet/1 ü\.zip is there already"):
        put(uploads, bytes(size))
    assert uploads.list() == before


def test_a_bucket_of_google_that_goes_away_is_named(gcs: Place) -> None:
    uploads = GcsUploads(
        parse_uri("gs://gone/x"), endpoint=gcs.endpoint, anonymous=True, credentials=Credentials()
    )
    with pytest.raises(BucketNotFoundError, match="bucket gone does not exist"):
        put(uploads, b"x")
    uploads.close()


def test_a_google_that_does_not_answer_is_unreachable(
    uploads: GcsUploads, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model_poller.stores.gcs_upload._RETRY_SECONDS", 0.1)
    storage.end(storage.address)
    with pytest.raises(UnreachableError, match=r"storing gs://models/resnet/1 ü\.zip failed"):
        put(uploads, b"x")


CLOSE = {"Connection": "close"}


@pytest.mark.parametrize(
    "fault",
    [Fault(keep=0.0), Fault(status=503, headers=CLOSE), Fault(status=429, headers=CLOSE)],
    ids=["the answer is lost", "503", "429"],
)
def test_an_upload_that_fails_on_its_way_makes_one_version(
    gcs: Place, tmp_path: Path, fault: Fault
) -> None:
    faults = [fault, fault]

    def choose(_: str, path: str) -> Fault | None:
        return faults.pop() if path.startswith("/upload") and faults else None

    with FaultyServer(gcs.endpoint, choose) as server:
        through = replace(gcs, endpoint=server.url)
        code, out, err = ended(through.publish(export(tmp_path / "export")))
    assert (code, out) == (0, "1\n"), err
    assert not faults
    with gcs.source() as source:
        assert [stored.path for stored in source.list()] == ["1.zip"]


def test_a_publisher_without_permission_is_told_which_it_lacks(gcs: Place, tmp_path: Path) -> None:
    def choose(_: str, path: str) -> Fault | None:
        return Fault(status=403, headers=CLOSE) if path.startswith("/upload") else None

    with FaultyServer(gcs.endpoint, choose) as server:
        through = replace(gcs, endpoint=server.url)
        code, out, err = ended(through.publish(export(tmp_path / "export")))
    assert (code, out) == (5, "")
    assert "an anonymous caller lacks storage.objects.create on gs://models/resnet/1.zip" in err
    uploads = [path for _, path in server.calls if path.startswith("/upload")]
    assert len(uploads) == 1
    assert "ifGenerationMatch=0" in uploads[0]


def killed_at_the_second_thing(
    place: Place, publish: Callable[[Place], subprocess.Popen[str]]
) -> tuple[int, str, str]:
    """Kill a publisher before the second thing that it would store, and tell how it ended."""
    running: list[subprocess.Popen[str]] = []
    begun, asked = threading.Event(), count()

    def choose(method: str, _: str) -> Fault | None:
        if method not in ("PUT", "POST") or next(asked) == 0:
            return None
        begun.wait(60)
        # Whatever else is on its way is lost as well.
        running[0].kill()
        return Fault(status=503, headers=CLOSE)

    with FaultyServer(place.endpoint, choose) as server:
        endpoint = server.url + urlsplit(place.endpoint).path
        running.append(publish(replace(place, endpoint=endpoint)))
        begun.set()
        return ended(running[0])


def test_a_folder_whose_publisher_is_killed_again_and_again_is_never_taken_half(
    place: Place, tmp_path: Path
) -> None:
    """Each goes on where the one before was killed: before the next thing that it would store."""
    made = export(tmp_path / "export")
    arguments = ("--format=folder", "--marker=DONE", "--version=1")
    stored: list[set[str]] = []

    while True:
        code, out, err = killed_at_the_second_thing(place, lambda to: to.publish(made, *arguments))
        with place.source() as source:
            objects = source.list()
            found = discover(objects, {}, marker="DONE", growing=source.growing)
        stored.append({each.path for each in objects})
        if code == 0:
            break
        assert (code, out) == (-signal.SIGKILL, ""), err
        assert 1 not in found or found[1].incomplete, stored
        assert len(stored) < 2 or stored[-1] > stored[-2], "it does not go on"
    assert out == "1\n"
    assert len(stored) == len(stored[-1])
    demands = Demands(manifest=True, marker="DONE")
    assert model().items() <= brought(place, 1, tmp_path / "pod", demands).items()


def second_part_hangs(under_way: threading.Event) -> Callable[[str, str], Fault | None]:
    """The second part of an upload is not answered; ``under_way`` is set when it comes."""

    def choose(method: str, path: str) -> Fault | None:
        if "partNumber=2&" not in path or method != "PUT":
            return None
        under_way.set()
        return Fault(delay=120)

    return choose


@pytest.mark.parametrize("form", ["zip", FOLDER])
def test_a_publisher_that_is_told_to_end_leaves_no_part_in_the_bucket(
    s3: Place, aws: Aws, tmp_path: Path, form: str
) -> None:
    """Parts of an upload that nobody ends are paid for, and no listing shows them."""
    made = export(tmp_path / "export", os.urandom(PART_BYTES * 2))
    (tmp_path / "scratch").mkdir()
    under_way = threading.Event()
    bucket = s3.uri.split("/")[2]

    def unfinished() -> bool:
        return b"<UploadId>" in aws.call("s3", "GET", f"/{bucket}?uploads=")

    more = ["--marker=DONE"] if form == FOLDER else []
    with FaultyServer(s3.endpoint, second_part_hangs(under_way)) as server:
        through = replace(
            s3, endpoint=server.url, environment={**s3.environment, "TMPDIR": f"{tmp_path}/scratch"}
        )
        publisher = through.publish(made, f"--format={form}", *more)
        assert under_way.wait(60)
        assert unfinished()
        publisher.terminate()
        code, out, err = ended(publisher)
    assert (code, out) == (143, ""), err
    assert ("1.zip is not stored; should it appear yet, it is whole" in err) == (form == "zip")
    assert ("publish it again with --version=1 to go on with it" in err) == (form == FOLDER)
    assert not unfinished()
    assert not list((tmp_path / "scratch").iterdir())
    with s3.source() as source:
        assert all(
            stored.path != "1/DONE" and "1.zip" not in stored.path for stored in source.list()
        )


def test_who_is_killed_between_parts_of_an_object_keeps_nobody_from_its_version(
    s3: Place, aws: Aws, tmp_path: Path
) -> None:
    """What stays are parts that no listing shows, for the bucket's rule to end."""
    made = export(tmp_path / "export", os.urandom(PART_BYTES + 1))
    arguments = [f"--format={FOLDER}", "--version=1", "--marker=DONE"]
    bucket = s3.uri.split("/")[2]
    under_way = threading.Event()

    def unfinished() -> int:
        return aws.call("s3", "GET", f"/{bucket}?uploads=").count(b"<UploadId>")

    def complete() -> list[int]:
        with s3.source() as source:
            found = discover(source.list(), {}, marker="DONE")
        return [number for number, version in found.items() if not version.incomplete]

    with FaultyServer(s3.endpoint, second_part_hangs(under_way)) as server:
        publisher = replace(s3, endpoint=server.url).publish(made, *arguments)
        assert under_way.wait(60)
        publisher.kill()
        assert ended(publisher)[0] == -signal.SIGKILL
    assert (unfinished(), complete()) == (1, [])

    code, out, err = ended(s3.publish(made, *arguments))

    assert (code, out) == (0, "1\n"), err
    assert complete() == [1]
    assert unfinished() == 1, "the next one ends its own upload, and no other's"
    # moto calls a checksum of checksums one of the whole object, which no poller would take.
    (shard,) = (made / "variables").glob("*.data-*")
    stored = aws.call("s3", "GET", f"/{bucket}/resnet/1/variables/{shard.name}")
    assert stored == shard.read_bytes()
