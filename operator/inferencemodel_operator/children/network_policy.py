"""The NetworkPolicy: requests, the operator and who reads metrics come in, nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inferencemodel_operator import names
from inferencemodel_operator.children.manifest import Manifest, manifest, present

if TYPE_CHECKING:
    from inferencemodel_operator.settings import Settings
    from inferencemodel_operator.spec import InferenceModel


def build(model: InferenceModel, settings: Settings) -> Manifest | None:
    """The policy; None where it is not asked for.

    What goes out is not limited: where a bucket, its tokens and its notifications are is known to
    nobody but the stores' own libraries.
    """
    wanted = model.spec.network_policy
    if not wanted.enabled:
        return None
    requests = {
        "ports": [_port(names.HTTP_PORT), _port(names.GRPC_PORT)],
        **present(**{"from": list(wanted.from_)}),
    }
    rules = [requests]
    if model.scaled_by_requests:
        keda = {"matchLabels": {"kubernetes.io/metadata.name": settings.interceptor.namespace}}
        rules.append({"ports": [_port(names.HTTP_PORT)], "from": [{"namespaceSelector": keda}]})
    operator = {"matchLabels": {"kubernetes.io/metadata.name": settings.namespace}}
    reports = {"ports": [_port(names.POLLER_PORT)], "from": [{"namespaceSelector": operator}]}
    metrics = {
        "ports": [_port(names.HTTP_PORT), _port(names.POLLER_PORT)],
        "from": list(wanted.metrics_from),
    }
    return manifest(
        model,
        "networking.k8s.io/v1",
        "NetworkPolicy",
        names.network_policy(model.name),
        {
            "spec": {
                # Not the selector of replicas: a pod that rehearses a version has the same walls.
                "podSelector": {"matchLabels": names.walled(model.name)},
                "policyTypes": ["Ingress"],
                "ingress": [*rules, reports, *([metrics] if wanted.metrics_from else [])],
            }
        },
    )


def _port(number: int) -> Manifest:
    return {"port": number, "protocol": "TCP"}
