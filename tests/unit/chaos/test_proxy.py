"""The proxy passes on what it is to pass on, and spoils what it is to spoil."""

from __future__ import annotations

import http.client
import http.server
from typing import TYPE_CHECKING

import pytest

from chaos.proxy import HONEST, Proxy, Treatment
from tests.support.http_servers import serving

if TYPE_CHECKING:
    from collections.abc import Iterator

ARCHIVE = b"PK\x03\x04" + bytes(range(200))


class _Target(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(ARCHIVE if self.path == "/archive" else self.path.encode())

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(self.headers["X-Key"].encode() + body)

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Told", "yes")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def proxy() -> Iterator[Proxy]:
    with serving(_Target) as url, Proxy("127.0.0.1", url) as running:
        yield running


def ask(
    proxy: Proxy, path: str, treatment: Treatment = HONEST, method: str = "GET", body: bytes = b""
) -> tuple[int, bytes, str | None]:
    proxy.treatment = treatment
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=10)
    try:
        connection.request(method, path, body or None, {"X-Key": "k"})
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.getheader("X-Told")
    finally:
        connection.close()
        proxy.treatment = HONEST


def test_what_is_asked_and_answered_passes_unchanged(proxy: Proxy) -> None:
    assert ask(proxy, "/a%2Fb?c=%20d") == (200, b"/a%2Fb?c=%20d", "yes")
    assert ask(proxy, "/x", method="POST", body=b"body") == (200, b"kbody", "yes")
    assert ask(proxy, "/archive") == (200, ARCHIVE, "yes")


def test_a_server_that_is_away_closes_the_connection(proxy: Proxy) -> None:
    with pytest.raises((http.client.HTTPException, OSError)):
        ask(proxy, "/x", Treatment(away=True))


def test_a_server_refuses(proxy: Proxy) -> None:
    assert ask(proxy, "/x", Treatment(statuses=(429,)))[0] == 429


def test_an_archive_is_cut_or_changed_and_a_listing_is_not(proxy: Proxy) -> None:
    with pytest.raises((http.client.IncompleteRead, OSError)):
        ask(proxy, "/archive", Treatment(keep=0.5))
    status, body, _ = ask(proxy, "/archive", Treatment(flip=True))
    assert status == 200
    assert len(body) == len(ARCHIVE)
    assert body != ARCHIVE
    assert ask(proxy, "/list", Treatment(flip=True, keep=0.5))[1] == b"/list"


def test_only_a_part_of_the_requests_is_treated(proxy: Proxy) -> None:
    half = Treatment(statuses=(500,), part=0.5)
    assert {ask(proxy, "/x", half)[0] for _ in range(40)} == {200, 500}
