"""One version's way to the volume: whole, checked, and going on where an earlier try ended."""

from __future__ import annotations

import os
import shutil
import threading
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from model_poller import fetch
from model_poller.bring import Bringer, Demands
from model_poller.errors import (
    BrokenVersionError,
    CorruptDownloadError,
    IncompleteVersionError,
    StoppedError,
    UnreachableError,
)
from model_poller.fetch import FetchLimits
from model_poller.status import VersionReason
from model_poller.versions import StoredVersion, discover
from model_poller.volume.store import Store, _occupied
from tests.unit.poller.doubles import MemorySource, model, zipped

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from model_poller.stores import ByteRange, StoredObject

PARTS = 40


@pytest.fixture(autouse=True)
def _small_parts_and_no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "PART_BYTES", 1000)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "imagenet", tmp_path)
    made.prepare()
    return made


@pytest.fixture
def source() -> MemorySource:
    return MemorySource()


def stored_version(source: MemorySource, number: int = 1) -> StoredVersion:
    found = discover(source.list(), {})
    return discover(source.list(), {n: v.fingerprint for n, v in found.items()})[number]


def bring(source: MemorySource, store: Store, number: int = 1, **options: object) -> int:
    """Bring a version; returns how many bytes were told of."""
    told = [0]
    lock = threading.Lock()

    def progress(count: int) -> None:
        with lock:
            told[0] += count

    kit = Bringer(source, store, **options)  # type: ignore[arg-type]
    kit.bring(stored_version(source, number), stopped=threading.Event(), progress=progress)
    return told[0]


def upload_folder(source: MemorySource) -> dict[str, bytes]:
    files = {**model(), "variables/variables.data-00000-of-00001": os.urandom(PARTS * 1000)}
    source.put_all({f"1/{name}": content for name, content in files.items()})
    return files


def upload_archive(source: MemorySource) -> dict[str, bytes]:
    files = {**model(), "variables/variables.data-00000-of-00001": os.urandom(PARTS * 1000)}
    source.put("1.zip", zipped(files))
    return files


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("upload", [upload_folder, upload_archive])
def test_a_fetch_that_broke_off_goes_on_where_it_ended(
    upload: object, source: MemorySource, store: Store, tmp_path: Path
) -> None:
    files = upload(source)  # type: ignore[operator]
    source.fail_after(20, UnreachableError("gone"))
    with pytest.raises(UnreachableError):
        bring(source, store, fetch_limits=FetchLimits(parallelism=1))
    source.fail_after(None)
    before, source.requests = source.requests, []

    # Another process on the same volume.
    store = Store(tmp_path / "imagenet", tmp_path)
    store.prepare()
    told = bring(source, store)

    assert content(tmp_path / ".retained" / "1") == files
    assert told == stored_version(source).size
    assert set(before[:20]).isdisjoint(source.requests)
    assert list((tmp_path / ".staging").iterdir()) == []


