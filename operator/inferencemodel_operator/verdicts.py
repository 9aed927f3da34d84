"""What each condition says: a judgement of what was observed, in words that tell what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from inferencemodel_operator import bounds, names, refusals, versions
from inferencemodel_operator.answers import MESSAGE_LIMIT
from inferencemodel_operator.conditions import ConditionType, Reason, reason_of
from inferencemodel_operator.errors import (
    AddressConflictError,
    ContestedError,
    InvalidModelError,
    InvalidRecordError,
    LastingError,
    NameConflictError,
    NameConflictsError,
    NotOfferedError,
    PermanentError,
    TransientError,
)
from inferencemodel_operator.observe.troubles import CRASHED
from inferencemodel_operator.observed import Unversioned
from inferencemodel_operator.record import Phase
from inferencemodel_operator.waves import Hold
from model_poller.status import CacheState, SourceReason, SourceState, VersionReason, VersionState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inferencemodel_operator.observed import Observed, Replica
    from inferencemodel_operator.record import QuarantinedVersion
    from inferencemodel_operator.spec import InferenceModel, Storage
    from inferencemodel_operator.status import RolloutStatus
    from model_poller.status import VersionStatus


_COMING: Final = frozenset({VersionState.FETCHING, VersionState.FETCHED, VersionState.PUBLISHED})


class Verdict(msgspec.Struct, frozen=True):
    """One condition, without its history."""

    status: str
    reason: Reason
    message: str


def ready(model: InferenceModel, seen: Observed) -> Verdict:
    """Whether all wanted replicas get requests, and it is known what they answer with."""
    count, wanted = len(seen.ready), seen.wanted
    if wanted == 0 and count == 0:
        # True, as with a Deployment: a model that sleeps at night is as it was asked to be.
        scaled = model.spec.autoscaling is not None
        why = "the autoscaler wants no replica now" if scaled else "spec.replicas is 0"
        then = ""
        if model.scaled_by_requests:
            then = "; a request to status.url waits until there is one"
        return Verdict("True", Reason.SCALED_TO_ZERO, f"{why}, so nothing serves{then}")
    if count < wanted:
        reason, why = _not_ready(model, seen)
        return Verdict("False", reason, f"{count} of {wanted} replicas are ready: {why}")
    doubts = bounds.text("; ".join(pod.doubt for pod in seen.unknown if pod.doubt), WORDS)
    if doubts:
        return Verdict(
            "Unknown",
            Reason.POLLER_UNREACHABLE,
            f"what answers for these pods is not their poller: {doubts}; look at what changed "
            "their containers",
        )
    if seen.unknown:
        return Verdict(
            "Unknown",
            Reason.POLLER_UNREACHABLE,
            f"which version these pods serve can't be asked: {_pods(seen.unknown)}; "
            "look at the logs of their container poller, and at network policies that keep the "
            f"operator from port {names.POLLER_PORT}",
        )
    empty = [pod for pod in seen.ready if pod.answer is Unversioned.NOTHING]
    if empty:
        return Verdict(
            "False",
            Reason.REPLICAS_NOT_READY,
            f"the model servers of these pods have no version AVAILABLE: {_pods(empty)}",
        )
    lost = next((p for p in seen.problems if isinstance(p, AddressConflictError)), None)
    if lost is not None:
        return Verdict("False", Reason.ADDRESS_CONFLICT, f"all replicas are ready, but {lost}")
    return Verdict("True", Reason.SERVING, f"all replicas are ready: {_answers(seen)}")


def _answers(seen: Observed) -> str:
    """What those that get requests answer with, in words."""
    counts = sorted(seen.answers.items(), key=lambda item: str(item[0]))
    return ", ".join(
        f"{count} with {f'version {answer}' if isinstance(answer, int) else answer.value}"
        for answer, count in counts
    )


def _held_up(seen: Observed) -> tuple[Reason, str] | None:
    """What keeps pods of the present template from coming up; None as long as nothing does."""
    refused = seen.deployment.condition("ReplicaFailure") if seen.deployment else None
    if refused is not None and refused.status == "True":
        # The message starts with the name of a pod that never was: another one at each attempt.
        refusal = bounds.text(refusals.reason(refused.message), MESSAGE_LIMIT)
        fix = refusals.fix(refused.message) or "change what is named here"
        return Reason.PODS_REFUSED, f"the API server refuses the pods: {refusal}; {fix}"
    troubled = seen.troubled
    if troubled is not None and troubled.trouble is not None:
        return reason_of(troubled.trouble), troubled.message
    return None


def _not_ready(model: InferenceModel, seen: Observed) -> tuple[Reason, str]:
    held_up = _held_up(seen)
    if held_up is not None:
        return held_up
    if not seen.replicas:
        return Reason.REPLICAS_NOT_READY, "the Deployment has no pod yet"
    if any(pod.other_source and pod.ready for pod in seen.replicas):
        return Reason.REPLICAS_NOT_READY, (
            "those of the source before go on serving until pods with versions of "
            f"{model.spec.model.storage_uri} take their place{_once_resumed(model)}"
        )
    if not seen.reports:
        return Reason.REPLICAS_NOT_READY, (
            "no pod's container poller runs and answers yet; if that lasts, "
            "`kubectl describe pod` says why (a Secret or ConfigMap that is not there, say)"
        )
    if seen.record.wanted is None:
        return Reason.WAITING_FOR_VERSION, "the pods wait for a first version, see SourceReady"
    return Reason.REPLICAS_NOT_READY, "the others are starting or loading"


def _once_resumed(model: InferenceModel) -> str:
    return ", once spec.suspend is false" if model.spec.suspend else ""


_UNHEARD: Final = (SourceReason.UNREACHABLE, SourceReason.ACCESS_DENIED)
"""How a pod sees its source that has no network, or nobody yet who says who it is."""


def _kept_waiting(seen: Observed) -> str:
    """What may keep pods from their source: a proxy that waits for the poller, and it for that."""
    names = (
        pod.behind_poller
        for pod in seen.pods
        if pod.behind_poller and pod.report and pod.report.source.reason in _UNHEARD
    )
    name = next(names, None)
    if name is None:
        return ""
    return (
        f"; the container {name} starts only when the poller has a version: if it is the pod's way"
        " to the network, as a mesh's proxy is, it has to be a native sidecar"
    )


def source_ready(model: InferenceModel, seen: Observed) -> Verdict:
    """Whether the bucket can be listed and holds a version."""
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
            f"{message if uri in message else f'{uri}: {message}'}{some}{_kept_waiting(seen)}",
        )
    if all(source.state is SourceState.PENDING for source in sources):
        return Verdict("Unknown", Reason.NOT_LISTED_YET, f"{uri} is being listed")
    incomplete = _incomplete(seen)
    if incomplete is not None:
        return Verdict(
            "True",
            Reason.INCOMPLETE_UPLOAD,
            f"version {incomplete.version} is not whole: "
            f"{bounds.text(incomplete.message, WORDS) or incomplete.reason}; finish its upload, or "
            "delete it",
        )
    down = [s.notifications for s in sources if s.notifications and not s.notifications.connected]
    if down and down[0].message:
        return Verdict(
            "True",
            Reason.NOTIFICATIONS_DOWN,
            f"{uri} is listed, but only every spec.source.pollInterval: {down[0].message}",
        )
    unusable = _cache(model, seen)
    if unusable is not None:
        return Verdict("True", Reason.CACHE_UNUSABLE, f"{uri} is listed, but {unusable}")
    return Verdict("True", Reason.LISTED, f"{uri} is listed")


_CACHES: Final = {
    CacheState.READ_ONLY: (
        "can't be written, so nothing is kept in it",
        "let the claim be mounted with write access for the pods' fsGroup",
    ),
    CacheState.FULL: (
        "has no room, so nothing more is kept in it",
        "raise spec.storage.cache.maxSize, or enlarge the claim",
    ),
    CacheState.UNUSABLE: (
        "can't be used, so these pods fetch for themselves",
        "look at the claim's volume; it is tried again by itself",
    ),
}
"""What of a cache is told, and what to do about it."""


def _cache(model: InferenceModel, seen: Observed) -> str | None:
    """What is wrong with the cache that pods share, by those that it is worst for."""
    cache = model.spec.storage.cache
    if cache is None:
        return None
    told = [pod for pod in seen.replicas if pod.report is not None and pod.report.cache is not None]
    for state in (CacheState.UNUSABLE, CacheState.READ_ONLY, CacheState.FULL):
        found = [
            (pod, pod.report.cache.message)
            for pod in told
            if pod.report and pod.report.cache and pod.report.cache.state is state
        ]
        if found:
            what, fix = _CACHES[state]
            pods = _pods([pod for pod, _ in found])
            return (
                f"the cache on claim {cache.claim_name} (spec.storage.cache) {what} ({pods}): "
                f"{bounds.text(found[0][1], WORDS)}; {fix}"
            )
    return None


def _incomplete(seen: Observed) -> VersionStatus | None:
    newest = versions.latest(seen.reports)
    unfinished = [
        version
        for report in seen.reports
        for version in report.versions
        if version.state is VersionState.INCOMPLETE
        and version.in_source
        and version.reason is not VersionReason.UNSTABLE_LISTING
        and (newest is None or version.version > newest)
    ]
    return max(unfinished, key=lambda version: version.version, default=None)


def missed(model: InferenceModel, seen: Observed) -> VersionStatus | None:
    """The version that would be the target if any pod could fetch it."""
    target = seen.record.wanted
    if model.spec.model.version is not None or target is None:
        return None
    failing = [
        version
        for report in seen.reports
        for version in report.versions
        if version.version > target and versions.is_failing(version)
    ]
    return max(failing, key=lambda version: version.version, default=None)


def failure(model: InferenceModel, seen: Observed) -> QuarantinedVersion | None:
    """The quarantined version that would be served if it were good."""
    pinned = model.spec.model.version
    target = seen.record.wanted
    if pinned is not None:
        failed = versions.blocked(pinned, seen.record)
    else:
        failed = next(iter(seen.record.quarantined), None)
        if failed is not None and target is not None and failed.version < target:
            failed = None
    # Of the version that is rolled out, other objects failed.
    return None if failed is None or failed.version == seen.record.candidate else failed


def model_loaded(model: InferenceModel, seen: Observed, active: int | None) -> Verdict:
    """Whether the wanted version, pinned or newest, is reached."""
    target = seen.record.wanted
    failed = failure(model, seen)
    instead = "nothing is served yet" if active is None else f"version {active} goes on serving"
    if failed is not None and seen.reached != failed.version:
        why = bounds.text(failed.message, WORDS).rstrip(". ")
        fix = "" if "upload" in why.lower() else "; upload a repaired version"
        return Verdict(
            "False",
            reason_of(failed.reason),
            f"version {failed.version} is quarantined, {instead}: {why}{fix}",
        )
    if target is None:
        return _no_target(model, seen)
    awaited = missed(model, seen)
    if awaited is not None and awaited.reason is not None:
        return Verdict(
            "False",
            reason_of(awaited.reason),
            f"version {awaited.version} can't be fetched and is tried again, {instead}: "
            f"{_told(model, awaited)}",
        )
    known = [version for pod in seen.replicas if (version := pod.version(target)) is not None]
    known = [v for v in known if v.in_source or v.state is not VersionState.INCOMPLETE]
    if seen.on_target:
        changed = next((v for v in known if v.reason is VersionReason.CHANGED_AFTER_PUBLISH), None)
        if changed is not None:
            return Verdict(
                "True",
                Reason.CHANGED_AFTER_PUBLISH,
                f"version {target} serves as it was fetched, but changed in the bucket since; "
                "upload changed models under a new number",
            )
        return Verdict(
            "True", Reason.LOADED, f"version {target} answers on all of {seen.wanted} replicas"
        )
    if seen.unknown:
        return Verdict(
            "Unknown",
            Reason.POLLER_UNREACHABLE,
            f"these pods can't be asked: {_pods(seen.unknown)}; see Ready",
        )
    if not seen.reports:
        return _no_report(seen, f"version {target}")
    return _on_its_way(model, target, seen, known)


def _no_report(seen: Observed, about: str) -> Verdict:
    if seen.wanted == 0:
        return Verdict("False", Reason.SCALED_TO_ZERO, "no replica is wanted, see Ready")
    return Verdict("Unknown", Reason.NO_REPORT, f"no pod has reported about {about} yet")


def _no_target(model: InferenceModel, seen: Observed) -> Verdict:
    if any(isinstance(problem, InvalidRecordError) for problem in seen.problems):
        return Verdict(
            "Unknown", Reason.INVALID_RECORD, "which version is wanted can't be read, see Stalled"
        )
    if not seen.reports:
        return _no_report(seen, "any version")
    wanted = model.spec.model
    newest = versions.latest(seen.reports)
    if wanted.min_version is None or newest is None or newest >= wanted.min_version:
        return Verdict("False", Reason.NO_TARGET, "no version to load is known, see SourceReady")
    serving = sorted({str(answer) for answer in seen.answers if isinstance(answer, int)})
    going_on = f"; pods that serve version {', '.join(serving)} go on with it" if serving else ""
    return Verdict(
        "False",
        Reason.BELOW_MIN_VERSION,
        f"all versions in {wanted.storage_uri} are below spec.model.minVersion "
        f"{wanted.min_version}, the newest is {newest}{going_on}; upload one that is not, or lower "
        "spec.model.minVersion",
    )


def _on_its_way(
    model: InferenceModel, target: int, seen: Observed, known: Sequence[VersionStatus]
) -> Verdict:
    rollout = _running(seen)
    if rollout is not None and rollout.phase == Phase.PAUSED:
        return Verdict("False", Reason.ROLLOUT_PAUSED, rollout.message)
    # A reason beside any state says why the version makes no progress on that pod.
    held = next((version for version in known if version.reason is not None), None)
    if held is not None and held.reason is not None:
        return Verdict("False", reason_of(held.reason), f"version {target}: {_told(model, held)}")
    listed = all(report.source.state is SourceState.READY for report in seen.reports)
    if not known and listed:
        return Verdict(
            "False",
            Reason.VERSION_NOT_FOUND,
            f"version {target} is neither in {model.spec.model.storage_uri} nor on a pod's disk; "
            "upload it, or set spec.model.version to one that is there",
        )
    serving = sum(pod.answer == target for pod in seen.ready)
    if serving:
        draining = sum(pod.gets_requests for pod in seen.pods if pod.draining)
        ending = f"; {draining} that drain may answer with another one" if draining else ""
        return Verdict(
            "False",
            Reason.LOADING,
            f"version {target} answers on {serving} of {seen.wanted} replicas{ending}",
        )
    fetched = (VersionState.FETCHED, VersionState.PUBLISHED, VersionState.AVAILABLE)
    if any(version.state in (*fetched, VersionState.RETIRED) for version in known):
        return Verdict("False", Reason.LOADING, f"version {target} is being loaded")
    return Verdict("False", Reason.FETCHING, f"version {target} is being fetched")


def _told(model: InferenceModel, version: VersionStatus) -> str:
    """What a poller says of a version, with the field, which it doesn't know."""
    words = version.message or str(version.reason)
    if version.reason is not VersionReason.INSUFFICIENT_DISK:
        return words
    kept = model.spec.model.retain_versions
    return f"{words} ({_volume(model.spec.storage)}; spec.model.retainVersions is {kept})"


