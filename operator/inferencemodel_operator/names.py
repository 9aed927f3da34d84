"""Every name that the operator gives to things in the cluster; part of its interface."""

from __future__ import annotations

import hashlib
from typing import Final

GROUP: Final = "inferencemodel.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
KIND: Final = "InferenceModel"
PLURAL: Final = "inferencemodels"

FIELD_MANAGER: Final = "inferencemodel-operator"

MANAGED_BY_LABEL: Final = "app.kubernetes.io/managed-by"
NAME_LABEL: Final = "app.kubernetes.io/name"
INSTANCE_LABEL: Final = "app.kubernetes.io/instance"
MODEL_LABEL: Final = f"{GROUP}/name"
"""Carries the InferenceModel's name, on children and pods: the way back from a pod in one hop."""
REHEARSAL_LABEL: Final = f"{GROUP}/rehearsal"
"""Carries it on a pod that rehearses a version instead: nothing selects that one as a replica."""
REHEARSAL_GATE: Final = f"{GROUP}/gets-requests"
"""The readiness gate of a pod that rehearses. Nobody ever opens it: no Service sends it requests,
not even one that selects pods by labels of a user's own."""

DESIRED_HASH_ANNOTATION: Final = f"{GROUP}/desired-hash"
"""On children: the hash of what was last applied."""
POD_SPEC_HASH_ANNOTATION: Final = f"{GROUP}/pod-spec-hash"
"""On Deployments: the hash of what the InferenceModel's own spec asks of the pods."""
TEMPLATE_HASH_ANNOTATION: Final = f"{GROUP}/template-hash"
"""On Deployments: the hash of the pod template that was last applied."""
TEMPLATE_UPDATE_ANNOTATION: Final = f"{GROUP}/template-update"
"""On Deployments whose pod template the operator changed by itself: see waves.py."""
HELD_TEMPLATE_ANNOTATION: Final = f"{GROUP}/held-template"
"""On Deployments that wait for a newer pod template: the JSON of the one they have until then."""
TARGET_VERSION_ANNOTATION: Final = f"{GROUP}/target-version"
"""On pods: the version (decimal) that this pod is to serve. Never in the pod template."""
SERVED_VERSIONS_ANNOTATION: Final = f"{GROUP}/served-versions"
"""On pods: that version and those to serve beside it, highest first, such as ``4,2``."""
QUARANTINED_VERSIONS_ANNOTATION: Final = f"{GROUP}/quarantined-versions"
"""On pods: what they must not fetch or serve, as ``NUMBER@FINGERPRINT`` with commas between."""
ROLLOUT_ANNOTATION: Final = f"{GROUP}/rollout"
"""On pods: what a rollout asks of them, as JSON (`model_poller.status.RolloutTask`)."""
ASSIGNMENT_ANNOTATIONS: Final = (
    TARGET_VERSION_ANNOTATION,
    SERVED_VERSIONS_ANNOTATION,
    QUARANTINED_VERSIONS_ANNOTATION,
    ROLLOUT_ANNOTATION,
)
ASSIGNMENT_ATTEMPT_ANNOTATION: Final = f"{GROUP}/assignment-attempt"
"""On pods: a counter, raised where the poller has not heard what it is to serve."""
PROMOTE_ANNOTATION: Final = f"{GROUP}/promote"
"""On InferenceModels, as all that follow: a version, which goes on to its next step."""
PROMOTE_FULL_ANNOTATION: Final = f"{GROUP}/promote-full"
"""A version, which goes to all replicas at once."""
ABORT_ANNOTATION: Final = f"{GROUP}/abort"
"""A version, which is taken back and not tried again."""
RETRY_ANNOTATION: Final = f"{GROUP}/retry"
"""A version that failed or was aborted, which is tried again."""
APPROVE_ANNOTATION: Final = f"{GROUP}/approve"
"""A version whose interface may break with the one before."""
ACTION_ANNOTATIONS: Final = (
    ABORT_ANNOTATION,
    RETRY_ANNOTATION,
    APPROVE_ANNOTATION,
    PROMOTE_ANNOTATION,
    PROMOTE_FULL_ANNOTATION,
)
"""Each is taken away by the operator once it is read."""
STORAGE_URI_ANNOTATION: Final = f"{GROUP}/storage-uri"
"""On pods, by their template: the source that the pod's poller brings versions from."""

