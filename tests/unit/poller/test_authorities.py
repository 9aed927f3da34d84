"""Servers whose certificates are of an authority of a company's own."""

from __future__ import annotations

import asyncio
import ssl
import threading
from contextlib import asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING

import grpc
import grpc.aio
import pytest

from model_poller.errors import InvalidSettingsError, UnreachableError
from model_poller.notifications import pubsub
from model_poller.notifications.pubsub import Subscription
from model_poller.stores import trust
from model_poller.stores.credentials import Credentials
from model_poller.stores.http_calls import HttpCalls
from tests.support.certificates import Authority
from tests.unit.poller.test_connections import Proxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", trust.BUNDLE, trust.EXTRA):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"there")

    def log_message(self, *_: object) -> None:
        pass


class _Quiet(HTTPServer):
    def handle_error(self, *_: object) -> None:
        """Who doesn't trust the certificate ends the connection."""


@contextmanager
def https(pem: str, folder: Path) -> Iterator[str]:
    """A server with this key and certificate; its URL."""
    file = folder / "server.pem"
    file.write_text(pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    with _Quiet(("127.0.0.1", 0), _Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"https://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def ask(calls: HttpCalls) -> bytes:
    try:
        return calls.send("GET", "/", {}).body
    finally:
        calls.close()


def test_a_certificate_of_nobody_known_is_told_with_the_way_out(tmp_path: Path) -> None:
    with (
        https(Authority().issue("127.0.0.1"), tmp_path) as url,
        pytest.raises(UnreachableError, match="is not trusted") as told,
    ):
        ask(HttpCalls(url))
    assert "spec.poller.extraCAs" in str(told.value)
    assert "EXTRA_CA_FILE" in str(told.value)


def test_an_extra_authority_is_trusted_beside_all_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, ours = tmp_path / "ca.crt", Authority()
    file.write_text(f"# Überschrift\n{Authority('another').certificate}\n{ours.certificate}")
    usual = trust.context().cert_store_stats()["x509"]
    monkeypatch.setenv(trust.EXTRA, str(file))
    with https(ours.issue("127.0.0.1"), tmp_path) as url:
        assert ask(HttpCalls(url)) == b"there"
    assert trust.context().cert_store_stats()["x509"] == usual + 2


def test_an_authority_that_comes_later_is_trusted_without_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    file, ours = tmp_path / "ca.crt", Authority()
    file.write_text(Authority("the one before").certificate)
    monkeypatch.setenv(trust.EXTRA, str(file))
    with https(ours.issue("127.0.0.1"), tmp_path) as url:
        calls = HttpCalls(url)
        with pytest.raises(UnreachableError):
            ask(calls)
        file.write_text(f"{ours.certificate}\n")
        assert ask(calls) == b"there"
        assert "was replaced and is read anew" in caplog.text

        file.write_text("half a fi")
        assert ask(calls) == b"there"
        assert ask(calls) == b"there"
    assert caplog.text.count("what it held before counts") == 1


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "No such file"),
        ("", "no certificate"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "no file of cert"),
        ("x" * (trust.LARGEST_BYTES + 1), "more than 4 MiB"),
    ],
)
def test_what_holds_no_authority_is_refused_with_the_field(
    content: str | None, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "ca.crt"
    if content is not None:
        file.write_text(content)
    monkeypatch.setenv(trust.EXTRA, str(file))
    for judge in (trust.check, trust.context, trust.roots):
        with pytest.raises(InvalidSettingsError, match=told) as caught:
            judge()
        assert str(caught.value).startswith(f"EXTRA_CA_FILE={file} ")
        assert "the ConfigMap of spec.poller.extraCAs" in str(caught.value)


def listener() -> Subscription:
    return Subscription(
        "projects/p/subscriptions/s",
        None,
        credentials=Credentials({}),
        on_object=lambda *_: None,
        on_connect=lambda: None,
        report=lambda _: None,
    )


async def reaches(host: str) -> bool:
    """Whether the channel to Pub/Sub, were it there, can be opened."""
    pubsub_host, pubsub.HOST = pubsub.HOST, host
    try:
        async with listener()._open_channel() as channel:
            await asyncio.wait_for(channel.channel_ready(), 5)
            return True
    except TimeoutError:
        return False
    finally:
        pubsub.HOST = pubsub_host


@asynccontextmanager
async def grpc_server(pem: str) -> AsyncIterator[int]:
    """A server of gRPC with this key and certificate; its port."""
    server = grpc.aio.server()
    key, certificate = pem.split("-----BEGIN CERTIFICATE", 1)
    pair = (key.encode(), f"-----BEGIN CERTIFICATE{certificate}".encode())
    port = server.add_secure_port("localhost:0", grpc.ssl_server_credentials([pair]))
    await server.start()
    yield port
    await server.stop(None)


def test_pubsub_trusts_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, file = Authority(), tmp_path / "ca.crt"
    file.write_text(ours.certificate)

    async def judge() -> tuple[bool, bool]:
        async with grpc_server(ours.issue("localhost")) as port:
            before = await reaches(f"localhost:{port}")
            monkeypatch.setenv(trust.EXTRA, str(file))
            return before, await reaches(f"localhost:{port}")

    assert asyncio.run(judge()) == (False, True)


@pytest.mark.parametrize("later", [None, "half a fi", "-----BEGIN CERTIFICATE-----\nAAAA"])
def test_what_pubsub_was_believed_by_counts_until_there_is_something_better(
    later: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "ca.crt"
    file.write_text(Authority().certificate)
    monkeypatch.setenv(trust.EXTRA, str(file))
    before = trust.roots()
    file.unlink()
    if later is not None:
        file.write_text(later)
    assert trust.roots() == before
    file.write_text(other := Authority("another").certificate)
    assert (trust.roots() or b"").endswith(other.encode())


def test_pubsub_is_reached_through_the_proxy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, file = Authority(), tmp_path / "ca.crt"
    file.write_text(ours.certificate)
    monkeypatch.setenv(trust.EXTRA, str(file))

    async def judge() -> tuple[list[bytes], bool]:
        async with grpc_server(ours.issue("pubsub.example")) as port:
            with Proxy(port) as proxy:
                monkeypatch.setenv("HTTPS_PROXY", f"http://me:s%40cret@{proxy.address}")
                return proxy.asked, await reaches("pubsub.example:443")

    (asked, *_), reached = asyncio.run(judge())
    assert reached
    assert asked.startswith(b"CONNECT pubsub.example:443 ")
    assert b"Proxy-Authorization: Basic bWU6c0BjcmV0" in asked
