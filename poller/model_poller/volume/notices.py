"""Waiting for changes in a folder, by Linux's inotify (inotify(7))."""

from __future__ import annotations

import ctypes
import os
import select
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

_IN_CLOSE_WRITE: Final = 0x8
_IN_MOVED_TO: Final = 0x80
_IN_CREATE: Final = 0x100
_IN_DELETE: Final = 0x200
_READ_BYTES: Final = 1 << 16


class FolderNotices:
    """Tells that entries of a folder were written, made, replaced or deleted."""

    def __init__(self, folder: Path) -> None:
        """Begin to listen.

        Raises:
            OSError: the folder is not there, or the kernel has no more watches for this user.
        """
        libc = ctypes.CDLL(None, use_errno=True)
        self._file = libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if self._file < 0:
            raise _error(folder)
        mask = _IN_CLOSE_WRITE | _IN_MOVED_TO | _IN_CREATE | _IN_DELETE
        if libc.inotify_add_watch(self._file, os.fsencode(folder), mask) < 0:
            error = _error(folder)
            os.close(self._file)
            raise error
        self._poll = select.poll()
        self._poll.register(self._file, select.POLLIN)

    def wait(self, seconds: float) -> bool:
        """Wait for a change, at most so long; whether there was one."""
        if not self._poll.poll(seconds * 1000):
            return False
        os.read(self._file, _READ_BYTES)
        return True

    def close(self) -> None:
        """Listen no more."""
        os.close(self._file)


def _error(folder: Path) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), str(folder))
