"""Sends a photo to a served model, and shows what it says."""

from __future__ import annotations

import base64
import http.client
import json

import msgspec

from demo.errors import OutcomeError


class Prediction(msgspec.Struct, frozen=True):
    """What the model sees in one photo: labels and their probabilities (0 to 1), best first."""

    classes: tuple[str, ...]
    scores: tuple[float, ...]

    def as_json(self) -> str:
        """As JSON, one label a line."""
        lines = (
            json.dumps({"label": label, "probability": round(score, 3)})
            for label, score in zip(self.classes, self.scores, strict=True)
        )
        return "[" + ",\n ".join(lines) + "]"

    def lines(self) -> list[str]:
        """Probability and the first name of each label, for people."""
        pairs = zip(self.scores, self.classes, strict=True)
        return [f"{score:.3f} {label.split(',')[0]}" for score, label in pairs]


class _Answer(msgspec.Struct):
    predictions: tuple[Prediction]


def rest_body(image: bytes) -> bytes:
    """A predict request of REST for one picture."""
    encoded = base64.b64encode(image).decode()
    return json.dumps({"instances": [{"image_bytes": {"b64": encoded}}]}).encode()


def label_body(number: int) -> bytes:
    """A request of REST for the label of one class."""
    return json.dumps({"signature_name": "labels", "instances": [number]}).encode()


class _Labels(msgspec.Struct):
    predictions: tuple[str]


def read_label(answer: bytes) -> str:
    """The label in an answer of REST to ``label_body``.

    Raises:
        ValueError: the answer is of another form.
    """
    (label,) = msgspec.json.decode(answer, type=_Labels).predictions
    return label


def read(answer: bytes) -> Prediction:
    """The prediction in an answer of REST to ``rest_body``.

    Raises:
        ValueError: the answer is of another form.
    """
    (prediction,) = msgspec.json.decode(answer, type=_Answer).predictions
    return prediction


def classify(address: str, host: str, model: str, image: bytes) -> Prediction:
    """Ask through an Ingress what is in a photo.

    Args:
        address: ``host:port`` of the ingress controller.
        host: the Ingress's host name.
        model: the model's name.
        image: the photo's file.

    Raises:
        OutcomeError: there was no answer, or it was not of the expected form.
    """
    connection = http.client.HTTPConnection(address, timeout=30)
    try:
        headers = {"Host": host, "Content-Type": "application/json"}
        connection.request("POST", f"/v1/models/{model}:predict", rest_body(image), headers)
        response = connection.getresponse()
        content = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise OutcomeError(f"no answer through the Ingress at {address}: {error}") from error
    finally:
        connection.close()
    try:
        return read(content)
    except ValueError as error:
        raise OutcomeError(
            f"the Ingress at {address} answered {response.status}: {content[:300]!r}"
        ) from error
