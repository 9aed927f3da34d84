"""Whether a version has arrived, or never will: the judgement behind ``wait``. Pure."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Final

import msgspec

from kubectl_inferencemodel.explanation import progress, settled

if TYPE_CHECKING:
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


def look(model: InferenceModel, version: int | None) -> Arrival:
    """Judge one view of an InferenceModel.

    Args:
        model: as the API server gave it.
        version: the one that is waited for; None for whatever is wanted.
    """
    if model.metadata.deletion_timestamp is not None:
        return Arrival(Outcome.WAITING, "the resource is being deleted")
    if not model.judged:
        return Arrival(Outcome.WAITING, "the operator has not yet looked at the resource")
    if version is None:
        return _look_at_wanted(model)
    if _is_reached(model, version):
        summary = model.status.replica_summary
        return Arrival(Outcome.ARRIVED, f"version {version} answers on {summary} replicas")
    return _hopeless(model, version) or Arrival(Outcome.WAITING, _missing(model, version))


def _is_reached(model: InferenceModel, version: int) -> bool:
    """Whether a version is wanted and answers, and nothing is on its way to anything else.

    Pods of an older template answer as well, so while any is to be replaced nothing is reached.
    """
    of = model.status.model
    return (
        settled(model)
        and of.active_version == of.target_version == version
        and of.transition_status not in _ON_ITS_WAY
    )


def _look_at_wanted(model: InferenceModel) -> Arrival:
    of = model.status.model
    if of.target_version is not None and _is_reached(model, of.target_version):
        summary = model.status.replica_summary
        return Arrival(
            Outcome.ARRIVED, f"version {of.active_version} answers on {summary} replicas"
        )
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
    if wanted.version is not None and wanted.version != version:
        return Arrival(
            Outcome.HOPELESS, f"version {wanted.version} is pinned by spec.model.version"
        )
    if wanted.min_version is not None and wanted.min_version > version:
        return Arrival(Outcome.HOPELESS, f"version {version} is below spec.model.minVersion")
    if wanted.version is None and (of.target_version or 0) > version:
        return Arrival(
            Outcome.HOPELESS, f"version {of.target_version} is newer, so it is served instead"
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
    if model.status.model.active_version == version:
        going = model.condition("Reconciling")
        open_ = ready if going is None or not model.is_true("Ready") else going
        return f"replicas: {model.status.replica_summary}; {open_.message if open_ else ''}"
    source = model.condition("SourceReady")
    if model.state_of(version) is None and source is not None and source.status != "True":
        return f"{source.reason}: {source.message}"
    return progress(model, version)
