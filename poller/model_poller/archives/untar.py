"""Reading a tar archive strictly forward, a block at a time.

Python's tarfile reads an extended header of any size into memory, nests as deep as they follow one
another, and takes a damaged header for the end. Here whatever a packer of models doesn't write is
refused. POSIX.1-2017, pax (ustar and pax interchange formats), and the GNU tar manual, "Basic Tar
Format".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from model_poller.archives.unpacking import DamagedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from model_poller.archives.unpacking import Tree

_BLOCK = 512
_EXTENSION_BYTES = 64 << 10
"""Of a pax header or a long name; one that only tells a path and times has a few hundred."""
_FREE_PIECES = 100_000
_PIECE_BYTES = 1024
"""Less a piece, on the average, is made to keep its reader busy: packers compress 64 KiB and more
at once."""
_OCTAL = re.compile(rb" *([0-7]*)[ \0]*")
_RECORD_LENGTH = re.compile(rb"([1-9][0-9]{0,5}) ")

_FILES = b"\x000"
_FOLDER = b"5"
_LONG_NAME = b"L"
_PAX = b"x"
_PAX_GLOBAL = b"g"


class Stream:
    """A stream of pieces, read by length; counts what comes out against the limits."""

    def __init__(self, pieces: Iterator[bytes], check_size: Callable[[int], None]) -> None:
        """``check_size`` judges how many bytes have come out."""
        self._pieces = pieces
        self._check_size = check_size
        self._rest = memoryview(b"")
        self._total = 0
        """Bytes that came out so far, those that are not read yet among them."""
        self._count = 0

    def some(self, limit: int) -> memoryview:
        """From 1 to ``limit`` bytes; none at the end."""
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                break
            self._total += len(piece)
            self._count += 1
            self._check_size(self._total)
            if self._count > _FREE_PIECES + self._total // _PIECE_BYTES:
                raise DamagedError("it consists of too many small parts")
            self._rest = memoryview(piece)
        taken, self._rest = self._rest[:limit], self._rest[limit:]
        return taken

    @property
    def position(self) -> int:
        """Bytes that were read."""
        return self._total - len(self._rest)

    def pieces(self, size: int) -> Iterator[memoryview]:
        """The next ``size`` bytes.

        Raises:
            DamagedError: there are not so many.
        """
        while size:
            piece = self.some(size)
            if not piece:
                raise DamagedError(f"it is cut: {size} bytes are missing")
            size -= len(piece)
            yield piece

    def exactly(self, size: int) -> bytes:
        """The next ``size`` bytes, as one piece."""
        return b"".join(self.pieces(size))

    def skip(self, size: int) -> None:
        """Go on behind ``size`` bytes."""
        for _ in self.pieces(size):
            pass

    def skip_padding(self, size: int) -> None:
        """Go on to the block after an entry of ``size`` bytes."""
        self.exactly(-size % _BLOCK)


@dataclass(slots=True)
class _Extension:
    """What the headers before an entry's own say about it."""

    name: str | None = None
    size: int | None = None
    kinds: bytes = b""


@dataclass(frozen=True, slots=True)
class _Entry:
    """What the headers say of an entry."""

    name: str
    kind: bytes
    size: int
    """Bytes of content, which follow."""

    @property
    def is_folder(self) -> bool:
        # Before POSIX a folder was a file whose name ends with a slash.
        return self.kind == _FOLDER or (self.kind == b"\0" and self.name.endswith("/"))


def untar(pieces: Iterator[bytes], tree: Tree) -> None:
    """Write what a tar stream holds.

    Raises:
        BrokenVersionError, DamagedError, InsufficientDiskError, StoppedError
    """
    stream = Stream(pieces, tree.check_size)
    for entry in _entries(stream, tree.unsafe):
        name, size = entry.name, entry.size
        tree.count_entries()
        if not entry.is_folder and entry.kind not in _FILES:
            raise tree.unsafe(name, _KINDS.get(entry.kind, f"an entry of type {entry.kind!r}"))
        if entry.is_folder and size:
            raise DamagedError(f"the folder {name[:200]} has content")
        admitted = tree.admit(name, is_folder=entry.is_folder)
        if admitted is None:
            stream.skip(size)
        else:
            # Before any of it is written.
            tree.check_size(stream.position + size)
            tree.room(size)
            tree.write(admitted, size, stream.pieces(size))
    while rest := stream.some(1 << 20):
        if bytes(rest).strip(b"\0"):
            raise DamagedError("it goes on after its end; pack everything into one archive")


