"""``--once``: publish one version, then end; for init containers and pipelines."""

from __future__ import annotations

import logging
import math
import time
from enum import IntEnum
from typing import TYPE_CHECKING

from model_poller.errors import EXIT_USAGE
from model_poller.look import GROWING_SETTLE_SECONDS
from model_poller.status import SourceReason, SourceState, VersionReason, VersionState

if TYPE_CHECKING:
    from model_poller.board import Board
    from model_poller.status import PollerStatus, VersionStatus

_log = logging.getLogger(__name__)

_HERE = frozenset({VersionState.PUBLISHED, VersionState.AVAILABLE})
_COMING = frozenset({VersionState.DISCOVERED, VersionState.FETCHING, VersionState.FETCHED})
_ON_DISK = _HERE | {VersionState.FETCHED, VersionState.RETIRED}
_WAIT_SECONDS = 60.0
_SETTLE_SECONDS = 2 * GROWING_SETTLE_SECONDS
"""From the first listing: so long a folder's second look is waited for, though an older version
could be had."""


class ExitCode(IntEnum):
    """How the program ends."""

    PUBLISHED = 0
    """The version is in the base path; without ``--once``: it was told to end."""
    USAGE = EXIT_USAGE
    """The command line, the environment or the volume asks for something that can't be."""
    NO_VERSION = 3
    """There was no version to publish by the timeout."""
    REFUSED = 4
    """The store refuses access to all versions or to all that could be had, or there is no such
    bucket."""
    UNREACHABLE = 5
    """The store did not answer by the timeout."""
    TIMEOUT = 6
    """The version was still on its way at the timeout."""
    BROKEN = 7
    """No version can be served as it is stored."""
    NO_ROOM = 8
    """The volume has no room for any version."""


def outcome(status: PollerStatus, wanted: int | None, *, settling: bool = False) -> ExitCode | None:
    """How it ended; None while it goes on.

    ``wanted`` is the version to publish; without it, the newest that can be. While ``settling``,
    folders that were looked at only once may yet turn out to be whole.
    """
    source = status.source
    versions = {version.version: version for version in status.versions}
    if wanted is not None:
        if wanted in versions and versions[wanted].state in _HERE:
            return ExitCode.PUBLISHED
        candidates = [versions[wanted]] if wanted in versions else []
    else:
        candidates = [v for v in status.versions if v.in_source or v.state in _ON_DISK]
    if source.reason in (SourceReason.ACCESS_DENIED, SourceReason.BUCKET_NOT_FOUND):
        return ExitCode.REFUSED
    if source.state is not SourceState.READY or not candidates:
        return None
    best = [v for v in candidates if v.state is not VersionState.QUARANTINED]
    if not best:
        return ExitCode.BROKEN
    good = [v for v in best if not _gives_way(v, settling=settling)]
    if good:
        is_here = max(good, key=lambda v: v.version).state in _HERE
        return ExitCode.PUBLISHED if is_here else None
    if all(_is_refused(v) for v in best):
        return ExitCode.REFUSED
    # What is retained may be on its way out.
    if not settling and all(_is_refused(v) or _is_too_large(v) for v in best):
        return ExitCode.NO_ROOM
    return None


def _is_refused(version: VersionStatus) -> bool:
    # One that was only looked at is told so before any fetch.
    is_denied = version.reason is VersionReason.ACCESS_DENIED
    return is_denied and (version.state is VersionState.INCOMPLETE or version.failures > 1)


def _is_too_large(version: VersionStatus) -> bool:
    is_waiting = version.state is VersionState.DISCOVERED
    return is_waiting and version.reason is VersionReason.INSUFFICIENT_DISK


def _gives_way(version: VersionStatus, *, settling: bool) -> bool:
    """Whether a version may still come, but does not hold up an older one."""
    match version.state:
        case VersionState.INCOMPLETE:
            return not (settling and version.reason is VersionReason.UNSTABLE_LISTING)
        case VersionState.DISCOVERED | VersionState.FETCHING:
            # One failure heals more often than not.
            has_room = version.reason is not VersionReason.INSUFFICIENT_DISK
            return version.reason is not None and not (has_room and version.failures == 1)
    return False


def at_timeout(status: PollerStatus, wanted: int | None) -> ExitCode:
    """How it ends when the time is over."""
    if status.source.state is not SourceState.READY:
        return ExitCode.UNREACHABLE
    waited_for = [v for v in status.versions if wanted is None or v.version == wanted]
    if any(version.state in _COMING for version in waited_for):
        return ExitCode.TIMEOUT
    return ExitCode.NO_VERSION


def wait(board: Board, wanted: int | None, timeout: float | None) -> ExitCode:
    """Follow the poller's status until it has published, can't, or ``timeout`` seconds are over."""
    deadline = None if timeout is None else time.monotonic() + timeout
    status = board.read()
    settled = math.inf
    while True:
        now = time.monotonic()
        if status.source.state is SourceState.READY:
            settled = min(settled, now + _SETTLE_SECONDS)
        ended = outcome(status, wanted, settling=now < settled)
        left = _WAIT_SECONDS if deadline is None else deadline - now
        if ended is None and left <= 0:
            ended = at_timeout(status, wanted)
        if ended is not None:
            break
        until_settled = settled - now if settled > now else _WAIT_SECONDS
        status = board.read(status.revision, min(left, until_settled, _WAIT_SECONDS))
    what = "the newest version" if wanted is None else f"version {wanted}"
    told = [status.source.message]
    told += [v.message for v in status.versions if v.message and wanted in (None, v.version)]
    log = _log.info if ended is ExitCode.PUBLISHED else _log.error
    log("%s: %s (%s)", what, ended.name.lower().replace("_", " "), "; ".join(filter(None, told)))
    return ended
