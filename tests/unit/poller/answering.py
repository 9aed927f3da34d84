"""A web server that answers what a test tells it to."""

from __future__ import annotations

import base64
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import google_crc32c

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(frozen=True)
class Request:
    """What a client asked."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Reply:
    """What it is answered."""

    status: int = 200
    body: bytes | str = b""
    headers: Mapping[str, str] = field(default_factory=dict)


def shown(request: Request, content: bytes, headers: Mapping[str, str]) -> Reply:
    """An object as stores show it: all of it, or the range that is asked for."""
    wanted = request.headers.get("Range")
    if wanted is None:
        return Reply(200, content, headers)
    first, _, last = wanted.removeprefix("bytes=").partition("-")
    place = f"bytes {first}-{last}/{len(content)}"
    return Reply(206, content[int(first) : int(last) + 1], {**headers, "Content-Range": place})


def s3_checksum(content: bytes) -> dict[str, str]:
    """The headers by which S3 tells an object's checksum."""
    checksum = base64.b64encode(google_crc32c.Checksum(content).digest()).decode()
    return {"x-amz-checksum-crc32c": checksum, "x-amz-checksum-type": "FULL_OBJECT"}


class Answering:
    """Asks ``answer`` for every request, and keeps them all in ``asked``."""

    def __init__(self, answer: Callable[[Request], Reply]) -> None:
        self.asked: list[Request] = []
        self._connected: list[socket.socket] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                outer._connected.append(self.connection)

            def handle_any(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                request = Request(
                    self.command, self.path, dict(self.headers), self.rfile.read(length)
                )
                outer.asked.append(request)
                reply = answer(request)
                body = reply.body.encode() if isinstance(reply.body, str) else reply.body
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def __getattr__(self, name: str) -> Callable[[], None]:
                if name.startswith("do_"):
                    return self.handle_any
                raise AttributeError(name)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def hang_up(self) -> None:
        """Close every connection, as servers do after a while."""
        for connection in self._connected:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Answering:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
