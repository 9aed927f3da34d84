"""Protocol Buffers' wire format, walked over without unpacking what is not asked for, and written.

https://protobuf.dev/programming-guides/encoding
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import mmap
    from collections.abc import Iterator

MAX_FIELDS = 1_000_000
"""Of one message. A model's graph has thousands where it is looked at."""


class ZeroFieldError(ValueError):
    """A field has the number 0, which no message has: there are zeros instead of content."""


def fields(data: bytes | mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int | range]]:
    """The fields of the message from byte ``start`` to ``end``: number and value.

    A value is a whole number, or where the content of a length-delimited field lies.

    Raises:
        ValueError: it is no message; says at which byte.
    """
    position, count = start, 0
    while position < end:
        if (count := count + 1) > MAX_FIELDS:
            raise ValueError(f"it has more than {MAX_FIELDS} fields")
        tag, position = varint(data, position, end)
        number, wire_type = tag >> 3, tag & 7
        if not number:
            raise ZeroFieldError(f"a field of number 0 at byte {position - 1}")
        if wire_type == 0:
            value, position = varint(data, position, end)
            yield number, value
            continue
        if wire_type == 2:
            length, position = varint(data, position, end)
        elif wire_type in (1, 5):
            length = 8 if wire_type == 1 else 4
        else:
            raise ValueError(f"wire type {wire_type} at byte {position}")
        content = range(position, position + length)
        if content.stop > end:
            raise ValueError(f"it ends at byte {end} inside a field")
        if wire_type == 2:
            yield number, content
        else:
            yield number, int.from_bytes(data[content.start : content.stop], "little")
        position = content.stop


def varint(data: bytes | mmap.mmap, position: int, end: int) -> tuple[int, int]:
    """A number of variable length, and the byte behind it.

    Raises:
        ValueError: it has no end.
    """
    value = shift = 0
    while position < end and shift < 70:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise ValueError(f"a number at byte {position} has no end")


def delimited(number: int, content: bytes) -> bytes:
    """A field of text, bytes or a message."""
    return written(number << 3 | 2) + written(len(content)) + content


def written(value: int) -> bytes:
    """A number of variable length."""
    digits = bytearray()
    while value >= 0x80:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*digits, value])
