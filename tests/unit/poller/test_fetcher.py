"""The one fetch beside the loop gives signs of life, or is known to give none."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import pytest

from model_poller import fetcher
from model_poller.fetcher import Fetcher, Job
from model_poller.process import threads
from model_poller.stores import StoredObject
from model_poller.stores.uri import parse_uri
from model_poller.versions import StoredVersion
from tests.support.waiting import eventually
from tests.unit.poller.doubles import Clock

if TYPE_CHECKING:
    from collections.abc import Callable

    from model_poller.bring import Bringer

STORED = StoredVersion(version=1, fingerprint="f", objects=(), is_archive=False)


class Bringing:
    """Brings a version as a test says."""

    def __init__(self, work: Callable[[threading.Event], object]) -> None:
        self._work = work

    def bring(self, _: StoredVersion, *, stopped: threading.Event, **_more: Any) -> None:
        self._work(stopped)


def started(work: Callable[[threading.Event], object]) -> Fetcher:
    made = Fetcher(cast("Bringer", Bringing(work)), lambda: None)
    made.start(STORED)
    return made


@pytest.fixture(autouse=True)
def _little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetcher, "SILENT_SECONDS", 0.5)


def test_a_fetch_that_hangs_is_silent_also_while_the_loop_gives_it_up() -> None:
    goes_on = threading.Event()
    made = started(lambda _: goes_on.wait(30))
    try:
        assert threads.silent([made]) == []

        def is_silent() -> bool:
            # As the loop does in each round.
            made.stop()
            return threads.silent([made]) == ["fetch"]

        eventually(is_silent, what="silence", within=10, every=0.02)
    finally:
        goes_on.set()
    eventually(lambda: list(made.ended()), what="an end", within=10, every=0.01)
    assert threads.silent([made]) == []


@pytest.mark.parametrize("ask", [lambda stop: stop.is_set(), lambda stop: stop.wait(0.001)])
def test_a_fetch_that_asks_whether_to_end_is_alive(ask: Callable[[threading.Event], bool]) -> None:
    def work(stop: threading.Event) -> None:
        while not ask(stop):
            time.sleep(0.001)

    made = started(work)
    end = time.monotonic() + 1.2
    while time.monotonic() < end:
        assert threads.silent([made]) == []
        time.sleep(0.02)
    made.stop()
    eventually(lambda: list(made.ended()), what="an end", within=10, every=0.01)


GB = 10**9


def test_the_time_that_is_left_follows_the_rate_of_late() -> None:
    clock = Clock()
    whole = StoredObject(parse_uri("gs://models/m"), "1/weights", 20 * GB, "g")
    job = Job(replace(STORED, objects=(whole,)), clock=clock)

    def after(seconds: float, count: int, times: int = 1) -> int | None:
        for _ in range(times):
            clock.now += seconds
            job.progress(count)
            job.look()
        return job.seconds_left

    job.look()
    assert job.seconds_left is None
    # What an earlier run left is found at once, and then the store gives 20 MB a second.
    assert after(3, 8 * GB) is not None
    assert after(3, 60_000_000, times=40) == pytest.approx(
        (12 * GB - 40 * 60_000_000) / 2e7, rel=0.01
    )
    # It becomes ten times as fast, and at last gives nothing.
    assert after(3, 600_000_000, times=12) is not None
    left = 12 * GB - 40 * 60_000_000 - 12 * 600_000_000
    assert after(3, 0, times=40) is None
    assert after(1, left) == 0
