"""The poller's HTTP interface: read-only."""

from __future__ import annotations

import socket
import socketserver
import threading
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.client import LineTooLong
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from model_poller.metrics import METRICS
from model_poller.process.threads import Worker
from model_poller.status import encode

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from model_poller.board import Board

MAX_WAIT_SECONDS = 60.0
MAX_WAITING = 64
"""So many long polls wait at once; a further one is answered without waiting."""
MAX_CONNECTIONS = 2 * MAX_WAITING
"""So many are open at once. For a further one the one that has asked nothing for longest goes, so
that whoever connects and asks, as a probe does, is answered."""
_IDLE_SECONDS = 90.0
MAX_HEAD_BYTES = 64 << 10
"""Of a request's line and headers: as many come on each connection before anybody is answered."""


@dataclass(frozen=True, slots=True)
class Health:
    """What the probes ask; each answers without waiting."""

    silent: Callable[[], Sequence[str]]
    """The threads that stand still."""
    started: Callable[[], bool]
    ready: Callable[[], bool]
    draining: Callable[[], bool] = lambda: False


class Api:
    """Serves ``/status``, ``/metrics`` and the probes until it is stopped."""

    def __init__(self, port: int, board: Board, health: Health) -> None:
        """Listen on every address; port 0 takes a free one.

        Raises:
            OSError: the port is taken.
        """
        waiting = threading.Semaphore(MAX_WAITING)

        class Handler(_Handler):
            pass

        Handler.board, Handler.health, Handler.waiting = board, health, waiting
        self._server = _Server(port, Handler)
        self.port: int = self._server.server_address[1]
        self.worker = Worker("api", lambda: self._server.serve_forever(0.25))
        self._server.service_actions = self.worker.beat  # type: ignore[method-assign]

    def start(self) -> None:
        """Begin to answer."""
        self.worker.start()

    def stop(self) -> None:
        """Answer no new requests."""
        self.worker.stop()
        self._server.shutdown()
        self._server.server_close()


class _Connections:
    """The open connections, each with whether it is being answered; those idle longest first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._busy: dict[socket.socket, bool] = {}

    def add(self, connection: socket.socket) -> None:
        """Take in a new one; where there are too many, end another."""
        with self._lock:
            ended = None
            if len(self._busy) >= MAX_CONNECTIONS:
                # Where all are being answered, whoever has taken longest over it doesn't read.
                idle = (known for known, busy in self._busy.items() if not busy)
                ended = next(idle, next(iter(self._busy)))
                del self._busy[ended]
            self._busy[connection] = False
            if ended is None:
                return
            # Its thread's read or write ends with this, and closes it.
            with suppress(OSError):
                ended.shutdown(socket.SHUT_RDWR)

    def turn(self, connection: socket.socket, *, busy: bool) -> None:
        """Note that an answer begins or ended."""
        with self._lock:
            if self._busy.pop(connection, None) is not None:
                self._busy[connection] = busy

    def remove(self, connection: socket.socket) -> None:
        """Forget one that is about to be closed."""
        with self._lock:
            self._busy.pop(connection, None)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = MAX_CONNECTIONS

    def __init__(self, port: int, handler: type[BaseHTTPRequestHandler]) -> None:
        # One socket for IPv6 and IPv4 where the kernel has both.
        dual = socket.has_dualstack_ipv6()
        self.address_family = socket.AF_INET6 if dual else socket.AF_INET
        self.connections = _Connections()
        super().__init__(("::" if dual else "0.0.0.0", port), handler)  # noqa: S104

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        # HTTPServer's own asks the resolver for this host's name, which may take seconds.
        socketserver.TCPServer.server_bind(self)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.connections.remove(request)
        super().shutdown_request(request)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is nobody's error."""


class _Head:
    """What a client sends, of which only so much may come before an answer."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.left = 0

    def readline(self, limit: int) -> bytes:
        """The next line.

        Raises:
            LineTooLong: the head of the request is.
        """
        line: bytes = self._inner.readline(min(limit, self.left + 1))
        self.left -= len(line)
        if self.left < 0:
            raise LineTooLong("head of a request")
        return line

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = _IDLE_SECONDS
    # Headers and body leave in one packet each; without this the second waits for an ACK.
    disable_nagle_algorithm = True
    board: Board
    health: Health
    waiting: threading.Semaphore
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.rfile: Any = _Head(self.rfile)

    def handle_one_request(self) -> None:
        self.rfile.left = MAX_HEAD_BYTES
        super().handle_one_request()

    def do_GET(self) -> None:
        self.server.connections.turn(self.connection, busy=True)
        try:
            self._get()
        finally:
            self.server.connections.turn(self.connection, busy=False)

    def _get(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/status":
            self._status(parse_qs(url.query))
        elif url.path == "/metrics":
            self._answer(HTTPStatus.OK, METRICS.render(), "text/plain; version=0.0.4")
        elif url.path == "/livez":
            silent = self.health.silent()
            self._probe(not silent, f"standing still: {', '.join(silent)}; see the log")
        elif url.path == "/startupz":
            self._probe(self.health.started(), "no version is published yet; see /status")
        elif url.path == "/readyz":
            self._probe(self.health.ready(), "no version is AVAILABLE; see /status")
        elif url.path == "/drainz":
            otherwise = "the model server is about to load another version; see /status"
            self._probe(not self.health.draining(), otherwise)
        else:
            self._answer(HTTPStatus.NOT_FOUND, b"not found\n")

    def _status(self, query: dict[str, list[str]]) -> None:
        after = query.get("after", [None])[0]
        try:
            timeout = float(query.get("timeout", ["0"])[0])
        except ValueError:
            timeout = -1.0
        if not 0 <= timeout <= MAX_WAIT_SECONDS:
            message = f"timeout has to be a number of seconds from 0 to {MAX_WAIT_SECONDS:.0f}\n"
            self._answer(HTTPStatus.BAD_REQUEST, message.encode())
            return
        may_wait = self.waiting.acquire(blocking=False)
        try:
            status = self.board.read(after, timeout if may_wait else 0.0)
        finally:
            if may_wait:
                self.waiting.release()
        self._answer(HTTPStatus.OK, encode(status), "application/json")

    def _probe(self, good: bool, otherwise: str) -> None:
        if good:
            self._answer(HTTPStatus.OK, b"ok\n")
        else:
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE, f"{otherwise}\n".encode())

    def _answer(
        self, status: HTTPStatus, body: bytes, content_type: str = "text/plain; charset=utf-8"
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Probes and long polls would fill the log."""
