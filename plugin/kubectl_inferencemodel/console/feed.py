"""All InferenceModels as they are now, by one list and one watch of each namespace.

What is kept of a model is its row, a few hundred bytes, of at most `LIMIT` models. Changes go to
subscribers as the keys of what has changed, so one who is slow has no queue that grows.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import msgspec

from kubectl_inferencemodel.console import fleet
from kubectl_inferencemodel.errors import ForbiddenError, PluginError
from kubectl_inferencemodel.following import Listed, Pauses, followed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kubectl_inferencemodel.cluster import Cluster
    from kubectl_inferencemodel.console.fleet import Row
    from kubectl_inferencemodel.following import Key
    from kubectl_inferencemodel.resource import InferenceModel

LIMIT: Final = 10_000
"""So many models are kept; more are counted."""
_TRAILS: Final = 200
"""So many models have the steps of their rollouts remembered, each so many steps."""
_STEPS: Final = 40
_REMEMBERED: Final = 20_000
"""So many changes a page may be behind when it begins to be told of them."""
_GATHER_SECONDS: Final = 0.04
"""Changes that come within this time go out together."""


class Passed(msgspec.Struct, frozen=True):
    """A step of a rollout that was seen to begin."""

    version: int
    phase: str
    step: int
    since: datetime


class Subscription:
    """What has changed since one subscriber looked last."""

    def __init__(self, loop: asyncio.AbstractEventLoop, only: Key | None) -> None:
        self._loop = loop
        self._only = only
        self._changed: set[Key | None] = set()
        self._event = asyncio.Event()
        self._lock = threading.Lock()

    @property
    def is_page(self) -> bool:
        """Whether it is about one model, and so about more than its row."""
        return self._only is not None

    def tell(self, keys: set[Key | None]) -> None:
        """Add what has changed; from any thread. None is for the feed itself."""
        found = keys if self._only is None else keys & {self._only, None}
        if found:
            with self._lock:
                self._changed |= found
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._event.set)

    async def changed(self, seconds: float) -> set[Key | None]:
        """What has changed, as soon as anything has; nothing when the time is up."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._event.wait(), seconds)
            await asyncio.sleep(_GATHER_SECONDS)
        self._event.clear()
        with self._lock:
            found, self._changed = self._changed, set()
        return found


