"""One pod's poller, asked again and again: over a connection of its own, or by the API server.

Of thousands of pods each holds a request of the operator's. What a general HTTP client keeps of
every request, 15 kB, would be most of the operator's memory, and what it does for each most of its
processor time; a GET with a bounded answer over one kept connection takes a third of both.
"""

from __future__ import annotations

import asyncio
import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import urlencode, urlsplit

import aiohttp

from inferencemodel_operator import bodies, bounds, cluster, sockets
from inferencemodel_operator.errors import InvalidReportError

if TYPE_CHECKING:
    from collections.abc import Mapping

BODY_SECONDS: Final = 10.0
"""From an answer's beginning to its end, its turn included."""
CONNECT_SECONDS: Final = 5.0
LARGEST_ANSWER: Final = 2 * 2**20
"""Bytes. A poller tells of 50 versions in the bucket, 50 quarantined and those on its disk, each
with a message of 1,024 characters and one of the model server's: even if every character is escaped
with six bytes, that is 1.3 MB (model_poller.report)."""
BUFFER: Final = 2**14
"""Bytes of an answer's head. Of what waits to be read, up to twice as much is held for each."""
_END: Final = b"\r\n"
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([1-5]\d\d)(?: [^\r\n]*)?")
_LENGTH: Final = re.compile(rb"\d{1,15}")
_CHUNK: Final = re.compile(rb"([0-9A-Fa-f]{1,8})(?:[ \t]*;[^\r\n]*)?\r\n")
_FREE_CHUNKS: Final = 1000
_CHUNK_BYTES: Final = 256
"""At least, on the average, beyond the free ones: a proxy sends on kilobytes."""
_PROVISIONAL: Final = 5
"""So many answers like "100 Continue" may come before the true one."""


class Channel(Protocol):
    """How one pod's poller is asked."""

    async def ask(self, query: Mapping[str, str], within: float, *, keep: bool) -> bytes:
        """What it answers to ``GET /status``.

        Args:
            query: of the URL.
            within: seconds for all of it.
            keep: whether the connection is kept for the next time.

        Raises:
            InvalidReportError: it answers with something else.
            aiohttp.ClientError, OSError, TimeoutError: it doesn't answer.
        """

    def close(self) -> None:
        """Ask no more."""


class Direct:
    """Asks the pod itself, without any credentials, and follows nothing."""

    def __init__(self, address: str, turns: asyncio.Semaphore) -> None:
        """Connect to nothing yet.

        Args:
            address: ``http://HOST:PORT``.
            turns: of those who read a long answer.
        """
        self._address = address
        self._turns = turns
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, query: Mapping[str, str], within: float, *, keep: bool) -> bytes:
        """See `Channel.ask`."""
        kept = False
        try:
            async with asyncio.timeout(within):
                answer, kept = await self._exchange(query)
        finally:
            if not (keep and kept):
                self.close()
        return answer

    def close(self) -> None:
        """See `Channel.close`."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def _exchange(self, query: Mapping[str, str]) -> tuple[bytes, bool]:
        """The answer, and whether the connection can be used again."""
        request = self._request(query)
        if self._streams is not None:
            reader, writer = self._streams
            try:
                return await self._send(reader, writer, request)
            except _SilentEndError:
                # A connection that was kept may have been closed meanwhile.
                self.close()
        reader, writer = self._streams = await self._connect()
        return await self._send(reader, writer, request)

    def _request(self, query: Mapping[str, str]) -> bytes:
        path = f"/status?{urlencode(query)}" if query else "/status"
        lines = (
            f"GET {path} HTTP/1.1",
            f"Host: {urlsplit(self._address).netloc}",
            f"User-Agent: {cluster.USER_AGENT}",
            # What a compressed answer becomes could not be bounded by reading less of it.
            "Accept-Encoding: identity",
            "",
            "",
        )
        return "\r\n".join(lines).encode()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        parts = urlsplit(self._address)
        async with asyncio.timeout(CONNECT_SECONDS):
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=BUFFER)
        sockets.watch(writer.get_extra_info("socket"))
        return reader, writer

    async def _send(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes
    ) -> tuple[bytes, bool]:
        writer.write(request)
        head = await _head(reader)
        async with asyncio.timeout(BODY_SECONDS):
            parts = _Body(reader, head)
            if head.status != HTTPStatus.OK:
                raise _refusal(head.status, await bodies.first(parts, bounds.NAME))
            if head.encoding != "identity":
                raise _compressed(head.encoding)
            if (head.length or 0) > LARGEST_ANSWER:
                raise bodies.TooLargeError("the answer", LARGEST_ANSWER)
            body = await bodies.collect(parts, LARGEST_ANSWER, turns=self._turns)
        return body, head.is_kept


class Proxied:
    """Asks by the API server's proxy for pods."""

    def __init__(
        self,
        address: str,
        turns: asyncio.Semaphore,
        session: aiohttp.ClientSession,
        single: aiohttp.ClientSession,
    ) -> None:
        """Connect to nothing yet.

        Args:
            address: the URL of the pod's poller.
            turns: of those who read a long answer.
            session: with the credentials. Not closed here.
            single: the same, which keeps no connection.
        """
        self._address = address
        self._turns = turns
        self._sessions = single, session

    async def ask(self, query: Mapping[str, str], within: float, *, keep: bool) -> bytes:
        """See `Channel.ask`."""
        async with self._sessions[keep].get(
            f"{self._address}/status",
            params=query,
            timeout=aiohttp.ClientTimeout(total=within, sock_connect=CONNECT_SECONDS),
            allow_redirects=False,
        ) as response:
            async with asyncio.timeout(BODY_SECONDS):
                if response.status != HTTPStatus.OK:
                    words = await bodies.start(response, bounds.NAME)
                    raise _refusal(response.status, words)
                encoding = response.headers.get("Content-Encoding", "identity")
                if encoding != "identity":
                    response.close()
                    raise _compressed(encoding)
                return await bodies.read(response, LARGEST_ANSWER, turns=self._turns)

    def close(self) -> None:
        """See `Channel.close`."""


