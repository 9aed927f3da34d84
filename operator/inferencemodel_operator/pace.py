"""How often something may happen: at once at first, and less and less often while it goes on."""

from __future__ import annotations

from typing import Final


class Bucket:
    """A token bucket: so many at once, and then one each so many seconds.

    It is full again after ``burst * seconds`` of rest. Times are in seconds of the caller's clock.
    """

    __slots__ = ("_debt", "_full_at", "_seconds")

    def __init__(self, *, burst: int, seconds: float) -> None:
        self._seconds: Final = seconds
        self._debt: Final = (burst - 1) * seconds
        self._full_at = float("-inf")

    def wait(self, now: float) -> float:
        """Seconds until one more may happen; 0 for now."""
        return max(0.0, self._full_at - self._debt - now)

    def take(self, now: float) -> None:
        """One happens."""
        self._full_at = max(self._full_at, now) + self._seconds

    def try_take(self, now: float) -> bool:
        """Whether one more may happen now; where it may, it does."""
        if self.wait(now) > 0:
            return False
        self.take(now)
        return True

    def is_full(self, now: float) -> bool:
        """Whether it remembers nothing: a new one would do as well."""
        return self._full_at <= now


class Pace:
    """Several buckets, each of which has to let it happen."""

    def __init__(self, *buckets: Bucket) -> None:
        self._buckets = buckets

    def wait(self, now: float) -> float:
        """Seconds until one more may happen; 0 for now."""
        return max(bucket.wait(now) for bucket in self._buckets)

    def take(self, now: float) -> None:
        """One happens."""
        for bucket in self._buckets:
            bucket.take(now)


REPAIRS: Final = 5
REPAIR_SECONDS: Final = 60.0
"""How often in a row something is changed back at once, and how soon once more after that: others
may want it otherwise, and as firmly."""


def repairs() -> Bucket:
    """Of one thing that is changed back."""
    return Bucket(burst=REPAIRS, seconds=REPAIR_SECONDS)
