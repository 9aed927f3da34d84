"""No secret is shown, wherever it was written."""

from __future__ import annotations

import http.server
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_poller import main as poller
from model_poller.errors import InvalidSettingsError, PollerError
from model_poller.publishing import main as publisher
from model_poller.stores.connections import Connections
from model_poller.stores.credentials import Credentials, shown_uri, without_secrets
from model_poller.stores.http import HttpSource
from model_poller.stores.uri import parse_uri

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SCHEMES = ("gs", "s3", "az", "https", "http", "pvc", "file", "ftp", "s3a")
HELD = [
    "{}://bucket/models?sig=S3CR3T",
    "{}://bucket/models?sv=2021&se=2027&sig=S3CR3T%3D",
    "{}://bucket/models?X-Amz-Signature=S3CR3T&X-Amz-Expires=3",
    "{}://user:S3CR3T@bucket/models",
    "{}://S3CR3T@bucket/models",
    "{}://user:SE/S3CR3T@bucket/models",
    "{}://user:a?S3CR3T@bucket/models",
    "{}://user:a#S3CR3T@bucket/models",
    "{}://bucket/models?token=a@S3CR3T",
    "{}://user:p S3CR3T@bucket/models",
    "{}://user:'S3CR3T'@bucket/models",
]


@pytest.mark.parametrize("held", HELD)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_secret_in_a_storage_uri_is_refused_and_not_shown(
    tmp_path: Path, scheme: str, held: str, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = held.format(scheme)
    if scheme == "file":
        uri = uri.replace("bucket", "") if "@" not in uri else uri
    (tmp_path / "export").mkdir()
    codes = [
        poller.main(["--models-dir", str(tmp_path), "--model-name=m", f"--storage-uri={uri}"]),
        poller.main(
            [
                *("--models-dir", str(tmp_path), "--model-name=m", "--storage-uri=file:///x"),
                *("--http-port=1", f"--warmup-requests={uri}"),
            ]
        ),
        publisher.main([str(tmp_path / "export"), uri]),
    ]
    told = capsys.readouterr()
    assert codes[0] == codes[2] == 2
    assert "S3CR3T" not in told.err + told.out


@pytest.mark.parametrize(
    "option",
    [
        "--endpoint=https://user:S3CR3T@host",
        "--endpoint=https://host/?sig=S3CR3T",
        "--sqs-queue-url=https://user:S3CR3T@sqs.eu-west-1.amazonaws.com/1/q",
        "--sqs-queue-url=https://sqs.eu-west-1.amazonaws.com/1/q?token=S3CR3T",
        "--pubsub-endpoint=user:S3CR3T@host:1",
        "--server-address=user:S3CR3T@host:1",
        "--unknown=https://user:S3CR3T@host",
        "--poll-interval=https://host/?sig=S3CR3T",
    ],
)
def test_a_secret_in_an_option_is_refused_and_not_shown(
    tmp_path: Path, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--models-dir", str(tmp_path), "--model-name=m", "--storage-uri=s3://bucket/x"]
    assert poller.main([*arguments, "--http-port=0", option]) == 2
    told = capsys.readouterr()
    assert "S3CR3T" not in told.err + told.out


def test_an_endpoint_of_the_environment_is_not_shown_either() -> None:
    with pytest.raises(InvalidSettingsError) as told:
        Connections("https://user:S3CR3T@host:port", 1.0)
    assert "S3CR3T" not in str(told.value)


@given(secret=st.text("abc:/?#@&=%'\" ", min_size=1, max_size=12))
def test_whatever_stands_before_the_host_or_in_the_query_is_hidden(secret: str) -> None:
    marked = f"S3CR{secret}T"
    for uri in (f"https://user:{marked}@host/x", f"https://host/x?sig={marked}"):
        assert "S3CR" not in shown_uri(uri)


def test_urls_are_hidden_in_messages_too() -> None:
    told = without_secrets("https://u:p@h/x?sig=1 and s3://b/k, or u:p@h:1 by ada@example.com")
    assert told == "https://…@h/x?… and s3://b/k, or …@h:1 by ada@example.com"


def test_a_file_system_may_have_odd_names() -> None:
    assert parse_uri("file:///models/@v1#2/what?").prefix == "models/@v1#2/what?"
    assert parse_uri("https://host/@v1/x").prefix == "@v1/x"
    assert parse_uri("https://[::1]/@v1/x").prefix == "@v1/x"


class _Server(http.server.ThreadingHTTPServer):
    def __init__(self, handler: type[http.server.BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def redirecting() -> Iterator[str]:
    """A server that signs the URL of where the files are, as those before a bucket do."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            first = "?" not in self.path
            self.send_response(302)
            target = "/there?X-Amz-Signature=S3CR3T" if first else "ftp://user:S3CR3T@host/x"
            self.send_header("Location", target)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = _Server(Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server.url
    server.shutdown()
    server.server_close()


def test_a_signed_url_that_was_redirected_to_is_not_shown(redirecting: str) -> None:
    source = HttpSource(parse_uri(f"{redirecting}/models"), credentials=Credentials())
    with pytest.raises(PollerError, match="redirects to ftp://") as told:
        source.list()
    source.close()
    assert "S3CR3T" not in str(told.value)
