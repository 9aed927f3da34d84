"""A store's server, seen through a connection that counts what is asked of it."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections import Counter
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from typing import Self

_REQUEST = re.compile(rb"(GET|HEAD|POST|PUT|DELETE) (\S+) HTTP/1\.1\r\n")


class Counted:
    """Forwards HTTP/1.1 to a server of 127.0.0.1 in a ``with`` block, and counts the requests.

    What is asked is told by its first bytes, which a client sends in one piece: there is no body
    before them that would be mistaken for a request.
    """

    def __init__(self, url: str) -> None:
        """``url`` is the server's; its path is a part of `url`, too."""
        parts = urlsplit(url)
        assert parts.port
        self._target = parts.port
        self._lock = threading.Lock()
        self._found: list[tuple[str, str]] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}{parts.path}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def requests(self) -> Counter[str]:
        """How many there were so far, by method and by what kind of thing it is about."""
        with self._lock:
            return Counter(f"{method} {_kind(method, path)}" for method, path in self._found)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                near.close()
                continue
            for source, sink, watched in ((near, far, True), (far, near, False)):
                threading.Thread(
                    target=self._forward, args=(source, sink, watched), daemon=True
                ).start()

    def _forward(self, source: socket.socket, sink: socket.socket, watched: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if watched:
                    self._note(data)
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _note(self, data: bytes) -> None:
        asked = [(m[1].decode(), m[2].decode()) for m in _REQUEST.finditer(data)]
        with self._lock:
            self._found += asked


def _kind(method: str, path: str) -> str:
    """Whether a path is that of a list, of an object, or of a queue's messages."""
    if method == "POST":
        return "messages"
    parts = urlsplit(path)
    query = f"&{parts.query}"
    listing = ("&prefix=", "&list-type=", "&comp=list")
    if any(mark in query for mark in listing) or parts.path.endswith("/"):
        return "list"
    return "object"
