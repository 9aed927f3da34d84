"""Recorded requests and answers as they stand in a version's file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from development_model_server.protos import (
    ClassificationRequest,
    ClassificationResponse,
    MultiInferenceRequest,
    MultiInferenceResponse,
    PredictionLog,
    PredictRequest,
    PredictResponse,
    RegressionResponse,
)
from model_poller.golden import recorded
from model_poller.golden.answers import KINDS
from model_poller.golden.recorded import MAX_MESSAGE, addressed, find, load
from model_poller.golden.tensors import FLOAT, STRING, UnsupportedError
from model_poller.model_server.records import FILE, FOLDER, framed
from tests.unit.poller.golden import predict_log

if TYPE_CHECKING:
    from pathlib import Path

CLASSIFY, REGRESS, MULTI, SESSION, PREDICT = 2, 3, 4, 5, 6


def write(folder: Path, *logs: PredictionLog) -> Path:
    path = folder / FOLDER / FILE
    path.parent.mkdir()
    path.write_bytes(b"".join(framed(log.SerializeToString()) for log in logs))
    return folder


def test_only_records_with_an_answer_are_found(tmp_path: Path) -> None:
    without = PredictionLog()
    without.predict_log.request.inputs["x"].float_val.append(1.0)
    empty = PredictionLog()
    empty.predict_log.request.model_spec.name = "m"
    empty.predict_log.response.SetInParent()
    session = PredictionLog()
    session.session_run_log.request.model_spec.name = "m"
    session.session_run_log.response.tensor.add(name="y")
    log = predict_log([1.0], [2.0])
    log.log_metadata.model_spec.name = "m"
    path, found = find(write(tmp_path, without, log, empty, session, predict_log([3.0], [4.0])))
    assert [(record.number, record.kind) for record in found] == [
        (1, PREDICT),
        (2, SESSION),
        (3, PREDICT),
    ]
    kind, request, response = load(path, found[2])
    assert PredictRequest.FromString(request).inputs["x"].float_val == [3.0]
    assert list(kind.read(response)["y"].values) == [4.0]
    with pytest.raises(UnsupportedError, match="session_run_log is a kind that isn't compared"):
        load(path, found[1])


def test_a_version_without_a_file_has_none(tmp_path: Path) -> None:
    assert find(tmp_path)[1] == []


@pytest.mark.parametrize("content", [b"", b"x", framed(b"\xff"), framed(b"\x32\x05a")])
def test_a_file_of_something_else_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / FILE).write_bytes(content)
    with pytest.raises(ValueError, match=r"\w"):
        find(tmp_path)


def test_what_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, predict_log([1.0], [2.0] * (MAX_MESSAGE // 4)))
    path, (record,) = find(tmp_path)
    with pytest.raises(UnsupportedError, match="more than 16777216 bytes"):
        load(path, record)
    monkeypatch.setattr(recorded, "MAX_FILE_BYTES", 1000)
    with pytest.raises(ValueError, match="more than 1000 bytes"):
        find(tmp_path)


def test_a_file_that_is_cut_meanwhile_is_an_error_of_reading(tmp_path: Path) -> None:
    path, (record,) = find(write(tmp_path, predict_log([1.0], [2.0])))
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(OSError, match="was cut"):
        load(path, record)


@pytest.mark.parametrize("version", [0, 7, 2**63 - 1])
def test_a_request_goes_to_the_version_whatever_it_was_recorded_from(version: int) -> None:
    request = PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = "other", "scores"
    request.inputs["x"].float_val.append(1.0)
    request.output_filter.append("y")
    for recorded_from in ("version", "version_label", ""):
        if recorded_from == "version":
            request.model_spec.version.value = 5
        elif recorded_from == "version_label":
            request.model_spec.version_label = "stable"
        else:
            request.ClearField("model_spec")
            request.model_spec.signature_name = "scores"
        sent = addressed(PREDICT, request.SerializeToString(), "Modell ä", version)
        wanted = PredictRequest()
        wanted.CopyFrom(request)
        wanted.model_spec.name = "Modell ä"
        wanted.model_spec.version.value = version
        assert PredictRequest.FromString(sent) == wanted


def test_each_task_of_several_goes_to_the_version() -> None:
    request = MultiInferenceRequest()
    for signature in ("a", "b"):
        task = request.tasks.add(method_name="tensorflow/serving/classify")
        task.model_spec.name, task.model_spec.signature_name = "other", signature
    request.input.example_list.examples.add()
    sent = MultiInferenceRequest.FromString(addressed(MULTI, request.SerializeToString(), "m", 3))
    assert [(t.model_spec.name, t.model_spec.version.value) for t in sent.tasks] == [("m", 3)] * 2
    assert [t.model_spec.signature_name for t in sent.tasks] == ["a", "b"]
    assert sent.input == request.input


def test_a_classification_goes_to_the_version() -> None:
    request = ClassificationRequest()
    request.input.example_list.examples.add()
    sent = addressed(CLASSIFY, request.SerializeToString(), "m", 3)
    read = ClassificationRequest.FromString(sent)
    assert (read.model_spec.name, read.model_spec.version.value) == ("m", 3)
    assert len(read.input.example_list.examples) == 1


def answers(kind: int, response: Any) -> dict[str, tuple[int, tuple[int, ...], list[Any]]]:
    read = KINDS[kind].read(response.SerializeToString())
    return {name: (t.dtype, t.shape, list(t.values)) for name, t in read.items()}


def test_predictions_are_outputs_by_name() -> None:
    response = PredictResponse()
    for name, value in (("a", 1.0), ("b", 2.0)):
        tensor = response.outputs[name]
        tensor.dtype = FLOAT
        tensor.float_val.append(value)
    response.model_spec.name = "m"
    assert answers(PREDICT, response) == {"a": (FLOAT, (), [1.0]), "b": (FLOAT, (), [2.0])}


def test_classes_are_labels_and_scores_of_each_example() -> None:
    response = ClassificationResponse()
    for scores in ([0.25, 0.75], [0.5, 0.0]):
        example = response.result.classifications.add()
        for label, score in zip("ab", scores, strict=True):
            example.classes.add(label=label, score=score)
    assert answers(CLASSIFY, response) == {
        "classes": (STRING, (2, 2), [b"a", b"b", b"a", b"b"]),
        "scores": (FLOAT, (2, 2), [0.25, 0.75, 0.5, 0.0]),
    }
    response.result.classifications[1].classes.add(label="c", score=1.0)
    assert answers(CLASSIFY, response)["scores"] == (FLOAT, (5,), [0.25, 0.75, 0.5, 0.0, 1.0])


def test_regressions_are_a_value_of_each_example() -> None:
    response = RegressionResponse()
    for value in (1.5, 0.0, -2.0):
        response.result.regressions.add(value=value)
    assert answers(REGRESS, response) == {"value": (FLOAT, (3,), [1.5, 0.0, -2.0])}


def test_several_inferences_are_told_apart_by_their_signatures() -> None:
    response = MultiInferenceResponse()
    one, two = response.results.add(), response.results.add()
    one.model_spec.signature_name, two.model_spec.signature_name = "c", "r"
    one.classification_result.classifications.add().classes.add(label="x", score=0.5)
    two.regression_result.regressions.add(value=3.0)
    assert answers(MULTI, response) == {
        "c/classes": (STRING, (1, 1), [b"x"]),
        "c/scores": (FLOAT, (1, 1), [0.5]),
        "r/value": (FLOAT, (1,), [3.0]),
    }


def test_the_values_of_all_outputs_are_counted_whatever_few_bytes_they_take() -> None:
    response = PredictResponse()
    for name in "abcde":
        tensor = response.outputs[name]
        tensor.dtype = FLOAT
        tensor.tensor_shape.dim.add().size = 1 << 20
    assert len(response.SerializeToString()) < 200
    with pytest.raises(UnsupportedError, match="more than 4194304 values"):
        answers(PREDICT, response)
    del response.outputs["e"]
    assert len(answers(PREDICT, response)) == 4


@given(kind=st.sampled_from(sorted(KINDS)), data=st.binary(max_size=80))
def test_any_bytes_are_an_answer_or_refused(kind: int, data: bytes) -> None:
    try:
        answer = KINDS[kind].read(data)
    except ValueError:
        return
    assert all(isinstance(name, str) for name in answer)
