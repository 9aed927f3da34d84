"""The shell around `planner.plan`: gathers what is, carries out what is planned, tells of it."""

from __future__ import annotations

import logging
import queue
import random
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from model_poller import planner, report, retries
from model_poller.board import Board
from model_poller.errors import PollerError, StoppedError
from model_poller.metrics import METRICS
from model_poller.process import threads
from model_poller.process.threads import Worker
from model_poller.status import (
    NotificationsStatus,
    PollerStatus,
    SourceStatus,
    VersionState,
)
from model_poller.volume.assignment import Assignment
from model_poller.volume.store import Quarantined

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from model_poller.bring import Bringer
    from model_poller.model_server.server import Served
    from model_poller.planner import Action, Observed, Policy
    from model_poller.versions import Interest, StoredVersion

TICK_SECONDS = 1.0
"""How often everything is looked at anew when nothing happens."""
_PROGRESS_SECONDS = 10.0

_log = logging.getLogger(__name__)


def _start_thread(work: Callable[[], None]) -> None:
    threads.spawn("fetch", work)


@dataclass(slots=True)
class _Job:
    """A fetch that runs."""

    stored: StoredVersion
    stopped: threading.Event = field(default_factory=threading.Event)
    bytes_done: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    begin: float = field(default_factory=time.monotonic)

    def progress(self, count: int) -> None:
        with self.lock:
            self.bytes_done += count

    @property
    def seconds_left(self) -> int | None:
        """At the rate so far; None before anything came."""
        if self.bytes_done <= 0:
            return None
        rate = self.bytes_done / max(time.monotonic() - self.begin, 0.001)
        return round(max(self.stored.size - self.bytes_done, 0) / rate)

    def __str__(self) -> str:
        left = self.seconds_left
        return (
            f"fetching version {self.stored.version}: {self.bytes_done} of {self.stored.size}"
            f" bytes, {'?' if left is None else left} s left"
        )


