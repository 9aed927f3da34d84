"""Says on standard error what is going on and for how long."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Seconds between two lines about the same step where the output is no terminal.
QUIET_SECONDS = 15.0

Update = "Callable[[str], None]"


def say(text: str) -> None:
    """Print one line at once."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def step(what: str) -> Iterator[Callable[[str], None]]:
    """Announce a step, show how far it is while it runs, and say how long it took.

    Yields a function that takes the news of the moment ("812 packages"); call it as often as
    wanted: a terminal shows each on the same line, a log only one now and then.
    """
    began = time.monotonic()
    terminal = sys.stderr.isatty()
    last = began

    def update(news: str) -> None:
        nonlocal last
        now = time.monotonic()
        line = f"{what}: {news}, {now - began:.0f} s"
        if terminal:
            print(f"\r\x1b[2K  … {line}", end="", file=sys.stderr, flush=True)
        elif now - last >= QUIET_SECONDS:
            last = now
            say(f"  … {line}")

    def close(mark: str) -> None:
        start = "\r\x1b[2K" if terminal else ""
        say(f"{start}  {mark} {what} ({time.monotonic() - began:.1f} s)")

    if terminal:
        print(f"  … {what}", end="", file=sys.stderr, flush=True)
    else:
        say(f"  … {what}")
    try:
        yield update
    except BaseException:
        close("✗")
        raise
    close("✓")
