"""The status of an InferenceModel: a pure function of what was observed.

Nothing in it changes by time alone, so an unchanged observation gives an unchanged status.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from inferencemodel_operator import history, names, verdicts, versions
from inferencemodel_operator.conditions import ConditionType, Reason
from inferencemodel_operator.verdicts import Verdict
from model_poller.status import VersionState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from inferencemodel_operator.errors import InvalidModelError
    from inferencemodel_operator.observed import Observed
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


def compute(model: InferenceModel, seen: Observed, previous: Mapping[str, Any], now: str) -> Status:
    """The whole status.

    Args:
        model: the resource.
        seen: what was observed.
        previous: the live status, for what outlives an observation.
        now: the time of transitions that this call finds (RFC 3339, UTC, any precision).
    """
    before = previous.get("model") or {}
    active = active_version(seen, before.get("activeVersion"))
    latest = versions.latest(seen.reports)
    ready = len(seen.ready)
    stalled = verdicts.stalled(seen)
    judged = {
        ConditionType.READY: verdicts.ready(model, seen, active),
        ConditionType.SOURCE_READY: verdicts.source_ready(model, seen),
        ConditionType.MODEL_LOADED: verdicts.model_loaded(model, seen, active),
        ConditionType.VERSION_SKEW: verdicts.version_skew(seen),
        ConditionType.RECONCILING: verdicts.reconciling(model, seen, active, stalled),
        ConditionType.STALLED: stalled,
    }
    return {
        "observedGeneration": model.metadata.generation,
        "conditions": _conditions(judged, model.metadata.generation, previous, now),
        "url": model.url,
        "replicas": len(seen.pods),
        "readyReplicas": ready,
        "selector": names.selector_text(model.name),
        "replicaSummary": f"{ready}/{seen.wanted}",
        "model": _present(
            {
                "name": model.model_name,
                "activeVersion": active,
                "targetVersion": seen.record.target,
                "servedVersions": list(seen.record.served),
                "latestVersion": before.get("latestVersion") if latest is None else latest,
                "transitionStatus": _transition(model, seen, active),
                "versions": _versions(seen, active),
                "quarantined": _quarantined(seen),
                "history": history.carry_on(
                    before.get("history") or (),
                    target=seen.record.target,
                    active=active,
                    quarantined=seen.record.quarantined,
                    now=now,
                ),
                "lastFailureInfo": history.last_failure(before, seen, now),
            }
        ),
    }


def invalid(
    problem: InvalidModelError, generation: int, previous: Mapping[str, Any], now: str
) -> Status:
    """The status of a resource that can't be understood: what was known, and what is wrong."""
    stalled = Verdict("True", Reason.INVALID_SPEC, str(problem))
    judged = {ConditionType.RECONCILING: verdicts.blocked(stalled), ConditionType.STALLED: stalled}
    return {
        **previous,
        "observedGeneration": generation,
        "conditions": _conditions(judged, generation, previous, now),
    }


def active_version(seen: Observed, previous: int | None) -> int | None:
    """The version that clients get.

    While some ready pod can't be asked, the previous answer stays. While the answering pods differ
    it is the one that most of them serve among those that are not the target, the lowest of
    equals: a version counts as reached only when every replica has it.
    """
    if not seen.ready:
        return None
    if seen.unknown:
        return previous
    served = Counter(pod.active for pod in seen.answering)
    if len(served) == 1:
        return seen.ready[0].active
    behind = [
        (-count, version)
        for version, count in served.items()
        if version is not None and version != seen.record.target
    ]
    return min(behind)[1] if behind else previous


def _transition(model: InferenceModel, seen: Observed, active: int | None) -> str:
    if model.spec.suspend:
        return "Suspended"
    if seen.unknown:
        return "Unknown"
    failed = verdicts.failure(model, seen)
    if failed is not None and active != failed.version:
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
    judged: Mapping[ConditionType, Verdict],
    generation: int,
    previous: Mapping[str, Any],
    now: str,
) -> list[Status]:
    before = {c["type"]: c for c in previous.get("conditions") or ()}
    # metav1.Time has whole seconds.
    moment = f"{now[:19]}Z"
    conditions = []
    for kind in ConditionType:
        old = before.get(kind)
        verdict = judged.get(kind)
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
                "lastTransitionTime": old["lastTransitionTime"] if same and old else moment,
                "reason": verdict.reason.value,
                "message": verdict.message,
            }
        )
    return conditions


def _present(fields: Status) -> Status:
    # Of a list that becomes empty, server-side apply takes the field away as well.
    return {name: value for name, value in fields.items() if value is not None and value != []}
