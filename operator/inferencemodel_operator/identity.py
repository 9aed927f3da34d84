"""Whose pod it is, and of which source and model: the one filter for deciding, assigning and
reporting.

A pod is an InferenceModel's when the chain of controller owners leads there, uid by uid: labels
and names are anybody's to write, and a predecessor of the same name had the same ones. What a pod's
poller reports counts only when it is about the model and the source of the present spec.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from inferencemodel_operator import store
from inferencemodel_operator.observe.reports import Unreachable
from inferencemodel_operator.observed import Replica
from model_poller.status import PollerStatus

if TYPE_CHECKING:
    from inferencemodel_operator.observe.objects import Child, Model, Pod, ReplicaSet
    from inferencemodel_operator.observe.reports import Report
    from inferencemodel_operator.spec import InferenceModel


def owns(
    model: Model | None, deployment: Child | None, replica_set: ReplicaSet | None, pod: Pod
) -> bool:
    """Whether the chain of owners leads from the pod to the InferenceModel.

    Args:
        model: the InferenceModel that the pod's label names.
        deployment: its Deployment, by name.
        replica_set: the one that controls the pod, by uid.
        pod: the pod.
    """
    return (
        model is not None
        and deployment is not None
        and replica_set is not None
        and pod.owner_uid == replica_set.uid
        and replica_set.owner_uid == deployment.uid
        and deployment.owner_uid == model.uid
    )


def rehearses(model: Model | None, pod: Pod) -> bool:
    """Whether the pod rehearses a version of the InferenceModel whose name it carries."""
    return model is not None and pod.rehearsing is not None and pod.owner_uid == model.uid


def has_source(pod: Pod, model: InferenceModel) -> bool:
    """Whether the pod brings its versions from the spec's source.

    After a change of the source, the same number is another version: pods from before it neither
    decide nor are assigned what to serve, until the Deployment has replaced them.
    """
    wanted = model.spec
    return pod.storage_uri in (None, wanted.model.storage_uri) and store.same(
        pod.store, store.of_source(wanted.source)
    )


def believed(pod: Pod, model: InferenceModel, report: Report | None) -> PollerStatus | None:
    """What the pod's poller reports about the spec's model and source; None for anything else."""
    if not isinstance(report, PollerStatus) or not has_source(pod, model):
        return None
    about = (report.model, address(report.source.uri))
    return report if about == (model.model_name, address(model.spec.model.storage_uri)) else None


def replica(
    pod: Pod,
    model: InferenceModel,
    report: Report | None,
    *,
    current: bool,
) -> Replica:
    """What is observed of a pod that is the InferenceModel's.

    Args:
        pod: the pod.
        model: the resource.
        report: what its poller answered last.
        current: whether it is made from the present pod template.
    """
    credible = believed(pod, model, report)
    other = isinstance(report, PollerStatus) and credible is None
    return Replica(
        name=pod.name,
        uid=pod.uid,
        ready=pod.ready,
        report=credible,
        draining=pod.terminating,
        silent=not pod.poller_running or isinstance(report, Unreachable),
        # A pod of the present template that reports about something else is not to be believed.
        other_source=not has_source(pod, model) or (other and not current),
        current=current,
        trouble=pod.trouble,
        message=pod.message,
        doubt=_doubt(pod, report) if other and current else "",
        restarts=pod.server_restarts,
        evicted=pod.disruption.message if pod.disruption and pod.disruption.evicted else "",
        template=pod.template,
        node=pod.node,
        behind_poller=pod.behind_poller,
    )


def _doubt(pod: Pod, report: Report | None) -> str:
    if not isinstance(report, PollerStatus):
        return ""
    return f"{pod.name} reports about model {report.model!r} of {report.source.uri or 'no source'}"


def address(uri: str) -> str:
    """A source's address without what is written in more than one way, or is nobody's business."""
    scheme, separator, rest = uri.partition("://")
    host, _, path = rest.partition("?")[0].partition("/")
    return f"{scheme}{separator}{host.rpartition('@')[2]}/{path.strip('/')}".rstrip("/")
