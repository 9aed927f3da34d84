"""Lets Google's libraries ask over the poller's own connections.

They speak through requests, whose rules for certificates, proxies and time limits are others: a
listing that trickled had no end. Ranges are read without requests, which takes half as much again
of a core (0.22 s instead of 0.15 s for 512 MB), as its bytes go through one buffer more.
"""

from __future__ import annotations

import io
import threading
import zlib
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import requests
from google.auth.transport.requests import AuthorizedSession, Request
from requests.adapters import BaseAdapter
from requests.structures import CaseInsensitiveDict

from model_poller.errors import UnreachableError
from model_poller.stores.http_calls import HttpCalls

if TYPE_CHECKING:
    from google.auth.credentials import Credentials

_LIMIT_BYTES = 64 << 20
"""Of an answer when it is unpacked."""


class GoogleHttp:
    """A session for Google's libraries, and what renews their credentials."""

    def __init__(self, credentials: Credentials) -> None:
        self._adapter = _Adapter()
        self.refresh = Request(self._prepared(requests.Session()))
        self.session = self._prepared(AuthorizedSession(credentials, auth_request=self.refresh))

    def _prepared(self, session: Any) -> Any:
        # Nothing of the environment but what our own connections read.
        session.trust_env = False
        for scheme in ("https://", "http://"):
            session.mount(scheme, self._adapter)
        return session

    def close(self) -> None:
        """Close all connections."""
        self.session.close()
        self.refresh.session.close()


class _Adapter(BaseAdapter):
    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._calls: dict[str, HttpCalls] = {}

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        """Ask, with the retries and deadlines that all our questions have."""
        parts = urlsplit(request.url or "")
        origin = f"{parts.scheme}://{parts.netloc}"
        with self._lock:
            calls = self._calls.setdefault(origin, HttpCalls(origin))
        headers = {**request.headers, "Accept-Encoding": "gzip"}
        body = request.body or b""
        try:
            answer = calls.ask(
                request.method or "GET",
                lambda: (request.path_url, headers),
                body.encode() if isinstance(body, str) else body,
            )
        except UnreachableError as error:
            raise requests.exceptions.ConnectionError(str(error), request=request) from error
        response = requests.Response()
        response.status_code = answer.status
        response.headers = CaseInsensitiveDict(answer.headers)
        response.url, response.request = request.url or "", request
        content = answer.body
        if answer.header("Content-Encoding") == "gzip":
            content = _unpacked(content, request)
        response.raw = io.BytesIO(content)
        return response

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            for calls in self._calls.values():
                calls.close()


def _unpacked(content: bytes, request: requests.PreparedRequest) -> bytes:
    unpacking = zlib.decompressobj(wbits=31)
    try:
        whole = unpacking.decompress(content, _LIMIT_BYTES)
    except zlib.error as error:
        raise requests.exceptions.ContentDecodingError(str(error), request=request) from error
    if not unpacking.eof:
        raise requests.exceptions.ContentDecodingError("it is cut or too large", request=request)
    return whole
