"""Between the JSON of the REST API and tensors, examples and results.

Rows and columns, types, base64 and messages are those of TensorFlow Serving's
``util/json_tensor.cc``.
"""

from __future__ import annotations

import base64
import binascii
import enum
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from development_model_server import json_text
from development_model_server.errors import Code, ServingError, invalid_argument
from development_model_server.protos import Example, Feature
from development_model_server.tensors import (
    DT_BOOL,
    DT_DOUBLE,
    DT_FLOAT,
    DT_INT8,
    DT_INT16,
    DT_INT32,
    DT_INT64,
    DT_STRING,
    DT_UINT8,
    DT_UINT32,
    DT_UINT64,
    STORAGE,
    Tensor,
    shaped,
    type_name,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from development_model_server.json_text import Value
    from development_model_server.protos import (
        ClassificationRequest,
        ClassificationResult,
        RegressionRequest,
        RegressionResult,
    )

Shape = tuple[int, ...]
_MAX_RANK = 254  # of a TensorShape


class Format(enum.Enum):
    """How a Predict request was written, and is answered."""

    ROW = enum.auto()
    COLUMNAR = enum.auto()


def parse_object(body: bytes) -> dict[str, Value]:
    """Read a body that must be an object.

    Raises:
        ServingError: it isn't JSON, or no object.
    """
    document = json_text.parse(body)
    if not isinstance(document, dict):
        raise _format_error(document, "Is not object")
    return document


def signature_name(document: dict[str, Value]) -> str:
    """The body's ``signature_name``, or nothing.

    Raises:
        ServingError: it is no string.
    """
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid_argument(
            f"JSON Value: {json_text.debug_string(document)} not formatted correctly."
            " 'signature_name' key must be a string value."
        )
    return name


def predict_inputs(
    document: dict[str, Value], types: Mapping[str, int]
) -> tuple[dict[str, Tensor], Format]:
    """The tensors of a Predict request, by their aliases.

    Args:
        document: the request's body.
        types: the type of each input of the signature.

    Raises:
        ServingError: there are none, or they don't fit the signature.
    """
    if "instances" in document:
        if "inputs" in document:
            raise _format_error(
                document,
                "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to"
                " exist ",
            )
        instances = document["instances"]
        if not isinstance(instances, list):
            raise _format_error(document, "Expecting 'instances' to be an list/array")
        if not instances:
            raise _format_error(document, "No values in 'instances' array")
        return _from_rows(instances, types), Format.ROW
    if "inputs" in document:
        return _from_columns(document["inputs"], types), Format.COLUMNAR
    raise invalid_argument("Missing 'inputs' or 'instances' key")


def _format_error(value: Value, problem: str) -> ServingError:
    return invalid_argument(f"JSON Value: {json_text.debug_string(value)} {problem}")


def _is_base64(value: Value) -> bool:
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get("b64"), str)


def _is_plain_object(value: Value) -> bool:
    return isinstance(value, dict) and not _is_base64(value)


class _Rows:
    """Collects the elements of one named input, which must be alike."""

    def __init__(self, dtype: int) -> None:
        self._dtype = dtype
        self._shape: Shape | None = None
        self._values: list[Any] = []

    def add(self, element: Value) -> None:
        shape = _dense_shape(element)
        values = _flatten(element, shape, self._dtype)
        if self._shape is None:
            self._shape = shape
            self._size = len(values)
        elif self._size != len(values):
            raise invalid_argument(f"Expecting tensor size: {self._size} but got: {len(values)}")
        elif self._shape != shape:
            raise invalid_argument(
                f"Expecting shape {_shape_text(self._shape)} but got: {_shape_text(shape)}"
            )
        self._values.extend(values)

    def tensor(self, count: int) -> Tensor:
        return _tensor(self._dtype, (count, *(self._shape or ())), self._values)


def _shape_text(shape: Shape) -> str:
    return "[" + ",".join(map(str, shape)) + "]"


