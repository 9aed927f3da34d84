"""Looking into the source: now and then, and at once when somebody says so."""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from typing import TYPE_CHECKING, Protocol

from model_poller.errors import (
    AccessDeniedError,
    BucketNotFoundError,
    InvalidSourceError,
    PollerError,
    UnreachableError,
)
from model_poller.metrics import METRICS
from model_poller.process.threads import Worker
from model_poller.retry import LISTING_SECONDS, Deadline, RetryPolicy
from model_poller.status import SourceReason, SourceState, SourceStatus, VersionReason
from model_poller.stores import Remarks
from model_poller.strangers import Strangers
from model_poller.versions import Interest, discover

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from model_poller.stores import Source
    from model_poller.versions import StoredVersion

SETTLE_SECONDS = 1.0
"""A folder's listing has to stay the same for so long."""
_UNREAD = frozenset({VersionReason.FETCH_FAILED, VersionReason.ACCESS_DENIED})
GROWING_SETTLE_SECONDS = 5.0
"""The same where files are seen while they are written: times have whole seconds there, and a
network file system's clients keep what they saw for some of them."""
_PATIENCE = 3
"""Looks in a row that fail as a whole because the store doesn't answer about one version."""
GAP_SECONDS = 1.0
"""From the begin of a look to the next: an upload of thousands of files brings as many
notifications."""

LOOK_SECONDS = LISTING_SECONDS + 300.0
"""After that it stands still: what a look asked for last may take the time of all its tries, and a
token that of its own."""

_log = logging.getLogger(__name__)


class Listener(Protocol):
    """Gets what a look gave, on the looker's thread."""

    def __call__(self, status: SourceStatus, found: Mapping[int, StoredVersion] | None, /) -> None:
        """``found`` is None when the look failed."""


class Looker:
    """Lists the source every ``interval`` seconds, and keeps what tells whether it settled."""

    def __init__(
        self,
        source: Source,
        interval: float,
        report: Listener,
        *,
        marker: str | None = None,
        interest: Callable[[], Interest] = Interest,
    ) -> None:
        """``marker`` is the file whose presence makes a folder version complete.

        ``interest`` tells which versions have to be looked into; it is asked on every look.
        """
        self._interest = interest
        self._source = source
        self._marker = marker
        self._growing = source.growing
        self._settle = GROWING_SETTLE_SECONDS if self._growing else SETTLE_SECONDS
        self._interval = interval
        self._report = report
        self._asked = threading.Event()
        self._first_seen: dict[int, tuple[str, float]] = {}
        self._retries = RetryPolicy(math.inf, first_seconds=1.5, longest_seconds=interval)
        self._failures = 0
        self._last_error = ""
        self.worker = Worker("looker", self._turn, limit=LOOK_SECONDS)

    def start(self) -> None:
        """Begin to look."""
        self.worker.start()

    def look_now(self) -> None:
        """Look at once, or right after the look that is under way."""
        self._asked.set()

    def stop(self) -> None:
        """Look no more."""
        self.worker.stop()
        self._asked.set()

    def look(self, now: Callable[[], float] = time.monotonic) -> float:
        """Look once and report; returns in how many seconds to look again."""
        begin = now()
        deadline = Deadline(LISTING_SECONDS, f"listing {self._source.uri}")
        settled = {
            version: identity
            for version, (identity, since) in self._first_seen.items()
            if begin - since >= self._settle
        }
        strangers = Strangers()
        try:
            with METRICS.step_seconds.labels("list").time(), deadline:
                found = discover(
                    strangers.among(deadline.each(self._source.survey())),
                    settled,
                    marker=self._marker,
                    growing=self._growing,
                    interest=self._interest(),
                    files=lambda entry: deadline.each(self._source.files(entry)),
                    tolerant=self._failures >= _PATIENCE,
                )
        except PollerError as error:
            return self._failed(error)
        except Exception as error:  # noqa: BLE001 - one odd answer must not end all looking
            _log.exception("listing %s failed", self._source.uri)
            return self._failed(UnreachableError(f"listing {self._source.uri} failed: {error!r}"))
        unread = any(
            stored.incomplete and stored.incomplete.reason in _UNREAD for stored in found.values()
        )
        if self._failures and not (unread and self._failures >= _PATIENCE):
            _log.info("%s is readable again", self._source.uri)
            self._failures, self._last_error = 0, ""
        known = self._first_seen
        self._first_seen = {
            version: known[version]
            if version in known and known[version][0] == stored.fingerprint
            else (stored.fingerprint, begin)
            for version, stored in found.items()
            if stored.objects
        }
        uri = self._source.uri
        if found:
            message, reason = f"{len(found)} versions in {uri}", SourceReason.LISTED
            if lookalikes := strangers.beside_versions():
                message += f"; {lookalikes}"
        elif uri:
            reason = SourceReason.NO_VERSION_FOUND
            instead = strangers.instead_of_versions(self._source.locations[0])
            message = f"no version in {uri}: {instead}"
        else:
            reason = SourceReason.NO_VERSION_FOUND
            message = "no folder is known yet; the first notification of an upload tells it"
        if isinstance(self._source, Remarks) and (remark := self._source.remark):
            message += f"; {remark}"
        self._report(
            SourceStatus(uri=uri, state=SourceState.READY, reason=reason, message=message), found
        )
        waits = [
            self._first_seen[version][1] + self._settle - begin
            for version, stored in found.items()
            if stored.incomplete and stored.incomplete.reason is VersionReason.UNSTABLE_LISTING
        ]
        return min([*waits, self._interval * random.uniform(0.9, 1.1)])  # noqa: S311

    def _failed(self, error: PollerError) -> float:
        if isinstance(error, BucketNotFoundError):
            reason = SourceReason.BUCKET_NOT_FOUND
        elif isinstance(error, AccessDeniedError):
            reason = SourceReason.ACCESS_DENIED
        elif isinstance(error, InvalidSourceError):
            reason = SourceReason.INVALID_SOURCE
        else:
            reason = SourceReason.UNREACHABLE
        METRICS.failures.labels(reason.value).inc()
        if str(error) != self._last_error:
            _log.warning("%s", error)
        self._last_error = str(error)
        self._report(
            SourceStatus(
                uri=self._source.uri,
                state=SourceState.FAILED,
                reason=reason,
                message=str(error),
            ),
            None,
        )
        self._failures += 1
        return self._retries.pause(self._failures)

    def _turn(self) -> None:
        self._asked.clear()
        begin = time.monotonic()
        wait = self.look()
        self.worker.pause(wait, self._asked)
        self.worker.pause(begin + GAP_SECONDS - time.monotonic())
