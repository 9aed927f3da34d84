"""The status of an InferenceModel: a pure function of what was observed.

Nothing in it changes by time alone, so an unchanged observation gives an unchanged status.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import msgspec

from inferencemodel_operator import names, versions
from inferencemodel_operator.conditions import ConditionType, Reason, reason_of
from inferencemodel_operator.errors import (
    InvalidModelError,
    InvalidRecordError,
    NameConflictError,
    OperatorError,
    PermanentError,
    TransientError,
)
from model_poller.status import (
    PollerStatus,
    SourceReason,
    SourceState,
    VersionReason,
    VersionState,
    VersionStatus,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from inferencemodel_operator.observe.objects import DeploymentStatus, Trouble
    from inferencemodel_operator.record import QuarantinedVersion, VersionsRecord
    from inferencemodel_operator.spec import InferenceModel

Status = dict[str, Any]

LISTED_VERSIONS: Final = 10
_LOADING: Final = "Loading"
_RANKS: Final = {
    state: rank
    for rank, state in enumerate(
        (
            VersionState.INCOMPLETE.value,
            VersionState.DISCOVERED.value,
            VersionState.FETCHING.value,
            VersionState.FETCHED.value,
            VersionState.RETIRED.value,
            VersionState.PUBLISHED.value,
            _LOADING,
            VersionState.QUARANTINED.value,
            VersionState.AVAILABLE.value,
        )
    )
}


class PodView(msgspec.Struct, frozen=True, kw_only=True):
    """One pod that is not going away."""

    name: str
    ready: bool
    report: PollerStatus | None
    """None while it can't be asked."""
    trouble: Trouble | None = None
    message: str = ""

    @property
    def active(self) -> int | None:
        """The version that the pod answers with, when that is known."""
        return self.report.active_version if self.report else None

    @property
    def unknown(self) -> bool:
        """Whether it is not known what this pod answers with."""
        return self.report is None or not self.report.server_reachable

    def version(self, number: int) -> VersionStatus | None:
        """What the pod tells about one version."""
        if self.report is None:
            return None
        return next((v for v in self.report.versions if v.version == number), None)


