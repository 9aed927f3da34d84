"""How replicas get the version, step by step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from inferencemodel_operator import bounds, durations
from inferencemodel_operator.conditions import Reason
from inferencemodel_operator.record import TOLD, Phase, ToldPod
from inferencemodel_operator.rollouts import checks as rollout_checks
from inferencemodel_operator.rollouts.fleet import is_stuck, loads_others
from inferencemodel_operator.rollouts.judging import (
    judge_evicted,
    judge_serving,
    live,
    live_allows,
    note_live,
)
from inferencemodel_operator.rollouts.situation import Soaking, Trying
from inferencemodel_operator.rollouts.state import SOAK_SECONDS, FailureError
from inferencemodel_operator.rollouts.steps import choice

if TYPE_CHECKING:
    import datetime
    from collections.abc import Sequence

    from inferencemodel_operator.observed import Replica
    from inferencemodel_operator.record import RolloutRecord
    from inferencemodel_operator.rollouts.state import State

ENDED_SOAK_SECONDS: Final = 60.0
"""`SOAK_SECONDS` where the model server of one of them has ended once since it was given the
version. It answers soon after its container was started again, and gets requests only some seconds
later, when its endpoints are back. A second end speaks against the version."""
LIVE_SECONDS: Final = 30.0
"""How long live figures are gathered where a step has no pause of its own."""


def progress(state: State, current: RolloutRecord) -> None:
    """One look at a step: who gets the version, how it goes there, and whether the step is over.

    Raises:
        FailureError: the version failed.
    """
    judge_evicted(state)
    current = state.run_of or current
    version = current.version
    wanted = state.wanted(current)
    members = state.members(current)
    _refill(state, current, members, wanted)
    _watch(state, current, members)
    on = [r for r in members if r.ready and r.answer == version]
    judge_serving(state, members)
    is_settled = len(on) >= wanted > 0 and (not current.is_last_step or state.fleet.all_on(version))
    settled = _settle(state, is_settled=is_settled)
    current = state.run_of or current
    if settled is None:
        _await_step(state, current, len(on), wanted)
        return
    if _may_leave(state, current, len(on), settled):
        _leave(state, current)


def _refill(state: State, current: RolloutRecord, members: Sequence[Replica], wanted: int) -> None:
    """Choose who is told of the version: no more than the step wants, and nobody twice.

    Who has it already, or was told before an operator's end, comes first; then those that would
    have it soonest, spread over nodes. Who has it keeps it.
    """
    present = {replica.uid for replica in members}
    chosen = [pod for pod in current.pods if pod.uid in present]
    is_held = current.hold and not state.is_promoted(current)
    may_choose = not (state.is_frozen() or is_held or state.tells_all(current))
    most = min(wanted, state.at_most(current, members), TOLD)
    if may_choose and not state.seen.is_replacing and len(chosen) < most:
        room = most - len(chosen)
        if state.drains():
            # Who was told while no drain was asked for isn't sent back.
            had = sum(
                r.report is not None and r.report.target == current.version
                for r in state.replicas
                if r.uid not in present
            )
            room = min(room, had or state.fleet.is_steady(members, current.version))
        chosen += choice(state.fleet, current, present, room)
    stranded = state.stranded(current)
    if may_choose and stranded and not (state.seen.is_replacing or current.is_last_step):
        told = {pod.uid for pod in chosen}
        room = min(wanted, state.at_most_with(current, members, stranded), TOLD) - len(chosen)
        chosen += choice(state.fleet, current, told, room, among=stranded)
    if state.tells_all(current):
        # Nobody is chosen, but how often their servers had ended by now has to be known. What ends
        # that of one which doesn't serve isn't the version.
        noted = {pod.uid for pod in chosen}
        serving = (r for r in members if r.uid not in noted and r.ready)
        chosen = [*chosen, *(ToldPod(r.uid, r.restarts) for r in serving)][:TOLD]
    if tuple(chosen) != current.pods:
        state.run_of = replace(current, pods=tuple(chosen))


def _watch(state: State, current: RolloutRecord, members: Sequence[Replica]) -> None:
    """Note since when replicas have the version without answering with it: a step can be much
    older, by a slow fetch, a pause, or a time without replicas."""
    known = state.seen.trying
    before = known.since if known is not None and known.begun == current.started else {}
    since = {
        r.uid: min(before.get(r.uid, state.now), state.now)
        for r in members
        # Who can't be asked for a moment gains no time by it.
        if is_stuck(r, current.version) or (r.report is None and r.uid in before)
    }
    state.trying = Trying(current.started, since) if since else None


def _settle(state: State, *, is_settled: bool) -> datetime.datetime | None:
    """Since when the step is reached; None while it isn't."""
    current = state.run_of
    if current is None or (current.hold and not state.is_promoted(current)):
        return current.settled if current else None
    if not is_settled:
        # After a restart, what replicas answer with isn't known for a moment.
        heard = all(replica.report is not None for replica in state.members(current))
        if current.settled is not None and heard:
            state.run_of = replace(current, settled=None)
        return None
    if current.settled is not None:
        return current.settled
    if state.is_waiting_step(current):
        state.run_of = replace(current, settled=state.now)
        return state.now
    known = state.seen.soaking
    is_same = known is not None and (known.version, known.step) == (
        current.version,
        current.step,
    )
    if known is None or not is_same or known.since > state.now:
        known = Soaking(current.version, current.step, state.now)
    state.soaking = known
    return known.since