def _volume(storage: Storage) -> str:
    """What says how large a replica's volume is."""
    template, own = storage.volume_claim_template, storage.empty_dir
    if template is not None:
        size = template.spec.resources.requests.storage
        return f"spec.storage.volumeClaimTemplate asks for {size}"
    if own is not None and own.size_limit is not None:
        return f"spec.storage.emptyDir.sizeLimit is {own.size_limit}"
    return "the volume is on the node's disk"


def version_skew(seen: Observed) -> Verdict:
    """Whether the pods that get requests answer with different versions."""
    answers = seen.answers
    known = {answer for answer in answers if answer is not Unversioned.UNKNOWN}
    if len(known) > 1:
        return Verdict(
            "True",
            Reason.VERSIONS_DIFFER,
            f"pods that get requests answer: {_answers(seen)}; it passes with the version change, "
            "see ModelLoaded",
        )
    if Unversioned.UNKNOWN in answers:
        return Verdict(
            "Unknown",
            Reason.POLLER_UNREACHABLE,
            f"these pods can't be asked: {_pods(seen.unknown)}; see Ready",
        )
    if not answers:
        return Verdict("False", Reason.NOT_SERVING, "no replica gets requests")
    return Verdict("False", Reason.SAME_VERSION, f"pods that get requests answer: {_answers(seen)}")