class Feed:
    """The rows of all InferenceModels, kept up to date by threads of its own."""

    def __init__(self, cluster: Cluster, namespaces: Sequence[str] = ()) -> None:
        """Watch some namespaces; without any, all, or where one may not, that of the context."""
        self._cluster = cluster
        self._asked = tuple(namespaces)
        self._rows: dict[Key, Row] = {}
        self._trails: dict[Key, list[Passed]] = {}
        self._left_out: set[Key] = set()
        self._subscribers: set[Subscription] = set()
        self._past: deque[Key] = deque(maxlen=_REMEMBERED)
        self._revision = 0
        self._lock = threading.Lock()
        self._listed = threading.Event()
        self._open = len(self._asked) or 1
        self._ended = threading.Event()
        self.problems: dict[str, str] = {}
        """Why what is shown may be old, by namespace; empty for all of them."""
        self.note = ""
        """What is left out, in words."""

    def start(self) -> None:
        """Begin to list and watch."""
        for namespace in self._asked or ("",):
            threading.Thread(target=self._run, args=(namespace,), daemon=True).start()

    def end(self) -> None:
        """Have the threads end with what they do, and who is told of changes."""
        self._ended.set()
        if not self._listed.is_set():
            # Whoever waits for the first list would keep the process from ending.
            self.problems[""] = "the console has ended before the models were listed"
            self._listed.set()
        self._tell({None})

    @property
    def has_ended(self) -> bool:
        """Whether nothing is followed any more."""
        return self._ended.is_set()

    def wait(self, seconds: float) -> bool:
        """Wait for the first list; whether it is there."""
        return self._listed.wait(seconds)

    @property
    def rows(self) -> list[Row]:
        """All rows, errors first."""
        with self._lock:
            found = list(self._rows.values())
        return sorted(found, key=lambda row: row.order)

    @property
    def revision(self) -> int:
        """A number that is higher after each change of a row."""
        return self._revision

    def since(self, revision: int) -> set[Key] | None:
        """What has changed since a revision; None where that isn't known any more."""
        with self._lock:
            missed = self._revision - revision
            if missed == 0:
                return set()
            if not 0 < missed <= len(self._past):
                return None
            return set(list(self._past)[-missed:])

    @property
    def left_out(self) -> int:
        """How many models are not kept; at most `LIMIT`, where there are more still."""
        return len(self._left_out)

    def row(self, key: Key) -> Row | None:
        """One row; None where there is no such model."""
        return self._rows.get(key)

    def trail(self, key: Key) -> tuple[Passed, ...]:
        """The steps that were seen of a model's rollouts, oldest first."""
        return tuple(self._trails.get(key, ()))

    @contextlib.contextmanager
    def subscribed(self, only: Key | None = None) -> Iterator[Subscription]:
        """Be told of what changes: everything, or one model."""
        subscription = Subscription(asyncio.get_running_loop(), only)
        with self._lock:
            self._subscribers.add(subscription)
        try:
            yield subscription
        finally:
            with self._lock:
                self._subscribers.discard(subscription)

    # -- Threads --------------------------------------------------------------------------------

    def _run(self, namespace: str) -> None:
        pauses = Pauses()
        while not self._ended.is_set():
            begun = time.monotonic()
            try:
                self._follow(namespace)
            except ForbiddenError as error:
                if not namespace and not self._asked:
                    namespace = self._cluster.namespace
                    self.note = f"only namespace {namespace}: you may not list those of all"
                    continue
                self._fail(namespace, str(error))
            except PluginError as error:
                self._fail(namespace, str(error))
            self._ended.wait(pauses.after(time.monotonic() - begun))

    def _follow(self, namespace: str) -> None:
        """List, and watch for as long as that goes on from what was listed.

        Raises:
            PluginError: it is to be begun anew.
        """
        cluster = self._cluster.within(namespace) if namespace else self._cluster
        for step in followed(cluster, everywhere=not namespace, pause=self._ended.wait):
            if isinstance(step, Listed):
                self._forget({key for key in self._known(namespace) if key not in step.keys})
                self._arrived(namespace)
            elif step is not None and step.model is None:
                self._forget({step.key})
            elif step is not None and step.model is not None:
                self._keep(step.model)
            if self._ended.is_set():
                return

    def _known(self, namespace: str) -> list[Key]:
        with self._lock:
            return [key for key in self._rows if namespace in ("", key[0])]

    def _keep(self, model: InferenceModel) -> None:
        made = fleet.row(model)
        key = made.key
        with self._lock:
            before = self._rows.get(key)
            if before is None and len(self._rows) >= LIMIT:
                if len(self._left_out) < LIMIT:
                    self._left_out.add(key)
                return
            self._rows[key] = made
            passed = self._pass(key, model)
            if before != made:
                self._count(key)
        # A model's own page shows more than its row does, so it is told of every change.
        self._tell({key}, only_pages=before == made and not passed)

    def _count(self, key: Key) -> None:
        self._revision += 1
        self._past.append(key)

    def _pass(self, key: Key, model: InferenceModel) -> bool:
        """Remember a step that has begun."""
        running = model.running
        if running is None:
            return False
        since = running.step_started_time or running.start_time
        trail = self._trails.get(key, [])
        last = trail[-1] if trail else None
        now = Passed(running.version, running.phase, running.step, since)
        if last is not None and msgspec.structs.replace(now, since=last.since) == last:
            return False
        if last is not None and last.since == now.since:
            # Another phase of the same step: that began when it was seen to.
            now = msgspec.structs.replace(now, since=datetime.now(UTC))
        self._trails.pop(key, None)
        self._trails[key] = [*trail, now][-_STEPS:]
        if len(self._trails) > _TRAILS:
            del self._trails[next(iter(self._trails))]
        return True

    def _forget(self, keys: set[Key]) -> None:
        if not keys:
            return
        with self._lock:
            for key in keys:
                self._rows.pop(key, None)
                self._trails.pop(key, None)
                self._left_out.discard(key)
                self._count(key)
        self._tell(set(keys))

    def _arrived(self, namespace: str) -> None:
        self._open -= 1
        if self._open <= 0:
            self._listed.set()
        if self.problems.pop(namespace, None) is not None:
            self._tell({None})

    def _fail(self, namespace: str, words: str) -> None:
        at = f"{datetime.now(UTC):%H:%M:%SZ}"
        told = fleet.bounded(words)
        if namespace not in self.problems:
            self.problems[namespace] = f"not up to date since {at}: {told}"
            self._tell({None})
        # Whoever waits for the first list is to see why there is none.
        self._listed.set()

    def _tell(self, keys: set[Key | None], *, only_pages: bool = False) -> None:
        with self._lock:
            subscribers = tuple(self._subscribers)
        for subscriber in subscribers:
            if not only_pages or subscriber.is_page:
                subscriber.tell(keys)
