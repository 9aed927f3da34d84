"""Signs of life in a shared folder: small files that say who does what, and how far they are.

Clocks of other machines, and times that a server or a client writes into files, are not compared
with anything. Whoever waits looks whether a file's content changes, by a clock of its own: what
didn't for a while is dead, wherever it ran.
"""

from __future__ import annotations

import os
import stat
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable
    from pathlib import Path

BEAT_SECONDS: Final = 3.0
DEAD_SECONDS: Final = 30.0
"""Ten beats: a node may be busy, a file system slow."""
IDLE_SECONDS: Final = 180.0
"""So long a fetch for all may bring nothing before somebody else tries: its node's way to the store
may be what is wrong. It goes on for its own pod."""
_BYTES: Final = 512

FETCHING: Final = "fetching"
STORING: Final = "storing"
USING: Final = "using"
STORED: Final = "stored"
FAILED: Final = "failed"
UNSTORABLE: Final = "unstorable"
ENDED: Final = frozenset({STORED, FAILED, UNSTORABLE})


class Beat(msgspec.Struct, frozen=True, rename="camel"):
    """What one of these files says."""

    id: str
    pod: str
    phase: str
    count: int = 0
    """Another one each time, so that the content is."""
    done: int = 0
    """Bytes."""
    total: int = 0
    steps: int = 0
    """Of what is done with these bytes; another one each time."""

    @property
    def is_ended(self) -> bool:
        """Whether nothing more comes of it."""
        return self.phase in ENDED


def write(path: Path, beat: Beat, *, new: bool = False) -> None:
    """Say it; in place, so that a reader's handle stays good. ``new``: and be the first to.

    Raises:
        FileExistsError: it is there already.
        OSError
    """
    flags = os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW
    flags |= os.O_CREAT | os.O_EXCL if new else 0
    file = os.open(path, flags, 0o664)
    try:
        if new:
            share(file)
        os.pwrite(file, msgspec.json.encode(beat).ljust(_BYTES), 0)
    finally:
        # By it, what was written is on the server before anybody opens the file.
        os.close(file)


def read(path: Path) -> tuple[bytes, Beat | None]:
    """The content, and what it says; None for what isn't written to its end, or somebody else's.

    Raises:
        OSError: it is gone, say.
    """
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        content = os.pread(file, _BYTES, 0) if stat.S_ISREG(os.fstat(file).st_mode) else b""
    finally:
        os.close(file)
    try:
        return content, msgspec.json.decode(content, type=Beat)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return content, None


def share(file: int) -> None:
    """Let pods of other users with the same group write to it, whatever this one's umask is."""
    with suppress(OSError):
        os.fchmod(file, 0o664)


class Watch:
    """Since when things are as they are; any thread may ask."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[Hashable, tuple[Hashable, float]] = {}
        self._lock = threading.Lock()

    def unchanged(self, what: Hashable, content: Hashable) -> float:
        """For how many seconds it has been seen so; 0 at the first sight of it."""
        now = self._clock()
        with self._lock:
            known, since = self._seen.get(what, (None, now))
            if known != content or what not in self._seen:
                self._seen[what] = (content, now)
                return 0.0
            return now - since

    def forget_all_but(self, kept: set[Hashable]) -> None:
        """Remember no more than these, as others are gone."""
        with self._lock:
            for what in self._seen.keys() - kept:
                del self._seen[what]
