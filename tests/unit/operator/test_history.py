"""The history of version changes, carried on from one status to the next."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec.structs import replace

from inferencemodel_operator import history
from inferencemodel_operator.status import Change, Quarantine, RolloutStatus

TIMES = [datetime(2026, 1, 1, 0, 0, second, 500000, tzinfo=UTC) for second in range(60)]


def broken(version: int) -> Quarantine:
    return Quarantine(version=version, reason="LoadFailed", message="no")


def told(*steps: tuple[int | None, int | None, tuple[int, ...]]) -> tuple[Change, ...]:
    """The history after steps of (target, active, failed), one a second."""
    entries: tuple[Change, ...] = ()
    for now, (target, active, failed) in zip(TIMES, steps, strict=False):
        arguments: dict[str, Any] = {"target": target, "reached": active}
        arguments["quarantined"] = [broken(version) for version in failed]
        entries = history.carry_on(entries, **arguments, now=now)
        again = history.carry_on(entries, **arguments, now=TIMES[-1])
        assert again == entries, "nothing changes by time alone"
    return entries


def results(entries: tuple[Change, ...]) -> list[tuple[int, str]]:
    return [(entry.version, entry.result) for entry in entries]


def test_a_version_is_in_progress_until_every_replica_has_it() -> None:
    assert told((None, None, ())) == ()
    assert results(told((1, None, ()))) == [(1, "InProgress")]
    assert told((1, None, ()), (1, None, ()), (1, 1, ())) == (
        Change(
            version=1,
            start_time=TIMES[0],
            result="Active",
            active_time=TIMES[2],
            duration="2.0s",
        ),
    )


def test_the_next_version_ends_the_one_before_when_it_is_active() -> None:
    steps = ((1, 1, ()), (2, 1, ()))
    assert results(told(*steps)) == [(2, "InProgress"), (1, "Active")]
    after = told(*steps, (2, 2, ()))
    assert results(after) == [(2, "Active"), (1, "Superseded")]
    assert after[1].end_time == TIMES[2]


def test_a_failed_version_is_told_and_staying_with_the_one_before_is_no_change() -> None:
    after = told((1, 1, ()), (2, 1, ()), (1, 1, (2,)), (1, 1, (2,)))
    assert results(after) == [(2, "Failed"), (1, "Active")]
    assert (after[0].reason, after[0].end_time) == ("LoadFailed", TIMES[2])


def test_a_pinned_version_that_fails_and_is_repaired_is_a_new_change() -> None:
    after = told((2, 1, ()), (2, 1, (2,)), (2, 1, ()), (2, 2, ()))
    assert results(after) == [(2, "Active"), (2, "Failed")]


def test_without_a_version_before_the_next_best_one_is_a_change() -> None:
    after = told((2, None, ()), (1, None, (2,)), (1, 1, (2,)))
    assert results(after) == [(1, "Active"), (2, "Failed")]


def test_a_version_overtaken_on_its_way_is_superseded() -> None:
    assert results(told((1, None, ()), (2, None, ()), (2, 2, ()))) == [
        (2, "Active"),
        (1, "Superseded"),
    ]


def test_going_back_is_a_change_of_its_own() -> None:
    after = told((1, 1, ()), (2, 2, ()), (1, 2, ()), (1, 1, ()))
    assert results(after) == [(1, "Active"), (2, "Superseded"), (1, "Superseded")]


@pytest.mark.parametrize("active", [None, 1])
def test_pods_that_come_and_go_are_no_change(active: int | None) -> None:
    assert results(told((1, 1, ()), (1, active, ()))) == [(1, "Active")]


def test_only_the_last_ten_changes_are_kept() -> None:
    after = told(*((version, version, ()) for version in range(1, 31)))
    assert [entry.version for entry in after] == list(range(30, 20, -1))


RUNNING = RolloutStatus(
    version=5, phase="Progressing", start_time=TIMES[0], step=1, replicas_on=1, replicas_wanted=1
)
DONE = replace(RUNNING, phase="Completed", end_time=TIMES[3], replicas_wanted=None)
NEXT = replace(RUNNING, version=6, start_time=TIMES[4])


@pytest.mark.parametrize("after", [None, RUNNING])
def test_a_rollout_that_another_source_cut_off_ends_as_superseded(
    after: RolloutStatus | None,
) -> None:
    # A suspended resource goes on with what its live status tells.
    cut = history.last_rollout(RUNNING, after, "another source", TIMES[9])
    assert cut is not None
    assert (cut.phase, cut.message, cut.end_time) == ("Superseded", "another source", TIMES[9])
    assert (cut.replicas_on, cut.replicas_wanted) == (None, None)
    # It stays, by the next status of that source, until the next rollout.
    assert history.last_rollout(cut, None, "", TIMES[10]) == cut
    assert history.last_rollout(cut, NEXT, "", TIMES[10]) == NEXT


def test_a_rollout_of_which_the_memory_is_lost_ends_as_superseded() -> None:
    lost = history.last_rollout(RUNNING, None, "", TIMES[9])
    assert lost is not None
    assert lost.phase == "Superseded"
    assert "ConfigMap" in lost.message


def test_a_rollout_that_the_memory_tells_is_what_is_told() -> None:
    assert history.last_rollout(None, RUNNING, "", TIMES[9]) == RUNNING
    assert history.last_rollout(RUNNING, DONE, "", TIMES[9]) == DONE
    assert history.last_rollout(RUNNING, NEXT, "another source", TIMES[9]) == NEXT
    assert history.last_rollout(None, None, "another source", TIMES[9]) is None


def test_one_that_has_ended_is_not_told_of_another_source() -> None:
    assert history.last_rollout(DONE, None, "another source", TIMES[9]) is None
    assert history.last_rollout(DONE, None, "", TIMES[9]) == DONE


def test_who_lost_its_place_before_it_was_everywhere_is_told() -> None:
    cut = history.last_rollout(RUNNING, None, "another source", TIMES[9])
    assert "another source" in history.superseded(RUNNING, cut)
    assert "version 6 took its place" in history.superseded(RUNNING, NEXT)
    assert history.superseded(cut, cut) == ""


@pytest.mark.parametrize("before", [None, DONE, replace(RUNNING, phase="Baking")])
def test_who_was_everywhere_has_lost_nothing(before: RolloutStatus | None) -> None:
    assert history.superseded(before, NEXT) == ""
    assert history.superseded(RUNNING, DONE) == ""
