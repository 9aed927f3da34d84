"""Back to a lower number: with one look of the model server, and never without an answer."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model_poller.actions import Publish, Quarantine, Retire
from model_poller.books import Publication
from model_poller.handover import DEAF_SECONDS
from model_poller.planner import Policy, plan
from model_poller.status import VersionState
from model_poller.volume.assignment import Assignment
from model_poller.volume.store import Disk, Record
from tests.unit.poller.doubles import below, model, zipped
from tests.unit.poller.test_planner import ALONE, records, seen, served, stored
from tests.unit.poller.world import TOLD, World, killed_at

if TYPE_CHECKING:
    from pathlib import Path


def archive(version: int) -> bytes:
    return zipped(below(f"{version}", model(b"%d" % version)))


def going_back(**changes: Any) -> Any:
    """Told to serve 1 again, which lies in the base path beside 2, that answers."""
    return seen(
        **{
            "disk": Disk({1: Record(1, "f", proven=True), 2: Record(2, "f", proven=True)}, {}, {}),
            "found": {1: stored(1), 2: stored(2)},
            "served": (served(2), served(1, "END")),
            "publications": {
                1: Publication(99.0, end_is_stale=True),
                2: Publication(0.0, end_is_stale=False, served=True),
            },
            **changes,
        }
    )


class TestWhatAnswersLeavesEarly:
    def test_for_a_lower_one_that_has_served_here(self) -> None:
        assert plan(going_back(), TOLD) == [Retire(2)]
        assert plan(going_back(served=(served(2), served(1, "LOADING"))), TOLD) == [Retire(2)]

    @pytest.mark.parametrize(
        "changes",
        [
            {"disk": Disk(records(1, 2), {}, {})},
            {"served": None},
            {"served": (served(2, "LOADING"),)},
            {"told": 2, "served": (served(1),)},
            {"assignment": Assignment(1, (1, 0)), "disk": Disk(records(0, 1, 2), {}, {})},
            {
                "disk": Disk(records(1, 2, 3, proven=True), {}, {}),
                "served": (served(3), served(2)),
            },
        ],
        ids=[
            "never served here",
            "no word of the server",
            "nothing answers",
            "forwards",
            "others are to be served beside it",
            "two answer",
        ],
    )
    def test_for_nothing_else(self, changes: dict[str, Any]) -> None:
        assert plan(going_back(**changes), TOLD) == []

    def test_only_once_the_other_one_lies_there(self) -> None:
        disk = Disk(records(2, proven=True), records(1, proven=True), {})
        assert plan(going_back(disk=disk), TOLD) == [Publish(1)]

    def test_when_the_server_takes_in_nothing_beside_it(self) -> None:
        waiting = Publication(50.0, end_is_stale=False, loading=DEAF_SECONDS + 1)
        what = {
            "told": 2,
            "disk": Disk(records(1, 2), {}, {}),
            "served": (served(1),),
            "publications": {1: Publication(0.0, False, served=True), 2: waiting},
        }
        assert plan(going_back(**what), TOLD) == [Retire(1)]
        assert plan(going_back(**what), ALONE) == []
        earlier = {**what, "served": (served(2, "END"), served(1))}
        assert plan(going_back(**earlier), TOLD) == [Retire(1)]
        for word in (served(2, "START"), served(2, "LOADING"), served(2, "END", "bad graph")):
            stale = {2: replace(waiting, end_is_stale=True, since=99.0)}
            heard = {**what, "served": (word, served(1)), "publications": stale}
            assert plan(going_back(**heard), TOLD) == []
        # One that it had still to load, when it was told something else, has come to an end.
        beside = {**what, "served": (served(3), served(1))}
        assert plan(going_back(**beside), TOLD) == [Retire(1)]
        soon = {**what, "publications": {2: replace(waiting, loading=DEAF_SECONDS)}}
        assert plan(going_back(**soon), TOLD) == []


def test_what_answers_goes_back_before_the_last_one_leaves() -> None:
    failed = going_back(
        disk=Disk(records(1, proven=True), records(2, proven=True), {}),
        served=(served(2), served(1, "END", "no memory")),
        publications={1: Publication(99.0, end_is_stale=False)},
    )
    assert plan(failed, TOLD) == [Publish(2)]
    # Also where it was taken back elsewhere: it answers, and nothing else does.
    withheld = replace(failed, assignment=Assignment(1, (1,), frozenset({(2, "f")})))
    assert plan(withheld, TOLD) == [Publish(2)]
    both = replace(failed, disk=Disk(records(1, 2, proven=True), {}, {}))
    (action,) = plan(both, TOLD)
    assert isinstance(action, Quarantine)
    assert action.entry.version == 1


@pytest.fixture
def pod(tmp_path: Path) -> World:
    """It serves 2, has served 1, and knows 3."""
    return at_two(World(tmp_path, Policy(follow_newest=False, retain_versions=3)))


def at_two(world: World) -> World:
    for version in (1, 2):
        world.source.put(f"{version}.zip", archive(version))
        world.tell(version)
        world.settle(turns=4)
    assert world.status().active_version == 2
    return world


def test_a_rollback_takes_one_look_of_the_server(pod: World) -> None:
    pod.tell(1)
    pod.step()
    pod.server.poll()
    assert [s.version for s in pod.server.status() or () if s.state == "AVAILABLE"] == [1]
    assert pod.server.gaps == 0


def test_what_can_not_be_loaded_again_leaves_what_answers_where_it_was(pod: World) -> None:
    pod.server.bad = {1}
    pod.tell(1)
    pod.settle(turns=4)
    assert pod.version(1).state is VersionState.QUARANTINED
    assert pod.status().active_version == 2
    assert pod.base().keys() == {"2"}
    # The server takes in nothing beside what came back to it.
    pod.source.put("3.zip", archive(3))
    pod.tell(3)
    assert pod.settle(turns=20).active_version == 3
    assert pod.base().keys() == {"3"}
    assert pod.server.gaps == 0


def test_what_is_taken_back_elsewhere_in_between_leaves_no_gap(pod: World) -> None:
    pod.server.slow = {1}
    pod.tell(1)
    pod.settle(turns=2)
    assert pod.base().keys() == {"1"}
    pod.tell(2, 2, quarantined=[(1, pod.version(1).fingerprint)])
    assert pod.settle(turns=4).active_version == 2
    assert pod.base().keys() == {"2"}
    assert pod.server.gaps == 0


def test_a_server_that_starts_anew_in_between_begins_with_the_one_before(pod: World) -> None:
    pod.tell(1)
    pod.step()
    pod.server.restart()
    assert pod.settle(turns=2).active_version == 1
    assert pod.base().keys() == {"1"}


def test_a_kill_at_any_change_of_the_disk_harms_no_rollback(tmp_path: Path) -> None:
    for point in range(100):
        world = at_two(World(tmp_path / str(point), TOLD))
        world.tell(1)
        with killed_at(point) as fate:
            world.turn()
            world.turn()
        world.start()
        world.server.poll()
        assert world.settle(turns=4).active_version == 1
        assert world.base().keys() == {"1"}
        assert world.server.gaps == 0, point
        if not fate.dead:
            break
    assert point > 1


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_no_order_of_words_and_failures_leaves_a_gap(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Told anything at any moment, while loads fail or hang, and looks come at any moment."""
    policy = Policy(follow_newest=False, retain_versions=3)
    world = at_two(World(tmp_path_factory.mktemp("world"), policy))
    world.source.put("3.zip", archive(3))
    events = st.sampled_from(["tell", "tell", "step", "poll", "turn", "bad", "slow", "kill"])
    some = st.sets(st.integers(1, 3), max_size=2)
    for _ in range(data.draw(st.integers(1, 20), label="events")):
        match data.draw(events):
            case "tell":
                world.tell(data.draw(st.integers(1, 3), label="target"))
            case "step":
                world.look()
                world.step()
            case "poll":
                world.server.poll()
            case "turn":
                world.turn()
            case "bad":
                world.server.bad = data.draw(some, label="bad")
            case "slow":
                world.server.slow = data.draw(some, label="slow")
            case "kill":
                world.start()
        assert world.server.gaps == 0
        assert world.base()
    world.server.bad, world.server.slow = set(), set()
    # What hung goes on, and what was broken is uploaded anew.
    for number, (state, _) in list(world.server.states.items()):
        if state == "LOADING":
            world.server.states[number] = ("AVAILABLE", "")
    world.source.put("4.zip", archive(4))
    world.tell(4)
    world.settle(turns=25)
    assert world.status().active_version == 4
    assert world.base().keys() == {"4"}
    assert world.server.gaps == 0