def _await_step(state: State, current: RolloutRecord, on: int, wanted: int) -> None:
    """A step that isn't reached yet.

    Raises:
        FailureError: it had its time.
    """
    version = current.version
    if wanted == 0:
        state.words = "no replica is wanted, so the rollout waits for some"
        return
    if state.seen.is_replacing:
        state.words = "the rollout waits until the Deployment has replaced its pods"
        return
    step = current.steps[current.step - 1]
    unheard = sum(r.report is None for r in state.members(current))
    if current.settled is not None and step.until_promoted and not state.is_promoted(current):
        # Somebody was asked before; that a replica is late with its answer takes nothing back.
        state.waits = _asks(current, on + unheard)
        return
    state.words = f"version {version} answers on {on} of {wanted} replicas of this step"
    most = state.at_most(current, state.members(current))
    if most == 0:
        state.words += "; the only one that serves now gets it once another one does, or in a while"
    elif most < wanted:
        state.words += "; the others get it once more replicas serve"
    if state.is_frozen() or current.hold:
        return
    # One that isn't there, or still fetches, says nothing about the version.
    members = state.members(current)
    since = state.trying.since if state.trying is not None else {}
    trying = [r for r in members if is_stuck(r, version)]
    stuck = [r.name for r in trying if state.is_overdue(since.get(r.uid, state.now))]
    if stuck:
        raise FailureError(
            Reason.DEADLINE_EXCEEDED,
            f"version {version} doesn't answer on {bounds.text(', '.join(stuck), 200)} by "
            f"spec.rollout.deadline of {durations.text(state.spec.deadline)}; look at the model "
            "server's log, or allow more. A load can't be called off: until that pod is deleted, "
            "it keeps one of the threads by which further versions are loaded",
        )
    busy = [r for r in members if loads_others(r, version)]
    if busy and state.is_overdue(current.step_started or current.started):
        names = bounds.text(", ".join(r.name for r in busy), 200)
        serves = any(isinstance(replica.answer, int) for replica in busy)
        state.words += (
            f"; the model server of {names} still loads "
            "versions that nobody wants any more, and has no thread for this one"
            f"{', but goes on with what it serves' if serves else ''}: delete the pod with "
            f"kubectl, and the one that takes its place loads version {version}"
        )


def _may_leave(state: State, current: RolloutRecord, on: int, settled: datetime.datetime) -> bool:
    """Whether a step that is reached is over.

    Raises:
        FailureError: live figures say that the version is worse.
    """
    step = current.steps[current.step - 1]
    is_promoted = state.is_promoted(current)
    if current.hold and not is_promoted:
        state.waits = current.hold
        return False
    if state.is_frozen():
        return False
    # Who promotes it waits for none of its answers, and judge_serving doesn't look at them then.
    golden = "Ignore" if is_promoted else state.spec.checks.golden.mode
    if golden != "Ignore" and current.check(rollout_checks.GOLDEN) is None:
        state.words = f"the golden requests of version {current.version} are being sent"
        if not state.is_overdue(settled):
            return False
        raise FailureError(
            Reason.DEADLINE_EXCEEDED, f"{state.words}, without an end by spec.rollout.deadline"
        )
    measured = state.is_measured(current)
    if is_promoted:
        if measured:
            note_live(state, live(state, current))
        return True
    # In the last of several steps, it has answered on others before.
    soak = SOAK_SECONDS if current.step == 1 or not current.is_last_step else 0.0
    if state.all_ends(current) > current.ends:
        soak = ENDED_SOAK_SECONDS
    pause = max(step.pause, soak)
    if measured and not step.until_promoted and state.spec.checks.live.mode == "Enforce":
        pause = max(pause, LIVE_SECONDS)
    if not state.is_over(settled, pause):
        return False
    if step.until_promoted:
        state.waits = _asks(current, on)
        return False
    return not measured or live_allows(state, current)


def _asks(current: RolloutRecord, on: int) -> str:
    """What a step says that waits for somebody."""
    return (
        f"step {current.step} of {len(current.steps)}: {on} replicas answer with "
        f"version {current.version}; promote or abort it"
    )


def _leave(state: State, current: RolloutRecord) -> None:
    if not current.is_last_step:
        last = len(current.steps)
        state.enter(Phase.PROGRESSING, last if current.full else current.step + 1)
    elif state.spec.bake > 0:
        state.enter(Phase.BAKING, current.step)
    else:
        state.enter(Phase.COMPLETED, current.step)
