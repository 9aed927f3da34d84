"""TensorProtos in all the forms that their values can have."""

from __future__ import annotations

import math
import struct
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from development_model_server.protos import DataType, TensorProto
from model_poller.golden import tensors
from model_poller.golden.tensors import Tensor, UnsupportedError, read

NUMPY: dict[str, Any] = {
    "DT_FLOAT": np.float32,
    "DT_DOUBLE": np.float64,
    "DT_HALF": np.float16,
    "DT_BFLOAT16": ml_dtypes.bfloat16,
    "DT_INT8": np.int8,
    "DT_INT16": np.int16,
    "DT_INT32": np.int32,
    "DT_INT64": np.int64,
    "DT_UINT8": np.uint8,
    "DT_UINT16": np.uint16,
    "DT_UINT32": np.uint32,
    "DT_UINT64": np.uint64,
    "DT_BOOL": np.bool_,
    "DT_COMPLEX64": np.complex64,
    "DT_COMPLEX128": np.complex128,
}
FIELDS = {
    "DT_FLOAT": "float_val",
    "DT_DOUBLE": "double_val",
    "DT_INT64": "int64_val",
    "DT_BOOL": "bool_val",
    "DT_UINT32": "uint32_val",
    "DT_UINT64": "uint64_val",
}


def proto(dtype: str, shape: tuple[int, ...], **values: Any) -> TensorProto:
    """A TensorProto with these fields."""
    built = TensorProto(dtype=DataType.Value(dtype), **values)
    for size in shape:
        built.tensor_shape.dim.add().size = size
    return built


def decoded(built: TensorProto) -> Tensor:
    data = b"ab" + built.SerializeToString() + b"cd"
    return read(data, range(2, len(data) - 2))


def typed(dtype: str, values: np.ndarray) -> dict[str, Any]:
    """The field of the values' own type, as TensorFlow Serving answers by default."""
    flat = values.ravel()
    if dtype in ("DT_HALF", "DT_BFLOAT16"):
        return {"half_val": flat.view(np.uint16).astype(int).tolist()}
    if dtype == "DT_COMPLEX64":
        return {"scomplex_val": flat.view(np.float32).tolist()}
    if dtype == "DT_COMPLEX128":
        return {"dcomplex_val": flat.view(np.float64).tolist()}
    return {FIELDS.get(dtype, "int_val"): flat.tolist()}


@pytest.mark.parametrize("dtype", list(NUMPY))
@settings(max_examples=25)
@given(data=st.data())
# Signalling NaNs are among the values.
@np.errstate(invalid="ignore")
def test_values_are_read_from_both_forms(dtype: str, data: st.DataObject) -> None:
    kind = np.dtype(NUMPY[dtype])
    shape = tuple(data.draw(st.lists(st.integers(0, 4), max_size=3)))
    size = kind.itemsize * math.prod(shape)
    bits = np.frombuffer(data.draw(st.binary(min_size=size, max_size=size)), np.uint8)
    if dtype == "DT_BOOL":
        bits = np.bitwise_and(bits, np.uint8(1))
    values = bits.view(kind).reshape(shape)
    # A signalling NaN is another NaN after it went through a float of another width.
    values = (
        np.where(np.isnan(values), np.array(np.nan, kind), values) if kind.kind in "fcV" else values
    )
    for fields in ({"tensor_content": values.tobytes()}, typed(dtype, values)):
        tensor = decoded(proto(dtype, shape, **fields))
        assert (tensor.dtype, tensor.shape) == (DataType.Value(dtype), shape)
        wide = values.astype(np.float32) if dtype in ("DT_HALF", "DT_BFLOAT16") else values
        flat = wide.ravel()
        if kind.kind == "c":
            flat = flat.view(np.float32 if dtype == "DT_COMPLEX64" else np.float64)
        np.testing.assert_array_equal(np.array(tensor.values, flat.dtype), flat)


