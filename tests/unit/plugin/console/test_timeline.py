"""The versions of a model, one after the other."""

from __future__ import annotations

from datetime import UTC, datetime

from kubectl_inferencemodel.console.feed import Passed
from kubectl_inferencemodel.console.timeline import entries, known, moments
from tests.unit.plugin.views import arriving, model, rollout

HISTORY = [
    {
        "version": 2,
        "startTime": "2026-01-01T12:00:00Z",
        "activeTime": "2026-01-01T12:00:30Z",
        "endTime": "2026-01-01T14:00:30Z",
        "duration": "30s",
        "result": "Replaced",
    },
    {
        "version": 1,
        "startTime": "2026-01-01T10:00:00Z",
        "endTime": "2026-01-01T10:01:00Z",
        "result": "Failed",
        "reason": "LoadFailed",
    },
]
FAILED = [{"version": 1, "reason": "LoadFailed", "message": "no such op"}]
CHECK = {
    "name": "memory",
    "result": "Passed",
    "message": "1 of 4 GB",
    "time": "2026-01-01T14:30:10Z",
}


def test_each_version_says_how_long_it_took_and_why_it_failed() -> None:
    found = entries(model(history=HISTORY, quarantined=FAILED))
    assert [(e.version, e.result, e.took, e.served, e.why) for e in found] == [
        (2, "Replaced", "30s", "2h", ""),
        (1, "Failed", "", "", "LoadFailed: no such op"),
    ]


def test_the_rollout_that_runs_stands_above_with_what_happened_in_it() -> None:
    running = rollout("Progressing", checks=[CHECK])
    found = entries(model(history=HISTORY, rollout=running, **arriving(3, "Loading")))
    assert [e.version for e in found] == [3, 2, 1]
    assert [(m.what, m.result, m.took) for m in found[0].moments] == [
        ("begun", "", "10s"),
        ("check memory", "Passed", "50s"),
        ("step 1 of 2", "", ""),
    ]


def test_a_rollout_that_is_in_the_history_is_told_there() -> None:
    change = {
        **HISTORY[0],
        "version": 3,
        "startTime": "2026-01-01T14:30:00Z",
        "endTime": None,
        "result": "Active",
    }
    done = rollout("Completed", endTime="2026-01-01T14:32:00Z")
    found = entries(model(history=[change, *HISTORY], rollout=done))
    assert [e.version for e in found] == [3, 2, 1]
    assert [m.what for m in found[0].moments] == ["begun", "step 1 of 2", "ended"]
    assert found[1].moments == ()


def test_steps_that_were_seen_say_how_long_each_took() -> None:
    def at(minute: int) -> datetime:
        return datetime(2026, 1, 1, 14, minute, tzinfo=UTC)

    running = rollout("Progressing", step=2, steps=3, stepStartedTime="2026-01-01T14:38:00Z")
    seen = [
        Passed(3, "Progressing", 1, at(31)),
        Passed(2, "Progressing", 3, at(31)),
        Passed(3, "Progressing", 2, at(38)),
    ]
    found = list(moments(model(rollout=running), seen))
    assert [(m.what, m.took) for m in found] == [
        ("begun", "1m"),
        ("step 1 of 3", "7m"),
        ("step 2 of 3", ""),
    ]


def test_a_version_that_was_taken_back_says_why() -> None:
    back = rollout("RolledBack", endTime="2026-01-01T14:33:00Z", message="golden: record 2 differs")
    (found,) = entries(model(rollout=back))
    assert (found.version, found.took, found.why) == (3, "3m", "golden: record 2 differs")


def test_every_known_version_is_there_with_what_it_is() -> None:
    found = known(model(quarantined=[*FAILED, {**FAILED[0], "version": 9}]))
    assert [(k.version, k.state, k.roles, bool(k.why)) for k in found] == [
        (2, "Available", ("active", "target", "newest"), False),
        (1, "Retired", (), True),
        (9, "Quarantined", (), True),
    ]
