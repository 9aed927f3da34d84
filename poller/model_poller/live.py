"""What the model server counted while it answered with one version; pure.

The server counts from its start, whatever it answers with. So a window begins with the first
figures that were asked for after the version came to answer, and what is told are differences.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from model_poller.status import LiveStatus

if TYPE_CHECKING:
    from collections.abc import Collection

    from model_poller.model_server.figures import Figures
    from model_poller.status import RolloutTask

LOOK_SECONDS = 5.0
"""How often figures are asked for."""
FRESH_SECONDS = 60.0
"""For so long figures are told without newer ones: a server that is busy may miss some."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a window is about; another one begins another window."""

    task: str
    """`RolloutTask.key`."""
    version: int
    """What the server answers with."""


def asked(
    task: RolloutTask | None, answering: int | None, checked: Collection[int] | None = None
) -> Asked | None:
    """What is to be counted while a task is about and the server answers with a version.

    ``checked`` are versions whose golden requests were sent; None: nobody sends any. They are the
    poller's own, and nobody's load.
    """
    if task is None or not task.live or answering is None:
        return None
    is_first = task.golden is not None and answering == task.version
    if is_first and checked is not None and answering not in checked:
        return None
    return Asked(task.key, answering)


@dataclass(frozen=True, slots=True)
class Scrape:
    """Figures, and when they were asked for; monotonic seconds."""

    begun: float
    figures: Figures


@dataclass(frozen=True, slots=True)
class Window:
    """Where counting began, and how far it has come."""

    asked: Asked
    since: float
    """When this was first wanted: older figures have requests of something else."""
    first: Scrape | None = None
    last: Scrape | None = None


def after(
    before: Window | None, asked: Asked | None, scrape: Scrape | None, now: float
) -> Window | None:
    """The window after a look at what is asked, and at the newest figures."""
    if asked is None:
        return None
    window = before if before and before.asked == asked else Window(asked, now)
    if scrape is None or scrape.begun < window.since or scrape == window.last:
        return window
    if window.first and window.last and window.last.figures.is_before(scrape.figures):
        return replace(window, last=scrape)
    # A server that was started anew counts from nothing.
    return replace(window, first=scrape, last=scrape)


def status(window: Window | None, now: float) -> LiveStatus | None:
    """What is told of a window; nothing before it has begun, and without fresh figures."""
    if window is None or window.first is None or window.last is None:
        return None
    first, last = window.first, window.last
    if now - last.begun > FRESH_SECONDS:
        return None
    good = last.figures.good - first.figures.good
    bad = last.figures.bad - first.figures.bad
    return LiveStatus(
        task=window.asked.task,
        version=window.asked.version,
        requests=good + bad,
        errors=bad,
        ok_seconds=round(first.figures.seconds_until(last.figures), 6) if good else 0.0,
        window_seconds=round(last.begun - first.begun, 3),
    )
