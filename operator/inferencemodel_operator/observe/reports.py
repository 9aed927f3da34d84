"""What is known from a pod's poller, within bounds: whoever owns the pod wrote it."""

from __future__ import annotations

import functools
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec
from msgspec.structs import replace

from inferencemodel_operator import bounds
from inferencemodel_operator.errors import InvalidReportError
from model_poller import status
from model_poller.status import Interface, PollerStatus, VersionState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from model_poller.status import ServedVersion, VersionStatus

LARGEST_INTERFACE: Final = 128 * 2**10
"""Bytes of JSON; a poller tells about half as many."""
END: Final = "END"
"""The state of a version that the model server doesn't serve any more."""

_ON_THE_POD: Final = frozenset(
    {
        VersionState.FETCHING,
        VersionState.FETCHED,
        VersionState.PUBLISHED,
        VersionState.AVAILABLE,
        VersionState.RETIRED,
    }
)


class Unreachable(msgspec.Struct, frozen=True):
    """The last attempt to ask the poller failed: nothing is known about this pod's versions."""

    problem: str


Report = PollerStatus | Unreachable
"""Absent altogether until the first attempt has ended."""


def decode(body: bytes) -> tuple[str, PollerStatus]:
    """Read an answer of ``GET /status``: its revision, and what it says within bounds.

    What changes all the time and decides nothing (the revision, disks, bytes so far, failures after
    the second) is not in the report. Lists keep their newest entries and those that matter on the
    pod, texts are cut.

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
    def rank(version: VersionStatus) -> int:
        if version.version == report.target or version.state is VersionState.AVAILABLE:
            return 2
        return int(version.state in _ON_THE_POD)

    chosen = _chosen(report.versions, rank)
    lasting = replace(
        report,
        revision="",
        disk=None,
        versions=tuple(
            replace(
                version,
                bytes_done=0,
                seconds_left=None,
                failures=min(version.failures, 2),
                interface=None,
            )
            for version in chosen
        ),
        served=tuple(_chosen(report.served, lambda served: int(served.state != END))),
        live=report.live and replace(report.live, window_seconds=0.0),
    )
    clean = _clean(lasting)
    versions = (
        replace(version, interface=_shared(told.interface))
        for version, told in zip(clean.versions, chosen, strict=True)
    )
    return replace(clean, versions=tuple(versions))


def _shared(interface: Interface | None) -> Interface | None:
    """The same within bounds, kept once for all pods that tell it.

    In place of one that is longer than any poller tells, why it isn't there.
    """
    if interface is None:
        return None
    encoded = msgspec.json.encode(interface)
    if len(encoded) <= LARGEST_INTERFACE:
        return _interface(encoded)
    if interface.signatures:
        return Interface(message=f"it has more than {LARGEST_INTERFACE} bytes")
    return _clean(interface)


@functools.lru_cache(maxsize=512)
def _interface(encoded: bytes) -> Interface:
    return _clean(msgspec.json.decode(encoded, type=Interface))


V = TypeVar("V", "VersionStatus", "ServedVersion")


def _chosen(entries: Iterable[V], rank: Callable[[V], int]) -> list[V]:
    """One for each version, newest first; of too many those of the highest rank and number."""
    by_number: dict[int, V] = {}
    for entry in entries:
        by_number.setdefault(entry.version, entry)
    chosen = list(by_number.values())
    if len(chosen) > bounds.VERSIONS:
        chosen.sort(key=lambda entry: (rank(entry), entry.version), reverse=True)
    return sorted(chosen[: bounds.VERSIONS], key=lambda entry: entry.version, reverse=True)


S = TypeVar("S", bound=msgspec.Struct)

_LIMITS: Final = {
    "error_message": bounds.MESSAGE,
    "message": bounds.MESSAGE,
    "quarantined": bounds.ASSIGNMENT,
    "rollout": bounds.ASSIGNMENT,
    "served": bounds.ASSIGNMENT,
    "uri": bounds.URI,
}
"""Bytes of a text by its field, where it may be longer than a name."""


def _clean(value: S) -> S:
    """The same with all texts within bounds, also those that a later release adds."""
    return replace(value, **{name: _cut(name, getattr(value, name)) for name in _fields(value)})


def _fields(value: msgspec.Struct) -> Iterator[str]:
    for name in value.__struct_fields__:
        inner = getattr(value, name)
        if isinstance(inner, (str, tuple, dict, msgspec.Struct)) and not isinstance(inner, Enum):
            yield name


def _cut(name: str, value: Any) -> Any:
    if isinstance(value, str):
        return bounds.text(value, _LIMITS.get(name, bounds.NAME))
    if isinstance(value, tuple):
        return tuple(_cut(name, inner) for inner in value)
    if isinstance(value, dict):
        return {bounds.text(key, bounds.NAME): _cut(name, inner) for key, inner in value.items()}
    return _clean(value) if isinstance(value, msgspec.Struct) else value
