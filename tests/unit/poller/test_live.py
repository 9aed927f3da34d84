"""What is told of a model server's figures while a rollout runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from model_poller.board import Board
from model_poller.live import (
    FRESH_SECONDS,
    LOOK_SECONDS,
    Asked,
    Scrape,
    Window,
    after,
    asked,
    status,
)
from model_poller.model_server.figures import Figures
from model_poller.status import (
    CheckResult,
    GoldenTask,
    LiveStatus,
    PollerStatus,
    RolloutTask,
    SourceStatus,
)
from model_poller.volume.assignment import Assignment
from tests.unit.poller.doubles import below, model, zipped
from tests.unit.poller.world import TOLD, World

if TYPE_CHECKING:
    from pathlib import Path

TWO = Asked("step 1", 2)


def figures(good: int, bad: int = 0, seconds: float = 0.0) -> Figures:
    return Figures(good, bad, seconds * 1e6)


def told(*scrapes: tuple[float, Figures], now: float) -> LiveStatus | None:
    window: Window | None = None
    window = after(window, TWO, None, 100.0)
    for begun, read in scrapes:
        window = after(window, TWO, Scrape(begun, read), begun + 0.1)
    return status(window, now)


def test_it_is_asked_only_of_a_version_that_answers() -> None:
    task = RolloutTask(version=2, key="step 1", live=True)
    assert asked(task, 2) == TWO
    assert asked(task, 1) == Asked("step 1", 1)
    assert asked(task, None) is None
    assert asked(None, 2) is None
    assert asked(msgspec.structs.replace(task, live=False), 2) is None
    assert after(Window(TWO, 1.0), None, None, 2.0) is None


def test_it_is_not_asked_before_the_pollers_own_requests_are_through() -> None:
    task = RolloutTask(version=2, key="step 1", live=True, golden=GoldenTask())
    assert asked(task, 2, {}) is None
    assert asked(task, 2, {2: CheckResult.PASSED}) == TWO
    assert asked(task, 1, {}) == Asked("step 1", 1)
    assert asked(task, 2, None) == TWO


def test_differences_are_told_from_the_first_figures_on() -> None:
    first = (101.0, figures(1000, 7, seconds=50.0))
    assert told(now=101.0) is None
    assert told(first, now=101.0) == LiveStatus(task="step 1", version=2)
    later = (111.0, figures(1040, 9, seconds=52.5))
    assert told(first, (106.0, figures(1010, 7, seconds=51)), later, now=112.0) == LiveStatus(
        task="step 1", version=2, requests=42, errors=2, ok_seconds=2.5, window_seconds=10.0
    )


def test_figures_from_before_the_version_answered_are_not_taken() -> None:
    assert told((99.9, figures(1000)), now=101.0) is None


def test_a_server_that_was_started_anew_begins_a_new_window() -> None:
    assert told(
        (101.0, figures(1000)), (106.0, figures(3)), (111.0, figures(5)), now=111.0
    ) == LiveStatus(task="step 1", version=2, requests=2, ok_seconds=0.0, window_seconds=5.0)


@pytest.mark.parametrize("other", [Asked("step 2", 2), Asked("step 1", 3)])
def test_another_step_or_version_begins_a_new_window(other: Asked) -> None:
    window = after(None, TWO, None, 100.0)
    scrape = Scrape(101.0, figures(10))
    window = after(window, TWO, scrape, 101.1)
    window = after(window, other, scrape, 105.0)
    assert status(window, 105.0) is None
    window = after(window, other, Scrape(106.0, figures(20)), 106.1)
    window = after(window, other, Scrape(111.0, figures(25)), 111.1)
    live = status(window, 111.1)
    assert live
    assert (live.task, live.version, live.requests) == (other.task, other.version, 5)


def test_figures_that_come_no_more_are_told_no_more() -> None:
    first, last = (101.0, figures(1)), (106.0, figures(4))
    assert told(first, last, now=106.0 + FRESH_SECONDS)
    assert told(first, last, now=106.1 + FRESH_SECONDS) is None


def test_time_alone_is_no_news() -> None:
    live = LiveStatus(task="t", version=2, requests=5, window_seconds=10.0)
    status = PollerStatus(revision="", model="m", source=SourceStatus(uri=""), live=live)
    board = Board(status)
    revision = board.read().revision
    longer = msgspec.structs.replace(live, window_seconds=15.0)
    assert not board.post(msgspec.structs.replace(status, live=longer))
    assert board.read().revision == revision
    assert board.read().live == longer
    assert board.post(msgspec.structs.replace(status, live=None))


def test_a_pod_tells_what_it_counts_while_it_is_asked(tmp_path: Path) -> None:
    pod = World(tmp_path, TOLD)
    pod.source.put("1.zip", zipped(below("1", model(b"1"))))
    pod.tell(1)
    pod.settle(turns=4)
    pod.poller.on_figures(pod.clock(), figures(10))
    pod.step()
    assert pod.status().live is None
    assert pod.wanted is None
    pod.clock.now += 1.0
    task = RolloutTask(version=2, key="k", live=True)
    pod.poller.on_assignment(Assignment(1, (1,), rollout=task))
    pod.step()
    assert pod.wanted == ((Asked("k", 1), None), LOOK_SECONDS)
    for good in (20, 26):
        pod.clock.now += 5.0
        pod.poller.on_figures(pod.clock(), figures(good))
        pod.step()
    assert pod.status().live == LiveStatus(task="k", version=1, requests=6, window_seconds=5.0)
    pod.poller.on_assignment(Assignment(1, (1,)))
    pod.step()
    assert pod.status().live is None
    assert pod.wanted is None
