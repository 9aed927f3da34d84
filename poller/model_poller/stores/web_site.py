"""A web server as one user may read it: whom it knows the user as, and where it sends them."""

from __future__ import annotations

import base64
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote, urljoin, urlsplit

from model_poller.errors import (
    AccessDeniedError,
    BucketNotFoundError,
    InvalidSourceError,
    ObjectChangedError,
    OddAnswerError,
    PollerError,
    UnreachableError,
)
from model_poller.metrics import METRICS
from model_poller.stores.connections import check_address
from model_poller.stores.connections import origin as origin_of
from model_poller.stores.credentials import without_secrets
from model_poller.stores.http_calls import Answer, HttpCalls, as_answer, unexpected
from model_poller.stores.http_ranges import HttpRanges, RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from model_poller.stores import ByteRange
    from model_poller.stores.credentials import Credentials
    from model_poller.stores.uri import Location

_MAX_HOPS = 5
_MAX_ORIGINS = 8
"""To so many servers connections are kept: one that redirects may name another one each time."""
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_AS_IS = {"Accept-Encoding": "identity"}
"""The stored bytes, never a server's packed rendering of them."""


_Server = TypeVar("_Server", HttpCalls, HttpRanges)


class Site:
    """The server of one URI, and those that it redirects to."""

    def __init__(self, location: Location, credentials: Credentials) -> None:
        """Credentials are ``HTTP_BEARER_TOKEN``, or ``HTTP_USERNAME`` and ``HTTP_PASSWORD``."""
        self._location = location
        self._credentials = credentials
        self.origin = origin_of(f"{location.scheme}://{location.bucket}")
        self._lock = threading.Lock()
        self._calls: dict[str, HttpCalls] = {}
        self._ranges: dict[str, HttpRanges] = {}
        self.gives_ranges = True
        """Until a server answers with a whole file where a part of it was asked for."""

    def close(self) -> None:
        """Close all connections."""
        for calls in self._calls.values():
            calls.close()
        for ranges in self._ranges.values():
            ranges.close()

    def ask(self, method: str, url: str) -> tuple[Answer, str]:
        """GET or HEAD; the answer, and the URL that gave it.

        Raises:
            BucketNotFoundError: there is nothing at the storage URI.
            ObjectChangedError: there is nothing at another URL.
            AccessDeniedError, InvalidSourceError, UnreachableError
        """
        METRICS.source_requests.labels(method.lower()).inc()
        asked = url
        for _ in range(_MAX_HOPS):
            origin, target = _split(url)

            def prepare(target: str = target, origin: str = origin) -> tuple[str, dict[str, str]]:
                wanted = {"Accept": "application/json, text/html, */*"}
                return target, {**_AS_IS, **wanted, **self._authorization(origin)}

            answer = self._calls_of(origin).ask(method, prepare)
            if answer.status == 200:
                return answer, origin + target
            if answer.status not in _REDIRECTS:
                raise self._refused(answer, asked, self._missing)
            url = self._next_hop(url, answer.header("Location"))
        raise OddAnswerError(f"{asked} redirects more than {_MAX_HOPS} times")

    @contextmanager
    def range(
        self, url: str, pin: Mapping[str, str], start: int, length: int
    ) -> Iterator[ByteRange]:
        """GET ``length`` bytes from ``start``; ``pin`` are headers that get no other generation's.

        Raises:
            ObjectChangedError, AccessDeniedError, InvalidSourceError, UnreachableError
        """
        METRICS.source_requests.labels("get").inc()
        asked = url
        for _ in range(_MAX_HOPS):
            origin, target = _split(url)
            headers = {**_AS_IS, **pin, **self._authorization(origin)}
            try:
                with self._ranges_of(origin).get(target, headers, start, length) as body:
                    yield body
                    return
            except RefusedError as refusal:
                if refusal.status == 200:
                    self.gives_ranges = False
                    raise UnreachableError(
                        f"{asked} can only be read as a whole, as its server gives no ranges; it is"
                        " fetched so after the next look"
                    ) from refusal
                if refusal.status not in _REDIRECTS or not refusal.elsewhere:
                    answer = as_answer(refusal)
                    raise self._refused(answer, asked, ObjectChangedError) from refusal
                url = self._next_hop(url, refusal.elsewhere)
        raise OddAnswerError(f"{asked} redirects more than {_MAX_HOPS} times")

    def _next_hop(self, url: str, elsewhere: str) -> str:
        try:
            # Servers write names as they are, in bytes that http.client reads as Latin-1.
            target = urljoin(url, quote(elsewhere.encode("latin-1"), safe=_URL_SAFE))
            scheme = urlsplit(target).scheme
            check_address(target)
        except ValueError:
            raise InvalidSourceError(
                f"{without_secrets(url)} redirects to what is no URL"
            ) from None
        if scheme not in ("http", "https") or (self._location.scheme == "https" != scheme):
            raise InvalidSourceError(
                f"{without_secrets(url)} redirects to {scheme}://, which is not followed; give the"
                " URI of where the files are"
            )
        return target

    def _authorization(self, origin: str) -> dict[str, str]:
        # Never to another server, whoever redirects there.
        if origin != self.origin:
            return {}
        if token := self._credentials.get("HTTP_BEARER_TOKEN"):
            return {"Authorization": f"Bearer {token}"}
        name, password = self._credentials.together("HTTP_USERNAME", "HTTP_PASSWORD")
        if name and password:
            encoded = base64.b64encode(f"{name}:{password}".encode()).decode()
            return {"Authorization": f"Basic {encoded}"}
        return {}

    @property
    def _principal(self) -> str:
        if self._credentials.get("HTTP_BEARER_TOKEN"):
            return "the bearer of HTTP_BEARER_TOKEN"
        return self._credentials.get("HTTP_USERNAME") or "an anonymous caller"

    def _refused(
        self, answer: Answer, where: str, gone: Callable[[str], PollerError]
    ) -> PollerError:
        if answer.status in (401, 403):
            return AccessDeniedError(
                f"{self._principal} may not read {where} ({answer.status}); allow it, or give"
                " HTTP_USERNAME and HTTP_PASSWORD or HTTP_BEARER_TOKEN"
            )
        if answer.status in (404, 410, 412, 416):
            return gone(where)
        return unexpected(
            f"reading {where} was answered {answer.status}; it is tried again: let its server give"
            " it, or list it no more",
            answer,
        )

    def _missing(self, where: str) -> PollerError:
        if where.rstrip("/") == self._location.uri:
            return BucketNotFoundError(
                f"there is nothing at {where}; correct the storage URI, or let the server show the"
                " folder's index"
            )
        return ObjectChangedError(where)

    def _calls_of(self, origin: str) -> HttpCalls:
        with self._lock:
            return _kept(self._calls, origin, HttpCalls)

    def _ranges_of(self, origin: str) -> HttpRanges:
        with self._lock:
            return _kept(self._ranges, origin, HttpRanges)


def _kept(known: dict[str, _Server], origin: str, connect: Callable[[str], _Server]) -> _Server:
    """Those of one server, which were used last from now on; others may go for them."""
    found = known.pop(origin, None) or connect(origin)
    known[origin] = found
    if len(known) > _MAX_ORIGINS:
        # Whoever uses it at this moment goes on with the connection that they have.
        known.pop(next(iter(known))).close()
    return found


_URL_SAFE = "!#$%&'()*+,/:;=?@[]~"


def _split(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    query = f"?{parts.query}" if parts.query else ""
    return origin_of(url), f"{parts.path or '/'}{query}"
