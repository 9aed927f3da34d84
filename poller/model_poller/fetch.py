"""Downloading objects in parallel ranges, each checked against the store's own checksum."""

from __future__ import annotations

import os
import random
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import google_crc32c

from model_poller.crc32c import combine
from model_poller.errors import CorruptDownloadError, PollerError, StoppedError, UnreachableError
from model_poller.metrics import METRICS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from model_poller.sources import Source, StoredObject

PART_BYTES = 16 << 20
"""Sizes from 8 to 32 MiB are equally fast on loopback; larger parts cost more when repeated."""
WORKERS = 4
_BUFFER_BYTES = 1 << 20
_ATTEMPTS = 5
_FIRST_DELAY_SECONDS = 0.2
_PART_SECONDS = 300.0
"""A part that takes longer, for all that bytes still trickle in, is asked for anew."""


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """How much of the network a fetch may take."""

    parallelism: int = WORKERS
    """Ranges read at once."""
    bandwidth: float | None = None
    """Bytes a second over all ranges; None: no limit."""


@dataclass(slots=True)
class _Part:
    stored: StoredObject
    target: Path
    start: int
    length: int


@dataclass(slots=True)
class _Sums:
    """The checksums of an object's parts, until all are there."""

    missing: int
    by_start: dict[int, tuple[int, int]] = field(default_factory=dict)


def download(
    source: Source,
    targets: Mapping[Path, StoredObject],
    *,
    stopped: threading.Event,
    progress: Callable[[int], None],
) -> None:
    """Write each object to its path; the paths must not exist, their folders are made.

    ``progress`` is called from several threads with the number of bytes just written, negative
    where a part has to be read again.

    Raises:
        StoppedError: ``stopped`` was set.
        CorruptDownloadError, ObjectChangedError, AccessDeniedError, UnreachableError, OSError
    """
    _Download(source, targets, stopped, progress).run()


class _Download:
    def __init__(
        self,
        source: Source,
        targets: Mapping[Path, StoredObject],
        stopped: threading.Event,
        progress: Callable[[int], None],
    ) -> None:
        self._source = source
        self._stopped = stopped
        self._progress = progress
        self._lock = threading.Lock()
        self._failure: BaseException | None = None
        self._halt = threading.Event()
        self._parts: deque[_Part] = deque()
        self._sums: dict[Path, _Sums] = {}
        for target, stored in targets.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.touch(exist_ok=False)
            starts = range(0, stored.size, PART_BYTES)
            self._sums[target] = _Sums(len(starts))
            self._parts.extend(
                _Part(stored, target, start, min(PART_BYTES, stored.size - start))
                for start in starts
            )

    def run(self) -> None:
        workers = [
            threading.Thread(target=self._work, name=f"download-{i}", daemon=True)
            for i in range(min(WORKERS, len(self._parts)))
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        if self._failure:
            raise self._failure

    def _work(self) -> None:
        buffer = memoryview(bytearray(_BUFFER_BYTES))
        try:
            while not self._halt.is_set():
                try:
                    part = self._parts.popleft()
                except IndexError:
                    return
                self._finish(part, self._fetch_patiently(part, buffer))
        except BaseException as error:  # noqa: BLE001 - raised again by `run`
            with self._lock:
                self._failure = self._failure or error
            self._halt.set()

    def _fetch_patiently(self, part: _Part, buffer: memoryview) -> int:
        for attempt in range(_ATTEMPTS):
            try:
                return self._fetch(part, buffer)
            except UnreachableError:
                if attempt == _ATTEMPTS - 1:
                    raise
                delay = _FIRST_DELAY_SECONDS * 2**attempt
                self._stopped.wait(delay * random.uniform(0.5, 1.5))  # noqa: S311
        raise AssertionError

    def _fetch(self, part: _Part, buffer: memoryview) -> int:
        stored = part.stored
        checksum = done = 0
        deadline = time.monotonic() + _PART_SECONDS
        file = os.open(part.target, os.O_WRONLY | os.O_CLOEXEC)
        try:
            with self._source.open_range(stored, part.start, part.length) as body:
                while done < part.length:
                    if self._stopped.is_set() or self._halt.is_set():
                        raise StoppedError(f"fetching {stored.url} was given up")
                    if time.monotonic() > deadline:
                        raise UnreachableError(
                            f"{stored.url}: {done} of {part.length} bytes came in"
                            f" {_PART_SECONDS:.0f} s; the rest is asked for anew"
                        )
                    chunk = buffer[: body.readinto(buffer)]
                    checksum = google_crc32c.extend(checksum, bytes(chunk))
                    _write(file, chunk, part.start + done)
                    done += len(chunk)
                    self._progress(len(chunk))
                    METRICS.fetched_bytes.inc(len(chunk))
        except PollerError:
            self._progress(-done)
            raise
        finally:
            os.close(file)
        return checksum

    def _finish(self, part: _Part, checksum: int) -> None:
        with self._lock:
            sums = self._sums[part.target]
            sums.by_start[part.start] = checksum, part.length
            sums.missing -= 1
            if sums.missing or part.stored.crc32c is None:
                return
        whole = 0
        for _, (piece, length) in sorted(sums.by_start.items()):
            whole = combine(whole, piece, length)
        if whole != part.stored.crc32c:
            raise CorruptDownloadError(
                f"{part.stored.url}: the bytes that came have crc32c {whole:08x}, the store says"
                f" {part.stored.crc32c:08x}; it is fetched again"
            )


def _write(file: int, data: memoryview, offset: int) -> None:
    while data:
        written = os.pwrite(file, data, offset)
        data, offset = data[written:], offset + written
