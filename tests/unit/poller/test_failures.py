"""What a failed fetch says of a version."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from model_poller.errors import (
    AccessDeniedError,
    BrokenVersionError,
    CorruptDownloadError,
    IncompleteVersionError,
    InsufficientDiskError,
    ObjectChangedError,
    PollerError,
    UnreachableError,
    WarmupUnavailableError,
)
from model_poller.failures import RETRIES, ROOM_RETRIES, Retry, judge
from model_poller.status import VersionReason
from model_poller.stores import StoredObject
from model_poller.stores.uri import Location
from model_poller.versions import StoredVersion
from model_poller.volume.store import Quarantined

if TYPE_CHECKING:
    from collections.abc import Sequence

BROKEN = BrokenVersionError(VersionReason.BAD_ARCHIVE, "cut")
INCOMPLETE = IncompleteVersionError(VersionReason.MISSING_ASSETS, "a file is missing")
CORRUPT = CorruptDownloadError("other bytes")
FULL = InsufficientDiskError("full", 7)


def stored(fingerprint: str = "f", *, checksum: int | None = 1) -> StoredVersion:
    member = StoredObject(Location("b", "m", "gs"), "1.zip", 1000, "1", checksum)
    return StoredVersion(1, (member,), True, fingerprint)


def after(
    failures: Sequence[Exception], version: StoredVersion | None = None
) -> Retry | Quarantined:
    """What follows from failures in a row, at 100 s each."""
    judged: Retry | Quarantined | None = None
    for failure in failures:
        assert not isinstance(judged, Quarantined), "it is fetched no more"
        judged = judge(version or stored(), failure, judged, now=100.0, jitter=1.0)
    assert judged is not None
    return judged


@pytest.mark.parametrize(
    ("failure", "tries", "unchecked"), [(BROKEN, 1, 2), (CORRUPT, 3, 3)], ids=["broken", "corrupt"]
)
def test_a_version_is_quarantined_once_it_failed_so_often_in_the_same_way(
    failure: PollerError, tries: int, unchecked: int
) -> None:
    for version, most in ((stored(), tries), (stored(checksum=None), unchecked)):
        for count in range(1, most):
            assert isinstance(after([failure] * count, version), Retry)
        judged = after([failure] * most, version)
        assert isinstance(judged, Quarantined)
        assert (judged.version, judged.fingerprint) == (1, "f")


def test_one_that_lacks_a_file_waits_for_other_objects_and_is_not_told_to_every_pod() -> None:
    judged = after([INCOMPLETE])
    assert isinstance(judged, Retry)
    assert judged.is_hopeless
    assert not after([INCOMPLETE], stored(checksum=None)).is_hopeless  # type: ignore[union-attr]
    assert after([INCOMPLETE] * 2, stored(checksum=None)).is_hopeless  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (UnreachableError("503"), VersionReason.FETCH_FAILED),
        (AccessDeniedError("403"), VersionReason.ACCESS_DENIED),
        (ObjectChangedError("gs://b/m/1.zip"), VersionReason.FETCH_FAILED),
        (ZeroDivisionError("what nobody expected"), VersionReason.FETCH_FAILED),
        (OSError(5, "Input/output error"), VersionReason.FETCH_FAILED),
        (WarmupUnavailableError("gone"), VersionReason.WARMUP_UNAVAILABLE),
        (FULL, VersionReason.INSUFFICIENT_DISK),
    ],
)
def test_what_is_not_the_versions_own_fault_is_tried_again_for_ever_ever_more_slowly(
    failure: Exception, reason: VersionReason
) -> None:
    delays = []
    for count in range(1, 40):
        judged = after([failure] * count)
        assert isinstance(judged, Retry)
        assert (judged.attempts, judged.verdict.reason) == (count, reason)
        delays.append(judged.not_before - 100.0)
    assert delays == sorted(delays)
    assert (delays[0], delays[-1]) == (1.0, RETRIES.longest_seconds)


def test_other_failures_between_begin_a_count_anew() -> None:
    away = UnreachableError("503")
    judged = after([CORRUPT, CORRUPT, away, CORRUPT, CORRUPT])
    assert isinstance(judged, Retry)
    assert (judged.attempts, judged.repeats) == (5, 2)


def test_other_objects_have_failed_at_nothing() -> None:
    before = after([CORRUPT, CORRUPT])
    assert isinstance(before, Retry)
    judged = judge(stored("new"), CORRUPT, before, now=0.0, jitter=1.0)
    assert isinstance(judged, Retry)
    assert (judged.fingerprint, judged.attempts, judged.repeats) == ("new", 1, 1)


def test_room_is_waited_for_and_what_fails_with_room_is_fetched_ever_less_often() -> None:
    judged = after([UnreachableError("503")] * 20 + [FULL])
    assert isinstance(judged, Retry)
    assert (judged.needed, judged.not_before) == (7, 100.0 + ROOM_RETRIES.longest_seconds)
    judged = after([FULL] * 20)
    assert isinstance(judged, Retry)
    assert judged.not_before == 100.0 + RETRIES.longest_seconds
