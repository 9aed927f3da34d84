"""The manager and its policy, step by step and without TensorFlow."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from development_model_server.errors import Code, ServingError
from development_model_server.manager import Manager, ManagerOptions
from development_model_server.monitor import EventBus, StateMonitor
from development_model_server.servable import ServableId, ServableRequest, ServableState, State
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass
class Servable:
    id: ServableId
    closed: bool = False

    def close(self) -> None:
        self.closed = True


@dataclass
class FakeLoader:
    broken: set[int] = field(default_factory=set)
    attempts: list[int] = field(default_factory=list)
    gate: threading.Event | None = None
    loaded: dict[int, Servable] = field(default_factory=dict)

    def probe(self, path: str) -> None:
        if path.endswith("unreadable"):
            raise ServingError(Code.FAILED_PRECONDITION, f"{path}; Not a directory")

    def load(self, servable: ServableId, path: str) -> Servable:
        self.attempts.append(servable.version)
        if self.gate is not None:
            assert self.gate.wait(30)
        if servable.version in self.broken:
            raise ServingError(Code.NOT_FOUND, f"{path} is broken")
        self.loaded[servable.version] = Servable(servable)
        return self.loaded[servable.version]


class World:
    """A manager whose loop is turned by hand."""

    def __init__(self, **options: int) -> None:
        self.loader = FakeLoader()
        self.bus = EventBus()
        self.monitor = StateMonitor(self.bus)
        self.events: list[tuple[int, State]] = []
        self.bus.subscribe(self._note)
        options = {"max_num_load_retries": 0, "load_retry_interval_micros": -1, **options}
        self.manager = Manager(self.loader, self.bus, ManagerOptions(**options))

    def _note(self, state: ServableState) -> None:
        self.events.append((state.id.version, state.state))

    def aspire(self, *versions: int, model: str = "m") -> None:
        self.manager.aspire(model, [(ServableId(model, v), f"/{model}/{v}") for v in versions])

    def steps(self, count: int = 10) -> None:
        for _ in range(count):
            self.manager.step()

    def states(self, model: str = "m") -> dict[int, State]:
        return {state.id.version: state.state for state in self.monitor.versions(model)}

    def latest(self, model: str = "m") -> int:
        with self.manager.lend(ServableRequest(model)) as (servable, _):
            return servable.version


def test_a_version_goes_through_its_states_in_order() -> None:
    world = World()
    world.aspire(1)
    world.steps()
    world.aspire()
    world.steps()
    assert world.events == [(1, state) for state in State]
    assert world.loader.loaded[1].closed


def test_the_old_version_leaves_after_the_new_one_is_available() -> None:
    world = World()
    world.aspire(1)
    world.steps()
    world.events.clear()
    world.aspire(2)
    world.steps()
    assert world.events == [
        (2, State.START),
        (2, State.LOADING),
        (2, State.AVAILABLE),
        (1, State.UNLOADING),
        (1, State.END),
    ]
    assert world.latest() == 2
    assert [state.id.version for state in world.monitor.versions("m")] == [2, 1]


def test_one_step_takes_one_action_and_unloads_first() -> None:
    world = World()
    world.aspire(1, model="a")
    world.aspire(1, 2, model="b")
    world.manager.step()
    assert world.states("a") == {1: State.AVAILABLE}
    assert world.states("b") == {1: State.START, 2: State.START}
    world.aspire(model="a")
    world.manager.step()
    assert world.states("a") == {1: State.END}
    world.manager.step()
    assert world.states("b") == {1: State.START, 2: State.AVAILABLE}


def test_a_failed_version_keeps_the_old_one_and_is_not_tried_again() -> None:
    world = World(max_num_load_retries=2)
    world.loader.broken = {2}
    world.aspire(1)
    world.steps()
    world.aspire(2)
    world.steps()
    assert world.states() == {1: State.AVAILABLE, 2: State.END}
    error = world.monitor.version(ServableId("m", 2))
    assert error is not None
    assert error.error is not None
    assert error.error.text == "NOT_FOUND: /m/2 is broken"
    assert world.loader.attempts == [1, 2, 2, 2]
    world.aspire(2)
    world.steps()
    assert world.loader.attempts == [1, 2, 2, 2]
    assert world.latest() == 1


def test_a_failed_number_is_burnt_while_an_older_version_serves() -> None:
    world = World()
    world.loader.broken = {2}
    world.aspire(1)
    world.steps()
    world.aspire(2)
    world.steps()
    world.loader.broken = set()
    world.aspire(1)  # the folder of 2 is gone: 1 is wanted again
    world.steps()
    world.aspire(2)  # and back, repaired
    world.steps()
    assert world.states() == {1: State.AVAILABLE, 2: State.END}
    assert world.loader.attempts == [1, 2]
    world.aspire(3)
    world.steps()
    assert world.states() == {1: State.END, 2: State.END, 3: State.AVAILABLE}


def test_a_failed_number_is_tried_again_where_no_older_version_serves() -> None:
    world = World()
    world.loader.broken = {2}
    world.aspire(2)
    world.steps()
    world.loader.broken = set()
    world.aspire()
    world.steps()
    world.aspire(2)
    world.steps()
    assert world.states() == {2: State.AVAILABLE}


def test_with_two_latest_versions_a_failed_number_can_be_repaired() -> None:
    world = World()
    world.loader.broken = {2}
    world.aspire(1, 2)
    world.steps()
    assert world.states() == {1: State.AVAILABLE, 2: State.END}
    world.loader.broken = set()
    world.aspire(1)
    world.steps()
    world.aspire(1, 2)
    world.steps()
    assert world.states() == {1: State.AVAILABLE, 2: State.AVAILABLE}


def test_rolling_back_loads_the_older_version_before_the_newer_one_leaves() -> None:
    world = World()
    world.aspire(2)
    world.steps()
    world.events.clear()
    world.aspire(1)
    world.steps()
    assert [event for event in world.events if event[1] in (State.AVAILABLE, State.UNLOADING)] == [
        (1, State.AVAILABLE),
        (2, State.UNLOADING),
    ]


def test_what_cannot_be_read_fails_before_it_loads() -> None:
    world = World()
    world.manager.aspire("m", [(ServableId("m", 5), "/m/unreadable")])
    world.steps()
    assert world.events == [(5, State.START), (5, State.END)]
    state = world.monitor.version(ServableId("m", 5))
    assert state is not None
    assert state.error is not None
    assert state.error.text == (
        "FAILED_PRECONDITION: Error while attempting to reserve resources to load servable {name: m"
        " version: 5}: /m/unreadable; Not a directory"
    )


def test_a_version_is_unloaded_only_after_the_requests_that_hold_it() -> None:
    world = World(num_unload_threads=1)
    world.aspire(1)
    world.steps()
    with world.manager.lend(ServableRequest("m", 1)) as (_, servable):
        world.aspire(2)
        world.steps()
        eventually(lambda: world.states()[1] is State.UNLOADING, what="1 to be unloading")
        assert world.latest() == 2
        with pytest.raises(ServingError, match=r"Servable not found for request: Specific\(m, 1\)"):
            world.manager.lend(ServableRequest("m", 1)).__enter__()
        assert not servable.closed
    eventually(lambda: world.states()[1] is State.END, what="1 to be unloaded")
    assert servable.closed


def test_a_load_that_is_not_wanted_any_more_ends_cancelled() -> None:
    world = World(num_load_threads=2)
    world.loader.gate = threading.Event()
    world.aspire(1)
    world.steps()
    eventually(lambda: world.loader.attempts == [1], what="the load to begin")
    world.aspire(2)
    world.steps(2)
    world.loader.gate.set()
    eventually(lambda: world.states()[1] is State.END, what="1 to end")
    state = world.monitor.version(ServableId("m", 1))
    assert state is not None
    assert state.error is not None
    assert state.error.text == "CANCELLED: Loading of servable cancelled"
    assert world.loader.loaded[1].closed
    eventually(lambda: world.states()[2] is State.AVAILABLE, what="2 to load")


def test_a_newer_version_ends_the_retries_of_a_broken_one() -> None:
    world = World(num_load_threads=2, max_num_load_retries=1_000_000)
    world.loader.broken = {1}
    world.aspire(1)
    world.steps(1)
    eventually(lambda: len(world.loader.attempts) > 3, what="retries")
    world.aspire(2)
    world.steps(2)
    eventually(lambda: world.states() == {1: State.END, 2: State.AVAILABLE}, what="2 alone")


def numbers(states: Iterable[ServableState]) -> list[int]:
    return [state.id.version for state in states]


def test_waiting_ends_with_the_highest_version_that_settled() -> None:
    world = World()
    world.loader.broken = {2}
    world.aspire(1, 2)
    world.steps()
    settled = world.monitor.wait_until_settled({"m"})
    assert numbers(settled.values()) == [2]