def reconciling(
    model: InferenceModel, seen: Observed, active: int | None, stalled: Verdict
) -> Verdict:
    """Whether something is still on its way to what is wanted."""
    if stalled.status == "True":
        return blocked(stalled)
    if model.spec.suspend:
        return Verdict(
            "False", Reason.SUSPENDED, "spec.suspend is true: nothing is changed, only reported"
        )
    for problem in seen.problems:
        if isinstance(problem, TransientError):
            lasting = isinstance(problem, LastingError)
            reason = Reason.APPLY_FAILED if lasting else Reason.APPLYING
            return Verdict("True", reason, f"not everything is applied yet: {problem}")
    if not seen.rolled_out:
        held_up = _held_up(seen)
        why = f": {held_up[1]}" if held_up else ""
        return Verdict(
            "True", Reason.ROLLING_OUT, f"the Deployment is on its way to the wanted pods{why}"
        )
    if not seen.on_target and seen.wanted > 0:
        target = seen.record.wanted
        if target is None:
            return Verdict("True", Reason.CHANGING_VERSION, "waiting for a first version")
        before = "" if active in (None, target) else f" from version {active}"
        rollout = _running(seen)
        step = f": {rollout.message}" if rollout is not None and rollout.message else ""
        return Verdict(
            "True", Reason.CHANGING_VERSION, f"replicas move{before} to version {target}{step}"
        )
    awaited = missed(model, seen)
    if awaited is not None and seen.wanted > 0:
        return Verdict(
            "True",
            Reason.CHANGING_VERSION,
            f"version {awaited.version} can't be fetched and is tried again, see ModelLoaded",
        )
    if seen.hold is not None:
        return _held(seen.hold)
    return Verdict("False", Reason.SETTLED, "everything is as wanted")


