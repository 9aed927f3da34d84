"""Ranged GETs over kept HTTP connections, with as little between the socket and the disk as can be.

The stores' own Python libraries move a fraction of what one core can; ``http.client`` reads
straight into the caller's buffer.
"""

from __future__ import annotations

import http.client
import os
import ssl
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import certifi

from model_poller.errors import UnreachableError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

TIMEOUT_SECONDS = 30.0
"""For connecting and for each read: a connection that brings nothing for so long is given up."""


class RefusedError(Exception):
    """The server answered with another status than 206 or 200.

    ``retry_after`` is how many seconds it asked to be left alone, ``elsewhere`` where it redirects
    to.
    """

    def __init__(
        self, status: int, body: str, retry_after: float = 0.0, elsewhere: str = ""
    ) -> None:
        super().__init__(status, body)
        self.status = status
        self.body = body
        self.retry_after = retry_after
        self.elsewhere = elsewhere


class _Range:
    def __init__(self, response: http.client.HTTPResponse, length: int) -> None:
        self._response = response
        self.left = length

    def readinto(self, buffer: memoryview) -> int:
        try:
            count = self._response.readinto(buffer[: min(len(buffer), self.left)])
        except (OSError, http.client.HTTPException) as error:
            raise UnreachableError(
                f"the connection broke in the middle of a read ({error})"
            ) from error
        if not count and self.left:
            raise UnreachableError(f"the connection ended {self.left} bytes early")
        self.left -= count
        return count


class HttpRanges:
    """Connections to one server, shared by threads and kept open between requests."""

    def __init__(self, endpoint: str) -> None:
        parts = urlsplit(endpoint)
        self._host, self._port = parts.hostname or "", parts.port
        self._tls = None
        if parts.scheme == "https":
            # The same bundle that requests, and so the listing, uses.
            bundle = os.environ.get("REQUESTS_CA_BUNDLE") or certifi.where()
            self._tls = ssl.create_default_context(cafile=bundle)
        self._idle: list[http.client.HTTPConnection] = []
        self._lock = threading.Lock()

    @contextmanager
    def get(
        self, target: str, headers: Mapping[str, str], start: int, length: int
    ) -> Iterator[_Range]:
        """GET ``length`` bytes from ``start``.

        Raises:
            RefusedError: the server answered, but not with these bytes.
            UnreachableError: it did not answer, or the connection broke.
        """
        with self._lock:
            connection = self._idle.pop() if self._idle else None
        reused = connection is not None
        connection = connection or self._connect()
        wanted = {
            # The stored bytes, never a server's unpacked rendering of them.
            "Accept-Encoding": "gzip",
            "Range": f"bytes={start}-{start + length - 1}",
            **headers,
        }
        try:
            try:
                connection.request("GET", target, headers=wanted)
                response = connection.getresponse()
            except (OSError, http.client.HTTPException):
                if not reused:
                    raise
                # A kept connection may have been closed by the server meanwhile.
                connection.close()
                connection.request("GET", target, headers=wanted)
                response = connection.getresponse()
            if response.status != 206 and not (
                response.status == 200 and start == 0 and response.length == length
            ):
                raise RefusedError(
                    response.status,
                    response.read(2000).decode(errors="replace"),
                    _seconds(response.getheader("Retry-After")),
                    response.getheader("Location") or "",
                )
            body = _Range(response, length)
            yield body
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise UnreachableError(f"{self._host} does not answer ({error})") from error
        except BaseException:
            connection.close()
            raise
        if body.left or not response.isclosed():
            connection.close()
            return
        with self._lock:
            self._idle.append(connection)

    def close(self) -> None:
        """Close the kept connections."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        if self._tls:
            return http.client.HTTPSConnection(
                self._host, self._port, timeout=TIMEOUT_SECONDS, context=self._tls
            )
        return http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT_SECONDS)


def _seconds(retry_after: str | None) -> float:
    # The other form, a date, is no store's.
    return float(retry_after) if retry_after and retry_after.isdecimal() else 0.0
