"""Watches go on, whatever answers in place of the API server."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from inferencemodel_operator.cache import Cache
from inferencemodel_operator.cluster import PODS, Cluster
from inferencemodel_operator.errors import NoRightError
from inferencemodel_operator.observe import informer
from inferencemodel_operator.observe.informer import Informer
from inferencemodel_operator.observe.signs import Signs

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable

    import pytest


class Ending(Cluster):
    """An API server, or what stands before it, that accepts each watch and ends it at once."""

    def __init__(self) -> None:
        self.watches = 0

    async def list(self, *_: Any, **__: Any) -> AsyncIterator[Any]:
        yield {"metadata": {"resourceVersion": "1"}}

    async def is_before(self, *_: Any) -> bool:
        return False

    async def watch(self, *arguments: Any) -> AsyncGenerator[tuple[str, Any], None]:
        self.watches += 1
        accepted: Callable[[], object] = arguments[-1]
        accepted()
        await asyncio.sleep(0)
        for event in list[tuple[str, Any]]():
            yield event


async def test_a_watch_that_ends_at_once_is_not_begun_anew_without_a_pause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(informer, "FIRST_BACKOFF", 0.05)
    server = Ending()
    watching = Informer(
        server, Cache(), PODS, None, Signs(), seen=lambda *_: None, gone=lambda _: None
    )
    with suppress(TimeoutError):
        async with asyncio.timeout(0.5):
            await watching.run()
    assert 2 <= server.watches <= 10


class Giving(Cluster):
    """An API server on which the right to list is given first, and then that to watch."""

    def __init__(self) -> None:
        self.lists = self.watches = 0
        self.heard = asyncio.Event()

    async def list(self, *_: Any, **__: Any) -> AsyncIterator[Any]:
        self.lists += 1
        if self.lists <= 4:
            raise NoRightError("list Pod: you may not")
        yield {"metadata": {"resourceVersion": "1"}}

    async def is_before(self, *_: Any) -> bool:
        return False

    async def watch(self, *arguments: Any) -> AsyncGenerator[tuple[str, Any], None]:
        self.watches += 1
        if self.watches <= 4:
            raise NoRightError("watch Pod: you may not")
        arguments[-1]()
        yield "BOOKMARK", {"metadata": {"resourceVersion": "2"}}
        self.heard.set()
        await asyncio.Event().wait()


async def test_each_right_that_is_missing_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever gives one would take the silence about the next for its working."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(informer, "FIRST_BACKOFF", 0.005)
    monkeypatch.setattr(informer, "LONGEST_BACKOFF", 0.01)
    server = Giving()
    watching = Informer(
        server, Cache(), PODS, None, Signs(), seen=lambda *_: None, gone=lambda _: None
    )
    running = asyncio.create_task(watching.run())
    async with asyncio.timeout(20):
        await server.heard.wait()
    running.cancel()
    assert [line for line in caplog.messages if line.startswith("waiting: ")] == [
        "waiting: watching pods in all namespaces: list Pod: you may not",
        "waiting: watching pods in all namespaces: watch Pod: you may not",
    ]
    assert ": watching pods in all namespaces is back" in caplog.messages[-1]
