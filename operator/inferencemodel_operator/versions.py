"""Which version is the target: a pure function of the spec, the memory and the pods' reports."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from inferencemodel_operator.conditions import Reason
from inferencemodel_operator.record import TEMPLATE, QuarantinedVersion, VersionsRecord
from model_poller.status import PollerStatus, SourceState, VersionState, VersionStatus

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

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
    active: int | None,
) -> VersionsRecord:
    """The next record: target version and quarantined versions.

    The target is the pinned version, else the newest complete version that is not quarantined
    and not below ``minVersion``. Without a pin it goes down only when it is quarantined, or when
    every pod says that it is neither in the bucket nor on any disk: a wiped or unreadable bucket
    takes nothing back.

    Args:
        model: ``spec.model``.
        record: what was decided and remembered before.
        pods: the pods with the spec's source, and what those that drain still tell.
        active: the version that all ready replicas are known to serve. A version that has come
            that far is not taken back because one more pod fails with it.
    """
    known = [pod.report for pod in pods if pod.report is not None]
    quarantined = _quarantined(record.quarantined, pods, known, active)
    there = _there(known, quarantined, active, all_known=len(known) == len(pods) > 0)
    target = model.version
    if target is None:
        target = _newest(model.min_version or 0, record.target, quarantined, there)
    served = _served(model, target, record.served, quarantined, there)
    return VersionsRecord(target=target, served=served, quarantined=quarantined)


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
    offered: frozenset[int]
    """Those that one may turn to: what was only retained on a disk is not among them."""
    is_all: bool
    """Whether every pod has told, after a look into the bucket."""

    def gone(self, version: int) -> bool:
        """Whether a version is known to be nowhere, or not good."""
        return self.is_all and version not in self.whole


def _there(
    known: Sequence[PollerStatus],
    quarantined: Iterable[QuarantinedVersion],
    active: int | None,
    *,
    all_known: bool,
) -> _There:
    bad = {(entry.version, entry.stored) for entry in quarantined}
    versions = [version for report in known for version in report.versions]
    whole = frozenset(
        v.version
        for v in versions
        if v.state in COMPLETE and ((v.version, v.fingerprint) not in bad or v.version == active)
    )
    offered = frozenset(
        v.version
        for v in versions
        if v.version in whole and (v.in_source or v.state is VersionState.AVAILABLE)
    )
    listed = all(report.source.state is SourceState.READY for report in known)
    return _There(whole, offered, all_known and listed)


def _newest(
    minimum: int,
    current: int | None,
    quarantined: Sequence[QuarantinedVersion],
    there: _There,
) -> int | None:
    eligible = {version for version in there.offered if version >= minimum}
    if current is not None:
        spoilt = _is_spoilt(current, quarantined, there)
        if not spoilt and (not there.gone(current) or not eligible):
            eligible.add(current)
    return max(eligible, default=current)


def _served(
    model: spec.Model,
    target: int | None,
    before: Sequence[int],
    quarantined: Sequence[QuarantinedVersion],
    there: _There,
) -> tuple[int, ...]:
    """The target and the versions beside it: those served already first, then the next lower.

    Requests that name no version get the highest, so none is above the target; but where the
    target is pinned to one that failed, what was served before it goes on.
    """
    if target is None:
        return ()
    minimum = model.min_version or 0
    serving = [
        v
        for v in before
        if v != target
        and v >= minimum
        and not there.gone(v)
        and not _is_spoilt(v, quarantined, there)
    ]
    if _is_spoilt(target, quarantined, there):
        return tuple(sorted(serving, reverse=True)[: model.num_versions])
    below = sorted((v for v in serving if v < target), reverse=True)
    new = (v for v in there.offered if minimum <= v < target and v not in below)
    beside = [*below, *sorted(new, reverse=True)][: model.num_versions - 1]
    return tuple(sorted((target, *beside), reverse=True))


def _is_spoilt(version: int, quarantined: Sequence[QuarantinedVersion], there: _There) -> bool:
    """Whether a version failed, and nobody has other objects of the same number."""
    return version not in there.whole and any(entry.version == version for entry in quarantined)


def _quarantined(
    remembered: Iterable[QuarantinedVersion],
    pods: Sequence[PodVersions],
    known: Sequence[PollerStatus],
    active: int | None,
) -> tuple[QuarantinedVersion, ...]:
    entries = {
        (entry.version, entry.fingerprint): entry
        for entry in remembered
        if _still_applies(entry, pods, known)
    }
    for report in known:
        for version in report.versions:
            if version.state is VersionState.QUARANTINED and version.version != active:
                entries.setdefault((version.version, version.fingerprint), _failed(version))
    for pod in pods:
        if pod.crashed is not None and pod.crashed != active and pod.report is not None:
            entry = _crashed(pod.crashed, pod.template, pod.report)
            entries.setdefault((entry.version, entry.fingerprint), entry)
    return tuple(sorted(entries.values(), key=lambda e: (-e.version, e.fingerprint)))


def _still_applies(
    entry: QuarantinedVersion, pods: Sequence[PodVersions], known: Sequence[PollerStatus]
) -> bool:
    stored, _, template = entry.fingerprint.partition(TEMPLATE)
    if template and pods and all(pod.template != template for pod in pods):
        return False
    listed = [report for report in known if report.source.state is SourceState.READY]
    if not listed:
        return True
    fingerprints = {
        version.fingerprint
        for report in known
        for version in report.versions
        if version.version == entry.version
        and (version.in_source or version.state is VersionState.QUARANTINED)
    }
    return stored in fingerprints


def _failed(version: VersionStatus) -> QuarantinedVersion:
    return QuarantinedVersion(
        version=version.version,
        fingerprint=version.fingerprint,
        reason=version.reason.value if version.reason else Reason.LOAD_FAILED.value,
        message=version.message,
    )


def _crashed(version: int, template: str, report: PollerStatus) -> QuarantinedVersion:
    stored = next((v.fingerprint for v in report.versions if v.version == version), "")
    return QuarantinedVersion(
        version=version,
        # A crash may be the pod's fault (too little memory, a wrong flag) as well as the
        # version's, so another pod template is another attempt.
        fingerprint=f"{stored}{TEMPLATE}{template}",
        reason=Reason.SERVER_CRASHED.value,
        message="the model server ends while it loads this version; give it more memory or "
        "correct spec.server, or upload a version that loads",
    )
