"""What all children have in common."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import orjson

from inferencemodel_operator import names

if TYPE_CHECKING:
    from collections.abc import Mapping

    from inferencemodel_operator.spec import InferenceModel

Manifest = dict[str, Any]
"""An object as the API server takes it: JSON types alone."""


def manifest(
    model: InferenceModel,
    api_version: str,
    kind: str,
    name: str,
    content: Manifest,
    *,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> Manifest:
    """A child: metadata, labels, owner reference and the hash of it all around its content."""
    wanted: Manifest = {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": model.namespace,
            "labels": {**(labels or {}), **names.labels(model.name)},
            "annotations": dict(annotations or {}),
            "ownerReferences": [owner(model)],
        },
        **content,
    }
    return seal(wanted)


def seal(wanted: Manifest) -> Manifest:
    """The child with the hash of all of it but that hash."""
    metadata = wanted["metadata"]
    annotations = dict(metadata["annotations"])
    annotations.pop(names.DESIRED_HASH_ANNOTATION, None)
    plain = {**wanted, "metadata": {**metadata, "annotations": annotations}}
    annotations[names.DESIRED_HASH_ANNOTATION] = digest(plain)
    return plain


def digest(wanted: object) -> str:
    """A hash (hexadecimal) that differs whenever the JSON of ``wanted`` differs."""
    text = orjson.dumps(wanted, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(text).hexdigest()[:16]


def present(**fields: Any) -> Manifest:
    """The fields that are there: without None and without empty lists, maps and strings.

    The API server drops these, so they can't be in what is compared with its answer.
    """
    return {
        name: value
        for name, value in fields.items()
        if value is not None and value not in ("", [], {}, ())
    }


def owner(model: InferenceModel) -> Manifest:
    """The reference by which the InferenceModel is an object's controller."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "name": model.name,
        "uid": model.metadata.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }
