"""Which version is the target: a pure function of the spec, the memory and the pods' reports."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

import msgspec

from inferencemodel_operator import bounds
from inferencemodel_operator.conditions import Reason
from inferencemodel_operator.record import (
    PROOFS,
    TEMPLATES,
    ActiveVersion,
    QuarantinedVersion,
    VersionsRecord,
    WorkingTemplate,
    tried_in,
)
from model_poller.status import (
    PollerStatus,
    SourceState,
    VersionReason,
    VersionState,
    VersionStatus,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from inferencemodel_operator import spec

COMPLETE: Final = frozenset(
    {
        VersionState.DISCOVERED,
        VersionState.FETCHING,
        VersionState.FETCHED,
        VersionState.PUBLISHED,
        VersionState.AVAILABLE,
        VersionState.RETIRED,
    }
)
"""States of a version that is whole, in the bucket or on the disk of a pod."""

_ON_THE_WAY: Final = frozenset({VersionState.DISCOVERED, VersionState.FETCHING})
"""States of a version that is whole in the bucket, and not on the pod's disk."""

_NOT_ITS_OWN: Final = frozenset(
    {None, VersionReason.WARMUP_UNAVAILABLE, VersionReason.QUARANTINED_ELSEWHERE}
)

_TRIES: Final = 2
"""A fetch that failed so often in a row doesn't heal in a moment: its poller tries others, too."""

AGAINST: Final = 2
"""So many pods that have looked into the bucket count for more than one that tells otherwise."""

ON_DISK: Final = COMPLETE - _ON_THE_WAY
"""States of a version that is whole on the pod's disk."""

_SERVED: Final = frozenset({VersionState.AVAILABLE, VersionState.RETIRED})
"""States of a version that the pod has answered with; a newer poller says it by ``proven``."""

ROLLOUT_REASONS: Final = frozenset(
    reason.value
    for reason in (
        Reason.ABORTED,
        Reason.DEADLINE_EXCEEDED,
        Reason.ERROR_RATE,
        Reason.GOLDEN_MISMATCH,
        Reason.INSUFFICIENT_MEMORY,
        Reason.LATENCY,
        Reason.OBJECTS_CHANGED,
        Reason.REHEARSAL_FAILED,
        Reason.CRASHED_SERVING,
        Reason.SIGNATURE_INCOMPATIBLE,
    )
)
"""Why a rollout takes a version back: a judgement that no version escapes by having served."""

MOST: Final = bounds.VERSIONS
"""Quarantined versions that are remembered, newest first."""
MOST_OF_ONE: Final = 8
"""Of those, such as one pod alone tells of, where others have looked into the bucket: no pod's word
makes room for itself by what is known to be bad."""


class PodVersions(msgspec.Struct, frozen=True, kw_only=True):
    """What one pod contributes to the decision."""

    report: PollerStatus | None
    """None while the pod can't be asked."""
    template: str = ""
    """Hash of the pod template that the pod was made from."""
    crashed: int | None = None
    """A version during whose load the model server ended again and again."""


