"""What is looked at before a replica that gets requests has the version: checks, a rehearsal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from inferencemodel_operator.record import Phase
from inferencemodel_operator.rollouts import checks as rollout_checks
from inferencemodel_operator.rollouts.checks import Finding
from inferencemodel_operator.rollouts.judging import judge_golden
from inferencemodel_operator.rollouts.state import FailureError
from model_poller.status import CheckResult

if TYPE_CHECKING:
    from inferencemodel_operator.record import RolloutRecord
    from inferencemodel_operator.rollouts.state import State


def check(state: State, current: RolloutRecord) -> None:
    """The checks of what pollers tell of the version, before anybody loads it.

    Raises:
        FailureError: it failed one.
    """
    version = current.version
    if _needs_nothing(state, current):
        state.enter(Phase.PROGRESSING, 1)
        return
    found = state.fleet.holder(current)
    if found is None:
        state.words = f"version {version} is being fetched and checked"
        return
    if current.fingerprint == "":
        current = state.run_of = replace(current, fingerprint=found.tried)
    checks = state.spec.checks
    if checks.memory != "Ignore":
        finding = rollout_checks.memory(
            state.model.spec, version, state.stay.served, state.replicas, current.fingerprint
        )
        state.note(rollout_checks.MEMORY, finding)
        if finding.result is CheckResult.FAILED and checks.memory == "Enforce":
            raise FailureError(finding.reason, finding.message, of_template=True)
    pinned = state.model.spec.model.version is not None
    mode = checks.signature or ("Report" if pinned else "Enforce")
    if mode != "Ignore":
        finding = rollout_checks.signature(state.fleet.stable(current), found)
        state.note(rollout_checks.SIGNATURE, finding)
        is_meant = state.run_of is not None and state.run_of.approved
        if finding.result is CheckResult.FAILED and mode == "Enforce" and not is_meant:
            state.waits = (
                f"version {version} breaks clients of version {current.from_version}: "
                f"{finding.message}; approve it if that is meant (`kubectl inferencemodel "
                f"approve {state.model.name}`), or upload another version"
            )
            return
    if state.is_frozen():
        return
    if state.spec.rehearsal.enabled:
        state.enter(Phase.REHEARSING, current.step)
    else:
        state.enter(Phase.PROGRESSING, 1)


def _needs_nothing(state: State, current: RolloutRecord) -> bool:
    """Whether all are to have it as soon as they can, whatever it is."""
    checks = state.spec.checks
    ignored = checks.memory == checks.signature == "Ignore"
    at_once = len(current.steps) == 1 and not state.spec.rehearsal.enabled
    return ignored and at_once and not state.spec.paused


def rehearse(state: State, current: RolloutRecord) -> None:
    """Go by what came of the rehearsal.

    Raises:
        FailureError: the version failed there.
    """
    finding = state.seen.rehearsal
    if current.full or current.promoted:
        state.note(
            rollout_checks.REHEARSAL,
            Finding(CheckResult.SKIPPED, "somebody promoted the version without it"),
        )
        state.enter(Phase.PROGRESSING, 1)
        return
    if not state.spec.rehearsal.enabled and not state.is_frozen():
        state.note(
            rollout_checks.REHEARSAL,
            Finding(CheckResult.SKIPPED, "spec.rollout.rehearsal is not enabled any more"),
        )
        state.enter(Phase.PROGRESSING, 1)
        return
    if finding is None:
        state.words = f"version {current.version} is loaded by a pod that gets no requests"
        if state.seen.rehearsing:
            state.words += f": {state.seen.rehearsing}"
        return
    state.note(rollout_checks.REHEARSAL, finding)
    if finding.result is CheckResult.FAILED:
        raise FailureError(finding.reason, finding.message)
    if finding.result is CheckResult.INCONCLUSIVE:
        state.waits = (
            f"the rehearsal of version {current.version} can't be held: {finding.message}; "
            "make room for one more pod, or promote the version without it"
        )
        return
    rehearser = state.seen.rehearser
    if rehearser is not None and not judge_golden(state, current, [rehearser]):
        state.words = f"the golden requests of version {current.version} are being sent"
        return
    if not state.is_frozen():
        state.enter(Phase.PROGRESSING, 1)
