"""The one fetch that runs beside the main loop."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from model_poller.process import threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from model_poller.bring import Bringer
    from model_poller.versions import StoredVersion

_PROGRESS_SECONDS = 10.0
_RATE_SECONDS = 60.0
SILENT_SECONDS = 1800.0
"""So long a fetch may give no sign of life: it does in every loop, but not while the disk takes in
what it wrote."""

_log = logging.getLogger(__name__)


def _start_thread(work: Callable[[], None]) -> None:
    threads.spawn("fetch", work)


class Stop(threading.Event):
    """Tells a fetch to end. Whenever the fetch asks it gives a sign of life."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = time.monotonic()

    def is_set(self) -> bool:
        """Whether to end."""
        self.asked = time.monotonic()
        return super().is_set()

    @property
    def is_told(self) -> bool:
        """The same, for others than the fetch."""
        return super().is_set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait to be told so."""
        self.asked = time.monotonic()
        return super().wait(timeout)


@dataclass(slots=True)
class Job:
    """A fetch that runs."""

    stored: StoredVersion
    stopped: Stop = field(default_factory=Stop)
    bytes_done: int = 0
    seconds_left: int | None = None
    """At the rate of late; None before anything came, or while nothing comes."""
    clock: Callable[[], float] = time.monotonic
    note: str = ""
    """What goes on beside fetching, for users."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _seen: deque[tuple[float, int]] = field(default_factory=deque)
    """What was there when it was looked at: at the begin, and of late."""
    _logged: float = 0.0

    def __post_init__(self) -> None:
        self._logged = self.clock()
        self._seen.append((self._logged, 0))

    def progress(self, count: int) -> None:
        """Note that so many bytes came; negative: they have to come anew."""
        with self._lock:
            self.bytes_done += count

    def remark(self, note: str) -> None:
        """Note what goes on."""
        self.note = note

    def look(self) -> None:
        """Tell anew how long it takes, and log it now and then; for one thread.

        By about the last minute: what an earlier run had fetched is found within seconds, and a
        store is not as fast at all times.
        """
        now, done, seen = self.clock(), self.bytes_done, self._seen
        while len(seen) > 1 and now - seen[1][0] >= _RATE_SECONDS:
            seen.popleft()
        begin, before = seen[0]
        self.seconds_left = None
        if done > before:
            rate = (done - before) / max(now - begin, 0.001)
            self.seconds_left = round(max(self.stored.size - done, 0) / rate)
        if now - seen[-1][0] >= _RATE_SECONDS / 2:
            seen.append((now, done))
        if now - self._logged > _PROGRESS_SECONDS:
            self._logged, left = now, self.seconds_left
            _log.info(
                "fetching version %d: %d of %d bytes, %s s left",
                self.stored.version,
                self.bytes_done,
                self.stored.size,
                "?" if left is None else left,
            )


class Fetcher:
    """Runs one fetch at a time, on a thread of its own. Its methods are the main loop's."""

    name = "fetch"

    def __init__(
        self,
        bringer: Bringer,
        wake: Callable[[], None],
        spawn: Callable[[Callable[[], None]], None] = _start_thread,
    ) -> None:
        """``wake`` is called when a fetch has ended, ``spawn`` starts one beside the loop."""
        self._bringer = bringer
        self._wake = wake
        self._spawn = spawn
        self._ended: queue.SimpleQueue[tuple[StoredVersion, Exception | None]] = queue.SimpleQueue()
        self.job: Job | None = None

    def start(self, stored: StoredVersion) -> None:
        """Begin to fetch a version."""
        job = self.job = Job(stored)
        _log.info("fetching version %d: %d bytes", stored.version, stored.size)
        try:
            self._spawn(lambda: self._run(job))
        except RuntimeError as error:
            self._ended.put((stored, error))

    def is_silent(self) -> bool:
        """Whether a fetch runs that has given no sign of life for too long; for any thread."""
        job = self.job
        return job is not None and time.monotonic() - job.stopped.asked > SILENT_SECONDS

    def stop(self) -> None:
        """Give up the fetch that runs, if any; it ends when it comes to that."""
        if self.job and not self.job.stopped.is_told:
            _log.info("giving up fetching version %d", self.job.stored.version)
            self.job.stopped.set()

    def ended(self) -> Iterator[tuple[StoredVersion, Exception | None]]:
        """What was fetched since the last call, and how it failed."""
        while not self._ended.empty():
            stored, failure = self._ended.get()
            self.job = None
            yield stored, failure

    def _run(self, job: Job) -> None:
        failure: Exception | None = None
        try:
            self._bringer.bring(
                job.stored, stopped=job.stopped, progress=job.progress, note=job.remark
            )
        except Exception as error:  # noqa: BLE001 - whatever it is, the loop has to hear of it
            failure = error
        self._ended.put((job.stored, failure))
        self._wake()
