"""How a version that is wanted reaches the replicas: a pure function of memory and observation.

`versions.decide` says which version is the goal. This says who is told to serve it now, and who
goes on with the version before, the stable one. All that has to outlive the operator is in the
`RolloutRecord`; the same input gives the same output, so a pass may be repeated, be late, or follow
a restart.

Nothing moves on while it isn't known how those stand that have the version already.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from inferencemodel_operator import names
from inferencemodel_operator.conditions import Reason
from inferencemodel_operator.record import TOLD, Phase, QuarantinedVersion, RolloutRecord, ToldPod
from inferencemodel_operator.rollouts.actions import act, asked
from inferencemodel_operator.rollouts.checking import check, rehearse
from inferencemodel_operator.rollouts.ending import goes_back, is_spoilt, settle_for, take_back
from inferencemodel_operator.rollouts.judging import judge_carried, judge_evicted, judge_serving
from inferencemodel_operator.rollouts.progress import progress
from inferencemodel_operator.rollouts.state import COMING_SECONDS, FailureError, State, held
from inferencemodel_operator.rollouts.steps import steps_of
from inferencemodel_operator.rollouts.telling import result
from inferencemodel_operator.versions import ON_DISK, PodVersions, staying

if TYPE_CHECKING:
    from collections.abc import Callable

    from inferencemodel_operator.record import VersionsRecord
    from inferencemodel_operator.rollouts.situation import Plan, Situation
    from inferencemodel_operator.spec import InferenceModel


def plan(
    model: InferenceModel,
    before: VersionsRecord,
    goal: VersionsRecord,
    stay: VersionsRecord,
    seen: Situation,
) -> Plan:
    """One pass.

    Args:
        model: the resource.
        before: the memory.
        goal: what holds once all replicas are to serve the goal, by `versions.decide`.
        stay: what holds while the version before goes on, by `versions.staying`.
        seen: what is observed.
    """
    return _run(State(model, before, goal, stay, seen))


def _run(state: State) -> Plan:
    ongoing = state.run_of if state.run_of and not state.run_of.phase.is_ended else None
    if ongoing is not None and _is_aborted(state, ongoing):
        return take_back(
            state, ongoing, FailureError(Reason.ABORTED, "somebody aborted its rollout")
        )
    retried = _retried(state, ongoing)
    if retried is not None:
        return retried
    ongoing, read, state.dropped = act(state.seen.actions, ongoing, state.read, state.run_of)
    state.read += read
    if ongoing is not None:
        state.run_of = ongoing
    target, goal = state.before.target, state.goal.target
    if ongoing is not None and ongoing.phase is Phase.BAKING and target == ongoing.version:
        if goal == target:
            return _bake(state, ongoing)
        if goal is not None and goal > ongoing.version:
            state.end(Phase.COMPLETED, f"version {goal} came while it was watched")
            ongoing = None
    if goal is None or (target is not None and goal <= target) or _is_known_pin(state, goal):
        return settle_for(state, ongoing)
    if is_spoilt(state, goal):
        return settle_for(state, ongoing, instead=goal)
    current = ongoing if ongoing and _is_about(state, ongoing, goal) else None
    if current is None and target is not None and goes_back(state, ongoing, goal):
        return result(state, replace(state.stay, candidate=None, rollout=state.run_of))
    if current is None or target is None:
        stable = _stable(state, target, goal)
        if stable is None:
            return settle_for(state, ongoing)
        current = _begin(state, ongoing, stable, goal)
    state.run_of = current
    return _go_on(state, current)


def _go_on(state: State, ongoing: RolloutRecord) -> Plan:
    judge_carried(state, ongoing)
    taken = _taken_back(state, ongoing, lambda: _advance(state))
    if taken is not None:
        return taken
    current = state.run_of or ongoing
    if current.hold and not state.is_promoted(current):
        state.waits = current.hold
    if current.phase in (Phase.BAKING, Phase.COMPLETED):
        return result(state, replace(state.goal, candidate=None, rollout=current))
    record = replace(state.stay, candidate=current.version, rollout=current)
    if current.phase is not Phase.PROGRESSING:
        return result(state, record)
    told = None if state.tells_all(current) else current.told
    return result(state, record, state.goal, told)


def _advance(state: State) -> None:
    """As many phases and steps as can be taken now.

    Raises:
        FailureError: the version failed.
    """
    while True:
        current = state.run_of
        assert current is not None  # noqa: S101
        match current.phase:
            case Phase.CHECKING:
                check(state, current)
            case Phase.REHEARSING:
                rehearse(state, current)
            case Phase.PROGRESSING:
                progress(state, current)
        if state.run_of == current or state.run_of is None:
            return


def _bake(state: State, current: RolloutRecord) -> Plan:
    """All replicas have it; what would have stopped it before still does."""
    state.run_of = current
    taken = _taken_back(state, current, lambda: _judge_all(state))
    if taken is not None:
        return taken
    current = state.run_of or current
    if current.hold and not state.is_promoted(current):
        state.waits = current.hold
    elif (current.promoted or _is_watched(state, current)) and not state.is_frozen():
        state.enter(Phase.COMPLETED, current.step)
    return result(state, replace(state.goal, candidate=None, rollout=state.run_of))


def _taken_back(state: State, ongoing: RolloutRecord, look: Callable[[], None]) -> Plan | None:
    """Look, and take the version back where that finds a fault; None where it stays, and be it that
    somebody has to judge."""
    try:
        look()
    except FailureError as failure:
        current = state.run_of or ongoing
        waits = state.spec.on_failure == "Pause" and current.step > 0
        if failure.certain or not waits:
            return take_back(state, current, failure)
        state.run_of = held(current, failure)
    return None


def _judge_all(state: State) -> None:
    judge_evicted(state)
    judge_serving(state, state.replicas)


def _is_watched(state: State, current: RolloutRecord) -> bool:
    """Whether the version has been watched for as long as it is to be: on replicas, not on none."""
    if state.seen.wanted == 0:
        state.words = "no replica is wanted, so the bake begins anew with the next ones"
        if current.step_started is not None:
            state.run_of = replace(current, step_started=None)
        return False
    if all(replica.answer != current.version for replica in state.replicas):
        state.words = f"the bake goes on once a replica answers with version {current.version}"
        return False
    if current.step_started is None:
        current = state.run_of = replace(current, step_started=state.now)
    return state.is_over(current.step_started or state.now, state.spec.bake)


def _is_aborted(state: State, ongoing: RolloutRecord) -> bool:
    if asked(state.seen.actions, names.ABORT_ANNOTATION) != ongoing.version:
        return False
    state.read.append(names.ABORT_ANNOTATION)
    return ongoing.phase is not Phase.ROLLING_BACK


def _retried(state: State, ongoing: RolloutRecord | None) -> Plan | None:
    """Try a version again that failed: what is remembered against it is forgotten."""
    version = asked(state.seen.actions, names.RETRY_ANNOTATION)
    against = [e for e in state.goal.quarantined if e.version == version]
    if version is None or not against:
        return None
    state.read.append(names.RETRY_ANNOTATION)
    left = tuple(e for e in state.goal.quarantined if e.version != version)
    if ongoing is not None and ongoing.phase is not Phase.ROLLING_BACK:
        # What runs goes on.
        state.goal = replace(state.goal, quarantined=left)
        state.stay = replace(state.stay, quarantined=left)
        return None
    # The next pass begins with it, unless a newer one is there.
    target = state.goal.target
    newer = target if target is not None and target > version else None
    state.wakes.append(0.0)
    state.run_of = RolloutRecord(
        version=version,
        phase=Phase.SUPERSEDED,
        started=state.now,
        ended=state.now,
        retry=f"{version}@{against[0].stored}#{int(state.now.timestamp())}",
        message="it is tried again"
        if newer is None
        else f"nothing is held against it any more; version {newer} goes on",
    )
    kept = state.goal if state.before.target is None else state.stay
    record = replace(kept, quarantined=left, candidate=state.before.candidate, rollout=state.run_of)
    return result(state, record)


def _is_known_pin(state: State, goal: int) -> bool:
    """Whether a version that has served already is pinned: going back to it is no rollout."""
    tried = state.run_of
    if tried is not None and tried.version == goal and tried.phase is not Phase.COMPLETED:
        return False
    # One whose rollout didn't end may have served on a single replica.
    is_known = goal in state.before.proven and state.fleet.have_proven(goal)
    return state.model.spec.model.version == goal and is_known


def _is_about(state: State, ongoing: RolloutRecord, goal: int) -> bool:
    if ongoing.phase is Phase.ROLLING_BACK or ongoing.version != goal:
        return False
    stored = state.fleet.fingerprints(goal)
    if not stored or not ongoing.fingerprint:
        return True
    bad = state.failed(goal)
    count = stored[ongoing.fingerprint]
    return count > 0 and all(n <= count for other, n in stored.items() if other not in bad)


def _stable(state: State, target: int | None, goal: int) -> int | None:
    """The version that clients go on with meanwhile; None where they would lose nothing.

    It is the target so far. But where that serves nowhere (a pin to a version that isn't there,
    say) or is none (by a ``minVersion`` above all that is there), replicas may serve another.
    """
    if target is not None and not _is_unserved(state, target):
        return target
    bad = {entry.version for entry in state.goal.quarantined}
    found = [version for version in state.fleet.answers() if version < goal]
    stable = next((version for version in found if version not in bad), None)
    if stable is not None:
        pods = [PodVersions(report=replica.report) for replica in state.replicas]
        state.stay = staying(state.model.spec.model, stable, state.goal, pods)
    return stable


def _is_unserved(state: State, target: int) -> bool:
    """Whether no client would lose anything: the stable version serves nowhere, and won't."""
    found = state.fleet.is_unserved(target)
    if found is None:
        is_bad = any(entry.version == target for entry in state.goal.quarantined)
        return is_bad or state.before.active is None
    return found and not _is_coming_back(state, target)


