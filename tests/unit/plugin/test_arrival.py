"""When ``wait`` ends, and how."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from kubectl_inferencemodel.arrival import Goal, Outcome, look
from tests.unit.plugin.views import arriving, model, rollout

if TYPE_CHECKING:
    from kubectl_inferencemodel.resource import InferenceModel

GOING = {"Reconciling": ("True", "ChangingVersion", "0 of 3 replicas have it")}


def test_a_version_has_arrived_when_it_is_active_and_all_wanted_replicas_are_ready() -> None:
    seen = look(model(), Goal(2))
    assert seen.outcome is Outcome.ARRIVED
    assert seen.message == "version 2 answers on 3/3 replicas"


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (model(generation=3), "has not yet looked"),
        (model(**arriving(3, "Fetching")), "version 3, which is being fetched"),
        (
            model(
                conditions={"Ready": ("False", "ReplicasNotReady", "2/3 are ready")},
                status={"replicaSummary": "2/3"},
                activeVersion=3,
                targetVersion=3,
            ),
            "replicas: 2/3; 2/3 are ready",
        ),
        (
            model(conditions={"SourceReady": ("False", "AccessDenied", "give it objectViewer")}),
            "AccessDenied: give it objectViewer",
        ),
        (
            model(conditions={"Ready": ("True", "ScaledToZero", "nothing serves")}),
            "nothing serves",
        ),
    ],
)
def test_it_says_what_is_missing_while_it_waits(seen: InferenceModel, words: str) -> None:
    arrival = look(seen, Goal(3))
    assert arrival.outcome is Outcome.WAITING
    assert words in arrival.message


@pytest.mark.parametrize(
    ("differences", "words"),
    [
        (
            {"quarantined": [{"version": 3, "reason": "LoadFailed", "message": "no op Foo"}]},
            "quarantined: LoadFailed: no op Foo",
        ),
        ({"spec": {"model": {"version": 2}}}, "version 2 is pinned"),
        ({"spec": {"model": {"minVersion": 4}}}, "below spec.model.minVersion"),
        (arriving(5, "Fetching"), "version 5 is newer, so it is served instead; to go back, pin"),
        ({"spec": {"suspend": True}}, "suspended"),
        (
            {"conditions": {"Stalled": ("True", "NameConflict", "Service imagenet is another's")}},
            "NameConflict: Service imagenet is another's",
        ),
    ],
)
def test_it_ends_at_once_when_waiting_does_not_help(
    differences: dict[str, Any], words: str
) -> None:
    arrival = look(model(**differences), Goal(3))
    assert arrival.outcome is Outcome.HOPELESS
    assert words in arrival.message


@pytest.mark.parametrize(
    "seen",
    [
        # Right after a change that no pod can follow, the pods of before still answer.
        model(conditions={"Reconciling": ("True", "RollingOut", "1 of 3 pods are new")}),
        model(transitionStatus="InProgress"),
        model(transitionStatus="Unknown"),
        model(transitionStatus="Pending"),
        model(generation=3),
        # Of an older object of the same name, or of a backup.
        model(observed=5),
        model(targetVersion=None),
        model(conditions={"Ready": ("Unknown", "PollerUnreachable", "can't be asked")}),
    ],
)
@pytest.mark.parametrize("version", [2, None])
def test_a_version_that_answers_is_not_reached_while_anything_else_is_on_its_way(
    seen: InferenceModel, version: int | None
) -> None:
    assert look(seen, Goal(version)).outcome is Outcome.WAITING


@pytest.mark.parametrize("version", [2, None])
def test_a_condition_of_an_older_spec_counts_for_nothing(version: int | None) -> None:
    seen = model()
    conditions = tuple(
        msgspec.structs.replace(c, observed_generation=1) if c.type == "Ready" else c
        for c in seen.status.conditions
    )
    status = msgspec.structs.replace(seen.status, conditions=conditions)
    older = msgspec.structs.replace(seen, status=status)
    assert look(older, Goal(version)).outcome is Outcome.WAITING


def test_a_resource_that_is_being_deleted_has_not_arrived() -> None:
    seen = model()
    metadata = msgspec.structs.replace(
        seen.metadata, deletion_timestamp=seen.metadata.creation_timestamp
    )
    arrival = look(msgspec.structs.replace(seen, metadata=metadata), Goal(2))
    assert (arrival.outcome, arrival.message) == (Outcome.WAITING, "the resource is being deleted")


def test_a_version_answers_though_a_newer_one_failed() -> None:
    assert look(model(transitionStatus="BlockedByFailedLoad"), Goal(2)).outcome is Outcome.ARRIVED


def test_a_suspended_resource_has_its_version() -> None:
    suspended = model(spec={"suspend": True}, transitionStatus="Suspended")
    assert look(suspended, Goal(2)).outcome is Outcome.ARRIVED


def test_nothing_is_hopeless_before_the_operator_has_seen_the_change() -> None:
    assert look(model(generation=3, **arriving(5, "Fetching")), Goal(3)).outcome is Outcome.WAITING


def test_without_a_number_whatever_is_wanted_is_waited_for() -> None:
    assert look(model(), Goal()).outcome is Outcome.ARRIVED
    assert (
        look(model(conditions=GOING, **arriving(3, "Loading")), Goal()).message
        == "version 3, which is being loaded by the model server"
    )
    stalled = model(conditions={"Stalled": ("True", "Refused", "quota")})
    assert look(stalled, Goal()).outcome is Outcome.HOPELESS
    empty = model(conditions=GOING, activeVersion=None, targetVersion=None)
    assert look(empty, Goal()).message == "there is no version to serve yet"
    asleep = {"Ready": ("True", "ScaledToZero", "nothing serves")}
    for target in (None, 2):
        slept = look(model(conditions=asleep, activeVersion=None, targetVersion=target), Goal())
        assert slept.outcome is Outcome.WAITING


def rolling(phase: str, **differences: Any) -> dict[str, Any]:
    """``status.model`` in the middle of a rollout of version 3."""
    return {**arriving(3, "Available", 1), "rollout": rollout(phase, **differences)}


@pytest.mark.parametrize("phase", ["Checking", "Rehearsing", "Progressing", "Paused", "Baking"])
def test_a_rollout_is_waited_for_with_what_it_waits_for(phase: str) -> None:
    seen = look(model(**rolling(phase, message="until 14:32:10Z")), Goal(3))
    assert seen.outcome is Outcome.WAITING
    assert "until 14:32:10Z" in seen.message


def test_a_version_that_is_watched_once_it_is_everywhere_has_arrived() -> None:
    watched = rollout("Baking", version=2, message="until 14:32:10Z")
    seen = look(model(rollout=watched), Goal(2))
    assert seen.outcome is Outcome.ARRIVED
    assert seen.message == (
        "version 2 answers on 3/3 replicas, and is watched: Baking: until 14:32:10Z"
    )


@pytest.mark.parametrize("version", [2, None])
@pytest.mark.parametrize("phase", ["Progressing", "Paused"])
def test_a_version_that_the_only_replica_tries_has_not_arrived(
    phase: str, version: int | None
) -> None:
    tried = rollout(phase, version=2, message="the golden requests of version 2 are being sent")
    seen = look(model(rollout=tried), Goal(version))
    assert seen.outcome is Outcome.WAITING
    assert "golden requests" in seen.message


def test_a_version_that_is_on_its_way_back_is_not_waited_for() -> None:
    going = rolling("RollingBack", message="2 of 10 answers differ")
    seen = look(model(**going), Goal(3))
    assert seen.outcome is Outcome.HOPELESS
    assert seen.message == "version 3 is taken back (RollingBack): 2 of 10 answers differ"


def test_a_version_that_was_taken_back_is_not_waited_for_unless_it_is_wanted_again() -> None:
    back = rollout("RolledBack", message="somebody aborted its rollout")
    seen = look(model(rollout=back), Goal(3))
    assert seen.outcome is Outcome.HOPELESS
    assert "somebody aborted" in seen.message
    again = look(model(**{**arriving(3, "Fetching"), "rollout": back}), Goal(3))
    assert again.outcome is Outcome.WAITING


def test_a_version_that_is_tried_again_is_waited_for() -> None:
    tried = rollout("Superseded", message="it is tried again")
    assert look(model(rollout=tried), Goal(3)).outcome is Outcome.WAITING


def test_a_version_that_a_newer_one_has_superseded_is_not_waited_for() -> None:
    newer = {**arriving(4, "Fetching"), "rollout": rollout("Checking", version=4)}
    seen = look(model(**newer), Goal(3))
    assert seen.outcome is Outcome.HOPELESS
    assert "version 4 is newer" in seen.message


@pytest.mark.parametrize("version", [None, 3])
@pytest.mark.parametrize(
    ("phase", "step", "differences", "outcome"),
    [
        ("Progressing", 1, {"replicasOn": 0}, Outcome.WAITING),
        ("Progressing", 1, {"step": 0, "replicasWanted": 0}, Outcome.WAITING),
        ("Checking", 1, {"step": 0, "replicasOn": 0, "replicasWanted": 0}, Outcome.WAITING),
        ("Progressing", 1, {}, Outcome.ARRIVED),
        ("Paused", 1, {}, Outcome.ARRIVED),
        ("Progressing", 2, {}, Outcome.WAITING),
        ("Progressing", 1, {"step": 2, "replicasWanted": 3}, Outcome.ARRIVED),
        ("Progressing", 2, {"step": 2, "replicasWanted": 3}, Outcome.WAITING),
        ("Baking", 2, {"step": 2, "replicasOn": 3, "replicasWanted": 0}, Outcome.ARRIVED),
        ("Progressing", 3, {}, Outcome.HOPELESS),
        ("RollingBack", 1, {}, Outcome.HOPELESS),
    ],
)
def test_a_step_is_reached_when_its_replicas_answer(
    version: int | None, phase: str, step: int, differences: dict[str, Any], outcome: Outcome
) -> None:
    seen = look(model(**rolling(phase, **differences)), Goal(version, step))
    assert seen.outcome is outcome, seen.message


def test_any_step_of_a_completed_rollout_was_reached() -> None:
    done = rollout("Completed", version=2)
    one_restarts = {"Ready": ("False", "ReplicasNotReady", "2/3 are ready")}
    assert look(model(rollout=done), Goal(2, 1)).outcome is Outcome.ARRIVED
    seen = look(model(rollout=done, conditions=one_restarts), Goal(2, 1))
    assert seen.outcome is Outcome.ARRIVED


def test_a_step_of_a_version_that_was_quarantined_or_comes_without_a_rollout() -> None:
    failed = [{"version": 3, "reason": "Aborted", "message": "by somebody"}]
    gone = model(quarantined=failed, rollout=rollout("RolledBack"))
    assert "Aborted: by somebody" in look(gone, Goal(3, 1)).message
    assert look(gone, Goal(3, 1)).outcome is Outcome.HOPELESS
    assert look(model(), Goal(2, 1)).outcome is Outcome.ARRIVED
    assert look(model(), Goal(None, 1)).outcome is Outcome.ARRIVED
    assert look(model(**arriving(3, "Fetching")), Goal(3, 1)).outcome is Outcome.WAITING


def test_a_version_that_is_rolled_out_anew_is_waited_for() -> None:
    failed = [{"version": 3, "reason": "ObjectsChanged", "message": "it is rolled out anew"}]
    going = model(quarantined=failed, rollout=rollout("Progressing"), **arriving(3, "Loading"))
    assert look(going, Goal(3)).outcome is Outcome.WAITING
    back = model(quarantined=failed, rollout=rollout("RollingBack"), **arriving(3, "Loading"))
    assert look(back, Goal(3)).outcome is Outcome.HOPELESS
