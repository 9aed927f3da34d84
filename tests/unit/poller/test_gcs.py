"""Google Cloud Storage: what its answers become."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING

import pytest

from model_poller import fetch
from model_poller.errors import (
    AccessDeniedError,
    BucketNotFoundError,
    InvalidSettingsError,
    ObjectChangedError,
    UnreachableError,
)
from model_poller.stores import StoredObject
from model_poller.stores.credentials import Credentials
from model_poller.stores.gcs import GcsSource
from model_poller.stores.uri import Location, parse_uri
from model_poller.versions import discover
from tests.unit.poller.gcs_server import GcsServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from model_poller.stores.one_place import Page


@pytest.fixture
def server() -> Iterator[GcsServer]:
    with GcsServer() as running:
        yield running


@pytest.fixture
def source(server: GcsServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[GcsSource]:
    made = GcsSource(
        [parse_uri("gs://models/imagenet")],
        endpoint=server.url,
        anonymous=True,
        credentials=Credentials(),
    )
    yield made
    made.close()


def download(source: GcsSource, folder: Path) -> None:
    fetch.download(
        source,
        {folder / stored.path: stored for stored in source.list()},
        stopped=threading.Event(),
        progress=lambda _: None,
    )


@pytest.mark.parametrize(
    ("uri", "location"),
    [
        ("gs://models/imagenet", Location("models", "imagenet")),
        ("gs://models/a/b/", Location("models", "a/b")),
        ("gs://models", Location("models", "")),
        ("gs://models/", Location("models", "")),
    ],
)
def test_storage_uris_are_read(uri: str, location: Location) -> None:
    assert parse_uri(uri) == location
    assert location.uri == uri.rstrip("/")


@pytest.mark.parametrize("uri", ["ftp://b/x", "gs:/b/x", "gs://", "gs://B/x", "/models", ""])
def test_what_is_no_storage_uri_is_refused_with_the_form_of_one(uri: str) -> None:
    with pytest.raises(InvalidSettingsError, match="gs://BUCKET/FOLDER"):
        parse_uri(uri)


def test_a_listing_shows_what_is_below_the_folder(server: GcsServer, source: GcsSource) -> None:
    server.put("imagenet/1.zip", b"abc")
    server.put("imagenet-large/1.zip", b"other")
    (stored,) = source.list()
    assert (stored.path, stored.size, stored.generation) == ("1.zip", 3, "1")
    assert stored.url == "gs://models/imagenet/1.zip"
    assert stored.crc32c == 0x364B3FB7


def test_objects_are_read_by_odd_names_too(
    server: GcsServer, source: GcsSource, tmp_path: Path
) -> None:
    server.put("imagenet/1/a b+c%2F?#é", b"abc")
    download(source, tmp_path)
    assert (tmp_path / "1/a b+c%2F?#é").read_bytes() == b"abc"


def test_a_bucket_that_is_not_there_is_named(server: GcsServer, source: GcsSource) -> None:
    server.list_status = 404
    with pytest.raises(BucketNotFoundError, match="bucket models does not exist; create it"):
        source.list()


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_listing_names_permission_and_role(
    server: GcsServer, source: GcsSource, status: int
) -> None:
    server.list_status = status
    with pytest.raises(AccessDeniedError, match=r"anonymous caller lacks storage\.objects\.list"):
        source.list()


def test_the_principal_is_taken_from_the_stores_own_words(
    server: GcsServer, source: GcsSource
) -> None:
    server.list_status = 403
    server.error_body = "poller@p.iam.gserviceaccount.com does not have storage.objects.list access"
    with pytest.raises(AccessDeniedError, match=r"^poller@p\.iam\.gserviceaccount\.com lacks"):
        source.list()


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_store_that_fails_is_unreachable(
    server: GcsServer, source: GcsSource, status: int
) -> None:
    server.list_status = status
    with pytest.raises(UnreachableError, match="listing gs://models/imagenet failed"):
        source.list()


def test_a_store_that_does_not_answer_is_unreachable(
    server: GcsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    nobody = GcsSource(
        [Location("models", "")],
        endpoint="http://127.0.0.1:9",
        anonymous=True,
        credentials=Credentials(),
    )
    with pytest.raises(UnreachableError):
        nobody.list()
    nobody.close()


@pytest.mark.parametrize("fault", ["503", "429", "cut"])
def test_reads_go_on_after_passing_faults(
    server: GcsServer, source: GcsSource, tmp_path: Path, fault: str
) -> None:
    server.put("imagenet/1.zip", b"abc" * 1000)
    if fault == "cut":
        server.cut = 2
    else:
        server.get_statuses = [int(fault)] * 2
    download(source, tmp_path)
    assert (tmp_path / "1.zip").read_bytes() == b"abc" * 1000
    assert server.calls.count("get") == 3


def test_a_replaced_object_is_told_apart_from_a_fault(server: GcsServer, source: GcsSource) -> None:
    server.put("imagenet/1.zip", b"old")
    (stored,) = source.list()
    server.put("imagenet/1.zip", b"new")
    with pytest.raises(ObjectChangedError, match="was replaced"), source.open_range(stored, 0, 3):
        pass


def test_a_refused_read_names_object_and_permission(
    server: GcsServer, source: GcsSource, tmp_path: Path
) -> None:
    server.put("imagenet/1.zip", b"abc")
    server.get_statuses = [403]
    with pytest.raises(AccessDeniedError, match=r"storage\.objects\.get on gs://models/imagenet/1"):
        download(source, tmp_path)
    assert server.calls.count("get") == 1


def test_connections_are_kept_between_reads(
    server: GcsServer, source: GcsSource, tmp_path: Path
) -> None:
    for number in range(60):
        server.put(f"imagenet/{number}.zip", b"abc")
    download(source, tmp_path)
    assert server.calls.count("get") == 60
    of_the_listing = 1
    assert server.connections <= fetch.SMALL_WORKERS + of_the_listing


def test_missing_credentials_are_told_with_the_ways_to_give_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Neither a user's own, nor those of a machine of Google's.
    for name, value in {"HOME": str(tmp_path), "NO_GCE_CHECK": "true"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    with pytest.raises(InvalidSettingsError, match="GOOGLE_APPLICATION_CREDENTIALS"):
        GcsSource([], endpoint=None, anonymous=False, credentials=Credentials())


def test_a_listing_goes_on_page_by_page(server: GcsServer, source: GcsSource) -> None:
    server.page = 2
    for number in range(1, 6):
        server.put(f"imagenet/{number}.zip", b"abc")
    assert [page.is_last for page in pages(source)] == [False, False, True]
    assert sum(len(page.objects) for page in pages(source)) == 5


def test_a_listing_that_goes_round_in_circles_is_given_up(
    server: GcsServer, source: GcsSource
) -> None:
    server.put("imagenet/1.zip", b"abc")
    server.next_page_token = "again"
    with pytest.raises(UnreachableError, match="does not go on where it should"):
        list(pages(source))


@pytest.mark.parametrize("answer", [b"{", b"[]", b'{"items": [{"size": "3"}]}', b"<html>"])
def test_what_is_no_listing_is_told(server: GcsServer, source: GcsSource, answer: bytes) -> None:
    server.list_answer = answer
    with pytest.raises(UnreachableError, match="is no listing"):
        source.list()


@pytest.mark.parametrize(
    "item",
    [
        {"name": "imagenet/1.zip", "size": "3 bytes", "generation": "1"},
        {"name": "imagenet/1.zip", "size": "3", "generation": "1", "crc32c": "é"},
        {"name": "imagenet/1.zip", "size": "-3", "generation": "1"},
        {"name": "imagenet/1.zip", "size": None, "generation": "1"},
        {"name": "imagenet/1.zip"},
    ],
)
def test_numbers_that_are_none_spoil_their_version_alone(
    server: GcsServer, source: GcsSource, item: dict[str, str | None]
) -> None:
    good = {"name": "imagenet/2.zip", "size": "3", "crc32c": None, "contentEncoding": None}
    server.list_answer = json.dumps({"items": [item, good]}).encode()
    found = discover(source.survey(), {})
    assert found[2].incomplete is None
    assert found[1].incomplete
    assert "models/imagenet/1.zip: it is listed with what can't be" in found[1].incomplete.message


def test_a_packed_listing_is_unpacked(server: GcsServer, source: GcsSource) -> None:
    server.put("imagenet/1.zip", b"abc")
    server.packs = True
    assert [stored.path for stored in source.list()] == ["1.zip"]
    server.list_answer = bytes(65 << 20)
    with pytest.raises(UnreachableError, match="too large"):
        source.list()


class Tokens:
    """An identity that gets a new token whenever the one before was refused."""

    principal = "poller@example.com"

    def __init__(self) -> None:
        self.number = 1

    def prove(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.number}"}

    def forget(self) -> None:
        self.number += 1


def with_identity(server: GcsServer, identity: Tokens) -> GcsSource:
    return GcsSource(
        [parse_uri("gs://models/imagenet")],
        endpoint=server.url,
        anonymous=False,
        credentials=Credentials(),
        identity=identity,
    )


def test_a_token_that_was_revoked_is_replaced(server: GcsServer, tmp_path: Path) -> None:
    server.put("imagenet/1.zip", b"abc")
    server.token = "Bearer 2"
    source = with_identity(server, Tokens())
    assert [stored.path for stored in source.list()] == ["1.zip"]
    server.token = "Bearer 3"
    with pytest.raises(
        AccessDeniedError, match=r"^poller@example\.com lacks storage\.objects\.get"
    ):
        source.open_range(source_object(server), 0, 3).__enter__()
    # The next try of the fetch.
    with source.open_range(source_object(server), 0, 3):
        pass
    source.close()


def test_a_token_that_is_always_refused_is_told(server: GcsServer) -> None:
    server.token = "Bearer none"
    source = with_identity(server, Tokens())
    with pytest.raises(
        AccessDeniedError, match=r"^poller@example\.com lacks storage\.objects\.list"
    ):
        source.list()
    assert server.calls.count("list") == 2
    source.close()


def pages(source: GcsSource) -> Iterator[Page]:
    yield from source._pages(parse_uri("gs://models/imagenet"), "", into=True)


def source_object(server: GcsServer) -> StoredObject:
    _, generation = server.objects["imagenet/1.zip"]
    return StoredObject(
        root=parse_uri("gs://models/imagenet"), path="1.zip", size=3, generation=str(generation)
    )
