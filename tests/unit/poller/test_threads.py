"""A thread that fails goes on, and one that stands still is known."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import model_poller
from model_poller.look import Looker
from model_poller.model_server.server import ServerWatch
from model_poller.process import threads
from model_poller.process.threads import Worker
from model_poller.status import SourceState
from tests.support.waiting import eventually
from tests.unit.poller.doubles import Clock, MemorySource

if TYPE_CHECKING:
    from collections.abc import Iterator

    from model_poller.status import ServedVersion, SourceStatus


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "FIRST_PAUSE", 0.001)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def started() -> Iterator[list[Worker]]:
    workers: list[Worker] = []
    yield workers
    for worker in workers:
        worker.stop()


def test_a_turn_that_fails_is_logged_told_and_tried_again(
    started: list[Worker], caplog: pytest.LogCaptureFixture
) -> None:
    turns: list[int] = []
    told: list[Exception] = []

    def turn() -> None:
        turns.append(1)
        if len(turns) < 4:
            raise UnicodeEncodeError("utf-8", "\udcff", 0, 1, "surrogates not allowed")
        worker.pause(60)

    worker = Worker("odd look", turn, failed=told.append)
    started.append(worker)
    with caplog.at_level(logging.ERROR):
        worker.start()
        eventually(lambda: len(turns) == 4, what="the fourth turn", every=0.001)
    assert [type(error) for error in told] == [UnicodeEncodeError] * 3
    logged = [r for r in caplog.records if r.getMessage().startswith("odd look failed")]
    assert len(logged) == 3
    assert all(record.exc_info for record in logged)


def test_telling_of_a_failure_may_fail_too(started: list[Worker]) -> None:
    turns: list[int] = []

    def fail(*_: object) -> None:
        turns.append(1)
        raise RuntimeError

    worker = Worker("queue", fail, failed=fail)
    started.append(worker)
    worker.start()
    eventually(lambda: len(turns) > 6, what="the fourth turn", every=0.001)


def test_a_thread_that_hangs_is_silent_when_its_time_is_over(
    started: list[Worker], clock: Clock
) -> None:
    hanging = threading.Event()
    worker = Worker("looker", hanging.wait, limit=60, clock=clock)
    started.append(worker)
    worker.start()
    clock.now += 60
    assert threads.silent([worker]) == []
    clock.now += 1
    assert threads.silent([worker]) == ["looker"]
    hanging.set()
    eventually(lambda: not worker.is_silent(), what="the next turn", every=0.001)


def test_a_thread_whose_every_turn_fails_becomes_silent(
    started: list[Worker], clock: Clock
) -> None:
    turns: list[int] = []

    def turn() -> None:
        turns.append(1)
        raise MemoryError

    worker = Worker("looker", turn, limit=60, clock=clock, longest_pause=0.001)
    started.append(worker)
    worker.start()
    eventually(lambda: len(turns) > 2, what="some turns", every=0.001)
    clock.now += 61
    before = len(turns)
    eventually(lambda: len(turns) > before + 2, what="some more turns", every=0.001)
    assert worker.is_silent()


def test_a_pause_of_any_length_is_no_silence_and_no_failure(
    started: list[Worker], clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    paused, wake = threading.Event(), threading.Event()
    turns: list[int] = []

    def turn() -> None:
        turns.append(1)
        paused.set()
        worker.pause(1e300, wake)

    worker = Worker("patient", turn, clock=clock)
    started.append(worker)
    worker.start()
    assert paused.wait(30)
    eventually(lambda: worker._due > 1e9, what="the pause", every=0.001)
    clock.now += 1e6
    assert not worker.is_silent()
    wake.set()
    eventually(lambda: len(turns) > 1, what="the next turn", every=0.001)
    assert not [record for record in caplog.records if "patient" in record.getMessage()]


def test_a_worker_that_was_stopped_ends_and_is_not_missed(clock: Clock) -> None:
    ended = threading.Event()
    worker = Worker("queue", lambda: worker.pause(1e9), ended=ended.set, clock=clock)
    worker.start()
    worker.stop()
    assert ended.wait(30)
    clock.now += 1e12
    assert threads.silent([worker]) == []


def test_a_thread_with_an_end_tells_what_it_failed_with(caplog: pytest.LogCaptureFixture) -> None:
    def work() -> None:
        raise MemoryError

    with caplog.at_level(logging.ERROR):
        threads.spawn("trash", work).join(30)
    assert "trash failed" in [record.getMessage() for record in caplog.records]


def test_an_interval_too_large_for_the_clock_does_not_end_the_looking(
    started: list[Worker],
) -> None:
    seen: list[SourceStatus] = []
    looker = Looker(MemorySource(), 1e300, lambda status, _: seen.append(status))
    started.append(looker.worker)
    looker.start()
    eventually(lambda: seen, what="the first look", every=0.001)
    eventually(lambda: looker.worker._due > 1e9, what="the pause", every=0.001)
    looker.look_now()
    eventually(lambda: len(seen) == 2, what="the look that was asked for", every=0.001)


def test_whatever_a_look_fails_with_is_told_as_the_sources_state(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RecursionError

    monkeypatch.setattr("model_poller.look.discover", broken)
    seen: list[SourceStatus] = []
    Looker(MemorySource(), 30.0, lambda status, _: seen.append(status)).look()
    assert [status.state for status in seen] == [SourceState.FAILED]
    assert "RecursionError" in seen[0].message


def test_a_model_servers_odd_answer_does_not_end_the_asking(started: list[Worker]) -> None:
    told: list[tuple[ServedVersion, ...] | None] = []
    answers: list[tuple[ServedVersion, ...] | Exception] = [(), ValueError("60"), ()]

    def ask() -> tuple[ServedVersion, ...] | None:
        answer = answers.pop(0) if answers else ()
        if isinstance(answer, Exception):
            raise answer
        return answer

    watch = ServerWatch(ask, told.append)
    watch.hurry(True)
    started.append(watch.worker)
    watch.start()
    eventually(lambda: len(told) > 2, what="the answer after the odd one", every=0.001)
    assert told[:3] == [(), None, ()]


def test_every_thread_is_begun_by_the_one_runner() -> None:
    """But those that read ranges or store files: who waits for them hears what they fail with."""
    package = Path(model_poller.__file__).parent
    own = {
        file.relative_to(package).as_posix()
        for file in package.rglob("*.py")
        if "threading.Thread(" in file.read_text()
    }
    assert own - {"process/threads.py"} == {"fetch.py", "publishing/ending.py"}
