"""What is told of a rollout: to pods, to the memory, and to people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from inferencemodel_operator import bounds
from inferencemodel_operator.record import Phase
from inferencemodel_operator.rollouts import checks as rollout_checks
from inferencemodel_operator.rollouts.situation import Plan
from inferencemodel_operator.status import RolloutCheck, RolloutStatus
from model_poller.status import CheckResult, GoldenTask, RolloutTask

if TYPE_CHECKING:
    from inferencemodel_operator.record import RolloutRecord, VersionsRecord
    from inferencemodel_operator.rollouts.state import State
    from inferencemodel_operator.spec import Rollout

_COMING: Final = (Phase.CHECKING, Phase.REHEARSING, Phase.PROGRESSING)
_GOING_BACK: Final = (*_COMING, Phase.BAKING)
"""The phases from which replicas may have to go back to the version before."""


def result(
    state: State,
    record: VersionsRecord,
    candidate: VersionsRecord | None = None,
    told: frozenset[str] | None = frozenset(),
) -> Plan:
    """What the pass gives.

    Args:
        state: the pass.
        record: the next memory.
        candidate: what those are told that get the version.
        told: their uids; None for all.
    """
    run = _without_bad(state, record.rollout)
    record = replace(record, rollout=_worth_writing(state, run))
    carried = _carried(state, run)
    task = other = None
    if run is not None and not run.phase.is_ended and run.phase is not Phase.ROLLING_BACK:
        baking = run.phase is Phase.BAKING
        task = _task(state, run, told=True)
        other = task if baking else _task(state, run, told=False)
    elif run is not None and run.phase is Phase.SUPERSEDED and run.retry:
        # Where it is not above the target, it has no rollout of its own to be told of in.
        has_none = record.target is not None and record.target >= run.version
        task = other = _task(state, run, told=False) if has_none else None
    if candidate is not None:
        candidate = replace(candidate, quarantined=record.quarantined)
    return Plan(
        record=record,
        candidate=candidate,
        told=told,
        carried=carried,
        carrying=run.carrying if run is not None else frozenset(),
        task=task,
        other_task=other,
        rehearse=run is not None and run.phase is Phase.REHEARSING and bool(record.candidate),
        read=tuple(state.read),
        dropped=tuple(state.dropped),
        soaking=state.soaking,
        trying=state.trying,
        after=min(state.wakes, default=None),
        status=None if run is None else _status(state, run),
    )


def _task(state: State, current: RolloutRecord, *, told: bool) -> RolloutTask | None:
    golden = state.spec.checks.golden
    drain = state.drains() and told and current.phase is Phase.PROGRESSING
    is_on = current.phase in (Phase.PROGRESSING, Phase.BAKING)
    rehearsed = current.phase is Phase.REHEARSING
    asks_golden = told and (is_on or rehearsed) and golden.mode != "Ignore"
    live = is_on and state.is_measured(current)
    is_passed_over = state.is_passed_over(current.version)
    fetch = is_passed_over and current.phase in _COMING
    keep = None
    if (is_passed_over or current.carried is not None) and current.phase in _GOING_BACK:
        # There are more versions than those two, of which only so many are retained.
        kept = state.model.spec.model
        keep = current.from_version if kept.retain_versions > kept.num_versions else None
    # It costs nothing, so that nobody takes it away afterwards.
    stable = current.from_version if told and is_on else None
    asks = drain or asks_golden or live or fetch or current.retry
    if not asks and keep is None and stable is None:
        return None
    return RolloutTask(
        version=current.version,
        key=state.key(current),
        golden=_golden_task(state.spec) if asks_golden else None,
        live=live,
        drain=drain,
        fetch=fetch,
        stable=stable,
        keep=keep,
        retry=current.retry,
    )


def _worth_writing(state: State, run: RolloutRecord | None) -> RolloutRecord | None:
    """The rollout as it is to be remembered.

    That there was nothing to check by goes along with the next change where that comes within
    seconds: it is found again by then.
    """
    before = state.before.rollout
    if run is None or before is None or replace(run, checks=before.checks) != before:
        return run
    if run.phase is not Phase.PROGRESSING or state.is_waiting_step(run):
        return run
    new = (check for check in run.checks if check not in before.checks)
    return before if all(check.result is CheckResult.SKIPPED for check in new) else run


def _without_bad(state: State, run: RolloutRecord | None) -> RolloutRecord | None:
    """The rollout without the version of the one before that some pods go on with, if it is bad.

    For good: what is stored under its number later is another one, which nobody has checked.
    """
    bad = {entry.version for entry in state.goal.quarantined}
    if run is None or run.carried is None or run.carried not in bad:
        return run
    return replace(run, carried=None, carriers=())


def _carried(state: State, run: RolloutRecord | None) -> VersionsRecord | None:
    if run is None or run.carried is None or run.phase.is_ended or run.phase is Phase.BAKING:
        return None
    return replace(state.stay, target=run.carried, served=(run.carried,))


def _status(state: State, run: RolloutRecord) -> RolloutStatus:
    is_active = not run.phase.is_ended
    on = sum(r.answer == run.version for r in state.replicas)
    progressing = run.phase is Phase.PROGRESSING
    waits = state.waits if is_active and run.phase is not Phase.ROLLING_BACK else ""
    return RolloutStatus(
        version=run.version,
        from_version=run.from_version,
        phase=Phase.PAUSED if waits else run.phase,
        step=run.step,
        steps=len(run.steps),
        replicas_on=on if is_active else None,
        replicas_wanted=state.wanted(run) if progressing else None,
        start_time=run.started,
        step_started_time=run.step_started,
        end_time=run.ended,
        message=bounds.text(waits or run.message or (state.words if is_active else "")),
        checks=tuple(
            RolloutCheck(
                name=check.name,
                result=check.result,
                message=check.message,
                time=check.time,
            )
            for check in run.checks
        ),
    )


def _golden_task(rollout: Rollout) -> GoldenTask:
    """How golden answers are compared."""
    golden = rollout.checks.golden
    return GoldenTask(
        absolute=golden.absolute,
        relative=golden.relative,
        min_agreement=rollout_checks.percent(golden.min_agreement),
    )
