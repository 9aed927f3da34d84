"""One version's way through the cache: a thread that does all that touches the shared folder.

It may hang there for ever. Who waits for it looks at its pulse and goes on without it.
"""

from __future__ import annotations

import logging
import math
import os
import queue
import secrets
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from model_poller.cache import beats, leases
from model_poller.cache.beats import Beat
from model_poller.cache.copying import (
    GivenUpError,
    Pulse,
    SharedError,
    copy_in,
    copy_out,
    state_of,
)
from model_poller.cache.folder import GONE, DamagedError, Entry, delete, make
from model_poller.cache.housekeeping import BEAT
from model_poller.errors import InsufficientDiskError
from model_poller.metrics import METRICS
from model_poller.status import CacheState

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from model_poller.cache.folder import Folder, OpenEntry
    from model_poller.cache.housekeeping import Keeper
    from model_poller.cache.leases import Lease

_log = logging.getLogger(__name__)

Wrong = tuple[CacheState, str]
"""How the cache is, and why."""
LOOK_SECONDS: Final = 0.5
"""Between two looks of who waits for another pod."""


@dataclass(frozen=True, slots=True)
class About:
    """Which version it is about."""

    key: str
    version: int
    size: int
    """Bytes to fetch from the source."""
    source: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Copied:
    """The version is in a folder of the pod's own."""

    folder: Path


@dataclass(frozen=True, slots=True)
class Missing:
    """It has to be fetched from the source."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The pod's own volume is at fault."""

    error: Exception


Outcome = Copied | Missing | Failed


@dataclass(frozen=True, slots=True)
class _Kept:
    """What the source gave, for the cache."""

    tree: int
    names: Sequence[str]
    size: int


