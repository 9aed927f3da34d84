"""The PodDisruptionBudget: how many pods a node drain may take at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inferencemodel_operator import names
from inferencemodel_operator.children.manifest import Manifest, manifest

if TYPE_CHECKING:
    from inferencemodel_operator.spec import DisruptionBudget, InferenceModel


def build(model: InferenceModel) -> Manifest | None:
    """The budget; None where it is turned off, or where one pod at most makes it useless."""
    wanted = model.spec.disruption_budget
    if not wanted.enabled or model.most_replicas < 2:
        return None
    return manifest(
        model,
        "policy/v1",
        "PodDisruptionBudget",
        names.disruption_budget(model.name),
        {
            "spec": {
                **_bound(wanted),
                "selector": {"matchLabels": names.selector(model.name)},
                # A pod that serves nothing is in nobody's way.
                "unhealthyPodEvictionPolicy": "AlwaysAllow",
            }
        },
    )


def _bound(wanted: DisruptionBudget) -> Manifest:
    if wanted.min_available is not None:
        return {"minAvailable": wanted.min_available}
    return {"maxUnavailable": wanted.max_unavailable}
