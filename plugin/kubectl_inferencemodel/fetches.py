"""How far a fetch has come, in words. Pure: from what a pod's poller says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from model_poller.status import VersionState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from model_poller.status import PollerStatus, VersionStatus

_UNITS: Final = ((10**9, "GB"), (10**6, "MB"), (10**3, "kB"))


def running(reports: Mapping[str, PollerStatus]) -> dict[str, VersionStatus]:
    """The version that each pod fetches, by the pod's name; without those that fetch none."""
    return {
        pod: version
        for pod, report in reports.items()
        for version in report.versions
        if version.state is VersionState.FETCHING
    }


def slowest(fetches: Mapping[str, VersionStatus], version: int) -> VersionStatus | None:
    """The fetch of a version that has come least far."""
    found = [fetch for fetch in fetches.values() if fetch.version == version]
    return min(found, key=lambda fetch: fetch.bytes_done, default=None)


def how_far(fetch: VersionStatus) -> str:
    """Such as ``8.2 of 20.0 GB, about 4 min left``; empty where the poller can't tell."""
    done, total = fetch.bytes_done, fetch.bytes_total
    if not total:
        return ""
    divisor, unit = next((found for found in _UNITS if total >= found[0]), (1, "bytes"))
    digits = 1 if divisor > 1 else 0
    whole = f"{total / divisor:.{digits}f} {unit}"
    if done >= total:
        return f"all of {whole} are there, and are checked"
    left = "" if fetch.seconds_left is None else f", about {_lasting(fetch.seconds_left)} left"
    return f"{done / divisor:.{digits}f} of {whole}{left}"


def _lasting(seconds: int) -> str:
    if seconds < 120:
        return f"{seconds} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
