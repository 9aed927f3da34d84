"""The operator's own HTTP: short exchanges, and a probe always gets through."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from inferencemodel_operator import health
from inferencemodel_operator.cluster import PODS
from inferencemodel_operator.metrics import Metrics
from inferencemodel_operator.observe import signs
from inferencemodel_operator.observe.signs import Signs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Feed:
    """As much of it as health looks at."""

    def __init__(self) -> None:
        self.complete = asyncio.Event()


class Served:
    """The interface, and what it looks at."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.signs, self.feed, self.metrics = Signs(), Feed(), Metrics()
        self.refreshed = 0

    def refresh(self) -> None:
        self.refreshed += 1

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Status and body."""
        reader, writer = await self.open()
        writer.write(request)
        async with asyncio.timeout(10):
            answer = await reader.read()
        writer.close()
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split(b" ")[1]) if head else 0, body

    async def get(self, path: str) -> tuple[int, bytes]:
        return await self.ask(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    made = Served(port)
    async with health.serve(port, made.signs, made.feed, made.metrics, made.refresh):  # type: ignore[arg-type]
        yield made


async def test_it_tells_whether_it_lives_is_ready_and_what_it_does(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await served.get("/livez") == (200, b"ok\n")
    assert await served.get("/readyz?verbose") == (503, b"not everything is listed yet\n")
    served.feed.complete.set()
    assert await served.get("/readyz") == (200, b"ok\n")
    status, body = await served.get("/metrics")
    assert status == 200
    assert b"inferencemodel_operator_queue_depth 0.0\n" in body
    assert served.refreshed == 1

    served.signs.expect(PODS)
    monkeypatch.setattr(signs, "DEAD_SECONDS", -1.0)
    assert await served.get("/livez") == (500, b"no sign of life of the watches of ['pods']\n")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /other HTTP/1.1\r\n\r\n", 404),
        (b"GET /\xff\xfe HTTP/1.1\r\n\r\n", 404),
        (b"GET\r\n\r\n", 405),
        (b"POST /livez HTTP/1.1\r\nContent-Length: 9\r\n\r\n", 405),
        (b"\r\n\r\n", 405),
        (b"GET /livez HTTP/1.1\r\n" + b"X: y\r\n" * 100_000, 0),
    ],
)
async def test_what_is_no_question_is_answered_or_ended(
    served: Served, request_: bytes, status: int
) -> None:
    try:
        assert (await served.ask(request_))[0] == status
    except ConnectionError:
        assert status == 0
    assert await served.get("/livez") == (200, b"ok\n")


async def test_who_says_nothing_keeps_nobody_from_being_answered(served: Served) -> None:
    silent = [await served.open() for _ in range(10 * health.MOST_CONNECTIONS)]
    assert await served.get("/livez") == (200, b"ok\n")
    ended = [reader for reader, _ in silent if reader.at_eof() or reader.exception()]
    assert len(ended) >= len(silent) - health.MOST_CONNECTIONS
    for _, writer in silent:
        writer.close()


async def test_a_connection_lives_for_a_while_only(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "EXCHANGE_SECONDS", 0.05)
    reader, writer = await served.open()
    writer.write(b"GET /livez HTTP/1.1\r\n")
    async with asyncio.timeout(10):
        with suppress(ConnectionError):
            assert await reader.read() == b""
    writer.close()


async def test_who_does_not_take_the_answer_is_ended_too(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "EXCHANGE_SECONDS", 0.05)
    monkeypatch.setattr(served.metrics, "render", lambda: b"x" * 50_000_000)
    reader, writer = await served.open()
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    writer.write(b"GET /metrics HTTP/1.1\r\n\r\n")
    assert await served.get("/livez") == (200, b"ok\n")
    await asyncio.sleep(0.1)
    writer.transport.resume_reading()  # type: ignore[attr-defined]
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        async with asyncio.timeout(10):
            await reader.readexactly(50_000_000)
    writer.close()
