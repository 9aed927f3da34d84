"""When what failed for a reason that passes is tried again, and when it is given up."""

from __future__ import annotations

import math
import random
import time
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from model_poller.errors import UnreachableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextvars import Token
    from typing import Self

    from model_poller.errors import PollerError

LISTING_SECONDS = 600.0
"""For all questions of a whole listing, however many pages follow one another: a bucket of a
million objects has a thousand."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Pauses double, and differ between clients, so that a fleet doesn't ask at once."""

    attempts: float
    """Infinite: it is tried for ever."""
    first_seconds: float
    """The pause after the first failure, on the average."""
    longest_seconds: float
    """A server that asks for a longer one gets it from whoever asks next."""
    deadline_seconds: float = math.inf
    """After the operation's begin no further try is made; each try has a deadline of its own."""

    def pause(self, failures: int, asked: float = 0.0, jitter: float | None = None) -> float:
        """Seconds after so many failures in a row; ``asked`` is the least that the server wants.

        ``jitter`` is the part of the pause that is waited; None: one by chance.
        """
        pause = self.first_seconds * 2.0 ** min(failures - 1, 60)
        pause *= random.uniform(0.5, 1.5) if jitter is None else jitter  # noqa: S311
        return min(max(pause, asked), self.longest_seconds)


class Tries:
    """The tries of one operation."""

    def __init__(
        self,
        policy: RetryPolicy,
        wait: Callable[[float], object] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._policy = policy
        self._wait = wait
        self._clock = clock
        self._begin = clock()
        self._failures = 0

    @property
    def is_last(self) -> bool:
        """Whether the try that is made now is the last one."""
        return self._failures + 1 >= self._policy.attempts or (
            self._clock() - self._begin >= self._policy.deadline_seconds
        )

    def progress(self) -> None:
        """Count anew: a try that gained something is no failure."""
        self._failures, self._begin = 0, self._clock()

    def failed(self, error: PollerError) -> None:
        """Wait until the next try.

        Raises:
            PollerError: this one, if there is none.
        """
        if self.is_last:
            raise error
        self._failures += 1
        asked = error.retry_after if isinstance(error, UnreachableError) else 0.0
        self._wait(self._policy.pause(self._failures, asked))


class Deadline:
    """An end to what may go on for ever though each step of it ends, as a listing's pages do.

    While its context is entered, the same thread asks no store a question after it, be it for a
    page that shows nothing and ends no wait for items.
    """

    def __init__(self, seconds: float, what: str) -> None:
        self._what = what
        self._seconds = seconds
        self._end = time.monotonic() + seconds
        self._before: Token[Deadline | None] | None = None

    def __enter__(self) -> Self:
        self._before = _CURRENT.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before:
            _CURRENT.reset(self._before)

    def each(self, items: Iterable[T]) -> Iterator[T]:
        """The items, as long as they come in time.

        Raises:
            UnreachableError
        """
        for item in items:
            self.check()
            yield item

    def check(self) -> None:
        """Go on only in time.

        Raises:
            UnreachableError
        """
        if time.monotonic() > self._end:
            raise UnreachableError(
                f"{self._what} took longer than {self._seconds:.0f} s; it is tried again"
            )


_CURRENT: ContextVar[Deadline | None] = ContextVar("deadline", default=None)


def check_deadline() -> None:
    """Go on only in time, where this thread works under a deadline.

    Raises:
        UnreachableError
    """
    if deadline := _CURRENT.get():
        deadline.check()
