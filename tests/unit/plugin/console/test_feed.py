"""All models as they are now, by a list and a watch."""

from __future__ import annotations

import asyncio
import queue
import threading
from typing import TYPE_CHECKING, Any, cast

import msgspec
import pytest

from kubectl_inferencemodel import following
from kubectl_inferencemodel.console import feed as feeding
from kubectl_inferencemodel.console.feed import Feed
from kubectl_inferencemodel.console.fleet import Level
from kubectl_inferencemodel.errors import ForbiddenError, GoneError, UnavailableError
from kubectl_inferencemodel.resource import InferenceModel, WatchEvent
from tests.support.waiting import eventually
from tests.unit.plugin.api import resource
from tests.unit.plugin.views import rollout

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kubectl_inferencemodel.cluster import Cluster

Object = dict[str, Any]


class Server:
    """An API server's lists and watches, as a test has them."""

    def __init__(self, *objects: Object) -> None:
        self.objects = list(objects)
        self.told: queue.Queue[Object | Exception] = queue.Queue()
        self.lists = 0
        self.failures: list[Exception] = []
        self.namespace = "vision"
        self.listed: list[str] = []
        self._ended = threading.Event()

    def within(self, namespace: str) -> Server:
        self.listed.append(namespace)
        return self

    def pages(
        self, *, everywhere: bool, selector: str = ""
    ) -> Iterator[tuple[list[InferenceModel], str]]:
        if everywhere:
            self.listed.append("")
        if self.failures:
            raise self.failures.pop(0)
        self.lists += 1
        yield [msgspec.convert(found, InferenceModel) for found in self.objects], "1"

    def changes(self, since: str, *, everywhere: bool, selector: str = "") -> Iterator[WatchEvent]:
        while True:
            told = self.told.get()
            if isinstance(told, Exception):
                raise told
            yield msgspec.convert(told, WatchEvent)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "FIRST_PAUSE", 0.01)


def fed(server: Server, *namespaces: str) -> Feed:
    feed = Feed(cast("Cluster", server), namespaces)
    feed.start()
    assert feed.wait(10)
    return feed


def event(kind: str, name: str = "imagenet", **status: Any) -> Object:
    return {"type": kind, "object": resource(name, **status)}


def names(feed: Feed) -> list[str]:
    return [row.name for row in feed.rows]


def test_what_is_listed_is_there_and_what_is_told_changes_it() -> None:
    server = Server(resource("a"), resource("b"))
    feed = fed(server)
    assert names(feed) == ["a", "b"]
    server.told.put(event("ADDED", "c"))
    server.told.put(event("DELETED", "a"))
    eventually(lambda: names(feed) == ["b", "c"], what="both changes")
    server.told.put(event("MODIFIED", "c", conditions=[]))
    eventually(lambda: names(feed) == ["c", "b"], what="the change")
    assert feed.rows[0].level is Level.UNKNOWN


def test_a_watch_that_is_too_old_or_breaks_off_begins_with_a_list() -> None:
    server = Server(resource("a"))
    feed = fed(server)
    server.objects = [resource("b")]
    server.told.put(GoneError("too old"))
    eventually(lambda: names(feed) == ["b"], what="the new list")
    server.objects = [resource("c")]
    server.told.put(UnavailableError("broken"))
    eventually(lambda: names(feed) == ["c"], what="the new list")


def test_a_server_that_can_not_be_asked_is_told_and_tried_again() -> None:
    server = Server(resource("a"))
    server.failures = [UnavailableError("connection refused")]
    feed = fed(server)
    eventually(lambda: names(feed) == ["a"], what="the list")
    eventually(lambda: not feed.problems, what="the end of the problem")


def test_who_waits_for_the_first_list_is_let_go_when_the_console_ends() -> None:
    feed = Feed(cast("Cluster", Server()))
    feed.end()
    assert feed.wait(0)
    assert list(feed.problems.values()) == ["the console has ended before the models were listed"]


def test_who_may_not_list_all_sees_the_namespace_of_the_context() -> None:
    server = Server(resource("a"))
    server.failures = [ForbiddenError("no")]
    feed = fed(server)
    assert server.listed == ["", "vision"]
    assert "only namespace vision" in feed.note


def test_named_namespaces_are_the_only_ones_that_are_listed() -> None:
    server = Server(resource("a"))
    fed(server, "vision", "speech")
    assert sorted(server.listed) == ["speech", "vision"]


def test_an_object_that_is_not_understood_hides_no_other() -> None:
    server = Server(resource("a"))
    feed = fed(server)
    server.told.put({"type": "MODIFIED", "object": {"metadata": 7}})
    server.told.put(event("ADDED", "b"))
    eventually(lambda: names(feed) == ["a", "b"], what="the other one")


def test_so_many_models_are_kept_and_others_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeding, "LIMIT", 3)
    feed = fed(Server(*(resource(f"m{n}") for n in range(5))))
    assert (len(feed.rows), feed.left_out) == (3, 2)


def test_a_page_catches_up_with_what_it_missed_or_loads_again() -> None:
    server = Server(resource("a"), resource("b"))
    feed = fed(server)
    then = feed.revision
    assert feed.since(then) == set()
    server.told.put(event("MODIFIED", "a", conditions=[]))
    eventually(lambda: feed.revision > then, what="the change")
    assert feed.since(then) == {("vision", "a")}
    assert feed.since(-1) is None
    assert feed.since(then + 1000) is None


def test_steps_of_a_rollout_are_remembered_as_they_begin() -> None:
    server = Server(resource("a"))
    feed = fed(server)
    times = ("2026-01-01T14:31:00Z", "2026-01-01T14:35:00Z")
    for step, time in enumerate(times, 1):
        of = {"rollout": rollout("Progressing", step=step, stepStartedTime=time)}
        for _ in range(2):
            server.told.put(event("MODIFIED", "a", model=of))
    key = ("vision", "a")
    eventually(lambda: len(feed.trail(key)) == 2, what="both steps")
    assert [passed.step for passed in feed.trail(key)] == [1, 2]
    server.told.put(event("DELETED", "a"))
    eventually(lambda: feed.trail(key) == (), what="its end")


async def test_changes_that_come_together_are_told_together() -> None:
    server = Server(resource("a"), resource("b"))
    feed = await asyncio.to_thread(fed, server)
    with feed.subscribed() as everything, feed.subscribed(("vision", "b")) as one:
        for _ in range(3):
            server.told.put(event("MODIFIED", "a", conditions=[]))
            server.told.put(event("MODIFIED", "a"))
        server.told.put(event("MODIFIED", "b", conditions=[]))
        assert await one.changed(10) == {("vision", "b")}
        assert await everything.changed(10) == {("vision", "a"), ("vision", "b")}
        # What a row doesn't show is told to the model's own page alone.
        server.told.put(event("MODIFIED", "b", conditions=[], url="http://elsewhere"))
        assert await one.changed(10) == {("vision", "b")}
        assert await everything.changed(0.05) == set()
