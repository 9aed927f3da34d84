"""One view of a rollout: steps, replicas with their versions, checks, and what it waits for.

Pure, but for `Reports`: from the status, the pods, and what pollers say where one may ask them.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from typing import TYPE_CHECKING, Final

import msgspec

from inferencemodel_operator import names
from inferencemodel_operator.status import RolloutStatus  # noqa: TC001  # msgspec reads it
from kubectl_inferencemodel.actions import BACK
from kubectl_inferencemodel.arrival import Outcome
from kubectl_inferencemodel.errors import ClusterError, ForbiddenError
from kubectl_inferencemodel.explanation import in_words, standing, troubles
from kubectl_inferencemodel.fetches import how_far
from model_poller.status import VersionState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kubectl_inferencemodel.cluster import Cluster
    from kubectl_inferencemodel.resource import InferenceModel, Pod
    from model_poller.status import PollerStatus

_ALL: Final = "100%"
_ASKED: Final = 30
"""So many pods are asked what they serve."""
_THREADS: Final = 8


class StepState(StrEnum):
    """Where a rollout is in respect of a step."""

    DONE = "Done"
    NOW = "Now"
    AHEAD = "Ahead"
    LEFT = "Left"
    """It was not gone through: the version was taken back before or in it."""


class Step(msgspec.Struct, frozen=True):
    """One step."""

    step: int
    """Counted from 1."""
    state: StepState
    replicas: str = ""
    """So many in all have the version: ``1``, ``50%``; empty where the spec has other steps now."""
    pause: str = ""
    """Such as ``5m``; ``promote`` until somebody does."""


class Replica(msgspec.Struct, frozen=True):
    """One pod."""

    pod: str
    ready: bool
    """Whether it gets requests."""
    rehearsal: bool = False
    """Whether it rehearses the version, and never gets any."""
    told: int | None = None
    """The version that it is to serve; None as long as it is told none of its own."""
    answers: int | None = None
    """The version that its model server answers with; None where that isn't known."""
    note: str = ""


class Picture(msgspec.Struct, frozen=True, rename="camel"):
    """The whole view."""

    name: str
    namespace: str
    active_version: int | None
    target_version: int | None
    outcome: Outcome
    summary: str
    rollout: RolloutStatus | None
    steps: tuple[Step, ...]
    replicas: tuple[Replica, ...]


class Reports:
    """What pollers say, as long as one may ask them."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._forbidden = False
        self.problem = ""
        """Why one of them did not answer."""

    def of(self, pods: Sequence[Pod], first: int | None = None) -> dict[str, PollerStatus]:
        """The report of each pod that answers, by the pod's name.

        Where there are many, those that are told to serve the version ``first`` are asked first.
        """
        stay = [pod for pod in pods if not pod.terminating]
        stay.sort(key=lambda pod: _told(pod) != first)
        asked = [pod.metadata.name for pod in stay[:_ASKED]]
        if self._forbidden or not asked:
            return {}
        with ThreadPoolExecutor(_THREADS) as threads:
            found = zip(asked, threads.map(self._report, asked), strict=True)
            return {name: report for name, report in found if report is not None}

    def _report(self, pod: str) -> PollerStatus | None:
        if self._forbidden:
            return None
        try:
            return self._cluster.report(pod)
        except ForbiddenError as error:
            self._forbidden, self.problem = True, str(error)
        except ClusterError as error:
            self.problem = self.problem or str(error)
        return None


def picture(
    model: InferenceModel, pods: Sequence[Pod], reports: Mapping[str, PollerStatus]
) -> Picture:
    """The view of one moment."""
    of = model.status.model
    return Picture(
        name=model.metadata.name,
        namespace=model.metadata.namespace,
        active_version=of.active_version,
        target_version=of.target_version,
        outcome=_outcome(of.rollout),
        summary=standing(model),
        rollout=of.rollout,
        steps=tuple(_steps(model)),
        replicas=tuple(_replica(model, pod, reports.get(pod.metadata.name)) for pod in pods),
    )


def _outcome(found: RolloutStatus | None) -> Outcome:
    if found is None or found.phase == "Completed":
        return Outcome.ARRIVED
    if found.phase in BACK or found.phase == "Superseded":
        return Outcome.HOPELESS
    return Outcome.WAITING


def _steps(model: InferenceModel) -> list[Step]:
    found = model.status.model.rollout
    if found is None or not found.steps:
        return []
    asked = [
        (str(step.replicas), "" if step.pause is None else step.pause.duration or "promote")
        for step in model.spec.rollout.steps
    ]
    if not asked or asked[-1][0] != _ALL:
        asked.append((_ALL, ""))
    if len(asked) != found.steps:
        # The steps are those of the rollout's begin, and the spec has others by now.
        asked = [("", "")] * found.steps
    return [
        Step(number, _state(found, number), replicas, pause)
        for number, (replicas, pause) in enumerate(asked, 1)
    ]


def _state(found: RolloutStatus, number: int) -> StepState:
    if found.phase in ("Completed", "Baking") or number < found.step:
        return StepState.DONE
    if found.phase in BACK or found.phase == "Superseded":
        return StepState.LEFT
    return StepState.NOW if number == found.step else StepState.AHEAD


def _replica(model: InferenceModel, pod: Pod, report: PollerStatus | None) -> Replica:
    target = _told(pod)
    answers = None if report is None else report.active_version
    rehearses = names.REHEARSAL_LABEL in pod.metadata.labels
    note = ""
    if pod.terminating or not (pod.ready or rehearses):
        note = "; ".join(f"{f.reason}: {f.message}" for f in troubles(model, [pod]))
    elif report is not None and report.draining:
        note = "stays out of its Services while its model server loads"
    if report is not None and target not in (None, answers):
        known = next((v for v in report.versions if v.version == target), None)
        state = "" if known is None else f"version {target} {in_words(known.state)}"
        if known is not None and known.state is VersionState.FETCHING and (far := how_far(known)):
            state += f" ({far})"
        why = f": {known.message}" if known is not None and known.message else ""
        note = "; ".join(part for part in (note, state + why) if part)
    return Replica(pod.metadata.name, pod.ready, rehearses, target, answers, note)


def _told(pod: Pod) -> int | None:
    """The version that a pod is told to serve."""
    text = pod.metadata.annotations.get(names.TARGET_VERSION_ANNOTATION, "")
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else None