def _from_rows(instances: list[Value], types: Mapping[str, int]) -> dict[str, Tensor]:
    if not isinstance(instances[0], dict) and len(types) > 1:
        raise invalid_argument(
            "instances is a plain list, but expecting list of objects as multiple input tensors"
            " required as per tensorinfo_map"
        )
    rows = {name: _Rows(dtype) for name, dtype in types.items()}
    used: set[str] = set()
    if _is_plain_object(instances[0]):
        for index, element in enumerate(instances):
            if not _is_plain_object(element):
                raise invalid_argument(
                    f"Expecting object but got list at item {index} of input list"
                )
            for name, value in element.items():
                try:
                    if name not in rows:
                        raise invalid_argument(f"JSON object: does not have named input: {name}")
                    rows[name].add(value)
                except ServingError as error:
                    raise invalid_argument(
                        f"Failed to process element: {index} key: {name} of 'instances' list."
                        f" Error: {error.text}"
                    ) from error
                used.add(name)
            if element.keys() != types.keys():
                raise invalid_argument(
                    f"Failed to process element: {index} of 'instances' list. JSON object:"
                    f" {json_text.debug_string(element)} keys must be equal to:"
                    f" {','.join(sorted(types))}"
                )
    else:
        (name,) = list(types)[:1]
        used.add(name)
        for index, element in enumerate(instances):
            if _is_plain_object(element):
                raise invalid_argument(
                    f"Expecting value/list but got object at item {index} of input list"
                )
            try:
                rows[name].add(element)
            except ServingError as error:
                raise invalid_argument(
                    f"Failed to process element: {index} of 'instances' list. Error: {error.text}"
                ) from error
    return {name: rows[name].tensor(len(instances)) for name in sorted(used)}


def _from_columns(inputs: Value, types: Mapping[str, int]) -> dict[str, Tensor]:
    if not _is_plain_object(inputs):
        if len(types) > 1:
            raise invalid_argument(
                "inputs is a plain value/list, but expecting an object as multiple input tensors"
                " required as per tensorinfo_map"
            )
        (name,) = types
        return {name: _column(inputs, types[name])}
    tensors = {}
    for name in sorted(types):
        if name not in inputs:
            raise invalid_argument(f"Missing named input: {name} in 'inputs' object.")
        tensors[name] = _column(inputs[name], types[name])
    return tensors


def _column(value: Value, dtype: int) -> Tensor:
    shape = _dense_shape(value)
    return _tensor(dtype, shape, _flatten(value, shape, dtype))


def _tensor(dtype: int, shape: Shape, values: list[Any]) -> Tensor:
    if dtype == DT_STRING:
        return Tensor(dtype, shape, strings=values)
    storage = STORAGE[dtype]
    if storage.kind in "iu" and storage.itemsize < 4:
        array = np.array(values, dtype="<i4").astype(storage)
    else:
        with np.errstate(over="ignore"):
            array = np.array(values, dtype=storage)
    return Tensor(dtype, shape, values=shaped(array, shape))


def _dense_shape(value: Value) -> Shape:
    shape = []
    while isinstance(value, list):
        shape.append(len(value))
        if not value:
            break
        value = value[0]
    return tuple(shape)


def _flatten(value: Value, shape: Shape, dtype: int) -> list[Any]:
    """The values of a nested list that has a shape throughout, row by row.

    Raises:
        ServingError: it hasn't, or a value is of another type.
    """
    if len(shape) > _MAX_RANK:
        raise invalid_argument(f"tensor parsing error: {len(shape)} dimensions")
    values: list[Any] = []
    _flatten_into(values, value, 0, shape, dtype)
    return values


