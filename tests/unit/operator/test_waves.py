"""Templates that the operator changes by itself go out to some models at a time, and stop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferencemodel_operator import names, waves
from inferencemodel_operator.cluster import DEPLOYMENTS
from inferencemodel_operator.observe import objects
from inferencemodel_operator.values import Share
from inferencemodel_operator.waves import UNWATCHED, WATCHED, Standing

if TYPE_CHECKING:
    from inferencemodel_operator.observe.objects import Deployment, Key, Pod

WAITS = Standing(waits=True)
MOVES = Standing(moves=True)
FAILED = Standing(moves=True, failed=True)
SETTLED = Standing()


def keys(*standings: Standing) -> dict[Key, Standing]:
    return {("vision", f"m{number}"): standing for number, standing in enumerate(standings)}


def chosen(standings: dict[Key, Standing], limit: int) -> list[str]:
    return sorted(name for _, name in waves.plan(standings, limit))


def test_the_first_go_as_many_as_may() -> None:
    assert chosen(keys(WAITS, WAITS, WAITS), 2) == ["m0", "m1"]


def test_the_next_goes_when_one_is_there() -> None:
    assert chosen(keys(MOVES, MOVES, WAITS, WAITS), 2) == []
    assert chosen(keys(SETTLED, MOVES, WAITS, WAITS), 2) == ["m2"]


def test_one_that_failed_stops_those_that_have_not_begun() -> None:
    assert chosen(keys(FAILED, WAITS, MOVES), 5) == []


def test_a_better_template_goes_to_those_that_move_or_failed_with_the_last() -> None:
    again = Standing(waits=True, moves=True)
    assert chosen(keys(again, again, WAITS, WAITS), 2) == ["m0", "m1"]
    assert chosen(keys(again, FAILED, WAITS), 1) == ["m0"]


def test_the_order_is_that_of_namespaces_and_names() -> None:
    standings = {("b", "x"): WAITS, ("a", "z"): WAITS, ("a", "y"): WAITS}
    assert waves.plan(standings, 2) == {("a", "y"), ("a", "z")}


Standings = st.dictionaries(
    st.tuples(st.sampled_from("ab"), st.integers(0, 30).map(str)),
    st.builds(Standing, waits=st.booleans(), moves=st.booleans(), failed=st.booleans()),
    max_size=30,
)


@given(Standings, st.integers(1, 8))
def test_no_more_than_the_limit_move_by_a_plan(standings: dict[Key, Standing], limit: int) -> None:
    go = waves.plan(standings, limit)
    moving = {key for key, standing in standings.items() if standing.moves}
    assert all(standings[key].waits for key in go)
    assert len(moving | go) <= max(limit, len(moving))
    assert waves.plan(standings, limit) == go
    if any(standing.failed for standing in standings.values()):
        assert go <= moving
    begun, left = go - moving, {k for k, s in standings.items() if s.waits} - moving - go
    assert all(first < last for first in begun for last in left)


@given(
    st.sets(st.tuples(st.sampled_from("ab"), st.integers(0, 40).map(str))),
    st.integers(1, 8),
    st.randoms(),
)
def test_all_get_there_in_the_order_of_their_names_when_none_fails(
    waiting: set[Key], limit: int, luck: Any
) -> None:
    standings = dict.fromkeys(waiting, WAITS)
    begun: list[Key] = []
    for _ in range(2 * len(waiting) + 1):
        for key in sorted(waves.plan(standings, limit)):
            standings[key] = MOVES
            begun.append(key)
        moving = sorted(key for key, standing in standings.items() if standing.moves)
        assert len(moving) <= limit
        if moving:
            standings[luck.choice(moving)] = SETTLED
    assert begun == sorted(waiting)
    assert set(standings.values()) <= {SETTLED}


def test_a_share_is_a_number_or_a_percentage_rounded_up() -> None:
    assert Share.parse("5").of(1000) == 5
    assert Share.parse("10%").of(81) == 9
    assert Share.parse("1%").of(3) == 1
    assert Share.parse("100%").of(0) == 1


@pytest.mark.parametrize("text", ["", "0", "0%", "-1", "101%", "5 %", "half", "1e3", "٣", "9" * 30])
def test_a_share_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="5 nor a share such as 10%"):
        Share.parse(text)


# -- one Deployment


def deployment(mark: str | None = WATCHED, *, generation: int = 2, **status: Any) -> Deployment:
    annotations = {} if mark is None else {names.TEMPLATE_UPDATE_ANNOTATION: mark}
    found = objects.child(
        DEPLOYMENTS.kind,
        {
            "metadata": {
                "name": "m",
                "namespace": "vision",
                "uid": "uid-m",
                "resourceVersion": "1",
                "generation": generation,
                "labels": {names.MODEL_LABEL: "m"},
                "annotations": annotations,
                "ownerReferences": [
                    {
                        "apiVersion": names.API_VERSION,
                        "kind": names.KIND,
                        "name": "m",
                        "uid": "uid-of-the-model",
                        "controller": True,
                    }
                ],
            },
            "spec": {"replicas": 3},
            "status": {"observedGeneration": 2, **status},
        },
    )
    assert found is not None
    assert found.deployment is not None
    return found.deployment


def pod(reason: str) -> Pod:
    found = objects.pod(
        {
            "metadata": {
                "name": "m-1",
                "namespace": "vision",
                "uid": "uid-1",
                "resourceVersion": "1",
                "labels": {names.MODEL_LABEL: "m"},
            },
            "status": {
                "initContainerStatuses": [
                    {"name": names.POLLER_CONTAINER, "state": {"waiting": {"reason": reason}}}
                ]
            },
        }
    )
    assert found is not None
    return found


COMPLETE: dict[str, Any] = {"replicas": 3, "updatedReplicas": 3, "availableReplicas": 3}
AVAILABLE = {"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"}
OVERDUE = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}
REFUSED = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate"}


@pytest.mark.parametrize(
    ("status", "generation", "moves"),
    [
        ({}, 2, True),
        (COMPLETE, 2, False),
        (COMPLETE, 3, True),  # of the template before
        ({**COMPLETE, "replicas": 4}, 2, True),
        ({**COMPLETE, "availableReplicas": 2}, 2, True),
        ({**COMPLETE, "updatedReplicas": 2, "replicas": 2}, 2, True),
        # Complete once, and a pod lost or three more wanted since.
        ({"replicas": 3, "updatedReplicas": 3, "conditions": [AVAILABLE]}, 2, False),
        ({"replicas": 1, "updatedReplicas": 1, "conditions": [AVAILABLE]}, 2, False),
        ({"replicas": 3, "updatedReplicas": 0, "conditions": [AVAILABLE]}, 2, True),
    ],
)
def test_a_model_moves_until_its_deployment_is_rolled_out(
    status: dict[str, Any], generation: int, moves: bool
) -> None:
    live = deployment(generation=generation, **status)
    assert waves.standing(live, []) == Standing(moves=moves)
    assert waves.standing(deployment(None, generation=generation, **status), []) == SETTLED


@pytest.mark.parametrize("condition", [OVERDUE, REFUSED])
def test_a_rollout_that_does_not_end_has_failed(condition: dict[str, str]) -> None:
    assert waves.standing(deployment(conditions=[condition]), []) == FAILED
    stale = deployment(generation=3, conditions=[condition])
    assert waves.standing(stale, []) == MOVES, "it is of the template before"


def test_a_pod_that_cannot_start_is_a_failure_before_the_deadline() -> None:
    assert waves.standing(deployment(), [pod("ImagePullBackOff")]) == FAILED
    assert waves.standing(deployment(), [pod("PodInitializing")]) == MOVES
    assert waves.standing(deployment(**COMPLETE), [pod("ImagePullBackOff")]) == SETTLED


def test_one_that_had_failed_before_fails_for_nobody() -> None:
    assert waves.standing(deployment(UNWATCHED), []) == MOVES
    assert waves.standing(deployment(UNWATCHED, conditions=[OVERDUE]), []) == SETTLED


def test_a_mark_that_somebody_else_wrote_is_watched() -> None:
    assert waves.standing(deployment("x" * 1000), []) == MOVES
