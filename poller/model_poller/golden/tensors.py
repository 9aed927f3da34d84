"""TensorProtos, read without TensorFlow (tensorflow/core/framework/tensor.proto).

The values stand in ``tensor_content``, or in the field of their type; there a value that lacks is
the last one that is there, or 0.
"""

from __future__ import annotations

import math
import struct
import sys
from array import array
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from model_poller.checks import dtypes
from model_poller.checks.interface import signed
from model_poller.checks.wire import fields, varint

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

MAX_VALUES: Final = 4 << 20
"""Of all outputs of one answer: a few bytes may stand for as many as a shape says."""
MAX_SINGLE_VALUES: Final = 1 << 20
"""Of one whose values have to be read one by one."""

FLOAT, DOUBLE, STRING, COMPLEX64, BOOL = 1, 2, 7, 8, 10
BFLOAT16, COMPLEX128, HALF = 14, 18, 19
FLOATS: Final = frozenset({FLOAT, DOUBLE, HALF, BFLOAT16})
COMPLEX: Final = frozenset({COMPLEX64, COMPLEX128})
_DTYPE, _SHAPE, _CONTENT, _STRINGS = 1, 2, 4, 8
_DIM, _UNKNOWN_RANK, _SIZE = 2, 3, 1
_INT_VAL = 7
_CODES: Final = {
    FLOAT: "f",
    DOUBLE: "d",
    COMPLEX64: "f",
    COMPLEX128: "d",
    HALF: "H",
    BFLOAT16: "H",
    BOOL: "B",
    3: "i",
    4: "B",
    5: "h",
    6: "b",
    9: "q",
    11: "b",
    12: "B",
    13: "i",
    15: "h",
    16: "H",
    17: "H",
    22: "I",
    23: "Q",
    29: "b",
    30: "B",
    31: "b",
    32: "B",
}
"""How `array` calls what ``tensor_content`` holds of a type."""
_FIXED: Final = {FLOAT: 5, DOUBLE: 6, COMPLEX64: 9, COMPLEX128: 12}
_VARINTS: Final = {9: 10, BOOL: 11, HALF: 13, BFLOAT16: 13, 22: 16, 23: 17}
"""The fields of types whose values don't stand in ``int_val``."""


class UnsupportedError(ValueError):
    """It may be right, and is not what can be compared."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor whose values can be compared."""

    dtype: int
    shape: tuple[int, ...]
    values: array[Any] | list[bytes]
    """In their order in memory; of a complex number its two parts."""

    @property
    def is_float(self) -> bool:
        """Whether its values are real numbers."""
        return self.dtype in FLOATS

    @property
    def is_numeric(self) -> bool:
        """Whether its values need not be the same to the last bit."""
        return self.dtype in FLOATS or self.dtype in COMPLEX


def read(data: bytes, place: range, most: int = MAX_VALUES) -> Tensor:
    """Read a TensorProto of no more values than ``most``.

    Raises:
        UnsupportedError: it has a type that can't be compared, or too many values.
        ValueError: it is none.
    """
    dtype = 0
    shape: tuple[int, ...] = ()
    content = b""
    found: dict[int, list[int | range]] = {}
    for number, value in fields(data, place.start, place.stop):
        if number == _DTYPE and isinstance(value, int):
            dtype = value
        elif number == _SHAPE and isinstance(value, range):
            shape = _shape(data, value)
        elif number == _CONTENT and isinstance(value, range):
            content = data[value.start : value.stop]
        else:
            found.setdefault(number, []).append(value)
    count = math.prod(shape)
    if count > most:
        raise UnsupportedError(f"an answer of more than {MAX_VALUES} values")
    if dtype == STRING:
        return Tensor(dtype, shape, _filled_strings(data, found.get(_STRINGS, []), count))
    if dtype not in _CODES:
        raise UnsupportedError(f"a tensor of {dtypes.name(dtype)}")
    parts = 2 if dtype in COMPLEX else 1
    raw = _raw(data, dtype, content, found)
    return Tensor(dtype, shape, _real(dtype, _filled(raw, count * parts, parts)))