def _running(seen: Observed) -> RolloutStatus | None:
    """The rollout of the wanted version, as long as it runs."""
    rollout = seen.rollout
    if rollout is None or Phase(rollout.phase).is_ended:
        return None
    return rollout if rollout.version == seen.record.wanted else None


def rollout_paused(seen: Observed) -> Verdict:
    """Whether a rollout waits for somebody."""
    rollout = seen.rollout
    if rollout is not None and rollout.phase == Phase.PAUSED:
        return Verdict("True", Reason.ROLLOUT_PAUSED, rollout.message)
    return Verdict("False", Reason.NOT_PAUSED, "no rollout waits for anybody")


def _held(hold: Hold) -> Verdict:
    # Not True: all that the spec asks for is so, and whoever waits for that need not wait longer.
    if hold is Hold.STOPPED:
        return Verdict(
            "False",
            Reason.UPDATE_STOPPED,
            "everything in the spec is as wanted; the pods are not replaced for the operator's own "
            "newest template, for those of another InferenceModel don't come up with it (the "
            "operator's log names it)",
        )
    return Verdict(
        "False",
        Reason.AWAITING_TURN,
        "everything in the spec is as wanted; the pods are replaced for the operator's own newest "
        "template when it is their turn",
    )


def blocked(stalled: Verdict) -> Verdict:
    """What Reconciling says while the resource is stalled."""
    return Verdict("False", Reason.BLOCKED, f"see Stalled: {stalled.reason}")


