"""The Deployment: pods of a poller and a model server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inferencemodel_operator import names
from inferencemodel_operator.children import model_server, pod, poller
from inferencemodel_operator.children.manifest import Manifest, manifest, present

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
                "replicas": model.spec.replicas,
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
            nodeSelector=template.node_selector,
            tolerations=[_toleration(toleration) for toleration in template.tolerations],
            affinity=template.affinity,
            initContainers=[poller.container(model, settings)],
            containers=[model_server.container(model)],
            volumes=pod.volumes(source.secret_ref.name if source.secret_ref else None),
        ),
    }


def _toleration(toleration: Toleration) -> Manifest:
    return present(
        key=toleration.key,
        operator=toleration.operator,
        value=toleration.value,
        effect=toleration.effect,
        tolerationSeconds=toleration.toleration_seconds,
    )
