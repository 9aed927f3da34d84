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
from model_poller.stores.connections import Connection, Connections, Response

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager

TIMEOUT_SECONDS = 30.0
"""For connecting, for an answer's head, and for each read: a connection that brings nothing for so
long is given up."""
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]*)")
_VALIDATORS = ("ETag", "Last-Modified", "x-goog-generation", "x-amz-version-id")
_CONDITIONS = {"If-Match": "ETag", "If-Unmodified-Since": "Last-Modified"}
"""Which validator a condition is about. A time has to be the listed one, not just no later: a file
can be replaced by an older one."""


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


class HttpRange:
    """See `ByteRange`."""

    def __init__(
        self,
        response: Response,
        headers: Mapping[str, str],
        length: int,
        validators: Mapping[str, str],
        *,
        is_listed: bool,
    ) -> None:
        self._response = response
        self._headers = headers
        self.left = length
        self.validators = validators
        self.is_listed = is_listed

    def header(self, name: str) -> str:
        """The value of a header of the answer; empty without one."""
        return self._headers.get(name.lower(), "")

    def readinto(self, buffer: memoryview) -> int:
        """See `ByteRange.readinto`."""
        try:
            wanted = buffer[: min(len(buffer), self.left)]
            count = self._response.receive(wanted, TIMEOUT_SECONDS)
        except (OSError, http.client.HTTPException) as error:
            raise UnreachableError(
                f"the connection broke in the middle of a read ({error})"
            ) from error
        if not count and self.left:
            raise UnreachableError(f"the connection ended {self.left} bytes early")
        self.left -= count
        return count


class Asked:
    """A request that was sent, and whose answer is not read yet."""

    def __init__(self, connection: Connection, target: str, headers: Mapping[str, str]) -> None:
        self.connection = connection
        self.target = target
        self.headers = headers
        """As they were given, with what proves who asks."""

    def close(self) -> None:
        """Want no answer any more."""
        self.connection.close()


