"""A picture becomes a request of the model's own form; answers become labels."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kubectl_inferencemodel import predictions
from kubectl_inferencemodel.errors import AnswerError
from kubectl_inferencemodel.predictions import Label


def metadata(**inputs: str) -> bytes:
    signature = {"inputs": {name: {"dtype": dtype} for name, dtype in inputs.items()}}
    return json.dumps(
        {
            "model_spec": {"name": "imagenet", "signature_name": "", "version": "2"},
            "metadata": {"signature_def": {"signature_def": {"serving_default": signature}}},
        }
    ).encode()


def test_a_picture_goes_to_the_input_that_takes_bytes() -> None:
    known = predictions.described(metadata(image_bytes="DT_STRING"))
    body = json.loads(predictions.picture(known, b"\xff\xd8", signature="serving_default"))
    assert known.version == 2
    assert body == {
        "signature_name": "serving_default",
        "instances": [{"image_bytes": {"b64": "/9g="}}],
    }


@pytest.mark.parametrize("inputs", [{"x": "DT_FLOAT"}, {"a": "DT_STRING", "b": "DT_STRING"}, {}])
def test_a_model_that_takes_no_file_is_told_apart(inputs: dict[str, str]) -> None:
    known = predictions.described(metadata(**inputs))
    with pytest.raises(AnswerError, match="--json"):
        predictions.picture(known, b"", signature="serving_default")


def test_an_unknown_signature_names_those_that_there_are() -> None:
    known = predictions.described(metadata(image_bytes="DT_STRING"))
    with pytest.raises(AnswerError, match="no signature labels; it has serving_default"):
        predictions.picture(known, b"", signature="labels")


@pytest.mark.parametrize("answer", [b"", b"{}", b'{"model_spec": {"version": "two"}}'])
def test_metadata_of_another_form_is_an_error(answer: bytes) -> None:
    with pytest.raises(AnswerError, match="metadata"):
        predictions.described(answer)


@pytest.mark.parametrize(
    ("prediction", "expected"),
    [
        (
            {"classes": ["cat", "dog"], "scores": [0.1, 0.9]},
            [Label("dog", 0.9), Label("cat", 0.1)],
        ),
        ([0.1, 0.9], [Label("class 1", 0.9), Label("b", 0.1)]),
        ({"probabilities": [1, 0]}, [Label("b", 1.0), Label("class 1", 0.0)]),
        (0.5, None),
        ({"y": 0.5}, None),
        ({"text": ["a"]}, None),
    ],
)
def test_labels_are_found_in_what_models_answer(
    prediction: Any, expected: list[Label] | None
) -> None:
    assert predictions.labels(prediction, ["b"]) == expected


def test_an_answer_without_predictions_is_shown() -> None:
    with pytest.raises(AnswerError, match="Servable not found"):
        predictions.read(b'{"error": "Servable not found"}')


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b'{"error": "no such op"}', "no such op"),
        (b'{"kind": "Status", "message": "no endpoints"}', "no endpoints"),
        (b"<html>bad gateway</html>", "<html>bad gateway</html>"),
        (b"[]", "[]"),
    ],
)
def test_a_refusal_is_told_in_the_servers_own_words(answer: bytes, words: str) -> None:
    assert predictions.problem(answer) == words