REVISION_ANNOTATION: Final = "deployment.kubernetes.io/revision"
"""Kubernetes' own, on a Deployment and its ReplicaSets: which pod template is the present one."""

MANAGED_SELECTOR: Final = f"{MANAGED_BY_LABEL}={FIELD_MANAGER}"
"""Selects every child and pod of every InferenceModel."""

POLLER_CONTAINER: Final = "poller"
SERVER_CONTAINER: Final = "model-server"
POLLER_PORT: Final = 8502
GRPC_PORT: Final = 8500
HTTP_PORT: Final = 8501
"""Ports inside the pod; the Service's own ports are in the spec."""


def labels(name: str) -> dict[str, str]:
    """The labels of every child and pod of the InferenceModel ``name``."""
    return {
        MANAGED_BY_LABEL: FIELD_MANAGER,
        NAME_LABEL: "inferencemodel",
        INSTANCE_LABEL: name,
        MODEL_LABEL: name,
    }


def selector(name: str) -> dict[str, str]:
    """What selects the pods of ``name``; immutable in a Deployment, so it never gets more."""
    return {MODEL_LABEL: name}


def walled(name: str) -> dict[str, str]:
    """What selects the same pods, and those that rehearse a version."""
    return {MANAGED_BY_LABEL: FIELD_MANAGER, INSTANCE_LABEL: name}


def selector_text(name: str) -> str:
    """The same as one string, as the scale subresource wants it."""
    return f"{MODEL_LABEL}={name}"


def deployment(name: str) -> str:
    """Name of the Deployment of the InferenceModel ``name``."""
    return name


def service(name: str) -> str:
    """Name of the Service with a cluster address."""
    return name


def headless_service(name: str) -> str:
    """Name of the Service that resolves to the pods' own addresses."""
    return f"{name}-headless"


def ingress(name: str) -> str:
    """Name of the Ingress."""
    return name


def interceptor(name: str) -> str:
    """Name of the Service that leads to the interceptor of KEDA's HTTP add-on."""
    return f"keda-http-{name}"


def versions_config_map(name: str) -> str:
    """Name of the ConfigMap that holds the target version and the quarantined ones."""
    return f"{name}-versions"


def autoscaler(name: str) -> str:
    """Name of the HorizontalPodAutoscaler, or of KEDA's ScaledObject."""
    return name


def disruption_budget(name: str) -> str:
    """Name of the PodDisruptionBudget."""
    return name


def route(name: str) -> str:
    """Name of the HTTPRoute, of the GRPCRoute and of the InterceptorRoute."""
    return name


def network_policy(name: str) -> str:
    """Name of the NetworkPolicy."""
    return name


_LABEL: Final = 63
"""Characters: a pod is known by its name as a host as well."""


def rehearsal(name: str, version: int, content: str) -> str:
    """Name of the pod that rehearses a version.

    Args:
        name: of the InferenceModel.
        version: the version.
        content: what else tells one rehearsal of it from another: of two that differ in it, each
            has a pod of its own.
    """
    digest = hashlib.sha256(f"{name} {content}".encode()).hexdigest()[:8]
    suffix = f"-rehearsal-{version}-{digest}"
    return name[: _LABEL - len(suffix)].rstrip("-.") + suffix


def children(name: str) -> frozenset[str]:
    """All names that children of the InferenceModel ``name`` can have."""
    return frozenset(
        {
            deployment(name),
            service(name),
            headless_service(name),
            interceptor(name),
            ingress(name),
            versions_config_map(name),
            autoscaler(name),
            disruption_budget(name),
            route(name),
            network_policy(name),
        }
    )
