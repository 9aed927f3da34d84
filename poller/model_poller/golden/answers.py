"""The answers of TensorFlow Serving's four kinds of requests, as outputs by their names.

Field numbers are those of tensorflow_serving/apis: predict.proto, classification.proto,
regression.proto, inference.proto, model.proto.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from struct import Struct
from typing import TYPE_CHECKING, Final

from model_poller.checks.wire import fields
from model_poller.golden import tensors
from model_poller.golden.tensors import (
    FLOAT,
    MAX_SINGLE_VALUES,
    MAX_VALUES,
    STRING,
    Tensor,
    UnsupportedError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from model_poller.golden.compare import Answer

_FLOAT: Final = Struct("<f")
_BITS: Final = Struct("<L")


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of requests."""

    name: str
    """Of its field in a PredictionLog."""
    method: str
    """Of the PredictionService."""
    read: Callable[[bytes], Answer]
    """Its answers; raises as `tensors.read`."""


def _predicted(data: bytes) -> Answer:
    """Of a PredictResponse."""
    outputs: Answer = {}
    left = MAX_VALUES
    for entry in _messages(data, range(len(data)), 1):
        name, tensor = "", Tensor(0, (), [])
        for number, value in fields(data, entry.start, entry.stop):
            if number == 1 and isinstance(value, range):
                name = data[value.start : value.stop].decode(errors="replace")
            elif number == 2 and isinstance(value, range):
                tensor = tensors.read(data, value, left)
                left -= max(len(tensor.values), 1)
        outputs[name] = tensor
    return outputs


def _classified(data: bytes) -> Answer:
    """Of a ClassificationResponse."""
    answer: Answer = {}
    for result in _messages(data, range(len(data)), 1):
        answer |= _classes(data, result)
    return answer


def _regressed(data: bytes) -> Answer:
    """Of a RegressionResponse."""
    answer: Answer = {}
    for result in _messages(data, range(len(data)), 1):
        answer |= _regressions(data, result)
    return answer


def _inferred(data: bytes) -> Answer:
    """Of a MultiInferenceResponse: each result's outputs behind its signature's name."""
    answer: Answer = {}
    for place, result in enumerate(_messages(data, range(len(data)), 1)):
        signature = str(place)
        parts: Answer = {}
        for number, value in fields(data, result.start, result.stop):
            if not isinstance(value, range):
                continue
            if number == 1:
                for name in _messages(data, value, 3):
                    signature = data[name.start : name.stop].decode(errors="replace")
            elif number == 2:
                parts |= _classes(data, value)
            elif number == 3:
                parts |= _regressions(data, value)
        answer |= {f"{signature}/{name}": tensor for name, tensor in parts.items()}
    return answer


def _classes(data: bytes, result: range) -> Answer:
    """Labels and scores of a ClassificationResult, one row an example where all have as many."""
    labels: list[bytes] = []
    scores = array("f")
    counts = []
    for example in _messages(data, result, 1):
        before = len(labels)
        for scored in _messages(data, example, 1):
            label, score = b"", 0.0
            for number, value in fields(data, scored.start, scored.stop):
                if number == 1 and isinstance(value, range):
                    label = data[value.start : value.stop]
                elif number == 2 and isinstance(value, int):
                    score = _float(value)
            labels.append(label)
            scores.append(score)
            _check_count(len(labels))
        counts.append(len(labels) - before)
    width = counts[0] if counts else 0
    even = all(count == width for count in counts)
    shape = (len(counts), width) if even else (len(labels),)
    return {"classes": Tensor(STRING, shape, labels), "scores": Tensor(FLOAT, shape, scores)}


def _regressions(data: bytes, result: range) -> Answer:
    """The values of a RegressionResult."""
    values = array("f")
    for example in _messages(data, result, 1):
        found = [v for n, v in fields(data, example.start, example.stop) if n == 1]
        values.append(_float(found[-1]) if found and isinstance(found[-1], int) else 0.0)
        _check_count(len(values))
    return {"value": Tensor(FLOAT, (len(values),), values)}


def _messages(data: bytes, place: range, field: int) -> Iterator[range]:
    for number, value in fields(data, place.start, place.stop):
        if number == field and isinstance(value, range):
            yield value


def _float(bits: int) -> float:
    if bits >= 1 << 32:
        raise ValueError("a score of more than four bytes")
    value: float = _FLOAT.unpack(_BITS.pack(bits))[0]
    return value


def _check_count(count: int) -> None:
    if count > MAX_SINGLE_VALUES:
        raise UnsupportedError(f"an answer of more than {MAX_SINGLE_VALUES} scores")


KINDS: Final = {
    2: Kind("classify_log", "Classify", _classified),
    3: Kind("regress_log", "Regress", _regressed),
    4: Kind("multi_inference_log", "MultiInference", _inferred),
    6: Kind("predict_log", "Predict", _predicted),
}
"""By the numbers of their fields in a PredictionLog."""
OTHER_KINDS: Final = {5: "session_run_log", 7: "predict_streamed_log"}
