"""Requests and answers of the REST API, as the messages of gRPC; read by TensorFlow's own."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from development_model_server.protos import PredictionLog, PredictRequest, TensorProto
from development_model_server.tensors import Tensor
from kubectl_inferencemodel import recording
from kubectl_inferencemodel.errors import AnswerError
from kubectl_inferencemodel.predictions import Described, described
from model_poller.golden import recorded
from model_poller.golden.compare import compare
from model_poller.model_server import records
from model_poller.status import GoldenTask

if TYPE_CHECKING:
    from pathlib import Path

TWO = Described(
    14,
    {"serving_default": {"a": "DT_FLOAT", "b": "DT_INT64"}, "text": {"t": "DT_STRING"}},
    {"serving_default": {"y": "DT_FLOAT"}, "text": {"words": "DT_STRING", "n_bytes": "DT_STRING"}},
)


def logged(model: Described, body: Any, answer: Any) -> Any:
    question = recording.asked(model, json.dumps(body).encode())
    text = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    found = recording.record(model, "imagenet", question, text)
    return PredictionLog.FromString(found.content).predict_log


def array(proto: Any) -> Any:
    """By the model server's own reader."""
    return Tensor.from_proto(proto).values


ROWS = {"instances": [{"a": [1.5, 2], "b": 7}, {"a": [3, 4], "b": 8}]}
COLUMNS = {"inputs": {"a": [[1.5, 2], [3, 4]], "b": [7, 8]}}


@pytest.mark.parametrize("body", [ROWS, COLUMNS], ids=["rows", "columns"])
def test_a_request_and_its_answer_say_the_same_as_messages(body: Any) -> None:
    log = logged(TWO, body, {"outputs": [[0.25, 0.75], [1, 0]]})
    spec = log.request.model_spec
    assert (spec.name, spec.signature_name, spec.HasField("version")) == (
        "imagenet",
        "serving_default",
        False,
    )
    a, b = array(log.request.inputs["a"]), array(log.request.inputs["b"])
    assert (a.dtype, b.dtype) == (np.float32, np.int64)
    assert a.tolist() == [[1.5, 2], [3, 4]]
    assert b.tolist() == [7, 8]
    y = array(log.response.outputs["y"])
    assert (y.dtype, y.tolist()) == (np.float32, [[0.25, 0.75], [1, 0]])
    assert log.response.model_spec.version.value == 14
    assert len(log.request.inputs) == 2


def test_what_is_asked_is_what_is_recorded() -> None:
    question = recording.asked(TWO, json.dumps(ROWS).encode())
    assert json.loads(question.body) == {"signature_name": "serving_default", **COLUMNS}


def test_texts_and_bytes_come_through() -> None:
    picture = b"\xff\xd8\x00"
    b64 = {"b64": base64.b64encode(picture).decode()}
    answer = b'{"outputs": {"words": ["caf\xc3\xa9", "\xff"], "n_bytes": [{"b64": "/9gA"}]}}'
    for instances in ([b64, "text"], [{"t": b64}, {"t": "text"}]):
        log = logged(TWO, {"signature_name": "text", "instances": instances}, answer)
        assert Tensor.from_proto(log.request.inputs["t"]).strings == [picture, b"text"]
        assert Tensor.from_proto(log.response.outputs["words"]).strings == [
            "café".encode(),
            b"\xff",
        ]
        assert Tensor.from_proto(log.response.outputs["n_bytes"]).strings == [picture]


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("float32", [[1.5], [float("inf")]]),
        ("float64", [0.1]),
        ("float16", [[0.5, 2]]),
        ("int8", [-128, 127]),
        ("uint8", [0, 255]),
        ("int16", [-5]),
        ("uint16", [65535]),
        ("int32", 7),
        ("uint32", [2**32 - 1]),
        ("int64", [-(2**63)]),
        ("uint64", [[2**64 - 1]]),
        ("bool", [True, False]),
    ],
)
def test_tensors_are_what_tensorflow_reads(dtype: str, value: Any) -> None:
    floats = {"float32": "FLOAT", "float64": "DOUBLE", "float16": "HALF"}
    name = f"DT_{floats.get(dtype, dtype.upper())}"
    found = TensorProto.FromString(recording.encode(name, value))
    assert array(found).dtype == np.dtype(dtype)
    assert array(found).tolist() == np.array(value, dtype).tolist()


