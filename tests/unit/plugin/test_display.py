"""What the tables look like."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from kubectl_inferencemodel import display
from kubectl_inferencemodel.explanation import Explanation, Finding
from kubectl_inferencemodel.predictions import Label
from tests.unit.plugin.views import arriving, model, rollout

if TYPE_CHECKING:
    from rich.console import RenderableType

NOW = datetime(2026, 1, 3, tzinfo=UTC)


def lines(shown: RenderableType) -> list[str]:
    console = Console(width=200, color_system=None)
    with console.capture() as captured:
        console.print(shown)
    return [line.rstrip() for line in captured.get().splitlines()]


def cells(shown: RenderableType) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("   ") if cell.strip()] for line in lines(shown)]


def test_the_list_tells_which_version_answers_on_how_many_replicas() -> None:
    header, row = cells(
        display.models([model(**arriving(3, "Available", 1))], NOW, namespaces=False)
    )
    assert header == [
        *("NAME", "VERSION", "TARGET", "READY", "REPLICAS", "STATUS", "ROLLOUT"),
        *("ANSWERING", "AGE"),
    ]
    assert row == ["imagenet", "2", "3", "True", "3/3", "InProgress", "-", "v3 x1, v2 x2", "2d"]


@pytest.mark.parametrize(
    ("phase", "step", "shown"),
    [("Paused", 1, "Paused 1/2"), ("Checking", 0, "Checking"), ("RolledBack", 1, "RolledBack")],
)
def test_the_list_tells_which_rollouts_wait(phase: str, step: int, shown: str) -> None:
    rolling = model(**arriving(3, "Available", 1), rollout=rollout(phase, step=step))
    _, row = cells(display.models([rolling], NOW, namespaces=False))
    assert row[6] == shown


def test_the_list_of_all_namespaces_names_them() -> None:
    header, row = cells(display.models([model()], NOW, namespaces=True))
    assert (header[0], row[0]) == ("NAMESPACE", "vision")


def test_what_the_operator_has_not_told_is_a_dash() -> None:
    new = model(
        status={"conditions": [], "replicaSummary": "", "model": {}},
    )
    _, row = cells(display.models([new], NOW, namespaces=False))
    assert row == ["imagenet", *["-"] * 7, "2d"]


def test_versions_show_their_roles_their_failures_and_the_last_changes() -> None:
    shown = lines(
        display.versions(
            model(
                latestVersion=3,
                quarantined=[
                    {"version": 3, "reason": "LoadFailed", "message": "no such op: [Foo]"}
                ],
                history=[
                    {
                        "version": 2,
                        "startTime": "2026-01-01T10:00:00Z",
                        "duration": "2.9s",
                        "result": "Active",
                    }
                ],
                lastFailureInfo={
                    "version": 3,
                    "reason": "LoadFailed",
                    "message": "no such op: [Foo]",
                    "time": "2026-01-01T11:00:00Z",
                    "pod": "imagenet-a",
                },
            )
        )
    )
    text = "\n".join(shown)
    assert "2         Available     3          active, target" in text
    assert "3         Quarantined   0          LoadFailed: no such op: [Foo]" in text
    assert "2         Active   2026-01-01 10:00:00Z   2.9s" in text
    assert shown[-1] == (
        "The last failure: version 3 on imagenet-a, 2026-01-01 11:00:00Z: "
        "LoadFailed: no such op: [Foo]"
    )


def test_an_explanation_puts_its_summary_before_its_findings() -> None:
    found = Explanation(
        "m", settled=False, summary="It waits.", findings=(Finding("pod a", "", "[is] late"),)
    )
    summary, _, header, row = lines(display.explanation(found))
    assert summary == "It waits."
    assert header.split()[:2] == ["ABOUT", "REASON"]
    assert row.split() == ["pod", "a", "-", "[is]", "late"]


def test_labels_come_with_bars_as_long_as_they_are_probable() -> None:
    shown = lines(display.labels([Label("tabby [cat]", 0.5), Label("dog", 0.0), Label("x", 7.0)]))
    assert "0.500" in shown[1]
    assert "tabby [cat]" in shown[1]
    assert [line.count("█") for line in shown[1:]] == [10, 0, 20]


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "0s"), (59, "59s"), (60, "1m"), (7199, "1h"), (90000, "1d")]
)
def test_an_age_is_the_largest_unit(seconds: int, words: str) -> None:
    assert display.age(NOW - timedelta(seconds=seconds), NOW) == words


def test_a_clock_that_is_behind_shows_no_negative_age() -> None:
    assert display.age(NOW + timedelta(seconds=5), NOW) == "0s"
