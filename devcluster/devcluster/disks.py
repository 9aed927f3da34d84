"""A node's own disk: a file with a file system in it, as small as what was written to it."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING

from devcluster import commands, mounts

if TYPE_CHECKING:
    from pathlib import Path

#: Room for writable layers, volumes and logs; images are elsewhere.
SIZE = 6 * 2**30
_FILLING = "filling"
#: Less than this is no room for anything.
_LEAST = 4096


def ensure(file: Path, place: Path) -> None:
    """Have a disk mounted; made where it is not there yet.

    Raises:
        StartError: the machine makes or mounts no such file system.
    """
    if mounts.is_mounted(place):
        return
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_suffix(".new")
        with unfinished.open("wb") as sparse:
            sparse.truncate(SIZE)
        # Nothing is kept for root, who is who writes; nothing is written that need not be.
        options = ("-q", "-F", "-m", "0", "-O", "^has_journal", "-E", "lazy_itable_init=1")
        commands.run("mkfs.ext4", *options, str(unfinished))
        unfinished.replace(file)
    place.mkdir(parents=True, exist_ok=True)
    # With "loop" the loop device goes with the mount; with "discard" what is deleted is given back.
    flags = "loop,discard,noatime,noinit_itable"
    commands.run("mount", "-t", "ext4", "-o", flags, str(file), str(place))


def fill(place: Path) -> None:
    """Take all room that a disk has left, for nothing."""
    with (place / _FILLING).open("wb") as filling:
        at = 0
        size = _free(place)
        while size >= _LEAST:
            try:
                os.posix_fallocate(filling.fileno(), at, size)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                size //= 2
            else:
                at += size
                size = min(size, _free(place))


def empty(place: Path) -> None:
    """Give back what was taken by ``fill``."""
    with contextlib.suppress(FileNotFoundError):
        (place / _FILLING).unlink()


def _free(place: Path) -> int:
    room = os.statvfs(place)
    return room.f_bavail * room.f_frsize