@pytest.mark.parametrize(
    ("dtype", "value", "words"),
    [
        ("DT_FLOAT", [[1.0], [2.0, 3.0]], "not of one length"),
        ("DT_FLOAT", [1.0, [2.0]], "not of one length"),
        ("DT_FLOAT", [[1.0], 2.0], "not of one length"),
        ("DT_FLOAT", [], "empty"),
        ("DT_FLOAT", ["x"], "other values than float32"),
        ("DT_FLOAT", [None], "other values"),
        ("DT_INT32", [1.5], "other values than int32"),
        ("DT_INT32", [True], "other values than int32"),
        ("DT_INT8", [300], "byte format"),
        ("DT_BOOL", [1], "other values than true and false"),
        ("DT_STRING", [1], "other values than texts"),
        ("DT_COMPLEX64", [1], "the REST API has no complex64"),
    ],
)
def test_what_is_no_tensor_of_its_type_is_refused(dtype: str, value: Any, words: str) -> None:
    with pytest.raises((ValueError, Exception), match=words):
        recording.encode(dtype, value)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{", "the request is no JSON"),
        (b"[1]", "no JSON object"),
        (b'{"instances": [1], "inputs": 1}', "either instances or inputs"),
        (b"{}", "either instances or inputs"),
        (b'{"signature_name": "other", "inputs": 1}', "no signature 'other'; it has serving_def"),
        (b'{"signature_name": [], "inputs": 1}', "either|takes|has to name"),
        (b'{"instances": []}', "no list with anything in it"),
        (b'{"instances": [1, 2]}', "has to name the inputs: a, b"),
        (b'{"instances": [{"a": 1, "b": 2}, {"a": 1}]}', "not all the same inputs"),
        (b'{"instances": [{"a": 1, "b": 2}, 3]}', "not all the same inputs"),
        (b'{"inputs": {"a": 1}}', "takes a, b; the request lacks b"),
        (b'{"inputs": {"a": 1, "b": 1, "c": 1}}', "takes a, b; the request has c"),
        (b"[" * 100_000, "the request is no JSON"),
    ],
)
def test_what_is_no_request_is_refused(body: bytes, words: str) -> None:
    with pytest.raises(AnswerError, match=words):
        recording.asked(TWO, body)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"<html>", "the answer is no JSON"),
        (b'{"error": "no op Foo"}', "answers no outputs: no op Foo"),
        (b'{"predictions": [1]}', "answers no outputs"),
        (b'{"outputs": "text"}', "the output y can't be recorded: it has other values"),
        (b'{"outputs": []}', "the output y can't be recorded: it is empty"),
    ],
)
def test_an_answer_that_is_none_is_not_recorded(answer: bytes, words: str) -> None:
    question = recording.asked(TWO, json.dumps(ROWS).encode())
    with pytest.raises(AnswerError, match=words):
        recording.record(TWO, "imagenet", question, answer)


def test_outputs_that_the_signature_does_not_tell_are_not_recorded() -> None:
    question = recording.asked(TWO, b'{"signature_name": "text", "inputs": ["x"]}')
    for answer in (b'{"outputs": {"words": ["x"]}}', b'{"outputs": ["x"]}'):
        with pytest.raises(AnswerError, match=r"does not have the outputs .* n_bytes, words"):
            recording.record(TWO, "imagenet", question, answer)


def test_values_that_are_no_numbers_are_told() -> None:
    question = recording.asked(TWO, json.dumps(ROWS).encode())
    found = recording.record(TWO, "imagenet", question, b'{"outputs": [[1.0, NaN]]}')
    assert found.odd == ("y",)
    assert not recording.record(TWO, "imagenet", question, b'{"outputs": [[1.0]]}').odd


def test_types_come_from_the_model_servers_own_words() -> None:
    tensor = {
        "dtype": "DT_FLOAT",
        "tensor_shape": {"dim": [], "unknown_rank": False},
        "name": "x:0",
    }
    signature = {"inputs": {"a": tensor}, "outputs": {"y": tensor}, "method_name": "predict"}
    told = {
        "model_spec": {"name": "m", "signature_name": "", "version": "14"},
        "metadata": {"signature_def": {"signature_def": {"serving_default": signature}}},
    }
    found = described(json.dumps(told).encode())
    assert found.outputs == {"serving_default": {"y": "DT_FLOAT"}}


def test_what_is_recorded_is_what_the_poller_reads_and_sends(tmp_path: Path) -> None:
    question = recording.asked(TWO, json.dumps(ROWS).encode())
    found = recording.record(TWO, "imagenet", question, b'{"outputs": [[0.25, 0.75]]}')
    file = tmp_path / records.FOLDER / records.FILE
    file.parent.mkdir()
    file.write_bytes(records.framed(found.content))
    path, (there,) = recorded.find(tmp_path)
    assert there.obstacle == ""
    kind, request, response = recorded.load(path, there)
    assert (kind.method, kind.read(response)["y"].shape) == ("Predict", (1, 2))
    sent = PredictRequest.FromString(recorded.addressed(there.kind, request, "imagenet", 15))
    assert sent.model_spec.version.value == 15
    assert sent.model_spec.signature_name == "serving_default"
    assert compare(kind.read(response), kind.read(response), GoldenTask()).difference is None
