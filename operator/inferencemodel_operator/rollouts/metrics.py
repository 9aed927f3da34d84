"""What rollouts come to, as metrics: told by how one status differs from the next.

Statuses outlive the operator, so one that starts anew counts nothing twice.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

import msgspec
import prometheus_client

from inferencemodel_operator.history import is_ended, is_same
from inferencemodel_operator.record import Phase
from inferencemodel_operator.rollouts import checks
from model_poller.status import CheckResult

if TYPE_CHECKING:
    import datetime

    from prometheus_client import CollectorRegistry

    from inferencemodel_operator.observe.objects import Key
    from inferencemodel_operator.status import RolloutStatus

PHASES: Final = tuple(phase.value for phase in Phase if not phase.is_ended)
OUTCOMES: Final = tuple(phase.value for phase in Phase if phase.is_ended)
CHECKS: Final = (checks.MEMORY, checks.SIGNATURE, checks.REHEARSAL, checks.GOLDEN, checks.LIVE)
_DONE: Final = (Phase.BAKING, Phase.COMPLETED)
"""The phases behind the last step."""
_UNWRITTEN: Final = {
    Phase.BAKING.value: Phase.COMPLETED,
    # One that can't get back everywhere has to make way for what mends it.
    Phase.ROLLING_BACK.value: Phase.ROLLED_BACK,
}
"""What a rollout has come to of which no status tells the end, by its last phase."""
_SECONDS: Final = (1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 14400, 86400)


class RolloutChanges(msgspec.Struct, frozen=True, kw_only=True):
    """What has happened between two statuses."""

    outcomes: tuple[str, ...] = ()
    """How rollouts ended."""
    steps: tuple[tuple[str, float], ...] = ()
    """Steps that are over, by what `_step` calls them, and the seconds that each took."""
    checks: tuple[tuple[str, str], ...] = ()
    """Checks that have ended: which, and how."""


def rollout_changes(
    before: RolloutStatus | None, after: RolloutStatus | None, now: datetime.datetime
) -> RolloutChanges:
    """What has happened between two statuses of one InferenceModel.

    Args:
        before: the rollout as it was written last; None where there was none.
        after: the rollout as it is written now.
        now: the time.
    """
    if after is None:
        return RolloutChanges()
    same = before is not None and is_same(before, after)
    outcomes = []
    if before is not None and not same and not is_ended(before):
        # Its end was never written: the next version's rollout took its place at once.
        outcomes.append(_UNWRITTEN.get(before.phase, Phase.SUPERSEDED).value)
    if is_ended(after) and not (same and before is not None and is_ended(before)):
        outcomes.append(after.phase)
    known = {(check.name, check.result) for check in before.checks} if before and same else set()
    judged = [(check.name, check.result) for check in after.checks]
    return RolloutChanges(
        outcomes=tuple(outcomes),
        steps=_steps(before, after, now) if before is not None and same else (),
        checks=tuple(check for check in judged if check not in known),
    )


def _steps(
    before: RolloutStatus, after: RolloutStatus, now: datetime.datetime
) -> tuple[tuple[str, float], ...]:
    """The step that is over. One of which no status tells the end is left out."""
    began = before.step_started_time if before.step else before.start_time
    if began is None or is_ended(before) or before.phase in _DONE:
        return ()
    ended = None
    if after.step == before.step + 1:
        ended = after.step_started_time
    elif after.step == before.step and after.phase in _DONE:
        ended = after.end_time or now
    if ended is None:
        return ()
    return ((_step(before.step), max(0.0, (ended - began).total_seconds())),)


def _step(number: int) -> str:
    """Few names, however many steps users have."""
    return {0: "checks", 1: "first"}.get(number, "later")


class RolloutMetrics:
    """Counts rollouts, and shows those that run."""

    def __init__(self, registry: CollectorRegistry, prefix: str) -> None:
        self._ended = prometheus_client.Counter(
            f"{prefix}_rollouts_total",
            "Rollouts of versions by how they ended",
            ["outcome"],
            registry=registry,
        )
        self._running = prometheus_client.Gauge(
            f"{prefix}_rollouts_running",
            "Rollouts that have not ended, by their phase; Paused ones wait for a person",
            ["phase"],
            registry=registry,
        )
        self._seconds = prometheus_client.Histogram(
            f"{prefix}_rollout_step_seconds",
            "Duration of a step, its pauses included: the checks before the first one, the first "
            "one, and each later one",
            ["step"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._checks = prometheus_client.Counter(
            f"{prefix}_rollout_checks_total",
            "Checks of versions by how they ended",
            ["check", "result"],
            registry=registry,
        )
        # A series that begins with its first event has no increase.
        for outcome in OUTCOMES:
            self._ended.labels(outcome)
        for phase in PHASES:
            self._running.labels(phase)
        for check in CHECKS:
            for result in CheckResult:
                self._checks.labels(check, result)
        self._phases: dict[Key, str] = {}

    def changed(
        self, before: RolloutStatus | None, after: RolloutStatus | None, now: datetime.datetime
    ) -> None:
        """Count what has happened, once the status that tells it is written."""
        changes = rollout_changes(before, after, now)
        for outcome in changes.outcomes:
            self._ended.labels(outcome).inc()
        for step, seconds in changes.steps:
            self._seconds.labels(step).observe(seconds)
        for check, result in changes.checks:
            self._checks.labels(check, result).inc()

    def show(self, key: Key, rollout: RolloutStatus | None) -> None:
        """Take in where the rollout of an InferenceModel is; None for none."""
        if rollout is None or is_ended(rollout):
            self.forget(key)
        elif self._phases.get(key) != rollout.phase:
            self._phases[key] = rollout.phase
            self._set()

    def forget(self, key: Key) -> None:
        """An InferenceModel has no rollout, or is gone."""
        if self._phases.pop(key, None) is not None:
            self._set()

    def _set(self) -> None:
        counts = Counter(self._phases.values())
        for phase in PHASES:
            self._running.labels(phase).set(counts[phase])
