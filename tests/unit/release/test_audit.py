"""The audit asks for what the locks pin, and never says that all is well when nobody could tell."""

from __future__ import annotations

import json
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any

import pytest

from release import audit
from release.errors import AuditError
from tests.support.crd import ROOT
from tests.support.http_servers import serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOCK = """\
bad==1.0 \\
    --hash=sha256:00
good==2.0 ; python_version >= '3.11' \\
    --hash=sha256:00
never==3.0 ; sys_platform == 'never' \\
    --hash=sha256:00
"""


@contextmanager
def database(answer: bytes | None = None) -> Iterator[tuple[str, list[Any]]]:
    """A stand-in for osv.dev that knows of one vulnerability; what it was asked."""
    asked: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            queries = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["queries"]
            asked.append(queries)
            results = [
                {"vulns": [{"id": "GHSA-1"}]} if query["package"]["name"] == "bad" else {}
                for query in queries
            ]
            content = json.dumps({"results": results}).encode() if answer is None else answer
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with serving(Handler) as url:
        yield url, asked


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    path = tmp_path / "some.lock"
    path.write_text(LOCK)
    return path


def test_a_vulnerability_is_told_with_its_package_and_lock(lock: Path) -> None:
    with database() as (address, asked), pytest.raises(AuditError) as error:
        audit.run([lock], address)
    assert "some.lock: bad 1.0 has GHSA-1" in str(error.value)
    assert [[query["package"]["name"] for query in queries] for queries in asked] == [
        ["bad", "good"]
    ]
    assert asked[0][1] == {"package": {"name": "good", "ecosystem": "PyPI"}, "version": "2.0"}


def test_without_one_it_says_what_was_asked_and_of_whom(lock: Path) -> None:
    lock.write_text(LOCK.replace("bad", "better"))
    with database() as (address, _):
        told = audit.run([lock], address)
    assert told == f"2 pins of some.lock: {address} knows of no vulnerability"


@pytest.mark.parametrize("answer", [b"", b"[]", b'{"results": []}', b"<html>"])
def test_another_answer_is_no_all_clear(lock: Path, answer: bytes) -> None:
    with database(answer) as (address, _), pytest.raises(AuditError, match=address):
        audit.run([lock], address)


def test_a_database_that_cannot_be_reached_is_no_all_clear(lock: Path) -> None:
    with database() as (address, _):
        pass
    with pytest.raises(AuditError, match="nothing was audited"):
        audit.run([lock], address)


@pytest.mark.parametrize("name", ["operator", "poller", "plugin", "devserver", "dev"])
def test_every_pin_of_the_projects_locks_is_read(name: str) -> None:
    text = (ROOT / "requirements" / f"{name}.lock").read_text()
    pinned = [line for line in text.splitlines() if line[:1].isalnum() and "'never'" not in line]
    assert len(audit.pins(name, text)) == len(pinned) > 20
