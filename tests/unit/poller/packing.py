"""Archives put together byte by byte, so that they can say what no packer would."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

STORED, DEFLATED = 0, 8
FULL = 0xFFFFFFFF


@dataclass
class Entry:
    """One file of a zip archive; what is None is as it should be."""

    name: str | bytes
    content: bytes = b"x"
    method: int = STORED
    mode: int = 0
    flags: int = 0
    extra: bytes = b""
    packed: bytes | None = None
    offset: int | None = None
    both: Mapping[str, int] = field(default_factory=dict)
    """Claims of both headers: ``checksum``, ``stored``, ``expanded``, ``method``."""
    local: Mapping[str, Any] = field(default_factory=dict)
    """Claims of the entry's own header alone; ``name``, ``flags``, ``signature`` too."""
    central: Mapping[str, Any] = field(default_factory=dict)
    """Claims of the directory alone."""


def deflate(content: bytes) -> bytes:
    """A raw deflate stream."""
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(content) + packer.flush()


def zip_of(
    *entries: Entry,
    before: bytes = b"",
    between: bytes = b"",
    after: bytes = b"",
    comment: bytes = b"",
    zip64: Mapping[str, int] | None = None,
    **end: int,
) -> bytes:
    """A zip archive; ``end`` are claims of its end record, ``zip64`` of its zip64 end."""
    body, directory = before, b""
    for entry in entries:
        packed = entry.packed
        if packed is None:
            packed = deflate(entry.content) if entry.method == DEFLATED else entry.content
        name = entry.name.encode() if isinstance(entry.name, str) else entry.name
        told = {
            "signature": 0,
            "name": name,
            "flags": entry.flags,
            "method": entry.method,
            "checksum": zlib.crc32(entry.content),
            "stored": len(packed),
            "expanded": len(entry.content),
            "offset": len(body) if entry.offset is None else entry.offset,
            "disk": 0,
            "extra": entry.extra,
            **entry.both,
        }
        own = {**told, "signature": b"PK\x03\x04", **entry.local}
        listed = {**told, "signature": b"PK\x01\x02", **entry.central}
        body += struct.pack(
            "<4s5H3L2H",
            own["signature"],
            20,
            own["flags"],
            own["method"],
            0,
            0,
            own["checksum"],
            own["stored"],
            own["expanded"],
            len(own["name"]),
            len(own["extra"]),
        )
        body += own["name"] + own["extra"] + packed
        directory += struct.pack(
            "<4s6H3L5H2L",
            listed["signature"],
            0x031E,
            20,
            listed["flags"],
            listed["method"],
            0,
            0,
            listed["checksum"],
            listed["stored"],
            listed["expanded"],
            len(listed["name"]),
            len(listed["extra"]),
            0,
            listed["disk"],
            0,
            entry.mode << 16,
            listed["offset"],
        )
        directory += listed["name"] + listed["extra"]
    claims = {
        "disk": 0,
        "directory_disk": 0,
        "here": len(entries),
        "count": len(entries),
        "length": len(directory),
        "start": len(body),
    }
    whole = body + directory + between
    if zip64 is not None:
        at = len(whole)
        whole += struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, *{**claims, **zip64}.values())
        whole += struct.pack("<4sLQL", b"PK\x06\x07", 0, at, 1)
        claims = {**claims, "here": 0xFFFF, "count": 0xFFFF, "length": FULL, "start": FULL}
    claims = {**claims, **end}
    return (
        whole
        + struct.pack("<4s4H2LH", b"PK\x05\x06", *claims.values(), len(comment))
        + (comment + after)
    )


def extra_64(*values: int) -> bytes:
    """The extra field that holds sizes beyond 32 bits."""
    return struct.pack(f"<2H{len(values)}Q", 1, 8 * len(values), *values)


def header(
    name: str | bytes = "1/file",
    size: int | bytes = 0,
    kind: bytes = b"0",
    *,
    magic: bytes = b"ustar\x0000",
    prefix: bytes = b"",
    checksum: int | None = None,
) -> bytes:
    """One block that begins an entry of a tar archive."""
    encoded = name.encode() if isinstance(name, str) else name
    digits = b"%011o\0" % size if isinstance(size, int) else size
    block = bytearray(512)
    block[: len(encoded)] = encoded
    block[100:124] = b"0000644\0" + b"0000000\0" * 2
    block[124:136] = digits
    block[136:148] = b"00000000000\0"
    block[148:156] = b" " * 8
    block[156:157] = kind
    block[257:265] = magic
    block[345 : 345 + len(prefix)] = prefix
    block[148:156] = b"%06o\0 " % (sum(block) if checksum is None else checksum)
    return bytes(block)


def padded(content: bytes) -> bytes:
    """Content up to the end of its last block."""
    return content + bytes(-len(content) % 512)


def file(name: str | bytes = "1/file", content: bytes = b"x", **fields: Any) -> bytes:
    """One entry with its content."""
    return header(name, len(content), **fields) + padded(content)


def pax(kind: bytes = b"x", **records: str | bytes) -> bytes:
    """An extended header; in the names of keywords ``__`` stands for a dot."""
    content = b""
    for keyword, value in records.items():
        encoded = value.encode() if isinstance(value, str) else value
        content += record(keyword.replace("__", ".").encode(), encoded)
    return header("pax", len(content), kind) + padded(content)


def record(keyword: bytes, value: bytes) -> bytes:
    """One record of an extended header."""
    rest = b" " + keyword + b"=" + value + b"\n"
    length = len(rest) + 1
    while length != len(str(length)) + len(rest):
        length = len(str(length)) + len(rest)
    return str(length).encode() + rest


def long_name(name: bytes) -> bytes:
    """GNU tar's header before a name of more than 100 bytes."""
    return header("././@LongLink", len(name) + 1, b"L", magic=b"ustar  \0") + padded(name + b"\0")


def tar_of(*parts: bytes, end: bytes = bytes(1024)) -> bytes:
    """A tar archive."""
    return b"".join(parts) + end
