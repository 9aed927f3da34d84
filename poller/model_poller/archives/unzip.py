"""Reading a zip archive: its directory at the end first, then the entries in their order.

Python's zipfile looks past what stands before and behind the archive, takes the directory's word
where an entry's own header tells another, and reads a directory of any size into memory. Here these
are refused, and so is every method but "stored" and "deflated". PKWARE's APPNOTE.TXT 6.3.10,
sections 4.3 to 4.5.
"""

from __future__ import annotations

import stat
import struct
import zlib
from dataclasses import dataclass
from itertools import islice
from typing import IO, TYPE_CHECKING

from model_poller.archives.unpacking import DamagedError, read_exactly

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from model_poller.archives.unpacking import Tree

_READ_BYTES = 256 << 10
_PIECE_BYTES = 1 << 20
_DIRECTORY_BYTES = 64 << 20
"""Read into memory; the entries that the limits admit take some 10 MB."""

_END = struct.Struct("<4s4H2LH")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR_64 = struct.Struct("<4sLQL")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_TAIL_BYTES = _LOCATOR_64.size + _END.size + 0xFFFF + 10240
"""With the longest comment, and a block that is filled up."""
_FULL_16 = 0xFFFF
_FULL_32 = 0xFFFFFFFF
_END_MOST = (_FULL_16, _FULL_16, _FULL_16, _FULL_16, _FULL_32, _FULL_32)
_EXTRA_64 = 0x0001

_ENCRYPTED = 0x1 | 0x40 | 0x2000
_SIZES_FOLLOW = 0x8
_STORED, _DEFLATED = 0, 8


@dataclass(frozen=True, slots=True)
class _Entry:
    name: bytes
    flags: int
    method: int
    checksum: int
    stored: int
    expanded: int
    offset: int
    mode: int


def unzip(bundle: IO[bytes], size: int, tree: Tree) -> None:
    """Write what a zip archive of ``size`` bytes holds.

    Raises:
        BrokenVersionError, DamagedError, InsufficientDiskError, StoppedError
        zlib.error: an entry is damaged.
    """
    entries, end = _directory(bundle, size, tree.count_entries, tree.too_large)
    names = [_admit(entry, tree) for entry in entries]
    limits = [*(entry.offset for entry in entries), end][1:]
    for entry, limit in zip(entries, limits, strict=True):
        _check_overlap(entry, entry.offset + _LOCAL.size + len(entry.name), limit, tree)
    expanded = sum(entry.expanded for entry in entries)
    tree.check_size(expanded)
    tree.room(expanded)
    for entry, name, limit in zip(entries, names, limits, strict=True):
        if name is not None:
            _check_overlap(entry, _open(bundle, entry), limit, tree)
            tree.write(name, entry.expanded, _content(bundle, entry))


def names(bundle: IO[bytes], size: int) -> list[str]:
    """The names in the directory of a zip archive of ``size`` bytes; folders' end with a slash.

    Raises:
        DamagedError
    """
    entries, _ = _directory(bundle, size, lambda _: None, DamagedError)
    return [_decoded(entry.name) for entry in entries]


def _check_overlap(entry: _Entry, start: int, limit: int, tree: Tree) -> None:
    if start + entry.stored > limit:
        raise tree.unsafe(_decoded(entry.name), "stored in the same bytes as something else")