def _flatten_into(values: list[Any], value: Value, level: int, shape: Shape, dtype: int) -> None:
    rank = len(shape)
    if not isinstance(value, list):
        if level != rank:
            raise invalid_argument(
                f"JSON Value: {json_text.debug_string(value)} found at incorrect level:"
                f" {level + 1} in the JSON DOM. Expected at level: {rank}"
            )
        values.append(_element(value, dtype))
        return
    if level >= rank:
        raise invalid_argument(f"Encountered list at unexpected level: {level} expected < {rank}")
    if len(value) != shape[level]:
        raise invalid_argument(
            f"Encountered list at unexpected size: {len(value)} at level: {level} expected size:"
            f" {shape[level]}"
        )
    if (
        level + 1 == rank
        and dtype in _PYTHON_TYPES
        and set(map(type, value)) <= _PYTHON_TYPES[dtype]
    ):
        values.extend(value)
        return
    for element in value:
        _flatten_into(values, element, level + 1, shape, dtype)


# Types whose values need no check one by one.
_PYTHON_TYPES: dict[int, set[type]] = {
    DT_FLOAT: {float, int},
    DT_DOUBLE: {float, int},
    DT_BOOL: {bool},
}

_INTEGER_BOUNDS = {
    DT_INT32: (-(2**31), 2**31),
    DT_INT16: (-(2**31), 2**31),
    DT_INT8: (-(2**31), 2**31),
    DT_UINT8: (-(2**31), 2**31),
    DT_INT64: (-(2**63), 2**63),
    DT_UINT32: (0, 2**32),
    DT_UINT64: (0, 2**64),
}


def _element(value: Value, dtype: int) -> Any:
    if isinstance(value, dict):
        if dtype == DT_STRING:
            return _decode_base64(value)
        raise _type_error(value, dtype)
    if dtype == DT_STRING:
        if not isinstance(value, str):
            raise _type_error(value, dtype)
        return json_text.encode_string(value)
    if dtype in _PYTHON_TYPES:
        if type(value) not in _PYTHON_TYPES[dtype]:
            raise _type_error(value, dtype)
        return value
    bounds = _INTEGER_BOUNDS.get(dtype)
    if bounds is None:
        raise ServingError(
            Code.UNIMPLEMENTED,
            f"Conversion of JSON Value: {json_text.debug_string(value)} to type:"
            f" {type_name(dtype)}",
        )
    if type(value) is not int or not bounds[0] <= value < bounds[1]:
        raise _type_error(value, dtype)
    return value


def _type_error(value: Value, dtype: int) -> ServingError:
    return invalid_argument(
        f"JSON Value: {json_text.debug_string(value)} Type: {_json_type(value)} is not of expected"
        f" type: {type_name(dtype)}"
    )


def _json_type(value: Value) -> str:
    match value:
        case None:
            return "Null"
        case bool():
            return str(value)
        case dict():
            return "Object"
        case list():
            return "Array"
        case str():
            return "String"
        case _:
            return "Number"


