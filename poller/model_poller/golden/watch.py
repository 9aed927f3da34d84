"""When a version's recorded requests are sent, and what is remembered of it."""

from __future__ import annotations

import logging
import queue
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from model_poller.golden.sending import (
    InterruptedSendingError,
    Result,
    ServerWentAwayError,
    Stop,
)
from model_poller.process import threads
from model_poller.status import CheckResult, GoldenStatus, GoldenTask

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from model_poller.planner import Observed

AWAY_SECONDS: Final = 10.0
"""After the model server went away, so long it may not have been missed by the main loop."""

_log = logging.getLogger(__name__)


class Check(Protocol):
    """`GoldenRequests.check`."""

    def __call__(
        self, folder: Path, version: int, task: GoldenTask, stop: Stop, *, went_away: bool
    ) -> Result:
        """Send and compare; see there."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be checked, and how: another order is another check."""

    version: int
    fingerprint: str
    since: float
    """When the version was given to the model server."""
    task: GoldenTask


def order(seen: Observed) -> Order | None:
    """What a rollout asks for, once the version is in the base path."""
    asked = seen.assignment.rollout
    if asked is None or asked.golden is None:
        return None
    record = seen.disk.published.get(asked.version)
    publication = seen.publications.get(asked.version)
    if record is None or publication is None:
        return None
    return Order(asked.version, record.fingerprint, publication.since, asked.golden)


def _start_thread(work: Callable[[], None]) -> None:
    threads.spawn("golden requests", work)


class GoldenWatch:
    """Checks one version at a time, on a thread of its own. Its methods are the main loop's."""

    def __init__(
        self,
        check: Check,
        folder: Callable[[int], Path],
        wake: Callable[[], None],
        clock: Callable[[], float],
        spawn: Callable[[Callable[[], None]], None] | None = None,
    ) -> None:
        """``folder`` tells where a version lies; ``wake`` is called when a check has ended.

        ``spawn`` starts what may take long beside the loop; None: on a thread.
        """
        self._check = check
        self._folder = folder
        self._wake = wake
        self._clock = clock
        self._spawn = spawn or _start_thread
        self._ended: queue.SimpleQueue[tuple[Stop, Result | Exception]] = queue.SimpleQueue()
        self._order: Order | None = None
        """What all below is about."""
        self._stop: Stop | None = None
        """Of the check that runs."""
        self._result: Result | None = None
        self._went_away = False
        self._not_before = 0.0

    def tend(self, seen: Observed) -> dict[int, GoldenStatus]:
        """Begin, go on or end, by what is; what came of it, by the version."""
        wanted = order(seen)
        self._take_in()
        if wanted != self._order:
            self.stop()
            self._order, self._result = wanted, None
            self._went_away, self._not_before = False, 0.0
        if wanted is None or seen.assignment.rollout is None:
            return {}
        available = seen.available(wanted.version)
        if not available:
            # It has fallen and comes again.
            self._not_before = 0.0
        if self._stop and not available and seen.served is not None:
            self.stop()
        if available and not self._stop and not self._result and self._clock() >= self._not_before:
            self._begin(wanted)
            self._take_in()
        if self._result is None:
            return {}
        result = self._result
        key = seen.assignment.rollout.key
        return {
            wanted.version: GoldenStatus(
                task=key, result=result.result, records=result.records, message=result.message
            )
        }

    def stop(self) -> None:
        """End the check that runs, if any."""
        if self._stop:
            self._stop.set()
            self._stop = None

    def _begin(self, wanted: Order) -> None:
        stop = self._stop = Stop()
        went_away = self._went_away
        _log.info("sending version %d its recorded requests", wanted.version)

        def run() -> None:
            try:
                self._ended.put((stop, self._run(wanted, stop, went_away)))
            finally:
                self._wake()

        try:
            self._spawn(run)
        except RuntimeError as error:
            _log.warning("recorded requests can't be sent now: %s", error)
            self._stop = None

    def _run(self, wanted: Order, stop: Stop, went_away: bool) -> Result | Exception:
        try:
            return self._check(
                self._folder(wanted.version), wanted.version, wanted.task, stop, went_away=went_away
            )
        except InterruptedSendingError as error:
            return error
        except Exception:  # noqa: BLE001 - whatever it is, the loop has to hear of it
            _log.exception("sending version %d its recorded requests failed", wanted.version)
            return Result(
                CheckResult.INCONCLUSIVE, message="the check failed; see the poller's log"
            )

    def _take_in(self) -> None:
        while not self._ended.empty():
            stop, ended = self._ended.get()
            if stop is not self._stop:
                # Of an order that is gone.
                continue
            self._stop = None
            if isinstance(ended, Result):
                self._result = ended
                _log.info("recorded requests: %s: %s", ended.result.value, ended.message)
            elif isinstance(ended, ServerWentAwayError):
                _log.warning("the model server went away over a recorded request: %s", ended)
                self._went_away = True
                self._not_before = self._clock() + AWAY_SECONDS
