"""Small requests to a store: listings, questions about an object, tokens, uploads."""

from __future__ import annotations

import http.client
import zlib
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from model_poller.errors import OddAnswerError, UnreachableError
from model_poller.retry import RetryPolicy, Tries, check_deadline
from model_poller.stores.connections import Connection, Connections

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from model_poller.stores.http_ranges import RefusedError

TIMEOUT_SECONDS = 10.0
_LIMIT_BYTES = 64 << 20
"""Far above the longest page of a listing."""
_DEADLINE_SECONDS = 60.0
"""For a whole answer, however slowly it comes."""
RETRIES = RetryPolicy(
    attempts=3, first_seconds=0.3, longest_seconds=5.0, deadline_seconds=_DEADLINE_SECONDS
)
_BUSY = frozenset({429, 500, 502, 503, 504})
_LATER = frozenset({408, 425, 429})
_SERVER_ERRORS = 500


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said, whatever the status."""

    status: int
    headers: Mapping[str, str]
    """By names in lower case."""
    body: bytes

    def header(self, name: str) -> str:
        """The value of a header, its name in any case; empty without one."""
        return self.headers.get(name.lower(), "")

    @property
    def retry_after(self) -> float:
        """Seconds that the server asked to be left alone."""
        told = self.header("Retry-After")
        return float(told) if told.isdecimal() else 0.0

    @property
    def is_busy(self) -> bool:
        """Whether the server has to be asked again, for what it says passes by."""
        return self.status in _LATER or self.status >= _SERVER_ERRORS


def unpacked(answer: Answer) -> bytes:
    """What an answer says, freed of its ``Content-Encoding``.

    There are servers that pack what they were asked for as it is.

    Raises:
        UnreachableError: it can't be read.
    """
    encoding = answer.header("Content-Encoding").lower()
    if encoding in ("", "identity"):
        return answer.body
    if encoding not in ("gzip", "x-gzip"):
        raise OddAnswerError(
            f"an answer of the store is packed by {encoding[:50]!r}, which nobody asked for; let it"
            " answer without Content-Encoding"
        )
    unpacking = zlib.decompressobj(wbits=31)
    try:
        whole = unpacking.decompress(answer.body, _LIMIT_BYTES)
    except zlib.error as error:
        raise UnreachableError(f"an answer of the store can't be unpacked ({error})") from error
    if not unpacking.eof:
        raise UnreachableError("an answer of the store is cut, or too large when it is unpacked")
    return whole


def unexpected(message: str, answer: Answer) -> UnreachableError:
    """The error for an answer whose status nobody expects.

    Only some of them say that the server has to be left alone; the others that it has nothing else
    to say of what was asked for, as 451 or 300.
    """
    kind = UnreachableError if answer.is_busy else OddAnswerError
    return kind(message, answer.retry_after)


def as_answer(refusal: RefusedError) -> Answer:
    """A refused range in the form of other answers."""
    told = {"retry-after": f"{refusal.retry_after:.0f}"}
    return Answer(refusal.status, told, refusal.body.encode())


class HttpCalls:
    """Questions to one server."""

    def __init__(self, endpoint: str, timeout: float = TIMEOUT_SECONDS) -> None:
        """``timeout`` is in seconds, for connecting and for each read.

        For a whole request and its answer it is 60 s, or twice as long as for a read.
        """
        self._connections = Connections(endpoint, timeout)
        self._deadline = max(_DEADLINE_SECONDS, 2 * timeout)

    def ask(
        self,
        method: str,
        prepare: Callable[[], tuple[str, Mapping[str, str]]],
        body: bytes = b"",
    ) -> Answer:
        """Send a request that does no harm twice; faults that pass by are tried again.

        ``prepare`` gives target and headers of every try, as signatures grow old.

        Raises:
            UnreachableError: the server did not answer, or the thread's `Deadline` is over.
        """
        tries = Tries(RETRIES)
        while True:
            check_deadline()
            target, headers = prepare()
            try:
                answer = self.send(method, target, headers, body, kept=True)
            except UnreachableError as error:
                tries.failed(error)
            else:
                if answer.status not in _BUSY or tries.is_last:
                    return answer
                busy = f"{self._connections.host} answered {answer.status}"
                tries.failed(UnreachableError(busy, answer.retry_after))

    def send(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes = b"",
        *,
        kept: bool = False,
    ) -> Answer:
        """Send a request once; ``kept`` allows to try it on a connection that was left open first.

        The server may have closed that one, and then nobody knows whether the request came in.

        Raises:
            UnreachableError: the server did not answer.
        """
        if kept and (connection := self._connections.kept()):
            with suppress(UnreachableError):
                return self._on(connection, method, target, headers, body)
        return self._on(self._connections.new(), method, target, headers, body)

    def _on(
        self,
        connection: Connection,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes,
    ) -> Answer:
        response = self._connections.request(
            connection, method, target, headers, body, seconds=self._deadline
        )
        try:
            content = response.read(_LIMIT_BYTES)
            if response.length:
                raise http.client.IncompleteRead(content, response.length)
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise UnreachableError(
                f"{self._connections.host} broke off its answer ({error})"
            ) from error
        if response.isclosed() and not response.will_close:
            self._connections.keep(connection)
        else:
            connection.close()
        return Answer(response.status, response.fields, content)

    def close(self) -> None:
        """Close the kept connections."""
        self._connections.close()