class HttpRanges:
    """Ranges of what one server has."""

    def __init__(self, endpoint: str) -> None:
        self._connections = Connections(endpoint, TIMEOUT_SECONDS)

    def ask(
        self, target: str, headers: Mapping[str, str], length: int, *, whole: bool = False
    ) -> Asked:
        """Send the request for an object of so many bytes, without waiting for its answer.

        `get` takes that, or `get_whole` for a ``whole`` one.

        Raises:
            UnreachableError, AccessDeniedError, InvalidSourceError: it can't be sent.
        """
        asked = _as_stored(headers if whole else ranged(headers, 0, length))
        connection = self._connections.kept() or self._connections.new()
        self._connections.ask(connection, "GET", target, asked, seconds=TIMEOUT_SECONDS)
        return Asked(connection, target, headers)

    def get(
        self,
        target: str,
        headers: Mapping[str, str],
        start: int,
        length: int,
        asked: Asked | None = None,
    ) -> AbstractContextManager[HttpRange]:
        """GET ``length`` bytes from ``start``; ``asked`` is the same request, sent already.

        Conditions among the headers are compared with the answer, too: there are servers that take
        no notice of them, and give bytes of whatever has the name now.

        Raises:
            RefusedError: the server answered, but not with these bytes; 412 also where it should
                have answered that.
            UnreachableError: it did not answer, or the connection broke.
        """
        return self._get(target, ranged(headers, start, length), start, length, asked)

    def get_whole(
        self, target: str, headers: Mapping[str, str], length: int, asked: Asked | None = None
    ) -> AbstractContextManager[HttpRange]:
        """GET all of an object of so many bytes; see `get`.

        There are stores that tell a checksum beside the bytes only if no range is asked for.
        """
        return self._get(target, headers, 0, length, asked)

    @contextmanager
    def _get(
        self,
        target: str,
        headers: Mapping[str, str],
        start: int,
        length: int,
        asked: Asked | None,
    ) -> Iterator[HttpRange]:
        connection, response = self._ask(target, _as_stored(headers), asked)
        try:
            answered = response.fields
            if response.status != 206 and not (
                response.status == 200 and start == 0 and response.length == length
            ):
                raise RefusedError(
                    response.status,
                    _read_some(response),
                    _seconds(answered.get("retry-after")),
                    answered.get("location", ""),
                )
            told = _CONTENT_RANGE.match(answered.get("content-range", ""))
            # Of one that says nothing, its length has to fit at least.
            if not told and response.length != length:
                raise UnreachableError(
                    f"{self._connections.host} doesn't say which bytes it answers with"
                )
            if told and (int(told[1]), int(told[2])) != (start, start + length - 1):
                raise UnreachableError(
                    f"{self._connections.host} answers with {told[0].rpartition('/')[0]} where"
                    f" {length} bytes from {start} were asked for"
                )
            validators = _validators(answered)
            if told and told[3]:
                validators["size"] = told[3]
            elif response.status == 200:
                validators["size"] = str(length)
            is_listed = _obeys(validators, headers)
            body = HttpRange(response, answered, length, validators, is_listed=is_listed)
            yield body
        except BaseException:
            connection.close()
            raise
        if body.left or not response.isclosed():
            connection.close()
            return
        self._connections.keep(connection)

    def _ask(
        self, target: str, headers: Mapping[str, str], asked: Asked | None
    ) -> tuple[Connection, Response]:
        if asked:
            with suppress(UnreachableError):
                return asked.connection, self._connections.answer(
                    asked.connection, "GET", target, headers, TIMEOUT_SECONDS
                )
        elif kept := self._connections.kept():
            # The server may have closed it meanwhile.
            with suppress(UnreachableError):
                return kept, self._send(kept, target, headers)
        connection = self._connections.new()
        return connection, self._send(connection, target, headers)

    def _send(self, connection: Connection, target: str, headers: Mapping[str, str]) -> Response:
        return self._connections.request(
            connection, "GET", target, headers, seconds=TIMEOUT_SECONDS
        )

    def close(self) -> None:
        """Close the kept connections."""
        self._connections.close()


def ranged(headers: Mapping[str, str], start: int, length: int) -> Mapping[str, str]:
    """Headers that ask for ``length`` bytes from ``start``."""
    return {"Range": f"bytes={start}-{start + length - 1}", **headers}


def _as_stored(headers: Mapping[str, str]) -> Mapping[str, str]:
    # The stored bytes, never a server's unpacked rendering of them.
    return {"Accept-Encoding": "gzip", **headers}


def _validators(headers: Mapping[str, str]) -> dict[str, str]:
    told = {name: headers.get(name.lower(), "") for name in _VALIDATORS}
    return {name: bare(value) for name, value in told.items() if value}


def _obeys(validators: Mapping[str, str], headers: Mapping[str, str]) -> bool:
    """Whether the answer is about what was asked for; False where that isn't told.

    Raises:
        RefusedError: it is about something else.
    """
    told = [
        validators[name] == bare(headers[condition])
        for condition, name in _CONDITIONS.items()
        if condition in headers and name in validators
    ]
    if not all(told):
        raise RefusedError(412, "")
    return bool(told)


def pin(tag: str) -> dict[str, str]:
    """The condition that gets no bytes of an object with another ETag; none for one without any."""
    return {"If-Match": f'"{tag}"'} if tag else {}


def bare(tag: str) -> str:
    """A validator without what servers on its way add or leave out: quotes, and ``W/``."""
    return tag.removeprefix("W/").strip('"')


def _read_some(response: http.client.HTTPResponse) -> str:
    try:
        return response.read(2000).decode(errors="replace")
    except (OSError, http.client.HTTPException):
        return ""


def _seconds(retry_after: str | None) -> float:
    # The other form, a date, is no store's.
    return float(retry_after) if retry_after and retry_after.isdecimal() else 0.0