@dataclass(slots=True)
class Session:
    """The thread, and what others may ask of it."""

    folder: Folder
    keeper: Keeper
    about: About
    into: Path
    """A new folder of the pod's own, to copy to."""
    room: Callable[[int, int], None]
    """Asks for bytes and files on the pod's own volume."""
    pod: str
    ended: Callable[[Session, CacheState, str], None]
    """Told at the end how the cache is, and what is wrong with it; Pending: that isn't known."""
    pulse: Pulse = field(default_factory=Pulse)
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    done: int = 0
    """Bytes so far of what is going on, by whoever does it."""
    fetched: int = 0
    """Bytes that this pod has from the source."""
    steps: int = 0
    """Of unpacking and checking these."""
    note: str = ""
    """What is going on, for users."""
    given_up: bool = False
    storing: bool = False
    """Whether what the pod has fetched is on its way into the cache."""
    outcome: Outcome | None = None
    changed: threading.Event = field(default_factory=threading.Event)
    _orders: queue.SimpleQueue[str | _Kept] = field(default_factory=queue.SimpleQueue)
    _said: dict[Path, float] = field(default_factory=dict)
    _beats: int = 0
    _distrusted: str = ""
    _entry: str = ""
    _is_over: bool = False

    # What the waiting thread calls.

    def give_up(self) -> None:
        """Wait no longer for it, wherever it hangs."""
        self.given_up = True
        self._orders.put("end")

    def end(self) -> None:
        """There is nothing more to be done."""
        self._orders.put("end")

    def distrust(self) -> None:
        """What was copied doesn't pass this pod's checks; the source is asked."""
        self._distrusted = self._entry

    def keep(self, folder: Path) -> None:
        """Take what the source gave, which was checked; it may be moved from now on."""
        if self._is_over:
            return
        names = sorted(
            path.relative_to(folder).as_posix()
            for path in folder.rglob("*")
            if path.is_file() and not path.is_symlink()
        )
        size = sum((folder / name).stat().st_size for name in names)
        tree = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.storing = True
        self._orders.put(_Kept(tree, names, size))
        if self._is_over:
            self._close_orders()

    # What its own thread does.

    def run(self) -> None:
        """All of it."""
        state, why = CacheState.READY, ""
        user = self.folder.users / f"{self.about.key}.{self.id}"
        try:
            if wrong := self._begin(user):
                state, why = wrong
            if wrong := self._go(None if wrong else user):
                state, why = wrong
        except GivenUpError:
            state, why = CacheState.PENDING, ""
        except SharedError as error:
            state, why = state_of(error), str(error)
        except (InsufficientDiskError, OSError) as error:
            self._finish(Failed(error))
        except Exception as error:  # noqa: BLE001 - whoever waits has to hear of it
            _log.exception("the cache failed")
            state, why = CacheState.UNUSABLE, f"{type(error).__name__}: {error}"
        self._finish(Missing())
        with suppress(OSError, SharedError), self.pulse:
            user.unlink(missing_ok=True)
        self._is_over = True
        self._close_orders()
        self.ended(self, state, why)

    def _close_orders(self) -> None:
        """Of orders that nobody will read; whoever gives one later does the same."""
        with suppress(queue.Empty):
            while True:
                if isinstance(order := self._orders.get_nowait(), _Kept):
                    os.close(order.tree)

    def _begin(self, user: Path) -> Wrong | None:
        """Make oneself known; why that can't be."""
        try:
            self._enter(user)
        except SharedError as error:
            state = state_of(error)
            if state is CacheState.READ_ONLY:
                return state, str(error)
            if state is not CacheState.FULL:
                raise
            if why := self.keeper.make_room(self.about.size, is_full=True):
                return CacheState.FULL, why
            self._enter(user)
        return None

    def _enter(self, user: Path) -> None:
        with self.pulse:
            self.folder.prepare()
            beats.write(user, self._beat(beats.USING), new=True)

    def _go(self, user: Path | None) -> Wrong | None:
        """Until there is nothing more to do; what is wrong with the cache, if anything."""
        waited_for = -1
        while True:
            if self._copy(user):
                self._finish(Copied(self.into))
                if self._await_verdict(user):
                    return None
                return self._store(None)
            if user is None:
                self._finish(Missing())
                return None
            with self.pulse:
                lease = leases.look(self.folder, self.about.key, self.keeper.watch)
            phase = lease.beat.phase if lease and lease.beat else ""
            if lease and lease.number == waited_for and phase == beats.UNSTORABLE:
                # One after the other would take as long as all of them together.
                self._finish(Missing())
                why = self.keeper.lacks(self.about.size)
                return (CacheState.FULL, why) if why else None
            if lease is None or lease.is_free:
                with self.pulse:
                    taken = leases.take(
                        self.folder, self.about.key, lease, self._beat(beats.FETCHING)
                    )
                if taken is not None:
                    if not self._is_there():
                        return self._hold(taken)
                    self._end(taken, beats.STORED)
                    continue
            elif lease.number != waited_for:
                waited_for = lease.number
                METRICS.cache.labels("waited").inc()
            self._wait(user, lease)

    def _wait(self, user: Path, lease: Lease | None) -> None:
        """Look on for a while."""
        if lease is not None and lease.beat is not None and not lease.beat.is_ended:
            beat = lease.beat
            self.done = min(beat.done, self.about.size)
            self.note = f"{beat.pod or 'another pod'} brings it to the cache"
            if beat.phase == beats.FETCHING:
                self.note = f"{beat.pod or 'another pod'} fetches it for the cache"
        self._say(user, beats.USING)
        self.changed.set()
        self._sleep(LOOK_SECONDS)

    def _sleep(self, seconds: float) -> str | _Kept | None:
        """Wait for an order.

        Raises:
            GivenUpError
        """
        try:
            order = self._orders.get(timeout=seconds)
        except queue.Empty:
            order = None
        if self.given_up or (order == "end" and self.outcome is None):
            if isinstance(order, _Kept):
                os.close(order.tree)
            raise GivenUpError
        return order

    def _copy(self, user: Path | None) -> bool:
        """Copy the entry to the pod's own volume; whether there was a good one."""
        try:
            opened = self._open()
            if opened is None:
                return False
            with opened:
                self._copy_from(opened, user)
        except DamagedError as error:
            delete(self.into)
            METRICS.cache.labels("damaged").inc()
            _log.warning(
                "version %d in the cache is damaged (%s); it is set aside and fetched anew",
                self.about.version,
                error,
            )
            self.done = 0
            if user is not None:
                with self.pulse:
                    self.folder.set_aside(self.about.key, error.id)
            return False
        except BaseException:
            delete(self.into)
            raise
        METRICS.cache.labels("hit").inc()
        with self.pulse:
            self.folder.used(self.about.key)
        return True

    def _open(self) -> OpenEntry | None:
        with self.pulse:
            return self.folder.open(self.about.key)

    def _copy_from(self, opened: OpenEntry, user: Path | None) -> None:
        entry = opened.entry
        try:
            self.room(entry.size, len(entry.files))
        except InsufficientDiskError:
            # It may be the description that is wrong, and not the volume too small.
            with self.pulse:
                opened.check()
            raise
        self.done, self.note = 0, f"copied from the cache, where {entry.pod or 'a pod'} brought it"
        copied = 0

        def progress(count: int) -> None:
            nonlocal copied
            copied += count
            self.done = self._part(copied, entry.size)
            self._show_life(user)

        copy_out(opened, self.into, pulse=self.pulse, progress=progress)
        self._entry = entry.id

    def _show_life(self, user: Path | None) -> None:
        if self.given_up:
            raise GivenUpError
        if user is not None:
            self._say(user, beats.USING)

    def _await_verdict(self, user: Path | None) -> bool:
        """Whether what was copied is good for the pod; else the source's is stored instead."""
        while True:
            order = self._sleep(beats.BEAT_SECONDS)
            if isinstance(order, _Kept):
                self._orders.put(order)
                return False
            if order == "end":
                return True
            if user is not None:
                self._say(user, beats.USING)

    def _hold(self, lease: Path) -> Wrong | None:
        """Fetch for all: the pod does, and this says how far it is."""
        ended = beats.FAILED
        try:
            METRICS.cache.labels("miss").inc()
            if why := self.keeper.make_room(self.about.size):
                ended = beats.UNSTORABLE
                self._finish(Missing())
                return CacheState.FULL, why
            self._finish(Missing())
            wrong = self._store(lease)
            ended = beats.UNSTORABLE if wrong else beats.STORED
            return wrong
        finally:
            self._end(lease, ended)

    def _is_there(self) -> bool:
        """Whether the entry came just before the lease."""
        with self.pulse:
            self.folder.refresh(self.folder.entries)
            try:
                opened = self.folder.open(self.about.key)
            except DamagedError:
                # Who copies it sets it aside.
                return True
            if opened is not None:
                opened.close()
        return opened is not None

    def _end(self, lease: Path, phase: str) -> None:
        with suppress(OSError, SharedError), self.pulse:
            beats.write(lease, self._beat(phase))

    def _store(self, lease: Path | None) -> Wrong | None:
        """Wait for what the pod fetches, and put it into the cache; what is wrong with that.

        Raises:
            GivenUpError: it got none.
        """
        while True:
            order = self._sleep(beats.BEAT_SECONDS)
            if isinstance(order, _Kept):
                break
            if order == "end":
                raise GivenUpError
            self.done = self.fetched
            if lease is not None:
                self._say(lease, beats.FETCHING)
        try:
            return self._put(order, lease)
        finally:
            os.close(order.tree)

    def _put(self, kept: _Kept, lease: Path | None) -> Wrong | None:
        if self._distrusted:
            with self.pulse:
                self.folder.set_aside(self.about.key, self._distrusted)
        for is_full in (False, True):
            if why := self.keeper.make_room(kept.size, is_full=is_full):
                return CacheState.FULL, why
            try:
                self._write_entry(kept, lease)
            except SharedError as error:
                # A quota may be less than the file system says is free.
                if state_of(error) is not CacheState.FULL:
                    raise
                full = str(error)
            else:
                self.keeper.make_room(0)
                return None
        return CacheState.FULL, full

    def _write_entry(self, kept: _Kept, lease: Path | None) -> None:
        incoming = self.folder.incoming / f"{secrets.token_hex(8)}.{kept.size}"
        self.done = written = 0

        def progress(count: int) -> None:
            nonlocal written
            written += count
            self.done = self._part(written, kept.size)
            if self.given_up:
                raise GivenUpError
            if lease is not None:
                self._say(lease, beats.STORING)
            self._say(incoming / BEAT, beats.STORING)

        about = self.about
        try:
            with self.pulse:
                make(incoming)
                beats.write(incoming / BEAT, self._beat(beats.STORING), new=True)
            files = copy_in(kept.tree, kept.names, incoming, pulse=self.pulse, progress=progress)
            entry = Entry(self.id, about.version, about.source, about.fingerprint, self.pod, files)
            with self.pulse:
                self.folder.finish(incoming, entry, BEAT)
                stored = self.folder.publish(incoming, about.key)
        finally:
            # Nothing is there once it was moved.
            with suppress(OSError, SharedError), self.pulse:
                delete(incoming)
        if stored:
            METRICS.cache.labels("stored").inc()
            _log.info("version %d is in the cache: %d bytes", about.version, kept.size)

    def _part(self, done: int, whole: int) -> int:
        """How far it is, of the bytes to fetch: out of an archive come more."""
        return done * self.about.size // max(whole, 1)

    def _finish(self, outcome: Outcome) -> None:
        if self.outcome is None:
            self.outcome = outcome
        self.changed.set()

    def _beat(self, phase: str) -> Beat:
        self._beats += 1
        return Beat(self.id, self.pod, phase, self._beats, self.done, self.about.size, self.steps)

    def _say(self, path: Path, phase: str) -> None:
        """Show that this lives, if it is time again."""
        now = time.monotonic()
        if now - self._said.get(path, -math.inf) >= beats.BEAT_SECONDS:
            self._said[path] = now
            with self.pulse:
                self._write_beat(path, phase)

    def _write_beat(self, path: Path, phase: str) -> None:
        beat = self._beat(phase)
        try:
            beats.write(path, beat)
        except OSError as error:
            # Others remove the file of who was silent for too long, which is no fault of theirs.
            if error.errno not in GONE or path.parent not in (
                self.folder.users,
                self.folder.leases,
            ):
                raise
            if path.parent == self.folder.users:
                beats.write(path, beat, new=True)