def decide(
    model: spec.Model,
    record: VersionsRecord,
    pods: Sequence[PodVersions],
    *,
    reached: int | None,
    unfounded: Collection[int] = frozenset(),
) -> VersionsRecord:
    """The next record: what every pod is to serve in the end, and what none is to try again.

    Its target is the goal. How it gets there, all at once or replica by replica, is decided by
    `rollout.plan`.

    The target is the pinned version, else the newest complete version that is not quarantined
    and not below ``minVersion``. Without a pin it goes down only when it is quarantined, or when
    every pod says that it is neither in the bucket nor on any disk: a wiped or unreadable bucket
    takes nothing back. One that is rolled out when it is taken out of a bucket that holds others is
    called off, unless all pods have it already. One that no pod can fetch holds up no other: while
    it is on no disk, the target is the newest that can be had. Without any that meets
    ``minVersion`` there is no target: no pod begins with a lower one, and those that serve one go
    on with it.

    A model server that ends again and again speaks against a version only where its pod template
    has served another one; else the template may be what is wrong. Such pods have to be as many as
    those that serve the version.

    Args:
        model: ``spec.model``.
        record: what was decided and remembered before; of another source it counts for nothing.
        pods: the pods with the spec's source, and what those that drain still tell.
        reached: the version that all wanted replicas are known to serve. A version that has come
            that far is not taken back because one more pod fails with it.
        unfounded: versions that one pod alone says are there, see `hearsay`. One that all replicas
            were known to serve is not among them, wherever it is by now.
    """
    record = record.about(model.storage_uri)
    known = [pod.report for pod in pods if pod.report is not None]
    served = {
        version.tried
        for report in known
        for version in report.versions
        if version.version == report.active_version == reached
    }
    # A version that none of these pods serves now proves nothing of theirs.
    reached = reached if served else None
    record = msgspec.structs.replace(
        record,
        source=model.storage_uri,
        active=_active(record.active, reached, served),
        templates=_templates(record.templates, pods),
    )
    quarantined = _quarantined(record, pods, known, reached)
    unfounded = {*unfounded} - {None if record.active is None else record.active.version}
    there = _there(known, quarantined, unfounded, all_known=len(known) == len(pods) > 0)
    target = model.version
    if target is None:
        target = _newest(model.min_version or 0, record, quarantined, there)
    return msgspec.structs.replace(
        record,
        target=target,
        served=_served(model, target, record, quarantined, there),
        quarantined=quarantined,
    )


def staying(
    model: spec.Model, target: int, decided: VersionsRecord, pods: Sequence[PodVersions]
) -> VersionsRecord:
    """What `decide` would say if the goal were this version, which goes on serving until then."""
    known = [pod.report for pod in pods if pod.report is not None]
    there = _there(known, decided.quarantined, frozenset(), all_known=len(known) == len(pods) > 0)
    return msgspec.structs.replace(
        decided, target=target, served=_served(model, target, decided, decided.quarantined, there)
    )


def latest(reports: Iterable[PollerStatus]) -> int | None:
    """The newest version that a bucket holds whole, good or bad."""
    return max(
        (
            version.version
            for report in reports
            for version in report.versions
            if version.in_source and version.state is not VersionState.INCOMPLETE
        ),
        default=None,
    )


def blocked(version: int, record: VersionsRecord) -> QuarantinedVersion | None:
    """Why a version is quarantined; None when it is not."""
    return next((entry for entry in record.quarantined if entry.version == version), None)


class _There(msgspec.Struct, frozen=True):
    """The good versions that pods tell of."""

    whole: frozenset[int]
    """In the bucket or on some disk."""
    doubtful: frozenset[int]
    """On no disk, and some pod fails to fetch it, or has found that a part is missing."""
    hopeless: frozenset[int]
    """On no disk, and all pods that know of it fail to fetch it."""
    offered: frozenset[int]
    """Those that one may turn to: what was only retained on a disk is not among them."""
    unfounded: frozenset[int]
    """Those that are nowhere, though one pod tells of them; they are in none of the others."""
    withdrawn: frozenset[int]
    """On some disks, but not on all, and no longer in a bucket that holds others."""
    is_all: bool
    """Whether every pod has told, after a look into the bucket."""

    def gone(self, version: int) -> bool:
        """Whether a version is known to be nowhere, or not good."""
        return version in self.unfounded or (self.is_all and version not in self.whole)


