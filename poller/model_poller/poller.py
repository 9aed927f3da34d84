"""The shell around `planner.plan`: gathers what is, carries out what is planned, tells of it."""

from __future__ import annotations

import logging
import random
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from model_poller import actions, drain, failures, live, planner, report
from model_poller.board import Board
from model_poller.books import Books
from model_poller.descriptions import Descriptions
from model_poller.errors import PollerError, StoppedError
from model_poller.fetcher import Fetcher
from model_poller.golden.watch import GoldenWatch
from model_poller.inbox import Inbox
from model_poller.metrics import METRICS
from model_poller.process.threads import Worker
from model_poller.status import PollerStatus, SourceStatus, VersionState
from model_poller.volume.store import Quarantined

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable, Mapping

    from model_poller.actions import Action
    from model_poller.bring import Bringer
    from model_poller.golden.watch import Check
    from model_poller.planner import Observed, Policy
    from model_poller.process.threads import Alive
    from model_poller.status import GoldenStatus
    from model_poller.versions import Interest, StoredVersion, Verdict

TICK_SECONDS = 1.0
"""How often everything is looked at anew when nothing happens."""
_ROUNDS = 20
"""One change may allow for another one; so many in a row are a mistake."""

_log = logging.getLogger(__name__)


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
        want_figures: Callable[[Hashable, float], None] = lambda _reason, _seconds: None,
        clock: Callable[[], float] = time.monotonic,
        spawn: Callable[[Callable[[], None]], None] | None = None,
        golden: Check | None = None,
    ) -> None:
        """``look_now`` asks for a look into the source, ``hurry`` for quick words of the server.

        ``golden`` sends a version its recorded requests; None: nobody does.

        ``want_figures`` asks for the server's figures, at once for a new reason and each so many
        seconds from then on; None: no more.

        ``spawn`` starts what may take long beside the loop; None: on a thread.
        """
        self._model = model
        self._policy = policy
        self._source, self._store = bringer.source, bringer.store
        self._links, self._cache = bringer.links, bringer.cache
        self._look_now = look_now
        self._hurry = hurry
        self._want_figures = want_figures
        self._window: live.Window | None = None
        self._drain: drain.Drain | None = None
        self._clock = clock
        self._wake = threading.Event()
        source = SourceStatus(uri=bringer.source.uri)
        self._inbox = Inbox(source, self._wake.set)
        self.on_look = self._inbox.on_look
        self.on_served = self._inbox.on_served
        self.on_figures = self._inbox.on_figures
        self.on_assignment = self._inbox.on_assignment
        self.on_notifications = self._inbox.on_notifications
        self._fetcher = (
            Fetcher(bringer, self._wake.set, spawn) if spawn else Fetcher(bringer, self._wake.set)
        )
        self._descriptions = Descriptions(self._store.folder, self._wake.set, clock, spawn)
        self._golden = (
            GoldenWatch(golden, self._store.folder, self._wake.set, clock, spawn)
            if golden
            else None
        )
        self._books = Books(clock())
        self._retries: dict[int, failures.Retry] = {}
        self._published = False
        self._asked_for: set[int] = set()
        self._newest = -1
        self._last_errors: dict[str, str] = {}
        self._undone: dict[int, Verdict] = {}
        """What the last round could not do."""
        self.worker = Worker("main loop", self._turn, longest_pause=TICK_SECONDS)
        self.board = Board(PollerStatus(revision="", model=model, source=source))

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

    @property
    def fetching(self) -> Alive:
        """The fetch beside the loop, if any."""
        return self._fetcher

    def is_draining(self) -> bool:
        """Whether the pod keeps itself out of its Services."""
        return self.board.read().draining

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
        self._fetcher.stop()
        if self._cache:
            self._cache.stop()
        if self._golden:
            self._golden.stop()
        self._wake.set()
        self.board.close()

    def step(self) -> None:
        """Look, act until there is nothing to do, and tell."""
        for stored, failure in self._fetcher.ended():
            self._note(stored, failure)
        self._undone = {}
        for _ in range(_ROUNDS):
            seen = self._observe()
            target, scrape = planner.goal(seen, self._policy), self._inbox.read().scrape
            golden = self._golden.tend(seen) if self._golden else None
            self._drain = drain.after(self._drain, seen, target, scrape, golden)
            planned = drain.hold(self._drain, seen, planner.plan(seen, self._policy))
            changed = [self._carry_out(action) for action in planned]
            if not any(changed):
                break
        else:
            _log.error("no rest after %d rounds; last planned: %s", _ROUNDS, planned)
        for proof in planner.proofs(seen):
            self._carry_out(proof)
        self._published |= planner.is_complete_at_start(seen, self._policy)
        self._hurry(planner.change_is_under_way(seen, self._policy))
        self._ask_for_versions(seen)
        if self._cache:
            self._cache.tend()
        self._count(seen, golden)
        self._tell(replace(seen, undone=self._undone), golden or {})

    # What is.

    def _observe(self) -> Observed:
        self._store.mend()
        seen = self._see()
        if seen.found is not None:
            for version in self._retries.keys() - seen.found.keys():
                del self._retries[version]
        books = self._keep_books(seen)
        return replace(
            seen, publications=books.publications, left=books.left, suspects=books.suspects
        )

    def _see(self) -> Observed:
        """What is, by the books as they are."""
        places = [place.uri for place in self._source.locations]
        disk, former = self._store.scan().divide(places)
        free, _ = self._store.space()
        inbox, job, books = self._inbox.read(), self._fetcher.job, self._books
        return planner.Observed(
            now=self._clock(),
            disk=disk,
            free_bytes=free,
            found=inbox.found,
            listing_is_fresh=inbox.listing_is_fresh,
            served=inbox.served,
            server_was_seen=inbox.server_was_seen,
            assignment=inbox.assignment,
            fetching=job.stored if job else None,
            publications=books.publications,
            retries=dict(self._retries),
            left=books.left,
            suspects=books.suspects,
            started=books.started,
            retried=self._store.retried,
            former=former,
            links=self._links,
        )

    def _keep_books(self, seen: Observed) -> Books:
        before = self._books
        self._books = before.after(seen.disk, seen.served, seen.now)
        for version, publication in self._books.publications.items():
            known = before.publications.get(version)
            had_served = known.served if known else seen.disk.published[version].proven
            if publication.served and not had_served:
                seconds = seen.now - publication.since
                METRICS.step_seconds.labels("load").observe(seconds)
                _log.info(
                    "version %d is AVAILABLE, %.2f s after it was published", version, seconds
                )
        return self._books

    def _note(self, stored: StoredVersion, failure: Exception | None) -> None:
        """Take in how a fetch ended."""
        version = stored.version
        before = self._retries.get(version)
        if isinstance(failure, StoppedError):
            return
        self._retries.pop(version, None)
        if failure is None:
            return
        if not isinstance(failure, PollerError | OSError):
            _log.error("fetching version %d failed", version, exc_info=failure)
        jitter = random.uniform(0.5, 1.0)  # noqa: S311
        judged = failures.judge(stored, failure, before, now=self._clock(), jitter=jitter)
        if isinstance(judged, Quarantined):
            self._carry_out(actions.Quarantine(judged))
            self._look_now()
            return
        METRICS.failures.labels(judged.verdict.reason.value).inc()
        _log.warning("version %d: %s", version, judged.verdict.message)
        self._retries[version] = judged
        self._look_now()

    # What is done.

    def _carry_out(self, action: Action) -> bool:
        """Do it; whether that changed what is."""
        try:
            changed = self._do(action)
        except OSError as error:
            kind = type(action).__name__
            METRICS.failures.labels(kind).inc()
            if self._last_errors.get(kind) != str(error):
                _log.error("%s failed: %s; it is tried again", kind.lower(), error)
            self._last_errors[kind] = str(error)
            if isinstance(action, actions.Publish | actions.Retire | actions.Remove):
                self._undone[action.version] = failures.unmoved(action.version, error)
            return False
        self._last_errors.pop(type(action).__name__, None)
        return changed

    def _do(self, action: Action) -> bool:
        match action:
            case actions.Fetch(stored):
                self._fetcher.start(stored)
            case actions.StopFetch():
                self._fetcher.stop()
                return False
            case actions.Publish(version, end_is_stale):
                self._store.publish(version)
                _log.info("published version %d", version)
                now = self._clock()
                self._books = self._books.published(version, now, end_is_stale=end_is_stale)
            case actions.Retire(version):
                self._store.retire(version)
                _log.info("retired version %d", version)
            case actions.Remove(version, why):
                self._store.remove(version)
                _log.info("removed version %d: %s", version, why)
            case actions.Quarantine(entry):
                self._store.quarantine(entry)
                METRICS.failures.labels(entry.reason.value).inc()
                _log.error(
                    "version %d is quarantined: %s: %s", entry.version, entry.reason, entry.message
                )
            case actions.Release(version):
                self._store.release(version)
                _log.info("version %d may be tried again: it changed in the source", version)
            case actions.TryAgain(text):
                self._retry(action)
                self._store.retry(text)
            case actions.Prove(record):
                self._store.prove(record)
        return True

    def _retry(self, order: actions.TryAgain) -> None:
        for version, entry in self._store.scan().quarantined.items():
            if order.names(version, entry.fingerprint):
                self._store.release(version)
                _log.info("version %d is tried again, as the operator says", version)
        for version, retry in list(self._retries.items()):
            if order.names(version, retry.fingerprint):
                del self._retries[version]
                _log.info("version %d is fetched again, as the operator says", version)

    def _ask_for_versions(self, seen: Observed) -> None:
        """What is of interest now, and was not at the last look, may be there this moment."""
        now = planner.interest(seen, self._policy)
        found = seen.found or {}
        here = seen.disk.complete - planner.unvouched(seen)
        unknown = {
            version
            for version in now.wanted - here
            if version not in found or not found[version].is_known
        }
        if unknown - self._asked_for or now.newest < self._newest:
            self._look_now()
        self._asked_for, self._newest = unknown, now.newest

    def _count(self, seen: Observed, checked: Collection[int] | None) -> None:
        """Go on with what the server counts, as long as the operator asks for it."""
        asked = live.asked(seen.assignment.rollout, seen.answering, checked)
        self._window = live.after(self._window, asked, self._inbox.read().scrape, seen.now)
        out = self._drain
        leaving = out.target if out and not out.is_on and not out.is_through(seen.now) else None
        if asked or leaving is not None:
            seconds = live.LOOK_SECONDS if leaving is None else drain.LOOK_SECONDS
            self._want_figures((asked, leaving), seconds)
        else:
            self._want_figures(None, live.LOOK_SECONDS)

    # What is told.

    def _tell(self, seen: Observed, golden: Mapping[int, GoldenStatus]) -> None:
        inbox, job = self._inbox.read(), self._fetcher.job
        if job:
            job.look()
        _, total = self._store.space()
        disk, former = seen.disk, seen.former
        descriptions = self._descriptions.look(
            record
            for records in (disk.published, disk.retained, former.published, former.retained)
            for record in records.values()
        )
        status = report.build(
            seen,
            self._policy,
            model=self._model,
            source=inbox.source,
            notifications=inbox.notifications,
            bytes_done=job.bytes_done if job else 0,
            seconds_left=job.seconds_left if job else None,
            total_bytes=total,
            descriptions=descriptions,
            golden=golden,
            live=live.status(self._window, seen.now),
            draining=self._drain is not None and self._drain.is_out(seen.now),
            cache=self._cache.status if self._cache else None,
            note=job.note if job else "",
        )
        if self.board.post(status):
            _measure(status)
        METRICS.disk_free_bytes.set(seen.free_bytes)


def _measure(status: PollerStatus) -> None:
    for state in VersionState:
        count = sum(v.state is state for v in status.versions)
        METRICS.versions.labels(state.value).set(count)
    if status.active_version is None:
        METRICS.served_version.clear()
    else:
        METRICS.served_version.labels(status.model).set(status.active_version)
