"""The names of tensors' types (tensorflow/core/framework/types.proto), as TensorFlow has them."""

from __future__ import annotations

from typing import Final

MAX_DIMENSIONS: Final = 254
"""Of a tensor (tensorflow/core/framework/tensor_shape.h). The product of a million sizes takes an
hour, in which no other thread runs.
"""
_TYPES: Final = (
    "INVALID FLOAT DOUBLE INT32 UINT8 INT16 INT8 STRING COMPLEX64 INT64 BOOL QINT8 QUINT8 QINT32"
    " BFLOAT16 QINT16 QUINT16 UINT16 COMPLEX128 HALF RESOURCE VARIANT UINT32 UINT64 FLOAT8_E5M2"
    " FLOAT8_E4M3FN FLOAT8_E4M3FNUZ FLOAT8_E4M3B11FNUZ FLOAT8_E5M2FNUZ INT4 UINT4 INT2 UINT2"
)
"""In the order of their numbers."""
_ENUM: Final = _TYPES.split()
_OTHER_NAMES: Final = {"FLOAT": "float32", "DOUBLE": "float64", "HALF": "float16"}
_NUMBERS: Final = {f"DT_{name}": number for number, name in enumerate(_ENUM)}


def name(number: int) -> str:
    """The name of a DataType, such as ``float32``; of one that isn't known here, its number."""
    if not 0 <= number < len(_ENUM):
        return f"dtype {number}"
    return _OTHER_NAMES.get(_ENUM[number], _ENUM[number].lower())


def number(text: str) -> int:
    """The DataType that a text graph says, such as ``DT_FLOAT``.

    Raises:
        ValueError: it is none.
    """
    known = _NUMBERS.get(text)
    return int(text) if known is None else known
