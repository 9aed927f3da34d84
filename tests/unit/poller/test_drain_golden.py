"""A pod that left its Services comes back with a version whose golden requests were answered."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from model_poller import drain
from model_poller.actions import Publish
from model_poller.drain import LIMIT_SECONDS, Drain
from model_poller.status import CheckResult, GoldenStatus, GoldenTask, RolloutTask
from model_poller.volume.assignment import Assignment
from model_poller.volume.store import Disk
from tests.unit.poller.doubles import below, model, zipped
from tests.unit.poller.test_golden_watch import BAD, GOOD, Checks
from tests.unit.poller.test_planner import records, seen, served
from tests.unit.poller.world import TOLD, World

if TYPE_CHECKING:
    from pathlib import Path

    from model_poller.golden.sending import Result
    from model_poller.planner import Observed

TASK = RolloutTask(version=2, key="k", drain=True, golden=GoldenTask())
OUT = Drain(2, since=90.0)
UNPROVEN = Drain(2, since=100.0, is_on=True)


def answering(version: int | None, target: int = 2, task: RolloutTask | None = TASK) -> Observed:
    """The pod told to serve a target, while a version answers."""
    return seen(
        disk=Disk(records(1, 2, 3), {}, {}),
        assignment=Assignment(target, (target,), rollout=task),
        served=() if version is None else (served(version),),
    )


def found(result: CheckResult) -> dict[int, GoldenStatus]:
    return {2: GoldenStatus(task="k", result=result)}


FAILED = found(CheckResult.FAILED)


def test_the_pod_stays_out_until_it_is_known_that_they_did_not_fail() -> None:
    assert drain.after(OUT, answering(2), 2, None, {}) == UNPROVEN
    later = replace(answering(2), now=150.0)
    assert drain.after(UNPROVEN, later, 2, None, {}) == UNPROVEN
    assert drain.after(UNPROVEN, later, 2, None, FAILED) == UNPROVEN
    for result in (CheckResult.PASSED, CheckResult.SKIPPED, CheckResult.INCONCLUSIVE):
        assert drain.after(UNPROVEN, later, 2, None, found(result)) is None


def test_a_version_that_failed_is_seen_by_nobody_while_it_is_taken_back() -> None:
    assert drain.after(UNPROVEN, answering(2, 1, None), 1, None, {}) == UNPROVEN
    assert drain.after(UNPROVEN, answering(1, 1, None), 1, None, {}) is None


def test_a_server_that_went_away_over_them_keeps_the_pod_out() -> None:
    assert drain.after(UNPROVEN, answering(None), 2, None, {}) == UNPROVEN
    assert drain.after(OUT, answering(None), 2, None, {}) is None


def test_the_next_version_leaves_in_its_place() -> None:
    assert drain.after(UNPROVEN, answering(2, 3), 3, None, {}) == Drain(3, since=100.0)


@pytest.mark.parametrize(
    ("task", "golden"),
    [
        (RolloutTask(version=2, key="k", drain=True), {}),
        (RolloutTask(version=2, key="k", golden=GoldenTask()), {}),
        (RolloutTask(version=9, key="k", drain=True, golden=GoldenTask()), {}),
        (None, {}),
        (TASK, None),
    ],
    ids=["no golden requests", "no drain", "another version", "no rollout", "nobody sends"],
)
def test_where_none_are_sent_the_pod_is_back_when_the_version_answers(
    task: RolloutTask | None, golden: Any
) -> None:
    for before in (OUT, UNPROVEN):
        assert drain.after(before, answering(2, task=task), 2, None, golden) is None


def test_a_version_that_answers_already_is_not_taken_out_for_them() -> None:
    assert drain.after(None, answering(2), 2, None, {}) is None


def test_nothing_is_held_back_meanwhile_and_not_for_ever() -> None:
    assert drain.hold(UNPROVEN, answering(2, 1), [Publish(1)]) == [Publish(1)]
    assert UNPROVEN.is_out(99.0 + LIMIT_SECONDS)
    assert not UNPROVEN.is_out(100.0 + LIMIT_SECONDS)


def pod(root: Path, result: Result) -> World:
    """It serves 1, and is told to serve 2, whose golden requests end so."""
    world = World(root, TOLD, golden=Checks(result))
    for version in (1, 2):
        world.source.put(f"{version}.zip", zipped(below(str(version), model(b"%d" % version))))
    world.tell(1)
    world.settle(turns=4)
    world.tell(2)
    world.ask(TASK)
    world.settle(turns=20)
    assert world.status().active_version == 2
    return world


def test_a_good_version_brings_the_pod_back(tmp_path: Path) -> None:
    assert not pod(tmp_path, GOOD).status().draining


def test_a_bad_one_is_out_until_the_one_before_answers_again(tmp_path: Path) -> None:
    world = pod(tmp_path, BAD)
    assert world.status().draining
    world.tell(1)
    world.step()
    assert "1" in world.base(), "going back waits for nothing"
    assert world.status().draining
    world.settle(turns=2)
    assert world.status().active_version == 1
    assert not world.status().draining
