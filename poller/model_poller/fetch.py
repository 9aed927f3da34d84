"""Downloading objects in parallel ranges, each checked against the store's own checksum."""

from __future__ import annotations

import hashlib
import io
import os
import random
import threading
import time
import zlib
from collections import deque
from dataclasses import dataclass, field
from itertools import chain, zip_longest
from typing import TYPE_CHECKING

import google_crc32c

from model_poller.checks.crc32c import combine
from model_poller.errors import CorruptDownloadError, PollerError, StoppedError, UnreachableError
from model_poller.metrics import METRICS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from typing import Self

    from model_poller.stores import Source, StoredObject
    from model_poller.volume.journal import Journal

PART_BYTES = 16 << 20
"""Sizes from 8 to 32 MiB are equally fast on loopback; larger parts cost more when repeated."""
WORKERS = 4
"""Ranges read at once, unless told otherwise: more gain nothing on one machine's network."""
SMALL_BYTES = 1 << 20
SMALL_WORKERS = 16
"""For objects that are small on the average: the time goes into waiting for answers."""
_BUFFER_BYTES = 1 << 19
_ATTEMPTS = 5
_FIRST_DELAY_SECONDS = 0.2
_LONGEST_DELAY_SECONDS = 30.0
_GLANCE_SECONDS = 0.2
"""A worker that waits sees so late that another one has failed."""
_PART_SECONDS = 300.0
"""Where a part takes longer, for all that bytes still trickle in, the rest is asked for anew.

What a server gives only as a whole may take as long as its parts would.
"""
_GAIN_BYTES = 1 << 20
"""A try that brought so much is no failure: what cuts every connection is no reason to give up."""


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """How much of the network a fetch may take."""

    parallelism: int | None = None
    """Ranges read at once; None: as many as are worth it."""
    bandwidth: float | None = None
    """Bytes a second over all ranges; None: no limit."""