def _there(
    known: Sequence[PollerStatus],
    quarantined: Iterable[QuarantinedVersion],
    unfounded: Collection[int],
    *,
    all_known: bool,
) -> _There:
    failed = failed_objects(quarantined)
    versions = [v for report in known for v in report.versions if v.version not in unfounded]
    whole = frozenset(v.version for v in versions if v.state in COMPLETE and may_be_good(v, failed))
    offered = frozenset(
        v.version
        for v in versions
        if v.version in whole and (v.in_source or v.state is VersionState.AVAILABLE)
    )
    on_the_way = frozenset(v.version for v in versions if v.state in _ON_THE_WAY)
    missing = on_the_way - {v.version for v in versions if v.state in COMPLETE - _ON_THE_WAY}
    failing = frozenset(v.version for v in versions if is_failing(v))
    unfinished = frozenset(v.version for v in versions if is_unfinished(v))
    coming = {v.version for v in versions if v.state in _ON_THE_WAY and not is_failing(v)}
    listed = all(report.source.state is SourceState.READY for report in known)
    return _There(
        whole=whole,
        doubtful=missing & (failing | unfinished),
        hopeless=missing & failing - coming,
        offered=offered,
        unfounded=frozenset(unfounded),
        withdrawn=_withdrawn(known),
        is_all=all_known and listed,
    )


def _withdrawn(known: Iterable[PollerStatus]) -> frozenset[int]:
    stored = {v.version for report in known for v in report.versions if v.in_source}
    disks = [
        frozenset(v.version for v in report.versions if v.state in ON_DISK) for report in known
    ]
    if not stored:
        return frozenset()
    return frozenset().union(*disks) - frozenset.intersection(*disks) - stored


def failed_objects(quarantined: Iterable[QuarantinedVersion]) -> set[tuple[int, str]]:
    """Numbers and fingerprints of what failed."""
    return {(entry.version, entry.stored) for entry in quarantined}


def may_be_good(version: VersionStatus, failed: Collection[tuple[int, str]]) -> bool:
    """Whether a pod tells of other objects under a number than those that failed.

    What is on its disk may be good and what is stored by now bad, or the other way about.
    """
    told = (version.version, version.tried), (version.version, version.fingerprint)
    return any(objects not in failed for objects in told)


def is_unfinished(version: VersionStatus) -> bool:
    """Whether a version lacks something in its source that may never come."""
    return (
        version.state is VersionState.INCOMPLETE
        and version.reason is not VersionReason.UNSTABLE_LISTING
    )


def is_failing(version: VersionStatus) -> bool:
    """Whether a pod can't fetch a version, for a reason that isn't common to all versions."""
    if version.state not in _ON_THE_WAY or version.reason in _NOT_ITS_OWN:
        return False
    return version.reason is VersionReason.INSUFFICIENT_DISK or version.failures >= _TRIES


def _newest(
    minimum: int,
    record: VersionsRecord,
    quarantined: Sequence[QuarantinedVersion],
    there: _There,
) -> int | None:
    """The newest good version.

    Args:
        minimum: the lowest that may be turned to.
        record: with the goals so far: the target, and the candidate of a rollout.
        quarantined: the versions that failed.
        there: the good ones that pods tell of.
    """
    target, is_all = record.target, there.is_all
    # Only the target goes on where it is: nothing else could come to all pods any more.
    withdrawn = there.withdrawn - {target} if is_all and target is not None else frozenset[int]()
    offered = {version for version in there.offered - withdrawn if version >= minimum}
    eligible = offered - there.doubtful or offered
    goals = {v for v in (target, record.candidate) if v is not None and v >= minimum}
    good = {version for version in goals if not _is_spoilt(version, quarantined, there)}
    hopeless = there.hopeless if is_all else frozenset[int]()
    lost = {version for version in good if there.gone(version)} | hopeless | withdrawn
    eligible |= good - lost
    return max(eligible or good or goals, default=None)