def _directory(
    bundle: IO[bytes],
    size: int,
    count_entries: Callable[[int], None],
    too_large: Callable[[str], Exception],
) -> tuple[list[_Entry], int]:
    """All entries by their offset, and where the directory begins.

    ``count_entries`` judges how many there are, and ``too_large`` makes the error for a directory
    that is.
    """
    tail_start = max(0, size - _TAIL_BYTES)
    bundle.seek(tail_start)
    tail = read_exactly(bundle, size - tail_start)
    at = len(tail)
    # The signature may stand in the comment too; the record that ends with the file counts, or with
    # the zeros with which bsdtar fills up what it writes into a pipe.
    while (at := tail.rfind(b"PK\x05\x06", 0, at + 3)) >= 0:
        if len(tail) - at >= _END.size:
            end = _END.unpack_from(tail, at)
            rest = tail[at + _END.size :]
            if len(rest) >= end[-1] and not rest[end[-1] :].strip(b"\0"):
                break
    else:
        raise DamagedError("its end is missing")
    _, disk, directory_disk, here, count, length, start, _ = end
    directory_end = tail_start + at
    if at >= _LOCATOR_64.size and tail[at - _LOCATOR_64.size :].startswith(b"PK\x06\x07"):
        _, _, directory_end, disks = _LOCATOR_64.unpack_from(tail, at - _LOCATOR_64.size)
        if disks > 1 or directory_end > tail_start + at - _LOCATOR_64.size - _END_64.size:
            raise DamagedError("its zip64 end lies elsewhere")
        bundle.seek(directory_end)
        record = _END_64.unpack(read_exactly(bundle, _END_64.size))
        if record[0] != b"PK\x06\x06":
            raise DamagedError("its zip64 end is missing")
        for short, long, most in zip(end[1:7], record[4:], _END_MOST, strict=True):
            if short not in (long, most):
                raise DamagedError("it tells two sizes of its directory")
        disk, directory_disk, here, count, length, start = record[4:]
    if disk or directory_disk or here != count:
        raise DamagedError("it is one of several parts")
    if start + length != directory_end:
        raise DamagedError("its directory isn't where it says; there are bytes too many or too few")
    count_entries(count)
    if length > _DIRECTORY_BYTES:
        raise too_large(f"has a directory of {length} bytes")
    bundle.seek(start)
    entries = list(islice(_entries(read_exactly(bundle, length)), count + 1))
    if len(entries) != count:
        raise DamagedError(f"it has another number of entries than {count}, as it says")
    return sorted(entries, key=lambda entry: entry.offset), start


def _entries(directory: bytes) -> Iterator[_Entry]:
    at = 0
    while at < len(directory):
        if len(directory) - at < _CENTRAL.size:
            raise DamagedError("its directory is cut")
        signature, _, _, flags, method, _, _, checksum, stored, expanded, *more = (
            _CENTRAL.unpack_from(directory, at)
        )
        name_length, extra_length, comment_length, disk, _, attributes, offset = more
        name_end = at + _CENTRAL.size + name_length
        extra_end = name_end + extra_length
        if signature != b"PK\x01\x02" or extra_end + comment_length > len(directory):
            raise DamagedError("its directory is damaged")
        expanded, stored, offset, disk = _sizes_64(
            directory[name_end:extra_end], (expanded, stored, offset, disk)
        )
        if disk:
            raise DamagedError("it is one of several parts")
        yield _Entry(
            name=directory[at + _CENTRAL.size : name_end],
            flags=flags,
            method=method,
            checksum=checksum,
            stored=stored,
            expanded=expanded,
            offset=offset,
            mode=attributes >> 16,
        )
        at = extra_end + comment_length


def _sizes_64(extra: bytes, fields: tuple[int, ...]) -> list[int]:
    """Expanded size, stored size and, in the directory, offset and disk (section 4.5.3)."""
    full = [_FULL_32, _FULL_32, _FULL_32, _FULL_16]
    values = list(fields)
    if not any(value == most for value, most in zip(values, full, strict=False)):
        return values
    at = 0
    while len(extra) - at >= 4:
        kind, length = struct.unpack_from("<2H", extra, at)
        content, at = extra[at + 4 : at + 4 + length], at + 4 + length
        if kind != _EXTRA_64:
            continue
        for index, most in enumerate(full[: len(values)]):
            width = 4 if most == _FULL_16 else 8
            if values[index] == most:
                if len(content) < width:
                    raise DamagedError("a zip64 size is missing")
                values[index] = int.from_bytes(content[:width], "little")
                content = content[width:]
        break
    return values


