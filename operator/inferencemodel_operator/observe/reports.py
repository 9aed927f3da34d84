"""What is known from a pod's poller, within bounds: whoever owns the pod wrote it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

import msgspec
from msgspec.structs import replace

from inferencemodel_operator import bounds
from inferencemodel_operator.errors import InvalidReportError
from model_poller import status
from model_poller.status import PollerStatus, VersionState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from model_poller.status import ServedVersion, SourceStatus, VersionStatus

_ABSENT: Final = frozenset({VersionState.INCOMPLETE, VersionState.DISCOVERED})
"""States of a version of which nothing is on the pod."""


class Unreachable(msgspec.Struct, frozen=True):
    """The last attempt to ask the poller failed: nothing is known about this pod's versions."""

    problem: str


Report = PollerStatus | Unreachable
"""Absent altogether until the first attempt has ended."""


def decode(body: bytes) -> tuple[str, PollerStatus]:
    """Read an answer of ``GET /status``: its revision, and what it says within bounds.

    What changes all the time and decides nothing (the revision, disks, bytes so far) is not in the
    report. Lists keep their newest entries and those that matter on the pod, texts are cut.

    Raises:
        InvalidReportError: it is none; says what is wrong with it.
    """
    try:
        report = status.decode(body)
    except RecursionError:
        raise InvalidReportError("it is nested too deeply") from None
    except ValueError as error:
        # msgspec's errors, and UnicodeDecodeError.
        raise InvalidReportError(bounds.text(str(error), bounds.NAME)) from None
    if len(report.revision) > bounds.NAME:
        raise InvalidReportError(f"its revision is longer than {bounds.NAME} characters")
    return report.revision, _bounded(report)


def _bounded(report: PollerStatus) -> PollerStatus:
    assigned = report.assigned
    if assigned is not None:
        assigned = replace(
            assigned,
            target=bounds.text(assigned.target, bounds.NAME),
            served=bounds.text(assigned.served, bounds.ASSIGNMENT),
            quarantined=bounds.text(assigned.quarantined, bounds.ASSIGNMENT),
        )
    return replace(
        report,
        revision="",
        disk=None,
        model=bounds.text(report.model, bounds.NAME),
        assigned=assigned,
        source=_source(report.source),
        versions=tuple(
            _version(version)
            for version in _chosen(
                report.versions,
                [v.version for v in report.versions if v.state not in _ABSENT]
                + [number for number in (report.target,) if number is not None],
            )
        ),
        served=tuple(
            _served(served)
            for served in _chosen(
                report.served, [s.version for s in report.served if s.state != "END"]
            )
        ),
    )


V = TypeVar("V", "VersionStatus", "ServedVersion")


def _chosen(entries: Iterable[V], wanted: list[int]) -> list[V]:
    """Those within bounds, one for each version, newest first."""
    by_number: dict[int, V] = {}
    for entry in entries:
        by_number.setdefault(entry.version, entry)
    if len(by_number) <= bounds.VERSIONS:
        return [by_number[number] for number in sorted(by_number, reverse=True)]
    return [by_number[number] for number in bounds.newest(by_number, wanted=set(wanted))]


def _source(source: SourceStatus) -> SourceStatus:
    notifications = source.notifications
    if notifications is not None:
        notifications = replace(notifications, message=bounds.text(notifications.message))
    return replace(
        source,
        uri=bounds.text(source.uri, bounds.URI),
        message=bounds.text(source.message),
        notifications=notifications,
    )


def _version(version: VersionStatus) -> VersionStatus:
    return replace(
        version,
        fingerprint=bounds.text(version.fingerprint, bounds.NAME),
        disk_fingerprint=bounds.text(version.disk_fingerprint, bounds.NAME),
        bytes_done=0,
        seconds_left=None,
        message=bounds.text(version.message),
    )


def _served(served: ServedVersion) -> ServedVersion:
    return replace(
        served,
        state=bounds.text(served.state, bounds.NAME),
        error_code=bounds.text(served.error_code, bounds.NAME),
        error_message=bounds.text(served.error_message),
    )