def _served(
    model: spec.Model,
    target: int | None,
    record: VersionsRecord,
    quarantined: Sequence[QuarantinedVersion],
    there: _There,
) -> tuple[int, ...]:
    """The target and the versions beside it: those served already first, then the next lower.

    Only one that has answered before comes beside the target: one that was never tried could bring
    all replicas down. Requests that name no version get the highest, so none is above the target;
    but where the target is pinned to one that failed, what was served before it goes on.
    """
    if target is None:
        return ()
    minimum = model.min_version or 0
    serving = [
        v
        for v in record.served
        if v != target
        and v in record.proven
        and v >= minimum
        and not there.gone(v)
        and not _is_spoilt(v, quarantined, there)
    ]
    if _is_spoilt(target, quarantined, there):
        return tuple(sorted(serving, reverse=True)[: model.num_versions])
    below = sorted((v for v in serving if v < target), reverse=True)
    new = (v for v in there.offered & record.proven if minimum <= v < target and v not in below)
    beside = [*below, *sorted(new, reverse=True)][: model.num_versions - 1]
    return tuple(sorted((target, *beside), reverse=True))


def _is_spoilt(version: int, quarantined: Sequence[QuarantinedVersion], there: _There) -> bool:
    """Whether a version failed, and nobody has other objects of the same number."""
    return version not in there.whole and any(entry.version == version for entry in quarantined)


def _active(
    before: ActiveVersion | None, reached: int | None, served: Collection[str]
) -> ActiveVersion | None:
    """The version that was last reached, with the fingerprint of what serves of it."""
    if reached is None:
        return before
    if before is not None and before.version == reached and before.fingerprint in served:
        return before
    return ActiveVersion(reached, min(served))


def _was_active(entry: QuarantinedVersion, active: ActiveVersion | None) -> bool:
    return active is not None and (entry.version, entry.stored) == (
        active.version,
        active.fingerprint,
    )


def _templates(
    remembered: Sequence[WorkingTemplate], pods: Sequence[PodVersions]
) -> tuple[WorkingTemplate, ...]:
    """The templates that work, those of live pods first: of too many, the others are forgotten."""
    served = {known.template: set(known.versions) for known in remembered}
    for pod in pods:
        for version in pod.report.versions if pod.report else ():
            if version.proven or version.state in _SERVED:
                served.setdefault(pod.template, set()).add(version.version)
    live = {pod.template for pod in pods}
    ordered = sorted(served, key=lambda template: template not in live)
    return tuple(
        WorkingTemplate(template, tuple(bounds.newest(served[template], PROOFS)))
        for template in ordered[:TEMPLATES]
    )


def _quarantined(
    record: VersionsRecord,
    pods: Sequence[PodVersions],
    known: Sequence[PollerStatus],
    reached: int | None,
) -> tuple[QuarantinedVersion, ...]:
    entries = [
        *(entry for entry in record.quarantined if _still_applies(entry, pods, known)),
        *(_failed(version) for version in _failures(record, pods)),
        *_accused(record, pods),
    ]
    first: dict[tuple[int, str], QuarantinedVersion] = {}
    for entry in entries:
        tried_in_vain = entry.version != reached and not _was_active(entry, record.active)
        if tried_in_vain or entry.reason in ROLLOUT_REASONS:
            first.setdefault((entry.version, entry.fingerprint), entry)
    found = sorted(first.values(), key=lambda e: (-e.version, e.fingerprint))
    single = _of_one(known) if len(found) > MOST_OF_ONE else frozenset()
    left = [entry for entry in found if entry.version in single][MOST_OF_ONE:]
    return tuple(entry for entry in found if entry not in left)[:MOST]


def _of_one(known: Sequence[PollerStatus]) -> frozenset[int]:
    """The versions that one pod alone tells of, where two others or more have looked."""
    listed = sum(report.source.state is SourceState.READY for report in known)
    told = Counter(
        version.version
        for report in known
        for version in report.versions
        if version.in_source
        or version.state is VersionState.QUARANTINED
        or version.state in ON_DISK
    )
    few = frozenset(version for version, count in told.items() if count == 1)
    return few if listed > AGAINST else frozenset()