def _is_coming_back(state: State, target: int) -> bool:
    """Whether servers that a version has ended, which was taken back, have had no time yet to start
    with the one before."""
    last = state.run_of
    if last is None or last.phase not in (Phase.ROLLING_BACK, Phase.ROLLED_BACK):
        return False
    since = last.step_started or last.started
    is_fresh = (state.now - since).total_seconds() < COMING_SECONDS
    return is_fresh and any(status.state in ON_DISK for status in state.fleet.told(target))


def _begin(state: State, ongoing: RolloutRecord | None, target: int, goal: int) -> RolloutRecord:
    stored = state.fleet.fingerprints(goal)
    here = stored.keys() - state.failed(goal) or stored.keys()
    begun = RolloutRecord(
        version=goal,
        # What one replica alone tells may be nowhere.
        fingerprint=min(here, key=lambda one: (-stored[one], one), default=""),
        from_version=target,
        steps=steps_of(state.spec),
        started=state.now,
        retry=state.run_of.retry if state.run_of and state.run_of.version == goal else "",
    )
    if ongoing is None or ongoing.phase is Phase.ROLLING_BACK:
        return begun
    if ongoing.version == goal:
        # Its objects are others by now; who has the former ones gives them back.
        if ongoing.pods:
            failure = FailureError(
                Reason.OBJECTS_CHANGED,
                f"version {goal} was changed in the bucket while it was rolled out; it is "
                "rolled out anew. Upload changed models under a new number",
            )
            entry = QuarantinedVersion(
                version=goal,
                fingerprint=ongoing.fingerprint,
                reason=failure.reason.value,
                message=failure.message,
            )
            state.quarantine(entry)
        return begun
    # Who has the version that this one takes the place of keeps it until it gets this one.
    had = state.replicas if state.tells_all(ongoing) else state.fleet.among(ongoing.told)
    before = {pod.uid: pod for pod in ongoing.pods}
    carriers = tuple(before.get(r.uid, ToldPod(r.uid, r.restarts)) for r in had)[:TOLD]
    if not carriers and ongoing.carried is not None:
        return replace(begun, carried=ongoing.carried, carriers=ongoing.carriers)
    return replace(begun, carried=ongoing.version, carriers=carriers) if carriers else begun
