"""CRC-32C of pieces that were read out of order, joined into the CRC-32C of the whole."""

from __future__ import annotations

_POLYNOMIAL = 0x82F63B78
"""Castagnoli, RFC 3720 appendix B.4, lowest bit first: bit 31 stands for x^0."""
_ONE = 1 << 31


def _multiply(a: int, b: int) -> int:
    """The product of two polynomials over GF(2), modulo the CRC's."""
    product = 0
    for bit in range(31, -1, -1):
        if a >> bit & 1:
            product ^= b
        b = (b >> 1) ^ _POLYNOMIAL if b & 1 else b >> 1
    return product


def _shift(byte_count: int) -> int:
    """x^(8 * byte_count): what appending that many bytes multiplies a checksum by."""
    power, result = _ONE >> 8, _ONE
    while byte_count:
        if byte_count & 1:
            result = _multiply(power, result)
        power = _multiply(power, power)
        byte_count >>= 1
    return result


def combine(first: int, second: int, second_length: int) -> int:
    """The checksum of two pieces joined, from that of each and the second one's bytes."""
    return _multiply(_shift(second_length), first) ^ second


def masked(checksum: int) -> int:
    """As TensorFlow stores a checksum beside what it is of (tensorflow/core/lib/hash/crc32c.h)."""
    return ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF
