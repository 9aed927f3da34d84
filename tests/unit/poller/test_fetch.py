"""Downloading in ranges."""

from __future__ import annotations

import hashlib
import os
import threading
import zlib
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import google_crc32c
import pytest
from awscrt.checksums import crc64nvme
from hypothesis import given
from hypothesis import strategies as st

from model_poller import fetch
from model_poller.checks.crc32c import combine
from model_poller.errors import (
    AccessDeniedError,
    CorruptDownloadError,
    ObjectChangedError,
    StoppedError,
    UnreachableError,
)
from model_poller.fetch import FetchLimits
from tests.unit.poller.doubles import Clock, MemorySource

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from model_poller.stores import ByteRange, StoredObject

NO_LIMITS = FetchLimits()


@pytest.fixture(autouse=True)
def _small_parts_and_no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "PART_BYTES", 1000)
    monkeypatch.setattr(fetch, "_BUFFER_BYTES", 300)


class Progress:
    def __init__(self) -> None:
        self.total = 0
        self._lock = threading.Lock()

    def __call__(self, count: int) -> None:
        with self._lock:
            self.total += count


def run(
    source: MemorySource,
    folder: Path,
    stopped: threading.Event | None = None,
    limits: FetchLimits = NO_LIMITS,
) -> Progress:
    progress = Progress()
    fetch.download(
        source,
        {folder / stored.path: stored for stored in source.list()},
        stopped=stopped or threading.Event(),
        progress=progress,
        limits=limits,
    )
    return progress


@given(first=st.binary(max_size=300), second=st.binary(max_size=300))
def test_checksums_of_pieces_combine_to_that_of_the_whole(first: bytes, second: bytes) -> None:
    pieces = google_crc32c.value(first), google_crc32c.value(second)
    assert combine(*pieces, len(second)) == google_crc32c.value(first + second)


def test_objects_of_any_size_arrive_whole(tmp_path: Path) -> None:
    source = MemorySource()
    for size in (0, 1, 999, 1000, 1001, 12_345):
        source.put(f"sub/{size}", os.urandom(size))
    progress = run(source, tmp_path)
    for path, (content, _) in source.objects.items():
        assert (tmp_path / path).read_bytes() == content
    assert progress.total == sum(len(content) for content, _ in source.objects.values())


def test_each_part_is_asked_for_once(tmp_path: Path) -> None:
    source = MemorySource()
    source.put("a", os.urandom(5500))
    run(source, tmp_path)
    assert sorted(source.requests) == [("a", s, min(1000, 5500 - s)) for s in range(0, 5500, 1000)]


def test_a_part_that_fails_is_fetched_again_and_counted_once(tmp_path: Path) -> None:
    source = MemorySource()
    source.put("a", os.urandom(5000))
    source.range_errors = [UnreachableError("503"), UnreachableError("reset")]
    progress = run(source, tmp_path)
    assert (tmp_path / "a").read_bytes() == source.objects["a"][0]
    assert progress.total == 5000
    assert len(source.requests) == 7


class Cutting(MemorySource):
    """A server whose every connection breaks after some bytes."""

    after = 200

    def open_range(self, stored: StoredObject, start: int, length: int) -> Any:
        whole = super().open_range(stored, start, length)

        @contextmanager
        def cut() -> Iterator[ByteRange]:
            with whole as body:
                left = self.after

                def readinto(buffer: memoryview) -> int:
                    nonlocal left
                    if not left:
                        raise UnreachableError("the connection broke")
                    count = body.readinto(buffer[: min(len(buffer), left)])
                    left -= count
                    return count

                yield SimpleNamespace(readinto=readinto, validators=body.validators, is_listed=True)

        return cut()


def test_a_part_goes_on_where_its_connection_broke(tmp_path: Path) -> None:
    source = Cutting()
    source.put("a", os.urandom(1000))
    progress = run(source, tmp_path)
    assert (tmp_path / "a").read_bytes() == source.objects["a"][0]
    assert [start for _, start, _ in source.requests] == [0, 200, 400, 600, 800]
    assert progress.total == 1000


def test_connections_that_break_after_much_are_no_reason_to_give_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "_GAIN_BYTES", 100)
    source = Cutting()
    source.after = 100
    source.put("a", os.urandom(1000))
    run(source, tmp_path)
    assert (tmp_path / "a").read_bytes() == source.objects["a"][0]
    source.after = 99
    with pytest.raises(UnreachableError):
        run(source, tmp_path / "again")


def test_what_comes_only_whole_is_begun_anew(tmp_path: Path) -> None:
    source = Cutting()
    source.put("a", os.urandom(1000))
    progress = Progress()
    whole = {tmp_path / "a": replace(source.list()[0], in_ranges=False)}
    with pytest.raises(UnreachableError):
        fetch.download(source, whole, stopped=threading.Event(), progress=progress)
    assert source.requests == [("a", 0, 1000)] * 5
    assert progress.total == 0


def test_calls_for_a_part_that_never_comes_are_bounded(tmp_path: Path) -> None:
    source = MemorySource()
    source.put("a", b"x" * 10)
    source.range_errors = [UnreachableError("503")] * 100
    with pytest.raises(UnreachableError):
        run(source, tmp_path)
    assert len(source.requests) == 5


def test_damaged_bytes_are_noticed(tmp_path: Path) -> None:
    source = MemorySource()
    source.put("a", os.urandom(5000))
    source.corrupt = 1
    with pytest.raises(CorruptDownloadError, match=r"gs://models/imagenet/a.*crc32c"):
        run(source, tmp_path)


class Digest(MemorySource):
    """A bucket that tells another checksum than CRC-32C, and that only when it is asked."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self._kind = kind

    def list(self) -> list[StoredObject]:
        return [replace(stored, crc32c=None) for stored in super().list()]

    def describe(self, stored: StoredObject) -> StoredObject:
        content, _ = self.objects[stored.path]
        return {
            "CRC64NVME": lambda: replace(stored, crc64nvme=crc64nvme(content)),
            "CRC32": lambda: replace(stored, crc32=zlib.crc32(content)),
            "MD5": lambda: replace(
                stored, md5=hashlib.md5(content, usedforsecurity=False).digest()
            ),
        }[self._kind]()


@pytest.mark.parametrize("kind", ["CRC64NVME", "CRC32", "MD5"])
def test_whatever_checksum_a_store_tells_is_compared(tmp_path: Path, kind: str) -> None:
    source = Digest(kind)
    source.put("a", os.urandom(5000))
    run(source, tmp_path / "whole")
    source.corrupt = 1
    with pytest.raises(CorruptDownloadError, match=rf"gs://models/imagenet/a.* {kind} "):
        run(source, tmp_path / "damaged")


def test_an_object_that_was_replaced_is_not_mixed_with_the_new_one(tmp_path: Path) -> None:
    source = MemorySource()
    source.put("a", b"old")
    (stored,) = source.list()
    source.put("a", b"new")
    with pytest.raises(ObjectChangedError):
        fetch.download(
            source, {tmp_path / "a": stored}, stopped=threading.Event(), progress=Progress()
        )
    assert (tmp_path / "a").read_bytes() == b""


def test_a_refusal_is_not_repeated(tmp_path: Path) -> None:
    source = MemorySource()
    source.put("a", b"x")
    source.range_errors = [AccessDeniedError("no")] * 5
    with pytest.raises(AccessDeniedError):
        run(source, tmp_path)
    assert len(source.requests) == 1


def test_who_waits_for_another_try_gives_up_with_the_others(tmp_path: Path) -> None:
    source = MemorySource()
    source.put("a", os.urandom(2000))
    source.range_errors = [UnreachableError("429", retry_after=25.0), AccessDeniedError("no")]
    ended = threading.Event()

    def work() -> None:
        with pytest.raises(AccessDeniedError):
            run(source, tmp_path)
        ended.set()

    threading.Thread(target=work, daemon=True).start()
    assert ended.wait(15), "a worker slept on"


def test_a_trickle_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "_PART_SECONDS", -1.0)
    source = MemorySource()
    source.put("a", b"x" * 10)
    with pytest.raises(UnreachableError, match="0 of 10 bytes came in"):
        run(source, tmp_path)


class SlowRange:
    """Takes ten seconds for each byte."""

    validators: Mapping[str, str] = {}
    is_listed = True

    def __init__(self, body: ByteRange, clock: Clock) -> None:
        self._body = body
        self._clock = clock

    def readinto(self, buffer: memoryview) -> int:
        self._clock.now += 10.0
        return self._body.readinto(buffer[:1])


class SlowSource(MemorySource):
    """A web server that gives its files only as a whole, and slowly."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def list(self) -> list[StoredObject]:
        return [replace(stored, in_ranges=False) for stored in super().list()]

    @contextmanager
    def open_range(self, stored: StoredObject, start: int, length: int) -> Iterator[SlowRange]:  # type: ignore[override]
        with super().open_range(stored, start, length) as body:
            yield SlowRange(body, self._clock)


def test_a_file_that_comes_only_as_a_whole_may_take_as_long_as_its_parts_would(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(fetch, "time", SimpleNamespace(monotonic=clock))
    monkeypatch.setattr(fetch, "PART_BYTES", 10)
    source = SlowSource(clock)
    source.put("a", b"x" * 100)
    run(source, tmp_path)
    assert len(source.requests) == 1


def test_a_limit_of_the_bandwidth_is_no_reason_to_ask_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(fetch, "time", SimpleNamespace(monotonic=clock))

    class Patience(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            clock.now += timeout or 0.0
            return False

    source = SlowSource(clock)
    source.put("a", b"x" * 25)
    run(source, tmp_path, Patience(), FetchLimits(bandwidth=0.01))
    assert len(source.requests) == 1


def test_a_download_stops_when_it_is_told(tmp_path: Path) -> None:
    source = MemorySource()
    source.put("a", os.urandom(50_000))
    stopped = threading.Event()
    stopped.set()
    with pytest.raises(StoppedError):
        run(source, tmp_path, stopped)


class Noting(MemorySource):
    """Notes how much each answer is asked for at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: set[int] = set()

    def open_range(self, stored: StoredObject, start: int, length: int) -> Any:
        whole = super().open_range(stored, start, length)

        @contextmanager
        def noted() -> Iterator[ByteRange]:
            with whole as body:

                def readinto(buffer: memoryview) -> int:
                    self.asked.add(len(buffer))
                    return body.readinto(buffer)

                yield SimpleNamespace(readinto=readinto, validators=body.validators, is_listed=True)

        return noted()


@pytest.mark.parametrize(("parallelism", "piece"), [(1, 300), (4, 300), (5, 240), (32, 37)])
def test_the_buffers_of_all_workers_have_one_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parallelism: int, piece: int
) -> None:
    monkeypatch.setattr(fetch, "_BUFFERS_BYTES", 1200)
    source = Noting()
    source.put("a", os.urandom(5000))
    run(source, tmp_path, limits=FetchLimits(parallelism=parallelism))
    assert (tmp_path / "a").read_bytes() == source.objects["a"][0]
    assert source.asked == {piece}