def stalled(model: InferenceModel, seen: Observed) -> Verdict:
    """Whether somebody has to change something before it can go on."""
    for problem in seen.problems:
        if isinstance(problem, PermanentError):
            return Verdict("True", _stall_reason(problem), str(problem))
    crashed = seen.troubled
    if crashed is not None and crashed.trouble in CRASHED and not _template_serves(seen):
        return Verdict(
            "True",
            reason_of(crashed.trouble),
            f"no pod of the present pod template comes up: {crashed.message}",
        )
    progressing = seen.deployment.condition("Progressing") if seen.deployment else None
    overdue = progressing is not None and progressing.reason == "ProgressDeadlineExceeded"
    if overdue and not _is_coming(seen):
        reason, why = _not_ready(model, seen)
        return Verdict(
            "True",
            Reason.PROGRESS_DEADLINE_EXCEEDED,
            f"the Deployment made no progress for its deadline ({reason}): {why}",
        )
    return Verdict("False", Reason.NOT_STALLED, "nothing has to be changed")


def _is_coming(seen: Observed) -> bool:
    """Whether a pod of the present template fetches or loads what it is to serve, as it should.

    That may take longer than any deadline of a Deployment. Its poller says when it fails or hangs.
    """
    target = seen.record.wanted
    if target is None:
        return False
    coming = (pod.version(target) for pod in seen.replicas if pod.current and not pod.ready)
    return any(v and v.reason is None and v.state in _COMING for v in coming)


