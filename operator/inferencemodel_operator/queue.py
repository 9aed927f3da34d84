"""Which keys are to be reconciled, and when.

A key is in the queue at most once and never with two workers at a time: what happens to it
while a worker has it makes it come round once more.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Hashable

K = TypeVar("K", bound="Hashable")

FIRST_BACKOFF: Final = 0.25
LONGEST_BACKOFF: Final = 60.0
RETRIES_PER_SECOND: Final = 50.0
"""Over all keys, so that a fault which they share does not become a storm of requests."""


class WorkQueue(Generic[K]):
    """A deduplicating queue with delays and backoff; for one event loop."""

    def __init__(self) -> None:
        self._ready: deque[K] = deque()
        self._queued: set[K] = set()
        self._working: set[K] = set()
        self._again: set[K] = set()
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._failures: dict[K, int] = {}
        self._next_retry = 0.0
        self._waiters: deque[asyncio.Future[None]] = deque()

    def __len__(self) -> int:
        return len(self._ready)

    @property
    def waiting(self) -> int:
        """How many keys wait for a retry or a short delay.

        One that waits longer than any retry does waits for what is planned, such as the end of a
        rollout's step.
        """
        # The clock of asyncio's loops.
        soon = time.monotonic() + LONGEST_BACKOFF
        return sum(timer.when() <= soon for timer in self._timers.values())

    @property
    def working(self) -> int:
        """How many keys are with a worker."""
        return len(self._working)

    def add(self, key: K) -> None:
        """Have a key reconciled as soon as a worker is free."""
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
        if key in self._working:
            self._again.add(key)
        elif key not in self._queued:
            self._queued.add(key)
            self._ready.append(key)
            self._wake()

    def add_after(self, key: K, seconds: float) -> None:
        """Have a key reconciled at the latest after so many seconds."""
        loop = asyncio.get_running_loop()
        due = loop.time() + seconds
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= due:
                return
            timer.cancel()
        self._timers[key] = loop.call_at(due, self._due, key)

    def retry(self, key: K, *, at_least: float = 0.0) -> float:
        """Have a failed key reconciled later, and later again with each failure.

        Args:
            key: what failed.
            at_least: seconds that somebody asked to wait.

        Returns:
            The delay in seconds.
        """
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        longest = min(LONGEST_BACKOFF, FIRST_BACKOFF * 2.0 ** min(failures, 16))
        now = asyncio.get_running_loop().time()
        self._next_retry = max(now, self._next_retry + 1 / RETRIES_PER_SECOND)
        delay = max(longest * random.uniform(0.5, 1.0), self._next_retry - now, at_least)  # noqa: S311
        self.add_after(key, delay)
        return delay

    def failures(self, key: K) -> int:
        """How often in a row a key has failed."""
        return self._failures.get(key, 0)

    def forget(self, key: K) -> None:
        """Forget a key's failures: its last attempt went well."""
        self._failures.pop(key, None)

    async def get(self) -> K:
        """The next key; the worker that takes it calls `done` when it has finished."""
        while not self._ready:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled():
                    self._wake()
                raise
        key = self._ready.popleft()
        self._queued.discard(key)
        self._working.add(key)
        return key

    def done(self, key: K) -> None:
        """Tell that the worker has finished with a key."""
        self._working.discard(key)
        if key in self._again:
            self._again.discard(key)
            self.add(key)

    def close(self) -> None:
        """Drop all timers."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _due(self, key: K) -> None:
        self._timers.pop(key, None)
        self.add(key)

    def _wake(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
