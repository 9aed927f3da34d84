"""Ranged GETs over kept HTTP connections, with as little between the socket and the disk as can be.

The stores' own Python libraries move a fraction of what one core can; ``http.client`` reads
straight into the caller's buffer.
"""

from __future__ import annotations

import http.client
import re
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from model_poller.errors import UnreachableError
from model_poller.stores.connections import Connections

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
    """Ranges of what one server has."""

    def __init__(self, endpoint: str) -> None:
        self._connections = Connections(endpoint, TIMEOUT_SECONDS)

    @contextmanager
    def get(
        self, target: str, headers: Mapping[str, str], start: int, length: int
    ) -> Iterator[_Range]:
        """GET ``length`` bytes from ``start``.

        Raises:
            RefusedError: the server answered, but not with these bytes.
            UnreachableError: it did not answer, or the connection broke.
        """
        connection, response = self._ask(
            target,
            {
                # The stored bytes, never a server's unpacked rendering of them.
                "Accept-Encoding": "gzip",
                "Range": f"bytes={start}-{start + length - 1}",
                **headers,
            },
        )
        try:
            if response.status != 206 and not (
                response.status == 200 and start == 0 and response.length == length
            ):
                raise RefusedError(
                    response.status,
                    _read_some(response),
                    _seconds(response.getheader("Retry-After")),
                    response.getheader("Location") or "",
                )
            told = re.match(r"bytes (\d+)-(\d+)/", response.getheader("Content-Range") or "")
            if told and (int(told[1]), int(told[2])) != (start, start + length - 1):
                raise UnreachableError(
                    f"{self._connections.host} answers with {told[0][:-1]} where {length} bytes"
                    f" from {start} were asked for"
                )
            body = _Range(response, length)
            yield body
        except BaseException:
            connection.close()
            raise
        if body.left or not response.isclosed():
            connection.close()
            return
        self._connections.keep(connection)

    def _ask(
        self, target: str, headers: Mapping[str, str]
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        if kept := self._connections.kept():
            # The server may have closed it meanwhile.
            with suppress(UnreachableError):
                return kept, self._connections.request(kept, "GET", target, headers)
        connection = self._connections.new()
        return connection, self._connections.request(connection, "GET", target, headers)

    def close(self) -> None:
        """Close the kept connections."""
        self._connections.close()


def _read_some(response: http.client.HTTPResponse) -> str:
    try:
        return response.read(2000).decode(errors="replace")
    except (OSError, http.client.HTTPException):
        return ""


def _seconds(retry_after: str | None) -> float:
    # The other form, a date, is no store's.
    return float(retry_after) if retry_after and retry_after.isdecimal() else 0.0
