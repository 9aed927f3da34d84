"""A web server that gives no ranges, behind a list that doesn't say so."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING

import pytest

from model_poller import fetch
from model_poller.errors import UnreachableError
from model_poller.retry import RetryPolicy
from model_poller.stores.credentials import Credentials
from model_poller.stores.http import HttpSource
from model_poller.stores.uri import parse_uri
from tests.unit.poller.answering import Answering, Reply, Request
from tests.unit.poller.doubles import model, zipped

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CONTENT = b"0123456789" * 10


def answer(request: Request) -> Reply:
    if request.target == "/models/index.json":
        listed = [{"name": "1/weights", "size": len(CONTENT), "etag": '"a"'}]
        return Reply(200, json.dumps(listed), {"Content-Type": "application/json"})
    return Reply(200, CONTENT, {"ETag": '"a"'})


def download(source: HttpSource, folder: Path) -> None:
    fetch.download(
        source,
        {folder / stored.path: stored for stored in source.list()},
        stopped=threading.Event(),
        progress=lambda _: None,
    )


def fetch_twice(
    behave: Callable[[Request], Reply], path: str, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first look finds out that there are no ranges; the second one does without."""
    monkeypatch.setattr(fetch, "PART_BYTES", 16)
    monkeypatch.setattr(fetch, "RETRIES", RetryPolicy(2, 0.01, 0.01))
    with Answering(behave) as server:
        source = HttpSource(parse_uri(f"{server.url}{path}"), credentials=Credentials())
        with pytest.raises(UnreachableError, match="gives no ranges; it is fetched so after"):
            download(source, into)
        download(source, into)
        source.close()


def test_its_files_are_fetched_as_a_whole_from_the_second_look_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch_twice(answer, "/models/index.json", tmp_path, monkeypatch)
    assert (tmp_path / "1/weights").read_bytes() == CONTENT


@pytest.mark.parametrize("uri", ["/models", "/models/1.zip", "/models/export.zip"])
def test_one_that_promises_ranges_is_believed_no_longer_than_until_it_gives_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str
) -> None:
    bundle = zipped({f"1/{name}": content for name, content in model().items()})

    def promising(request: Request) -> Reply:
        if request.target == "/models/":
            return Reply(200, '<a href="1.zip">1</a>', {"Content-Type": "text/html"})
        return Reply(200, bundle, {"ETag": '"a"', "Accept-Ranges": "bytes"})

    fetch_twice(promising, uri, tmp_path, monkeypatch)
    (fetched,) = tmp_path.iterdir()
    assert fetched.read_bytes() == bundle
