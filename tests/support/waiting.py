"""Waiting on a condition with a deadline, in place of sleeping."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


_PRESSURE = Path("/proc/pressure/cpu")
"""Where Linux counts the microseconds in which something waited for a processor (PSI)."""

_WAITING = 0.25
"""How much of a second counts in which something waited for a processor."""


class Deadline:
    """Some seconds of a machine that has a processor for whoever wants one.

    Those in which something waits for a processor count a quarter: what is late on a busy machine
    is not wrong, and what never comes still ends within four times the seconds.
    """

    def __init__(self, within: float, *, exact: bool = False) -> None:
        """``exact``: whether each second counts whole all the same."""
        self._within = within
        self._exact = exact
        self._began = time.monotonic()
        self._busy = _busy()

    @property
    def passed(self) -> bool:
        """Whether the seconds are over."""
        elapsed = time.monotonic() - self._began
        busy = 0.0 if self._exact else min(_busy() - self._busy, elapsed)
        return elapsed - busy * (1 - _WAITING) > self._within


def _busy() -> float:
    """The seconds since the machine's start in which something waited; zero where none counts."""
    try:
        told = _PRESSURE.read_text()
    except OSError:
        return 0.0
    return int(told.partition("total=")[2].split()[0]) / 1e6


def eventually(
    probe: Callable[[], T | None],
    *,
    what: str,
    within: float = 60.0,
    every: float = 0.2,
    exact: bool = False,
) -> T:
    """Call ``probe`` until it returns something true, and return that.

    An AssertionError of the probe counts as "not yet", and so does a key or an index that is not
    there yet in what it looks at; both are told when time is up.

    Args:
        probe: looks once; cheap enough to be called every ``every`` seconds.
        what: what is waited for, in words.
        within: the deadline in seconds, as ``Deadline`` counts them.
        every: the pause between two looks in seconds.
        exact: whether the time is what is tested: then each second counts, on a busy machine too.

    Raises:
        TimeoutError: the deadline passed; names what was waited for and what was last seen.
    """
    deadline = Deadline(within, exact=exact)
    last: object = None
    while True:
        try:
            result = probe()
            if result:
                return result
            last = result
        except AssertionError as error:
            last = error
        except LookupError as error:
            last = repr(error)
        if deadline.passed:
            raise TimeoutError(f"after {within:.0f} s still waiting for {what}; last seen: {last}")
        time.sleep(every)
