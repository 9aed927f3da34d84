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

from inferencemodel_operator import bounds, names
from inferencemodel_operator.conditions import ConditionType, Reason

if TYPE_CHECKING:
    from collections.abc import Mapping

    from inferencemodel_operator.observe.objects import Model

NOTE_LIMIT: Final = bounds.MESSAGE
"""The API server's limit on an Event's note, in bytes."""


class Change(msgspec.Struct, frozen=True):
    """Something that happened and is worth an Event."""

    reason: str
    note: str
    warning: bool = False


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """What happened between two statuses, in the order of a version's life."""
    happened = []
    known = {(q["version"], q["message"]) for q in _model(before).get("quarantined", ())}
    happened += [
        Change(q["reason"], f"version {q['version']} is quarantined: {q['message']}", warning=True)
        for q in _model(after).get("quarantined", ())
        if (q["version"], q["message"]) not in known
    ]
    active = _model(after).get("activeVersion")
    previous = _model(before).get("activeVersion")
    if active is not None and active != previous:
        instead = "" if previous is None else f" instead of version {previous}"
        happened.append(
            Change("VersionActivated", f"version {active} answers on every ready replica{instead}")
        )
    for kind, bad in (
        (ConditionType.SOURCE_READY, "False"),
        (ConditionType.STALLED, "True"),
    ):
        old, new = _condition(before, kind), _condition(after, kind)
        if new.get("status") == bad and new.get("reason") != old.get("reason"):
            happened.append(Change(new["reason"], new["message"], warning=True))
    ready = _condition(after, ConditionType.READY)
    if ready.get("reason") in _TROUBLES and ready["reason"] != _condition(
        before, ConditionType.READY
    ).get("reason"):
        happened.append(Change(ready["reason"], ready["message"], warning=True))
    return happened


_TROUBLES: Final = frozenset(
    {
        Reason.PODS_REFUSED,
        Reason.IMAGE_PULL_FAILED,
        Reason.CONTAINER_CONFIG_FAILED,
        Reason.POLLER_CRASHED,
        Reason.SERVER_CRASHED,
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


def _model(status: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = status.get("model") or {}
    return found


def _condition(status: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    return next((c for c in status.get("conditions") or () if c["type"] == kind), {})
