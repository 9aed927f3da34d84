"""A picture as a predict request of TensorFlow Serving's REST API, and labels out of the answer.

Which input takes the picture is learnt from the model's own signature.
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any, Final

import msgspec

from kubectl_inferencemodel.errors import AnswerError

if TYPE_CHECKING:
    from collections.abc import Sequence

BYTES: Final = "DT_STRING"
"""TensorFlow's type of an input that takes a file's bytes."""


class Label(msgspec.Struct, frozen=True):
    """One label with its probability (0 to 1), or what else the model gives as a score."""

    label: str
    probability: float


class _Dim(msgspec.Struct):
    size: str | int = "-1"


class _Shape(msgspec.Struct):
    dim: list[_Dim] = []
    unknown_rank: bool = False


class _Tensor(msgspec.Struct):
    dtype: str = ""
    tensor_shape: _Shape = msgspec.field(default_factory=_Shape)


class _Signature(msgspec.Struct):
    inputs: dict[str, _Tensor] = {}
    outputs: dict[str, _Tensor] = {}


class _Signatures(msgspec.Struct):
    signature_def: dict[str, _Signature] = {}


class _Metadata(msgspec.Struct):
    signature_def: _Signatures


class _Spec(msgspec.Struct):
    version: str


class _Answer(msgspec.Struct):
    model_spec: _Spec
    metadata: _Metadata


class Described(msgspec.Struct, frozen=True):
    """What a model server says of the version that it answers with."""

    version: int
    inputs: dict[str, dict[str, str]]
    """The type of each input, by signature and input."""
    outputs: dict[str, dict[str, str]] = {}
    """The type of each output, by signature and output."""
    shapes: dict[str, dict[str, tuple[int, ...] | None]] = {}
    """The shape of each input; -1 for any size, None for any number of dimensions."""


def described(answer: bytes) -> Described:
    """Read the answer of ``GET /v1/models/NAME/metadata``.

    Raises:
        AnswerError: it is something else.
    """
    try:
        found = msgspec.json.decode(answer, type=_Answer)
        signatures = found.metadata.signature_def.signature_def
        return Described(
            int(found.model_spec.version),
            {name: _types(signature.inputs) for name, signature in signatures.items()},
            {name: _types(signature.outputs) for name, signature in signatures.items()},
            {
                name: {key: _shape(tensor.tensor_shape) for key, tensor in signature.inputs.items()}
                for name, signature in signatures.items()
            },
        )
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise AnswerError(f"the model server's metadata is not understood: {error}") from error


def _types(tensors: dict[str, _Tensor]) -> dict[str, str]:
    return {name: tensor.dtype for name, tensor in tensors.items()}


def _shape(shape: _Shape) -> tuple[int, ...] | None:
    return None if shape.unknown_rank else tuple(int(dim.size) for dim in shape.dim)


def picture(model: Described, image: bytes, *, signature: str) -> bytes:
    """A predict request for one picture, as its file's bytes.

    Raises:
        AnswerError: the model has no such signature, or it takes no files.
    """
    if signature not in model.inputs:
        known = ", ".join(sorted(model.inputs)) or "none"
        raise AnswerError(f"the model has no signature {signature}; it has {known}")
    inputs = model.inputs[signature]
    takers = [name for name, dtype in inputs.items() if dtype == BYTES]
    if len(inputs) != 1 or len(takers) != 1:
        listed = ", ".join(f"{name} ({dtype})" for name, dtype in sorted(inputs.items()))
        raise AnswerError(
            f"the signature {signature} takes {listed}, not the bytes of one file; "
            "send a request of its form with --json"
        )
    instance = {takers[0]: {"b64": base64.b64encode(image).decode()}}
    return json.dumps({"signature_name": signature, "instances": [instance]}).encode()


def labels(prediction: Any, names: Sequence[str] = ()) -> list[Label] | None:
    """The labels in one element of ``predictions``, best first.

    Args:
        prediction: texts and numbers side by side, or numbers alone.
        names: what the numbers of classes mean, where the model does not tell.

    Returns:
        None when it is neither.
    """
    if isinstance(prediction, dict):
        texts = next((v for v in prediction.values() if _all(v, str)), None)
        scores = next((v for v in prediction.values() if _all(v, float)), None)
        if scores is None:
            return None
        if texts is None or len(texts) != len(scores):
            texts = _named(len(scores), names)
    elif _all(prediction, float):
        scores = prediction
        texts = _named(len(scores), names)
    else:
        return None
    found = [Label(text, float(score)) for text, score in zip(texts, scores, strict=True)]
    return sorted(found, key=lambda label: -label.probability)


def read(answer: bytes) -> list[Any]:
    """The ``predictions`` of an answer.

    Raises:
        AnswerError: it is something else.
    """
    try:
        return list(json.loads(answer)["predictions"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        text = answer[:300].decode(errors="replace")
        raise AnswerError(f"not an answer of predict: {text}") from error


def problem(answer: bytes) -> str:
    """What a model server, or the API server before it, says is wrong."""
    try:
        content = json.loads(answer)
        return str(content.get("error") or content["message"])
    except (ValueError, KeyError, AttributeError, RecursionError):
        return answer[:500].decode(errors="replace").strip()


def _named(count: int, names: Sequence[str]) -> list[str]:
    return [names[n] if n < len(names) else f"class {n}" for n in range(count)]


def _all(value: Any, kind: type) -> bool:
    allowed = (int, float) if kind is float else kind
    return isinstance(value, list) and bool(value) and all(isinstance(v, allowed) for v in value)
