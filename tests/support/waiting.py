"""Waiting on a condition with a deadline, in place of sleeping."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def eventually(
    probe: Callable[[], T | None], *, what: str, within: float = 60.0, every: float = 0.2
) -> T:
    """Call ``probe`` until it returns something true, and return that.

    An AssertionError of the probe counts as "not yet" and is told when time is up.

    Args:
        probe: looks once; cheap enough to be called every ``every`` seconds.
        what: what is waited for, in words.
        within: the deadline in seconds.
        every: the pause between two looks in seconds.

    Raises:
        TimeoutError: the deadline passed; names what was waited for and what was last seen.
    """
    deadline = time.monotonic() + within
    last: object = None
    while True:
        try:
            result = probe()
            if result:
                return result
            last = result
        except AssertionError as error:
            last = error
        if time.monotonic() > deadline:
            raise TimeoutError(f"after {within:.0f} s still waiting for {what}; last seen: {last}")
        time.sleep(every)
