"""Golden records: a request and the answer to it, as TensorFlow Serving's messages. Pure.

What is asked by the REST API and answered by it becomes the PredictRequest and the PredictResponse
that say the same over gRPC: types come from the model's own signature, shapes from the nesting of
lists. Numbers of fields are those of tensorflow_serving/apis (predict.proto, model.proto,
prediction_log.proto) and tensorflow/core/framework (tensor.proto, tensor_shape.proto).
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import struct
from typing import TYPE_CHECKING, Any, Final

import msgspec

from kubectl_inferencemodel.errors import AnswerError
from model_poller.checks import dtypes
from model_poller.checks.wire import delimited, fields, written

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kubectl_inferencemodel.predictions import Described

DEFAULT_SIGNATURE: Final = "serving_default"
_CODES: Final = {
    "DT_FLOAT": "f",
    "DT_DOUBLE": "d",
    "DT_HALF": "e",
    "DT_INT8": "b",
    "DT_INT16": "h",
    "DT_INT32": "i",
    "DT_INT64": "q",
    "DT_UINT8": "B",
    "DT_UINT16": "H",
    "DT_UINT32": "I",
    "DT_UINT64": "Q",
}
"""How `struct` calls what ``tensor_content`` holds of a type."""
_FLOATS: Final = frozenset({"DT_FLOAT", "DT_DOUBLE", "DT_HALF"})
_STRING: Final = "DT_STRING"
_BOOL: Final = "DT_BOOL"
_MAX_RANK: Final = 254
"""Of a TensorShape."""


class Asked(msgspec.Struct, frozen=True):
    """A request by columns: each input's tensor, as nested lists."""

    signature: str
    inputs: dict[str, Any]

    @property
    def body(self) -> bytes:
        """As the REST API takes it; the answer comes by columns, too."""
        content = {"signature_name": self.signature, "inputs": self.inputs}
        return json.dumps(content).encode()


class Record(msgspec.Struct, frozen=True):
    """A record, and what is to be known of it."""

    content: bytes
    """A PredictionLog."""
    odd: tuple[str, ...]
    """The outputs with values that are no numbers: NaN or infinite."""


def asked(model: Described, body: bytes) -> Asked:
    """Read a predict request of the REST API, by rows or by columns.

    Raises:
        AnswerError: it is none, or none that the model takes.
    """
    content = _parsed(body, "the request")
    if not isinstance(content, dict):
        raise AnswerError("the request is no JSON object with instances or inputs")
    signature = content.get("signature_name") or DEFAULT_SIGNATURE
    if not isinstance(signature, str) or signature not in model.inputs:
        known = ", ".join(sorted(model.inputs)) or "none"
        raise AnswerError(f"the model has no signature {signature!r}; it has {known}")
    wanted = model.inputs[signature]
    if ("instances" in content) == ("inputs" in content):
        raise AnswerError("the request has to have either instances or inputs")
    if "inputs" in content:
        inputs = _named(content["inputs"], wanted)
    else:
        inputs = _columns(content["instances"], wanted)
    unknown, missing = sorted(inputs.keys() - wanted), sorted(wanted.keys() - inputs)
    if unknown or missing:
        raise AnswerError(
            f"the signature {signature} takes {', '.join(sorted(wanted))}; the request"
            f" {'lacks ' + missing[0] if missing else 'has ' + unknown[0]}"
        )
    return Asked(signature, inputs)


def record(model: Described, name: str, request: Asked, answer: bytes) -> Record:
    """A request and its answer as one record.

    Args:
        model: what answers.
        name: as which the model is served.
        request: what was asked.
        answer: the body of the REST API's answer.

    Raises:
        AnswerError: the answer is an error, or can't be recorded.
    """
    content = _parsed(answer, "the answer")
    if not isinstance(content, dict) or "outputs" not in content:
        told = content.get("error") if isinstance(content, dict) else None
        words = str(told or answer[:200].decode(errors="replace"))
        raise AnswerError(f"the model server answers no outputs: {words}")
    types = model.outputs.get(request.signature, {})
    outputs = content["outputs"]
    # The REST API leaves the name out where there is one output.
    by_name = {next(iter(types)): outputs} if len(types) == 1 else outputs
    if not isinstance(by_name, dict) or by_name.keys() != types.keys():
        raise AnswerError(
            f"the answer does not have the outputs that the signature {request.signature} tells:"
            f" {', '.join(sorted(types)) or 'none'}"
        )
    spec = delimited(1, name.encode()) + delimited(3, request.signature.encode())
    # google.protobuf.Int64Value
    version = delimited(2, b"\x08" + written(model.version))
    inputs = model.inputs[request.signature]
    asking = delimited(1, spec) + _map(2, request.inputs, inputs, "input")
    saying = _map(1, by_name, types, "output") + delimited(2, spec + version)
    odd = tuple(output for output in sorted(by_name) if not _is_finite(by_name[output]))
    return Record(delimited(6, delimited(1, asking) + delimited(2, saying)), odd)


