"""What is handed out for a while, and renewed before it expires."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from model_poller.errors import PollerError

if TYPE_CHECKING:
    from collections.abc import Callable

_RENEW_SECONDS = 300.0
"""Before it expires. Containers and instances are handed new keys at least so early."""
_PAUSE_SECONDS = 30.0
"""Between two questions to who does not answer, while what was handed out still counts."""


class Expiring(Protocol):
    """Keys or a token."""

    @property
    def expires(self) -> float:
        """Unix time."""


T = TypeVar("T", bound=Expiring)


class Renewed(Generic[T]):
    """Keeps what ``find`` hands out; threads that need it meanwhile wait for one question."""

    def __init__(
        self, find: Callable[[], T], early: float = _RENEW_SECONDS, pause: float = 0.0
    ) -> None:
        """``early`` is how many seconds before it expires something else is asked for.

        What is handed out so late already is used for ``pause`` seconds before that. What is over
        when it is handed out is used for a while, too: this machine's clock may be wrong.
        """
        self._pause = pause
        self._find = find
        self._early = early
        self._lock = threading.Lock()
        self._next = 0.0
        self._is_unclear = False
        self.kept: T | None = None
        """The last that was handed out."""

    def get(self) -> T:
        """What counts now.

        What was handed out counts until it expires, whatever is answered to the question for more.

        Raises:
            Whatever ``find`` raises, where nothing counts any more.
        """
        with self._lock:
            kept, now = self.kept, time.time()
            is_early = now < self._next
            if kept and kept.expires - now > (0.0 if is_early else self._early):
                return kept
            if kept and is_early and self._is_unclear:
                return kept
            try:
                self.kept = self._find()
            except PollerError:
                if kept is None or kept.expires <= now:
                    raise
                self._next = now + _PAUSE_SECONDS
                return kept
            self._is_unclear = self.kept.expires <= now
            if self._is_unclear:
                self._next = now + _PAUSE_SECONDS
            elif self.kept.expires - now <= self._early:
                self._next = now + self._pause
            return self.kept

    def forget(self) -> None:
        """Find anew at the next use: what is kept was refused."""
        with self._lock:
            self.kept = None
