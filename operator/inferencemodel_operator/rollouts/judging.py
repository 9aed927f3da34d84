"""What speaks for and against a version on those that have it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from inferencemodel_operator import bounds
from inferencemodel_operator.conditions import Reason
from inferencemodel_operator.record import Phase, QuarantinedVersion, tried_in
from inferencemodel_operator.rollouts import checks as rollout_checks
from inferencemodel_operator.rollouts.fleet import is_given
from inferencemodel_operator.rollouts.state import FailureError
from model_poller.status import CheckResult

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inferencemodel_operator.observed import Replica
    from inferencemodel_operator.record import RolloutRecord
    from inferencemodel_operator.rollouts.checks import Finding
    from inferencemodel_operator.rollouts.state import State

RESTARTS: Final = 2
"""So many ends of the model server on a replica that has the version speak against the version."""


def judge_serving(state: State, members: Sequence[Replica]) -> None:
    """What speaks against the version on those that have it.

    Raises:
        FailureError: something does.
    """
    current = state.run_of
    if current is None:
        return
    for replica in members:
        ends = state.ends(replica, current)
        if ends >= RESTARTS and is_given(replica, current.version):
            raise FailureError(
                Reason.CRASHED_SERVING,
                _ended(replica, ends, current.version),
                of_template=True,
                certain=True,
            )
    if current.hold:
        # What was found is told already; figures that go on changing are not written for that.
        return
    if state.is_promoted(current):
        # Somebody has judged for themselves.
        return
    judge_golden(state, current, members)
    checks = state.spec.checks
    if checks.live.mode == "Enforce" and state.is_measured(current):
        finding = live(state, current)
        if finding.result is CheckResult.FAILED:
            state.note(rollout_checks.LIVE, finding)
            raise FailureError(finding.reason, finding.message)


def judge_carried(state: State, current: RolloutRecord) -> None:
    """Take a version whose rollout this one took the place of from those that still have it, where
    it ends their model servers: it may be long until it is their turn."""
    before = {pod.uid: pod.restarts for pod in current.carriers if pod.uid not in current.told}
    for replica in state.replicas:
        known = None if current.carried is None else replica.version(current.carried)
        ends = replica.restarts - before.get(replica.uid, replica.restarts)
        if known is None or ends < RESTARTS or not is_given(replica, known.version):
            continue
        entry = QuarantinedVersion(
            version=known.version,
            fingerprint=tried_in(replica.template, known.tried),
            reason=Reason.CRASHED_SERVING.value,
            message=bounds.text(_ended(replica, ends, known.version)),
        )
        state.quarantine(entry)


def judge_evicted(state: State) -> None:
    """What a node ends for want of memory or disk has no model server that ends once more, but a
    pod in its place, and the version would go to one replica after another.

    Raises:
        FailureError: it has gone that way twice.
    """
    current = state.run_of
    gone = [] if current is None else [r for r in state.seen.replicas if r.evicted]
    gone = [replica for replica in gone if current is not None and replica.uid in current.told]
    if current is None or not gone:
        return
    left = tuple(pod for pod in current.pods if pod.uid not in {r.uid for r in gone})
    count = current.evicted + len(gone)
    state.run_of = replace(current, pods=left, evicted=count)
    if count >= RESTARTS:
        raise FailureError(
            Reason.CRASHED_SERVING,
            f"{count} pods were taken away by their nodes since they were given version "
            f"{current.version}: pod {gone[0].name} {gone[0].evicted}",
            of_template=True,
            certain=True,
        )


def _ended(replica: Replica, ends: int, version: int) -> str:
    return (
        f"the model server of {replica.name} ended {ends} times since it was given version "
        f"{version}; look at its log, and upload a repaired version"
    )


def judge_golden(state: State, current: RolloutRecord, on: Sequence[Replica]) -> bool:
    """Whether it is known how golden requests went on these, or nobody asks for any.

    Raises:
        FailureError: the answers are wrong.
    """
    mode = state.spec.checks.golden.mode
    if mode == "Ignore":
        return True
    finding = rollout_checks.golden(current.version, state.key(current), on)
    if finding is None:
        return False
    state.note(rollout_checks.GOLDEN, finding)
    if finding.result is CheckResult.FAILED and mode == "Enforce":
        raise FailureError(finding.reason, finding.message)
    return True


def live_allows(state: State, current: RolloutRecord) -> bool:
    """Whether live figures let a step be left.

    Raises:
        FailureError: they say that the version is worse.
    """
    asked = state.spec.checks.live
    finding = live(state, current)
    if asked.mode == "Report":
        note_live(state, finding)
        return True
    if finding.result is CheckResult.INCONCLUSIVE:
        started = current.settled or state.now
        if not state.is_over(started, state.spec.deadline):
            state.words = f"live figures are gathered: {asked.min_requests} requests are needed"
            return False
        note_live(state, finding)
        if asked.on_inconclusive == "Hold" and state.run_of is not None:
            hold = f"live figures tell nothing: {finding.message}; promote or abort it"
            state.run_of = replace(state.run_of, hold=bounds.text(hold))
            return False
        return True
    note_live(state, finding)
    if finding.result is CheckResult.FAILED:
        raise FailureError(finding.reason, finding.message)
    return True


def live(state: State, current: RolloutRecord) -> Finding:
    """How requests go on with the version, beside those with the version before."""
    return rollout_checks.live(
        state.spec.checks.live,
        current.version,
        current.from_version,
        state.key(current),
        state.replicas,
        remembered=current.before if current.phase is Phase.BAKING else None,
    )


def note_live(state: State, finding: Finding) -> None:
    """Remember how that ended, and the figures of the version before."""
    state.note(rollout_checks.LIVE, finding)
    if state.run_of is not None and finding.before is not None:
        state.run_of = replace(state.run_of, before=finding.before)
