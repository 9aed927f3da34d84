"""When a version's recorded requests are sent, and what is told of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from model_poller.books import Publication
from model_poller.golden import watch
from model_poller.golden.sending import InterruptedSendingError, Result, ServerWentAwayError, Stop
from model_poller.golden.watch import GoldenWatch
from model_poller.status import CheckResult, GoldenStatus, GoldenTask, RolloutTask, VersionState
from model_poller.volume.assignment import Assignment
from model_poller.volume.store import Disk
from tests.unit.poller.doubles import below, model, zipped
from tests.unit.poller.test_planner import records, seen, served
from tests.unit.poller.world import TOLD, World

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from model_poller.planner import Observed

GOOD = Result(CheckResult.PASSED, 3, "3 of 3 recorded answers agree")
BAD = Result(CheckResult.FAILED, 3, "record 1 of 3: it differs")


class Checks:
    """`GoldenRequests.check`, with what a test makes of it."""

    def __init__(self, *ends: Result | Exception) -> None:
        self.ends = list(ends)
        self.calls: list[tuple[str, int, GoldenTask, bool]] = []
        self.stops: list[Stop] = []

    def __call__(
        self, folder: Path, version: int, task: GoldenTask, stop: Stop, *, went_away: bool
    ) -> Result:
        self.calls.append((folder.name, version, task, went_away))
        self.stops.append(stop)
        end = self.ends.pop(0) if len(self.ends) > 1 else self.ends[0]
        if isinstance(end, Exception):
            raise end
        return end


def task(version: int = 2, key: str = "k", golden: GoldenTask | None = None) -> RolloutTask:
    return RolloutTask(version=version, key=key, golden=golden or GoldenTask())


@pytest.fixture
def checks() -> Checks:
    return Checks(GOOD)


@pytest.fixture
def pod(tmp_path: Path, checks: Checks) -> World:
    """Serves version 1, has version 2."""
    pod = World(tmp_path, TOLD, golden=checks)
    for version in (1, 2):
        files = model(str(version).encode())
        pod.source.put(f"{version}.zip", zipped(below(str(version), files)))
    pod.tell(1)
    pod.settle()
    assert pod.version(2).state is VersionState.FETCHED
    return pod


def test_a_version_is_checked_once_it_answers_here(pod: World, checks: Checks) -> None:
    pod.ask(task())
    pod.settle()
    assert (checks.calls, pod.version(2).golden) == ([], None)
    pod.tell(2)
    pod.ask(task())
    pod.settle()
    assert checks.calls == [("2", 2, GoldenTask(), False)]
    assert pod.version(2).golden == GoldenStatus(
        task="k", result=CheckResult.PASSED, records=3, message="3 of 3 recorded answers agree"
    )
    assert pod.version(1).golden is None


def test_a_result_is_told_for_each_task_and_found_once_for_the_same_objects(
    pod: World, checks: Checks
) -> None:
    pod.tell(2)
    pod.ask(task(key="one"))
    pod.settle()
    pod.ask(task(key="two"))
    pod.settle()
    found = pod.version(2).golden
    assert found
    assert (found.task, len(checks.calls)) == ("two", 1)
    pod.ask(task(key="two", golden=GoldenTask(absolute=0.5)))
    pod.settle()
    assert [call[2].absolute for call in checks.calls] == [1e-4, 0.5]
    pod.ask(None)
    pod.settle()
    assert pod.version(2).golden is None


def test_a_version_that_comes_back_is_checked_anew(pod: World, checks: Checks) -> None:
    for target in (2, 1, 2):
        pod.tell(target)
        pod.ask(task())
        pod.settle()
    assert len(checks.calls) == 2
    pod.start()
    pod.settle()
    assert len(checks.calls) == 3, "after a restart of the poller nothing is known"


def test_a_task_without_golden_requests_sends_none(pod: World, checks: Checks) -> None:
    pod.tell(2)
    pod.ask(RolloutTask(version=2, key="k", live=True))
    pod.settle()
    assert checks.calls == []


def test_the_message_is_as_long_as_others_are(pod: World, checks: Checks) -> None:
    checks.ends = [Result(CheckResult.FAILED, 1, "x" * 9000)]
    pod.tell(2)
    pod.ask(task())
    pod.settle()
    found = pod.version(2).golden
    assert found
    assert len(found.message) == 1024


def test_what_goes_wrong_in_the_check_is_told_and_logged(
    pod: World, checks: Checks, caplog: pytest.LogCaptureFixture
) -> None:
    checks.ends = [ZeroDivisionError("oops")]
    pod.tell(2)
    pod.ask(task())
    pod.settle()
    found = pod.version(2).golden
    assert found
    assert found.result is CheckResult.INCONCLUSIVE
    assert "see the poller's log" in found.message
    assert "oops" in caplog.text
    assert len(checks.calls) == 1


class Beside:
    """A `GoldenWatch` whose checks run when the test says so."""

    def __init__(self, root: Path, *ends: Result | Exception) -> None:
        self.checks = Checks(*(ends or (GOOD,)))
        self.now = 100.0
        self.woken = 0
        self.works: list[Callable[[], None]] = []
        self.watch = GoldenWatch(
            self.checks,
            lambda version: root / str(version),
            self._wake,
            lambda: self.now,
            self.works.append,
        )

    def _wake(self) -> None:
        self.woken += 1

    def tend(self, what: Observed) -> CheckResult | None:
        told = self.watch.tend(what).get(2)
        return told.result if told else None

    def run(self) -> None:
        works, self.works[:] = self.works[:], []
        for work in works:
            work()


def answering(state: str | None = "AVAILABLE", asked: RolloutTask | None = None) -> Observed:
    """Version 2 in the base path, and what the model server says of it."""
    return seen(
        disk=Disk(records(1, 2), {}, {}),
        publications={
            version: Publication(0.0, end_is_stale=False, served=True) for version in (1, 2)
        },
        assignment=Assignment(2, rollout=asked or task()),
        served=None if state is None else (served(2, state), served(1)),
    )


@pytest.fixture
def beside(tmp_path: Path) -> Beside:
    return Beside(tmp_path)


def test_the_loop_goes_on_meanwhile_and_is_woken(beside: Beside) -> None:
    assert beside.tend(answering()) is None
    assert beside.tend(answering()) is None
    assert len(beside.works) == 1
    beside.run()
    assert beside.woken == 1
    assert beside.tend(answering()) is CheckResult.PASSED


def test_a_silent_server_may_be_a_busy_one(beside: Beside) -> None:
    beside.tend(answering())
    beside.tend(answering(None))
    beside.run()
    assert beside.tend(answering(None)) is CheckResult.PASSED


@pytest.mark.parametrize(
    "change",
    [
        lambda: answering("UNLOADING"),
        lambda: answering(asked=RolloutTask(version=2)),
        lambda: answering(asked=task(golden=GoldenTask(relative=0.5))),
        lambda: answering(asked=task(version=1)),
        lambda: seen(assignment=Assignment(2, rollout=task())),
    ],
)
def test_a_check_ends_when_the_task_or_the_version_goes(
    beside: Beside, change: Callable[[], Observed]
) -> None:
    beside.tend(answering())
    (running,) = beside.works
    beside.tend(change())
    running()
    with pytest.raises(InterruptedSendingError):
        beside.checks.stops[0].check()
    beside.works.clear()
    assert beside.tend(change()) is None


def test_what_ends_late_is_not_taken_for_another_ones_result(beside: Beside) -> None:
    beside.checks.ends = [BAD, GOOD]
    beside.tend(answering())
    beside.tend(answering("LOADING"))
    beside.tend(answering())
    assert len(beside.works) == 2
    first, second = beside.works
    first()
    assert beside.tend(answering()) is None
    second()
    assert beside.tend(answering()) is CheckResult.PASSED


def test_a_server_that_went_away_is_asked_again_once_it_fell_and_came_back(tmp_path: Path) -> None:
    beside = Beside(tmp_path, ServerWentAwayError("reset"), BAD)
    beside.tend(answering())
    beside.run()
    assert beside.tend(answering()) is None
    assert not beside.works, "it may not have been missed yet"
    beside.tend(answering(None))
    beside.tend(answering("LOADING"))
    beside.tend(answering())
    beside.run()
    assert [call[3] for call in beside.checks.calls] == [False, True]
    assert beside.tend(answering()) is CheckResult.FAILED


def test_a_fall_that_nobody_saw_is_waited_for_so_long(tmp_path: Path) -> None:
    beside = Beside(tmp_path, ServerWentAwayError("reset"), GOOD)
    beside.tend(answering())
    beside.run()
    beside.tend(answering())
    beside.now += watch.AWAY_SECONDS
    beside.tend(answering())
    beside.run()
    assert beside.tend(answering()) is CheckResult.PASSED


def test_another_order_begins_without_what_was_remembered(tmp_path: Path) -> None:
    beside = Beside(tmp_path, ServerWentAwayError("reset"), GOOD)
    beside.tend(answering())
    beside.run()
    beside.tend(answering(asked=task(golden=GoldenTask(relative=0.5))))
    beside.run()
    assert [call[3] for call in beside.checks.calls] == [False, False]


def test_without_a_thread_it_is_tried_at_the_next_turn(tmp_path: Path) -> None:
    tries: list[int] = []

    def refuse(_: Callable[[], None]) -> None:
        tries.append(1)
        raise RuntimeError("can't start new thread")

    unable = GoldenWatch(Checks(GOOD), lambda _: tmp_path, lambda: None, lambda: 0.0, refuse)
    assert unable.tend(answering()) == unable.tend(answering()) == {}
    assert len(tries) == 2


def test_the_end_of_the_poller_ends_the_check(beside: Beside) -> None:
    beside.tend(answering())
    beside.watch.stop()
    beside.run()
    with pytest.raises(InterruptedSendingError):
        beside.checks.stops[0].check()
