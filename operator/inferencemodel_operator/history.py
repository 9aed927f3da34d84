"""What became of the last versions: ``status.model.history`` and ``lastFailureInfo``; pure.

Both are carried on from the live status, for they tell of what no observation shows any more.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from msgspec.structs import replace

from inferencemodel_operator.status import LISTED_VERSIONS, Change, Failure, Quarantine

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import datetime

    from inferencemodel_operator.observed import Observed
    from inferencemodel_operator.status import ModelStatus


class Result(StrEnum):
    """How a change to a version ended."""

    IN_PROGRESS = "InProgress"
    """It is the target, and not yet reached."""
    ACTIVE = "Active"
    """It was reached, and none after it."""
    SUPERSEDED = "Superseded"
    """Another version became the target, before or after this one was active."""
    FAILED = "Failed"
    """It was quarantined before it was active."""


def carry_on(
    before: Sequence[Change],
    *,
    target: int | None,
    reached: int | None,
    quarantined: Collection[Quarantine],
    now: datetime,
) -> tuple[Change, ...]:
    """The history with what is new, newest first.

    Args:
        before: the history so far.
        target: the version that every replica is to serve.
        reached: the version that is reached.
        quarantined: the versions that failed.
        now: of what this call finds.
    """
    failures = {entry.version: entry for entry in quarantined}
    entries = list(before)
    if _under_way(entries) and entries[0].version in failures:
        reason = failures[entries[0].version].reason
        entries[0] = replace(entries[0], result=Result.FAILED.value, end_time=now, reason=reason)
    if target is not None and _begins(entries, target, failures):
        if _under_way(entries):
            entries[0] = _superseded(entries[0], now)
        entries.insert(0, Change(version=target, start_time=now, result=Result.IN_PROGRESS.value))
    if _under_way(entries) and reached == target == entries[0].version:
        change, *older = entries
        entries = [
            replace(
                change,
                result=Result.ACTIVE.value,
                active_time=now,
                duration=f"{max((now - change.start_time).total_seconds(), 0):.1f}s",
            ),
            *(_superseded(e, now) if e.result == Result.ACTIVE else e for e in older),
        ]
    return tuple(entries[:LISTED_VERSIONS])


def activated(before: Sequence[Change], after: Sequence[Change]) -> Change | None:
    """The change that came to its end between two histories: its version is active now."""
    if not after or after[0].result != Result.ACTIVE:
        return None
    known = {(change.version, change.active_time) for change in before}
    return None if (after[0].version, after[0].active_time) in known else after[0]


def _under_way(entries: Sequence[Change]) -> bool:
    return bool(entries) and entries[0].result == Result.IN_PROGRESS


def _superseded(change: Change, now: datetime) -> Change:
    return replace(change, result=Result.SUPERSEDED.value, end_time=now)


def _begins(entries: Sequence[Change], target: int, failures: Mapping[int, object]) -> bool:
    """Whether a change to the target begins that the history doesn't have yet."""
    serving = next((e.version for e in entries if e.result == Result.ACTIVE), None)
    if not entries or entries[0].version != target:
        # Going back from a version that failed to the one that never left is no change.
        return _under_way(entries) or serving != target
    return entries[0].result == Result.FAILED and target not in failures


def last_failure(
    before: ModelStatus, quarantined: Sequence[Quarantine], seen: Observed, now: datetime
) -> Failure | None:
    """The newest version that is quarantined and wasn't in the live ``status.model``.

    Without one, what was reported last stays, healed or not.
    """
    fresh = [entry for entry in quarantined if entry not in before.quarantined]
    if not fresh:
        return before.last_failure
    failure = max(fresh, key=lambda entry: entry.version)
    pods = [
        pod.name
        for pod in seen.replicas
        if (version := pod.version(failure.version)) and version.state == "Quarantined"
    ]
    return Failure(
        version=failure.version,
        reason=failure.reason,
        message=failure.message,
        time=now,
        pod=pods[0] if pods else "",
    )