class Observed(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the status is made from."""

    pods: tuple[PodView, ...]
    record: VersionsRecord
    deployment: DeploymentStatus | None = None
    deployment_generation: int = 0
    problems: tuple[OperatorError, ...] = ()
    """What stood in the way of the last attempt to apply the children."""

    @property
    def ready(self) -> list[PodView]:
        """The pods that get requests."""
        return [pod for pod in self.pods if pod.ready]

    @property
    def unknown(self) -> list[PodView]:
        """The pods that get requests although it is not known what they answer with."""
        return [pod for pod in self.ready if pod.unknown]

    @property
    def reports(self) -> list[PollerStatus]:
        """What the pods that can be asked tell, by the pods' names."""
        return [pod.report for pod in self.pods if pod.report is not None]

    @property
    def on_target(self) -> bool:
        """Whether every ready pod is known to answer with the target; there is at least one."""
        return bool(self.ready) and all(
            not pod.unknown and pod.active == self.record.target for pod in self.ready
        )


class Verdict(msgspec.Struct, frozen=True):
    """One condition, without its history."""

    status: str
    reason: Reason
    message: str


def compute(model: InferenceModel, seen: Observed, previous: Mapping[str, Any], now: str) -> Status:
    """The whole status.

    Args:
        model: the resource.
        seen: what was observed.
        previous: the live status, for what outlives an observation.
        now: the time (RFC 3339) of transitions that this call finds.
    """
    before = previous.get("model") or {}
    active = active_version(seen, before.get("activeVersion"))
    latest = versions.latest(seen.reports)
    wanted = model.spec.replicas
    ready = len(seen.ready)
    stalled = _stalled(seen)
    verdicts = {
        ConditionType.READY: _ready(wanted, seen, active),
        ConditionType.SOURCE_READY: _source_ready(model, seen),
        ConditionType.MODEL_LOADED: _model_loaded(model, seen, active),
        ConditionType.RECONCILING: _reconciling(model, seen, active, stalled),
        ConditionType.STALLED: stalled,
    }
    return {
        "observedGeneration": model.metadata.generation,
        "conditions": _conditions(verdicts, model.metadata.generation, previous, now),
        "url": model.url,
        "replicas": len(seen.pods),
        "readyReplicas": ready,
        "selector": names.selector_text(model.name),
        "replicaSummary": f"{ready}/{wanted}",
        "model": _present(
            {
                "name": model.model_name,
                "activeVersion": active,
                "targetVersion": seen.record.target,
                "latestVersion": before.get("latestVersion") if latest is None else latest,
                "transitionStatus": _transition(model, seen, active),
                "versions": _versions(seen, active),
                "quarantined": _quarantined(seen),
            }
        ),
    }


def invalid(
    problem: InvalidModelError, generation: int, previous: Mapping[str, Any], now: str
) -> Status:
    """The status of a resource that can't be understood: what was known, and what is wrong."""
    stalled = Verdict("True", Reason.INVALID_SPEC, str(problem))
    verdicts = {ConditionType.RECONCILING: _blocked(stalled), ConditionType.STALLED: stalled}
    return {
        **previous,
        "observedGeneration": generation,
        "conditions": _conditions(verdicts, generation, previous, now),
    }


def active_version(seen: Observed, previous: int | None) -> int | None:
    """The version that clients get.

    While some ready pod can't be asked, the previous answer stays. While the pods differ it is
    the one that most of them serve among those that are not the target, the lowest of equals:
    a version counts as reached only when every replica has it.
    """
    if not seen.ready:
        return None
    if seen.unknown:
        return previous
    served = Counter(pod.active for pod in seen.ready)
    if len(served) == 1:
        return seen.ready[0].active
    behind = [
        (-count, version)
        for version, count in served.items()
        if version is not None and version != seen.record.target
    ]
    return min(behind)[1] if behind else previous


def _ready(wanted: int, seen: Observed, active: int | None) -> Verdict:
    ready = len(seen.ready)
    if wanted == 0 and ready == 0:
        return Verdict(
            "False", Reason.SCALED_TO_ZERO, "spec.replicas is 0, so nothing serves; raise it"
        )
    if ready < wanted:
        reason, why = _not_ready(seen)
        return Verdict("False", reason, f"{ready} of {wanted} replicas are ready: {why}")
    if seen.unknown:
        return Verdict(
            "Unknown",
            Reason.POLLER_UNREACHABLE,
            f"which version these pods serve can't be asked: {_pods(seen.unknown)}; "
            "look at the logs of their container poller, and at network policies that keep the "
            f"operator from port {names.POLLER_PORT}",
        )
    return Verdict("True", Reason.SERVING, f"all replicas are ready; version {active} answers")


def _not_ready(seen: Observed) -> tuple[Reason, str]:
    failure = seen.deployment.condition("ReplicaFailure") if seen.deployment else None
    if failure is not None and failure.status == "True":
        # The message starts with the name of a pod that never was: another one at each attempt.
        _, _, refusal = failure.message.rpartition(" is forbidden: ")
        return Reason.PODS_REFUSED, (
            f"the API server refuses the pods: {refusal}; raise the namespace's quota, or satisfy "
            "the policy named here"
        )
    troubled = next((pod for pod in seen.pods if pod.trouble is not None), None)
    if troubled is not None and troubled.trouble is not None:
        return reason_of(troubled.trouble), troubled.message
    if not seen.pods:
        return Reason.REPLICAS_NOT_READY, "the Deployment has no pod yet"
    if not seen.reports:
        return Reason.REPLICAS_NOT_READY, (
            "no pod's container poller runs and answers yet; if that lasts, "
            "`kubectl describe pod` says why (a Secret or ConfigMap that is not there, say)"
        )
    if seen.record.target is None:
        return Reason.WAITING_FOR_VERSION, "the pods wait for a first version, see SourceReady"
    return Reason.REPLICAS_NOT_READY, "the others are starting or loading"


def _source_ready(model: InferenceModel, seen: Observed) -> Verdict:
    uri = model.spec.model.storage_uri
    sources = [report.source for report in seen.reports]
    if not sources:
        return Verdict("Unknown", Reason.NO_REPORT, "no pod has reported about the bucket yet")
    failed = [
        source
        for source in sources
        if source.state is SourceState.FAILED or source.reason is SourceReason.NO_VERSION_FOUND
    ]
    if failed:
        message = failed[0].message
        some = "" if len(failed) == len(sources) else " (only some of the pods see this)"
        return Verdict(
            "False",
            reason_of(failed[0].reason),
            f"{message if uri in message else f'{uri}: {message}'}{some}",
        )
    if all(source.state is SourceState.PENDING for source in sources):
        return Verdict("Unknown", Reason.NOT_LISTED_YET, f"{uri} is being listed")
    incomplete = _incomplete(seen)
    if incomplete is not None:
        return Verdict(
            "True",
            Reason.INCOMPLETE_UPLOAD,
            f"version {incomplete.version} is not whole: "
            f"{incomplete.message or incomplete.reason}; finish its upload, or delete it",
        )
    down = [s.notifications for s in sources if s.notifications and not s.notifications.connected]
    if down and down[0].message:
        return Verdict(
            "True",
            Reason.NOTIFICATIONS_DOWN,
            f"{uri} is listed, but only every spec.source.pollInterval: {down[0].message}",
        )
    return Verdict("True", Reason.LISTED, f"{uri} is listed")


def _incomplete(seen: Observed) -> VersionStatus | None:
    newest = versions.latest(seen.reports)
    unfinished = [
        version
        for report in seen.reports
        for version in report.versions
        if version.state is VersionState.INCOMPLETE
        and version.reason is not VersionReason.UNSTABLE_LISTING
        and (newest is None or version.version > newest)
    ]
    return max(unfinished, key=lambda version: version.version, default=None)


def _failure(model: InferenceModel, seen: Observed) -> QuarantinedVersion | None:
    """The quarantined version that would be served if it were good."""
    pinned = model.spec.model.version
    target = seen.record.target
    if pinned is not None:
        return versions.blocked(pinned, seen.record)
    newest = next(iter(seen.record.quarantined), None)
    if newest is None or (target is not None and newest.version < target):
        return None
    return newest


def _model_loaded(model: InferenceModel, seen: Observed, active: int | None) -> Verdict:
    target = seen.record.target
    failure = _failure(model, seen)
    if failure is not None and active != failure.version:
        instead = "nothing is served yet" if active is None else f"version {active} goes on serving"
        return Verdict(
            "False",
            reason_of(failure.reason),
            f"version {failure.version} is quarantined: {failure.message}; {instead}. "
            "Upload a repaired version",
        )
    if target is None:
        return Verdict("False", Reason.NO_TARGET, "there is no version to load, see SourceReady")
    told = [version for pod in seen.pods if (version := pod.version(target)) is not None]
    told = [v for v in told if v.in_source or v.state is not VersionState.INCOMPLETE]
    if seen.on_target:
        changed = next((v for v in told if v.reason is VersionReason.CHANGED_AFTER_PUBLISH), None)
        if changed is not None:
            return Verdict(
                "True",
                Reason.CHANGED_AFTER_PUBLISH,
                f"version {target} serves as it was fetched, but changed in the bucket since; "
                "upload changed models under a new number",
            )
        return Verdict("True", Reason.LOADED, f"version {target} answers on every ready replica")
    if seen.unknown:
        return Verdict(
            "Unknown",
            Reason.POLLER_UNREACHABLE,
            f"these pods can't be asked: {_pods(seen.unknown)}; see Ready",
        )
    return _on_its_way(model, target, seen, told)


def _on_its_way(
    model: InferenceModel, target: int, seen: Observed, told: Sequence[VersionStatus]
) -> Verdict:
    # A reason beside any state says why the version makes no progress on that pod.
    held = next((version for version in told if version.reason is not None), None)
    if held is not None and held.reason is not None:
        return Verdict(
            "False", reason_of(held.reason), f"version {target}: {held.message or held.reason}"
        )
    sources = [report.source.state for report in seen.reports]
    if not told and sources and all(state is SourceState.READY for state in sources):
        return Verdict(
            "False",
            Reason.VERSION_NOT_FOUND,
            f"version {target} is neither in {model.spec.model.storage_uri} nor on a pod's disk; "
            "upload it, or set spec.model.version to one that is there",
        )
    fetched = (VersionState.FETCHED, VersionState.PUBLISHED, VersionState.AVAILABLE)
    if any(version.state in (*fetched, VersionState.RETIRED) for version in told):
        return Verdict("False", Reason.LOADING, f"version {target} is being loaded")
    return Verdict("False", Reason.FETCHING, f"version {target} is being fetched")


def _reconciling(
    model: InferenceModel, seen: Observed, active: int | None, stalled: Verdict
) -> Verdict:
    if stalled.status == "True":
        return _blocked(stalled)
    if model.spec.suspend:
        return Verdict(
            "False", Reason.SUSPENDED, "spec.suspend is true: nothing is changed, only reported"
        )
    for problem in seen.problems:
        if isinstance(problem, TransientError):
            return Verdict("True", Reason.APPLYING, "not all children could be applied; retrying")
    if not _rolled_out(model.spec.replicas, seen):
        return Verdict(
            "True", Reason.ROLLING_OUT, "the Deployment is on its way to the wanted pods"
        )
    if not seen.on_target and model.spec.replicas > 0:
        target = seen.record.target
        if target is None:
            return Verdict("True", Reason.CHANGING_VERSION, "waiting for a first version")
        before = "" if active in (None, target) else f" from version {active}"
        return Verdict(
            "True", Reason.CHANGING_VERSION, f"replicas move{before} to version {target}"
        )
    return Verdict("False", Reason.SETTLED, "everything is as wanted")


def _blocked(stalled: Verdict) -> Verdict:
    return Verdict("False", Reason.BLOCKED, f"see Stalled: {stalled.reason}")


def _rolled_out(wanted: int, seen: Observed) -> bool:
    deployment = seen.deployment
    return (
        deployment is not None
        and deployment.observed_generation >= seen.deployment_generation
        and deployment.updated_replicas >= wanted
        and deployment.replicas <= deployment.updated_replicas
        and len(seen.ready) >= wanted
    )


def _stalled(seen: Observed) -> Verdict:
    for problem in seen.problems:
        if isinstance(problem, PermanentError):
            return Verdict("True", _stall_reason(problem), str(problem))
    progressing = seen.deployment.condition("Progressing") if seen.deployment else None
    if progressing is not None and progressing.reason == "ProgressDeadlineExceeded":
        reason, why = _not_ready(seen)
        return Verdict(
            "True",
            Reason.PROGRESS_DEADLINE_EXCEEDED,
            f"the Deployment made no progress for its deadline ({reason}): {why}",
        )
    return Verdict("False", Reason.NOT_STALLED, "nothing has to be changed")


def _stall_reason(problem: PermanentError) -> Reason:
    match problem:
        case NameConflictError():
            return Reason.NAME_CONFLICT
        case InvalidModelError():
            return Reason.INVALID_SPEC
        case InvalidRecordError():
            return Reason.INVALID_RECORD
        case _:
            return Reason.REFUSED


def _transition(model: InferenceModel, seen: Observed, active: int | None) -> str:
    if model.spec.suspend:
        return "Suspended"
    if seen.unknown:
        return "Unknown"
    failure = _failure(model, seen)
    if failure is not None and active != failure.version:
        return "BlockedByFailedLoad"
    if active is None:
        return "Pending"
    return "UpToDate" if seen.on_target else "InProgress"


def _versions(seen: Observed, active: int | None) -> list[Status]:
    states: dict[int, str] = {q.version: VersionState.QUARANTINED for q in seen.record.quarantined}
    serving: Counter[int] = Counter()
    for report in seen.reports:
        loading = {s.version for s in report.served if s.state in ("START", "LOADING")}
        serving.update(s.version for s in report.served if s.state == "AVAILABLE")
        for version in report.versions:
            state = version.state.value
            if version.state is VersionState.PUBLISHED and version.version in loading:
                state = _LOADING
            best = states.get(version.version, state)
            states[version.version] = max(state, best, key=_RANKS.__getitem__)
    for version_number in serving:
        states[version_number] = VersionState.AVAILABLE.value
    wanted = [number for number in (seen.record.target, active) if number in states]
    newest = [number for number in sorted(states, reverse=True) if number not in wanted]
    shown = {*wanted, *newest[: LISTED_VERSIONS - len(set(wanted))]}
    return [
        {"version": number, "state": str(states[number]), "replicas": serving[number]}
        for number in sorted(shown, reverse=True)
    ]


def _quarantined(seen: Observed) -> list[Status]:
    # Two uploads under one number can both have failed; one of them is told.
    entries = {entry.version: entry for entry in reversed(seen.record.quarantined)}
    return [
        {"version": entry.version, "reason": entry.reason, "message": entry.message}
        for _, entry in sorted(entries.items(), reverse=True)[:LISTED_VERSIONS]
    ]


def _conditions(
    verdicts: Mapping[ConditionType, Verdict],
    generation: int,
    previous: Mapping[str, Any],
    now: str,
) -> list[Status]:
    before = {c["type"]: c for c in previous.get("conditions") or ()}
    conditions = []
    for kind in ConditionType:
        old = before.get(kind)
        verdict = verdicts.get(kind)
        if verdict is None:
            if old is not None:
                conditions.append(old)
            continue
        same = old is not None and old["status"] == verdict.status
        conditions.append(
            {
                "type": kind.value,
                "status": verdict.status,
                "observedGeneration": generation,
                "lastTransitionTime": old["lastTransitionTime"] if same and old else now,
                "reason": verdict.reason.value,
                "message": verdict.message,
            }
        )
    return conditions


def _pods(pods: Sequence[PodView]) -> str:
    return ", ".join(pod.name for pod in pods)


def _present(fields: Status) -> Status:
    # Of a list that becomes empty, server-side apply takes the field away as well.
    return {name: value for name, value in fields.items() if value is not None and value != []}
