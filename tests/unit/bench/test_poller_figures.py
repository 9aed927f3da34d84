"""The figures of the poller's benchmark are those of the programs, and drawn as they are."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from bench import measured, poller, poller_plot
from demo.errors import OutcomeError

if TYPE_CHECKING:
    from pathlib import Path


def test_a_programs_memory_is_its_own() -> None:
    taken = measured.run([sys.executable, "-c", "x = b'x' * 200_000_000; print(len(x))"], {})
    assert taken.output == "200000000\n"
    assert 200 < taken.memory_mb < 250
    ballast = b"x" * 100_000_000
    assert measured.run(["true"], {}).memory_mb < len(ballast) / 1e6


def test_the_processor_time_of_what_a_program_waited_for_is_counted() -> None:
    spin = "import time\nwhile time.process_time() < 0.3: pass"
    taken = measured.run(["sh", "-c", f"'{sys.executable}' -c '{spin}'; true"], {})
    assert taken.cpu_seconds >= 0.3


def test_a_program_that_fails_is_told_with_its_last_words() -> None:
    with pytest.raises(OutcomeError, match="exit code 3\nno such bucket"):
        measured.run(["sh", "-c", "echo no such bucket >&2; exit 3"], {})


def taken(seconds: float, memory_mb: float = 50) -> list[measured.Taken]:
    return [measured.Taken(seconds + off, 1.0, memory_mb, "", 0.5) for off in (0, 0.4, 0.1)]


def test_ratios_are_of_the_fastest_rounds_to_the_running_poller_and_missed_goals_are_told() -> None:
    missed: list[str] = []
    figures = poller.report(
        poller.CASES[0],
        {poller.BRING: taken(1.0, 81), poller.GCLOUD: taken(1.9), poller.CURL: taken(2.0)},
        missed,
    )
    assert figures[poller.CURL]["ratio"] == 2.0
    assert figures[poller.BRING]["synced_seconds"] == 0.5
    assert [line.partition(": ")[2].partition(": ")[2] for line in missed] == [
        "poller, running takes 81 MB, not 80",
        "gcloud storage cp takes 1.90 times as long, not 2.0",
    ]


def test_an_idle_poller_that_takes_too_much_is_told() -> None:
    figures = {
        "seconds": 90.0,
        "poll_interval_seconds": 30.0,
        "memory_mb": 45.1,
        "cpu_percent_of_a_core": 0.31,
        "list_calls": 4.0,
    }
    assert [line.partition(",")[0] for line in poller._idle_missed(figures)] == [
        "idle: 45.1 MB",
        "idle: 0.31 % of a core",
        "idle: 4 lists in 90 s",
    ]
    modest = {**figures, "memory_mb": 45, "cpu_percent_of_a_core": 0.3, "list_calls": 3.0}
    assert not list(poller._idle_missed(modest))


def test_the_same_figures_give_the_same_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = {
        case.key: {poller.BRING: {"fastest_seconds": 1.0}, poller.CURL: {"fastest_seconds": 2.0}}
        for case in poller.CASES
    }
    drawn = []
    for number in range(2):
        picture = tmp_path / str(number) / "x.svg"
        monkeypatch.setattr(poller_plot, "_PICTURE", picture)
        poller_plot.draw(figures)
        drawn.append(picture.read_bytes())
    assert drawn[0] == drawn[1]
    assert str(tmp_path).encode() not in drawn[0]