def request_of(content: bytes) -> bytes:
    """What a record asks: of one with a PredictRequest that, of another kind the whole record.

    Raises:
        ValueError: it is no message.
    """
    found = dict(fields(content, 0, len(content)))
    log = found.get(6)
    if isinstance(log, range):
        request = dict(fields(content, log.start, log.stop)).get(1)
        if isinstance(request, range):
            return content[request.start : request.stop]
    return content


def _named(inputs: Any, wanted: Mapping[str, str]) -> dict[str, Any]:
    if isinstance(inputs, dict) and not _is_base64(inputs):
        return inputs
    return _alone(inputs, wanted)


def _columns(instances: Any, wanted: Mapping[str, str]) -> dict[str, Any]:
    if not isinstance(instances, list) or not instances:
        raise AnswerError("instances is no list with anything in it")
    objects = [isinstance(row, dict) and not _is_base64(row) for row in instances]
    if not any(objects):
        return _alone(instances, wanted)
    names = instances[0].keys() if objects[0] else set()
    if not all(objects) or any(row.keys() != names for row in instances):
        raise AnswerError("the instances have not all the same inputs")
    return {name: [row[name] for row in instances] for name in sorted(names)}


def _alone(value: Any, wanted: Mapping[str, str]) -> dict[str, Any]:
    if len(wanted) != 1:
        raise AnswerError(f"the request has to name the inputs: {', '.join(sorted(wanted))}")
    return {next(iter(wanted)): value}


def _map(number: int, tensors: Mapping[str, Any], types: Mapping[str, str], what: str) -> bytes:
    """A map from names to TensorProtos."""
    entries = []
    for name in sorted(tensors):
        try:
            tensor = encode(types[name], tensors[name])
        except (ValueError, OverflowError, struct.error, binascii.Error) as error:
            raise AnswerError(f"the {what} {name} can't be recorded: {error}") from error
        entries.append(delimited(number, delimited(1, name.encode()) + delimited(2, tensor)))
    return b"".join(entries)


def encode(dtype: str, value: Any) -> bytes:
    """A TensorProto of nested lists.

    Raises:
        ValueError, OverflowError, struct.error: it has no one shape, or a value of another type.
    """
    shape = _shape(value)
    leaves = list(_leaves(value, shape, 0))
    if not leaves:
        raise ValueError("it is empty, so its shape can't be told")
    dims = b"".join(delimited(2, b"\x08" + written(size)) for size in shape)
    head = b"\x08" + written(dtypes.number(dtype)) + delimited(2, dims)
    if dtype == _STRING:
        return head + b"".join(delimited(8, _text(leaf)) for leaf in leaves)
    if dtype == _BOOL:
        if not all(isinstance(leaf, bool) for leaf in leaves):
            raise ValueError("it has other values than true and false")
        return head + delimited(4, bytes(leaves))
    if dtype not in _CODES:
        raise ValueError(f"the REST API has no {dtypes.name(dtypes.number(dtype))}")
    kinds = (int, float) if dtype in _FLOATS else int
    if not all(isinstance(leaf, kinds) and not isinstance(leaf, bool) for leaf in leaves):
        raise ValueError(f"it has other values than {dtypes.name(dtypes.number(dtype))}")
    return head + delimited(4, struct.pack(f"<{len(leaves)}{_CODES[dtype]}", *leaves))


def _shape(value: Any) -> tuple[int, ...]:
    shape: list[int] = []
    while isinstance(value, list):
        shape.append(len(value))
        if len(shape) > _MAX_RANK:
            raise ValueError(f"it has more than {_MAX_RANK} dimensions")
        value = value[0] if value else None
    return tuple(shape)


def _leaves(value: Any, shape: tuple[int, ...], level: int) -> Iterator[Any]:
    if level == len(shape):
        if isinstance(value, list):
            raise ValueError("its lists are not of one length")
        yield value
        return
    if not isinstance(value, list) or len(value) != shape[level]:
        raise ValueError("its lists are not of one length")
    for part in value:
        yield from _leaves(part, shape, level + 1)


def _text(leaf: Any) -> bytes:
    if _is_base64(leaf):
        return base64.b64decode(leaf["b64"], validate=True)
    if isinstance(leaf, str):
        return leaf.encode(errors="surrogateescape")
    raise ValueError("it has other values than texts")


def _is_base64(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"b64"} and isinstance(value["b64"], str)


def _is_finite(value: Any) -> bool:
    if isinstance(value, list):
        return all(_is_finite(part) for part in value)
    return not isinstance(value, float) or math.isfinite(value)


def _parsed(body: bytes, what: str) -> Any:
    try:
        # Texts of a model need not be UTF-8; they come back as the bytes that they are.
        return json.loads(body.decode("utf-8-sig", errors="surrogateescape"))
    except (ValueError, RecursionError) as error:
        raise AnswerError(f"{what} is no JSON: {error}") from error
