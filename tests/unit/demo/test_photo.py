"""Photos out, labels in."""

from __future__ import annotations

import base64
import json

import pytest

from demo.photo import Prediction, label_body, read, read_label, rest_body


def test_a_photo_travels_as_base64() -> None:
    (instance,) = json.loads(rest_body(b"\xff\xd8 a photo"))["instances"]
    assert base64.b64decode(instance["image_bytes"]["b64"]) == b"\xff\xd8 a photo"


def test_labels_are_told_with_their_probabilities_as_json() -> None:
    prediction = read(b'{"predictions": [{"classes": ["tabby, tabby cat"], "scores": [0.61852]}]}')
    assert prediction == Prediction(("tabby, tabby cat",), (0.61852,))
    assert json.loads(prediction.as_json()) == [{"label": "tabby, tabby cat", "probability": 0.619}]
    assert prediction.lines() == ["0.619 tabby"]


def test_a_label_is_asked_for_by_its_number() -> None:
    assert json.loads(label_body(282)) == {"signature_name": "labels", "instances": [282]}
    assert read_label(b'{"predictions": ["tiger cat"]}') == "tiger cat"
    with pytest.raises(ValueError, match="predictions"):
        read_label(b'{"error": "no such signature"}')


@pytest.mark.parametrize("answer", [b"", b"{}", b'{"error": "no"}', b'{"predictions": [[1.0]]}'])
def test_another_answer_is_an_error(answer: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        read(answer)
