"""A server before another one, whose answers it passes on: late, cut, damaged or not at all."""

from __future__ import annotations

import asyncio
import random
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import aiohttp
from aiohttp import web

from demo.errors import ClusterError

if TYPE_CHECKING:
    import ssl
    from typing import Self

_HOP_BY_HOP = frozenset(
    {"connection", "keep-alive", "transfer-encoding", "content-length", "server", "date"}
)
_START_SECONDS = 20.0
_PIECE = 64 << 10
_ARCHIVE = b"PK\x03\x04"
"""What a zip begins with: other bodies are left as they are, or a damaged listing would name
versions that nobody uploaded."""


@dataclass(frozen=True)
class Treatment:
    """What becomes of answers.

    Attributes:
        away: connections are closed without one.
        statuses: refuse with one of these.
        delay: seconds before the answer.
        keep: of an archive send this part, and close; the length told is that of the whole.
        flip: change one bit of an archive.
        part: of so many requests, 0 to 1.
    """

    away: bool = False
    statuses: tuple[int, ...] = ()
    delay: float = 0.0
    keep: float | None = None
    flip: bool = False
    part: float = 1.0


HONEST = Treatment()


class Proxy:
    """Forwards to one server inside a ``with`` block, in a thread of its own.

    ``treatment`` may be changed at any time, and holds for requests that come from then on.
    """

    def __init__(
        self,
        address: str,
        target: str,
        *,
        served: ssl.SSLContext | None = None,
        asked: ssl.SSLContext | None = None,
    ) -> None:
        """Choose nothing yet but where.

        Args:
            address: to listen on; the port is free to choose.
            target: the other server's URL, without a path.
            served: the certificate to show, where clients speak TLS.
            asked: by which the other server is trusted, where it speaks TLS.
        """
        self.treatment = HONEST
        self.hit = 0
        """How many requests were treated."""
        self.port = 0
        self._address = address
        self._target = target
        self._served = served
        self._asked = asked
        self._chance = random.Random(target)  # noqa: S311
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)

    @property
    def url(self) -> str:
        """Where it is."""
        return f"{'https' if self._served else 'http'}://{self._address}:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._ready.wait(_START_SECONDS) or not self.port:
            raise ClusterError(f"the proxy of {self._target} does not listen on {self._address}")
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(_START_SECONDS)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._ready.set()
            self._loop.close()

    async def _serve(self) -> None:
        application = web.Application(client_max_size=1 << 30)
        application.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
        connector = aiohttp.TCPConnector(limit=0, ssl=self._asked if self._asked else True)
        async with aiohttp.ClientSession(
            connector=connector, timeout=timeout, auto_decompress=False
        ) as self._session:
            await runner.setup()
            site = web.TCPSite(runner, self._address, 0, ssl_context=self._served)
            await site.start()
            self.port = runner.addresses[0][1]
            self._ready.set()
            await self._stop.wait()
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        treatment = self.treatment
        if treatment is not HONEST and self._chance.random() < treatment.part:
            self.hit += 1
            await asyncio.sleep(treatment.delay)
            if treatment.away:
                return _hang_up(request)
            if treatment.statuses:
                return web.Response(status=self._chance.choice(treatment.statuses))
        else:
            treatment = HONEST
        try:
            return await self._forward(request, treatment)
        except (aiohttp.ClientError, OSError):
            return _hang_up(request)

    async def _forward(self, request: web.Request, treatment: Treatment) -> web.StreamResponse:
        headers = [(n, v) for n, v in request.headers.items() if n.lower() not in _HOP_BY_HOP]
        async with self._session.request(
            request.method,
            self._target + request.raw_path,
            headers=headers,
            data=await request.read() if request.can_read_body else None,
            allow_redirects=False,
        ) as answer:
            passed = web.StreamResponse(status=answer.status, reason=answer.reason)
            for name, value in answer.headers.items():
                if name.lower() not in _HOP_BY_HOP:
                    passed.headers.add(name, value)
            length = answer.headers.get("Content-Length")
            if length is not None:
                passed.content_length = int(length)
            await passed.prepare(request)
            first = True
            async for piece in answer.content.iter_any():
                sent = piece
                if first and piece.startswith(_ARCHIVE):
                    if treatment.keep is not None:
                        await passed.write(piece[: int(len(piece) * treatment.keep)])
                        return _hang_up(request, passed)
                    if treatment.flip:
                        middle = len(piece) // 2
                        sent = piece[:middle] + bytes([piece[middle] ^ 1]) + piece[middle + 1 :]
                first = False
                await passed.write(sent)
            await passed.write_eof()
            return passed


def _hang_up(request: web.Request, begun: web.StreamResponse | None = None) -> web.StreamResponse:
    # Without a transport, the client has gone already.
    if request.transport is not None:
        request.transport.abort()
    return begun or web.Response(status=502)
