"""The Deployment: pods of a poller and a model server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inferencemodel_operator import names
from inferencemodel_operator.children import model_server, pod, poller
from inferencemodel_operator.children.manifest import Manifest, manifest, present
from inferencemodel_operator.spec import TopologySpreadConstraint

if TYPE_CHECKING:
    from inferencemodel_operator.settings import Settings
    from inferencemodel_operator.spec import InferenceModel, Toleration


def build(model: InferenceModel, settings: Settings) -> Manifest:
    """The Deployment of the InferenceModel's pods."""
    return manifest(
        model,
        "apps/v1",
        "Deployment",
        names.deployment(model.name),
        {
            "spec": {
                **present(replicas=model.replicas),
                "selector": {"matchLabels": names.selector(model.name)},
                # No pod leaves before its successor serves: requests never wait for a start.
                "strategy": {
                    "type": "RollingUpdate",
                    "rollingUpdate": {"maxUnavailable": 0, "maxSurge": "25%"},
                },
                # More than the 4 s in which a server that dies right after its start is noticed.
                "minReadySeconds": 5,
                "progressDeadlineSeconds": 1800,
                "revisionHistoryLimit": 3,
                "template": pod_template(model, settings),
            }
        },
    )


def pod_template(model: InferenceModel, settings: Settings) -> Manifest:
    """The pods. A change of anything here restarts them, one by one."""
    template, source = model.spec.template, model.spec.source
    return {
        "metadata": present(
            labels={**template.metadata.labels, **names.labels(model.name)},
            annotations={
                **template.metadata.annotations,
                names.STORAGE_URI_ANNOTATION: model.spec.model.storage_uri,
            },
        ),
        "spec": present(
            # Always named: left out, the API server would keep the one that was named before.
            serviceAccountName=source.service_account_name or "default",
            # Neither container talks to the API server.
            automountServiceAccountToken=False,
            enableServiceLinks=False,
            terminationGracePeriodSeconds=model_server.GRACE_SECONDS,
            securityContext=pod.POD_SECURITY,
            # Once each: the API server merges them by name, and takes no apply with two of one.
            imagePullSecrets=[
                {"name": name}
                for name in dict.fromkeys(secret.name for secret in template.image_pull_secrets)
            ],
            priorityClassName=template.priority_class_name,
            topologySpreadConstraints=_spread(model),
            nodeSelector=template.node_selector,
            tolerations=[_toleration(toleration) for toleration in template.tolerations],
            affinity=template.affinity,
            initContainers=[poller.container(model, settings)],
            containers=[model_server.container(model)],
            volumes=pod.volumes(model),
        ),
    }


_EVENLY = (
    TopologySpreadConstraint(topology_key="kubernetes.io/hostname"),
    TopologySpreadConstraint(topology_key="topology.kubernetes.io/zone"),
)
"""By default, as far as there is room: one host's or one zone's end takes few pods."""


def _spread(model: InferenceModel) -> list[Manifest]:
    given = model.spec.template.topology_spread_constraints
    return [
        {
            "topologyKey": constraint.topology_key,
            "maxSkew": constraint.max_skew,
            "whenUnsatisfiable": constraint.when_unsatisfiable,
            "labelSelector": {"matchLabels": names.selector(model.name)},
            # Else the pods that a rollout replaces would count as well.
            "matchLabelKeys": ["pod-template-hash"],
        }
        for constraint in (_EVENLY if given is None else given)
    ]


def _toleration(toleration: Toleration) -> Manifest:
    return present(
        key=toleration.key,
        operator=toleration.operator,
        value=toleration.value,
        effect=toleration.effect,
        tolerationSeconds=toleration.toleration_seconds,
    )
