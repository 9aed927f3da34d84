"""What of a version is already on the disk, for a fetch that goes on after a kill."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self


UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What reading JSON ends with whose bytes a power cut, or somebody else, has left."""


class Part(msgspec.Struct, frozen=True, array_like=True):
    """One range of a file that was written, with the checksum of its bytes."""

    name: str
    """Of the file, below the journal's folder."""
    start: int
    length: int
    crc: int
    """Of the kind that the store told; by another one the part is not known again."""


class Journal:
    """A line per part, appended when the part is written.

    A line promises nothing: after a power cut it may be there and the part's bytes not. So a part
    is taken only when the bytes on disk still have its checksum. A line cut by a kill is no line.
    """

    NAME = "journal"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = folder / self.NAME
        self._known: dict[tuple[str, int], Part] = {}
        if path.exists():
            for line in path.read_bytes().splitlines():
                try:
                    part = msgspec.json.decode(line, type=Part)
                except UNREADABLE:
                    continue
                self._known[part.name, part.start] = part
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        # What follows a cut line must not become a part of it.
        os.write(self._file, b"\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def recall(self, file: Path, start: int, length: int) -> Part | None:
        """The part that an earlier run wrote there."""
        part = self._known.get((self._name(file), start))
        return part if part and part.length == length else None

    def note(self, file: Path, start: int, length: int, crc: int) -> None:
        """Remember a part; safe for many threads, as one write appends one line."""
        part = Part(self._name(file), start, length, crc)
        os.write(self._file, msgspec.json.encode(part) + b"\n")

    def _name(self, file: Path) -> str:
        return str(file)[len(str(self.folder)) + 1 :]
