"""HTTP/1.1 in front of the REST API."""

from __future__ import annotations

import asyncio
import http
import logging
import socket
import zlib
from typing import TYPE_CHECKING, Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from development_model_server.identity import SERVER_HEADER
from development_model_server.rest import Answer, html_error

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from development_model_server.rest import RestApi

_logger = logging.getLogger(__name__)

_METHODS = frozenset(("GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"))
_MAX_BODY_BYTES = 2**31 - 1
_MAX_INFLATED_BYTES = 100 * 2**20
_KEEP_ALIVE_SECONDS = 3600.0
_DRAIN_SECONDS = 30.0


class HttpServer:
    """Listens on a port and answers each request in a thread of ``executor``."""

    def __init__(self, api: RestApi, executor: Executor) -> None:
        self._api = api
        self._executor = executor
        self._server = _Server(
            self._handle,
            request_factory=_request,
            keepalive_timeout=_KEEP_ALIVE_SECONDS,
            auto_decompress=False,
            max_line_size=65536,
            max_field_size=65536,
            access_log=None,
        )
        self._runner = web.ServerRunner(self._server)

    async def start(self, port: int) -> None:
        """Listen on every address, of IPv6 and IPv4, or of IPv4 alone where that is all there is.

        Raises:
            OSError: the port is taken.
        """
        await self._runner.setup()
        listener = _listener(port)
        site = web.SockSite(self._runner, listener, backlog=128)
        await site.start()

    async def stop(self) -> None:
        """Stop listening; wait for the requests under way."""
        await self._server.shutdown(_DRAIN_SECONDS)
        await self._runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.method not in _METHODS:
            answer = html_error(501, "Not Implemented")
        else:
            if request.headers.get("Expect", "").lower() == "100-continue":
                await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            try:
                body = await request.read()
            except web.HTTPException as error:
                return _response(html_error(error.status, error.reason))
            if "gzip" in request.headers.get("Content-Encoding", ""):
                body = _inflated(body)
            loop = asyncio.get_running_loop()
            answer = await loop.run_in_executor(
                self._executor,
                self._answer,
                request.method,
                request.raw_path,
                body,
                request.headers.get("Origin", ""),
            )
        return _response(answer)

    def _answer(self, method: str, path: str, body: bytes, origin: str) -> Answer:
        try:
            return self._api.answer(method, path, body, origin)
        except Exception:
            _logger.exception("%s %s failed unexpectedly", method, path)
            return html_error(500, "Internal Server Error")


class _Connection(RequestHandler):
    """What aiohttp refuses itself, such as a request that is none, is answered as by libevent."""

    def handle_error(
        self,
        request: web.BaseRequest,  # noqa: ARG002
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002
    ) -> web.StreamResponse:
        """See `RequestHandler.handle_error`."""
        if status >= 500:
            _logger.error("a request failed unexpectedly", exc_info=exc)
        response = _response(html_error(status, http.HTTPStatus(status).phrase))
        response.force_close()
        return response


class _Server(web.Server):
    def __call__(self) -> RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)


def _response(answer: Answer) -> web.StreamResponse:
    headers = {"Server": SERVER_HEADER, **answer.headers}
    if answer.headers.get("Content-Type") == "text/html":
        headers["Connection"] = "close"
    response = web.Response(status=answer.status, body=answer.body, headers=headers)
    if headers.get("Connection") == "close":
        response.force_close()
    return response


def _request(message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
    loop = asyncio.get_running_loop()
    return web.BaseRequest(
        message, payload, protocol, writer, task, loop, client_max_size=_MAX_BODY_BYTES
    )


def _inflated(body: bytes) -> bytes:
    """A gzip body unpacked; nothing, if it is no gzip (TensorFlow Serving then sees no body)."""
    try:
        unpacker = zlib.decompressobj(wbits=31)
        inflated = unpacker.decompress(body, _MAX_INFLATED_BYTES)
    except zlib.error as error:
        _logger.error("Got zlib error: %s", error)  # noqa: TRY400 - the message says it all
        return b""
    if not unpacker.eof:
        _logger.error("Failed to uncompress the gzipped body")
        return b""
    return inflated


def _listener(port: int) -> socket.socket:
    try:
        listener = socket.create_server(
            ("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=128
        )
    except OSError:
        listener = socket.create_server(("", port), backlog=128)
    listener.setblocking(False)
    return listener
