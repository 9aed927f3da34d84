"""Objects of one part on S3: one call brings the bytes and what they have to be."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import google_crc32c
import pytest

from model_poller import fetch
from model_poller.errors import CorruptDownloadError, ObjectChangedError
from model_poller.fetch import FetchLimits
from model_poller.stores import StoredObject
from model_poller.stores.credentials import Credentials
from model_poller.stores.s3 import S3Source
from model_poller.stores.uri import parse_uri
from model_poller.volume.journal import Journal
from tests.unit.poller.answering import Answering, Reply, Request, s3_checksum, shown

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONTENT = b"some weights"
STORED = StoredObject(
    root=parse_uri("s3://models"), path="1/x", size=len(CONTENT), generation="several-2"
)


class S3:
    """One object, told with its checksum where all of it is asked for, as S3 does."""

    def __init__(self) -> None:
        self.content = CONTENT
        self.told = CONTENT
        self.tag = STORED.generation
        self.refusals: list[int] = []

    def __call__(self, request: Request) -> Reply:
        if self.refusals:
            return Reply(self.refusals.pop(0))
        headers = {"ETag": f'"{self.tag}"'}
        is_whole = "Range" not in request.headers
        if is_whole and request.headers.get("x-amz-checksum-mode") == "ENABLED":
            headers |= s3_checksum(self.told)
        return shown(request, self.content, headers)


@pytest.fixture
def store() -> S3:
    return S3()


@pytest.fixture
def server(store: S3) -> Iterator[Answering]:
    with Answering(store) as running:
        yield running


@pytest.fixture
def source(server: Answering) -> Iterator[S3Source]:
    made = S3Source(
        parse_uri("s3://models"),
        endpoint=server.url,
        region=None,
        path_style=True,
        anonymous=True,
        credentials=Credentials(),
    )
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "RETRIES", replace(fetch.RETRIES, first_seconds=0.01))


def download(
    source: S3Source, file: Path, journal: Journal | None = None, size: int = len(CONTENT)
) -> StoredObject:
    described = fetch.download(
        source,
        {file: replace(STORED, size=size)},
        stopped=threading.Event(),
        progress=lambda _: None,
        limits=FetchLimits(parallelism=1),
        journal=journal,
    )
    return described[file]


def calls(server: Answering) -> list[str]:
    return [
        f"{request.method}{' range' if 'Range' in request.headers else ''}"
        for request in server.asked
    ]


def test_one_call_brings_bytes_and_checksum(
    server: Answering, source: S3Source, tmp_path: Path
) -> None:
    assert download(source, tmp_path / "x").crc32c == google_crc32c.value(CONTENT)
    assert (tmp_path / "x").read_bytes() == CONTENT
    assert calls(server) == ["GET"]


def test_bytes_that_differ_from_their_checksum_are_found(
    server: Answering, store: S3, source: S3Source, tmp_path: Path
) -> None:
    store.content = CONTENT.replace(b"some", b"same")
    with pytest.raises(CorruptDownloadError, match="have crc32c"):
        download(source, tmp_path / "x")
    assert calls(server) == ["GET"]


def test_another_object_is_told_by_the_same_call(
    store: S3, source: S3Source, tmp_path: Path
) -> None:
    store.tag = "another-2"
    with pytest.raises(ObjectChangedError):
        download(source, tmp_path / "x")
    store.tag, store.content = STORED.generation, CONTENT + b"!"
    with pytest.raises(ObjectChangedError):
        download(source, tmp_path / "x")


def test_after_a_fault_the_checksum_is_asked_for_and_then_ranges(
    server: Answering, store: S3, source: S3Source, tmp_path: Path
) -> None:
    store.refusals = [503]
    download(source, tmp_path / "x")
    assert calls(server) == ["GET", "HEAD", "GET range"]


def test_what_is_there_already_is_compared_without_being_read_again(
    server: Answering, source: S3Source, tmp_path: Path
) -> None:
    with Journal(tmp_path) as journal:
        download(source, tmp_path / "x", journal)
    server.asked.clear()
    with Journal(tmp_path) as journal:
        download(source, tmp_path / "x", journal)
    assert calls(server) == ["HEAD"]


def test_an_object_of_several_parts_is_described_once(
    server: Answering,
    store: S3,
    source: S3Source,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fetch, "PART_BYTES", 5)
    download(source, tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == CONTENT
    assert calls(server) == ["HEAD", *["GET range"] * 3]


def test_an_empty_object_needs_no_reading(
    server: Answering, store: S3, source: S3Source, tmp_path: Path
) -> None:
    store.content = store.told = b""
    download(source, tmp_path / "x", size=0)
    assert (tmp_path / "x").read_bytes() == b""
    assert calls(server) == ["HEAD"]
