"""Waiting in tests: what counts as "not yet", and how long a deadline is on a busy machine."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import waiting
from tests.support.waiting import Deadline, eventually

if TYPE_CHECKING:
    from pathlib import Path


def test_what_an_object_does_not_have_yet_is_waited_for() -> None:
    looks: list[dict[str, Any]] = [{}, {"conditions": []}, {"conditions": ["Ready"]}]
    seen = iter(looks)
    found = eventually(lambda: next(seen)["conditions"][0], what="a condition", every=0)
    assert found == "Ready"


def test_what_is_missing_for_ever_is_told() -> None:
    empty: dict[str, str] = {}
    with pytest.raises(TimeoutError, match=r"waiting for a condition; last seen: KeyError\('x'\)"):
        eventually(lambda: empty["x"], what="a condition", within=0.01, every=0)


def test_an_error_ends_a_wait() -> None:
    with pytest.raises(ZeroDivisionError):
        eventually(lambda: 1 / 0, what="nothing")


@pytest.mark.parametrize(
    ("busy", "elapsed", "passed"),
    [(0, 9, False), (0, 11, True), (8, 11, False), (8, 17, True), (99, 39, False), (99, 41, True)],
)
def test_seconds_of_a_busy_machine_count_a_quarter(
    busy: int, elapsed: int, passed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pressure = tmp_path / "cpu"
    monkeypatch.setattr(waiting, "_PRESSURE", pressure)
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])

    def count(seconds: int) -> None:
        pressure.write_text(
            f"some avg10=0.00 avg60=0.00 avg300=0.00 total={seconds}000000\n"
            "full avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"
        )

    count(50)
    deadline, exact = Deadline(10), Deadline(10, exact=True)
    clock[0] += elapsed
    count(50 + busy)
    assert deadline.passed is passed
    assert exact.passed is (elapsed > 10)


def test_where_nothing_counts_a_second_is_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "_PRESSURE", tmp_path / "absent")
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    deadline = Deadline(10)
    clock[0] = 10.5
    assert deadline.passed
