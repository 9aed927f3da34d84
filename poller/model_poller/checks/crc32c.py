"""CRCs of pieces that were read out of order, joined into the CRC of the whole."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import google_crc32c

if TYPE_CHECKING:
    from collections.abc import Callable


class Crc(NamedTuple):
    """A CRC that begins and ends with all bits turned over, lowest bit first."""

    name: str
    bits: int
    polynomial: int
    """Its highest bit stands for x^0."""


CRC32C = Crc("crc32c", 32, 0x82F63B78)
"""Castagnoli, RFC 3720 appendix B.4."""
CRC32 = Crc("CRC32", 32, 0xEDB88320)
"""RFC 1952 section 8."""
CRC64NVME = Crc("CRC64NVME", 64, 0x9A6C9329AC4BC9B5)
"""NVM Express NVM Command Set Specification, section 5.2.1.3.4."""


def crc32c(*, fast: bool) -> Callable[[memoryview, int], int]:
    """How a CRC-32C goes on with more bytes, from that of those before.

    ``fast`` costs 7 MB of memory, takes a third of the time and lets other threads work meanwhile.
    """
    if fast:
        from awscrt.checksums import crc32c as extend

        return lambda chunk, crc: int(extend(chunk, crc))
    return lambda chunk, crc: google_crc32c.extend(crc, bytes(chunk))


def _multiply(a: int, b: int, crc: Crc) -> int:
    """The product of two polynomials over GF(2), modulo the CRC's."""
    product = 0
    for bit in range(crc.bits - 1, -1, -1):
        if a >> bit & 1:
            product ^= b
        b = (b >> 1) ^ crc.polynomial if b & 1 else b >> 1
    return product


@cache
def _power(exponent: int, crc: Crc) -> int:
    """x^(8 * 2^exponent)."""
    if not exponent:
        return 1 << crc.bits - 9
    half = _power(exponent - 1, crc)
    return _multiply(half, half, crc)


def _shift(byte_count: int, crc: Crc) -> int:
    """x^(8 * byte_count): what appending that many bytes multiplies a checksum by."""
    result = 1 << crc.bits - 1
    for exponent in range(byte_count.bit_length()):
        if byte_count >> exponent & 1:
            result = _multiply(_power(exponent, crc), result, crc)
    return result


def combine(first: int, second: int, second_length: int, crc: Crc = CRC32C) -> int:
    """The checksum of two pieces joined, from that of each and the second one's bytes."""
    # Most objects are of one piece.
    return _multiply(_shift(second_length, crc), first, crc) ^ second if first else second


def masked(checksum: int) -> int:
    """As TensorFlow stores a checksum beside what it is of (tensorflow/core/lib/hash/crc32c.h)."""
    return ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF
