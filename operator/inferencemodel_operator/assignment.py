"""What the operator writes for a pod's poller to read: a pure function of the record.

The same three texts stand in the ConfigMap, from which a new pod starts, and in the pod's
annotations, which the kubelet carries into its files. They are written in one patch: a poller
never reads the target of one decision beside the quarantine of another. A fourth text is in the
annotations alone: what a rollout asks of the pod.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from inferencemodel_operator import names
from inferencemodel_operator.record import QUARANTINED_KEY, SERVED_KEY, TARGET_KEY
from model_poller.status import decode_task, encode_task

if TYPE_CHECKING:
    from collections.abc import Mapping

    from inferencemodel_operator.record import VersionsRecord
    from model_poller.status import PollerStatus, RolloutTask

KEYS: Final[Mapping[str, str]] = {
    names.TARGET_VERSION_ANNOTATION: TARGET_KEY,
    names.SERVED_VERSIONS_ANNOTATION: SERVED_KEY,
    names.QUARANTINED_VERSIONS_ANNOTATION: QUARANTINED_KEY,
}
"""The annotations of a pod, and the keys of the ConfigMap that hold the same."""


def assignment(
    record: VersionsRecord, task: RolloutTask | None = None, annotations: Mapping[str, str] = {}
) -> dict[str, str]:
    """The annotations of a pod; an empty text where there is nothing to say.

    Args:
        record: what it is to serve.
        task: what a rollout asks of it.
        annotations: those that it has. A task that costs nothing once it is done stays there:
            to take it away would be one more write for each pod.
    """
    data = record.assigned()
    texts = {annotation: data[key] for annotation, key in KEYS.items()}
    former = decode_task(annotations.get(names.ROLLOUT_ANNOTATION, ""))
    if task is not None:
        texts[names.ROLLOUT_ANNOTATION] = encode_task(task)
    elif former is not None and (former.live or former.drain):
        texts[names.ROLLOUT_ANNOTATION] = ""
    return texts


def missing(wanted: Mapping[str, str], annotations: Mapping[str, str]) -> bool:
    """Whether a pod with these annotations has yet to be told any part of it."""
    return any(annotations.get(name, "") != text for name, text in wanted.items())


def is_confirmed(wanted: Mapping[str, str], report: PollerStatus) -> bool:
    """Whether a pod's poller says that it has read this assignment.

    A poller of an older release tells of the target alone.
    """
    if report.assigned is None:
        target = "" if report.target is None else str(report.target)
        return wanted[names.TARGET_VERSION_ANNOTATION] == target
    texts = {
        names.TARGET_VERSION_ANNOTATION: report.assigned.target,
        names.SERVED_VERSIONS_ANNOTATION: report.assigned.served,
        names.QUARANTINED_VERSIONS_ANNOTATION: report.assigned.quarantined,
        names.ROLLOUT_ANNOTATION: report.assigned.rollout,
    }
    return all(texts.get(name, "") == text for name, text in wanted.items())
