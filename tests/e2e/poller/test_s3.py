"""``s3://`` on a real server of Amazon's APIs."""

from __future__ import annotations

import base64
import json
import re
import urllib.request
from typing import TYPE_CHECKING, TypeAlias

import pytest

from model_poller.errors import (
    AccessDeniedError,
    BucketNotFoundError,
    ObjectChangedError,
    UnreachableError,
)
from model_poller.stores.credentials import Credentials
from model_poller.stores.s3 import S3Source
from model_poller.stores.uri import parse_uri
from tests.support import store_servers
from tests.support.stores import AWS_ACCOUNT, Aws, S3Bucket

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from model_poller.stores import StoredObject

    Opener: TypeAlias = Callable[..., S3Source]

pytestmark = pytest.mark.e2e

ROLE = f"arn:aws:iam::{AWS_ACCOUNT}:role/poller"


@pytest.fixture
def bucket(aws: Aws, fresh_name: Callable[[str], str]) -> S3Bucket:
    return aws.bucket(fresh_name("models"))


@pytest.fixture
def open_source(aws: Aws) -> Iterator[Opener]:
    opened: list[S3Source] = []

    def open_it(
        bucket: str,
        environment: Mapping[str, str] | None = None,
        *,
        endpoint: str = aws.endpoint,
        anonymous: bool = False,
        folder: Path | None = None,
    ) -> S3Source:
        made = S3Source(
            parse_uri(f"s3://{bucket}/imagenet"),
            endpoint=endpoint,
            region=None,
            path_style=True,
            anonymous=anonymous,
            credentials=Credentials(aws.keys if environment is None else environment, folder),
        )
        opened.append(made)
        return made

    yield open_it
    for source in opened:
        source.close()


def read(source: S3Source, stored: StoredObject, start: int, length: int) -> bytes:
    content = bytearray(length)
    with source.open_range(stored, start, length) as body:
        done = 0
        while done < length:
            done += body.readinto(memoryview(content)[done:])
    return bytes(content)


def test_a_listing_goes_over_all_pages(bucket: S3Bucket, open_source: Opener) -> None:
    for number in range(1005):
        bucket.upload(f"imagenet/{number}", b"")
    bucket.upload("imagenet-large/1", b"")
    listed = open_source(bucket.name).list()
    assert {stored.path for stored in listed} == {str(number) for number in range(1005)}


def test_objects_of_odd_names_are_listed_and_read(bucket: S3Bucket, open_source: Opener) -> None:
    for name in ("a b+c%2F?#é&=", "a//b", "~x'(1)*!"):
        bucket.upload(f"imagenet/1/{name}", name.encode())
    source = open_source(bucket.name)
    listed = source.list()
    assert {stored.path for stored in listed} == {"1/a b+c%2F?#é&=", "1/a//b", "1/~x'(1)*!"}
    for stored in listed:
        assert read(source, stored, 0, stored.size) == stored.path.removeprefix("1/").encode()


def test_any_range_is_read(bucket: S3Bucket, open_source: Opener) -> None:
    content = bytes(range(256)) * 8192
    bucket.upload("imagenet/1/x", content)
    source = open_source(bucket.name)
    (stored,) = source.list()
    assert stored.size == len(content)
    assert read(source, stored, 1000, 1_000_000) == content[1000:1_001_000]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("crc32c", 0xE3069283),
        ("crc64nvme", 0xAE8B14860A799888),
        ("crc32", 0xCBF43926),
    ],
)
def test_a_whole_objects_checksums_are_told(
    bucket: S3Bucket, open_source: Opener, kind: str, value: int
) -> None:
    size = 8 if kind == "crc64nvme" else 4
    told = base64.b64encode(value.to_bytes(size, "big")).decode()
    bucket.upload(
        "imagenet/1/x",
        b"123456789",
        {f"x-amz-checksum-{kind}": told, "x-amz-sdk-checksum-algorithm": kind.upper()},
    )
    source = open_source(bucket.name)
    (stored,) = map(source.describe, source.list())
    assert getattr(stored, kind) == value
    assert stored.md5 is not None
    assert stored.md5.hex() == "25f9e794323b453885f5181f1b624d0b"


