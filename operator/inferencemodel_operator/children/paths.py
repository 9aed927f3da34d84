"""The paths of a model's REST API, as an Ingress and an HTTPRoute name them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from inferencemodel_operator.spec import InferenceModel

_VERBS = ("predict", "classify", "regress")


def exact(model: InferenceModel, prefix: str) -> list[str]:
    """The paths that belong to ``prefix`` although it does not cover them.

    Both kinds compare prefixes element by element, and TensorFlow Serving answers at
    ``/v1/models/NAME:predict``: its last element is not NAME.
    """
    if not prefix.rstrip("/").endswith(f"/v1/models/{model.model_name}"):
        return []
    return [f"{prefix.rstrip('/')}:{verb}" for verb in _VERBS]