def _refusal(status: int, words: bytes) -> InvalidReportError:
    text = bounds.text(words.decode(errors="replace"))
    return InvalidReportError(f"status {status}: {text}")


def _compressed(encoding: str) -> InvalidReportError:
    return InvalidReportError(f"it is compressed ({bounds.text(encoding, 16)})")


class _SilentEndError(aiohttp.ServerDisconnectedError):
    """The connection ended before anything of an answer came."""


class _Head:
    """What an answer's head says about its body."""

    __slots__ = ("encoding", "is_chunked", "is_kept", "length", "status")

    def __init__(self, status_line: re.Match[bytes], fields: Mapping[bytes, bytes]) -> None:
        minor, status = status_line.groups()
        self.status = int(status)
        self.encoding = fields.get(b"content-encoding", b"identity").decode("latin-1")
        transfer, length = fields.get(b"transfer-encoding"), fields.get(b"content-length")
        self.is_chunked = transfer is not None
        if transfer is not None and (transfer.lower() != b"chunked" or length is not None):
            raise InvalidReportError("its Transfer-Encoding isn't understood")
        if length is not None and not _LENGTH.fullmatch(length):
            raise InvalidReportError("its Content-Length is no number of bytes")
        self.length = None if length is None else int(length)
        """None: in chunks, or until the connection ends."""
        ends = b"close" in fields.get(b"connection", b"").lower() or minor == b"0"
        self.is_kept = not ends and (self.is_chunked or length is not None)


async def _head(reader: asyncio.StreamReader) -> _Head:
    for _ in range(_PROVISIONAL):
        try:
            text = await reader.readuntil(_END + _END)
        except asyncio.IncompleteReadError as error:
            if not error.partial:
                raise _SilentEndError from None
            if not error.partial.startswith(b"HTTP/1."):
                raise InvalidReportError("it is no HTTP") from None
            raise InvalidReportError("its head has no end") from None
        except ConnectionError:
            raise _SilentEndError from None
        except asyncio.LimitOverrunError:
            raise InvalidReportError(f"its head is longer than {BUFFER} bytes") from None
        head = _parse(text)
        if head.status >= HTTPStatus.OK or head.status == HTTPStatus.SWITCHING_PROTOCOLS:
            return head
    raise InvalidReportError("it has no final status")


def _parse(text: bytes) -> _Head:
    first, *lines = text.removesuffix(_END + _END).split(_END)
    status_line = _STATUS_LINE.fullmatch(first)
    if status_line is None:
        raise InvalidReportError("it is no HTTP")
    fields: dict[bytes, bytes] = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        name, value = name.lower(), value.strip(b" \t")
        if not colon or not name or name != name.strip():
            raise InvalidReportError("its head has a line that is no header")
        if fields.setdefault(name, value) != value and name in _ONCE:
            raise InvalidReportError(f"it has {name.decode()} twice")
    return _Head(status_line, fields)


_ONCE: Final = (b"content-length", b"content-encoding", b"transfer-encoding")


class _Body:
    """The parts of an answer's body, as they come."""

    __slots__ = ("_chunks", "_is_chunked", "_is_first", "_left", "_reader", "_size")

    def __init__(self, reader: asyncio.StreamReader, head: _Head) -> None:
        self._reader = reader
        self._is_chunked, self._is_first = head.is_chunked, True
        self._chunks = self._size = 0
        has_none = self._is_chunked or head.status == HTTPStatus.SWITCHING_PROTOCOLS
        self._left = 0 if has_none else head.length
        """Bytes, of this chunk or of all; None: until the connection ends."""

    def __aiter__(self) -> _Body:
        return self

    async def __anext__(self) -> bytes:
        try:
            if self._is_chunked and self._left == 0:
                await self._next_chunk()
        except asyncio.IncompleteReadError:
            raise _cut() from None
        except asyncio.LimitOverrunError:
            raise InvalidReportError("a line between its chunks is too long") from None
        if self._left == 0:
            raise StopAsyncIteration
        part = await self._reader.read(BUFFER if self._left is None else min(self._left, BUFFER))
        if self._left is not None:
            if not part:
                raise _cut()
            self._left -= len(part)
        elif not part:
            raise StopAsyncIteration
        return part

    async def _next_chunk(self) -> None:
        if not self._is_first and await self._reader.readexactly(len(_END)) != _END:
            raise InvalidReportError("a chunk of it is longer than it says")
        self._is_first = False
        size = _CHUNK.fullmatch(await self._reader.readuntil(_END))
        if size is None:
            raise InvalidReportError("a chunk of it has no size")
        self._left = int(size[1], 16)
        self._chunks += 1
        self._size += self._left
        # Each costs as much of a processor as a kilobyte does.
        if self._chunks > _FREE_CHUNKS + self._size // _CHUNK_BYTES:
            raise InvalidReportError("it comes in too many small chunks")
        if self._left == 0:
            self._is_chunked = False
            # What follows the last chunk tells nothing.
            while await self._reader.readuntil(_END) != _END:
                pass


def _cut() -> aiohttp.ClientPayloadError:
    return aiohttp.ClientPayloadError("the connection ended before the answer did")
