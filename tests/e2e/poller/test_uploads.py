"""Objects that are written once: on S3 and on Azure Blob Storage."""

from __future__ import annotations

import hashlib
import io
from typing import TYPE_CHECKING, TypeAlias

import google_crc32c
import pytest

from model_poller.errors import AccessDeniedError, BucketNotFoundError, VersionExistsError
from model_poller.stores.az_upload import AzureUploads
from model_poller.stores.credentials import Credentials
from model_poller.stores.s3_upload import S3Uploads
from model_poller.stores.uri import parse_uri
from tests.support.stores import AZURE_ACCOUNT, AZURE_KEY, shared_access

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.stores import Aws, BlobContainer

    Uploads: TypeAlias = S3Uploads | AzureUploads

pytestmark = pytest.mark.e2e

KEY = {"AZURE_STORAGE_ACCOUNT_KEY": AZURE_KEY}


def s3(aws: Aws, bucket: str) -> S3Uploads:
    return S3Uploads(
        parse_uri(f"s3://{bucket}/imagenet"),
        endpoint=aws.endpoint,
        region=None,
        path_style=True,
        anonymous=False,
        credentials=Credentials(aws.keys),
    )


def azure(url: str, container: str, environment: dict[str, str] = KEY) -> AzureUploads:
    return AzureUploads(
        parse_uri(f"az://{container}/imagenet"),
        endpoint=url,
        account=AZURE_ACCOUNT,
        anonymous=False,
        credentials=Credentials(environment),
    )


@pytest.fixture
def on_s3(aws: Aws, fresh_name: Callable[[str], str]) -> S3Uploads:
    return s3(aws, aws.bucket(fresh_name("models")).name)


@pytest.fixture
def on_azure(azurite_url: str, container: BlobContainer) -> AzureUploads:
    return azure(azurite_url, container.name)


@pytest.fixture(params=["on_s3", "on_azure"])
def uploads(request: pytest.FixtureRequest) -> Iterator[Uploads]:
    made: Uploads = request.getfixturevalue(request.param)
    yield made
    made.close()


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> int:
    size = 5 << 20
    monkeypatch.setattr("model_poller.stores.s3_upload.PART_BYTES", size)
    monkeypatch.setattr("model_poller.stores.az_upload.BLOCK_BYTES", size)
    return size


def put(uploads: Uploads, content: bytes, name: str = "imagenet/1 ü.zip") -> int:
    sent: list[int] = []
    uploads.put_new(name, io.BytesIO(content), len(content), progress=sent.append)
    return sum(sent)


def read(uploads: Uploads) -> bytes:
    (stored,) = uploads.list()
    content = bytearray(stored.size)
    done = 0
    with uploads.open_range(stored, 0, stored.size) as body:
        while done < stored.size:
            done += body.readinto(memoryview(content)[done:])
    return bytes(content)


def test_what_is_put_is_there_with_a_checksum(uploads: Uploads) -> None:
    content = b"abc" * 1000
    assert put(uploads, content) == 3000
    assert read(uploads) == content
    (stored,) = map(uploads.describe, uploads.list())
    assert stored.md5 == hashlib.md5(content, usedforsecurity=False).digest()
    assert stored.crc32c == (google_crc32c.value(content) if stored.url[:2] == "s3" else None)


def test_large_objects_are_put_in_parts(uploads: Uploads, small_parts: int) -> None:
    content = bytes(range(256)) * (small_parts // 100)
    assert put(uploads, content) == len(content) > 2 * small_parts
    assert read(uploads) == content
    (stored,) = map(uploads.describe, uploads.list())
    # moto calls a checksum of checksums one of the whole object, so only Azure's can be compared.
    if stored.url.startswith("az"):
        assert stored.md5 == hashlib.md5(content, usedforsecurity=False).digest()


@pytest.mark.parametrize("parts", [False, True])
def test_nothing_is_overwritten(
    request: pytest.FixtureRequest, uploads: Uploads, parts: bool
) -> None:
    put(uploads, b"first")
    size = request.getfixturevalue("small_parts") if parts else 0
    with pytest.raises(VersionExistsError, match=r"imagenet/1 ü\.zip is there already"):
        put(uploads, b"second" + bytes(size))
    assert read(uploads) == b"first"


def test_a_bucket_that_is_not_there_is_named(aws: Aws, azurite_url: str) -> None:
    for uploads in (s3(aws, "nowhere"), azure(azurite_url, "nowhere")):
        with pytest.raises(BucketNotFoundError, match="nowhere does not exist"):
            put(uploads, b"abc")
        uploads.close()


def test_the_permission_to_write_is_named(azurite_url: str, container: BlobContainer) -> None:
    reader = azure(azurite_url, container.name, {"AZURE_STORAGE_SAS_TOKEN": shared_access("rl")})
    with pytest.raises(AccessDeniedError, match=r"may not write .* Blob Data Contributor"):
        put(reader, b"abc")
    reader.close()
