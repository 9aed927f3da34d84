"""Events on an InferenceModel: one for each change that its status went through.

They are made from the difference between the status that was and the one that was written, so a
restart or a doubled reconcile repeats none.
"""

from __future__ import annotations

import datetime
import socket
import uuid
from typing import TYPE_CHECKING, Any, Final

import msgspec

from inferencemodel_operator import bounds, history, names
from inferencemodel_operator.conditions import ConditionType, Reason

if TYPE_CHECKING:
    from collections.abc import Iterator

    from inferencemodel_operator.observe.objects import Model
    from inferencemodel_operator.status import Condition, Status

NOTE_LIMIT: Final = bounds.MESSAGE
"""The API server's limit on an Event's note, in bytes."""


class Change(msgspec.Struct, frozen=True):
    """Something that happened and is worth an Event."""

    reason: str
    note: str
    warning: bool = False


def changes(before: Status, after: Status) -> list[Change]:
    """What happened between two statuses, in the order of a version's life."""
    happened = [
        Change(entry.reason, f"version {entry.version} is quarantined: {entry.message}", True)
        for entry in history.newly_quarantined(before.model, after.model)
    ]
    active = history.activated(before.model.history, after.model.history)
    if active is not None:
        previous = before.model.active_version
        instead = "" if previous in (None, active.version) else f" instead of version {previous}"
        happened.append(
            Change("VersionActivated", f"version {active.version} answers on all replicas{instead}")
        )
    if ended := history.superseded(before.model.rollout, after.model.rollout):
        happened.append(Change("RolloutSuperseded", ended))
    return happened + [
        Change(new.reason, new.message, True)
        for kind, new in _turns(before, after)
        if (kind, new.status) in _BAD or new.reason in _TROUBLES
    ]


def _turns(before: Status, after: Status) -> Iterator[tuple[ConditionType, Condition]]:
    """The conditions that have another reason than before."""
    for kind in (
        ConditionType.SOURCE_READY,
        ConditionType.RECONCILING,
        ConditionType.STALLED,
        ConditionType.READY,
    ):
        old, new = before.condition(kind), after.condition(kind)
        if new is not None and (old is None or old.reason != new.reason):
            yield kind, new


_BAD: Final = frozenset({(ConditionType.SOURCE_READY, "False"), (ConditionType.STALLED, "True")})
_TROUBLES: Final = frozenset(
    {
        Reason.PODS_REFUSED,
        Reason.IMAGE_PULL_FAILED,
        Reason.CONTAINER_CONFIG_FAILED,
        Reason.POLLER_CRASHED,
        Reason.SERVER_CRASHED,
        Reason.CONTAINER_CRASHED,
        Reason.APPLY_FAILED,
        Reason.EVICTED,
    }
)


def event(model: Model, change: Change) -> dict[str, Any]:
    """The Event object (events.k8s.io/v1) of a change."""
    namespace, name = model.key
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"namespace": namespace, "name": f"{name}.{uuid.uuid4().hex[:16]}"},
        "eventTime": micro_time(datetime.datetime.now(datetime.UTC)),
        "reportingController": f"{names.GROUP}/operator",
        "reportingInstance": socket.gethostname()[:128],
        "action": "Reconcile",
        "type": "Warning" if change.warning else "Normal",
        "reason": change.reason,
        "note": bounds.text(change.note, NOTE_LIMIT),
        "regarding": {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            "namespace": namespace,
            "name": name,
            "uid": model.uid,
        },
    }


def micro_time(moment: datetime.datetime) -> str:
    """A moment in UTC as Kubernetes' MicroTime."""
    return f"{moment:%Y-%m-%dT%H:%M:%S.%fZ}"
