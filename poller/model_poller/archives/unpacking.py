"""Where an archive's files go, and how much of them is let in; whichever the format."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Protocol

from model_poller.archives.paths import Names, is_noise
from model_poller.errors import BrokenVersionError, StoppedError
from model_poller.status import VersionReason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

FREE_RATIO_BYTES = 64 << 20
"""Below this expanded size the ratio is not looked at: small text compresses very well."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much an archive may hold.

    Constants rather than options: a model comes nowhere near them, and one that does can be
    uploaded as a folder, where nothing expands.
    """

    entries: int = 100_000
    """A SavedModel has tens of files; this keeps the names below some 50 MB of memory."""
    expanded_bytes: int = 256 << 30
    ratio: int = 200
    """Expanded bytes per stored byte. Weights hardly compress; deflate ends at about 1000."""

    def excess(self, expanded: int, stored: int) -> str | None:
        """What is too much about so many bytes out of so many; None where nothing is."""
        if expanded > self.expanded_bytes:
            return f"expands to more than {self.expanded_bytes} bytes"
        if expanded > FREE_RATIO_BYTES and expanded > self.ratio * stored:
            return f"expands to more than {self.ratio} times its size"
        return None


class Room(Protocol):
    """Asks for free disk before bytes are written."""

    def __call__(self, needed: int, /) -> None:
        """Raise InsufficientDiskError when ``needed`` bytes aren't free."""


class DamagedError(Exception):
    """The bytes are not an archive of the format that its name tells."""


def read_exactly(bundle: IO[bytes], size: int) -> bytes:
    """The next ``size`` bytes.

    Raises:
        DamagedError: there are not so many.
    """
    piece = bundle.read(size)
    while len(piece) < size:
        more = bundle.read(size - len(piece))
        if not more:
            raise DamagedError("it is cut")
        piece += more
    return piece


class Tree:
    """A new folder that an archive's entries are judged for and written to.

    ``stored`` is the archive's own size in bytes, ``origin`` names it in messages.
    """

    def __init__(
        self,
        into: Path,
        stored: int,
        *,
        origin: str,
        room: Room,
        stopped: Callable[[], bool],
        limits: Limits,
    ) -> None:
        self.origin = origin
        self.room = room
        self._into = str(into)
        self._stored = stored
        self._stopped = stopped
        self._limits = limits
        self._names = Names(origin)
        self._entries = 0
        self._folders: set[str] = set()
        os.mkdir(self._into)  # noqa: PTH102

    def count_entries(self, more: int = 1) -> None:
        """Take ``more`` entries into account, before anything is kept of them.

        Raises:
            BrokenVersionError: there are too many.
        """
        self._entries += more
        if self._entries > self._limits.entries:
            raise self.too_large(f"has more than {self._limits.entries} entries")

    def check_size(self, expanded: int) -> None:
        """Judge how many bytes come out altogether.

        Raises:
            BrokenVersionError: too many, or too many for the archive's size.
            StoppedError
        """
        if self._stopped():
            raise StoppedError("unpacking was given up")
        if excess := self._limits.excess(expanded, self._stored):
            raise self.too_large(excess)

    def admit(self, name: str, *, is_folder: bool) -> str | None:
        """The name under which an entry is taken; None for one that is left out.

        Left out are folders themselves, which files bring along, and what macOS adds.

        Raises:
            BrokenVersionError: the name is unsafe, or another entry's.
        """
        name = name.removeprefix("./")
        if is_folder:
            name = name.rstrip("/") if name.strip("/") else name
        if is_noise(name) or (is_folder and name in ("", ".")):
            return None
        if is_folder:
            self._names.add_folder(name)
            return None
        self._names.add_file(name)
        return name

    def write(self, name: str, size: int, chunks: Iterable[bytes] | Iterable[memoryview]) -> None:
        """Write an admitted file of ``size`` bytes.

        Raises:
            DamagedError: more or fewer bytes come.
            StoppedError
        """
        folder = name.rpartition("/")[0]
        if folder not in self._folders:
            os.makedirs(f"{self._into}/{folder}", exist_ok=True)  # noqa: PTH103
            self._folders.add(folder)
        file = os.open(
            f"{self._into}/{name}",
            os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC,
            0o644,
        )
        try:
            left = size
            for chunk in chunks:
                if self._stopped():
                    raise StoppedError("unpacking was given up")
                view = memoryview(chunk)
                left -= len(view)
                if left < 0:
                    raise DamagedError(f"{name[:200]} is longer than it says")
                while view:
                    view = view[os.write(file, view) :]
            if left:
                raise DamagedError(f"{name[:200]} is cut: {left} bytes are missing")
        finally:
            os.close(file)

    def unsafe(self, name: str, what: str) -> BrokenVersionError:
        """The error for an entry that is not a plain file or folder."""
        return BrokenVersionError(
            VersionReason.UNSAFE_ARCHIVE,
            f"{self.origin}: {name[:200]!r} is {what}; nothing of it was taken. Archives may hold"
            " plain files and folders only.",
        )

    def too_large(self, what: str) -> BrokenVersionError:
        """The error for an archive beyond the limits."""
        return BrokenVersionError(
            VersionReason.ARCHIVE_TOO_LARGE,
            f"{self.origin} {what}; nothing of it was taken. If it is a real model, upload it as a"
            " folder.",
        )
