"""Events: one for what is new, a count for what happens again, and few for what flaps."""

from __future__ import annotations

from typing import Any

import pytest

from inferencemodel_operator import recorder
from inferencemodel_operator.cluster import EVENTS, Cluster, Resource
from inferencemodel_operator.errors import RefusedError
from inferencemodel_operator.events import Change
from inferencemodel_operator.observe import objects
from inferencemodel_operator.recorder import BURST, Recorder

UP, DOWN = Change("VersionActivated", "version 2"), Change("VersionActivated", "version 1")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Server(Cluster):
    """Keeps Events as an API server does."""

    def __init__(self) -> None:
        self.events: dict[str, dict[str, Any]] = {}
        self.writes = 0
        self.problem: Exception | None = None

    async def create(self, resource: Resource, wanted: Any) -> Any:
        assert resource is EVENTS
        self.writes += 1
        if self.problem:
            raise self.problem
        self.events[wanted["metadata"]["name"]] = wanted
        return wanted

    async def merge(self, resource: Resource, namespace: str, name: str, patch: Any) -> Any:
        assert (resource, namespace) == (EVENTS, "vision")
        self.writes += 1
        if self.problem:
            raise self.problem
        if name not in self.events:
            return None
        self.events[name] |= patch
        return self.events[name]

    def counts(self) -> dict[str, int]:
        return {e["note"]: e.get("series", {"count": 1})["count"] for e in self.events.values()}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(recorder, "time", made)
    return made


def model(name: str = "m") -> objects.Model:
    meta = {"name": name, "namespace": "vision", "uid": f"uid-{name}", "resourceVersion": "1"}
    return objects.model({"metadata": meta, "spec": {"model": {"storageUri": "gs://b/m"}}})


async def test_what_happens_again_is_counted_in_the_event_that_there_is(clock: Clock) -> None:
    server = Server()
    events = Recorder(server)
    for _ in range(100):
        await events.record(model(), UP)
        await events.record(model(), DOWN)
        clock.now += 0.2
    assert server.writes == 4, "each once, and the first repetition of each"
    assert server.counts() == {"version 1": 2, "version 2": 2}
    clock.now += recorder.UPDATE_SECONDS
    await events.flush()
    assert server.counts() == {"version 1": 100, "version 2": 100}
    assert all(
        event["series"]["lastObservedTime"].endswith("Z") for event in server.events.values()
    )


async def test_what_happens_again_much_later_is_another_event(clock: Clock) -> None:
    server = Server()
    events = Recorder(server)
    await events.record(model(), UP)
    clock.now += recorder.SERIES_SECONDS
    await events.record(model(), UP)
    assert len(server.events) == 2


async def test_a_series_ends_with_its_whole_count_and_is_forgotten(clock: Clock) -> None:
    server = Server()
    events = Recorder(server)
    for _ in range(5):
        await events.record(model(), UP)
    clock.now += recorder.SERIES_SECONDS
    await events.flush()
    assert server.counts() == {"version 2": 5}
    clock.now += BURST * recorder.REFILL_SECONDS
    await events.flush()
    assert events._streams == {}


async def test_an_object_gets_so_many_new_events_and_others_get_theirs(clock: Clock) -> None:
    server = Server()
    events = Recorder(server)
    for number in range(1000):
        await events.record(model(), Change("LoadFailed", f"attempt {number}", warning=True))
    assert len(server.events) == BURST
    await events.record(model("other"), UP)
    assert len(server.events) == BURST + 1
    clock.now += recorder.REFILL_SECONDS
    await events.record(model(), UP)
    assert len(server.events) == BURST + 2


async def test_an_event_that_is_gone_is_written_anew(clock: Clock) -> None:
    server = Server()
    events = Recorder(server)
    await events.record(model(), UP)
    server.events.clear()
    await events.record(model(), UP)
    await events.record(model(), UP)
    assert server.counts() == {"version 2": 1}


async def test_a_refused_event_is_told_and_no_failure(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server()
    events = Recorder(server)
    server.problem = RefusedError("Event", "m", "no", "fix it")
    await events.record(model(), UP)
    assert "no Event: " in caplog.text
    server.problem = None
    await events.record(model(), UP)
    server.problem = RefusedError("Event", "m", "no", "fix it")
    await events.record(model(), UP)
    assert "an Event was not updated: " in caplog.text


async def test_a_missing_right_to_write_events_is_not_said_of_each(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server()
    lacking = 'events.events.k8s.io is forbidden: User "u" cannot create resource "events"'
    server.problem = RefusedError("Event", "vision/m", lacking, "give the right")
    await Recorder(server).record(model(), UP)
    assert server.writes == 1
    assert caplog.text == ""
