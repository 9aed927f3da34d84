"""Who asks Google: tokens from a process that is there only for them."""

from __future__ import annotations

import base64
import http.server
import json
import logging
import os
import subprocess
import sys
import threading
import time
import urllib.parse
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from model_poller.errors import AccessDeniedError, InvalidSettingsError, UnreachableError
from model_poller.stores import google
from model_poller.stores.credentials import Credentials
from model_poller.stores.gcs import SCOPE
from model_poller.stores.google import GoogleIdentity

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class _Server(http.server.ThreadingHTTPServer):
    def __init__(self, handler: type[http.server.BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server_port}"


@pytest.fixture(scope="module")
def pem() -> str:
    key = rsa.generate_private_key(65537, 2048)
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(encoding, form, serialization.NoEncryption()).decode()


@pytest.fixture
def tokens() -> Iterator[str]:
    """A server that hands out tokens, each called after whose key asked for it."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            form = urllib.parse.parse_qs(
                self.rfile.read(int(self.headers["Content-Length"])).decode()
            )
            claims = form["assertion"][0].split(".")[1]
            claims += "=" * (-len(claims) % 4)
            claimed = json.loads(base64.urlsafe_b64decode(claims))
            issuer = claimed["iss"]
            body = json.dumps(
                {"access_token": f"of {issuer} for {claimed['scope']}", "expires_in": 3600}
            ).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = _Server(Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"{server.url}/token"
    server.shutdown()
    server.server_close()


def put_key(folder: Path, email: str, pem: str, tokens: str) -> Path:
    key = {
        "type": "service_account",
        "client_email": email,
        "private_key": pem,
        "private_key_id": "1",
        "token_uri": tokens,
    }
    (folder / "new").write_text(json.dumps(key))
    # As the kubelet does, and as somebody who rotates a key.
    return (folder / "new").rename(folder / "key.json")


class Program:
    """Answers in place of Google's library, and counts how often it was started."""

    def __init__(self, folder: Path, answer: object) -> None:
        self._answer = folder / "answer"
        self._started = folder / "started"
        self._started.touch()
        self.tell(answer)
        code = (
            f"import sys; open({str(self._started)!r}, 'a').write('x');"
            f"sys.stdout.write(open({str(self._answer)!r}).read())"
        )
        self.argv = (sys.executable, "-I", "-S", "-c", code)

    def tell(self, answer: object) -> None:
        self._answer.write_text(answer if isinstance(answer, str) else json.dumps(answer))

    @property
    def count(self) -> int:
        return len(self._started.read_text())


def token(name: str, seconds: float) -> dict[str, object]:
    return {"token": name, "expires": time.time() + seconds, "principal": f"{name}@example.com"}


@pytest.mark.parametrize("told_by", ["the folder", "the environment"])
def test_a_replaced_key_is_read_anew(
    tmp_path: Path, pem: str, tokens: str, told_by: str, caplog: pytest.LogCaptureFixture
) -> None:
    def proof() -> str:
        return identity.prove()["Authorization"].removesuffix(f" for {SCOPE}")

    path = put_key(tmp_path, "old@example.com", pem, tokens)
    given = (
        Credentials(folder=tmp_path)
        if told_by == "the folder"
        else Credentials({"GOOGLE_APPLICATION_CREDENTIALS": str(path)})
    )
    identity = GoogleIdentity(given, SCOPE)
    identity.begin()
    assert proof() == "Bearer of old@example.com"
    assert identity.principal == "old@example.com"
    put_key(tmp_path, "new@example.com", pem, tokens)
    assert proof() == "Bearer of new@example.com"
    assert identity.principal == "new@example.com"
    path.write_text("{")
    with caplog.at_level(logging.WARNING):
        assert proof() == "Bearer of new@example.com"
    assert "the key before counts" in caplog.text
    put_key(tmp_path, "third@example.com", pem, tokens)
    assert proof() == "Bearer of third@example.com"


@pytest.mark.parametrize("content", ["{", "{}", '{"type": "service_account"}'])
def test_a_key_file_without_a_key_is_told(tmp_path: Path, content: str) -> None:
    (tmp_path / "key.json").write_text(content)
    with pytest.raises(InvalidSettingsError, match="no Google credentials found"):
        GoogleIdentity(Credentials(folder=tmp_path), SCOPE).begin()


def test_a_token_is_asked_for_once_while_it_counts(tmp_path: Path) -> None:
    program = Program(tmp_path, token("a", 3600))
    identity = GoogleIdentity(Credentials(), SCOPE, program.argv)
    identity.begin()
    assert [identity.prove()["Authorization"] for _ in range(5)] == ["Bearer a"] * 5
    assert program.count == 1
    program.tell(token("b", 3600))
    identity.forget()
    assert identity.prove() == {"Authorization": "Bearer b"}


def test_a_machine_that_hands_out_the_same_token_until_the_last_minute_is_not_asked_for_each_range(
    tmp_path: Path,
) -> None:
    program = Program(tmp_path, token("a", 200))
    identity = GoogleIdentity(Credentials(), SCOPE, program.argv)
    for _ in range(5):
        assert identity.prove() == {"Authorization": "Bearer a"}
    assert program.count == 1


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        ({"none": "there are none"}, AccessDeniedError, "there are none"),
        ({"refused": "the key was deleted"}, AccessDeniedError, "the key was deleted"),
        ({"unreachable": "no answer"}, UnreachableError, "no answer"),
        ("", UnreachableError, "no access token could be made"),
        ("{", UnreachableError, "no access token could be made"),
        ('{"token": 3}', UnreachableError, "exit code 0"),
    ],
)
def test_why_there_is_no_token_is_told(
    tmp_path: Path, answer: object, error: type[Exception], words: str
) -> None:
    identity = GoogleIdentity(Credentials(), SCOPE, Program(tmp_path, answer).argv)
    with pytest.raises(error, match=words):
        identity.prove()
    assert identity.principal == "the caller"