def test_parts_have_no_md5(bucket: S3Bucket, open_source: Opener) -> None:
    bucket.upload_parts("imagenet/1/x", b"x" * (5 << 20), b"x")
    source = open_source(bucket.name)
    (stored,) = map(source.describe, source.list())
    assert stored.generation.endswith("-2")
    assert (stored.md5, stored.crc32c) == (None, None)
    assert read(source, stored, (5 << 20) - 2, 3) == b"xxx"


def test_an_etag_of_encrypted_bytes_is_taken_for_no_md5(
    bucket: S3Bucket, open_source: Opener
) -> None:
    bucket.upload("imagenet/1/x", b"abc", {"x-amz-server-side-encryption": "aws:kms"})
    source = open_source(bucket.name)
    (stored,) = map(source.describe, source.list())
    assert stored.md5 is None


@pytest.mark.parametrize("change", ["replaced", "deleted"])
def test_what_changed_since_the_listing_is_not_read(
    bucket: S3Bucket, open_source: Opener, change: str
) -> None:
    bucket.upload("imagenet/1/x", b"old")
    source = open_source(bucket.name)
    (stored,) = source.list()
    if change == "replaced":
        bucket.upload("imagenet/1/x", b"new")
    else:
        bucket.delete("imagenet/1/x")
    with pytest.raises(ObjectChangedError, match="was replaced or deleted"):
        read(source, stored, 0, 3)
    with pytest.raises(ObjectChangedError):
        source.describe(stored)


def test_a_bucket_that_is_not_there_is_named(open_source: Opener) -> None:
    with pytest.raises(BucketNotFoundError, match="bucket nowhere does not exist; create it"):
        open_source("nowhere").list()


def test_a_server_that_is_not_there_is_unreachable(open_source: Opener) -> None:
    with pytest.raises(UnreachableError, match=r"127\.0\.0\.1 does not answer"):
        open_source("models", endpoint="http://127.0.0.1:9").list()


def test_a_public_bucket_is_read_by_anybody(bucket: S3Bucket, open_source: Opener) -> None:
    bucket.upload("imagenet/1/x", b"abc", {"x-amz-acl": "public-read"})
    source = open_source(bucket.name, {}, anonymous=True)
    (stored,) = source.list()
    assert read(source, stored, 0, 3) == b"abc"


def test_a_private_object_is_not_read_by_anybody(bucket: S3Bucket, open_source: Opener) -> None:
    bucket.upload("imagenet/1/x", b"abc")
    (stored,) = open_source(bucket.name).list()
    stranger = open_source(bucket.name, {}, anonymous=True)
    with pytest.raises(AccessDeniedError, match=r"an anonymous caller lacks s3:GetObject"):
        read(stranger, stored, 0, 3)