def test_bytes_that_a_power_cut_took_are_fetched_again(
    source: MemorySource, store: Store, tmp_path: Path
) -> None:
    files = upload_folder(source)
    source.fail_after(20, UnreachableError("gone"))
    with pytest.raises(UnreachableError):
        bring(source, store)
    source.fail_after(None)
    for path in (tmp_path / ".staging").rglob("variables.data*"):
        path.write_bytes(bytes(path.stat().st_size // 2))

    bring(source, store)

    assert content(tmp_path / ".retained" / "1") == files


def test_what_is_left_of_a_fetch_goes_with_the_next_other_one(
    source: MemorySource, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def usage(_: object) -> SimpleNamespace:
        """Of a disk that nobody else writes to."""
        return SimpleNamespace(total=1 << 40, free=(1 << 40) - _occupied(tmp_path))

    monkeypatch.setattr(shutil, "disk_usage", usage)
    upload_folder(source)
    source.fail_after(20, UnreachableError("gone"))
    with pytest.raises(UnreachableError):
        bring(source, store)
    source.fail_after(None)
    source.put_all({f"2/{name}": data for name, data in model().items()})
    free_with_leftovers, _ = store.space()
    before = _occupied(tmp_path) - _occupied(tmp_path / ".staging")

    bring(source, store, 2)

    assert list((tmp_path / ".staging").iterdir()) == []
    more = _occupied(tmp_path) - before
    assert free_with_leftovers - store.space()[0] == more, "leftovers counted as free"


def test_only_one_unfinished_fetch_outlives_a_start(store: Store, tmp_path: Path) -> None:
    for number in (1, 2, 3):
        folder = tmp_path / ".staging" / f"{number}-abc"
        folder.mkdir()
        os.utime(folder, (number, number))
    store.prepare()
    assert [path.name for path in (tmp_path / ".staging").iterdir()] == ["3-abc"]


def test_an_archive_is_unpacked_while_it_arrives(
    source: MemorySource, store: Store, tmp_path: Path
) -> None:
    # The end of a zip archive, where its directory is, is read first.
    weights = {"variables/variables.data-00000-of-00001": os.urandom(300_000)}
    source.put("1.zip", zipped({**model(), **weights}))
    seen = []

    @contextmanager
    def open_range(stored: StoredObject, start: int, length: int) -> Iterator[ByteRange]:
        if start == 200_000:
            for _ in range(10_000):
                if list((tmp_path / ".staging").rglob("saved_model.pb")):
                    seen.append(start)
                    break
                threading.Event().wait(0.001)
        with MemorySource.open_range(source, stored, start, length) as body:
            yield body

    source.open_range = open_range  # type: ignore[method-assign, assignment]
    bring(source, store)
    assert seen


def test_an_archive_damaged_on_its_way_is_not_the_versions_fault(
    source: MemorySource, store: Store
) -> None:
    upload_archive(source)
    source.corrupt = PARTS
    with pytest.raises(CorruptDownloadError):
        bring(source, store)


def test_a_broken_archive_is(source: MemorySource, store: Store) -> None:
    source.put("1.zip", b"no archive" * 500)
    with pytest.raises(BrokenVersionError) as caught:
        bring(source, store)
    assert caught.value.reason is VersionReason.BAD_ARCHIVE


def test_a_fetch_can_be_given_up(source: MemorySource, store: Store) -> None:
    upload_archive(source)
    stopped = threading.Event()
    stopped.set()
    with pytest.raises(StoppedError):
        Bringer(source, store).bring(
            stored_version(source), stopped=stopped, progress=lambda _: None
        )


def test_a_required_manifest_is_missed(source: MemorySource, store: Store) -> None:
    upload_folder(source)
    with pytest.raises(IncompleteVersionError) as caught:
        bring(source, store, demands=Demands(manifest=True))
    assert caught.value.reason is VersionReason.MISSING_MANIFEST


def test_a_limit_spreads_bytes_over_time() -> None:
    throttle = fetch._Throttle(1000)
    assert throttle.delay(500) == pytest.approx(0.5, abs=0.2)
    assert throttle.delay(1000) == pytest.approx(1.5, abs=0.2)


class Mounted(MemorySource):
    """Versions on a mounted volume."""

    def __init__(self, mount: Path) -> None:
        super().__init__()
        self.mount = mount

    def write(self, number: int) -> None:
        for name, data in model().items():
            path = self.mount / str(number) / name  # type: ignore[operator]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            self.put(f"{number}/{name}", data)


@pytest.fixture
def mounted(tmp_path: Path) -> Mounted:
    return Mounted(tmp_path / "claim")


def test_a_version_on_a_mounted_volume_is_linked_and_its_files_never_touched(
    mounted: Mounted, store: Store
) -> None:
    mounted.write(1)
    assert bring(mounted, store) == 0
    store.publish(1)

    served = store.base / "1"
    assert served.is_symlink()
    assert content(served) == content(mounted.mount / "1")  # type: ignore[operator]
    store.retire(1)
    store.remove(1)
    assert store.scan().complete == set()
    assert content(mounted.mount / "1") == model()  # type: ignore[operator]


def test_an_incomplete_version_on_a_mounted_volume_is_not_linked(
    mounted: Mounted, store: Store
) -> None:
    mounted.write(1)
    (mounted.mount / "1" / "variables" / "variables.index").unlink()  # type: ignore[operator]
    with pytest.raises(IncompleteVersionError):
        bring(mounted, store)
    assert store.scan().complete == set()


def test_a_link_to_what_is_gone_stays_while_it_is_served_and_goes_with_the_next_start(
    mounted: Mounted, store: Store
) -> None:
    mounted.write(1)
    bring(mounted, store)
    store.publish(1)
    (mounted.mount / "1").rename(mounted.mount / "elsewhere")  # type: ignore[operator]

    assert store.scan().published.keys() == {1}
    store.prepare()
    assert store.scan().complete == set()
    assert not os.path.lexists(store.base / "1")