def names(pieces: Iterator[bytes], most: int) -> Iterator[str]:
    """The names in a tar stream, as far as ``most`` bytes of it show; folders' end with a slash.

    Raises:
        DamagedError: it is damaged, or longer.
    """

    def check_size(expanded: int) -> None:
        if expanded > most:
            raise DamagedError(f"it has more than {most} bytes")

    def unsafe(name: str, what: str) -> DamagedError:
        return DamagedError(f"{name} is {what}")

    stream = Stream(pieces, check_size)
    for entry in _entries(stream, unsafe):
        yield entry.name.rstrip("/") + "/" if entry.is_folder else entry.name
        stream.skip(entry.size)


def _entries(stream: Stream, unsafe: Callable[[str, str], Exception]) -> Iterator[_Entry]:
    """The entries, as their headers come; whoever asks for the next one has read the content."""
    extension = _Extension()
    while (header := stream.exactly(_BLOCK)).strip(b"\0"):
        _check_sum(header)
        kind, size = header[156:157], _number(header[124:136])
        if kind in (_PAX, _PAX_GLOBAL, _LONG_NAME):
            _extend(extension, kind, size, stream, unsafe)
            continue
        name = extension.name if extension.name is not None else _name(header)
        if extension.size is not None:
            size = extension.size
        extension = _Extension()
        yield _Entry(name, kind, size)
        stream.skip_padding(size)
    if extension.kinds:
        raise DamagedError("it ends after an extended header")


_KINDS = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a device",
    b"4": "a device",
    b"6": "a named pipe",
    b"K": "a link",
    b"S": "a sparse file",
    b"M": "the continuation of a file in another archive",
}


def _check_sum(header: bytes) -> None:
    told = _number(header[148:156])
    if told != sum(header[:148]) + 8 * ord(" ") + sum(header[156:]):
        raise DamagedError("the checksum of a header is wrong")


def _number(field: bytes) -> int:
    if field[0] == 0x80:
        # GNU's form for what octal digits can't hold; 0xff there begins a negative number.
        return int.from_bytes(field[1:], "big")
    if match := _OCTAL.fullmatch(field):
        return int(match[1] or b"0", 8)
    raise DamagedError("a header has a number that is none")


def _name(header: bytes) -> str:
    name = header[:100].partition(b"\0")[0]
    if header[257:265] == b"ustar\x0000" and header[345]:
        name = header[345:500].partition(b"\0")[0] + b"/" + name
    return _decoded(name)


def _decoded(name: bytes) -> str:
    # What is no UTF-8 becomes what no name may have, so it is refused where names are judged.
    return name.decode(errors="surrogateescape")


def _extend(
    extension: _Extension,
    kind: bytes,
    size: int,
    stream: Stream,
    unsafe: Callable[[str, str], Exception],
) -> None:
    if kind in extension.kinds:
        raise DamagedError("two extended headers of one kind follow one another")
    if size > _EXTENSION_BYTES:
        raise DamagedError(f"an extended header has {size} bytes")
    extension.kinds += kind
    content = stream.exactly(size)
    stream.skip_padding(size)
    if kind == _LONG_NAME:
        told: dict[str, bytes] = {"path": content.removesuffix(b"\0")}
    else:
        told = _records(content)
    for keyword in told:
        if keyword.startswith("GNU.sparse."):
            raise unsafe(keyword, _KINDS[b"S"])
    named = {"path", "size"} & told.keys()
    if kind == _PAX_GLOBAL and named:
        raise DamagedError("a header for all entries names one")
    if "path" in named:
        if extension.name is not None:
            raise DamagedError("an entry has two long names")
        extension.name = _decoded(told["path"])
    if "size" in named:
        if not told["size"].isdigit() or len(told["size"]) > 20:
            raise DamagedError("an extended header has a size that is none")
        extension.size = int(told["size"])


def _records(content: bytes) -> dict[str, bytes]:
    """The records of a pax header: each is its own length, a blank, KEYWORD=VALUE, a new line."""
    told: dict[str, bytes] = {}
    start = 0
    while start < len(content):
        match = _RECORD_LENGTH.match(content, start)
        end = start + int(match[1]) if match else 0
        record = content[match.end() : end] if match else b""
        keyword, equals, value = record[:-1].partition(b"=")
        if end > len(content) or not equals or record[-1:] != b"\n":
            raise DamagedError("an extended header is damaged")
        key = keyword.decode(errors="replace")
        if key in told:
            raise DamagedError(f"an extended header tells {key[:50]} twice")
        told[key] = value
        start = end
    return told
