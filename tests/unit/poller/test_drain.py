"""A pod leaves its Services before its model server loads another version."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model_poller import drain
from model_poller.actions import Publish, Retire
from model_poller.drain import LEAST_SECONDS, LIMIT_SECONDS, MOST_SECONDS, QUIET_SECONDS, Drain
from model_poller.live import Asked, Scrape
from model_poller.model_server.figures import Figures
from model_poller.status import RolloutTask
from model_poller.volume.assignment import Assignment
from model_poller.volume.store import Disk
from tests.unit.poller.doubles import below, model, zipped
from tests.unit.poller.test_planner import records, seen, served, stored
from tests.unit.poller.world import TOLD, World

if TYPE_CHECKING:
    from pathlib import Path

    from model_poller.planner import Observed

TASK = RolloutTask(version=2, key="k", drain=True)


def going_forward(**changes: Any) -> Observed:
    """Told to serve 2, which is there, while 1 answers."""
    return seen(
        **{
            "disk": Disk(records(1, proven=True), records(2), {}),
            "found": {1: stored(1), 2: stored(2)},
            "assignment": Assignment(2, (2,), rollout=TASK),
            **changes,
        }
    )


def figures(count: int) -> Figures:
    return Figures(good=count)


def test_a_pod_is_out_from_when_it_has_the_version_until_that_answers() -> None:
    assert drain.after(None, going_forward(), 2, None) == Drain(2, since=100.0)
    published = Disk(records(1, 2), {}, {})
    loading = going_forward(disk=published, served=(served(2, "LOADING"), served(1)), now=120.0)
    assert drain.after(Drain(2, since=100.0), loading, 2, None) == Drain(2, since=100.0)
    answers = replace(loading, served=(served(2), served(1)))
    assert drain.after(Drain(2, since=100.0), answers, 2, None) is None


@pytest.mark.parametrize(
    ("changes", "target"),
    [
        ({"assignment": Assignment(2, (2,))}, 2),
        ({"assignment": Assignment(2, (2,), rollout=RolloutTask(version=2, live=True))}, 2),
        ({"disk": Disk(records(1), {}, {})}, 2),
        ({"served": None}, 2),
        ({"served": ()}, 2),
        ({}, 1),
        ({"served": (served(3), served(1))}, 2),
        ({}, None),
        ({"assignment": Assignment(2, (2,), frozenset({(2, "f")}), rollout=TASK)}, 2),
    ],
    ids=[
        "no rollout",
        "not asked for",
        "not fetched yet",
        "no server",
        "nothing answers",
        "called off",
        "back to a lower one",
        "nothing told",
        "failed elsewhere",
    ],
)
def test_a_pod_is_not_out(changes: dict[str, Any], target: int | None) -> None:
    assert drain.after(Drain(2, since=90.0), going_forward(**changes), target, None) is None


def test_another_target_is_another_change() -> None:
    there = going_forward(disk=Disk(records(1), records(2, 3), {}))
    assert drain.after(Drain(2, since=90.0), there, 3, None) == Drain(3, since=100.0)


class TestTheVersionIsHeldBack:
    plan = (Publish(2), Retire(7))

    def held(self, out: Drain | None, now: float) -> bool:
        actions = drain.hold(out, going_forward(now=now), self.plan)
        assert Retire(7) in actions
        return Publish(2) not in actions

    def test_until_no_requests_come(self) -> None:
        out: Drain | None = Drain(2, since=100.0)
        for now, count in ((101, 10), (102, 12), (109, 13), (110, 13)):
            out = drain.after(out, going_forward(now=now), 2, Scrape(float(now), figures(count)))
        assert self.held(out, 100.0 + LEAST_SECONDS)
        out = drain.after(
            out, going_forward(now=112.0), 2, Scrape(109.0 + QUIET_SECONDS, figures(13))
        )
        assert not self.held(out, 112.0)

    def test_for_some_seconds_however_quiet_it_is(self) -> None:
        out: Drain | None = Drain(2, since=100.0)
        for now in (101, 104):
            out = drain.after(out, going_forward(now=now), 2, Scrape(float(now), figures(10)))
        assert self.held(out, 99.9 + LEAST_SECONDS)
        assert not self.held(out, 100.0 + LEAST_SECONDS)

    def test_no_longer_than_connections_last(self) -> None:
        for count in (None, 5):
            out = Drain(2, since=100.0, counted=count, heard=126.0, moved=126.0)
            assert self.held(out, 99.9 + MOST_SECONDS)
            assert not self.held(out, 100.0 + MOST_SECONDS)

    def test_but_not_what_answers(self) -> None:
        what = going_forward(served=(served(2), served(1)))
        assert Publish(2) in drain.hold(Drain(3, since=100.0), what, self.plan)
        assert not self.held(None, 100.0)

    def test_figures_from_before_count_for_nothing(self) -> None:
        scrape = Scrape(99.0, figures(10))
        assert drain.after(None, going_forward(), 2, scrape) == Drain(2, since=100.0)


@pytest.fixture
def pod(tmp_path: Path) -> World:
    """It serves 1 and has fetched 2."""
    world = World(tmp_path, TOLD)
    for version in (1, 2):
        world.source.put(f"{version}.zip", zipped(below(str(version), model(b"%d" % version))))
    world.tell(1)
    world.settle(turns=4)
    world.ask(TASK)
    world.settle(turns=2)
    assert not world.status().draining
    assert world.wanted is None
    return world


def tell(pod: World, target: int) -> None:
    pod.assignment = Assignment(target, (target,), rollout=TASK)
    pod.poller.on_assignment(pod.assignment)


def test_a_change_goes_on_when_the_pod_is_out_and_ends_with_its_return(pod: World) -> None:
    tell(pod, 2)
    pod.step()
    assert pod.status().draining
    assert pod.poller.is_draining()
    assert pod.wanted == ((None, 2), drain.LOOK_SECONDS)
    pod.settle(turns=4)
    assert pod.base().keys() == {"1"}
    pod.server.slow = {2}
    pod.settle(turns=14)
    assert pod.base().keys() == {"1", "2"}
    assert pod.status().draining
    assert pod.wanted is None
    pod.server.states[2] = ("AVAILABLE", "")
    pod.settle(turns=2)
    assert not pod.status().draining
    assert pod.base().keys() == {"2"}


def test_a_poller_that_is_started_anew_goes_on(pod: World) -> None:
    pod.server.slow = {2}
    tell(pod, 2)
    pod.settle(turns=16)
    pod.start()
    assert not pod.poller.is_draining()
    pod.step()
    assert pod.status().draining
    pod.server.states[2] = ("AVAILABLE", "")
    pod.settle(turns=2)
    assert not pod.status().draining


def test_a_change_that_is_called_off_brings_the_pod_back(pod: World) -> None:
    tell(pod, 2)
    pod.settle(turns=2)
    tell(pod, 1)
    pod.step()
    assert not pod.status().draining
    assert pod.base().keys() == {"1"}


def test_what_can_not_be_loaded_brings_the_pod_back(pod: World) -> None:
    pod.server.bad = {2}
    tell(pod, 2)
    pod.settle(turns=16)
    assert pod.status().active_version == 1
    assert not pod.status().draining


def test_a_load_without_an_end_keeps_no_pod_out_for_ever(pod: World) -> None:
    pod.server.slow = {2}
    tell(pod, 2)
    pod.settle(turns=16)
    pod.clock.now += LIMIT_SECONDS
    pod.settle(turns=2)
    assert not pod.status().draining
    assert pod.status().active_version == 1


def test_a_new_pod_and_one_that_goes_back_are_not_out(tmp_path: Path, pod: World) -> None:
    new = World(tmp_path / "new", TOLD)
    new.source.put("2.zip", zipped(below("2", model(b"2"))))
    tell(new, 2)
    for _ in range(4):
        new.turn()
        assert not new.status().draining
    assert new.status().active_version == 2
    tell(pod, 2)
    pod.settle(turns=20)
    assert pod.status().active_version == 2
    tell(pod, 1)
    pod.step()
    assert pod.base().keys() == {"1"}
    assert not pod.status().draining


def test_both_are_counted_at_once(pod: World) -> None:
    task = RolloutTask(version=2, key="k", drain=True, live=True)
    pod.poller.on_assignment(Assignment(2, (2,), rollout=task))
    pod.step()
    assert pod.wanted == ((Asked("k", 1), 2), drain.LOOK_SECONDS)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_whatever_is_told_and_whatever_fails_no_pod_stays_out(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Nobody has to come and say that it may return: not the operator, not this process."""
    world = World(tmp_path_factory.mktemp("world"), TOLD)
    for version in (1, 2, 3):
        world.source.put(f"{version}.zip", zipped(below(str(version), model(b"%d" % version))))
    tell(world, 1)
    world.settle(turns=4)
    some = st.sets(st.integers(1, 3), max_size=2)
    for _ in range(data.draw(st.integers(1, 12), label="events")):
        match data.draw(st.sampled_from(["tell", "turn", "wait", "bad", "slow", "kill", "dies"])):
            case "tell":
                tell(world, data.draw(st.integers(1, 3), label="target"))
            case "turn":
                world.turn()
            case "wait":
                world.settle(turns=data.draw(st.integers(1, 20), label="turns"))
            case "bad":
                world.server.bad = data.draw(some, label="bad")
            case "slow":
                world.server.slow = data.draw(some, label="slow")
            case "kill":
                world.start()
            case "dies":
                world.server.restart()
        if world.status().draining:
            assert world.status().active_version is not None
    # The operator is gone; what hangs, hangs.
    world.settle(turns=4, seconds=LIMIT_SECONDS / 2)
    world.settle(turns=4, seconds=LIMIT_SECONDS / 2)
    assert not world.status().draining
    assert world.base()
