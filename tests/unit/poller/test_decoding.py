"""Objects that are stored as gzip, as their Content-Encoding says."""

from __future__ import annotations

import gzip
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from model_poller.archives import decoding
from model_poller.archives.unpacking import Limits
from model_poller.errors import UnreachableError
from model_poller.status import VersionReason, VersionState
from model_poller.stores.credentials import Credentials
from model_poller.stores.gcs import GcsSource
from model_poller.stores.uri import parse_uri
from tests.unit.poller.doubles import MemorySource, below, model, tarred, zipped
from tests.unit.poller.gcs_server import GcsServer
from tests.unit.poller.world import World

if TYPE_CHECKING:
    from pathlib import Path

    from model_poller.stores import StoredObject

FILES = model(b"w" * 5000)


def packed(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: gzip.compress(content) for name, content in files.items()}


class Gzipped(MemorySource):
    """A bucket whose objects all have this encoding, as only a call of its own tells of each."""

    def describe(self, stored: StoredObject) -> StoredObject:
        return replace(stored, is_gzipped=True)


@pytest.mark.parametrize(
    "files",
    [
        packed(below("1", FILES)),
        {**below("1", FILES), "1/saved_model.pb": gzip.compress(FILES["saved_model.pb"])},
        packed({"1.zip": zipped(FILES)}),
        {"1.zip": zipped(FILES)},
        packed({"1.tar": tarred(FILES, "w")}),
        packed({"1.tar.gz": tarred(FILES)}),
        # What is said of it twice is meant once.
        {"1.tgz": tarred(below("1", FILES))},
    ],
)
def test_what_is_stored_as_gzip_is_taken_unpacked(tmp_path: Path, files: dict[str, bytes]) -> None:
    world = World(tmp_path, source=(source := Gzipped()))
    source.put_all(files)
    world.settle()
    assert world.base() == {"1": FILES}
    assert not world.staged()


def test_a_fetch_goes_on_after_what_it_has_unpacked_already(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, source=(source := Gzipped()))
    source.put_all(packed(below("1", FILES)))

    def fail(*_: object, **__: object) -> None:
        monkeypatch.undo()
        raise UnreachableError("not now")

    monkeypatch.setattr("model_poller.bring.version_files.check", fail)
    world.settle()
    assert world.base() == {"1": FILES}


def test_google_tells_which_objects_are_gzip_and_gives_them_as_they_are_stored(
    tmp_path: Path,
) -> None:
    with GcsServer() as bucket:
        for name, content in packed(below("imagenet/1", FILES)).items():
            bucket.put(name, content)
            bucket.gzipped.add(name)
        source = GcsSource(
            [parse_uri("gs://models/imagenet")],
            endpoint=bucket.url,
            anonymous=True,
            credentials=Credentials(),
        )
        world = World(tmp_path, source=source)
        world.settle()
        source.close()
    assert world.base() == {"1": FILES}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (gzip.compress(b"x" * 70_000_000), VersionReason.ARCHIVE_TOO_LARGE),
        (gzip.compress(b"x" * 5000)[:-9], VersionReason.BAD_ARCHIVE),
        (gzip.compress(b"x") + b"more", VersionReason.BAD_ARCHIVE),
    ],
    # What gzip writes has the time in it, and so would the tests' names.
    ids=["a bomb", "cut", "more behind it"],
)
def test_gzip_that_is_damaged_or_a_bomb_is_quarantined(
    tmp_path: Path, content: bytes, reason: VersionReason
) -> None:
    world = World(tmp_path, source=(source := Gzipped()))
    source.put_all(packed(below("1", FILES)))
    source.put("1/assets.extra/x", content)
    world.settle()
    version = world.version(1)
    assert (version.state, version.reason) == (VersionState.QUARANTINED, reason)
    assert (
        "gs://models/imagenet/1/assets.extra/x is stored with Content-Encoding" in version.message
    )
    assert not world.staged()


def test_what_is_small_is_unpacked_on_a_small_volume(tmp_path: Path) -> None:
    (tmp_path / "packed").write_bytes(gzip.compress(FILES["saved_model.pb"] * 100))
    granted: list[int] = []
    decoding.decode(
        tmp_path / "packed",
        tmp_path / "plain",
        origin="1/saved_model.pb",
        room=granted.append,
        stopped=lambda: False,
        limits=Limits(),
    )
    size = (tmp_path / "plain").stat().st_size
    assert 0 < sum(granted) <= 2 * size
