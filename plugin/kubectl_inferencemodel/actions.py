"""What somebody does about a rollout: what is written for it, and what became of it. Pure.

An action is an annotation that names the version, so that one that comes late, or twice, is about
no other version. The operator takes it away once it has read it.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

import msgspec

from inferencemodel_operator import names
from kubectl_inferencemodel.arrival import Arrival, Outcome
from kubectl_inferencemodel.errors import RefusedError
from kubectl_inferencemodel.explanation import standing

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from kubectl_inferencemodel.resource import Event, InferenceModel, ManagedFields

BACK: Final = frozenset({"RollingBack", "RolledBack"})
"""The phases of a rollout whose version is taken back."""
_PAUSED: Final = ("f:spec", "f:rollout", "f:paused")
_PINNED: Final = ("f:spec", "f:model", "f:version")
_DECLARING: Final = frozenset(
    {
        *("argocd-controller", "argocd-application-controller"),
        *("kustomize-controller", "helm-controller", "helm", "kubectl-client-side-apply"),
    }
)
"""Who sets fields to what a repository says, without server-side apply."""


class Action(StrEnum):
    """What can be done about the rollout of a version."""

    PROMOTE = "promote"
    PROMOTE_FULL = "promote --full"
    ABORT = "abort"
    RETRY = "retry"
    APPROVE = "approve"


ANNOTATIONS: Final[Mapping[Action, str]] = {
    Action.PROMOTE: names.PROMOTE_ANNOTATION,
    Action.PROMOTE_FULL: names.PROMOTE_FULL_ANNOTATION,
    Action.ABORT: names.ABORT_ANNOTATION,
    Action.RETRY: names.RETRY_ANNOTATION,
    Action.APPROVE: names.APPROVE_ANNOTATION,
}


class Asked(msgspec.Struct, frozen=True):
    """An action on one version."""

    action: Action
    version: int

    @property
    def change(self) -> dict[str, Any]:
        """What is merged into the InferenceModel."""
        return {"metadata": {"annotations": {ANNOTATIONS[self.action]: str(self.version)}}}


def choose(model: InferenceModel, action: Action, version: int | None) -> Asked:
    """The version that an action is about: the one that is given, or the only one that it can be.

    Raises:
        RefusedError: the operator would not act on it; says why.
    """
    name = model.metadata.name
    if model.spec.suspend:
        raise RefusedError(
            f"{name} is suspended (spec.suspend), so the operator changes nothing;"
            " set it to false first"
        )
    if action is Action.RETRY:
        return Asked(action, _failed(model, version))
    running = model.running
    if running is None:
        raise RefusedError(f"nothing of {name} is being rolled out: {standing(model)}")
    if version not in (None, running.version):
        raise RefusedError(
            f"version {version} of {name} is not being rolled out, version {running.version} is:"
            f" {standing(model)}"
        )
    if running.phase in BACK:
        raise RefusedError(
            f"version {running.version} of {name} is being taken back already: {running.message}"
        )
    return Asked(action, running.version)


def _failed(model: InferenceModel, version: int | None) -> int:
    name, known = model.metadata.name, [q.version for q in model.status.model.quarantined]
    if not known:
        raise RefusedError(f"no version of {name} is quarantined, so there is none to try again")
    if version is None:
        return max(known)
    if version not in known:
        listed = ", ".join(str(number) for number in sorted(known, reverse=True))
        raise RefusedError(f"version {version} of {name} is not quarantined; those are: {listed}")
    return version


def became(asked: Asked, before: InferenceModel, now: InferenceModel) -> Arrival:
    """What has become of an action.

    Args:
        asked: what was asked for.
        before: the InferenceModel as it was then.
        now: as it is.

    Returns:
        ARRIVED when it shows, HOPELESS when it never will.
    """
    version = asked.version
    if now.metadata.annotations.get(ANNOTATIONS[asked.action]) == str(version):
        return Arrival(Outcome.WAITING, "the operator has not taken it yet")
    then, of = before.status.model.rollout, now.status.model
    running, failed = of.rollout, now.quarantine_of(version)
    back = running is not None and running.version == version and running.phase in BACK
    match asked.action:
        case Action.RETRY:
            if failed is None:
                return Arrival(Outcome.ARRIVED, f"version {version} is tried again")
        case Action.ABORT:
            if back or failed is not None:
                return Arrival(Outcome.ARRIVED, f"version {version} is taken back: {standing(now)}")
        case _ if back or failed is not None:
            return Arrival(Outcome.HOPELESS, f"version {version} is taken back: {standing(now)}")
        case _ if running is not None and (running.version, running.phase) == (
            version,
            "Superseded",
        ):
            return Arrival(Outcome.HOPELESS, f"version {version} is superseded: {running.message}")
        case _ if running != then and running is not None and running.version == version:
            return Arrival(Outcome.ARRIVED, standing(now))
    if running is not None and running.version != version and asked.action is not Action.RETRY:
        return Arrival(Outcome.HOPELESS, f"version {version} has been superseded: {standing(now)}")
    return Arrival(Outcome.WAITING, TAKEN)


TAKEN: Final = "the operator has taken it; nothing has changed by it yet"
"""An action that is gone and does not show. It may have been dropped, which an Event tells."""


def dropped(asked: Asked, events: Iterable[Event], *, since: datetime) -> str:
    """Why the operator dropped an action, by the Event that names it; empty if none does."""
    annotation = ANNOTATIONS[asked.action]
    told = re.compile(rf"{re.escape(annotation)}:.*\b{asked.version}\b", re.DOTALL)
    for event in events:
        if told.search(event.message) and event.time is not None and event.time >= since:
            return event.message
    return ""


def pausing(*, paused: bool) -> dict[str, Any]:
    """What is merged into the InferenceModel to have rollouts stand still, or go on."""
    return {"spec": {"rollout": {"paused": True if paused else None}}}


def pinning(version: int | None) -> dict[str, Any]:
    """What is merged into the InferenceModel to have it serve one version; None for the newest."""
    return {"spec": {"model": {"version": version}}}


def stands(now: InferenceModel, *, paused: bool) -> Arrival:
    """Whether the operator has seen that rollouts are to stand still, or to go on."""
    if not now.judged:
        return Arrival(Outcome.WAITING, "the operator has not yet looked at the change")
    if now.running is None:
        words = "stand still" if paused else "go on"
        return Arrival(Outcome.ARRIVED, f"rollouts {words}; none is in progress")
    return Arrival(Outcome.ARRIVED, standing(now))


def declared_by(model: InferenceModel) -> str | None:
    """Who declares ``spec.rollout.paused``, and so will set it again; mostly for GitOps."""
    return _declarer(model, _PAUSED)


def pinned_by(model: InferenceModel) -> str | None:
    """Who declares ``spec.model.version``, likewise."""
    return _declarer(model, _PINNED)


def _declarer(model: InferenceModel, path: tuple[str, ...]) -> str | None:
    for entry in _setting(model.metadata.managed_fields, path):
        if entry.operation == "Apply" or entry.manager in _DECLARING:
            return entry.manager
    return None


def _setting(fields: Iterable[ManagedFields], path: tuple[str, ...]) -> Iterable[ManagedFields]:
    for entry in fields:
        place: Any = entry.fields
        for part in path:
            place = place.get(part) if isinstance(place, dict) else None
        if place is not None:
            yield entry
