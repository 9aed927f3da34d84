"""The judge finds what is wrong in a made-up history, and nothing in one that is as it must be."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from chaos import judge
from chaos.judge import Expected
from chaos.seen import (
    INGRESS,
    Failure,
    Happened,
    Inventory,
    Look,
    Pod,
    Standstill,
    Taken,
    Told,
    Usage,
    Way,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

M = "model"
FIRST = Pod("m-1", M, "node-1", ready=True, available=frozenset({2}))
SECOND = Pod("m-2", M, "node-2", ready=True, available=frozenset({2}))
DOOR = Pod("traefik-1", INGRESS, "node-3", ready=True)
TOLD = Told(M, active=2, target=2, ready="True", transition="UpToDate", ready_replicas=2, wanted=2)


def looks(
    seconds: float = 200,
    *,
    pods: Callable[[float], Iterable[Pod]] = lambda _: (FIRST, SECOND, DOOR),
    told: Callable[[float], Told] = lambda _: TOLD,
    **more: Any,
) -> list[Look]:
    """A look each second from 0 on."""
    return [
        Look(float(at), pods=tuple(pods(at)), told=(told(at),), **more)
        for at in range(int(seconds))
    ]


def away(pod: Pod, begin: float, end: float) -> Callable[[float], Iterable[Pod]]:
    """A history in which one pod is not ready for a while."""

    def at(second: float) -> Iterable[Pod]:
        others = [each for each in (FIRST, SECOND, DOOR) if each != pod]
        return (replace(pod, ready=not begin <= second < end), *others)

    return at


def only(pod: Pod, begin: float, end: float) -> Callable[[float], Iterable[Pod]]:
    """One in which it is the only one of its model."""
    return lambda at: (replace(pod, ready=not begin <= at < end), DOOR)


def failure(at: float, way: Way = Way.REST, waited: float = 0.1) -> Failure:
    return Failure(at, M, way, "HTTP 502", waited)


def fault(began: float = 50, ended: float = 51, **taken: Any) -> Happened:
    return Happened("a fault", began, Taken(**taken), ended)


POD_HIT = fault(pods=frozenset({"m-1"}))


def found(
    failed: Failure, *faults: Happened, seen: Sequence[Look] | None = None, **more: Any
) -> list[str]:
    given = looks() if seen is None else seen
    return [each.what for each in judge.unexplained([failed], faults, given, **more)]


# -- requests


def test_a_failure_without_a_fault_is_a_finding() -> None:
    assert found(failure(60)) == ["model by rest: HTTP 502"]


def test_a_fault_that_takes_nothing_explains_nothing() -> None:
    assert found(failure(50.5), fault())


@pytest.mark.parametrize(("at", "explained"), [(49, False), (50.5, True), (62, True), (80, False)])
def test_a_pod_that_was_hit_explains_failures_until_all_know(at: float, explained: bool) -> None:
    seen = looks(pods=away(FIRST, 52, 55))
    assert (found(failure(at), POD_HIT, seen=seen) == []) == explained


def test_a_request_that_was_under_way_when_the_fault_came_is_explained() -> None:
    assert found(failure(45, waited=6), POD_HIT) == []
    assert found(failure(45, waited=4), POD_HIT)


def test_another_models_pod_explains_nothing() -> None:
    other = Failure(50.5, "other", Way.GRPC, "UNAVAILABLE")
    assert found(other, POD_HIT)


def test_the_ingress_controller_explains_what_goes_through_it_alone() -> None:
    hit = fault(pods=frozenset({"traefik-1"}))
    seen = looks(pods=away(DOOR, 52, 55))
    assert found(failure(53), hit, seen=seen) == []
    assert found(failure(53, Way.GRPC), hit, seen=seen)


def test_a_node_explains_what_its_pods_fail_until_it_is_known_to_be_lost() -> None:
    hit = fault(50, 100, nodes=frozenset({"node-1"}))
    seen = looks(pods=away(FIRST, 72, 105))
    for at in (51, 71, 83):
        assert found(failure(at), hit, seen=seen) == [], at
    assert found(failure(90), hit, seen=seen), "by then all know, and the other pod is there"


def test_the_only_pods_absence_is_explained_as_long_as_it_lasts() -> None:
    seen = looks(pods=only(FIRST, 52, 130))
    assert found(failure(110), POD_HIT, seen=seen) == []
    assert found(failure(160), POD_HIT, seen=seen)


@pytest.mark.parametrize(("at", "explained"), [(80, True), (95, True), (115, False)])
def test_that_a_pod_is_back_is_heard_once_the_controllers_are(at: float, explained: bool) -> None:
    seen = looks(pods=only(FIRST, 52, 70))
    controllers = fault(began=75, ended=90, hearing=True)
    assert (found(failure(at), POD_HIT, controllers, seen=seen) == []) == explained
    assert found(failure(95), POD_HIT, seen=seen)


def test_an_absence_that_no_fault_began_explains_nothing() -> None:
    assert found(failure(60), seen=looks(pods=only(FIRST, 52, 70)))
    late = looks(300, pods=only(FIRST, 200, 230))
    assert found(failure(210), POD_HIT, seen=late)


def test_a_fault_of_one_model_or_one_way_explains_just_that() -> None:
    assert found(failure(55), fault(models=frozenset({M}))) == []
    assert found(failure(55), fault(models=frozenset({"other"})))
    assert found(failure(55), fault(ways=frozenset({Way.REST}))) == []
    assert found(failure(55, Way.GRPC), fault(ways=frozenset({Way.REST})))
    assert found(failure(90), fault(models=frozenset({M})))


def test_a_standstill_of_the_machine_explains_what_was_late() -> None:
    assert found(failure(60, waited=10), standstills=[Standstill(65, 3)]) == []
    assert found(failure(60, waited=1), standstills=[Standstill(65, 3)])


# -- statuses


def untrue(
    told: Told, *faults: Happened, since: float = 40, seconds: float = 200, **more: Any
) -> list[str]:
    seen = looks(seconds, told=lambda at: told if at >= since else TOLD, **more)
    return [each.what for each in judge.untrue(seen, faults)]


def test_a_true_status_is_no_finding() -> None:
    assert untrue(TOLD) == []


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"ready_replicas": 1}, "1 replicas are ready; there are 2"),
        ({"active": 1, "transition": "InProgress"}, "version 1 is active; pods answer with 2"),
        ({"active": 3}, "version 3 is up to date; pods answer with 2"),
        ({"ready": "False", "reason": "Why"}, "it is not Ready (Why); all 2 pods answer"),
    ],
)
def test_each_untruth_is_found_once(wrong: dict[str, Any], text: str) -> None:
    texts = untrue(replace(TOLD, **wrong))
    assert [each for each in texts if text in each], texts
    assert len(texts) == len(set(texts)) <= 2


def test_a_status_that_is_ready_without_a_pod_is_found() -> None:
    told = replace(TOLD, ready_replicas=0)
    texts = untrue(told, pods=lambda at: (DOOR,) if at >= 40 else (FIRST, SECOND, DOOR))
    assert [each for each in texts if "it is Ready; no pod is" in each]


def test_a_status_may_be_late_but_not_for_ever() -> None:
    late = replace(TOLD, ready_replicas=1)
    assert untrue(late, seconds=40 + judge.KNOWN) == []
    assert untrue(late, seconds=45 + judge.KNOWN)


def test_nobody_is_late_who_could_not_write() -> None:
    late = replace(TOLD, ready_replicas=1)
    assert untrue(late, fault(10, 150, reporting=True)) == []
    assert untrue(late, answered=False) == []
    assert untrue(late, operators=0) == []
    over = fault(10, 60, reporting=True)
    assert untrue(late, over, seconds=60 + judge.RESUMED + judge.KNOWN - 2) == []
    assert untrue(late, over, seconds=60 + judge.RESUMED + judge.KNOWN + 5)


def test_a_pod_that_cannot_be_asked_contradicts_nobody() -> None:
    silent = (replace(FIRST, available=None), replace(SECOND, available=None))
    assert judge.contradictions(TOLD, silent) == {}
    assert judge.contradictions(replace(TOLD, active=1), silent) == {}


def test_a_version_that_nobody_ever_answered_with_was_invented() -> None:
    def seen(active: int) -> list[Look]:
        return looks(told=lambda at: replace(TOLD, active=active if at > 100 else 2))

    assert judge.invented(seen(2)) == []
    assert [each.what for each in judge.invented(seen(3))] == [
        "model: version 3 became active; only 2 ever answered"
    ]


# -- the end


def test_a_settled_fleet_is_settled() -> None:
    assert judge.unsettled(looks(1)[0], [Expected(M, 2)]) == []


@pytest.mark.parametrize(
    ("look", "text"),
    [
        (Look(0, answered=False), "the API server does not answer"),
        (replace(looks(1)[0], nodes_lost=frozenset({"node-2"})), "node-2 is not Ready"),
        (replace(looks(1)[0], told=()), "model: it has no status"),
        (replace(looks(1)[0], pods=()), "model: pods answer with nothing, not 2"),
        (
            replace(looks(1)[0], pods=(FIRST, replace(SECOND, available=frozenset({1})))),
            "model: pods answer with 1, 2, not 2",
        ),
        (
            replace(looks(1)[0], told=(replace(TOLD, active=1),)),
            "model: version 1 is active, not 2",
        ),
        (
            replace(looks(1)[0], told=(replace(TOLD, ready="False", reason="Why"),)),
            "model: not Ready: Why",
        ),
        (replace(looks(1)[0], told=(replace(TOLD, stalled="True"),)), "model: Stalled"),
        (
            replace(looks(1)[0], told=(replace(TOLD, transition="InProgress"),)),
            "model: InProgress, not UpToDate",
        ),
    ],
)
def test_what_keeps_a_fleet_from_being_settled_is_named(look: Look, text: str) -> None:
    assert text in judge.unsettled(look, [Expected(M, 2)])


def test_a_bad_newest_version_blocks_and_the_one_before_serves() -> None:
    blocked = replace(looks(1)[0], told=(replace(TOLD, transition="BlockedByFailedLoad"),))
    assert judge.unsettled(blocked, [Expected(M, 2, blocked=True)]) == []
    assert judge.unsettled(blocked, [Expected(M, 2)])


# -- base paths

WHOLE = {"saved_model.pb": 10, "variables/variables.index": 5}


def test_a_whole_version_is_whole() -> None:
    assert judge.half(WHOLE, [WHOLE]) == ""


@pytest.mark.parametrize(
    ("files", "text"),
    [
        ({"saved_model.pb": 10}, "missing ['variables/variables.index']"),
        ({**WHOLE, "saved_model.pb": 4}, "of another size ['saved_model.pb']"),
        ({**WHOLE, "more": 4}, "unknown ['more']"),
    ],
)
def test_half_a_version_is_found(files: dict[str, int], text: str) -> None:
    assert text in judge.half(files, [WHOLE])


def test_a_version_that_nobody_uploaded_is_found() -> None:
    assert judge.half(WHOLE, []) == "nobody uploaded it"


# -- growth


def usage(minutes: int, **per_minute: float) -> list[Usage]:
    """A sample each 10 s."""
    return [
        Usage(
            at=10.0 * number,
            kind="operator",
            process="p 1",
            megabytes=80 + per_minute.get("megabytes", 0) * number / 6,
            threads=10 + int(per_minute.get("threads", 0) * number / 6),
            files=20 + int(per_minute.get("files", 0) * number / 6),
        )
        for number in range(6 * minutes)
    ]


NOTHING = Inventory({"pods": 3})


def grown(usages: Sequence[Usage], after: Inventory = NOTHING) -> list[str]:
    return judge.growth(usages, Inventory({"pods": 3}, (), 1000), after, judged=("operator",))


def test_what_stays_as_it_is_does_not_grow() -> None:
    assert grown(usage(20)) == []


@pytest.mark.parametrize("what", ["megabytes", "threads", "files"])
def test_what_grows_by_the_minute_is_found(what: str) -> None:
    (text,) = grown(usage(30, **{what: 2}))
    assert text.startswith("operator p 1: ")


def test_an_operator_that_comes_to_lead_holds_a_connection_to_each_pod() -> None:
    follows, leads = usage(5), [replace(each, files=60) for each in usage(10)[30:]]
    many = Inventory({"pods": 20}, (), 1000)
    assert judge.growth([*follows, *leads], many, many, judged=("operator",)) == []
    assert judge.growth([*follows, *leads], NOTHING, NOTHING, judged=("operator",))


def test_what_is_not_judged_may_grow() -> None:
    others = [replace(each, kind="model server") for each in usage(30, megabytes=2)]
    assert grown(others) == []


def test_what_is_left_behind_is_found() -> None:
    assert grown([], Inventory({"pods": 4})) == ["4 pods, of 3 before"]
    assert grown([], Inventory({}, ("a pod: 15 in .staging",))) == ["a pod: 15 in .staging"]
    assert grown([], Inventory({}, (), 2000)) == ["2000 bytes on disk, of 1000 before"]
