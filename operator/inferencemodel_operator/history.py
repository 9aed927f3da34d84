"""What became of the last versions: ``status.model.history`` and ``lastFailureInfo``; pure.

Both are carried on from the live status, for they tell of what no observation shows any more.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from inferencemodel_operator.observed import Observed
    from inferencemodel_operator.record import QuarantinedVersion

Entry = dict[str, Any]

LENGTH: Final = 10


class Result(StrEnum):
    """How a change to a version ended."""

    IN_PROGRESS = "InProgress"
    """It is the target, and not yet on every ready replica."""
    ACTIVE = "Active"
    """It answers on every ready replica."""
    SUPERSEDED = "Superseded"
    """Another version became the target, before or after this one was active."""
    FAILED = "Failed"
    """It was quarantined before it was active."""


def carry_on(
    before: Sequence[Entry],
    *,
    target: int | None,
    active: int | None,
    quarantined: Sequence[QuarantinedVersion],
    now: str,
) -> list[Entry]:
    """The history with what is new, newest first.

    Args:
        before: the history so far.
        target: the version that every replica is to serve.
        active: the version that answers on every ready replica.
        quarantined: the versions that failed.
        now: RFC 3339; of what this call finds.
    """
    failures = {entry.version: entry for entry in quarantined}
    entries = [dict(entry) for entry in before]
    newest = entries[0] if entries else None
    if newest and newest["result"] == Result.IN_PROGRESS and newest["version"] in failures:
        failure = failures[newest["version"]]
        newest |= {"result": Result.FAILED.value, "endTime": now, "reason": failure.reason}
    if target is not None and _begins(entries, target, failures):
        if newest and newest["result"] == Result.IN_PROGRESS:
            newest |= {"result": Result.SUPERSEDED.value, "endTime": now}
        newest = {"version": target, "startTime": now, "result": Result.IN_PROGRESS.value}
        entries.insert(0, newest)
    if newest and newest["result"] == Result.IN_PROGRESS and active == target == newest["version"]:
        for entry in entries:
            if entry["result"] == Result.ACTIVE:
                entry |= {"result": Result.SUPERSEDED.value, "endTime": now}
        newest |= {
            "result": Result.ACTIVE.value,
            "activeTime": now,
            "duration": _duration(newest["startTime"], now),
        }
    return entries[:LENGTH]


def _begins(entries: Sequence[Entry], target: int, failures: Mapping[int, object]) -> bool:
    """Whether a change to the target begins that the history doesn't have yet."""
    serving = next((e["version"] for e in entries if e["result"] == Result.ACTIVE), None)
    newest = entries[0] if entries else None
    if newest is None or newest["version"] != target:
        # Going back from a version that failed to the one that never left is no change.
        under_way = newest is not None and newest["result"] == Result.IN_PROGRESS
        return under_way or serving != target
    return newest["result"] == Result.FAILED and target not in failures


def _duration(start: str, end: str) -> str:
    seconds = (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
    return f"{max(seconds, 0):.1f}s"


def last_failure(before: Mapping[str, Any], seen: Observed, now: str) -> Entry | None:
    """The newest quarantined version that ``before``, the live ``status.model``, hasn't told of.

    Without one, what was told last stays, healed or not.
    """
    known = {(q["version"], q["message"]) for q in before.get("quarantined") or ()}
    fresh = [q for q in seen.record.quarantined if (q.version, q.message) not in known]
    if not fresh:
        told: Entry | None = before.get("lastFailureInfo")
        return told
    failure = max(fresh, key=lambda entry: entry.version)
    pods = [
        pod.name
        for pod in seen.pods
        if (version := pod.version(failure.version)) and version.state == "Quarantined"
    ]
    return {
        "version": failure.version,
        "reason": failure.reason,
        "message": failure.message,
        "time": now,
        **({"pod": pods[0]} if pods else {}),
    }
