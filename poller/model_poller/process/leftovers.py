"""What a publisher that was killed has left on a disk; the next one clears it away.

It is known by its lock, which ends with whoever has it, and by its age, as not every network file
system shows one machine's locks to another.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import re
    from collections.abc import Iterator
    from pathlib import Path

IDLE_SECONDS: Final = 3600.0
"""Whoever still writes has touched something within so long."""


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Show for a while that a file or folder is somebody's."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # Where nothing can be locked, nothing is cleared away either.
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def clear(folder: Path, name: re.Pattern[str]) -> None:
    """Remove what has such a name in a folder, is this user's, and is nobody's any more."""
    with suppress(OSError):
        for path in folder.iterdir():
            if name.fullmatch(path.name):
                _clear(path)


def _clear(path: Path) -> None:
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            is_mine = os.fstat(descriptor).st_uid == os.geteuid()
            if not is_mine or time.time() - _touched(path) < IDLE_SECONDS:
                return
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()
        finally:
            os.close(descriptor)


def _touched(path: Path) -> float:
    """When anything in it was last written, in seconds since 1970."""
    return max(entry.lstat().st_mtime for entry in (path, *path.rglob("*")))