@pytest.mark.parametrize(
    ("fields", "values"),
    [
        ({"float_val": [2.5]}, [2.5] * 6),
        ({"float_val": [1.0, 2.0]}, [1.0, 2.0, 2.0, 2.0, 2.0, 2.0]),
        ({}, [0.0] * 6),
    ],
)
def test_what_lacks_is_the_last_value_or_nothing(fields: Any, values: list[float]) -> None:
    assert list(decoded(proto("DT_FLOAT", (2, 3), **fields)).values) == values


def test_complex_values_are_repeated_in_pairs() -> None:
    tensor = decoded(proto("DT_COMPLEX64", (3,), scomplex_val=[1.0, 2.0]))
    assert list(tensor.values) == [1.0, 2.0] * 3


def test_texts_are_read_and_repeated() -> None:
    tensor = decoded(proto("DT_STRING", (3,), string_val=[b"a", b"\xff"]))
    assert tensor == Tensor(tensors.STRING, (3,), [b"a", b"\xff", b"\xff"])
    assert decoded(proto("DT_STRING", ())).values == [b""]


def test_values_may_stand_one_by_one_as_older_programs_write_them() -> None:
    shape = b"\x12\x04\x12\x02\x08\x02"
    floats = b"\x08\x01" + shape + b"\x2d" + struct.pack("<f", 1.5) + b"\x2d\0\0\0\xc0"
    assert list(read(floats, range(len(floats))).values) == [1.5, -2.0]
    numbers = b"\x08\x09" + shape + b"\x50\x05" + b"\x50" + b"\xff" * 9 + b"\x01"
    assert list(read(numbers, range(len(numbers))).values) == [5, -1]


@pytest.mark.parametrize(
    ("built", "message"),
    [
        (proto("DT_RESOURCE", ()), "a tensor of resource"),
        (proto("DT_VARIANT", (2,)), "a tensor of variant"),
        (proto("DT_FLOAT8_E5M2", (2,)), "a tensor of float8_e5m2"),
        (proto("DT_FLOAT", (1 << 40, 1 << 40)), "more than 4194304 values"),
        (proto("DT_STRING", (2 << 20,)), "more than 1048576"),
        (proto("DT_INVALID", ()), "a tensor of invalid"),
    ],
)
def test_what_is_not_compared_says_so(built: TensorProto, message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        decoded(built)


def test_too_many_single_values_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensors, "MAX_SINGLE_VALUES", 3)
    assert len(decoded(proto("DT_INT32", (3,), int_val=[1, 2, 300])).values) == 3
    with pytest.raises(UnsupportedError, match="more than 3 single values"):
        decoded(proto("DT_INT32", (4,), int_val=[1, 2, 3, 400]))


@pytest.mark.parametrize(
    "built",
    [
        proto("DT_FLOAT", (2,), float_val=[1.0, 2.0, 3.0]),
        proto("DT_FLOAT", (2,), tensor_content=b"12345"),
        proto("DT_STRING", (1,), string_val=[b"a", b"b"]),
        proto("DT_INT8", (1,), int_val=[1000]),
        proto("DT_UINT8", (1,), int_val=[-1]),
        proto("DT_COMPLEX64", (2,), scomplex_val=[1.0]),
        proto("DT_FLOAT", (-1,)),
        proto("DT_FLOAT", (0,) * 255),
        TensorProto(dtype=1, tensor_shape={"unknown_rank": True}),
    ],
)
def test_what_is_no_tensor_is_refused(built: TensorProto) -> None:
    with pytest.raises(ValueError, match=r"value|texts|shape"):
        decoded(built)


@settings(max_examples=300)
@given(
    st.binary(max_size=60)
    | st.builds(
        lambda dtype, rest: bytes([8, dtype]) + rest, st.integers(0, 40), st.binary(max_size=40)
    )
)
def test_any_bytes_are_a_tensor_or_refused(data: bytes) -> None:
    try:
        tensor = read(data, range(len(data)))
    except ValueError:
        return
    parts = 2 if tensor.dtype in tensors.COMPLEX else 1
    assert len(tensor.values) == parts * math.prod(tensor.shape)
