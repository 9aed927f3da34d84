"""What the poller has of a cache: a version that is there, or leave to fetch it.

Nothing here touches the shared folder. That is what sessions do, on threads that may never come
back: so many may be lost, and then the cache is left alone.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from typing import TYPE_CHECKING, Final

import msgspec

from model_poller.cache import key as keys
from model_poller.cache.beats import Watch
from model_poller.cache.copying import Pulse, SharedError, state_of
from model_poller.cache.folder import Folder, delete
from model_poller.cache.housekeeping import Keeper
from model_poller.cache.session import About, Copied, Failed, Session
from model_poller.errors import StoppedError
from model_poller.process import threads
from model_poller.status import CacheState, CacheStatus

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from model_poller.cache.settings import CacheSettings
    from model_poller.versions import StoredVersion

_log = logging.getLogger(__name__)

STUCK_SECONDS: Final = 10.0
"""So long may the cache take for one answer before nobody waits for it any more."""
LOST: Final = 2
"""So many threads may hang in it."""
AGAIN_SECONDS: Final = 60.0
"""Before a cache that can't be used is looked at again; and before it is looked whether those are
dead that gave no sign of life."""
_GLANCE_SECONDS: Final = 0.2


class Cache:
    """A folder that several pods share."""

    def __init__(
        self, settings: CacheSettings, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings = settings
        self._folder = Folder(settings.folder)
        self._watch = Watch()
        self._clock = clock
        self._lock = threading.Lock()
        self._sessions: list[Session] = []
        self._checks: list[Pulse] = []
        self._status = CacheStatus()
        self._not_before = 0.0
        self._check_at = 0.0
        self._lacking = 0
        """Bytes of the version that had no room last."""
        self._stopped = False

    @property
    def status(self) -> CacheStatus:
        """How it is, as far as that is known."""
        with self._lock:
            storing = any(session.storing for session in self._sessions)
        return msgspec.structs.replace(self._status, storing=storing)

    def visit(
        self,
        stored: StoredVersion,
        staged: Path,
        room: Callable[[int, int], None],
        stopped: threading.Event,
        progress: Callable[[int], None],
        note: Callable[[str], None],
    ) -> Visit:
        """Begin with one version.

        Args:
            stored: what is in the source.
            staged: a folder of the pod's own.
            room: asks for bytes and files there.
            stopped: set when nobody needs it any more.
            progress: told of bytes as they come, and not.
            note: told what is going on.
        """
        key = keys.key(stored, self._settings.server)
        session = None
        if key is not None:
            about = About(
                key, stored.version, stored.size, stored.objects[0].root.uri, stored.fingerprint
            )
            session = self._begin(about, staged, room)
        return Visit(self, session, stopped, progress, note)

    def _begin(
        self, about: About, staged: Path, room: Callable[[int, int], None]
    ) -> Session | None:
        pulse = Pulse()
        session = Session(
            self._folder,
            Keeper(self._folder, self._watch, self._settings.max_bytes, pulse),
            about,
            staged / f"cached-{secrets.token_hex(4)}",
            room,
            self._settings.pod,
            self._ended,
            pulse,
        )
        with self._lock:
            if self._clock() < self._not_before or not self._may_start():
                return None
            self._sessions.append(session)
        try:
            threads.spawn("cache", session.run)
        except RuntimeError:
            self._ended(session, CacheState.PENDING, "")
            return None
        return session

    def _may_start(self) -> bool:
        return not self._stopped and len(self._sessions) + len(self._checks) < LOST + 1

    def tend(self) -> None:
        """Look after it now and then; returns at once."""
        now = self._clock()
        with self._lock:
            is_busy = self._checks or any(not session.given_up for session in self._sessions)
            if is_busy or now < self._check_at or not self._may_start():
                self._note_hanging()
                return
            self._check_at = now + AGAIN_SECONDS
            pulse = Pulse()
            self._checks.append(pulse)
        try:
            threads.spawn("cache check", lambda: self._check(pulse))
        except RuntimeError:
            self._checks.remove(pulse)

    def _note_hanging(self) -> None:
        if any(pulse.stuck > STUCK_SECONDS for pulse in self._checks):
            self._judge(CacheState.UNUSABLE, _HANGS)

    def _check(self, pulse: Pulse) -> None:
        """See whether it can be used, and clear up."""
        keeper = Keeper(self._folder, self._watch, self._settings.max_bytes, pulse)
        state, why, again = CacheState.READY, "", False
        try:
            with pulse:
                self._folder.prepare()
                self._folder.probe()
            again = keeper.clear_up()
            if self._status.state is CacheState.FULL and keeper.lacks(self._lacking):
                state, why, again = CacheState.FULL, self._status.message, True
        except SharedError as error:
            state, why = state_of(error), str(error)
            again = True
        finally:
            with self._lock:
                self._checks.remove(pulse)
                if not again:
                    # As long as all is well, whoever uses it next sees what isn't.
                    self._check_at = float("inf")
        self._judge(state, why)

    def stop(self) -> None:
        """End what goes on, as far as it can be ended."""
        with self._lock:
            self._stopped = True
            sessions = list(self._sessions)
        for session in sessions:
            session.give_up()

    def join(self, seconds: float) -> None:
        """Wait until all that goes on has ended, unless it hangs."""
        self._wait(lambda _: True, seconds)

    def finish(self, seconds: float) -> None:
        """Wait until what was fetched is in the cache, unless it hangs there: others want it."""
        self._wait(lambda session: session.storing, seconds)

    def _wait(self, counts: Callable[[Session], bool], seconds: float) -> None:
        until = self._clock() + seconds
        while self._clock() < until:
            with self._lock:
                awaited = [session for session in self._sessions if counts(session)]
            if all(session.pulse.stuck > STUCK_SECONDS for session in awaited):
                return
            time.sleep(_GLANCE_SECONDS)

    def hangs(self, session: Session) -> None:
        """Wait for a session no longer."""
        session.give_up()
        self._judge(CacheState.UNUSABLE, _HANGS)

    def _ended(self, session: Session, state: CacheState, why: str) -> None:
        if not session.given_up and state is not CacheState.PENDING:
            self._lacking = session.about.size
            self._judge(state, why)
        with self._lock:
            self._sessions.remove(session)
            # Whatever it left is looked at by others, and by the next of this one's checks.
            self._check_at = min(self._check_at, self._clock() + AGAIN_SECONDS)

    def _judge(self, state: CacheState, why: str) -> None:
        now = self._clock()
        if state is CacheState.UNUSABLE:
            self._not_before = now + AGAIN_SECONDS
            self._check_at = min(self._check_at, self._not_before)
        else:
            self._not_before = 0.0
        status = CacheStatus(state=state, message=why)
        if status != self._status and state is not CacheState.READY:
            _log.warning("the cache in %s: %s", self._settings.folder, why)
        self._status = status


_HANGS: Final = f"it has not answered for {STUCK_SECONDS:.0f} s"


class Visit:
    """One version's fetch, with a cache or without."""

    def __init__(
        self,
        cache: Cache,
        session: Session | None,
        stopped: threading.Event,
        progress: Callable[[int], None],
        note: Callable[[str], None],
    ) -> None:
        self._cache = cache
        self._session = session
        self._stopped = stopped
        self._progress = progress
        self._note = note
        self._shown = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None
    ) -> None:
        if self._session is not None:
            self._session.end()

    def obtain(self) -> Path | None:
        """The version's files in a folder of the pod's own; None: they have to be fetched.

        Waits while another pod fetches them. Afterwards `keep` is called with what was fetched.

        Raises:
            StoppedError: nobody needs it any more.
            InsufficientDiskError, OSError: the pod's own volume has no room.
        """
        session = self._session
        if session is None:
            return None
        while session.outcome is None:
            session.changed.wait(_GLANCE_SECONDS)
            session.changed.clear()
            if self._stopped.is_set():
                session.give_up()
                raise StoppedError(f"version {session.about.version} is not needed any more")
            self._show(session.done, session.note)
            if session.outcome is None and session.pulse.stuck > STUCK_SECONDS:
                self._cache.hangs(session)
                self._session = None
                self._show(0, "")
                return None
        match session.outcome:
            case Copied(folder):
                self._show(session.about.size, "")
                return folder
            case Failed(error):
                self._show(0, "")
                raise error
        self._show(0, "")
        return None

    def _show(self, done: int, note: str) -> None:
        self._progress(done - self._shown)
        self._shown = done
        self._note(note)

    def fetched(self, count: int) -> None:
        """Take in how many bytes came from the source."""
        self._progress(count)
        if self._session is not None:
            self._session.fetched += count

    def goes_on(self) -> None:
        """Take in that what came is being unpacked or checked, which may take long as well."""
        if self._session is not None:
            self._session.steps += 1

    def distrust(self, folder: Path) -> None:
        """What came from the cache doesn't pass this pod's checks; only the source can fail."""
        delete(folder)
        self._show(0, "")
        if self._session is not None:
            self._session.distrust()

    def keep(self, folder: Path) -> None:
        """Put what was fetched and checked into the cache, beside whatever is done with it now."""
        if self._session is not None:
            try:
                self._session.keep(folder)
            except OSError as error:
                _log.warning("what was fetched can't be put into the cache: %s", error)
