"""A pod is asked over one kept connection, whatever HTTP/1.1 lets its answer look like."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import aiohttp
import pytest

from inferencemodel_operator.errors import InvalidReportError
from inferencemodel_operator.observe.channels import Direct

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

BODY = b'{"revision":"1"}'
PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)


class Server:
    """Gives answer after answer, one for each request; an empty one ends the connection."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = [*answers]
        self.requests: list[bytes] = []
        self.connections = 0
        self.ended = asyncio.Event()
        self.tasks: list[asyncio.Task[None]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.append(task)
        self.connections += 1
        with suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            while self.answers:
                self.requests.append(await reader.readuntil(b"\r\n\r\n"))
                answer = self.answers.pop(0)
                writer.write(answer)
                if b"content-length" not in answer.lower() and b"chunked" not in answer:
                    break
            else:
                await reader.read()
                self.ended.set()
        writer.close()


@asynccontextmanager
async def asked(*answers: bytes) -> AsyncIterator[tuple[Server, Direct]]:
    made = Server(*answers)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    channel = Direct(f"http://127.0.0.1:{port}", asyncio.Semaphore(1))
    try:
        yield made, channel
    finally:
        channel.close()
        server.close()
        for task in made.tasks:
            task.cancel()
        await asyncio.gather(*made.tasks, return_exceptions=True)


async def test_a_connection_is_kept_and_one_that_was_closed_meanwhile_replaced() -> None:
    async with asked(PLAIN, PLAIN, b"", PLAIN) as (server, channel):
        assert await channel.ask({}, 5, keep=True) == BODY
        assert await channel.ask({}, 5, keep=True) == BODY
        assert server.connections == 1
        assert await channel.ask({}, 5, keep=True) == BODY
        assert server.connections == 2


async def test_a_new_connection_that_says_nothing_is_not_replaced_again() -> None:
    async with asked(b"", PLAIN) as (server, channel):
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await channel.ask({}, 5, keep=True)
        assert server.connections == 1


async def test_an_answer_in_chunks_of_a_byte_is_not_read_to_its_end() -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with asked(head + b"1\r\n \r\n" * 100_000 + b"0\r\n\r\n") as (_, channel):
        with pytest.raises(InvalidReportError, match="too many small chunks"):
            await channel.ask({}, 5, keep=True)


async def test_a_connection_is_closed_when_it_is_not_to_be_kept() -> None:
    async with asked(PLAIN) as (server, channel):
        assert await channel.ask({}, 5, keep=False) == BODY
        async with asyncio.timeout(5):
            await server.ended.wait()


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
         b'9;a=b\r\n{"revisio\r\n7\r\nn":"1"}\r\n0\r\nTrailer: x\r\n\r\n', True),
        (b"HTTP/1.1 200\r\ncontent-LENGTH:  16 \r\nX:\r\n\r\n" + BODY, True),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + PLAIN, True),
        (b"HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 16\r\n\r\n" + BODY, False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 16\r\n\r\n" + BODY, False),
        (b"HTTP/1.1 200 OK\r\n\r\n" + BODY, False),
    ],
    ids=["chunks", "headers", "provisional", "close", "HTTP/1.0", "until the end"],
)  # fmt: skip
async def test_every_form_of_an_answer_is_read(answer: bytes, *, kept: bool) -> None:
    async with asked(answer, PLAIN) as (server, channel):
        assert await channel.ask({}, 5, keep=True) == BODY
        assert await channel.ask({}, 5, keep=True) == BODY
        assert server.connections == (1 if kept else 2)


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2", "content-length twice"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked", "Transfer-Enc"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked", "Transfer-Encoding"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: +1", "no number"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n folded", "no header"),
        (b"HTTP/1.1 200 OK\r\nno colon", "no header"),
        (b"HTTP/1.1 200 OK\r\nName : x", "no header"),
        (b"HTTP/2 200 OK", "no HTTP"),
        (b"HTTP/1.1 2000 OK", "no HTTP"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nz", "no size"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc", "longer than it says"),
        (b"\r\n\r\n".join([b"HTTP/1.1 100 Continue"] * 9), "no final status"),
    ],
)
async def test_an_answer_that_can_be_read_in_two_ways_is_refused_and_hung_up_on(
    head: bytes, words: str
) -> None:
    async with asked(head + b"\r\n\r\n", PLAIN) as (server, channel):
        with pytest.raises(InvalidReportError, match=words):
            await channel.ask({}, 5, keep=True)
        assert await channel.ask({}, 5, keep=True) == BODY
        assert server.connections == 2


async def test_what_is_asked_for_can_not_end_the_request() -> None:
    async with asked(PLAIN) as (server, channel):
        await channel.ask({"after": "1\r\nX: y&z=ü", "timeout": "30.000"}, 5, keep=True)
    (request,) = server.requests
    assert request.startswith(
        b"GET /status?after=1%0D%0AX%3A+y%26z%3D%C3%BC&timeout=30.000 HTTP/1.1\r\n"
    )
    assert request.count(b"\r\n") == 5


async def test_a_pod_that_holds_the_request_for_too_long_is_hung_up_on() -> None:
    async with asked(PLAIN) as (server, channel):
        server.answers[:] = [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"]
        with pytest.raises(TimeoutError):
            await channel.ask({}, 0.1, keep=True)
        async with asyncio.timeout(5):
            await server.ended.wait()
