"""Events: one for each change, none for what was said already."""

from __future__ import annotations

from typing import Any

import pytest

from inferencemodel_operator import events
from inferencemodel_operator.events import NOTE_LIMIT, Change
from inferencemodel_operator.observe import objects
from inferencemodel_operator.observe.troubles import CRASHED, Trouble
from inferencemodel_operator.status import Status, decode

BAD = {"version": 2, "reason": "LoadFailed", "message": "no graph"}


def status(*conditions: tuple[str, str, str], active: int | None = None, **model: Any) -> Status:
    if active is not None:
        time = f"2026-01-01T00:00:{active:02}Z"
        change = {"version": active, "startTime": time, "activeTime": time, "result": "Active"}
        model |= {"activeVersion": active, "history": [change]}
    return decode(
        {
            "model": model,
            "conditions": [
                {"type": kind, "status": state, "reason": reason, "message": "words"}
                for kind, state, reason in conditions
            ],
        }
    )


def test_an_activated_version_is_told_with_the_one_before() -> None:
    first = events.changes(Status(), status(active=1))
    then = events.changes(status(active=1), status(active=2))
    assert first == [Change("VersionActivated", "version 1 answers on all replicas")]
    assert then[0].note.endswith("instead of version 1")
    assert events.changes(status(active=2), status()) == []
    assert events.changes(status(active=2), status(active=2)) == []


def test_a_new_quarantine_is_a_warning_told_once() -> None:
    before, after = status(), status(quarantined=[BAD])
    assert events.changes(before, after) == [
        Change("LoadFailed", "version 2 is quarantined: no graph", warning=True)
    ]
    assert events.changes(after, after) == []


def test_a_condition_that_turns_bad_is_told_and_one_that_stays_bad_is_not() -> None:
    good = status(("SourceReady", "True", "Listed"), ("Stalled", "False", "NotStalled"))
    bad = status(("SourceReady", "False", "AccessDenied"), ("Stalled", "True", "NameConflict"))
    assert [change.reason for change in events.changes(good, bad)] == [
        "AccessDenied",
        "NameConflict",
    ]
    assert events.changes(bad, bad) == []
    assert events.changes(bad, good) == []


def test_children_that_can_not_be_applied_for_long_are_told_once() -> None:
    trying = status(("Reconciling", "True", "Applying"))
    failed = status(("Reconciling", "True", "ApplyFailed"))
    assert events.changes(Status(), trying) == []
    assert events.changes(trying, failed) == [Change("ApplyFailed", "words", warning=True)]
    assert events.changes(failed, failed) == []
    assert events.changes(failed, trying) == []


def test_replicas_that_are_merely_starting_are_no_event() -> None:
    starting = status(("Ready", "False", "ReplicasNotReady"))
    stuck = status(("Ready", "False", "ImagePullFailed"))
    assert events.changes(Status(), starting) == []
    assert [change.reason for change in events.changes(starting, stuck)] == ["ImagePullFailed"]


@pytest.mark.parametrize("trouble", CRASHED)
def test_whichever_container_ends_again_and_again_is_an_event(trouble: Trouble) -> None:
    starting = status(("Ready", "False", "ReplicasNotReady"))
    crashed = status(("Ready", "False", trouble.value))
    assert [change.reason for change in events.changes(starting, crashed)] == [trouble]


def test_an_event_is_about_its_inferencemodel_and_within_the_api_servers_limits() -> None:
    model = objects.model(
        {
            "metadata": {
                "name": "m",
                "namespace": "vision",
                "uid": "u",
                "resourceVersion": "1",
            },
            "spec": {"model": {"storageUri": "gs://b/m"}},
        }
    )
    made = events.event(model, Change("LoadFailed", "模" * 5000, warning=True))
    assert made["regarding"]["uid"] == "u"
    assert made["type"] == "Warning"
    assert NOTE_LIMIT - 3 < len(made["note"].encode()) <= NOTE_LIMIT
