"""Giving memory back that only the start or a fetch needed."""

from __future__ import annotations

import ctypes
import mmap
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from model_poller.process.threads import Worker

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

LOOK_SECONDS: Final = 20.0
GROWN_BYTES: Final = 2 << 20
"""What is worth giving back. That takes a few milliseconds, and what is used comes again."""
_ARENAS: Final = -8
"""M_ARENA_MAX of mallopt(3)."""
_ADVICE: Final = 4
"""MADV_DONTNEED of madvise(2)."""
_SMAPS: Final = Path("/proc/self/smaps")
_MAPPING: Final = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S{4}) \S+ \S+ (\d+)\s")


def use_one_arena() -> None:
    """Have all threads take from one heap; before there are any.

    Else each has one of its own, and what one left free is of no use to the others.
    """
    _libc().mallopt(_ARENAS, 1)


class Thrift:
    """Gives back, now and then, what the process holds and doesn't use."""

    def __init__(self) -> None:
        self._kept = 0
        self._seen: frozenset[tuple[int, int]] = frozenset()
        self.worker = Worker("thrift", self._turn)

    def start(self) -> None:
        """Begin to look."""
        self.worker.start()

    def stop(self) -> None:
        """Look no more."""
        self.worker.stop()

    def _turn(self) -> None:
        self.worker.pause(LOOK_SECONDS)
        self.look()

    def look(self) -> None:
        """Give back what two looks show alike, if the memory has grown."""
        if resident() <= self._kept + GROWN_BYTES:
            self._seen = frozenset()
            return
        # A library that is loaded at this moment is shown as a file where its data will be.
        seen, self._seen = self._seen, frozenset(unwritten(_SMAPS.read_text()))
        if seen:
            give_back(seen & self._seen)
            self._kept, self._seen = resident(), frozenset()


def resident() -> int:
    """Bytes of memory that the process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


def give_back(shown: Iterable[tuple[int, int]]) -> None:
    """Return to the system what is free of the heap, and pages that show programs' files.

    ``shown`` are their addresses and lengths. Of a program's file the system shows 64 KiB around
    each byte that is used, and more while it is linked. What is shown is counted as ours, whether
    it is used or not; what is, is shown again.
    """
    libc = _libc()
    libc.malloc_trim(0)
    for start, length in shown:
        libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), _ADVICE)


def unwritten(smaps: str) -> Iterator[tuple[int, int]]:
    """Address and length of what shows a file and nothing else, and can't be written to."""
    place: tuple[int, int] | None = None
    for line in smaps.splitlines():
        if told := _MAPPING.match(line):
            start, end, mode, inode = told.groups()
            is_file = inode != "0" and mode[1] == "-" and mode[3] == "p"
            place = (int(start, 16), int(end, 16) - int(start, 16)) if is_file else None
        elif place and line.startswith("Anonymous:"):
            # What was linked once would be as in the file again.
            if line.split()[1] == "0":
                yield place
            place = None


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