def _template_serves(seen: Observed) -> bool:
    """Whether a pod of the present template serves: it can, so what ends another is not it."""
    return any(pod.ready and pod.current for pod in seen.replicas)


def terminating(finalizers: str) -> dict[ConditionType, Verdict]:
    """What is said of a resource that is deleted and held, instead of the usual."""
    why = f"it is being deleted, which waits for the finalizers {finalizers}; nothing is changed"
    return {
        ConditionType.READY: Verdict("False", Reason.TERMINATING, why),
        ConditionType.RECONCILING: Verdict("True", Reason.TERMINATING, why),
        ConditionType.STALLED: Verdict("False", Reason.NOT_STALLED, "nothing has to be changed"),
    }


def _stall_reason(problem: PermanentError) -> Reason:
    match problem:
        case AddressConflictError():
            return Reason.ADDRESS_CONFLICT
        case NameConflictError() | NameConflictsError():
            return Reason.NAME_CONFLICT
        case InvalidModelError():
            return Reason.INVALID_SPEC
        case InvalidRecordError():
            return Reason.INVALID_RECORD
        case NotOfferedError():
            return Reason.KIND_MISSING
        case ContestedError():
            return Reason.CONTESTED
        case _:
            return Reason.REFUSED


WORDS: Final = 600
"""Bytes of the words of others in a message: what to do about it comes behind them."""
NAMED: Final = 5
"""So many pods are named in a message."""


def _pods(pods: Sequence[Replica]) -> str:
    more = f" and {len(pods) - NAMED} more" if len(pods) > NAMED else ""
    return ", ".join(pod.name for pod in pods[:NAMED]) + more
