"""What the operator writes for a pod's poller to read: a pure function of the record.

The same three texts stand in the ConfigMap, from which a new pod starts, and in the pod's
annotations, which the kubelet carries into its files. They are written in one patch: a poller
never reads the target of one decision beside the quarantine of another. A fourth text is in the
annotations alone: what a rollout asks of the pod.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from inferencemodel_operator import bounds, names
from inferencemodel_operator.conditions import Reason
from inferencemodel_operator.record import (
    QUARANTINED_KEY,
    SERVED_KEY,
    TARGET_KEY,
    QuarantinedVersion,
    VersionsRecord,
    is_reason,
    tried_in,
    uncompacted,
)
from model_poller.status import VersionReason, decode_task, encode_task

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from inferencemodel_operator.status import Quarantine
    from model_poller.status import PollerStatus, RolloutTask

KEYS: Final[Mapping[str, str]] = {
    names.TARGET_VERSION_ANNOTATION: TARGET_KEY,
    names.SERVED_VERSIONS_ANNOTATION: SERVED_KEY,
    names.QUARANTINED_VERSIONS_ANNOTATION: QUARANTINED_KEY,
}
"""The annotations of a pod, and the keys of the ConfigMap that hold the same."""

_OF_TEMPLATES: Final = frozenset(
    {
        Reason.CRASHED_SERVING.value,
        Reason.INSUFFICIENT_MEMORY.value,
        Reason.LOAD_TIMEOUT.value,
        Reason.SERVER_CRASHED.value,
    }
)
"""Reasons that another pod template may mend."""
_LOST: Final = VersionReason.QUARANTINED_ELSEWHERE.value
"""Why a version is quarantined, where nobody knows any more."""


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
    elif former is not None and (
        former.live or former.drain or former.fetch or former.keep is not None
    ):
        texts[names.ROLLOUT_ANNOTATION] = ""
    return texts


def recovered(
    pods: Iterable[Mapping[str, str]],
    known: Iterable[Quarantine],
    templates: Collection[str] = (),
) -> VersionsRecord:
    """What pods were told last, where the ConfigMap that said the same is gone.

    No pod forgets by it what it serves, and no version that failed is tried again.

    Args:
        pods: the annotations of each.
        known: the quarantined versions of the status, which say why.
        templates: hashes of the pod templates that the pods were made from: what failed in those
            may be tried again in another one.
    """
    told = list(pods)
    targets = Counter(bounds.number(one.get(names.TARGET_VERSION_ANNOTATION, "")) for one in told)
    del targets[None]
    # In the middle of a rollout, the one that more of them have; else the one before.
    target = min(targets, key=lambda version: (-targets[version], version), default=None)
    # Whoever may write a status could have written anything there.
    why = {entry.version: entry for entry in known if is_reason(entry.reason)}
    bad = {
        entry
        for one in told
        for entry in uncompacted(one.get(names.QUARANTINED_VERSIONS_ANNOTATION, ""))
    }
    return VersionsRecord(
        target=target,
        quarantined=tuple(
            entry
            for version, stored in sorted(bad, reverse=True)
            for entry in _entries(version, stored, why.get(version), templates)
        )[: bounds.VERSIONS],
    )


def _entries(
    version: int, stored: str, why: Quarantine | None, templates: Collection[str]
) -> Iterator[QuarantinedVersion]:
    reason = _LOST if why is None else why.reason
    own = sorted(set(templates) - {""}) if reason in _OF_TEMPLATES else []
    for template in own or ("",):
        yield QuarantinedVersion(
            version=version,
            fingerprint=tried_in(template, stored),
            reason=reason,
            message="" if why is None else bounds.text(why.message),
        )


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
