"""What a rehearsal says about a version: pure functions of what is seen of its pod.

A rehearsal speaks against a version only by what the version does: the model server refuses it, it
brings the server down, or it is still loading at the deadline. A pod that doesn't come up says
nothing about the version, and neither does one that nobody could ask.
"""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Final

import msgspec

from inferencemodel_operator import bounds, durations, identity, names
from inferencemodel_operator.observe.troubles import Trouble
from model_poller.status import CheckResult, PollerStatus, VersionReason, VersionState

if TYPE_CHECKING:
    from inferencemodel_operator import spec
    from inferencemodel_operator.observe.objects import Pod
    from inferencemodel_operator.observe.reports import Report
    from model_poller.status import VersionStatus

RESTARTS: Final = 2
"""So many ends of the model server speak against the version: in a pod that was made for it there
is nothing else to blame, and nobody to whom an end does harm."""
PATIENCE: Final = datetime.timedelta(seconds=60)
"""How long what keeps the pod from coming up may take to heal by itself."""
WORDS: Final = bounds.MESSAGE // 2
"""Bytes of the words of others in a message."""

_LOADING: Final = frozenset({VersionState.PUBLISHED, VersionState.AVAILABLE})
_ON_ITS_WAY: Final = {
    VersionState.PUBLISHED: "loads it",
    VersionState.FETCHED: "is about to load it",
    VersionState.FETCHING: "fetches it",
}


class RehearsalPod(msgspec.Struct, frozen=True, kw_only=True):
    """What is observed of a pod that rehearses a version."""

    uid: str
    name: str
    version: int | None
    """The one that it is told to load."""
    started: datetime.datetime
    report: PollerStatus | None = None
    """What its poller reports about the spec's source, where that can be believed."""
    restarts: int = 0
    """Of its model server, all of them with the version or with those beside it."""
    trouble: Trouble | None = None
    message: str = ""
    """About the trouble."""
    unschedulable_since: datetime.datetime | None = None
    gone: bool = False
    """Whether it has ended, or is being deleted."""

    @property
    def crashed(self) -> bool:
        """Whether its model server ended again and again while it had the version."""
        status = self.status
        tried = status is not None and (status.proven or status.state in _LOADING)
        return tried and self.restarts >= RESTARTS

    @property
    def status(self) -> VersionStatus | None:
        """What it reports of the version."""
        versions = self.report.versions if self.report is not None else ()
        return next((v for v in versions if v.version == self.version), None)


def observe(
    pod: Pod,
    model: spec.InferenceModel,
    report: Report | None,
    trouble: Trouble | None,
    message: str,
) -> RehearsalPod | None:
    """Look at a pod that is the InferenceModel's.

    Args:
        pod: the pod; None comes of one that is a replica.
        model: the resource.
        report: what its poller answered last.
        trouble: why it does not come up.
        message: about the trouble.
    """
    if pod.rehearsing is None:
        return None
    return RehearsalPod(
        uid=pod.uid,
        name=pod.name,
        version=bounds.number(pod.assignment.get(names.TARGET_VERSION_ANNOTATION, "")),
        started=pod.rehearsing.created,
        report=identity.believed(pod, model, report),
        restarts=pod.server_restarts,
        trouble=trouble,
        message=message,
        unschedulable_since=pod.rehearsing.unscheduled,
        gone=pod.terminating,
    )


class Verdict(msgspec.Struct, frozen=True):
    """What a rehearsal says now."""

    result: CheckResult | None
    """None while it goes on."""
    message: str
    again: datetime.datetime | None = None
    """When it may say something else although nothing has happened until then."""