@dataclass(slots=True)
class _Target:
    """An object on its way to a file."""

    stored: StoredObject
    path: Path
    part_bytes: int
    missing: int
    """Parts to go."""
    sums: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Checksum and length of the parts that are there, by where they start."""


@dataclass(slots=True)
class _Part:
    target: _Target
    start: int
    length: int
    done: int = 0
    """Bytes of it that are written, and the checksum of these."""
    checksum: int = 0


def download(
    source: Source,
    targets: Mapping[Path, StoredObject],
    *,
    stopped: threading.Event,
    progress: Callable[[int], None],
    limits: FetchLimits = FetchLimits(),
    journal: Journal | None = None,
) -> None:
    """Write each object to its path; the folders are made. See `Download`.

    Raises:
        StoppedError: ``stopped`` was set.
        CorruptDownloadError, ObjectChangedError, AccessDeniedError, UnreachableError, OSError
    """
    arguments = {"stopped": stopped, "progress": progress, "limits": limits, "journal": journal}
    with Download(source, targets, **arguments) as running:  # type: ignore[arg-type]
        running.finish()


class Download:
    """Objects on their way to files. Leaving the context ends the work, whether done or not.

    ``progress`` is called from several threads with the number of bytes just written, negative
    where they have to be read again. ``tail_first`` asks for each object's end before the rest.
    """

    def __init__(
        self,
        source: Source,
        targets: Mapping[Path, StoredObject],
        *,
        stopped: threading.Event,
        progress: Callable[[int], None],
        limits: FetchLimits,
        journal: Journal | None,
        tail_first: bool = False,
    ) -> None:
        self._source = source
        self._stopped = stopped
        self._progress = progress
        self._journal = journal
        self._throttle = _Throttle(limits.bandwidth) if limits.bandwidth else None
        self._changed = threading.Condition()
        self._failure: BaseException | None = None
        self._halted = False
        self._targets: dict[Path, _Target] = {}
        each: list[list[_Part]] = []
        for path, stored in targets.items():
            part_bytes = PART_BYTES if stored.in_ranges else max(stored.size, 1)
            starts = range(0, max(stored.size, 1), part_bytes)
            target = self._targets[path] = _Target(stored, path, part_bytes, len(starts))
            parts = [_Part(target, at, min(part_bytes, stored.size - at)) for at in starts]
            if tail_first:
                parts.insert(0, parts.pop())
            each.append(parts)
        # In turn: the system lets only one worker at a time write to a file.
        in_turn = chain.from_iterable(zip_longest(*each))
        self._parts = deque(part for part in in_turn if part)
        for folder in {path.parent for path in targets}:
            folder.mkdir(parents=True, exist_ok=True)
        largest = max((part.length for part in self._parts), default=0)
        self._buffer_bytes = max(1, min(_BUFFER_BYTES, largest))
        self._workers = [
            threading.Thread(target=self._work, name=f"download-{i}", daemon=True)
            for i in range(min(limits.parallelism or self._worth(), len(self._parts)))
        ]

    def _worth(self) -> int:
        average = sum(part.length for part in self._parts) / max(len(self._parts), 1)
        return SMALL_WORKERS if average < SMALL_BYTES else WORKERS

    def __enter__(self) -> Self:
        for worker in self._workers:
            worker.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._halted = True
            self._changed.notify_all()
        for worker in self._workers:
            worker.join()

    def finish(self) -> None:
        """Wait until all is there and checked.

        Raises:
            As `download`.
        """
        for worker in self._workers:
            worker.join()
        if self._failure:
            raise self._failure

    def arriving(self, path: Path) -> ArrivingFile:
        """Read one of the files while it is written."""
        return ArrivingFile(self, self._targets[path])

    def wait_for(self, target: _Target, offset: int) -> int:
        """Wait for the part at ``offset``, before all others; returns where it ends.

        Raises:
            As `download`.
        """
        start = offset - offset % target.part_bytes
        with self._changed:
            if start not in target.sums:
                for part in self._parts:
                    if part.target is target and part.start == start:
                        self._parts.remove(part)
                        self._parts.appendleft(part)
                        break
            # The workers' own deadlines end this wait.
            while start not in target.sums:
                if self._failure:
                    raise self._failure
                if self._halted:
                    raise StoppedError(f"fetching {target.stored.url} was given up")
                self._changed.wait()
            return start + target.sums[start][1]

    def _work(self) -> None:
        buffer = memoryview(bytearray(self._buffer_bytes))
        try:
            while not self._halted:
                with self._changed:
                    if not self._parts:
                        return
                    part = self._parts.popleft()
                checksum = self._recall(part, buffer)
                if checksum is None:
                    checksum = self._fetch_patiently(part, buffer)
                self._finish(part, checksum)
        except BaseException as error:  # noqa: BLE001 - raised again by `finish`
            with self._changed:
                self._failure = self._failure or error
                self._halted = True
                self._changed.notify_all()

    def _recall(self, part: _Part, buffer: memoryview) -> int | None:
        """The checksum of a part that an earlier run wrote, if its bytes are really there."""
        known = self._journal and self._journal.recall(part.target.path, part.start, part.length)
        if not known:
            return None
        checksum = done = 0
        try:
            file = os.open(part.target.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            while done < part.length:
                count = os.preadv(file, [buffer[: part.length - done]], part.start + done)
                if not count:
                    return None
                checksum = google_crc32c.extend(checksum, bytes(buffer[:count]))
                done += count
        finally:
            os.close(file)
        if checksum != known.crc32c:
            return None
        self._progress(part.length)
        return checksum

    def _fetch_patiently(self, part: _Part, buffer: memoryview) -> int:
        failures = 0
        while True:
            before = part.done
            try:
                return self._fetch(part, buffer)
            except UnreachableError as error:
                failures = 1 if part.done - before >= _GAIN_BYTES else failures + 1
                if failures == _ATTEMPTS:
                    raise
                jitter = random.uniform(0.5, 1.5)  # noqa: S311
                delay = _FIRST_DELAY_SECONDS * 2 ** (failures - 1) * jitter
                delay = min(max(delay, error.retry_after), _LONGEST_DELAY_SECONDS)
                self._pause(delay)

    def _fetch(self, part: _Part, buffer: memoryview) -> int:
        """Go on with a part from where an earlier try ended; returns its checksum."""
        stored = part.target.stored
        allowed = _PART_SECONDS * max(1.0, part.length / PART_BYTES)
        deadline = time.monotonic() + allowed
        file = os.open(part.target.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            if not part.length:
                return 0
            with self._source.open_range(
                stored, part.start + part.done, part.length - part.done
            ) as body:
                while part.done < part.length:
                    if self._stopped.is_set() or self._halted:
                        raise StoppedError(f"fetching {stored.url} was given up")
                    if time.monotonic() > deadline:
                        raise UnreachableError(
                            f"{stored.url}: {part.done} of {part.length} bytes came in"
                            f" {allowed:.0f} s; the rest is asked for anew"
                        )
                    chunk = buffer[: body.readinto(buffer)]
                    _write(file, chunk, part.start + part.done)
                    part.checksum = google_crc32c.extend(part.checksum, bytes(chunk))
                    part.done += len(chunk)
                    self._progress(len(chunk))
                    METRICS.fetched_bytes.inc(len(chunk))
                    if self._throttle:
                        pause = self._throttle.delay(len(chunk))
                        deadline += pause
                        self._pause(pause)
        except PollerError:
            if not stored.in_ranges:
                self._progress(-part.done)
                part.done = part.checksum = 0
            raise
        finally:
            os.close(file)
        if self._journal:
            self._journal.note(part.target.path, part.start, part.length, part.checksum)
        return part.checksum

    def _pause(self, seconds: float) -> None:
        """Wait, unless the work is given up meanwhile."""
        until = time.monotonic() + seconds
        while not self._halted and (left := until - time.monotonic()) > 0:
            if self._stopped.wait(min(left, _GLANCE_SECONDS)):
                return

    def _finish(self, part: _Part, checksum: int) -> None:
        target = part.target
        with self._changed:
            target.sums[part.start] = checksum, part.length
            target.missing -= 1
            self._changed.notify_all()
            if target.missing:
                return
        _check(self._source.describe(target.stored), target)


def _check(stored: StoredObject, target: _Target) -> None:
    """Compare a whole file with what the store says of the object.

    Raises:
        CorruptDownloadError
    """
    if stored.crc32c is not None:
        whole = 0
        for _, (piece, length) in sorted(target.sums.items()):
            whole = combine(whole, piece, length)
        found, told, kind = f"{whole:08x}", f"{stored.crc32c:08x}", "crc32c"
    elif stored.crc64nvme is not None:
        # Told by S3 alone, whose module has loaded this library for its signatures.
        from awscrt.checksums import crc64nvme

        found, told = f"{_running(crc64nvme, target.path):016x}", f"{stored.crc64nvme:016x}"
        kind = "CRC64NVME"
    elif stored.crc32 is not None:
        found, told = f"{_running(zlib.crc32, target.path):08x}", f"{stored.crc32:08x}"
        kind = "CRC32"
    elif stored.md5 is not None:
        with target.path.open("rb") as file:
            found = hashlib.file_digest(file, _md5).hexdigest()
        told, kind = stored.md5.hex(), "MD5"
    else:
        return
    if found != told:
        raise CorruptDownloadError(
            f"{stored.url}: the bytes that came have {kind} {found}, the store says {told}; it is"
            " fetched again"
        )


def _running(extend: Callable[[bytes, int], int], path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while piece := file.read(_BUFFER_BYTES):
            value = extend(piece, value)
    return value


def _md5() -> hashlib._Hash:
    return hashlib.md5(usedforsecurity=False)


class ArrivingFile(io.RawIOBase):
    """A file that is still being downloaded: a read waits until its bytes are there.

    Reads raise what the download raises. Nothing is checked but that the bytes arrived: the whole
    is compared with the store's checksum at the download's end.
    """

    def __init__(self, running: Download, target: _Target) -> None:
        super().__init__()
        self._running = running
        self._target = target
        self._position = 0
        self._there = range(0)
        """What is known to be there around the position."""
        self._file: int | None = None

    def readable(self) -> bool:
        """See `io.IOBase.readable`."""
        return True

    def seekable(self) -> bool:
        """See `io.IOBase.seekable`."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """See `io.IOBase.seek`."""
        origin = {
            os.SEEK_SET: 0,
            os.SEEK_CUR: self._position,
            os.SEEK_END: self._target.stored.size,
        }
        position = origin[whence] + offset
        if position < 0:
            raise ValueError(f"negative position {position}")
        self._position = position
        return position

    def tell(self) -> int:
        """See `io.IOBase.tell`."""
        return self._position

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Fill a part of ``buffer``; 0 at the file's end."""
        view = memoryview(buffer).cast("B")
        if self._position >= self._target.stored.size or not view:
            return 0
        if self._position not in self._there:
            end = self._running.wait_for(self._target, self._position)
            self._there = range(self._position, end)
        if self._file is None:
            self._file = os.open(self._target.path, os.O_RDONLY | os.O_CLOEXEC)
        wanted = view[: self._there.stop - self._position]
        count = os.preadv(self._file, [wanted], self._position)
        self._position += count
        return count

    def close(self) -> None:
        """See `io.IOBase.close`."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
        super().close()


class _Throttle:
    """Spreads bytes over time, for all who share it."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._lock = threading.Lock()
        self._free_at = time.monotonic()

    def delay(self, count: int) -> float:
        """Seconds to wait after ``count`` bytes."""
        with self._lock:
            now = time.monotonic()
            self._free_at = max(self._free_at, now) + count / self._rate
            return self._free_at - now


def _write(file: int, data: memoryview, offset: int) -> None:
    while data:
        written = os.pwrite(file, data, offset)
        data, offset = data[written:], offset + written
