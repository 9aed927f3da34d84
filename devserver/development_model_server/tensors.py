"""Tensors and their protobuf form.

The rules are those of TensorFlow's ``Tensor::FromProto`` and ``Tensor::AsProtoField``: fewer values
than elements repeat the last one, no values at all means zeros, more are ignored.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from development_model_server.protos import DataType, TensorProto

DT_FLOAT = 1
DT_DOUBLE = 2
DT_INT32 = 3
DT_UINT8 = 4
DT_INT16 = 5
DT_INT8 = 6
DT_STRING = 7
DT_COMPLEX64 = 8
DT_INT64 = 9
DT_BOOL = 10
DT_BFLOAT16 = 14
DT_COMPLEX128 = 18
DT_HALF = 19
DT_UINT32 = 22
DT_UINT64 = 23

Array = npt.NDArray[Any]

ARRAY_RANK = 64
"""Dimensions that numpy's arrays have at most."""
_MAX_RANK = 254
"""TensorShape::MaxDimensions."""
_MAX_ELEMENTS = 2**63 - 1

# How the elements of each type lie in memory. bfloat16 has no numpy type: its bits are kept.
STORAGE: dict[int, np.dtype[Any]] = {
    number: np.dtype(name)
    for number, name in {
        DT_FLOAT: "<f4",
        DT_DOUBLE: "<f8",
        DT_INT32: "<i4",
        DT_UINT8: "u1",
        DT_INT16: "<i2",
        DT_INT8: "i1",
        DT_COMPLEX64: "<c8",
        DT_INT64: "<i8",
        DT_BOOL: "?",
        11: "i1",  # qint8
        12: "u1",  # quint8
        13: "<i4",  # qint32
        DT_BFLOAT16: "<u2",
        15: "<i2",  # qint16
        16: "<u2",  # quint16
        17: "<u2",  # uint16
        DT_COMPLEX128: "<c16",
        DT_HALF: "<f2",
        DT_UINT32: "<u4",
        DT_UINT64: "<u8",
    }.items()
}

_FIELDS = {
    DT_FLOAT: "float_val",
    DT_DOUBLE: "double_val",
    DT_COMPLEX64: "scomplex_val",
    DT_INT64: "int64_val",
    DT_BOOL: "bool_val",
    DT_BFLOAT16: "half_val",
    DT_COMPLEX128: "dcomplex_val",
    DT_HALF: "half_val",
    DT_UINT32: "uint32_val",
    DT_UINT64: "uint64_val",
}


def shaped(flat: Array, shape: tuple[int, ...]) -> Array:
    """The values in their shape, as far as numpy has it."""
    return flat.reshape(shape) if len(shape) <= ARRAY_RANK else flat


def type_name(dtype: int) -> str:
    """The type as TensorFlow's messages name it: ``float``, ``int32``, ``string``."""
    return str(DataType.Name(dtype)).removeprefix("DT_").lower()


@dataclass(frozen=True)
class Tensor:
    """A dense tensor: ``values`` for numbers, ``strings`` (flat, row-major) for DT_STRING.

    Values of more than `ARRAY_RANK` dimensions are flat, too.
    """

    dtype: int
    shape: tuple[int, ...]
    values: Array = field(default_factory=lambda: np.empty(0))
    strings: list[bytes] = field(default_factory=list)

    @classmethod
    def from_proto(cls, proto: TensorProto) -> Tensor:
        """Decode a message.

        Raises:
            ValueError: the message is no tensor (a shape that can't be, content of another size, a
                type that can't be fed); as in TensorFlow, without a reason.
        """
        # As there, unknown_rank is not looked at: without dimensions it is a scalar.
        shape = tuple(dimension.size for dimension in proto.tensor_shape.dim)
        count = math.prod(shape)
        if len(shape) > _MAX_RANK or any(size < 0 for size in shape) or count > _MAX_ELEMENTS:
            raise ValueError
        if proto.dtype == DT_STRING:
            return cls(DT_STRING, shape, strings=_decode_strings(proto, count))
        storage = STORAGE.get(proto.dtype)
        if storage is None:
            raise ValueError
        if proto.tensor_content and count:
            if len(proto.tensor_content) != count * storage.itemsize:
                raise ValueError
            flat = np.frombuffer(proto.tensor_content, dtype=storage)
        else:
            flat = _filled(_decode_values(proto, storage), count)
        return cls(proto.dtype, shape, values=shaped(flat, shape))

    def to_proto(self, *, as_content: bool = False) -> TensorProto:
        """Encode, in the type's own field or, if ``as_content``, in ``tensor_content``."""
        proto = TensorProto(dtype=self.dtype)
        # Of a scalar, too: a shape without dimensions is another thing than none.
        proto.tensor_shape.SetInParent()
        for size in self.shape:
            proto.tensor_shape.dim.add(size=size)
        if as_content:
            proto.tensor_content = (
                _encode_strings(self.strings)
                if self.dtype == DT_STRING
                else np.ascontiguousarray(self.values).tobytes()
            )
        elif self.dtype == DT_STRING:
            proto.string_val.extend(self.strings)
        else:
            getattr(proto, _FIELDS.get(self.dtype, "int_val")).extend(self._field_values())
        return proto

    def _field_values(self) -> list[Any]:
        flat = self.values.reshape(-1)
        if self.dtype == DT_COMPLEX64:
            flat = flat.view("<f4")
        elif self.dtype == DT_COMPLEX128:
            flat = flat.view("<f8")
        elif self.dtype == DT_HALF:
            flat = flat.view("<u2")
        return flat.tolist()


def _decode_values(proto: TensorProto, storage: np.dtype[Any]) -> Array:
    values = getattr(proto, _FIELDS.get(proto.dtype, "int_val"))
    if proto.dtype == DT_COMPLEX64:
        return np.array(values[: len(values) // 2 * 2], dtype="<f4").view(storage)
    if proto.dtype == DT_COMPLEX128:
        return np.array(values[: len(values) // 2 * 2], dtype="<f8").view(storage)
    if proto.dtype == DT_HALF:
        return np.array(values, dtype="<i4").astype("<u2").view(storage)
    if storage.kind in "iu" and storage.itemsize < 4:
        return np.array(values, dtype="<i4").astype(storage)
    return np.array(values, dtype=storage)


def _filled(values: Array, count: int) -> Array:
    if len(values) >= count:
        return values[:count]
    filled = np.zeros(count, dtype=values.dtype)
    if len(values):
        filled[: len(values)] = values
        filled[len(values) :] = values[-1]
    return filled


def _decode_strings(proto: TensorProto, count: int) -> list[bytes]:
    if not proto.tensor_content:
        strings = list(proto.string_val[:count])
        return strings + [strings[-1] if strings else b""] * (count - len(strings))
    if not count:
        return []
    content = proto.tensor_content
    position = 0
    sizes = []
    for _ in range(count):
        size = shift = 0
        while True:
            if position >= len(content):
                raise ValueError
            byte = content[position]
            position += 1
            size |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
        sizes.append(size)
    if position + sum(sizes) != len(content):
        raise ValueError
    strings = []
    for size in sizes:
        strings.append(content[position : position + size])
        position += size
    return strings


def _encode_strings(strings: list[bytes]) -> bytes:
    head = bytearray()
    for value in strings:
        size = len(value)
        while size > 0x7F:
            head.append(size & 0x7F | 0x80)
            size >>= 7
        head.append(size)
    return bytes(head) + b"".join(strings)
