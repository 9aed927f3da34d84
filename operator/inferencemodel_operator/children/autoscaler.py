"""What sets the number of pods: a HorizontalPodAutoscaler, or KEDA's ScaledObject."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inferencemodel_operator import names
from inferencemodel_operator.children import interceptor
from inferencemodel_operator.children.manifest import Manifest, manifest, present

if TYPE_CHECKING:
    from inferencemodel_operator.settings import Settings
    from inferencemodel_operator.spec import InferenceModel


def build(model: InferenceModel, settings: Settings) -> Manifest | None:
    """The autoscaler of the Deployment; None where the number is in the spec."""
    wanted = model.spec.autoscaling
    if wanted is None:
        return None
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": names.deployment(model.name)}
    name = names.autoscaler(model.name)
    if wanted.keda is None:
        spec = present(
            scaleTargetRef=target,
            minReplicas=wanted.min_replicas,
            maxReplicas=wanted.max_replicas,
            metrics=list(wanted.metrics),
            behavior=wanted.behavior,
        )
        return manifest(model, "autoscaling/v2", "HorizontalPodAutoscaler", name, {"spec": spec})
    advanced = {"horizontalPodAutoscalerConfig": {"behavior": wanted.behavior}}
    spec = present(
        scaleTargetRef=target,
        minReplicaCount=wanted.min_replicas,
        maxReplicaCount=wanted.max_replicas,
        pollingInterval=wanted.keda.polling_interval,
        cooldownPeriod=wanted.keda.cooldown_period,
        triggers=[*interceptor.triggers(model, settings), *wanted.keda.triggers],
        advanced=advanced if wanted.behavior else None,
    )
    return manifest(model, "keda.sh/v1alpha1", "ScaledObject", name, {"spec": spec})
