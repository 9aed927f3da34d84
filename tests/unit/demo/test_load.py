"""The load generator counts what really happened."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from demo.load import Exchange, Load, LoadError, RequestError, Traffic, rest
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager


def _client(
    send: Callable[[], Awaitable[str]],
) -> Callable[[], AbstractAsyncContextManager[Callable[[], Awaitable[str]]]]:
    @asynccontextmanager
    async def client() -> AsyncIterator[Callable[[], Awaitable[str]]]:
        yield send

    return client


async def test_every_request_is_either_answered_or_failed() -> None:
    count, stop = 0, asyncio.Event()

    async def send() -> str:
        nonlocal count
        count += 1
        if count >= 30:
            stop.set()
        if count % 3 == 0:
            raise RequestError("refused")
        return f"version {count % 2}"

    load = Load("test", _client(send), 200)
    await asyncio.wait_for(load.run(stop), 30)

    assert load.sent == count == load.answers.total() + len(load.failures)
    assert {failure.reason for failure in load.failures} == {"refused"}
    assert len(load.failures) == count // 3


async def test_slow_answers_hold_no_request_back() -> None:
    count, stop = 0, asyncio.Event()

    async def send() -> str:
        nonlocal count
        count += 1
        if count >= 20:
            assert not load.answers
            stop.set()
        await stop.wait()
        return "late"

    load = Load("test", _client(send), 200)
    await asyncio.wait_for(load.run(stop), 30)

    assert load.answers["late"] == load.sent >= 20


async def test_a_load_ends_by_itself_and_tells_how_long_a_failed_request_waited() -> None:
    async def send() -> str:
        await asyncio.sleep(0.05)
        raise RequestError("refused")

    load = Load("test", _client(send), 200, longest=0.1)
    await asyncio.wait_for(load.run(asyncio.Event()), 30)

    assert load.failures
    assert all(failure.waited >= 0.05 for failure in load.failures)


def test_a_rate_without_bound_is_refused() -> None:
    with pytest.raises(ValueError, match="100000"):
        Load("test", _client(lambda: asyncio.sleep(0, "")), 100_000)


async def test_a_dropped_connection_is_a_failure_and_not_repeated() -> None:
    seen, stop = 0, asyncio.Event()

    async def handle(request: web.Request) -> web.Response:
        nonlocal seen
        seen += 1
        if seen >= 20:
            stop.set()
        await request.read()
        if seen % 5 == 0:
            assert request.transport
            request.transport.abort()
        return web.Response(body=b"version 1")

    app = web.Application()
    app.router.add_post("/", handle)
    async with TestServer(app) as server:
        load = Load("test", rest(str(server.make_url("/")), [Exchange(b"{}", bytes.decode)]), 100)
        await asyncio.wait_for(load.run(stop), 30)

    assert seen == load.sent
    assert len(load.failures) == load.sent // 5
    assert load.answers["version 1"] == load.sent - len(load.failures)


async def test_a_refusal_and_a_wrong_answer_are_failures_that_tell_why() -> None:
    answers = iter([web.Response(status=503, body=b"queue full"), web.Response(body=b"\xff")])

    async def handle(_: web.Request) -> web.Response:
        return next(answers)

    app = web.Application()
    app.router.add_post("/", handle)
    async with (
        TestServer(app) as server,
        rest(str(server.make_url("/")), [Exchange(b"{}", bytes.decode)])() as send,
    ):
        with pytest.raises(RequestError, match="HTTP 503: b'queue full'"):
            await send()
        with pytest.raises(RequestError, match="unexpected answer"):
            await send()


def test_traffic_runs_beside_its_block_and_ends_with_it() -> None:
    async def send() -> str:
        return "version 1"

    load = Load("test", _client(send), 100)
    with Traffic(load) as traffic:
        eventually(lambda: traffic.sent > 5, what="some requests", within=10, every=0.01)

    assert traffic.failures == ()
    assert traffic.sent == load.answers["version 1"]


def test_a_client_that_can_not_start_is_an_error_of_the_block() -> None:
    @asynccontextmanager
    async def client() -> AsyncIterator[Callable[[], Awaitable[str]]]:
        raise ConnectionRefusedError("nobody there")
        yield

    with (
        pytest.raises(LoadError, match="nobody there"),
        Traffic(Load("test", client, 10)) as traffic,
    ):
        eventually(lambda: not traffic.running, what="its end", within=10, every=0.01)


def test_traffic_that_ends_before_its_block_is_an_error_of_that() -> None:
    async def send() -> str:
        return "version 1"

    load = Load("test", _client(send), 100, longest=0.1)
    with pytest.raises(LoadError, match="it was to end after"), Traffic(load) as traffic:
        eventually(lambda: not traffic.running, what="its end", within=10, every=0.01)
