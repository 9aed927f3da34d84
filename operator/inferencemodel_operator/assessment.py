"""From observations to the status: a pure function.

Nothing in it changes by time alone, so an unchanged observation gives an unchanged status.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from inferencemodel_operator import bounds, disk, history, names, store, verdicts, versions
from inferencemodel_operator.conditions import ConditionType, Reason
from inferencemodel_operator.errors import InvalidRecordError
from inferencemodel_operator.observed import Unversioned
from inferencemodel_operator.settings import DEFAULT_INTERCEPTOR
from inferencemodel_operator.status import (
    LISTED_VERSIONS,
    Condition,
    ModelStatus,
    Quarantine,
    Status,
    Version,
)
from inferencemodel_operator.verdicts import Verdict
from model_poller.status import SourceState, VersionState

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from inferencemodel_operator.errors import InvalidModelError
    from inferencemodel_operator.observed import Observed
    from inferencemodel_operator.spec import InferenceModel

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


def assess(
    model: InferenceModel,
    seen: Observed,
    previous: Status,
    now: datetime,
    *,
    finalizers: str = "",
    interceptor_port: int = DEFAULT_INTERCEPTOR.port,
) -> Status:
    """The whole status.

    Args:
        model: the resource.
        seen: what was observed.
        previous: the live status, for what outlives an observation.
        now: the time of transitions that this call finds; UTC.
        finalizers: what holds a resource that is being deleted; empty for one that is not.
        interceptor_port: where the interceptor of KEDA's HTTP add-on takes requests.
    """
    cut_off = _cut_off(model, previous.model)
    before = ModelStatus() if cut_off else previous.model
    active = active_version(seen, before.active_version)
    stalled = verdicts.stalled(model, seen)
    judged = {
        ConditionType.READY: verdicts.ready(model, seen),
        ConditionType.SOURCE_READY: verdicts.source_ready(model, seen),
        ConditionType.MODEL_LOADED: verdicts.model_loaded(model, seen, active),
        ConditionType.VERSION_SKEW: verdicts.version_skew(seen),
        ConditionType.RECONCILING: verdicts.reconciling(model, seen, active, stalled),
        ConditionType.STALLED: stalled,
        ConditionType.ROLLOUT_PAUSED: verdicts.rollout_paused(seen),
    }
    if finalizers:
        judged |= verdicts.terminating(finalizers)
    ready = len(seen.ready)
    unread = any(isinstance(problem, InvalidRecordError) for problem in seen.problems)
    # What can't be read is no other than before.
    quarantined = before.quarantined if unread else _quarantined(seen)
    target = before.target_version if unread else seen.record.wanted
    return Status(
        observed_generation=model.metadata.generation,
        conditions=_conditions(judged, model.metadata.generation, previous, now),
        url=_url(model, previous, interceptor_port),
        replicas=len(seen.replicas),
        ready_replicas=ready,
        selector=names.selector_text(model.name),
        replica_summary=f"{ready}/{seen.wanted}",
        model=ModelStatus(
            name=model.model_name,
            storage_uri=model.spec.model.storage_uri,
            store=store.of_source(model.spec.source),
            active_version=active,
            target_version=target,
            served_versions=before.served_versions if unread else seen.record.served,
            latest_version=_latest(seen, before.latest_version),
            transition_status=_transition(model, seen),
            disk_needed=disk.needed(model, seen.reports, before.disk_needed),
            versions=_versions(seen, active),
            quarantined=quarantined,
            history=history.carry_on(
                before.history,
                target=target,
                reached=seen.reached,
                quarantined=quarantined,
                now=now,
            ),
            last_failure=history.last_failure(before, quarantined, seen, now),
            rollout=history.last_rollout(previous.model.rollout, seen.rollout, cut_off, now),
        ),
    )


def assess_invalid(
    problem: InvalidModelError, generation: int, previous: Status, now: datetime
) -> Status:
    """The status of a resource that can't be understood: what was known, and what is wrong."""
    stalled = Verdict("True", Reason.INVALID_SPEC, str(problem))
    judged = {ConditionType.RECONCILING: verdicts.blocked(stalled), ConditionType.STALLED: stalled}
    return replace(
        previous,
        observed_generation=generation,
        conditions=_conditions(judged, generation, previous, now),
    )


