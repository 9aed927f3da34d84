"""The threads of the process: what runs on one, what happens when it fails, who hears of it."""

from __future__ import annotations

import logging
import math
import threading
import time
from typing import TYPE_CHECKING, Final, Protocol

from model_poller.retry import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

FIRST_PAUSE: Final = 0.1
"""Seconds before a turn that failed is tried again; doubled for each further one."""
LONGEST_PAUSE: Final = 30.0
TURN_SECONDS: Final = 60.0
"""How long a turn may take, unless its worker is told another."""

_log = logging.getLogger(__name__)


class Worker:
    """A thread for work without an end: one turn after the other, until it is stopped.

    A turn that raises is logged with its traceback and tried again, with backoff and jitter. Each
    one that ends well is a heartbeat, and so is each `beat` within a longer one; `is_silent` tells
    that the last of them is too long ago, whatever the reason.
    """

    def __init__(
        self,
        name: str,
        turn: Callable[[], object],
        *,
        limit: float = TURN_SECONDS,
        longest_pause: float = LONGEST_PAUSE,
        failed: Callable[[Exception], object] = lambda _: None,
        ended: Callable[[], object] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``limit`` is how many seconds may pass between two heartbeats.

        On this thread are called ``failed`` with what a turn raised, to show it where users look,
        and ``ended`` after the last turn.
        """
        self.name = name
        self._turn = turn
        self._limit = limit
        self._longest_pause = longest_pause
        self._failed = failed
        self._ended = ended
        self._clock = clock
        self._stopped = threading.Event()
        self._due = math.inf

    def start(self) -> None:
        """Begin the first turn."""
        self.beat()
        threading.Thread(target=self._run, name=self.name, daemon=True).start()

    def stop(self) -> None:
        """Begin no further turn, and end every pause."""
        self._stopped.set()

    @property
    def stopped(self) -> bool:
        """Whether it was told to end."""
        return self._stopped.is_set()

    def beat(self, ahead: float = 0.0) -> None:
        """Tell that the turn goes on, and is about to wait for ``ahead`` seconds."""
        self._due = self._clock() + ahead + self._limit

    def pause(self, seconds: float, wake: threading.Event | None = None) -> None:
        """Wait until ``wake`` is set, or else the worker is stopped, but no longer than that."""
        # What is more than a thread can wait for (292 years) would raise an OverflowError.
        seconds = min(max(seconds, 0.0), threading.TIMEOUT_MAX)
        self.beat(seconds)
        (wake or self._stopped).wait(seconds)
        self.beat()

    def is_silent(self) -> bool:
        """Whether a heartbeat is overdue."""
        return self._clock() > self._due and not self.stopped

    def _run(self) -> None:
        failures = 0
        while not self.stopped:
            try:
                self._turn()
            except Exception as error:  # noqa: BLE001 - whatever it is, the thread has to go on
                failures += 1
                wait = RetryPolicy(math.inf, FIRST_PAUSE, self._longest_pause).pause(failures)
                _log.exception("%s failed; it goes on in %.1f s", self.name, wait)
                self._tell(error)
                # No heartbeat: one that only ever fails is as good as dead.
                self._stopped.wait(wait)
            else:
                failures = 0
                self.beat()
        self._ended()

    def _tell(self, error: Exception) -> None:
        try:
            self._failed(error)
        except Exception:  # noqa: BLE001
            _log.exception("what %s failed with could not be told", self.name)


class Alive(Protocol):
    """What gives signs of life."""

    @property
    def name(self) -> str:
        """For users."""

    def is_silent(self) -> bool:
        """Whether one is overdue."""


def silent(workers: Iterable[Alive]) -> list[str]:
    """The names of the workers whose heartbeat is overdue."""
    return [worker.name for worker in workers if worker.is_silent()]


def spawn(name: str, work: Callable[[], object]) -> threading.Thread:
    """Run something with an end on a thread of its own; what it raises is logged.

    Raises:
        RuntimeError: the system has no thread left.
    """

    def run() -> None:
        try:
            work()
        except Exception:  # noqa: BLE001 - nobody else would hear of it
            _log.exception("%s failed", name)

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    return thread
