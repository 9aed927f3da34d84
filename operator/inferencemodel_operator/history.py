"""What became of the last versions: ``history``, ``lastFailureInfo``, ``rollout``; pure.

All are carried on from the live status, for they tell of what no observation shows any more.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from inferencemodel_operator import bounds
from inferencemodel_operator.record import Phase
from inferencemodel_operator.status import (
    LISTED_VERSIONS,
    Change,
    Failure,
    Quarantine,
    RolloutStatus,
)

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
    fresh = [
        entry
        for entry in quarantined
        if entry not in before.quarantined
        and not _may_be_known(entry, before.quarantined, seen.record.wanted)
    ]
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


def newly_quarantined(before: ModelStatus, after: ModelStatus) -> list[Quarantine]:
    """The quarantined versions that only the second of two statuses tells of, whatever their words
    are."""
    known = {(entry.version, entry.reason) for entry in before.quarantined}
    return [
        entry
        for entry in after.quarantined
        if (entry.version, entry.reason) not in known
        and not _may_be_known(entry, before.quarantined, after.target_version)
    ]


def _may_be_known(entry: Quarantine, before: Sequence[Quarantine], wanted: int | None) -> bool:
    """Whether a version may be quarantined for long, and have had no room in a list of the newest.

    It gets there when a newer one's objects are replaced or taken away.
    """
    if len(before) < LISTED_VERSIONS or entry.version == wanted:
        return False
    # The lowest may be there because it was wanted.
    return entry.version < sorted(known.version for known in before)[1]


def last_rollout(
    before: RolloutStatus | None, after: RolloutStatus | None, cut_off: str, now: datetime
) -> RolloutStatus | None:
    """The rollout that runs or ran last, also where the memory has none any more.

    Args:
        before: of the live status.
        after: what the memory tells.
        cut_off: by what the memory is about something else than the live status; empty if it isn't.
        now: when one that ran ended, if it did.
    """
    if before is None or (after is not None and not (cut_off and is_same(before, after))):
        return after
    if is_ended(before):
        # What had come to its end is about something else than what is asked now.
        return None if cut_off else before
    why = cut_off or "what was remembered of it is gone: somebody took away its ConfigMap"
    return replace(
        before,
        phase=Phase.SUPERSEDED.value,
        replicas_on=None,
        replicas_wanted=None,
        end_time=now,
        message=bounds.text(why),
    )


def superseded(before: RolloutStatus | None, after: RolloutStatus | None) -> str:
    """Which rollout ended between two statuses because something else is wanted; empty for none."""
    if before is None or after is None or is_ended(before):
        return ""
    told = f"the rollout of version {before.version} ended before it was everywhere"
    if is_same(before, after):
        return f"{told}: {after.message}" if after.phase == Phase.SUPERSEDED else ""
    # One that was taken back, or was everywhere, has an Event of its own.
    if before.phase in (Phase.ROLLING_BACK, Phase.BAKING):
        return ""
    return f"{told}: that of version {after.version} took its place"


def is_same(one: RolloutStatus, other: RolloutStatus) -> bool:
    """Whether two statuses tell of one rollout."""
    return (one.version, one.start_time) == (other.version, other.start_time)


def is_ended(rollout: RolloutStatus) -> bool:
    """Whether nothing more comes of it."""
    return rollout.phase in _ENDED


_ENDED: Final = frozenset(phase.value for phase in Phase if phase.is_ended)
