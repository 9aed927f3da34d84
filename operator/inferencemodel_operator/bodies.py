"""Reading what another process answers, however much of it there is."""

from __future__ import annotations

from contextlib import AsyncExitStack, contextmanager
from typing import TYPE_CHECKING, Final

import aiohttp

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Iterator

    from aiohttp import ClientResponse

SHORT: Final = 2**16
"""Bytes of a body that everybody may hold at once."""


class TooLargeError(aiohttp.ClientPayloadError):
    """An answer, or one line of it, is longer than any that is expected; no more of it is read."""

    def __init__(self, what: str, limit: int) -> None:
        super().__init__(f"{what} is longer than {limit} bytes")


@contextmanager
def closed_by_failure(response: ClientResponse) -> Iterator[ClientResponse]:
    """Close an answer that nobody gets, for a failure or since who asked was told to end.

    Its connection would be nobody else's until the answer is collected as garbage.
    """
    try:
        yield response
    except BaseException:
        response.close()
        raise


async def read(
    response: ClientResponse, limit: int, *, turns: asyncio.Semaphore | None = None
) -> bytes:
    """The body of an answer.

    Args:
        response: whose body is read.
        limit: how many bytes it may have.
        turns: of those who read a body of more than `SHORT` bytes; None to let all at once.

    Raises:
        TooLargeError: it is longer than ``limit`` bytes; no more than that was held.
        aiohttp.ClientError: the connection ended before the answer did.
    """
    try:
        if (response.content_length or 0) > limit:
            raise TooLargeError("the answer", limit)
        return await collect(response.content.iter_any(), limit, turns=turns)
    except TooLargeError:
        response.close()
        raise


async def collect(
    parts: AsyncIterator[bytes], limit: int, *, turns: asyncio.Semaphore | None = None
) -> bytes:
    """A body from its parts; see `read`."""
    taken, size = [], 0
    async with AsyncExitStack() as turn:
        async for part in parts:
            if turns is not None and size <= SHORT < size + len(part):
                await turn.enter_async_context(turns)
            size += len(part)
            if size > limit:
                raise TooLargeError("the answer", limit)
            taken.append(part)
    return b"".join(taken)


async def start(response: ClientResponse, limit: int) -> bytes:
    """The first so many bytes of the body at the most, whatever comes after them."""
    body = await first(response.content.iter_any(), limit)
    if len(body) == limit:
        response.close()
    return body


async def first(parts: AsyncIterator[bytes], limit: int) -> bytes:
    """The first so many bytes of a body at the most."""
    body = b""
    async for part in parts:
        body += part
        if len(body) >= limit:
            break
    return body[:limit]


async def lines(response: ClientResponse, limit: int) -> AsyncIterator[bytes]:
    """The lines of a body as they come, without their ends; what follows the last end is dropped.

    Raises:
        TooLargeError: a line is longer than ``limit`` bytes.
        aiohttp.ClientError: the connection ended before the answer did.
    """
    parts: list[bytes] = []
    size = 0
    async for part in response.content.iter_any():
        *ended, rest = part.split(b"\n")
        for line in ended:
            yield b"".join([*parts, line])
            parts, size = [], 0
        parts.append(rest)
        size += len(rest)
        if size > limit:
            response.close()
            raise TooLargeError("a line of the answer", limit)
