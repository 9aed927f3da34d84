"""Downloading objects in parallel ranges, each object checked against what its store says of it.

That is a checksum where there is one. Every answer says besides which object its bytes are of
(ETag, time, generation, size): what the listing showed, and the same as every other answer. What
no listing tells and no checksum proves is asked for a second time, when all is there.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import threading
import time
import zlib
from collections import deque
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, cast

from model_poller.checks.crc32c import CRC32, CRC32C, CRC64NVME, combine, crc32c
from model_poller.errors import (
    AccessDeniedError,
    CorruptDownloadError,
    ObjectChangedError,
    PollerError,
    StoppedError,
    UnreachableError,
)
from model_poller.metrics import METRICS
from model_poller.retry import RetryPolicy, Tries
from model_poller.stores import AsksAhead, TellsInReading

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path
    from typing import Self

    from model_poller.checks.crc32c import Crc
    from model_poller.stores import ByteRange, Source, StoredObject, WholeObject
    from model_poller.stores.http_ranges import Asked
    from model_poller.volume.journal import Journal

PART_BYTES = 16 << 20
"""Sizes from 8 to 32 MiB are equally fast on loopback; larger parts cost more when repeated."""
WORKERS = 4
"""Ranges read at once, unless told otherwise: more gain nothing on one machine's network."""
SMALL_BYTES = 1 << 20
SMALL_WORKERS = 16
"""For objects that are small on the average: the time goes into waiting for answers."""
_AHEAD = 8
"""Small objects that one worker asks for at once, where the source lets it.

What one thread does alone costs half of what many do that wait for each other: they would switch
sixteen times for each object. Two let one write while the other reads.
"""
_BUFFER_BYTES = 512 << 10
"""What was read is written and checked while the processor has it at hand.

The system takes pieces of this size for a quarter less than those of 128 KiB, as it keeps them in
larger ones, too; still larger ones gain nothing.
"""
_BUFFERS_BYTES = 4 << 20
"""Of all workers together, however many there are."""
_LARGE_BYTES = 256 << 20
"""A version of which it is worth 7 MB of memory to check as fast as can be."""
RETRIES = RetryPolicy(attempts=5, first_seconds=0.2, longest_seconds=30.0, deadline_seconds=1800.0)
"""Of a part, counted anew whenever a try brought something."""
_GLANCE_SECONDS = 0.2
"""A worker that waits sees so late that another one has failed."""
_PART_SECONDS = 300.0
"""Where a part takes longer, for all that bytes still trickle in, the rest is asked for anew.

What a server gives only as a whole may take as long as its parts would.
"""
_GAIN_BYTES = 1 << 20
"""A try that brought so much is no failure: what cuts every connection is no reason to give up."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """How much of the network a fetch may take."""

    parallelism: int | None = None
    """Ranges read at once; None: as many as are worth it."""
    bandwidth: float | None = None
    """Bytes a second over all ranges; None: no limit."""


@dataclass(frozen=True, slots=True)
class _Sum:
    """Of a part that is there."""

    length: int
    crc: int
    """By its target's kind."""