def test_a_web_identity_token_becomes_keys(
    aws: Aws, bucket: S3Bucket, open_source: Opener, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("eyJ.token\n")
    bucket.upload("imagenet/1/x", b"abc")
    environment = {
        "AWS_WEB_IDENTITY_TOKEN_FILE": str(token),
        "AWS_ROLE_ARN": ROLE,
        "AWS_ENDPOINT_URL_STS": aws.endpoint,
    }
    assert len(open_source(bucket.name, environment).list()) == 1


def test_an_instances_identity_is_found(aws: Aws, bucket: S3Bucket, open_source: Opener) -> None:
    bucket.upload("imagenet/1/x", b"abc")
    environment = {"AWS_EC2_METADATA_SERVICE_ENDPOINT": aws.endpoint}
    assert len(open_source(bucket.name, environment).list()) == 1


class Guarded:
    """A server that checks signatures and policies, and a user of it."""

    def __init__(self, log: Path) -> None:
        self.server = store_servers.moto(log)
        self.aws = Aws(self.server.url)
        self.bucket = self.aws.bucket("models")
        self.bucket.upload("imagenet/1/x", b"abc")
        self.aws.iam("CreateUser", UserName="poller")
        self.keys = self.new_keys()

    def new_keys(self) -> dict[str, str]:
        told = self.aws.iam("CreateAccessKey", UserName="poller")
        return {
            variable: re.search(f"<{name}>(.*?)<", told)[1]  # type: ignore[index]
            for variable, name in (
                ("AWS_ACCESS_KEY_ID", "AccessKeyId"),
                ("AWS_SECRET_ACCESS_KEY", "SecretAccessKey"),
            )
        }

    def allow(self, *actions: str) -> None:
        statement = {"Effect": "Allow", "Action": actions, "Resource": "*"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        self.aws.iam("PutUserPolicy", UserName="poller", PolicyName="p", PolicyDocument=policy)

    def close(self) -> None:
        """From now on nobody gets anything unasked."""
        request = urllib.request.Request(
            f"{self.server.url}/moto-api/reset-auth", b"0", {"Content-Type": "text/plain"}
        )
        urllib.request.urlopen(request, timeout=20).close()


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Guarded]:
    made = Guarded(tmp_path / "moto.log")
    yield made
    made.server.stop()


def test_signatures_and_permissions_suffice(guarded: Guarded, open_source: Opener) -> None:
    guarded.bucket.upload("imagenet/1/a b+c%2F?#é&=", b"abc")
    guarded.allow("s3:ListBucket", "s3:GetObject")
    guarded.close()
    source = open_source("models", guarded.keys, endpoint=guarded.server.url)
    for stored in source.list():
        assert read(source, source.describe(stored), 0, 3) == b"abc"


def test_a_missing_permission_is_named(guarded: Guarded, open_source: Opener) -> None:
    guarded.close()
    who = f"access key {guarded.keys['AWS_ACCESS_KEY_ID']}"
    source = open_source("models", guarded.keys, endpoint=guarded.server.url)
    with pytest.raises(AccessDeniedError, match=f"{who} lacks s3:ListBucket on s3://models/imag"):
        source.list()


def test_a_listing_alone_does_not_suffice(guarded: Guarded, open_source: Opener) -> None:
    guarded.allow("s3:ListBucket")
    guarded.close()
    source = open_source("models", guarded.keys, endpoint=guarded.server.url)
    (stored,) = source.list()
    with pytest.raises(AccessDeniedError, match="lacks s3:GetObject on s3://models/imagenet/1/x"):
        read(source, stored, 0, 3)


def test_wrong_keys_are_told_without_their_secret(guarded: Guarded, open_source: Opener) -> None:
    guarded.close()
    wrong = {**guarded.keys, "AWS_SECRET_ACCESS_KEY": "a-wrong-secret"}
    with pytest.raises(AccessDeniedError, match="SignatureDoesNotMatch") as refused:
        open_source("models", wrong, endpoint=guarded.server.url).list()
    assert "a-wrong-secret" not in str(refused.value)


def test_rotated_keys_are_taken_up_without_a_restart(
    guarded: Guarded, open_source: Opener, tmp_path: Path
) -> None:
    guarded.allow("s3:ListBucket")
    new = guarded.new_keys()
    guarded.close()
    secret = tmp_path / "secret"
    secret.mkdir()
    for name in new:
        (secret / name).write_text("AKIAOUTDATED")
    source = open_source("models", {}, endpoint=guarded.server.url, folder=secret)
    with pytest.raises(AccessDeniedError, match="AKIAOUTDATED is refused"):
        source.list()
    for name, value in new.items():
        (secret / name).write_text(f"{value}\n")
    assert len(source.list()) == 1
