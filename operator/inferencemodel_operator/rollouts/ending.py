"""How a rollout ends before its version is everywhere: taken back, or by another version."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from inferencemodel_operator.conditions import Reason
from inferencemodel_operator.record import (
    ActiveVersion,
    Phase,
    QuarantinedVersion,
    tried_in,
)
from inferencemodel_operator.rollouts.fleet import is_given
from inferencemodel_operator.rollouts.state import with_entries
from inferencemodel_operator.rollouts.telling import result

if TYPE_CHECKING:
    from inferencemodel_operator.record import RolloutRecord
    from inferencemodel_operator.rollouts.situation import Plan
    from inferencemodel_operator.rollouts.state import FailureError, State

SEEN_SECONDS: Final = 1.0
"""How long a rollout that was taken back is shown as such before another one takes its place."""
BACK_SECONDS: Final = 10.0
"""How long its end is waited for."""


def settle_for(state: State, ongoing: RolloutRecord | None, *, instead: int | None = None) -> Plan:
    """All are told the goal: it is the stable version, or there is nobody to be protected.

    A rollout that runs has lost its version.

    Args:
        ongoing: that rollout.
        instead: a goal that nobody is told, for what is stored of it has failed.
    """
    if ongoing is not None and ongoing.phase is not Phase.ROLLING_BACK:
        bad = next((q for q in state.goal.quarantined if q.version == ongoing.version), None)
        if bad is not None:
            state.roll_back(ongoing, bad.reason, bad.message)
        else:
            wanted = "no version" if state.goal.target is None else f"version {state.goal.target}"
            state.end(Phase.SUPERSEDED, f"{wanted} is wanted instead")
    state.look_back()
    record = state.goal if instead is None else state.stay
    if state.goal.target is None and state.run_of and state.run_of.phase is Phase.ROLLING_BACK:
        # Who has the version has to hear what to go back to.
        record = state.stay
    # One that is pinned is wanted all the same.
    pinned = instead if instead == state.model.spec.model.version else None
    return result(state, replace(record, candidate=pinned, rollout=state.run_of))


def goes_back(state: State, ongoing: RolloutRecord | None, goal: int) -> bool:
    """Whether a rollout that was taken back comes to its end before that of another version.

    So whoever waits for that end sees it. But not for long: what hinders it may be what the
    other version mends.
    """
    if ongoing is not None and ongoing.phase is not Phase.ROLLING_BACK:
        bad = next((q for q in state.goal.quarantined if q.version == ongoing.version), None)
        if bad is None or ongoing.version == goal:
            return False
        state.roll_back(ongoing, bad.reason, bad.message)
    state.look_back()
    run = state.run_of
    if run is None or run.version == goal:
        return False
    if run.phase is Phase.ROLLED_BACK:
        return not state.is_over(run.ended or state.now, SEEN_SECONDS)
    if run.phase is Phase.ROLLING_BACK:
        return not state.is_over(run.step_started or state.now, BACK_SECONDS)
    return False


def is_spoilt(state: State, version: int) -> bool:
    """Whether all that is stored of a version has failed."""
    bad = state.failed(version)
    here = state.fleet.fingerprints(version).keys() or state.fleet.tried(version)
    return bool(bad) and here <= bad


def take_back(state: State, ongoing: RolloutRecord, failure: FailureError) -> Plan:
    """The version is quarantined, and all are told the stable one."""
    stable = ongoing.from_version
    state.roll_back(ongoing, failure.reason.value, failure.message)
    quarantined = with_entries(state.goal.quarantined, _entries(state, ongoing, failure))
    if state.before.target == ongoing.version and stable is not None:
        # From a bake: the version before is still on the disks.
        record = replace(state.goal, target=stable, served=(stable,), active=_known(state, stable))
    else:
        record = state.stay
    state.look_back()
    return result(
        state, replace(record, quarantined=quarantined, candidate=None, rollout=state.run_of)
    )


def _known(state: State, stable: int) -> ActiveVersion | None:
    tried = state.fleet.tried(stable)
    return ActiveVersion(stable, min(tried)) if tried else None


def _entries(
    state: State, ongoing: RolloutRecord, failure: FailureError
) -> list[QuarantinedVersion]:
    version = ongoing.version
    here = state.fleet.tried(version) | state.fleet.fingerprints(version).keys()
    if ongoing.fingerprint and failure.reason is not Reason.ABORTED:
        # Others that have come under the number meanwhile are another attempt.
        given = (r for r in state.replicas if is_given(r, version))
        here = {known.tried for r in given if (known := r.version(version)) is not None}
    fingerprints = {ongoing.fingerprint, *here} - {""}
    templates = {r.template for r in state.replicas} if failure.of_template else {""}
    return [
        QuarantinedVersion(
            version=ongoing.version,
            fingerprint=tried_in(template, fingerprint),
            reason=failure.reason.value,
            message=failure.message,
        )
        for fingerprint in sorted(fingerprints)
        for template in sorted(templates)
    ]