@dataclass(slots=True)
class _Inbox:
    """What other threads have seen; guarded by its lock."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    source: SourceStatus = field(default_factory=lambda: SourceStatus(uri=""))
    notifications: NotificationsStatus | None = None
    found: Mapping[int, StoredVersion] | None = None
    listing_is_fresh: bool = False
    served: Served | None = None
    server_was_seen: bool = False
    assignment: Assignment = field(default_factory=Assignment)


class Poller:
    """One model's poller. `step` is one round of its loop; the rest may be called by any thread."""

    def __init__(
        self,
        model: str,
        policy: Policy,
        bringer: Bringer,
        *,
        look_now: Callable[[], None],
        hurry: Callable[[bool], None],
        clock: Callable[[], float] = time.monotonic,
        spawn: Callable[[Callable[[], None]], None] = _start_thread,
    ) -> None:
        """``look_now`` asks for a look into the source, ``hurry`` for quick words of the server.

        ``spawn`` starts what may take long beside the loop.
        """
        self._model = model
        self._policy = policy
        self._bringer = bringer
        self._store = bringer.store
        self._look_now = look_now
        self._hurry = hurry
        self._clock = clock
        self._spawn = spawn
        self._wake = threading.Event()
        self._inbox = _Inbox(source=SourceStatus(uri=bringer.source.uri))
        self._job: _Job | None = None
        self._finished: queue.SimpleQueue[tuple[_Job, Exception | None]] = queue.SimpleQueue()
        self._publications: dict[int, planner.Publication] | None = None
        self._retries: dict[int, retries.Retry] = {}
        self._left: dict[int, float] = {}
        self._started = clock()
        self._published = False
        self._asked_for: set[int] = set()
        self._newest = -1
        self._last_errors: dict[str, str] = {}
        self._progress_told = clock()
        self.worker = Worker("main loop", self._turn, longest_pause=TICK_SECONDS)
        self.board = Board(PollerStatus(revision="", model=model, source=self._inbox.source))

    # What other threads report.

    def on_look(self, status: SourceStatus, found: Mapping[int, StoredVersion] | None) -> None:
        """Take in what a look into the source gave."""
        with self._inbox.lock:
            self._inbox.source = status
            self._inbox.listing_is_fresh = found is not None
            if found is not None:
                self._inbox.found = found
        self._wake.set()

    def on_served(self, served: Served | None) -> None:
        """Take in the model server's words."""
        with self._inbox.lock:
            same = served == self._inbox.served
            self._inbox.served = served
            self._inbox.server_was_seen |= served is not None
        if not same:
            self._wake.set()

    def on_assignment(self, assignment: Assignment) -> None:
        """Take in what this pod is to serve."""
        target = assignment.target
        _log.info(
            "told to serve %s%s%s",
            "nothing" if target is None else f"version {target}",
            f", of {assignment.texts.served}" if assignment.texts and assignment.served else "",
            f"; elsewhere failed {assignment.texts.quarantined}"
            if assignment.texts and assignment.quarantined
            else "",
        )
        with self._inbox.lock:
            self._inbox.assignment = assignment
        self._wake.set()

    def on_notifications(self, status: NotificationsStatus) -> None:
        """Take in how the subscription does."""
        with self._inbox.lock:
            self._inbox.notifications = status
        self._wake.set()

    def interest(self) -> Interest:
        """Which versions a look has to look into; for the looker's thread."""
        return planner.interest(self._see(), self._policy)

    # What probes ask.

    def has_published(self) -> bool:
        """Whether the model server has had what it is to begin with since the start."""
        return self._published

    def is_ready(self) -> bool:
        """Whether the model server answers requests with some version."""
        return self.board.read().active_version is not None

    # The loop.

    def start(self) -> None:
        """Begin to work, on a thread of its own."""
        self.worker.start()

    def _turn(self) -> None:
        self._wake.clear()
        self.step()
        self.worker.pause(TICK_SECONDS, self._wake)

    def stop(self) -> None:
        """End the loop."""
        self.worker.stop()
        if job := self._job:
            job.stopped.set()
        self._wake.set()
        self.board.close()

    def step(self) -> None:
        """Look, act until there is nothing to do, and tell."""
        self._collect_fetches()
        for _ in range(20):
            seen = self._observe()
            actions = planner.plan(seen, self._policy)
            changed = [self._carry_out(action, seen) for action in actions]
            if not any(changed):
                break
        else:
            _log.error("no rest after 20 rounds; last planned: %s", actions)
        self._published |= planner.is_complete_at_start(seen, self._policy)
        self._hurry(planner.change_is_under_way(seen, self._policy))
        self._ask_for_versions(seen)
        self._tell(seen)

    def _observe(self) -> Observed:
        self._store.mend()
        seen = self._see()
        self._keep_books(seen)
        return seen

    def _see(self) -> Observed:
        places = [place.uri for place in self._bringer.source.locations]
        disk, strangers = self._store.scan().divide(places)
        free, _ = self._store.space()
        job = self._job
        with self._inbox.lock:
            return planner.Observed(
                now=self._clock(),
                disk=disk,
                free_bytes=free,
                found=self._inbox.found,
                listing_is_fresh=self._inbox.listing_is_fresh,
                served=self._inbox.served,
                server_was_seen=self._inbox.server_was_seen,
                assignment=self._inbox.assignment,
                fetching=job.stored if job else None,
                publications=self._publications or {},
                retries=dict(self._retries),
                left=self._left,
                started=self._started,
                strangers=strangers,
            )

    def _keep_books(self, seen: Observed) -> None:
        at_start = self._publications is None
        books = {} if self._publications is None else self._publications
        for version, record in seen.disk.published.items():
            if version not in books:
                # Found here at the start, or put here by somebody else.
                books[version] = planner.Publication(
                    since=seen.now, end_is_stale=True, served=at_start and record.proven
                )
            book = books[version]
            ended = any(s.version == version and s.state == "END" for s in seen.served or ())
            if seen.served is not None and not ended:
                book.end_is_stale = False
            if seen.available(version) and not book.served:
                book.served = True
                METRICS.step_seconds.labels("load").observe(seen.now - book.since)
                _log.info(
                    "version %d is AVAILABLE, %.2f s after it was published",
                    version,
                    seen.now - book.since,
                )
            if book.served and not record.proven:
                self._store.prove(record)
        for version in books.keys() - seen.disk.published.keys():
            del books[version]
            self._left[version] = seen.now
        self._publications = books

    def _carry_out(self, action: Action, seen: Observed) -> bool:
        """Do it; whether that changed what is."""
        try:
            match action:
                case planner.Fetch(stored):
                    self._start_fetch(stored)
                case planner.StopFetch():
                    if not self._job or self._job.stopped.is_set():
                        return False
                    _log.info("giving up fetching version %d", self._job.stored.version)
                    self._job.stopped.set()
                    return False
                case planner.Publish(version):
                    self._store.publish(version)
                    _log.info("published version %d", version)
                    ended = planner.ended_with_error(seen, version) is not None
                    books = self._publications
                    assert books is not None  # noqa: S101
                    books[version] = planner.Publication(self._clock(), end_is_stale=ended)
                case planner.Retire(version):
                    self._store.retire(version)
                    _log.info("retired version %d", version)
                case planner.Remove(version, why):
                    self._store.remove(version)
                    _log.info("removed version %d: %s", version, why)
                case planner.Quarantine(entry):
                    self._quarantine(entry)
                case planner.Release(version):
                    self._store.release(version)
                    _log.info("version %d may be tried again: it changed in the source", version)
        except OSError as error:
            kind = type(action).__name__
            METRICS.failures.labels(kind).inc()
            if self._last_errors.get(kind) != str(error):
                _log.error("%s failed: %s; it is tried again", kind.lower(), error)
            self._last_errors[kind] = str(error)
            return False
        return True

    def _quarantine(self, entry: Quarantined) -> None:
        METRICS.failures.labels(entry.reason.value).inc()
        _log.error("version %d is quarantined: %s: %s", entry.version, entry.reason, entry.message)
        self._store.quarantine(entry)

    # Fetching.

    def _start_fetch(self, stored: StoredVersion) -> None:
        job = self._job = _Job(stored)
        self._progress_told = self._clock()
        _log.info("fetching version %d: %d bytes", stored.version, stored.size)
        try:
            self._spawn(lambda: self._fetch(job))
        except RuntimeError as error:
            self._finished.put((job, error))

    def _fetch(self, job: _Job) -> None:
        failure: Exception | None = None
        try:
            self._bringer.bring(job.stored, stopped=job.stopped, progress=job.progress)
        except Exception as error:  # noqa: BLE001 - whatever it is, the loop has to hear of it
            failure = error
        self._finished.put((job, failure))
        self._wake.set()

    def _collect_fetches(self) -> None:
        while not self._finished.empty():
            job, failure = self._finished.get()
            self._job = None
            if failure is None:
                self._retries.pop(job.stored.version, None)
            elif not isinstance(failure, StoppedError):
                self._note_failure(job.stored, failure)

    def _note_failure(self, stored: StoredVersion, failure: Exception) -> None:
        version = stored.version
        if not isinstance(failure, PollerError | OSError):
            _log.error("fetching version %d failed", version, exc_info=failure)
        judged = retries.judge(
            stored,
            failure,
            self._retries.get(version),
            now=self._clock(),
            jitter=random.uniform(0.5, 1.0),  # noqa: S311
        )
        if isinstance(judged, Quarantined):
            self._retries.pop(version, None)
            self._quarantine(judged)
            self._look_now()
            return
        METRICS.failures.labels(judged.verdict.reason.value).inc()
        _log.warning("version %d: %s", version, judged.verdict.message)
        self._retries[version] = judged
        self._look_now()

    def _ask_for_versions(self, seen: Observed) -> None:
        """What is of interest now, and was not at the last look, may be there this moment."""
        now = planner.interest(seen, self._policy)
        found = seen.found or {}
        unknown = {
            version
            for version in now.wanted - seen.disk.complete
            if version not in found or not found[version].is_known
        }
        if unknown - self._asked_for or now.newest < self._newest:
            self._look_now()
        self._asked_for, self._newest = unknown, now.newest

    # Telling.

    def _tell(self, seen: Observed) -> None:
        with self._inbox.lock:
            source, notifications = self._inbox.source, self._inbox.notifications
        _, total = self._store.space()
        status = report.build(
            seen,
            self._policy,
            model=self._model,
            source=source,
            notifications=notifications,
            bytes_done=self._job.bytes_done if self._job else 0,
            seconds_left=self._job.seconds_left if self._job else None,
            total_bytes=total,
        )
        if self.board.post(status):
            self._measure(status)
        METRICS.disk_free_bytes.set(seen.free_bytes)
        if self._job and seen.now - self._progress_told > _PROGRESS_SECONDS:
            self._progress_told = seen.now
            _log.info("%s", self._job)

    def _measure(self, status: PollerStatus) -> None:
        for state in VersionState:
            count = sum(v.state is state for v in status.versions)
            METRICS.versions.labels(state.value).set(count)
        if status.active_version is None:
            METRICS.served_version.clear()
        else:
            METRICS.served_version.labels(self._model).set(status.active_version)