def _decode_base64(value: Value) -> bytes:
    if not _is_base64(value):
        raise invalid_argument(
            f"JSON Value: {json_text.debug_string(value)} not formatted correctly for base64 data"
        )
    # As absl::Base64Unescape: blanks anywhere, padding optional but not wrong.
    text = re.sub(r"[ \t\n\v\f\r]", "", value["b64"])
    data = text.rstrip("=.")
    padding = len(text) - len(data)
    missing = -len(data) % 4
    if missing == 3 or padding not in (0, missing):
        raise invalid_argument("Unable to base64 decode")
    try:
        return base64.b64decode(data + "=" * missing, validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid_argument("Unable to base64 decode") from error


# -- Classify and Regress -------------------------------------------------------------------


def fill_examples(
    document: dict[str, Value], request: ClassificationRequest | RegressionRequest
) -> None:
    """Read ``examples`` and ``context`` into a request.

    Raises:
        ServingError: they are missing or aren't features.
    """
    has_context = "context" in document
    if has_context:
        request.input.example_list_with_context.context.CopyFrom(_example(document["context"]))
    if "examples" not in document:
        raise _format_error(
            document, "When method is classify, key 'examples' is expected and was not found"
        )
    examples = document["examples"]
    if not isinstance(examples, list):
        raise _format_error(document, "Expecting 'examples' value to be an list/array")
    if not examples:
        raise _format_error(document, "'examples' value is an empty array")
    target = (
        request.input.example_list_with_context.examples
        if has_context
        else request.input.example_list.examples
    )
    target.extend(map(_example, examples))


def _example(value: Value) -> Example:
    if not isinstance(value, dict):
        raise invalid_argument(f"Example must be JSON object but got JSON {_json_type(value)}")
    example = Example()
    for name, content in value.items():
        feature = Feature()
        for element in content if isinstance(content, list) else [content]:
            _add_to_feature(element, name, feature)
        example.features.feature[name].CopyFrom(feature)
    return example


def _add_to_feature(value: Value, name: str, feature: Feature) -> None:
    if value is None or isinstance(value, list) or _is_plain_object(value):
        raise invalid_argument(
            f"Feature: {name} has element with unexpected JSON type: {_json_type(value)}"
        )
    if isinstance(value, bool | int):
        _require_kind(feature, name, "int64_list")
        if value >= 2**63:
            raise invalid_argument(
                f"Feature: {name} has uint64_t element. Only int64_t is supported."
            )
        feature.int64_list.value.append(int(value))
    elif isinstance(value, float):
        _require_kind(feature, name, "float_list")
        feature.float_list.value.append(value)
    else:
        _require_kind(feature, name, "bytes_list")
        feature.bytes_list.value.append(
            json_text.encode_string(value) if isinstance(value, str) else _decode_base64(value)
        )


def _require_kind(feature: Feature, name: str, kind: str) -> None:
    present = feature.WhichOneof("kind")
    if present not in (None, kind):
        raise invalid_argument(
            f"Unexpected element type in feature: {name} expecting type:"
            f" {present.removesuffix('_list')}"
        )


# -- Answers --------------------------------------------------------------------------------


def predict_response(outputs: Mapping[str, Tensor], layout: Format) -> bytes:
    """Write the outputs of a Predict request as it was written.

    Raises:
        ServingError: there are none, they have no common batch size, or a type has no JSON.
    """
    if not outputs:
        raise invalid_argument("Cannot convert empty tensor map to JSON")
    return (_rows if layout is Format.ROW else _columns)(dict(sorted(outputs.items())))


def _rows(outputs: dict[str, Tensor]) -> bytes:
    batch = None
    for name, tensor in outputs.items():
        if not tensor.shape:
            raise invalid_argument(f"Tensor name: {name} has no shape information ")
        if batch not in (None, tensor.shape[0]):
            raise invalid_argument(
                f"Tensor name: {name} has inconsistent batch size: {tensor.shape[0]} expecting:"
                f" {batch}"
            )
        batch = tensor.shape[0]
    rows = {name: _Written(name, tensor) for name, tensor in outputs.items()}
    writer = json_text.PrettyWriter()
    writer.start("{")
    writer.string(b"predictions")
    writer.start("[")
    several = len(rows) > 1
    for _ in range(batch or 0):
        if several:
            writer.start("{")
        writer.single_line = True
        for name, written in rows.items():
            if several:
                writer.string(name.encode())
            written.write(writer, 1)
        writer.single_line = False
        if several:
            writer.end()
    writer.end()
    writer.end()
    return writer.getvalue()


def _columns(outputs: dict[str, Tensor]) -> bytes:
    writer = json_text.PrettyWriter()
    writer.start("{")
    writer.string(b"outputs")
    several = len(outputs) > 1
    if several:
        writer.start("{")
    for name, tensor in outputs.items():
        if several:
            writer.string(name.encode())
        _Written(name, tensor).write(writer, 0)
    if several:
        writer.end()
    writer.end()
    return writer.getvalue()


class _Written:
    """A tensor's values as JSON, handed out in order."""

    def __init__(self, name: str, tensor: Tensor) -> None:
        self._shape = tensor.shape
        self._position = 0
        self._base64 = tensor.dtype == DT_STRING and name.endswith("_bytes")
        self._texts = _value_texts(tensor, as_base64=self._base64)

    def write(self, writer: json_text.PrettyWriter, axis: int) -> None:
        """Write the next values: all below ``axis``."""
        if axis >= len(self._shape):
            self._write_values(writer, 1)
            return
        writer.start("[")
        if axis == len(self._shape) - 1:
            self._write_values(writer, self._shape[axis])
        else:
            for _ in range(self._shape[axis]):
                self.write(writer, axis + 1)
        writer.end()

    def _write_values(self, writer: json_text.PrettyWriter, count: int) -> None:
        texts = self._texts[self._position : self._position + count]
        self._position += count
        if self._base64:
            for text in texts:
                writer.start("{")
                writer.string(b"b64")
                writer.raw(text)
                writer.end()
        elif count == 1:
            writer.raw(texts[0])
        else:
            writer.raw_elements(texts)


def _value_texts(tensor: Tensor, *, as_base64: bool) -> list[str]:
    if tensor.dtype == DT_STRING:
        if as_base64:
            return [f'"{base64.b64encode(value).decode()}"' for value in tensor.strings]
        return [json_text.quote(value) for value in tensor.strings]
    flat = tensor.values.reshape(-1)
    if tensor.dtype in (DT_FLOAT, DT_DOUBLE):
        return decimals(flat)
    if tensor.dtype == DT_BOOL:
        return ["true" if value else "false" for value in flat.tolist()]
    if tensor.dtype in _INTEGER_BOUNDS:
        return list(map(str, flat.tolist()))
    if not len(flat):
        return []
    raise invalid_argument(f"Failed to write JSON value for tensor type: {type_name(tensor.dtype)}")


def decimals(values: np.ndarray[Any, np.dtype[Any]]) -> list[str]:
    """Floats as text: six digits if that is enough to read the same number, else all of them."""
    precise: Callable[[float], str] = (
        "{:.9g}".format if values.dtype.itemsize == 4 else "{:.17g}".format
    )
    numbers = values.tolist()
    texts = [f"{number:g}" for number in numbers]
    with np.errstate(over="ignore", invalid="ignore"):
        same = np.array(texts, dtype=values.dtype) == values
    return [
        _decimal(text if exact else precise(number))
        for text, number, exact in zip(texts, numbers, same.tolist(), strict=True)
    ]


_NOT_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


def _decimal(text: str) -> str:
    if text in _NOT_FINITE:
        return _NOT_FINITE[text]
    return text if "." in text or "e" in text else f"{text}.0"


def classification_response(result: ClassificationResult) -> bytes:
    """Write classes as ``[label, score]``.

    Raises:
        ServingError: there are none.
    """
    if not result.classifications:
        raise invalid_argument("Cannot convert empty ClassificationResults to JSON")
    writer = json_text.PrettyWriter()
    writer.start("{")
    writer.string(b"results")
    writer.start("[")
    for classifications in result.classifications:
        writer.single_line = True
        writer.start("[")
        for entry, score in zip(
            classifications.classes,
            _scores(entry.score for entry in classifications.classes),
            strict=True,
        ):
            writer.start("[")
            writer.string(entry.label.encode())
            writer.raw(score)
            writer.end()
        writer.end()
        writer.single_line = False
    writer.end()
    writer.end()
    return writer.getvalue()


def regression_response(result: RegressionResult) -> bytes:
    """Write values as a list.

    Raises:
        ServingError: there are none.
    """
    if not result.regressions:
        raise invalid_argument("Cannot convert empty RegressionResults to JSON")
    writer = json_text.PrettyWriter()
    writer.start("{")
    writer.string(b"results")
    writer.single_line = True
    writer.start("[")
    writer.raw_elements(_scores(regression.value for regression in result.regressions))
    writer.end()
    writer.end()
    return writer.getvalue()


def _scores(values: Iterable[float]) -> list[str]:
    return decimals(np.fromiter(values, dtype="<f4"))


def error_response(error: ServingError) -> bytes:
    """Write an error's message."""
    writer = json_text.PrettyWriter()
    writer.start("{")
    writer.string(b"error")
    writer.string(error.message.encode("utf-8", "surrogateescape"))
    writer.end()
    return writer.getvalue()
