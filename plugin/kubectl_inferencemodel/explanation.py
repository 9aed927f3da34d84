"""What an InferenceModel is waiting for, in words. Pure: from what the API server says."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import msgspec

from kubectl_inferencemodel import fetches

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from kubectl_inferencemodel.resource import Container, InferenceModel, Pod
    from model_poller.status import PollerStatus, VersionStatus

_PROGRESS: Final = {
    "Discovered": "is complete in the bucket and about to be fetched",
    "Incomplete": "is not complete in the bucket",
    "Fetching": "is being fetched",
    "Fetched": "is on the replicas' disks, not served",
    "Published": "is about to be loaded by the model server",
    "Loading": "is being loaded by the model server",
    "Available": "answers",
    "Retired": "was served, and is kept for a way back",
    "Quarantined": "is quarantined",
}
_ABNORMAL: Final = frozenset({"Stalled", "RolloutPaused", "VersionSkew"})
_ASKED: Final = ("Stalled", "RolloutPaused", "Ready", "SourceReady", "ModelLoaded", "VersionSkew")
"""Conditions that tell a reason, the one that a person has to do something about first."""
_NOBODY: Final[Mapping[str, PollerStatus]] = MappingProxyType({})
_NONE: Final[Mapping[str, VersionStatus]] = MappingProxyType({})
_FINE: Final = frozenset({"Serving", "Listed", "Loaded"})


class Finding(msgspec.Struct, frozen=True):
    """One thing that is in the way, or worth knowing."""

    about: str
    """A condition, ``version 3``, or ``pod NAME``."""
    reason: str
    """One word of a closed set; empty where there is none."""
    message: str


class Explanation(msgspec.Struct, frozen=True):
    """The whole answer."""

    name: str
    settled: bool
    """Nothing is waited for."""
    summary: str
    findings: tuple[Finding, ...] = ()


def explain(
    model: InferenceModel, pods: Sequence[Pod], reports: Mapping[str, PollerStatus] = _NOBODY
) -> Explanation:
    """Why an InferenceModel is as it is, and what it waits for.

    ``reports`` are those of pollers, by their pods' names, where one may ask them.
    """
    if not model.status.conditions:
        return Explanation(
            model.metadata.name,
            settled=False,
            summary=(
                "The operator has told nothing yet. If that lasts, see whether it runs and serves "
                f"the namespace {model.metadata.namespace}: "
                "kubectl get deployments -A -l app.kubernetes.io/part-of=inferencemodel"
            ),
        )
    fetching = fetches.running(reports)
    findings = (
        *_conditions(model),
        *_versions(model),
        *_fetches(fetching),
        *troubles(model, pods),
    )
    return Explanation(
        model.metadata.name,
        settled=settled(model),
        summary=_summary(model, fetching),
        findings=findings,
    )


def settled(model: InferenceModel) -> bool:
    """Whether what is wanted now is what is: kstatus' rule."""
    return (
        model.judged
        and model.is_true("Ready")
        and not model.is_true("Reconciling")
        and not model.is_true("Stalled")
    )


def _summary(model: InferenceModel, fetching: Mapping[str, VersionStatus]) -> str:
    status, of = model.status, model.status.model
    served = (
        "No version answers"
        if of.active_version is None
        else f"Version {of.active_version} answers on {status.replica_summary} replicas"
    )
    joint, clause = _clause(model, fetching)
    return f"{served}{joint}{clause}."


def waits_for(model: InferenceModel) -> str:
    """What an InferenceModel waits for, or what else is to be said of it, in one clause."""
    return _clause(model, _NONE)[1]


def _clause(model: InferenceModel, fetching: Mapping[str, VersionStatus]) -> tuple[str, str]:
    """What is to be said beside which version answers, and how it follows that."""
    of = model.status.model
    if model.spec.suspend:
        return "; ", "it is suspended (spec.suspend), so nothing is changed"
    if not model.judged:
        return "; ", "the operator has not yet looked at the last change of the resource"
    loaded = model.condition("ModelLoaded")
    if settled(model) and of.transition_status == "BlockedByFailedLoad" and loaded is not None:
        return ", but ", loaded.message.rstrip(".")
    if settled(model):
        return ", and ", "that is all that is wanted"
    if of.target_version is None:
        return "; ", f"it waits for a first version in {model.spec.model.storage_uri}"
    if of.target_version != of.active_version:
        return "; ", f"it waits for {progress(model, of.target_version, fetching)}"
    return "; ", "it waits for its replicas"


def progress(
    model: InferenceModel, version: int, fetching: Mapping[str, VersionStatus] = _NONE
) -> str:
    """How far a version has come, as the end of a sentence."""
    quarantined = model.quarantine_of(version)
    if quarantined is not None:
        return f"version {version}, which is quarantined ({quarantined.reason})"
    known = model.state_of(version)
    if known is None:
        return f"version {version}, which no replica knows yet"
    rollout = model.running
    if rollout is not None and rollout.version == version and rollout.message:
        return f"{standing(model)}"
    # A replica that is to come doesn't answer yet, so the wanted number is what counts.
    wanted = model.status.replica_summary.partition("/")[2]
    if known.replicas and wanted:
        return f"version {version}, which answers on {known.replicas} of {wanted} replicas"
    slowest = fetches.slowest(fetching, version) if known.state == "Fetching" else None
    far = fetches.how_far(slowest) if slowest is not None else ""
    return f"version {version}, which {in_words(known.state)}{far and f' ({far})'}"


def in_words(state: str) -> str:
    """A version's state, as what is said of the version."""
    return _PROGRESS.get(state, f"is {state}")


def standing(model: InferenceModel) -> str:
    """How the rollout stands that runs, or how the last one ended, in one line."""
    found = model.status.model.rollout
    if found is None:
        active = model.status.model.active_version
        return "no version answers" if active is None else f"version {active} answers"
    steps = f" step {found.step} of {found.steps}," if found.step and found.steps else ""
    on = ""
    if found.replicas_wanted:
        on = f" {found.replicas_on or 0} of {found.replicas_wanted} replicas answer with it,"
    head = f"version {found.version}:{steps}{on} {found.phase}"
    return f"{head}: {found.message}" if found.message else head


def _conditions(model: InferenceModel) -> Iterator[Finding]:
    told = set()
    for kind in _ASKED:
        found = model.condition(kind)
        if found is None or found.reason in _FINE:
            continue
        # What is as it should be may still have a word to say: about notifications, or about an
        # upload that is not finished.
        if kind in _ABNORMAL and found.status == "False":
            continue
        if found.message not in told:
            told.add(found.message)
            yield Finding(kind, found.reason, found.message)
    going = model.condition("Reconciling")
    if going is not None and going.status == "True" and going.message not in told:
        yield Finding(going.type, going.reason, going.message)


def _versions(model: InferenceModel) -> Iterator[Finding]:
    wanted, of = model.spec.model, model.status.model
    newest = of.latest_version
    if newest is not None and newest != of.target_version and model.quarantine_of(newest) is None:
        if wanted.version is not None:
            yield Finding(
                f"version {newest}",
                "",
                f"the newest in the bucket; not served, as spec.model.version is {wanted.version}",
            )
        elif wanted.min_version is not None and newest < wanted.min_version:
            yield Finding(
                f"version {newest}",
                "",
                f"the newest in the bucket; below spec.model.minVersion, {wanted.min_version}",
            )
    for known in of.quarantined:
        yield Finding(f"version {known.version}", known.reason, known.message)


def _fetches(fetching: Mapping[str, VersionStatus]) -> Iterator[Finding]:
    for pod, version in sorted(fetching.items()):
        if far := fetches.how_far(version):
            words = ": ".join(part for part in (far, version.message) if part)
            yield Finding(f"pod {pod}", "Fetching", f"version {version.version}: {words}")


def troubles(model: InferenceModel, pods: Sequence[Pod]) -> Iterator[Finding]:
    """What is in the way of pods that get no requests."""
    for pod in pods:
        about = f"pod {pod.metadata.name}"
        if pod.terminating:
            yield Finding(about, "Terminating", "finishes the requests that it has, and goes")
            continue
        if pod.ready:
            continue
        scheduled = pod.condition("PodScheduled")
        if scheduled is not None and scheduled.status == "False":
            yield Finding(about, scheduled.reason, scheduled.message)
            continue
        held = [found for c in pod.containers for found in _container(about, c)]
        yield from held or [Finding(about, "NotReady", _not_ready(model, pod))]


def _container(about: str, container: Container) -> Iterator[Finding]:
    where = f"container {container.name}"
    waiting, last = container.state.waiting, container.last_state.terminated
    if waiting is not None and waiting.reason not in ("", "PodInitializing", "ContainerCreating"):
        message = f"{where}: {waiting.message}" if waiting.message else where
        yield Finding(about, waiting.reason, message)
    if last is not None and container.restart_count:
        yield Finding(
            about,
            last.reason,
            f"{where} ended with {last.exit_code} and was restarted {container.restart_count} "
            f"times; see kubectl logs {about.removeprefix('pod ')} -c {container.name} --previous",
        )


def _not_ready(model: InferenceModel, pod: Pod) -> str:
    waiting = {c.name for c in pod.containers if c.state.waiting is not None}
    if "poller" in waiting:
        return "is being started"
    if "model-server" in waiting:
        return "its model server starts as soon as a version is on its disk"
    if pod.status.phase == "Pending":
        return "is being started"
    return f"its model server does not yet serve {model.served_name}"
