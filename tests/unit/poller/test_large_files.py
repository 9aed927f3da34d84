"""Files of five gigabytes, whose zeros come from nowhere and lie in the holes of sparse files."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import pytest

from model_poller import fetch
from model_poller.checks.crc32c import combine
from model_poller.errors import CorruptDownloadError, UnreachableError
from model_poller.fetch import download
from model_poller.stores import StoredObject
from model_poller.stores.uri import parse_uri
from model_poller.volume.journal import Journal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from model_poller.stores import Source

GB = 10**9
SIZE = 5 * GB
FILES = 4 if "LONG" in os.environ else 1


def of_zeros(size: int) -> int:
    """The CRC-32C of so many zeros."""
    found, block, length = 0, 0x527D5351, 1  # 0x527D5351 is that of one
    while size:
        if size & 1:
            found = combine(found, block, length)
        block, length, size = combine(block, block, length), 2 * length, size >> 1
    return found


class Zeros:
    """A range of an object; the reader's buffer holds zeros already."""

    validators: Mapping[str, str] = {}
    is_listed = True

    def __init__(self, left: int) -> None:
        self.left = left

    def readinto(self, buffer: memoryview) -> int:
        count = min(len(buffer), self.left)
        self.left -= count
        return count


@dataclass
class Store:
    """Gives ranges until its connection is cut for good."""

    cut_after: float = float("inf")
    given: int = 0
    starts: list[int] = field(default_factory=list)

    def describe(self, stored: StoredObject) -> StoredObject:
        return stored

    @contextmanager
    def open_range(self, _: StoredObject, start: int, length: int) -> Iterator[Zeros]:
        if self.given >= self.cut_after:
            raise UnreachableError("the cable was cut")
        self.given += length
        self.starts.append(start)
        yield Zeros(length)


@pytest.fixture(autouse=True)
def _sparse(monkeypatch: pytest.MonkeyPatch) -> None:
    def write(file: int, data: memoryview, offset: int) -> None:
        os.pwrite(file, data[-1:], offset + len(data) - 1)

    monkeypatch.setattr(fetch, "_write", write)


def objects(folder: Path, crc32c: int) -> dict[Path, StoredObject]:
    place = parse_uri("gs://models/large")
    return {
        folder / f"weights-{i}": StoredObject(place, f"1/weights-{i}", SIZE, "g", crc32c=crc32c)
        for i in range(FILES)
    }


def bring(store: Store, targets: Mapping[Path, StoredObject], folder: Path) -> int:
    """Fetch, and tell how many bytes were said to come."""
    counts: list[int] = []
    with Journal(folder) as journal:
        download(
            cast("Source", store),
            targets,
            stopped=threading.Event(),
            progress=counts.append,
            journal=journal,
        )
    return sum(counts)


def test_files_beyond_what_32_bits_can_count_come_whole_and_go_on_after_a_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hasty: Any = fetch.RETRIES
    monkeypatch.setattr(fetch, "RETRIES", type(hasty)(2, 0.01, 0.01))
    targets = objects(tmp_path, of_zeros(SIZE))
    cut = Store(cut_after=FILES * SIZE * 0.8)
    with pytest.raises(UnreachableError, match="cut"):
        bring(cut, targets, tmp_path)
    again = Store()
    assert bring(again, targets, tmp_path) == FILES * SIZE
    assert max(cut.starts + again.starts) > 1 << 32
    # Parts that were under way at the cut are all that came twice.
    assert FILES * SIZE <= cut.given + again.given <= FILES * SIZE + 8 * fetch.PART_BYTES
    assert all(path.stat().st_size == SIZE for path in targets)
    # One block of each buffer: the file system keeps the rest as a hole.
    assert sum(path.stat().st_blocks * 512 for path in targets) < FILES * SIZE / 20


def test_a_byte_that_is_another_one_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{__name__}.SIZE", GB)
    targets = objects(tmp_path, of_zeros(GB) ^ 1)
    with pytest.raises(CorruptDownloadError, match="crc32c"):
        bring(Store(), targets, tmp_path)
