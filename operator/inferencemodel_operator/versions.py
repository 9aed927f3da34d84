"""Which version is the target: a pure function of the spec, the memory and the pods' reports."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from inferencemodel_operator.conditions import Reason
from inferencemodel_operator.record import QuarantinedVersion, VersionsRecord
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

_TEMPLATE: Final = "+template:"


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
    if model.version is not None:
        target: int | None = model.version
    else:
        everyone_knows = len(known) == len(pods) > 0 and all(
            report.source.state is SourceState.READY for report in known
        )
        target = _newest(
            model.min_version or 0, record.target, quarantined, known, everyone_knows, active
        )
    return VersionsRecord(target=target, quarantined=quarantined)


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


def _newest(
    minimum: int,
    current: int | None,
    quarantined: Sequence[QuarantinedVersion],
    known: Sequence[PollerStatus],
    everyone_knows: bool,
    active: int | None,
) -> int | None:
    bad = {(entry.version, _stored(entry.fingerprint)) for entry in quarantined}
    whole = {
        version.version
        for report in known
        for version in report.versions
        if version.state in COMPLETE
        and ((version.version, version.fingerprint) not in bad or version.version == active)
    }
    eligible = {
        version.version
        for report in known
        for version in report.versions
        if version.version in whole
        and version.version >= minimum
        and (version.in_source or version.state is VersionState.AVAILABLE)
    }
    if current is not None:
        spoilt = current not in whole and any(entry.version == current for entry in quarantined)
        vanished = everyone_knows and current not in whole
        if not spoilt and (not vanished or not eligible):
            eligible.add(current)
    return max(eligible, default=current)


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
    stored, _, template = entry.fingerprint.partition(_TEMPLATE)
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
        fingerprint=f"{stored}{_TEMPLATE}{template}",
        reason=Reason.SERVER_CRASHED.value,
        message="the model server ends while it loads this version; give it more memory or "
        "correct spec.server, or upload a version that loads",
    )


def _stored(fingerprint: str) -> str:
    return fingerprint.partition(_TEMPLATE)[0]