def _admit(entry: _Entry, tree: Tree) -> str | None:
    name = _decoded(entry.name)
    kind = stat.S_IFMT(entry.mode)
    is_folder = name.endswith("/")
    if kind not in (0, stat.S_IFDIR if is_folder else stat.S_IFREG):
        raise tree.unsafe(name, "a link, a device or not what its name says")
    if entry.flags & _ENCRYPTED:
        raise tree.unsafe(name, "encrypted")
    admitted = tree.admit(name, is_folder=is_folder)
    if entry.method not in (_STORED, _DEFLATED):
        raise DamagedError(
            f"{name[:200]!r} is compressed by method {entry.method}; pack it with deflate"
        )
    if entry.method == _STORED and entry.stored != entry.expanded:
        raise DamagedError(f"{name[:200]!r} has two sizes")
    if is_folder and entry.expanded:
        raise DamagedError(f"the folder {name[:200]!r} has content")
    return admitted


def _decoded(name: bytes) -> str:
    """A name that says nothing of its encoding is UTF-8 in today's packers, else code page 437."""
    try:
        return name.decode()
    except UnicodeDecodeError:
        return name.decode("cp437")


def _open(bundle: IO[bytes], entry: _Entry) -> int:
    """Go to an entry's bytes; returns their offset."""
    bundle.seek(entry.offset)
    signature, _, flags, method, _, _, checksum, stored, expanded, name_length, extra_length = (
        _LOCAL.unpack(read_exactly(bundle, _LOCAL.size))
    )
    if signature != b"PK\x03\x04":
        raise DamagedError(f"there is no entry at byte {entry.offset}")
    rest = read_exactly(bundle, name_length + extra_length)
    name, extra = rest[:name_length], rest[name_length:]
    expanded, stored = _sizes_64(extra, (expanded, stored))
    told = name, method, flags & _ENCRYPTED
    sizes = checksum, stored, expanded
    if told != (entry.name, entry.method, 0) or (
        not flags & _SIZES_FOLLOW and sizes != (entry.checksum, entry.stored, entry.expanded)
    ):
        raise DamagedError(
            f"{_decoded(entry.name)[:200]!r} is described in two ways, by the directory and by its"
            " own header"
        )
    return entry.offset + _LOCAL.size + len(rest)


def _content(bundle: IO[bytes], entry: _Entry) -> Iterator[bytes]:
    pieces = _deflated(bundle, entry) if entry.method == _DEFLATED else _stored(bundle, entry)
    checksum = 0
    for piece in pieces:
        checksum = zlib.crc32(piece, checksum)
        yield piece
    if checksum != entry.checksum:
        raise DamagedError(f"the checksum of {_decoded(entry.name)[:200]!r} is wrong")


def _stored(bundle: IO[bytes], entry: _Entry) -> Iterator[bytes]:
    left = entry.stored
    while left:
        piece = bundle.read(min(_PIECE_BYTES, left))
        if not piece:
            raise DamagedError(f"{_decoded(entry.name)[:200]!r} is cut")
        left -= len(piece)
        yield piece


def _deflated(bundle: IO[bytes], entry: _Entry) -> Iterator[bytes]:
    inflate = zlib.decompressobj(wbits=-15)
    left, data = entry.stored, b""
    while not inflate.eof:
        if not data and left:
            data = bundle.read(min(_READ_BYTES, left))
            left -= len(data)
        at_end = not data
        piece = inflate.decompress(data, _PIECE_BYTES)
        if at_end and not piece and not inflate.eof:
            raise DamagedError(f"{_decoded(entry.name)[:200]!r} is cut")
        data = inflate.unconsumed_tail
        yield piece
    if left or inflate.unused_data:
        raise DamagedError(f"{_decoded(entry.name)[:200]!r} ends before its bytes do")