@dataclass(slots=True)
class _Target:
    """An object on its way to a file."""

    stored: StoredObject
    path: Path
    part_bytes: int
    extend: Callable[[memoryview, int], int]
    """How a CRC goes on."""
    kind: Crc = CRC32C
    """The one that the store tells, if it tells any."""
    missing: int = 0
    """Parts to go."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    writing: threading.Lock = field(default_factory=threading.Lock)
    """The system lets only one at a time write to a file, and the others burn the processor."""
    is_described: bool = False
    told_crc: int | None = None
    md5: _Md5 | None = None
    sums: dict[int, _Sum] = field(default_factory=dict)
    """By where the parts start."""
    validators: dict[str, str] = field(default_factory=dict)
    """What the answers said of it so far."""
    has_answer: bool = False
    is_listed: bool = True
    """Whether all of them repeated what the listing shows."""
    is_told: bool = True
    """Whether all of them said which object it is."""
    is_recalled: bool = False
    """Whether some of it came in an earlier run, whose answers nobody remembers."""
    is_doubtful: bool = False
    """Whether it is there, and nothing proves yet that it is one object."""
    is_read_twice: bool = False
    """Whether only its bytes can prove that."""

    def describe(self, stored: StoredObject) -> None:
        """Take in what the store tells of it."""
        self.is_described = True
        self.stored = stored
        self.validators["size"] = str(stored.size)
        if stored.crc32c is not None:
            self.told_crc = stored.crc32c
        elif stored.crc64nvme is not None:
            # Told by S3 alone: no other poller has to pay the memory for this library.
            from awscrt.checksums import crc64nvme

            self.kind, self.told_crc, self.extend = CRC64NVME, stored.crc64nvme, crc64nvme
        elif stored.crc32 is not None:
            self.kind, self.told_crc, self.extend = CRC32, stored.crc32, zlib.crc32
        elif stored.md5 is not None:
            self.md5 = _Md5(stored.md5, is_presumed=stored.md5_is_presumed)

    def parts(self) -> list[_Part]:
        """All of it."""
        size = self.stored.size
        return [
            _Part(self, at, min(self.part_bytes, size - at))
            for at in range(0, max(size, 1), self.part_bytes)
        ]

    def parts_again(self) -> list[_Part]:
        """What is asked for once more: all, or the first if its answer says which object it is."""
        self.is_read_twice |= not self.is_told or (self.is_recalled and not self.is_listed)
        parts = [replace(part, again=True) for part in self.parts()]
        return parts if self.is_read_twice or not self.has_answer else parts[:1]

    def checksums(self) -> tuple[str, str, str]:
        """What the store tells, what came, and which checksum it is; empty without one."""
        if self.md5:
            return self.md5.told.hex(), self.md5.digest.hexdigest(), "MD5"
        if self.told_crc is None:
            return "", "", ""
        whole = 0
        for _, part in sorted(self.sums.items(), key=lambda item: item[0]):
            whole = combine(whole, part.crc, part.length, self.kind)
        digits = self.kind.bits // 4
        return f"{self.told_crc:0{digits}x}", f"{whole:0{digits}x}", self.kind.name


@dataclass(slots=True)
class _Part:
    target: _Target
    start: int
    length: int
    again: bool = False
    """Whether it is there already, and asked for once more."""
    done: int = 0
    """Bytes of it that are written, and the CRC of these."""
    crc: int = 0
    is_ahead: bool = False
    """Whether it may be asked for before anybody waits for it, and the request, once it was."""
    asked: Asked | None = None

    def begin_anew(self) -> None:
        self.done = self.crc = 0

    def drop(self) -> None:
        """Want no answer to a request that was sent ahead."""
        if self.asked:
            self.asked.close()
            self.asked = None

    def add(self, chunk: memoryview) -> None:
        """Take into account what was written behind the rest."""
        target = self.target
        if target.md5 and not self.again:
            target.md5.add(self.start + self.done, chunk)
        self.crc = target.extend(chunk, self.crc)
        self.done += len(chunk)

    @property
    def sum(self) -> _Sum:
        return _Sum(self.length, self.crc)


class _Md5:
    """The MD5 of a file whose parts come in any order, as far as they lie in a row.

    One thread at a time may add: who has the part where the row ends, or who extends the row.
    """

    def __init__(self, told: bytes, *, is_presumed: bool) -> None:
        self.told = told
        self.is_presumed = is_presumed
        self.digest = hashlib.md5(usedforsecurity=False)
        self.position = 0
        self.lock = threading.Lock()

    def add(self, position: int, chunk: memoryview) -> None:
        """Add what was just written, if it lies where the row ends."""
        if position == self.position:
            self.digest.update(chunk)
            self.position += len(chunk)
        elif not position:
            # An object that only comes whole is begun anew.
            self.digest = hashlib.md5(chunk, usedforsecurity=False)
            self.position = len(chunk)

    def extend(self, target: _Target, buffer: memoryview, *, wait: bool) -> None:
        """Add the parts that are there where the row ends; ``wait`` for who is at it already."""
        while self.lock.acquire(blocking=wait):
            try:
                start = self.position - self.position % target.part_bytes
                part = target.sums.get(start)
                if part is None or self.position == target.stored.size:
                    return
                end = start + part.length
                with target.path.open("rb", buffering=0) as file:
                    file.seek(self.position)
                    while self.position < end:
                        count = file.readinto(buffer[: end - self.position])
                        if not count:
                            return
                        self.digest.update(buffer[:count])
                        self.position += count
            finally:
                self.lock.release()


def download(
    source: Source,
    targets: Mapping[Path, StoredObject],
    *,
    stopped: threading.Event,
    progress: Callable[[int], None],
    limits: FetchLimits = FetchLimits(),
    journal: Journal | None = None,
) -> dict[Path, StoredObject]:
    """Write each object to its path; the folders are made. See `Download`.

    Returns what the store tells of each, see `Source.describe`.

    Raises:
        StoppedError: ``stopped`` was set.
        CorruptDownloadError, ObjectChangedError, AccessDeniedError, UnreachableError, OSError
    """
    arguments = {"stopped": stopped, "progress": progress, "limits": limits, "journal": journal}
    with Download(source, targets, **arguments) as running:  # type: ignore[arg-type]
        running.finish()
        return {path: running.described(path) for path in targets}


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
        self._teller = source if isinstance(source, TellsInReading) else None
        # What comes ahead would come faster than it may.
        is_free = limits.bandwidth is None
        self._asker = source if is_free and isinstance(source, AsksAhead) else None
        self._stopped = stopped
        self._progress = progress
        self._journal = journal
        self._throttle = _Throttle(limits.bandwidth) if limits.bandwidth else None
        self._changed = threading.Condition()
        self._failure: BaseException | None = None
        self._halted = False
        self._was_answered = False
        """Whether the store gave any bytes, so that a refusal is odd."""
        self._targets: dict[Path, _Target] = {}
        extend = crc32c(fast=sum(stored.size for stored in targets.values()) >= _LARGE_BYTES)
        each: list[list[_Part]] = []
        for path, stored in targets.items():
            part_bytes = PART_BYTES if stored.in_ranges else max(stored.size, 1)
            target = self._targets[path] = _Target(stored, path, part_bytes, extend)
            parts = target.parts()
            target.missing = len(parts)
            if tail_first:
                parts.insert(0, parts.pop())
            each.append(parts)
        # In turn: the system lets only one worker at a time write to a file.
        in_turn = chain.from_iterable(zip_longest(*each))
        self._parts = deque(part for part in in_turn if part)
        for folder in {path.parent for path in targets}:
            folder.mkdir(parents=True, exist_ok=True)
        largest = max((part.length for part in self._parts), default=0)
        self._parallelism = limits.parallelism or self._worth()
        self._most_large = limits.parallelism or WORKERS
        share = _BUFFERS_BYTES // self._parallelism
        self._buffer_bytes = max(1, min(_BUFFER_BYTES, share, largest))
        self._workers = self._hire()

    def _hire(self) -> list[threading.Thread]:
        """One worker for each part that is read at once, or for several small ones."""
        most, small, large = self._parallelism, 0, 0
        if self._asker:
            for part in self._parts:
                part.is_ahead = self._may_be_ahead(part)
                small += not part.is_ahead and part.length < SMALL_BYTES
                large += part.length >= SMALL_BYTES
            most = min(most, max(-(-most // _AHEAD), small + min(large, self._most_large)))
        self._depth = self._parallelism // most
        return [
            threading.Thread(target=self._work, name=f"download-{i}", daemon=True)
            for i in range(min(most, len(self._parts)))
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

    def described(self, path: Path) -> StoredObject:
        """What the store tells of an object; all there is once `finish` has ended."""
        return self._targets[path].stored

    def finish(self) -> None:
        """Wait until all is there and checked.

        Raises:
            As `download`.
        """
        self._join()
        if doubtful := [target for target in self._targets.values() if target.is_doubtful]:
            self._parts.extend(part for target in doubtful for part in target.parts_again())
            for target in doubtful:
                target.is_doubtful = False
            self._workers = self._hire()
            for worker in self._workers:
                worker.start()
            self._join()

    def _join(self) -> None:
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
            return start + target.sums[start].length

    def _work(self) -> None:
        buffer = memoryview(bytearray(self._buffer_bytes))
        mine: deque[_Part] = deque()
        try:
            while not self._halted and self._take(mine):
                part = mine.popleft()
                try:
                    if not self._tells_in_reading(part):
                        self._describe(part.target)
                    if part.again or not self._recall(part, buffer):
                        self._fetch_patiently(part, buffer, mine)
                finally:
                    part.drop()
                if not part.again:
                    self._finish(part, buffer)
        except BaseException as error:  # noqa: BLE001 - raised again by `finish`
            with self._changed:
                self._failure = self._failure or error
                self._halted = True
                self._changed.notify_all()
        finally:
            self._give_back(mine)

    def _take(self, mine: deque[_Part]) -> bool:
        """Take the next part, and small ones behind it, and ask for these; False for none."""
        fresh: list[_Part] = []
        with self._changed:
            while self._parts and len(mine) + len(fresh) < self._depth:
                if (mine or fresh) and not self._parts[0].is_ahead:
                    break
                fresh.append(self._parts.popleft())
                if not fresh[-1].is_ahead:
                    # It may take long, and nobody is to wait behind it.
                    break
        mine.extend(fresh)
        if self._asker and self._depth > 1:
            # What can't be sent is told when its turn comes.
            with suppress(PollerError):
                for part in fresh:
                    if part.is_ahead:
                        part.asked = self._asker.ask(part.target.stored)
        return bool(mine)

    def _may_be_ahead(self, part: _Part) -> bool:
        """Whether a part is all of a small object, of which nothing is there yet."""
        known = self._journal
        return (
            0 < part.length == part.target.stored.size < SMALL_BYTES
            and not (part.again or part.target.is_described)
            and not (known and known.recall(part.target.path, 0, part.length))
        )

    def _give_back(self, mine: deque[_Part]) -> None:
        """Leave to others what was taken and is not begun."""
        for part in mine:
            part.drop()
        with self._changed:
            self._parts.extendleft(reversed(mine))
        mine.clear()

    def _tells_in_reading(self, part: _Part) -> bool:
        """Whether the first answer with bytes tells what else had to be asked for before."""
        stored, known = part.target.stored, self._journal
        return (
            self._teller is not None
            and 0 < stored.size == part.length
            and not part.again
            and not (known and known.recall(part.target.path, 0, part.length))
        )

    def _describe(self, target: _Target) -> None:
        """Learn before the first byte what checksum the bytes are to have."""
        with target.lock:
            if target.is_described:
                return
            tries = Tries(RETRIES, self._pause)
            while not target.is_described:
                try:
                    target.describe(self._source.describe(target.stored))
                except (UnreachableError, AccessDeniedError) as error:
                    self._fail(error, tries)

    def _recall(self, part: _Part, buffer: memoryview) -> bool:
        """Whether an earlier run wrote a part, and its bytes are really there."""
        known = self._journal and self._journal.recall(part.target.path, part.start, part.length)
        if not known:
            return False
        recalled = _Part(part.target, part.start, part.length, again=True)
        try:
            file = os.open(part.target.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            while recalled.done < part.length:
                wanted = buffer[: part.length - recalled.done]
                count = os.preadv(file, [wanted], part.start + recalled.done)
                if not count:
                    return False
                recalled.add(wanted[:count])
        finally:
            os.close(file)
        if recalled.crc != known.crc:
            return False
        part.done, part.crc = recalled.done, recalled.crc
        part.target.is_recalled = True
        self._progress(part.length)
        return True

    def _fetch_patiently(self, part: _Part, buffer: memoryview, mine: deque[_Part]) -> None:
        tries = Tries(RETRIES, self._pause)
        while True:
            before = part.done
            try:
                return self._fetch(part, buffer)
            except (UnreachableError, AccessDeniedError) as error:
                self._give_back(mine)
                if part.done - before >= _GAIN_BYTES:
                    tries.progress()
                self._fail(error, tries)
            self._describe(part.target)

    def _fail(self, error: PollerError, tries: Tries) -> None:
        """Wait for the next try.

        Raises:
            PollerError: this one, if there is none.
        """
        # Who could read a moment ago has met a server that doesn't know yet, or keys that ran out.
        if isinstance(error, AccessDeniedError) and not self._was_answered:
            raise error
        if not tries.is_last:
            _log.info("%s; it is tried again", error)
        tries.failed(error)

    def _fetch(self, part: _Part, buffer: memoryview) -> None:
        """Go on with a part from where an earlier try ended."""
        stored = part.target.stored
        allowed = _PART_SECONDS * max(1.0, part.length / PART_BYTES)
        deadline = time.monotonic() + allowed
        file = None
        if not part.again:
            flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
            file = os.open(part.target.path, flags, 0o644)
        try:
            if not part.length:
                return
            with self._open(part) as body:
                stored = part.target.stored
                if self._compare(part, body):
                    return
                while part.done < part.length:
                    if self._stopped.is_set() or self._halted:
                        raise StoppedError(f"fetching {stored.url} was given up")
                    if time.monotonic() > deadline:
                        raise UnreachableError(
                            f"{stored.url}: {part.done} of {part.length} bytes came in"
                            f" {allowed:.0f} s; the rest is asked for anew"
                        )
                    chunk = buffer[: body.readinto(buffer)]
                    if file is not None:
                        with part.target.writing:
                            _write(file, chunk, part.start + part.done)
                        self._progress(len(chunk))
                    part.add(chunk)
                    METRICS.fetched_bytes.inc(len(chunk))
                    if self._throttle:
                        pause = self._throttle.delay(len(chunk))
                        deadline += pause
                        self._pause(pause)
        except PollerError:
            if not stored.in_ranges:
                if not part.again:
                    self._progress(-part.done)
                part.begin_anew()
            raise
        finally:
            if file is not None:
                os.close(file)
        if part.again:
            self._compare_again(part)
        elif self._journal:
            self._journal.note(part.target.path, part.start, part.length, part.crc)

    @contextmanager
    def _open(self, part: _Part) -> Iterator[ByteRange]:
        """What is missing of a part."""
        target = part.target
        asked, part.asked = part.asked, None
        if asked and self._asker:
            with self._asker.open_asked(target.stored, asked) as body:
                if not target.is_described:
                    target.describe(cast("WholeObject", body).described)
                yield body
            return
        if not target.is_described and self._teller:
            with self._teller.open_whole(target.stored) as whole:
                target.describe(whole.described)
                yield whole
            return
        start, length = part.start + part.done, part.length - part.done
        with self._source.open_range(target.stored, start, length) as body:
            yield body

    def _compare(self, part: _Part, body: ByteRange) -> bool:
        """Take in which object an answer is about; whether that says all about a part read again.

        Raises:
            ObjectChangedError: it is another one than was listed, or than other answers were about.
        """
        target = part.target
        is_told = bool(body.validators.keys() - {"size"})
        with target.lock:
            self._was_answered = True
            known = target.validators
            for name, value in body.validators.items():
                if known.setdefault(name, value) != value:
                    raise ObjectChangedError(target.stored.url)
            if not part.again:
                target.has_answer = True
                target.is_listed &= body.is_listed
                target.is_told &= is_told
            is_enough = body.is_listed or (is_told and not target.is_recalled)
            return part.again and is_enough and not target.is_read_twice

    def _compare_again(self, part: _Part) -> None:
        """Compare a part that was read a second time with the first.

        Raises:
            ObjectChangedError, CorruptDownloadError
        """
        target = part.target
        if part.sum == target.sums[part.start]:
            return
        if target.md5:
            raise self._corrupt(target, "came twice, and with other bytes each time")
        raise ObjectChangedError(target.stored.url)

    def _pause(self, seconds: float) -> None:
        """Wait, unless the work is given up meanwhile."""
        until = time.monotonic() + seconds
        while not self._halted and (left := until - time.monotonic()) > 0:
            if self._stopped.wait(min(left, _GLANCE_SECONDS)):
                return

    def _finish(self, part: _Part, buffer: memoryview) -> None:
        target = part.target
        with self._changed:
            target.sums[part.start] = part.sum
            target.missing -= 1
            is_last = not target.missing
            self._changed.notify_all()
        if target.md5:
            target.md5.extend(target, buffer, wait=is_last)
        if not is_last:
            return
        told, found, kind = target.checksums()
        if not kind:
            is_proven = target.has_answer and target.is_listed
            target.is_doubtful = bool(target.stored.size) and not is_proven
        elif told == found:
            pass
        elif target.md5 and target.md5.is_presumed:
            _log.info("%s has an ETag that is no MD5; it is read twice instead", target.stored.url)
            target.is_doubtful = target.is_read_twice = True
        else:
            fault = f"the bytes that came have {kind} {found}, the store says {told}"
            raise self._corrupt(target, fault)

    def _corrupt(self, target: _Target, fault: str) -> CorruptDownloadError:
        # Else the next try would find the bytes by the journal.
        os.truncate(target.path, 0)
        return CorruptDownloadError(f"{target.stored.url}: {fault}; it is fetched again")


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
