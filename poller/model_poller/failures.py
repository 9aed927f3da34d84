"""What a failed fetch says of a version, and when it is tried again; pure."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from model_poller.errors import (
    AccessDeniedError,
    BrokenVersionError,
    CorruptDownloadError,
    IncompleteVersionError,
    InsufficientDiskError,
    WarmupUnavailableError,
)
from model_poller.retry import RetryPolicy
from model_poller.status import VersionReason
from model_poller.versions import Verdict
from model_poller.volume.store import FULL, Quarantined

if TYPE_CHECKING:
    from model_poller.versions import StoredVersion

RETRIES: Final = RetryPolicy(math.inf, first_seconds=1.0, longest_seconds=120.0)
ROOM_RETRIES: Final = replace(RETRIES, longest_seconds=10.0)
"""Where room is waited for: looking costs nothing while there is none."""
DISK_TRIES: Final = 3
"""So often in a row is there room, and then there is not. That may be a volume without inodes, and
each try is a fetch."""
CORRUPT_TRIES: Final = 3
"""So often in a row do other bytes come than are stored before the store is taken to be wrong."""
UNCHECKED_TRIES: Final = 2
"""Where a store tells no checksum, the way here may have done the damage; never twice the same."""


@dataclass(frozen=True, slots=True)
class Retry:
    """A version whose last fetch failed, and when it may be tried again."""

    fingerprint: str
    verdict: Verdict
    attempts: int
    """Failures in a row."""
    not_before: float
    """Monotonic seconds; infinite: not before its objects change."""
    needed: int = 0
    """Free bytes to wait for."""
    repeats: int = 1
    """Failures in a row for this reason."""

    @property
    def is_hopeless(self) -> bool:
        """Whether only other objects help."""
        return self.not_before == math.inf


def judge(
    stored: StoredVersion, failure: Exception, before: Retry | None, *, now: float, jitter: float
) -> Retry | Quarantined:
    """What follows from the failure of a fetch, where ``before`` is what followed from the last.

    A quarantined version is fetched again when its stored objects change. So is one that lacks a
    file, which is an upload that may go on and no failure to be told to every pod.

    Args:
        now: monotonic seconds.
        jitter: part of the delay that is waited, so that pods don't ask in step.
    """
    if before and before.fingerprint != stored.fingerprint:
        before = None
    attempts = before.attempts + 1 if before else 1
    reason, tries = _reason(stored, failure)
    repeats = before.repeats + 1 if before and before.verdict.reason is reason else 1
    message = str(failure)
    is_short = reason is VersionReason.INSUFFICIENT_DISK and repeats < DISK_TRIES
    delay = (ROOM_RETRIES if is_short else RETRIES).pause(attempts, jitter=jitter)
    if tries is not None and repeats >= tries:
        if not isinstance(failure, IncompleteVersionError):
            return Quarantined(stored.version, stored.fingerprint, reason, message)
        delay = math.inf
    elif isinstance(failure, BrokenVersionError | IncompleteVersionError):
        message += " (it is fetched once more before that is believed)"
    needed = failure.needed if isinstance(failure, InsufficientDiskError) else 0
    verdict = Verdict(reason, message)
    return Retry(stored.fingerprint, verdict, attempts, now + delay, needed, repeats)


def unmoved(version: int, error: OSError) -> Verdict:
    """What is told of a version that can't get to its place on the volume."""
    if error.errno in FULL:
        return Verdict(
            VersionReason.INSUFFICIENT_DISK,
            f"the model volume has no room to move version {version} ({error}); it is tried again:"
            " enlarge the volume or retain fewer versions",
        )
    return Verdict(
        VersionReason.FETCH_FAILED,
        f"version {version} can't be moved on the model volume ({error}); it is tried again: let"
        f" user {os.getuid()} write there, or give the pod another volume",
    )


def _reason(stored: StoredVersion, failure: Exception) -> tuple[VersionReason, int | None]:
    """The reason, and after how many tries it is the version's own; None: never."""
    match failure:
        case BrokenVersionError() | IncompleteVersionError():
            is_checked = all(member.has_checksum for member in stored.objects)
            return failure.reason, 1 if is_checked else UNCHECKED_TRIES
        case CorruptDownloadError():
            return VersionReason.CHECKSUM_MISMATCH, CORRUPT_TRIES
        case InsufficientDiskError():
            return VersionReason.INSUFFICIENT_DISK, None
        case WarmupUnavailableError():
            return VersionReason.WARMUP_UNAVAILABLE, None
        case AccessDeniedError():
            return VersionReason.ACCESS_DENIED, None
    return VersionReason.FETCH_FAILED, None
