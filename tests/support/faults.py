"""A web server in front of another one, whose answers it gives late, cut, damaged or not at all."""

from __future__ import annotations

import http.client
import http.server
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "server", "date"}
_TIMEOUT_SECONDS = 30


@dataclass(frozen=True)
class Fault:
    """What becomes of one answer."""

    status: int | None = None
    """Refuse with it, whatever the other server would say."""
    keep: float | None = None
    """Send this part of the body, then close; the length told is that of the whole."""
    flip: bool = False
    """Change one bit in the middle of the body."""
    stall: bool = False
    """Keep the connection open after what is sent, and say nothing more."""
    delay: float = 0.0
    """Seconds before the answer."""
    headers: dict[str, str] = field(default_factory=dict)


class FaultyServer:
    """Forwards to ``url``; ``choose`` says of each request (method and path) what goes wrong."""

    def __init__(self, url: str, choose: Callable[[str, str], Fault | None]) -> None:
        self._target = urlsplit(url).netloc
        self._choose = choose
        self._lock = threading.Lock()
        self.calls: list[tuple[str, str]] = []
        self.faults = 0
        self._ended = threading.Event()
        proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                proxy.answer(self)

            def do_HEAD(self) -> None:
                proxy.answer(self)

            def do_POST(self) -> None:
                proxy.answer(self)

            def do_PUT(self) -> None:
                proxy.answer(self)

            def do_DELETE(self) -> None:
                proxy.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        """Answer one request."""
        with self._lock:
            self.calls.append((request.command, request.path))
            fault = self._choose(request.command, request.path) or Fault()
            self.faults += fault != Fault()
        threading.Event().wait(fault.delay)
        size = None
        if fault.status:
            body = b"no"
            request.send_response(fault.status)
            for name, value in fault.headers.items():
                request.send_header(name, value)
        else:
            connection = http.client.HTTPConnection(self._target, timeout=_TIMEOUT_SECONDS)
            length = int(request.headers.get("Content-Length", 0))
            headers = {
                name: value
                for name, value in request.headers.items()
                if name.lower() not in _HOP_BY_HOP
            }
            connection.request(
                request.command, request.path, request.rfile.read(length) or None, headers
            )
            answer = connection.getresponse()
            body = answer.read()
            connection.close()
            if request.command == "HEAD":
                size = answer.getheader("Content-Length")
            request.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in _HOP_BY_HOP:
                    request.send_header(name, value)
        request.send_header("Content-Length", size or str(len(body)))
        request.end_headers()
        if fault.flip and body:
            middle = len(body) // 2
            body = body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]
        if fault.keep is not None:
            body = body[: int(len(body) * fault.keep)]
            request.close_connection = True
        if request.command != "HEAD":
            request.wfile.write(body)
        if fault.stall:
            self._ended.wait(_TIMEOUT_SECONDS)