def _shape(data: bytes, place: range) -> tuple[int, ...]:
    dims: list[int] = []
    for number, value in fields(data, place.start, place.stop):
        if number == _UNKNOWN_RANK and value:
            raise ValueError("a tensor without a shape")
        if number == _DIM and isinstance(value, range):
            sizes = [v for n, v in fields(data, value.start, value.stop) if n == _SIZE]
            size = signed(sizes[-1]) if sizes and isinstance(sizes[-1], int) else 0
            if size < 0:
                raise ValueError("a tensor with an open shape")
            if len(dims) == dtypes.MAX_DIMENSIONS:
                raise ValueError(f"a shape of more than {dtypes.MAX_DIMENSIONS} dimensions")
            dims.append(size)
    return tuple(dims)


def _filled_strings(data: bytes, places: Sequence[int | range], count: int) -> list[bytes]:
    if count > MAX_SINGLE_VALUES:
        raise UnsupportedError(f"a tensor of {count} texts, more than {MAX_SINGLE_VALUES}")
    texts = [data[place.start : place.stop] for place in places if isinstance(place, range)]
    if len(texts) > count:
        raise ValueError(f"a tensor of {count} texts that holds {len(texts)}")
    return texts + (texts[-1:] or [b""]) * (count - len(texts))


def _raw(
    data: bytes, dtype: int, content: bytes, found: dict[int, list[int | range]]
) -> array[Any]:
    """The values that are there, as they are stored."""
    values: array[Any] = array(_CODES[dtype])
    if content:
        if len(content) % values.itemsize:
            raise ValueError(f"{len(content)} bytes of values of {values.itemsize}")
        values.frombytes(content)
        return _in_order(values)
    if field := _FIXED.get(dtype):
        for value in found.get(field, ()):
            if isinstance(value, int):
                values.frombytes(_bytes(value, values.itemsize))
            elif len(value) % values.itemsize:
                raise ValueError(f"{len(value)} bytes of values of {values.itemsize}")
            else:
                values.frombytes(data[value.start : value.stop])
        return _in_order(values)
    numbers = _numbers(data, found.get(_VARINTS.get(dtype, _INT_VAL), ()))
    single = list(islice(numbers, MAX_SINGLE_VALUES + 1))
    if len(single) > MAX_SINGLE_VALUES:
        raise UnsupportedError(f"a tensor of more than {MAX_SINGLE_VALUES} single values")
    try:
        return array(_CODES[dtype], single if dtype == 23 else map(signed, single))
    except OverflowError:
        raise ValueError(f"a value that no {dtypes.name(dtype)} has") from None


def _bytes(value: int, size: int) -> bytes:
    try:
        return value.to_bytes(size, "little")
    except OverflowError:
        raise ValueError(f"a value of more than {size} bytes") from None


def _in_order(values: array[Any]) -> array[Any]:
    """What stands in a message has its lowest byte first."""
    if sys.byteorder == "big":
        values.byteswap()
    return values


def _numbers(data: bytes, found: Iterable[int | range]) -> Iterator[int]:
    for value in found:
        if isinstance(value, int):
            yield value
            continue
        packed = data[value.start : value.stop]
        if packed.isascii():
            # Each byte is a number of its own, as of truths and labels.
            yield from packed
            continue
        position = value.start
        while position < value.stop:
            number, position = varint(data, position, value.stop)
            yield number


def _filled(values: array[Any], count: int, parts: int) -> array[Any]:
    if len(values) > count or len(values) % parts:
        raise ValueError(f"a tensor of {count // parts} values that holds {len(values)}")
    if len(values) < count:
        last = values[-parts:] if values else array(values.typecode, [0] * parts)
        values.extend(last * ((count - len(values)) // parts))
    return values


def _real(dtype: int, values: array[Any]) -> array[Any]:
    if dtype == HALF:
        return array("f", struct.unpack(f"{len(values)}e", values.tobytes()))
    if dtype == BFLOAT16:
        # The upper half of a float32.
        wide = array("f")
        wide.frombytes(array("I", (int(value) << 16 for value in values)).tobytes())
        return wide
    return values
