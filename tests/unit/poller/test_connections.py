"""The way to a server through a proxy."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from model_poller.errors import InvalidSettingsError, UnreachableError
from model_poller.stores.http_calls import HttpCalls
from tests.unit.poller.answering import Answering, Reply

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOST = "store.example"


@pytest.fixture(autouse=True)
def _no_other_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Key and certificate of the store, which the poller trusts."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "store.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + made.public_bytes(serialization.Encoding.PEM)
    )
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(path))
    return path


class Proxy:
    """Leads everybody who asks to one server, and keeps what was asked."""

    def __init__(self, port: int, status: str = "200 OK", pause: float = 0.0) -> None:
        """``pause`` in seconds, before what the server answers is passed on."""
        self._pause = pause
        self.asked: list[bytes] = []
        self._port = port
        self._status = status
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listening.getsockname()[1]}"
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Proxy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join()

    def _run(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            with client:
                asked = b""
                while not asked.endswith(b"\r\n\r\n"):
                    asked += client.recv(1)
                self.asked.append(asked)
                client.sendall(f"HTTP/1.1 {self._status}\r\n\r\n".encode())
                if self._status.startswith("200"):
                    with socket.create_connection(("127.0.0.1", self._port)) as server:
                        back = threading.Thread(target=_pass_on, args=(server, client))
                        time.sleep(self._pause)
                        back.start()
                        _pass_on(client, server)
                        back.join()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    try:
        while piece := source.recv(4096):
            target.sendall(piece)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"GET {self.path}".encode())

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def store(certificate: Path) -> Iterator[int]:
    """The store behind TLS; its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with HTTPServer(("127.0.0.1", 0), _Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_a_store_is_reached_through_the_proxy(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store(certificate) as port, Proxy(port) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://me:s%40cret@{proxy.address}")
        calls = HttpCalls(f"https://{HOST}")
        answer = calls.send("GET", "/1.zip", {}, b"")
        calls.close()
    assert answer.body == b"GET /1.zip"
    (asked,) = proxy.asked
    assert asked.startswith(f"CONNECT {HOST}:443 ".encode())
    assert b"Proxy-Authorization: Basic bWU6c0BjcmV0\r\n" in asked


def test_a_server_that_is_silent_behind_a_proxy_is_given_up(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store(certificate) as port, Proxy(port, pause=2.5) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://{proxy.address}")
        calls = HttpCalls(f"https://{HOST}", 1.2)
        with pytest.raises(UnreachableError, match="timed out"):
            calls.send("GET", "/1.zip", {}, b"")
        calls.close()


def test_a_proxy_that_refuses_is_told_without_its_password(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Proxy(0, "407 Proxy Authentication Required") as proxy:
        monkeypatch.setenv("https_proxy", f"me:s3cret@{proxy.address}")
        calls = HttpCalls(f"https://{HOST}")
        with pytest.raises(UnreachableError, match="407 Proxy Authentication Required") as told:
            calls.send("GET", "/1.zip", {}, b"")
    assert "s3cret" not in str(told.value)


@pytest.mark.usefixtures("certificate")
def test_hosts_that_need_no_proxy_are_asked_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    with Proxy(0) as proxy, Answering(lambda _: Reply(200, "here")) as server:
        monkeypatch.setenv("HTTPS_PROXY", f"http://{proxy.address}")
        calls = HttpCalls(server.url)
        assert calls.send("GET", "/", {}, b"").body == b"here"
        calls.close()
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        with pytest.raises(UnreachableError):
            HttpCalls(server.url.replace("http:", "https:")).send("GET", "/", {}, b"")
    assert proxy.asked == []


@pytest.mark.parametrize(
    "named", ["socks5://proxy:1080", "http://proxy:port", "http://[proxy", "/"]
)
def test_what_names_no_proxy_is_told_at_the_start(
    monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", named)
    with pytest.raises(InvalidSettingsError, match=r"HTTPS_PROXY .* write http://HOST:PORT"):
        HttpCalls(f"https://{HOST}")


def test_a_length_that_is_signed_is_sent_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        host, port = listening.getsockname()
        calls = HttpCalls(f"http://{host}:{port}", 5)
        heads: list[bytes] = []

        def answer() -> None:
            connection, _ = listening.accept()
            with connection:
                heads.append(connection.recv(65536))
                connection.sendall(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        calls.send("PUT", "/models/1.zip", {"content-length": "4"}, b"good")
        thread.join(5)
        calls.close()
    assert heads[0].lower().count(b"content-length: 4") == 1
