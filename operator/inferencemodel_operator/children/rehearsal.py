"""The pod that loads a version before any replica does, and gets no requests.

It is the Deployment's own pod, but for what makes a replica of one: the label by which Services,
Deployment, budget and autoscaler select. As it is never ready, Services of a user's own pass it by
as well, whichever of the template's labels they select by.

What ``spec.template.spec`` adds is in it: a sidecar takes memory, and a proxy or an init container
may be what the others reach the store by. Only what lies in the way of a pod beside the replicas is
not: ports of the node, and hooks that wait for clients to leave.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from inferencemodel_operator import names
from inferencemodel_operator.children import poller
from inferencemodel_operator.children.manifest import Manifest, digest, owner
from inferencemodel_operator.record import QUARANTINED_KEY, SERVED_KEY, TARGET_KEY

if TYPE_CHECKING:
    from collections.abc import Mapping

    from inferencemodel_operator.spec import InferenceModel

GRACE_SECONDS: Final = 2
"""Nobody has a connection that would have to be waited for."""

_SUBSCRIPTIONS: Final = ("--pubsub-subscription=", "--pubsub-endpoint=", "--sqs-queue-url=")
_ASSIGNED: Final = (*names.ASSIGNMENT_ANNOTATIONS, names.ROLLOUT_ANNOTATION)


def build(
    model: InferenceModel,
    template: Manifest,
    *,
    version: int,
    fingerprint: str,
    served: tuple[int, ...],
    quarantined: str,
    rollout: str,
) -> Manifest:
    """The pod that rehearses a version.

    Args:
        model: the InferenceModel, which owns it.
        template: the pod template of its Deployment.
        version: the one that is rehearsed.
        fingerprint: of its stored objects; others are rehearsed in another pod.
        served: all that are loaded, highest first. With those beside which a replica loads the
            version, it shows what only all of them together cause, as a lack of memory.
        quarantined: what must not be fetched or loaded, as pods are told it.
        rollout: the pod's task, as JSON.
    """
    texts = {
        TARGET_KEY: str(version),
        SERVED_KEY: ",".join(map(str, served)),
        QUARANTINED_KEY: quarantined,
    }
    assigned = {
        names.TARGET_VERSION_ANNOTATION: texts[TARGET_KEY],
        names.SERVED_VERSIONS_ANNOTATION: texts[SERVED_KEY],
        names.QUARANTINED_VERSIONS_ANNOTATION: quarantined,
        names.ROLLOUT_ANNOTATION: rollout,
    }
    metadata = template["metadata"]
    name = names.rehearsal(model.name, version, f"{fingerprint} {digest(template)}")
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": model.namespace,
            "labels": _labels(model.name, metadata.get("labels", {})),
            "annotations": {**metadata.get("annotations", {}), **assigned},
            "ownerReferences": [owner(model)],
        },
        "spec": _spec(template["spec"], texts),
    }


def assigned(rehearsal: Manifest) -> dict[str, str]:
    """The annotations by which the pod is told what to load."""
    annotations = rehearsal["metadata"]["annotations"]
    return {name: annotations[name] for name in _ASSIGNED}


def _labels(name: str, given: Mapping[str, str]) -> dict[str, str]:
    labels = {**given, **names.labels(name), names.REHEARSAL_LABEL: name}
    return {label: text for label, text in labels.items() if label != names.MODEL_LABEL}


def _spec(spec: Manifest, texts: Mapping[str, str]) -> Manifest:
    wanted = {
        **spec,
        "readinessGates": [{"conditionType": names.REHEARSAL_GATE}],
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "initContainers": [_told(_alone(container), texts) for container in spec["initContainers"]],
        "containers": [_alone(container) for container in spec["containers"]],
    }
    # One pod has nobody to be spread over nodes with.
    wanted.pop("topologySpreadConstraints", None)
    return wanted


def _alone(container: Manifest) -> Manifest:
    """A container that no client has a connection to, and that a replica may run beside."""
    wanted = dict(container)
    # Whatever a user has written there: the API server says what is wrong with it.
    given = container.get("lifecycle")
    hooks = dict(given) if isinstance(given, dict) else {}
    hooks.pop("preStop", None)
    wanted.pop("lifecycle", None)
    if hooks:
        wanted["lifecycle"] = hooks
    if "ports" in wanted:
        wanted["ports"] = [
            {field: value for field, value in port.items() if field != "hostPort"}
            for port in container["ports"]
        ]
    return wanted


def _told(container: Manifest, texts: Mapping[str, str]) -> Manifest:
    """A container that starts with this instead of what new replicas start with.

    Its files say the same, and count for more; but should it not get to read them, it must not
    take the stable version for the one that it is to load. And it takes no messages from the
    subscription: each goes to one poller alone, and it is the replicas that have to hear of what
    is uploaded meanwhile.
    """
    if container["name"] != names.POLLER_CONTAINER:
        return container
    environment = [
        {"name": variable["name"], "value": texts[poller.ASSIGNMENT[variable["name"]]]}
        if variable["name"] in poller.ASSIGNMENT
        else variable
        for variable in container.get("env", ())
    ]
    arguments = [text for text in container["args"] if not text.startswith(_SUBSCRIPTIONS)]
    return {**container, "env": environment, "args": arguments}
