"""Files into the cache and out of it, each byte compared with a checksum on its way out."""

from __future__ import annotations

import errno
import os
import time
from typing import TYPE_CHECKING, Final

import google_crc32c

from model_poller.archives.paths import Names
from model_poller.cache.folder import DamagedError, File
from model_poller.errors import BrokenVersionError
from model_poller.status import CacheState
from model_poller.volume.store import FULL

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from types import TracebackType

    from model_poller.cache.folder import OpenEntry

_CHUNK: Final = 1 << 20
_SYNC_BYTES: Final = 64 << 20
"""So much is written before the disk is waited for, so that no single wait is long."""
_READ_AGAIN: Final = 2
SLOWEST: Final = 4 << 20
"""Bytes a second. What reads more slowly than this is no help; nor is it where it can't be told."""
SLOW_SECONDS: Final = 15.0
"""Of waiting for bytes, before that is judged."""


class SharedError(Exception):
    """Something is wrong with the shared folder, and not with this pod's own volume."""


def state_of(error: SharedError) -> CacheState:
    """What it says of the cache."""
    code = error.__cause__.errno if isinstance(error.__cause__, OSError) else 0
    if code in FULL:
        return CacheState.FULL
    if code in (errno.EROFS, errno.EACCES, errno.EPERM):
        return CacheState.READ_ONLY
    return CacheState.UNUSABLE


class SlowError(SharedError):
    """It works, more slowly than any source."""


class GivenUpError(Exception):
    """Nobody waits for it any more."""


class Pulse:
    """When the shared folder is touched: whoever waits for a thread sees whether that hangs there.

    As a context it also makes an OSError from there a SharedError.
    """

    def __init__(self) -> None:
        self._since: float | None = None
        self.spent = 0.0
        """Seconds altogether."""

    @property
    def stuck(self) -> float:
        """For how many seconds the thread has waited for one answer from there."""
        since = self._since
        return 0.0 if since is None else time.monotonic() - since

    def __enter__(self) -> None:
        self._since = time.monotonic()

    def __exit__(
        self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None
    ) -> None:
        if self._since is not None:
            self.spent += time.monotonic() - self._since
        self._since = None
        if isinstance(error, OSError):
            raise SharedError(str(error)) from error


def copy_out(
    opened: OpenEntry, into: Path, *, pulse: Pulse, progress: Callable[[int], None]
) -> None:
    """Write an entry's files below a folder of the pod's own.

    ``progress`` is told how many bytes came, and may raise.

    Raises:
        DamagedError: these are not the bytes that were put in.
        SharedError: the cache can't be read, or is slower than any source.
        OSError: the pod's own volume can't be written.
    """
    entry = opened.entry
    names = Names("the cache")
    try:
        for file in entry.files:
            names.add_file(file.path)
    except BrokenVersionError as error:
        raise DamagedError(str(error), entry.id) from None
    into.mkdir()
    buffer = memoryview(bytearray(_CHUNK))
    pace = _Pace(pulse)
    for number, file in enumerate(entry.files):
        path = into / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        with pulse:
            source = opened.open(number)
        target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            _copy_checked(source, target, file, entry.id, buffer, pulse, pace, progress)
        finally:
            os.close(target)
            with pulse:
                os.close(source)


def _copy_checked(
    source: int,
    target: int,
    file: File,
    entry_id: str,
    buffer: memoryview,
    pulse: Pulse,
    pace: _Pace,
    progress: Callable[[int], None],
) -> None:
    for _ in range(_READ_AGAIN):
        done = crc = 0
        while done < file.size:
            with pulse:
                count = os.preadv(source, [buffer[: file.size - done]], done)
            if not count:
                break
            chunk = buffer[:count]
            crc = google_crc32c.extend(crc, bytes(chunk))
            _write(target, chunk, done)
            done += count
            progress(count)
            pace.judge(count)
        if (done, crc) == (file.size, file.crc32c):
            return
        # Perhaps only this machine's memory of it is wrong.
        progress(-done)
        with pulse:
            os.posix_fadvise(source, 0, 0, os.POSIX_FADV_DONTNEED)
    raise DamagedError(f"{file.path} has other bytes than were put in", entry_id)


class _Pace:
    """Judges how fast a cache is by the time that was spent in reading it."""

    def __init__(self, pulse: Pulse) -> None:
        self._pulse = pulse
        self._bytes = 0
        self._begin = pulse.spent

    def judge(self, count: int) -> None:
        self._bytes += count
        spent = self._pulse.spent - self._begin
        if spent < SLOW_SECONDS:
            return
        rate = self._bytes / spent
        if rate < SLOWEST:
            raise SlowError(f"it gives {rate / 1e6:.1f} MB a second")
        self._bytes, self._begin = 0, self._pulse.spent


def copy_in(
    tree: int,
    names: Sequence[str],
    into: Path,
    *,
    pulse: Pulse,
    progress: Callable[[int], None],
) -> tuple[File, ...]:
    """Write files of a pod's own folder into the cache, and onto its disk.

    Args:
        tree: the open folder, which may be moved meanwhile.
        names: of the files below it.
        into: a new folder in the cache.
        pulse: told what waits for the cache.
        progress: told how many bytes went, and may raise.

    Raises:
        SharedError: the cache can't be written.
        OSError: the files can't be read any more.
    """
    buffer = memoryview(bytearray(_CHUNK))
    written = []
    for number, name in enumerate(names):
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        source = os.open(name, flags, dir_fd=tree)
        try:
            with pulse:
                new = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                target = os.open(into / str(number), new, 0o664)
            try:
                size, crc = _copy_synced(source, target, buffer, pulse, progress)
            finally:
                with pulse:
                    os.close(target)
        finally:
            os.close(source)
        written.append(File(name, size, crc))
    return tuple(written)


def _copy_synced(
    source: int, target: int, buffer: memoryview, pulse: Pulse, progress: Callable[[int], None]
) -> tuple[int, int]:
    size = crc = unsynced = 0
    while count := os.preadv(source, [buffer], size):
        chunk = buffer[:count]
        crc = google_crc32c.extend(crc, bytes(chunk))
        with pulse:
            _write(target, chunk, size)
        size, unsynced = size + count, unsynced + count
        if unsynced >= _SYNC_BYTES:
            with pulse:
                os.fdatasync(target)
            unsynced = 0
        progress(count)
    with pulse:
        os.fsync(target)
    return size, crc


def _write(file: int, data: memoryview, offset: int) -> None:
    while data:
        written = os.pwrite(file, data, offset)
        data, offset = data[written:], offset + written
