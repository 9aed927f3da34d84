"""When ``wait`` ends, and how."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from kubectl_inferencemodel.arrival import Outcome, look
from tests.unit.plugin.views import arriving, model

if TYPE_CHECKING:
    from kubectl_inferencemodel.resource import InferenceModel

GOING = {"Reconciling": ("True", "ChangingVersion", "0 of 3 replicas have it")}


def test_a_version_has_arrived_when_it_is_active_and_all_wanted_replicas_are_ready() -> None:
    seen = look(model(), 2)
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
    arrival = look(seen, 3)
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
        (arriving(5, "Fetching"), "version 5 is newer"),
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
    arrival = look(model(**differences), 3)
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
    assert look(seen, version).outcome is Outcome.WAITING


@pytest.mark.parametrize("version", [2, None])
def test_a_condition_of_an_older_spec_counts_for_nothing(version: int | None) -> None:
    seen = model()
    conditions = tuple(
        msgspec.structs.replace(c, observed_generation=1) if c.type == "Ready" else c
        for c in seen.status.conditions
    )
    status = msgspec.structs.replace(seen.status, conditions=conditions)
    older = msgspec.structs.replace(seen, status=status)
    assert look(older, version).outcome is Outcome.WAITING


def test_a_resource_that_is_being_deleted_has_not_arrived() -> None:
    seen = model()
    metadata = msgspec.structs.replace(
        seen.metadata, deletion_timestamp=seen.metadata.creation_timestamp
    )
    arrival = look(msgspec.structs.replace(seen, metadata=metadata), 2)
    assert (arrival.outcome, arrival.message) == (Outcome.WAITING, "the resource is being deleted")


def test_a_version_answers_though_a_newer_one_failed() -> None:
    assert look(model(transitionStatus="BlockedByFailedLoad"), 2).outcome is Outcome.ARRIVED


def test_a_suspended_resource_has_its_version() -> None:
    suspended = model(spec={"suspend": True}, transitionStatus="Suspended")
    assert look(suspended, 2).outcome is Outcome.ARRIVED


def test_nothing_is_hopeless_before_the_operator_has_seen_the_change() -> None:
    assert look(model(generation=3, **arriving(5, "Fetching")), 3).outcome is Outcome.WAITING


def test_without_a_number_whatever_is_wanted_is_waited_for() -> None:
    assert look(model(), None).outcome is Outcome.ARRIVED
    assert (
        look(model(conditions=GOING, **arriving(3, "Loading")), None).message
        == "version 3, which is being loaded by the model server"
    )
    stalled = model(conditions={"Stalled": ("True", "Refused", "quota")})
    assert look(stalled, None).outcome is Outcome.HOPELESS
    empty = model(conditions=GOING, activeVersion=None, targetVersion=None)
    assert look(empty, None).message == "there is no version to serve yet"
    asleep = {"Ready": ("True", "ScaledToZero", "nothing serves")}
    for target in (None, 2):
        slept = look(model(conditions=asleep, activeVersion=None, targetVersion=target), None)
        assert slept.outcome is Outcome.WAITING
