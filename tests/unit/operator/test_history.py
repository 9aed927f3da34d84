"""The history of version changes, carried on from one status to the next."""

from __future__ import annotations

from typing import Any

import pytest

from inferencemodel_operator import history
from inferencemodel_operator.record import QuarantinedVersion

TIMES = [f"2026-01-01T00:00:{second:02}.500000Z" for second in range(60)]


def broken(version: int) -> QuarantinedVersion:
    return QuarantinedVersion(version=version, fingerprint="f", reason="LoadFailed", message="no")


def told(*steps: tuple[int | None, int | None, tuple[int, ...]]) -> list[dict[str, Any]]:
    """The history after steps of (target, active, failed), one a second."""
    entries: list[dict[str, Any]] = []
    for now, (target, active, failed) in zip(TIMES, steps, strict=False):
        quarantined = [broken(version) for version in failed]
        arguments: dict[str, Any] = {"target": target, "active": active, "quarantined": quarantined}
        entries = history.carry_on(entries, **arguments, now=now)
        again = history.carry_on(entries, **arguments, now=TIMES[-1])
        assert again == entries, "nothing changes by time alone"
    return entries


def results(entries: list[dict[str, Any]]) -> list[tuple[int, str]]:
    return [(entry["version"], entry["result"]) for entry in entries]


def test_a_version_is_in_progress_until_every_replica_has_it() -> None:
    assert told((None, None, ())) == []
    assert results(told((1, None, ()))) == [(1, "InProgress")]
    assert told((1, None, ()), (1, None, ()), (1, 1, ())) == [
        {
            "version": 1,
            "startTime": TIMES[0],
            "result": "Active",
            "activeTime": TIMES[2],
            "duration": "2.0s",
        }
    ]


def test_the_next_version_ends_the_one_before_when_it_is_active() -> None:
    steps = ((1, 1, ()), (2, 1, ()))
    assert results(told(*steps)) == [(2, "InProgress"), (1, "Active")]
    after = told(*steps, (2, 2, ()))
    assert results(after) == [(2, "Active"), (1, "Superseded")]
    assert after[1]["endTime"] == TIMES[2]


def test_a_failed_version_is_told_and_staying_with_the_one_before_is_no_change() -> None:
    after = told((1, 1, ()), (2, 1, ()), (1, 1, (2,)), (1, 1, (2,)))
    assert results(after) == [(2, "Failed"), (1, "Active")]
    assert (after[0]["reason"], after[0]["endTime"]) == ("LoadFailed", TIMES[2])


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
    assert [entry["version"] for entry in after] == list(range(30, 20, -1))
