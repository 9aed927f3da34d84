"""InferenceModels and pods as an API server gives them."""

from __future__ import annotations

from typing import Any

import msgspec

from inferencemodel_operator.names import TARGET_VERSION_ANNOTATION
from kubectl_inferencemodel.resource import InferenceModel, Pod

FINE = {
    "Ready": ("True", "Serving", "3/3 replicas serve"),
    "SourceReady": ("True", "Listed", "gs://models/imagenet was listed"),
    "ModelLoaded": ("True", "Loaded", "version 2 answers on every ready replica"),
    "Reconciling": ("False", "Settled", "everything is as wanted"),
    "Stalled": ("False", "NotStalled", "nothing stands in the way"),
}
"""The conditions of a settled resource."""


def model(
    *,
    conditions: dict[str, tuple[str, str, str]] | None = None,
    generation: int = 2,
    observed: int = 2,
    spec: dict[str, Any] | None = None,
    status: dict[str, Any] | None = None,
    **of: Any,
) -> InferenceModel:
    """A settled InferenceModel on version 2, but for what is given."""
    told = {**FINE, **(conditions or {})}
    wanted = {"storageUri": "gs://models/imagenet", **(spec or {}).pop("model", {})}
    return msgspec.convert(
        {
            "metadata": {
                "name": "imagenet",
                "namespace": "vision",
                "generation": generation,
                "creationTimestamp": "2026-01-01T00:00:00Z",
            },
            "spec": {"model": wanted, "replicas": 3, **(spec or {})},
            "status": {
                "observedGeneration": observed,
                "conditions": [
                    {"type": kind, "status": state, "reason": reason, "message": message}
                    for kind, (state, reason, message) in told.items()
                ],
                "replicas": 3,
                "readyReplicas": 3,
                "replicaSummary": "3/3",
                "model": {
                    "name": "imagenet",
                    "activeVersion": 2,
                    "targetVersion": 2,
                    "latestVersion": 2,
                    "transitionStatus": "UpToDate",
                    "versions": [
                        {"version": 2, "state": "Available", "replicas": 3},
                        {"version": 1, "state": "Retired"},
                    ],
                    **of,
                },
                **(status or {}),
            },
        },
        type=InferenceModel,
    )


def arriving(version: int, state: str, replicas: int = 0) -> dict[str, Any]:
    """``status.model`` while another version is on its way."""
    return {
        "targetVersion": version,
        "latestVersion": version,
        "transitionStatus": "InProgress",
        "versions": [
            {"version": version, "state": state, "replicas": replicas},
            {"version": 2, "state": "Available", "replicas": 3 - replicas},
        ],
    }


def rollout(phase: str, **differences: Any) -> dict[str, Any]:
    """``status.model.rollout`` of version 3, in the first of two steps, but for what is given."""
    return {
        "version": 3,
        "fromVersion": 2,
        "phase": phase,
        "step": 1,
        "steps": 2,
        "replicasOn": 1,
        "replicasWanted": 1,
        "startTime": "2026-01-01T14:30:00Z",
        "stepStartedTime": "2026-01-01T14:31:00Z",
        **differences,
    }


def pod(
    name: str,
    *,
    told: int | None = None,
    labels: dict[str, str] | None = None,
    ready: bool = False,
    conditions: list[dict[str, str]] | None = None,
    poller: dict[str, Any] | None = None,
    server: dict[str, Any] | None = None,
    leaving: bool = False,
) -> Pod:
    """A pod, and what its two containers do."""
    leave = {"deletionTimestamp": "2026-01-01T00:00:00Z"} if leaving else {}
    return msgspec.convert(
        {
            "metadata": {
                "name": name,
                "namespace": "vision",
                "labels": labels or {},
                "annotations": {} if told is None else {TARGET_VERSION_ANNOTATION: str(told)},
                **leave,
            },
            "status": {
                "phase": "Running",
                "conditions": [{"type": "Ready", "status": str(ready)}, *(conditions or [])],
                "initContainerStatuses": [{"name": "poller", **(poller or {})}],
                "containerStatuses": [{"name": "model-server", **(server or {})}],
            },
        },
        type=Pod,
    )