def verdict(
    rehearsal: spec.Rehearsal,
    pod: RehearsalPod | None,
    refused: str,
    *,
    version: int,
    fingerprint: str,
    since: datetime.datetime,
    now: datetime.datetime,
    refused_since: datetime.datetime | None = None,
) -> Verdict:
    """Judge a version by its rehearsal.

    Args:
        rehearsal: ``spec.rollout.rehearsal``.
        pod: the pod that rehearses it; None while there is none.
        refused: why the API server doesn't take the pod; empty where it does.
        version: the version.
        fingerprint: of its stored objects.
        since: when its rehearsal began, whichever pods there were.
        now: the time.
        refused_since: since when; None where that isn't known.
    """
    if pod is not None and (pod.gone or pod.version != version):
        pod = None
    if pod is not None:
        found = _by_version(pod, fingerprint)
        if found is not None:
            return found
    what, begun = _obstacle(pod, refused, refused_since or since)
    # A pod's times are by other clocks than this one's, which may be ahead of them.
    begun = max(begun, since)
    deadline = since + datetime.timedelta(seconds=rehearsal.deadline)
    if what and now - begun >= PATIENCE:
        return _undecided(rehearsal, what)
    if now >= deadline:
        return _late(rehearsal, pod, fingerprint, what)
    again = min(begun + PATIENCE, deadline) if what else deadline
    return Verdict(None, what or _stage(pod, fingerprint), again)


def _by_version(pod: RehearsalPod, fingerprint: str) -> Verdict | None:
    """What the version itself has shown."""
    status = pod.status
    if status is None or status.tried != fingerprint:
        return None
    if pod.crashed:
        words = pod.message or "the model server ended again and again"
        return Verdict(CheckResult.FAILED, _about(pod, words))
    if status.state is VersionState.AVAILABLE:
        return Verdict(CheckResult.PASSED, _about(pod, "it is loaded, and answers"))
    elsewhere = status.reason is VersionReason.QUARANTINED_ELSEWHERE
    if status.state is VersionState.QUARANTINED and not elsewhere:
        words = ": ".join(part for part in (status.reason, status.message) if part)
        return Verdict(CheckResult.FAILED, _about(pod, words))
    return None


def _obstacle(
    pod: RehearsalPod | None, refused: str, refused_since: datetime.datetime
) -> tuple[str, datetime.datetime]:
    """What keeps the pod from coming up, and since when; empty where nothing does."""
    if pod is None:
        return bounds.text(refused, WORDS), refused_since
    if pod.trouble in (None, Trouble.SERVER_CRASHED):
        return "", refused_since
    return _about(pod, pod.message), pod.unschedulable_since or pod.started


def _late(
    rehearsal: spec.Rehearsal, pod: RehearsalPod | None, fingerprint: str, obstacle: str
) -> Verdict:
    limit = f"spec.rollout.rehearsal.deadline ({durations.text(rehearsal.deadline)}) is over"
    stage = obstacle or _stage(pod, fingerprint)
    status = pod.status if pod is not None else None
    if status is not None and status.tried == fingerprint and status.state in _LOADING:
        return Verdict(CheckResult.FAILED, f"{limit}: {stage}")
    return _undecided(rehearsal, f"{limit}: {stage}")


def _undecided(rehearsal: spec.Rehearsal, message: str) -> Verdict:
    skips = rehearsal.on_unschedulable == "Skip"
    return Verdict(CheckResult.SKIPPED if skips else CheckResult.INCONCLUSIVE, message)


def _stage(pod: RehearsalPod | None, fingerprint: str) -> str:
    """How far it has come, in words that stay the same meanwhile."""
    if pod is None:
        return "its pod is being created"
    if pod.trouble is Trouble.SERVER_CRASHED:
        return _about(pod, pod.message)
    if pod.report is None:
        return _about(pod, "it starts")
    status = pod.status
    if status is None or status.tried != fingerprint:
        return _about(pod, "it looks for the version")
    return f"pod {pod.name} {_ON_ITS_WAY.get(status.state, 'looks for it')}"


def _about(pod: RehearsalPod, words: str) -> str:
    return f"pod {pod.name}: {bounds.text(words, WORDS)}"
