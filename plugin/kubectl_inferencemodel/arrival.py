"""Whether a version has arrived, or never will: the judgement behind ``wait``. Pure."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Final

import msgspec

from kubectl_inferencemodel.explanation import progress, settled, standing

if TYPE_CHECKING:
    from inferencemodel_operator.status import RolloutStatus
    from kubectl_inferencemodel.resource import InferenceModel


class Outcome(IntEnum):
    """How a wait stands; the numbers are the command's exit codes."""

    ARRIVED = 0
    """Every ready replica answers with the version, and all wanted ones are ready."""
    WAITING = 3
    """Not yet."""
    HOPELESS = 4
    """It will not come by waiting."""


_ON_ITS_WAY: Final = frozenset({"Pending", "InProgress", "Unknown"})


class Arrival(msgspec.Struct, frozen=True):
    """One look."""

    outcome: Outcome
    message: str
    unavailable: bool = False
    """The API server could not be asked."""


class Goal(msgspec.Struct, frozen=True):
    """What is waited for."""

    version: int | None = None
    """None for whatever is wanted."""
    step: int | None = None
    """A step of the version's rollout, counted from 1; None for all replicas."""


def look(model: InferenceModel, goal: Goal) -> Arrival:
    """Judge one view of an InferenceModel, as the API server gave it."""
    if model.metadata.deletion_timestamp is not None:
        return Arrival(Outcome.WAITING, "the resource is being deleted")
    if not model.judged:
        return Arrival(Outcome.WAITING, "the operator has not yet looked at the resource")
    version = goal.version
    if goal.step is not None and (found := _look_at_step(model, version, goal.step)) is not None:
        return found
    if version is None:
        return _look_at_wanted(model)
    if _is_reached(model, version):
        return _arrived(model, version)
    return _hopeless(model, version) or Arrival(Outcome.WAITING, _missing(model, version))


def _look_at_step(model: InferenceModel, version: int | None, step: int) -> Arrival | None:
    """Judge a rollout that runs; None where none does of that version, so that the end counts.

    A step is reached when its replicas answer. One that lies behind was.
    """
    of, running = model.status.model, model.running
    last = of.rollout
    if last is not None and last.phase == "Completed" and last.version == version:
        done = of.active_version == of.target_version == version
        return Arrival(Outcome.ARRIVED, standing(model)) if done else None
    if running is None or version not in (None, running.version):
        return None
    if running.phase == "RollingBack":
        return _taken_back(running)
    if step > running.steps > 0:
        return Arrival(
            Outcome.HOPELESS,
            f"the rollout of version {running.version} has {running.steps} steps, not {step}",
        )
    wanted = running.replicas_wanted or 0
    there = running.step == step and (running.replicas_on or 0) >= wanted > 0
    if there or running.step > step or running.phase == "Baking":
        return Arrival(Outcome.ARRIVED, standing(model))
    if version is not None and (failed := _hopeless(model, version)) is not None:
        return failed
    return Arrival(Outcome.WAITING, standing(model))


def _taken_back(found: RolloutStatus) -> Arrival:
    return Arrival(
        Outcome.HOPELESS,
        f"version {found.version} is taken back ({found.phase}): {found.message}",
    )


def _is_reached(model: InferenceModel, version: int) -> bool:
    """Whether a version is wanted and answers, and nothing is on its way to anything else.

    Pods of an older template answer as well, so while any is to be replaced nothing is reached. Nor
    is it as long as the steps of its rollout go on: the only replica may have to give it back yet.
    """
    of, running = model.status.model, model.running
    if running is not None and running.version == version and running.phase != "Baking":
        return False
    return (
        settled(model)
        and of.active_version == of.target_version == version
        and of.transition_status not in _ON_ITS_WAY
    )


def _arrived(model: InferenceModel, version: int) -> Arrival:
    message = f"version {version} answers on {model.status.replica_summary} replicas"
    running = model.running
    if running is not None and running.version == version:
        message += f", and is watched: {running.phase}: {running.message}"
    return Arrival(Outcome.ARRIVED, message)


def _look_at_wanted(model: InferenceModel) -> Arrival:
    of = model.status.model
    if of.target_version is not None and _is_reached(model, of.target_version):
        return _arrived(model, of.target_version)
    stalled = model.condition("Stalled")
    if stalled is not None and stalled.status == "True":
        return Arrival(Outcome.HOPELESS, f"{stalled.reason}: {stalled.message}")
    if of.target_version is None:
        return Arrival(Outcome.WAITING, "there is no version to serve yet")
    return Arrival(Outcome.WAITING, _missing(model, of.target_version))


def _hopeless(model: InferenceModel, version: int) -> Arrival | None:
    of, wanted = model.status.model, model.spec.model
    failed = model.quarantine_of(version)
    if failed is not None:
        return Arrival(
            Outcome.HOPELESS,
            f"version {version} is quarantined: {failed.reason}: {failed.message}",
        )
    rollout = of.rollout
    if rollout is not None and rollout.version == version:
        # One that has ended so may have begun anew: its objects are others by now.
        is_wanted = of.target_version == version
        if rollout.phase == "RollingBack" or (rollout.phase == "RolledBack" and not is_wanted):
            return _taken_back(rollout)
    if wanted.version is not None and wanted.version != version:
        return Arrival(
            Outcome.HOPELESS, f"version {wanted.version} is pinned by spec.model.version"
        )
    if wanted.min_version is not None and wanted.min_version > version:
        return Arrival(Outcome.HOPELESS, f"version {version} is below spec.model.minVersion")
    if wanted.version is None and (of.target_version or 0) > version:
        return Arrival(
            Outcome.HOPELESS,
            f"version {of.target_version} is newer, so it is served instead; to go back, pin"
            f" version {version} by spec.model.version",
        )
    if model.spec.suspend:
        return Arrival(Outcome.HOPELESS, "it is suspended (spec.suspend)")
    stalled = model.condition("Stalled")
    if stalled is not None and stalled.status == "True":
        return Arrival(Outcome.HOPELESS, f"{stalled.reason}: {stalled.message}")
    return None


def _missing(model: InferenceModel, version: int) -> str:
    ready = model.condition("Ready")
    if ready is not None and ready.reason == "ScaledToZero":
        return ready.message
    is_running = model.running is not None and model.running.version == version
    if model.status.model.active_version == version and not is_running:
        going = model.condition("Reconciling")
        open_ = ready if going is None or not model.is_true("Ready") else going
        return f"replicas: {model.status.replica_summary}; {open_.message if open_ else ''}"
    source = model.condition("SourceReady")
    if model.state_of(version) is None and source is not None and source.status != "True":
        return f"{source.reason}: {source.message}"
    return progress(model, version)
