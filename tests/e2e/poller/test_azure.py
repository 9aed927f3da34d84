"""``az://`` on a real server of Azure Blob Storage."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, TypeAlias

import pytest

from model_poller.errors import (
    AccessDeniedError,
    BucketNotFoundError,
    ObjectChangedError,
    UnreachableError,
)
from model_poller.stores.az import AzureSource
from model_poller.stores.credentials import Credentials
from model_poller.stores.uri import parse_uri
from tests.support.stores import AZURE_ACCOUNT, AZURE_KEY, BlobContainer, shared_access

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from model_poller.stores import StoredObject

    Opener: TypeAlias = Callable[..., AzureSource]

pytestmark = pytest.mark.e2e

KEY = {"AZURE_STORAGE_ACCOUNT_NAME": AZURE_ACCOUNT, "AZURE_STORAGE_ACCOUNT_KEY": AZURE_KEY}


@pytest.fixture
def open_source(azurite_url: str) -> Iterator[Opener]:
    opened: list[AzureSource] = []

    def open_it(
        container: str,
        environment: Mapping[str, str] | None = None,
        *,
        endpoint: str | None = azurite_url,
        anonymous: bool = False,
    ) -> AzureSource:
        made = AzureSource(
            parse_uri(f"az://{container}/imagenet"),
            endpoint=endpoint,
            account=None,
            anonymous=anonymous,
            credentials=Credentials(KEY if environment is None else environment),
        )
        opened.append(made)
        return made

    yield open_it
    for source in opened:
        source.close()


def read(source: AzureSource, stored: StoredObject, start: int, length: int) -> bytes:
    content = bytearray(length)
    with source.open_range(stored, start, length) as body:
        done = 0
        while done < length:
            done += body.readinto(memoryview(content)[done:])
    return bytes(content)


def test_a_listing_goes_over_all_pages(
    container: BlobContainer, open_source: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model_poller.stores.az.PAGE", 3)
    for number in range(8):
        container.upload(f"imagenet/{number}", b"")
    container.upload("imagenet-large/1", b"")
    listed = open_source(container.name).list()
    assert {stored.path for stored in listed} == {str(number) for number in range(8)}


def test_blobs_of_odd_names_are_listed_and_read(
    container: BlobContainer, open_source: Opener
) -> None:
    names = {"1/a b+c%2F#é&=", "1/~x'(1)*!"}
    for name in names:
        container.upload(f"imagenet/{name}", name.encode())
    source = open_source(container.name)
    listed = source.list()
    assert {stored.path for stored in listed} == names
    for stored in listed:
        assert read(source, stored, 0, stored.size) == stored.path.encode()


def test_size_checksum_and_any_range_are_told(
    container: BlobContainer, open_source: Opener
) -> None:
    content = bytes(range(256)) * 8192
    container.upload("imagenet/1/x", content)
    source = open_source(container.name)
    (stored,) = source.list()
    assert stored.size == len(content)
    assert stored.md5 == hashlib.md5(content, usedforsecurity=False).digest()
    assert source.describe(stored) == stored
    assert read(source, stored, 1000, 1_000_000) == content[1000:1_001_000]


def test_folders_of_a_hierarchical_namespace_are_no_objects(
    container: BlobContainer, open_source: Opener
) -> None:
    container.upload("imagenet/1", b"", {"x-ms-meta-hdi_isfolder": "true"})
    container.upload("imagenet/1/x", b"abc")
    assert [stored.path for stored in open_source(container.name).list()] == ["1/x"]


@pytest.mark.parametrize("change", ["replaced", "deleted"])
def test_what_changed_since_the_listing_is_not_read(
    container: BlobContainer, open_source: Opener, change: str
) -> None:
    container.upload("imagenet/1/x", b"old")
    source = open_source(container.name)
    (stored,) = source.list()
    if change == "replaced":
        container.upload("imagenet/1/x", b"new")
    else:
        container.delete("imagenet/1/x")
    with pytest.raises(ObjectChangedError, match="was replaced or deleted"):
        read(source, stored, 0, 3)


@pytest.mark.parametrize("way", ["key", "signature", "connection string", "string and signature"])
def test_every_secret_opens_a_container(
    azurite_url: str, container: BlobContainer, open_source: Opener, way: str
) -> None:
    container.upload("imagenet/1/x", b"abc")
    endpoint = f"AccountName={AZURE_ACCOUNT};BlobEndpoint={azurite_url}/"
    environment, given = {
        "key": (KEY, azurite_url),
        "signature": ({"AZURE_STORAGE_SAS_TOKEN": f"?{shared_access('rl')}\n"}, azurite_url),
        "connection string": (
            {"AZURE_STORAGE_CONNECTION_STRING": f"{endpoint};AccountKey={AZURE_KEY};"},
            None,
        ),
        "string and signature": (
            {
                "AZURE_STORAGE_CONNECTION_STRING": (
                    f"{endpoint};SharedAccessSignature={shared_access('rl')}"
                )
            },
            None,
        ),
    }[way]
    source = open_source(container.name, environment, endpoint=given)
    (stored,) = source.list()
    assert read(source, stored, 0, 3) == b"abc"


def test_a_public_container_is_read_by_anybody(
    container: BlobContainer, open_source: Opener
) -> None:
    container.call(
        "PUT", "?restype=container&comp=acl", b"", {"x-ms-blob-public-access": "container"}
    )
    container.upload("imagenet/1/x", b"abc")
    source = open_source(container.name, {}, anonymous=True)
    (stored,) = source.list()
    assert read(source, stored, 0, 3) == b"abc"


def test_a_container_that_is_not_there_is_named(open_source: Opener) -> None:
    with pytest.raises(BucketNotFoundError, match="container nowhere does not exist"):
        open_source("nowhere").list()


def test_a_server_that_is_not_there_is_unreachable(open_source: Opener) -> None:
    with pytest.raises(UnreachableError, match=r"127\.0\.0\.1 does not answer"):
        open_source("models", endpoint="http://127.0.0.1:9/account").list()


@pytest.mark.parametrize(
    ("environment", "who"),
    [
        (
            {**KEY, "AZURE_STORAGE_ACCOUNT_KEY": "d3Jvbmc="},
            f"the key of the account {AZURE_ACCOUNT}",
        ),
        (
            {"AZURE_STORAGE_SAS_TOKEN": "sv=2021-12-02&sp=rl&sig=wrong"},
            "the shared access signature",
        ),
    ],
)
def test_who_is_refused_is_told_without_the_secret(
    container: BlobContainer, open_source: Opener, environment: dict[str, str], who: str
) -> None:
    source = open_source(container.name, environment)
    with pytest.raises(AccessDeniedError, match=f"{who} may not list az://models") as refused:
        source.list()
    assert "wrong" not in str(refused.value)
    assert "d3Jvbmc" not in str(refused.value)


def test_a_signature_that_may_not_read_is_told_the_permission(
    container: BlobContainer, open_source: Opener
) -> None:
    container.upload("imagenet/1/x", b"abc")
    source = open_source(container.name, {"AZURE_STORAGE_SAS_TOKEN": shared_access("l")})
    (stored,) = source.list()
    with pytest.raises(AccessDeniedError, match=r"may not read .*1/x.* permissions r and l"):
        read(source, stored, 0, 3)


def test_an_anonymous_caller_of_a_private_container_is_refused(
    container: BlobContainer, open_source: Opener
) -> None:
    with pytest.raises(AccessDeniedError, match="an anonymous caller may not list"):
        open_source(container.name, {}, anonymous=True).list()
