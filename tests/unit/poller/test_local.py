"""Versions in a folder of this machine."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from model_poller.errors import BucketNotFoundError, ObjectChangedError, UnreachableError
from model_poller.stores.local import LocalSource
from model_poller.stores.opening import SourceSettings, open_source
from model_poller.stores.uri import parse_uri
from tests.unit.poller.doubles import model

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def source(tmp_path: Path) -> LocalSource:
    return LocalSource(parse_uri(f"file://{tmp_path}"), tmp_path)


def write(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def test_a_listing_shows_what_versions_consist_of(source: LocalSource, tmp_path: Path) -> None:
    write(tmp_path / "0001", model())
    write(tmp_path, {"2.zip": b"zip", "notes.txt": b"no version", "logs/3/x": b"no version"})
    found = {stored.path: stored.size for stored in source.list()}
    assert found == {
        **{f"0001/{name}": len(content) for name, content in model().items()},
        "2.zip": 3,
    }
    assert {stored.url for stored in source.list()} == {f"file://{tmp_path}/{p}" for p in found}


def test_a_file_that_was_written_anew_has_another_generation(
    source: LocalSource, tmp_path: Path
) -> None:
    write(tmp_path, {"2.zip": b"one"})
    (before,) = source.list()
    write(tmp_path, {"2.zip": b"other"})
    (after,) = source.list()
    assert before.generation != after.generation
    with pytest.raises(ObjectChangedError), source.open_range(before, 0, 3):
        pass


def test_ranges_are_read(source: LocalSource, tmp_path: Path) -> None:
    write(tmp_path, {"2.zip": b"0123456789"})
    (stored,) = source.list()
    buffer = memoryview(bytearray(100))
    with source.open_range(stored, 3, 4) as body:
        assert bytes(buffer[: body.readinto(buffer)]) == b"3456"
        assert body.readinto(buffer) == 0


def test_a_file_that_shrinks_while_it_is_read_has_changed(
    source: LocalSource, tmp_path: Path
) -> None:
    write(tmp_path, {"2.zip": b"0123456789"})
    (stored,) = source.list()

    def read() -> None:
        with source.open_range(stored, 0, 10) as body:
            os.truncate(tmp_path / "2.zip", 0)
            body.readinto(memoryview(bytearray(10)))

    with pytest.raises(ObjectChangedError):
        read()


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    nowhere = LocalSource(parse_uri("pvc://claim/models"), tmp_path / "models")
    with pytest.raises(BucketNotFoundError, match=r"pvc://claim/models.*create it"):
        nowhere.list()


def test_a_version_that_goes_away_during_the_listing_is_no_missing_folder(
    source: LocalSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "1", model())
    really = os.scandir

    def gone(folder: object) -> object:
        if str(folder) == str(tmp_path / "1" / "variables"):
            raise FileNotFoundError(2, "No such file or directory", str(folder))
        return really(folder)  # type: ignore[call-overload]

    monkeypatch.setattr("os.scandir", gone)
    with pytest.raises(UnreachableError, match="variables went away"):
        source.list()


def test_what_is_no_file_is_no_archive(source: LocalSource, tmp_path: Path) -> None:
    (tmp_path / "1.zip").symlink_to(tmp_path / "nothing")
    os.mkfifo(tmp_path / "2.zip")
    (tmp_path / "3.zip").write_bytes(b"zip")
    assert [stored.path for stored in source.list()] == ["3.zip"]


def test_a_folder_that_can_not_be_read_is_unreachable(
    source: LocalSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stale(_: object) -> None:
        raise OSError(116, "Stale file handle")

    monkeypatch.setattr("os.scandir", stale)
    with pytest.raises(UnreachableError, match="Stale"):
        source.list()


def test_links_inside_of_a_version_lead_nowhere_else(source: LocalSource, tmp_path: Path) -> None:
    write(tmp_path / "1", model())
    (tmp_path / "1" / "up").symlink_to(tmp_path)
    assert {stored.path for stored in source.list()} == {f"1/{name}" for name in model()}


def test_a_claim_is_found_where_it_is_mounted(tmp_path: Path) -> None:
    settings = SourceSettings(locations=(parse_uri("pvc://claim/a/b"),), mount=tmp_path)
    assert open_source(settings).mount == tmp_path / "a" / "b"
    settings = SourceSettings(locations=(parse_uri("file:///srv/models"),))
    assert str(open_source(settings).mount) == "/srv/models"
