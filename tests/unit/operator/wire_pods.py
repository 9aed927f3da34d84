"""Pods as the API server shows them."""

from __future__ import annotations

from typing import Any

from inferencemodel_operator import names


def wire_pod(name: str, *, template: str = "t", restarts: int = 0) -> dict[str, Any]:
    """A running pod whose model server was restarted so many times."""
    return {
        "metadata": {
            "name": name,
            "namespace": "vision",
            "uid": name,
            "resourceVersion": "1",
            "labels": {names.MODEL_LABEL: "m", "pod-template-hash": template},
        },
        "status": {
            "phase": "Running",
            "podIP": "10.0.0.1",
            "initContainerStatuses": [{"name": names.POLLER_CONTAINER, "state": {"running": {}}}],
            "containerStatuses": [
                {
                    "name": names.SERVER_CONTAINER,
                    "restartCount": restarts,
                    "state": {"running": {}},
                }
            ],
        },
    }