def test_a_process_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(google, "_LIMIT_SECONDS", 0.2)
    hangs = (sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)")
    with pytest.raises(UnreachableError, match="TimeoutExpired"):
        GoogleIdentity(Credentials(), SCOPE, hangs).prove()


def test_a_start_needs_credentials_but_no_answer(tmp_path: Path) -> None:
    for answer in ({"unreachable": "no answer"}, {"refused": "the key was deleted"}):
        GoogleIdentity(Credentials(), SCOPE, Program(tmp_path, answer).argv).begin()
    with pytest.raises(InvalidSettingsError):
        GoogleIdentity(Credentials(), SCOPE, Program(tmp_path, {"none": "none"}).argv).begin()


def test_a_pod_waits_for_an_identity_that_is_late_but_not_for_a_key(tmp_path: Path) -> None:
    program = Program(tmp_path, {"none": "no Google credentials found"})
    in_a_pod = {"KUBERNETES_SERVICE_HOST": "10.96.0.1"}
    identity = GoogleIdentity(Credentials(in_a_pod), SCOPE, program.argv)
    identity.begin()
    with pytest.raises(AccessDeniedError, match="no Google credentials found"):
        identity.prove()
    program.tell(token("late", 3600))
    assert identity.prove() == {"Authorization": "Bearer late"}
    missing = in_a_pod | {"GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path / "missing.json")}
    program.tell({"none": "no Google credentials found"})
    with pytest.raises(InvalidSettingsError):
        GoogleIdentity(Credentials(missing), SCOPE, program.argv).begin()


def test_nothing_heavy_is_imported_while_a_bucket_is_only_looked_into() -> None:
    heavy = ["google.auth", "google.cloud", "google.api_core", "requests", "cryptography", "awscrt"]
    program = (
        "import sys, model_poller.main, model_poller.stores.gcs, model_poller.notifications.pubsub;"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert done.stdout.strip() == "[]"
