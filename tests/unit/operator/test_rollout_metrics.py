"""Rollouts are counted once each, whoever starts anew in the middle."""

from __future__ import annotations

import datetime
import itertools
from typing import Any

import pytest
from msgspec.structs import replace

from inferencemodel_operator.metrics import Metrics
from inferencemodel_operator.rollouts.metrics import OUTCOMES, PHASES, rollout_changes
from inferencemodel_operator.status import RolloutCheck, RolloutStatus

BEGAN = datetime.datetime(2026, 11, 28, 12, 0, tzinfo=datetime.UTC)
RUNNING = RolloutStatus(version=15, phase="Checking", start_time=BEGAN)


def at(seconds: float) -> datetime.datetime:
    return BEGAN + datetime.timedelta(seconds=seconds)


def step(number: int, began: float, **changes: Any) -> RolloutStatus:
    given = {"phase": "Progressing", "step": number, "step_started_time": at(began)}
    return replace(RUNNING, **{**given, **changes})


def check(name: str, result: str, seconds: float = 0) -> RolloutCheck:
    return RolloutCheck(name=name, result=result, time=at(seconds))


PATH = [
    None,
    replace(RUNNING, checks=(check("memory", "Passed"),)),
    replace(RUNNING, phase="Rehearsing", checks=(check("memory", "Passed"),)),
    step(1, 10, checks=(check("memory", "Passed"), check("rehearsal", "Passed"))),
    step(1, 10, phase="Paused", checks=(check("golden", "Inconclusive"),)),
    step(2, 70, checks=(check("golden", "Passed"),)),
    step(2, 70, phase="Baking"),
    step(2, 70, phase="Completed", end_time=at(200)),
]


def test_a_rollout_is_told_by_the_differences_of_its_statuses() -> None:
    changes = [
        rollout_changes(before, after, at(130)) for before, after in itertools.pairwise(PATH)
    ]
    assert [change.outcomes for change in changes if change.outcomes] == [("Completed",)]
    steps = [part for change in changes for part in change.steps]
    assert steps == [("checks", 10.0), ("first", 60.0), ("later", 60.0)]
    checks = [part for change in changes for part in change.checks]
    assert checks == [
        ("memory", "Passed"),
        ("rehearsal", "Passed"),
        ("golden", "Inconclusive"),
        ("golden", "Passed"),
    ]


@pytest.mark.parametrize("status", PATH)
def test_who_starts_anew_and_reports_the_same_counts_nothing(status: RolloutStatus | None) -> None:
    changes = rollout_changes(status, status, at(500))
    assert (changes.outcomes, changes.steps, changes.checks) == ((), (), ())


def test_the_last_step_ends_with_the_rollout_where_nothing_bakes() -> None:
    done = step(2, 70, phase="Completed", end_time=at(90))
    assert rollout_changes(step(2, 70), done, at(500)).steps == (("later", 20.0),)


def test_a_step_whose_end_no_status_tells_is_left_out() -> None:
    assert rollout_changes(step(1, 10), step(3, 70), at(70)).steps == ()
    assert rollout_changes(step(1, 10), step(1, 10, phase="RollingBack"), at(70)).steps == ()
    assert rollout_changes(None, step(1, 10), at(70)).steps == ()
    assert rollout_changes(step(1, 10), step(1, 90), at(100)).steps == ()


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_an_end_counts_whatever_was_written_last(outcome: str) -> None:
    ended = replace(RUNNING, phase=outcome)
    assert rollout_changes(None, ended, at(1)).outcomes == (outcome,)
    assert rollout_changes(RUNNING, ended, at(1)).outcomes == (outcome,)
    assert rollout_changes(ended, ended, at(1)).outcomes == ()
    # Another one that ended before the first of its statuses was written.
    again = replace(ended, version=16)
    assert rollout_changes(ended, again, at(1)).outcomes == (outcome,)


def test_one_whose_place_the_next_version_took_between_two_statuses_ended_as_it_was_to() -> None:
    following = replace(RUNNING, version=16, start_time=at(20))
    assert rollout_changes(step(1, 10), following, at(20)).outcomes == ("Superseded",)
    everywhere = step(2, 10, phase="Baking")
    assert rollout_changes(everywhere, following, at(20)).outcomes == ("Completed",)
    # Its pods can't go back, which is not waited for for ever.
    failed = step(1, 10, phase="RollingBack")
    assert rollout_changes(failed, following, at(20)).outcomes == ("RolledBack",)
    ended = step(1, 10, phase="RolledBack")
    assert rollout_changes(ended, following, at(20)).outcomes == ()
    # The same version, tried again.
    retried = replace(RUNNING, start_time=at(30))
    assert rollout_changes(ended, retried, at(30)).outcomes == ()


def test_without_a_rollout_there_is_nothing_to_count() -> None:
    assert rollout_changes(RUNNING, None, at(1)).outcomes == ()
    assert rollout_changes(None, None, at(1)).checks == ()


def value(metrics: Metrics, name: str, **labels: str) -> float:
    found = metrics.registry.get_sample_value(f"inferencemodel_operator_{name}", labels)
    assert found is not None, name
    return found


def test_every_series_is_there_before_anything_happens() -> None:
    metrics = Metrics()
    for outcome in OUTCOMES:
        assert value(metrics, "rollouts_total", outcome=outcome) == 0
    for phase in PHASES:
        assert value(metrics, "rollouts_running", phase=phase) == 0
    assert value(metrics, "rollout_checks_total", check="golden", result="Failed") == 0


def test_what_has_happened_is_counted() -> None:
    metrics = Metrics()
    for before, after in itertools.pairwise(PATH):
        metrics.rollouts.changed(before, after, at(130))
    assert value(metrics, "rollouts_total", outcome="Completed") == 1
    assert value(metrics, "rollout_step_seconds_sum", step="first") == 60
    assert value(metrics, "rollout_checks_total", check="golden", result="Inconclusive") == 1


def test_the_gauge_shows_where_each_one_is() -> None:
    rollouts = (metrics := Metrics()).rollouts
    one, other = ("vision", "a"), ("vision", "b")
    rollouts.show(one, step(1, 10))
    rollouts.show(other, step(1, 10, phase="Paused"))
    assert value(metrics, "rollouts_running", phase="Progressing") == 1
    assert value(metrics, "rollouts_running", phase="Paused") == 1
    rollouts.show(one, step(1, 10, phase="Paused"))
    assert value(metrics, "rollouts_running", phase="Progressing") == 0
    assert value(metrics, "rollouts_running", phase="Paused") == 2
    rollouts.show(one, step(1, 10, phase="RolledBack"))
    rollouts.forget(other)
    rollouts.forget(other)
    assert value(metrics, "rollouts_running", phase="Paused") == 0