def _failures(record: VersionsRecord, pods: Sequence[PodVersions]) -> Iterator[VersionStatus]:
    """What one pod has quarantined by a word that counts for all."""
    working = {template for template in {pod.template for pod in pods} if record.works(template)}
    for pod in pods:
        # In a template that has served nothing, beside one that works, it is the template's fault.
        misfit = bool(working) and pod.template not in working
        for version in pod.report.versions if pod.report else ():
            if version.state is not VersionState.QUARANTINED or _is_timeout(version):
                continue
            if _is_tried_again(record, pod.report, version):
                continue
            if not (misfit and version.reason is VersionReason.LOAD_FAILED):
                yield version


def _is_tried_again(
    record: VersionsRecord, report: PollerStatus | None, version: VersionStatus
) -> bool:
    """Whether the pod has yet to hear that the version that failed on it is to be tried again."""
    retry = "" if record.rollout is None else record.rollout.retry
    if not retry.startswith(f"{version.version}@{version.fingerprint}#"):
        return False
    return report is None or report.assigned is None or retry not in report.assigned.rollout


def _is_timeout(version: VersionStatus) -> bool:
    """Whether the model server was silent or too slow: that is judged as a crash is."""
    return (
        version.state is VersionState.QUARANTINED and version.reason is VersionReason.LOAD_TIMEOUT
    )


def _accused(record: VersionsRecord, pods: Sequence[PodVersions]) -> Iterator[QuarantinedVersion]:
    """The versions that bring down as many model servers as serve them, or more."""
    accusations: dict[int, list[tuple[PodVersions, VersionStatus]]] = {}
    for pod in pods:
        for version in pod.report.versions if pod.report else ():
            if version.proven or not (version.version == pod.crashed or _is_timeout(version)):
                continue
            if _is_timeout(version) and _is_tried_again(record, pod.report, version):
                continue
            if record.has_served_another(pod.template, version.version):
                accusations.setdefault(version.version, []).append((pod, version))
    for number, found in accusations.items():
        serving = sum(_serves(pod, number) for pod in pods)
        if len(found) >= serving:
            yield from (_crashed(version, pod.template) for pod, version in found)


def _serves(pod: PodVersions, number: int) -> bool:
    return pod.report is not None and any(
        served.version == number and served.state == "AVAILABLE" for served in pod.report.served
    )


def _still_applies(
    entry: QuarantinedVersion, pods: Sequence[PodVersions], known: Sequence[PollerStatus]
) -> bool:
    if entry.template and pods and all(pod.template != entry.template for pod in pods):
        return False
    listed = [report for report in known if report.source.state is SourceState.READY]
    if not listed:
        return True
    fingerprints = {
        version.fingerprint
        for report in known
        for version in report.versions
        if version.version == entry.version
        # Whatever may be turned to, and what failed.
        and (
            version.in_source or version.state in (VersionState.AVAILABLE, VersionState.QUARANTINED)
        )
    }
    if entry.reason == Reason.OBJECTS_CHANGED:
        # It is about what pods have fetched, and ends once none has it.
        fingerprints = {
            version.tried
            for report in known
            for version in report.versions
            if version.version == entry.version and version.state in ON_DISK
        }
    return entry.stored in fingerprints


def _failed(version: VersionStatus) -> QuarantinedVersion:
    return QuarantinedVersion(
        version=version.version,
        fingerprint=version.fingerprint,
        reason=version.reason.value if version.reason else Reason.LOAD_FAILED.value,
        message=version.message,
    )


def _crashed(version: VersionStatus, template: str) -> QuarantinedVersion:
    timeout = _is_timeout(version)
    return QuarantinedVersion(
        version=version.version,
        # A crash may be the pod's fault (too little memory, a wrong flag) as well as the
        # version's, so another pod template is another attempt.
        fingerprint=tried_in(template, version.tried),
        reason=Reason.LOAD_TIMEOUT.value if timeout else Reason.SERVER_CRASHED.value,
        message=version.message
        if timeout
        else "the model server ends while it loads this version; give it more memory or "
        "correct spec.server, or upload a version that loads",
    )