def active_version(seen: Observed, previous: int | None) -> int | None:
    """The version that was reached last, as long as clients get answers of it.

    None while nobody gets requests, and while those who do answer with others than the version
    that was reached last and no other one is reached. Where it can't be asked, it stays.
    """
    answers = seen.answers
    if seen.reached is not None:
        return seen.reached
    if Unversioned.UNKNOWN in answers or previous in answers:
        return previous
    return None


def _url(model: InferenceModel, previous: Status, interceptor_port: int) -> str:
    """Where the model is, not where it will be once what the spec asks for is applied."""
    if model.spec.suspend:
        return previous.url
    if model.scaled_by_requests:
        return model.url_by(names.interceptor(model.name), interceptor_port)
    return model.url


def _cut_off(model: InferenceModel, before: ModelStatus) -> str:
    """By what all that was known about versions is about others than those of the spec's source.

    Empty where it is about these.
    """
    # Releases before this one wrote none.
    if before.storage_uri not in ("", model.spec.model.storage_uri):
        now = model.spec.model.storage_uri
        return f"it was a version of {before.storage_uri}; spec.model.storageUri is {now} now"
    if not store.same(before.store, now := store.of_source(model.spec.source)):
        return (
            f"it was a version on another server ({before.store}); by spec.source it is {now} now"
        )
    return ""


def _latest(seen: Observed, previous: int | None) -> int | None:
    """The newest whole version in the bucket; while nobody can list it, what was there last."""
    listed = [r for r in seen.reports if r.source.state is SourceState.READY]
    return versions.latest(listed) if listed else previous


def _transition(model: InferenceModel, seen: Observed) -> str:
    if model.spec.suspend:
        return "Suspended"
    if seen.unknown:
        return "Unknown"
    failed = verdicts.failure(model, seen)
    if failed is not None and seen.reached != failed.version:
        return "BlockedByFailedLoad"
    if not any(isinstance(answer, int) for answer in seen.answers):
        return "Pending"
    is_newest = seen.on_target and verdicts.missed(model, seen) is None
    return "UpToDate" if is_newest and seen.rolled_out else "InProgress"


def _versions(seen: Observed, active: int | None) -> tuple[Version, ...]:
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
    wanted = [number for number in (seen.record.wanted, active) if number in states]
    newest = [number for number in sorted(states, reverse=True) if number not in wanted]
    shown = {*wanted, *newest[: LISTED_VERSIONS - len(set(wanted))]}
    return tuple(
        Version(version=number, state=str(states[number]), replicas=serving[number])
        for number in sorted(shown, reverse=True)
    )


def _quarantined(seen: Observed) -> tuple[Quarantine, ...]:
    # Two uploads under one number can both have failed; one of them is reported.
    entries = {entry.version: entry for entry in reversed(seen.record.quarantined)}
    wanted = {seen.record.wanted} & entries.keys()
    newest = sorted(entries.keys() - wanted, reverse=True)
    shown = {*wanted, *newest[: LISTED_VERSIONS - len(wanted)]}
    return tuple(
        Quarantine(
            version=number, reason=entry.reason, message=bounds.text(entry.message, bounds.MESSAGE)
        )
        for number, entry in sorted(entries.items(), reverse=True)
        if number in shown
    )


def _conditions(
    judged: Mapping[ConditionType, Verdict], generation: int, previous: Status, now: datetime
) -> tuple[Condition, ...]:
    conditions = []
    for kind in ConditionType:
        old = previous.condition(kind)
        verdict = judged.get(kind)
        if verdict is None:
            if old is not None:
                conditions.append(old)
            continue
        same = old is not None and old.status == verdict.status
        conditions.append(
            Condition(
                type=kind.value,
                status=verdict.status,
                observed_generation=generation,
                # metav1.Time has whole seconds.
                last_transition_time=(old.last_transition_time if same and old else None)
                or now.replace(microsecond=0),
                reason=verdict.reason.value,
                message=bounds.text(verdict.message, bounds.MESSAGE),
            )
        )
    return tuple(conditions)
