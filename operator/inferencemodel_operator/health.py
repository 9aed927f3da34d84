"""The operator's own HTTP: /livez, /readyz, /metrics.

Whoever reaches the port may open as many connections as they like, and say nothing: each lives for
seconds, and of too many the oldest ends, so that a probe always gets through.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from inferencemodel_operator.metrics import Metrics
    from inferencemodel_operator.observe.feed import Feed
    from inferencemodel_operator.observe.signs import Signs

MOST_CONNECTIONS: Final = 32
EXCHANGE_SECONDS: Final = 5.0
"""From a connection's beginning to its end."""
LONGEST_REQUEST: Final = 8192
"""Bytes of a request with its headers."""


class _Answer(NamedTuple):
    status: HTTPStatus
    body: bytes
    content_type: str = "text/plain; charset=utf-8"

    def encode(self) -> bytes:
        head = (
            f"HTTP/1.1 {self.status.value} {self.status.phrase}\r\n"
            f"Content-Type: {self.content_type}\r\n"
            f"Content-Length: {len(self.body)}\r\n"
            "Connection: close\r\n\r\n"
        )
        return head.encode() + self.body


class _Connections:
    """Those that are open; one request each."""

    def __init__(self, answer: Callable[[str], _Answer]) -> None:
        self._answer = answer
        self._open: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request, or end the connection in time."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101
        if len(self._open) >= MOST_CONNECTIONS:
            next(iter(self._open.values())).transport.abort()
        self._open[task] = writer
        try:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                async with asyncio.timeout(EXCHANGE_SECONDS):
                    request = await reader.readuntil(b"\r\n\r\n")
                    writer.write(self._respond(request).encode())
                    writer.close()
                    await writer.wait_closed()
        finally:
            writer.transport.abort()
            del self._open[task]

    async def end(self) -> None:
        """End all."""
        tasks = list(self._open)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _respond(self, request: bytes) -> _Answer:
        method, _, rest = request.partition(b" ")
        if method != b"GET":
            return _Answer(HTTPStatus.METHOD_NOT_ALLOWED, b"only GET is answered\n")
        target = rest.partition(b" ")[0].partition(b"?")[0]
        return self._answer(target.decode("ascii", "replace"))


@asynccontextmanager
async def serve(
    port: int, signs: Signs, feed: Feed, metrics: Metrics, refresh: Callable[[], None]
) -> AsyncIterator[None]:
    """Serve on all addresses while the context is open; port 0 serves nothing.

    Args:
        port: the TCP port.
        signs: alive while each watch shows a sign of life.
        feed: ready once it is complete.
        metrics: what is scraped.
        refresh: brings gauges up to date before a scrape.
    """

    def answer(path: str) -> _Answer:
        if path == "/livez":
            dead = signs.dead()
            if not dead:
                return _Answer(HTTPStatus.OK, b"ok\n")
            text = f"no sign of life of the watches of {dead}\n"
            return _Answer(HTTPStatus.INTERNAL_SERVER_ERROR, text.encode())
        if path == "/readyz":
            if feed.complete.is_set():
                return _Answer(HTTPStatus.OK, b"ok\n")
            return _Answer(HTTPStatus.SERVICE_UNAVAILABLE, b"not everything is listed yet\n")
        if path == "/metrics":
            refresh()
            return _Answer(HTTPStatus.OK, metrics.render(), "text/plain; version=0.0.4")
        return _Answer(HTTPStatus.NOT_FOUND, b"not found\n")

    if port == 0:
        yield
        return
    connections = _Connections(answer)
    server = await asyncio.start_server(connections.serve, port=port, limit=LONGEST_REQUEST)
    try:
        yield
    finally:
        server.close()
        await connections.end()
