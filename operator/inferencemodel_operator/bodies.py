"""Reading what another process answers, however much of it there is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import aiohttp

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiohttp import ClientResponse


class TooLargeError(aiohttp.ClientPayloadError):
    """An answer, or one line of it, is longer than any that is expected; no more of it is read."""

    def __init__(self, what: str, limit: int) -> None:
        super().__init__(f"{what} is longer than {limit} bytes")


async def read(response: ClientResponse, limit: int) -> bytes:
    """The body of an answer.

    Raises:
        TooLargeError: it is longer than ``limit`` bytes; no more than that was held.
        aiohttp.ClientError: the connection ended before the answer did.
    """
    if (response.content_length or 0) > limit:
        response.close()
        raise TooLargeError("the answer", limit)
    parts, size = [], 0
    async for part in response.content.iter_any():
        size += len(part)
        if size > limit:
            response.close()
            raise TooLargeError("the answer", limit)
        parts.append(part)
    return b"".join(parts)


async def start(response: ClientResponse, limit: int) -> bytes:
    """The first so many bytes of the body at the most, whatever comes after them."""
    body = b""
    async for part in response.content.iter_any():
        body += part
        if len(body) >= limit:
            response.close()
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
