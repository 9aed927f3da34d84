"""Who asks AWS: where keys come from, when they are renewed, and what is told of them."""

from __future__ import annotations

import hashlib
import json
import socket
import time
import traceback
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

import pytest

from model_poller.errors import (
    AccessDeniedError,
    BucketNotFoundError,
    InvalidSourceError,
    UnreachableError,
)
from model_poller.stores import aws, http_calls
from model_poller.stores.aws import AwsIdentity, told_permission, told_principal
from model_poller.stores.aws_signature import Keys, Signer
from model_poller.stores.credentials import Credentials
from model_poller.stores.s3 import S3Source
from model_poller.stores.uri import parse_uri
from tests.unit.poller.answering import Answering, Reply, Request

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ROLE = "arn:aws:iam::123456789012:role/poller"


def identity(environment: dict[str, str], folder: Path | None = None) -> AwsIdentity:
    return AwsIdentity(Credentials(environment, folder), "eu-west-1", anonymous=False)


def later(seconds: float) -> str:
    return datetime.fromtimestamp(time.time() + seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def assumed(expires: str) -> str:
    return f"""<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
    <AssumeRoleWithWebIdentityResult><AssumedRoleUser><Arn>{ROLE}/session</Arn></AssumedRoleUser>
    <Credentials><AccessKeyId>ASIA1</AccessKeyId><SecretAccessKey>s1</SecretAccessKey>
    <SessionToken>t1</SessionToken><Expiration>{expires}</Expiration></Credentials>
    </AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"""


def irsa(tmp_path: Path, server: Answering) -> dict[str, str]:
    (tmp_path / "token").write_text("eyJ.first\n")
    return {
        "AWS_WEB_IDENTITY_TOKEN_FILE": str(tmp_path / "token"),
        "AWS_ROLE_ARN": ROLE,
        "AWS_ENDPOINT_URL_STS": server.url,
    }


def test_keys_come_first_and_a_folder_wins_over_the_environment(tmp_path: Path) -> None:
    environment = {"AWS_ACCESS_KEY_ID": "AKIAENV", "AWS_SECRET_ACCESS_KEY": "e"}
    assert identity(environment).keys().access_key_id == "AKIAENV"
    for name, value in (("AWS_ACCESS_KEY_ID", "AKIAFILE\n"), ("AWS_SECRET_ACCESS_KEY", "f\n")):
        (tmp_path / name).write_text(value)
    found = identity(environment, tmp_path).keys()
    assert (found.access_key_id, found.secret) == ("AKIAFILE", "f")


@pytest.mark.parametrize("after", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_keys_of_two_secrets_are_never_mixed(tmp_path: Path, after: str) -> None:
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")

    def show(which: str) -> None:
        """As the kubelet does: all files of a Secret change at once."""
        (tmp_path / which).mkdir()
        for name in names:
            (tmp_path / which / name).write_text(f"{which} {name}")
        (tmp_path / "new").symlink_to(which)
        (tmp_path / "new").rename(tmp_path / "..data")

    class Rotated(Credentials):
        def get(self, name: str) -> str | None:
            found = super().get(name)
            if name == after and not (tmp_path / "second").exists():
                show("second")
            return found

    show("first")
    for name in names:
        (tmp_path / name).symlink_to(f"..data/{name}")
    keys = AwsIdentity(Rotated({}, tmp_path), "eu-west-1", anonymous=False).keys()
    assert (keys.access_key_id, keys.secret, keys.token) == tuple(f"second {n}" for n in names)


def test_a_secret_is_in_no_representation() -> None:
    found = identity({"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "hidden"}).keys()
    assert "hidden" not in repr(found)


def test_a_web_identity_is_asked_for_once_while_its_keys_last(tmp_path: Path) -> None:
    with Answering(lambda _: Reply(body=assumed(later(3600)))) as sts:
        who = identity(irsa(tmp_path, sts))
        signed = [who.sign("s3", "GET", "https://b.s3.amazonaws.com/x", {}) for _ in range(3)]
    assert len(sts.asked) == 1
    form = parse_qs(sts.asked[0].body.decode())
    assert form["RoleArn"] == [ROLE]
    assert form["WebIdentityToken"] == ["eyJ.first"]
    assert "Credential=ASIA1/" in signed[0]["Authorization"]
    assert signed[0]["X-Amz-Security-Token"] == "t1"
    assert who.principal == f"{ROLE}/session"


def test_keys_are_renewed_before_they_expire_with_the_token_as_it_is_then(tmp_path: Path) -> None:
    with Answering(lambda _: Reply(body=assumed(later(200)))) as sts:
        who = identity(irsa(tmp_path, sts))
        who.keys()
        (tmp_path / "token").write_text("eyJ.second")
        who.keys()
    assert [b"eyJ.first" in r.body for r in sts.asked] == [True, False]


def test_who_hands_out_keys_is_not_asked_again_at_once_while_the_old_ones_count(
    tmp_path: Path,
) -> None:
    replies = iter([Reply(body=assumed(later(200)))])
    with Answering(lambda _: next(replies, Reply(503))) as sts:
        who = identity(irsa(tmp_path, sts))
        first = who.keys()
        assert who.keys() == first
        asked = len(sts.asked)
        assert who.keys() == first
        assert len(sts.asked) == asked > 1


def test_keys_that_still_count_outlive_who_hands_them_out(tmp_path: Path) -> None:
    with Answering(lambda _: Reply(body=assumed(later(200)))) as sts:
        who = identity(irsa(tmp_path, sts))
        first = who.keys()
    assert who.keys() == first
    who.forget()
    with pytest.raises(UnreachableError):
        who.keys()


def test_keys_that_still_count_outlive_a_refusal_of_others(tmp_path: Path) -> None:
    refused = Reply(400, "<Error><Code>IDPCommunicationError</Code></Error>")
    answers = iter([Reply(body=assumed(later(200))), refused])
    with Answering(lambda _: next(answers)) as sts:
        who = identity(irsa(tmp_path, sts))
        assert [who.keys().access_key_id for _ in range(3)] == ["ASIA1"] * 3
    assert len(sts.asked) == 2


def test_a_refused_web_identity_names_role_and_reason(tmp_path: Path) -> None:
    refusal = """<ErrorResponse><Error><Code>AccessDenied</Code><Message>Not authorized to perform
    sts:AssumeRoleWithWebIdentity</Message></Error></ErrorResponse>"""
    with Answering(lambda _: Reply(403, refusal)) as sts:
        who = identity(irsa(tmp_path, sts))
        with pytest.raises(AccessDeniedError, match=f"{ROLE} can't be assumed.*AccessDenied") as no:
            who.keys()
    assert "eyJ" not in str(no.value)


def test_a_web_identity_without_its_token_is_told(tmp_path: Path) -> None:
    missing = {"AWS_WEB_IDENTITY_TOKEN_FILE": str(tmp_path / "no"), "AWS_ROLE_ARN": ROLE}
    with pytest.raises(AccessDeniedError, match="AWS_WEB_IDENTITY_TOKEN_FILE"):
        identity(missing).keys()


def handed(expires: str) -> str:
    return json.dumps(
        {"AccessKeyId": "ASIA2", "SecretAccessKey": "s2", "Token": "t2", "Expiration": expires}
    )


def test_a_containers_identity_is_asked_with_its_token(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("bearer")
    with Answering(lambda _: Reply(body=handed(later(3600)))) as agent:
        who = identity(
            {
                "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{agent.url}/v1/credentials",
                "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(tmp_path / "token"),
            }
        )
        assert who.keys().access_key_id == "ASIA2"
    assert agent.asked[0].target == "/v1/credentials"
    assert agent.asked[0].headers["Authorization"] == "bearer"


@pytest.mark.parametrize("answer", ["no JSON", "[]", '{"SecretAccessKey": "hidden"}'])
def test_an_odd_answer_is_told_without_what_is_in_it(answer: str) -> None:
    with Answering(lambda _: Reply(body=answer)) as agent:
        who = identity({"AWS_CONTAINER_CREDENTIALS_FULL_URI": agent.url})
        with pytest.raises(AccessDeniedError, match="container's role has no keys") as told:
            who.keys()
    assert "hidden" not in str(told.value)
    assert told.value.__cause__ is None


def test_an_instances_identity_takes_a_session_first() -> None:
    def answer(request: Request) -> Reply:
        if request.method == "PUT":
            return Reply(body="session")
        if request.headers.get("X-aws-ec2-metadata-token") != "session":
            return Reply(401)
        if request.target.endswith("/security-credentials/"):
            return Reply(body="node-role\n")
        return Reply(body=handed(later(3600)))

    with Answering(answer) as metadata:
        who = identity({"AWS_EC2_METADATA_SERVICE_ENDPOINT": metadata.url})
        assert who.keys().principal == "the instance's role node-role"


@pytest.mark.parametrize(
    "environment",
    [
        {"AWS_EC2_METADATA_DISABLED": "true"},
        {"AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://127.0.0.1:9"},
    ],
)
def test_without_any_credentials_the_ways_to_give_some_are_told(
    environment: dict[str, str],
) -> None:
    with pytest.raises(AccessDeniedError, match="give AWS_ACCESS_KEY_ID"):
        identity(environment).keys()


@pytest.mark.parametrize("busy", range(3))
@pytest.mark.parametrize("status", [408, 429, 503])
def test_a_busy_machine_is_not_taken_for_one_without_an_identity(busy: int, status: int) -> None:
    answers = [Reply(body="session"), Reply(body="node-role"), Reply(body=handed(later(3600)))]
    answers.insert(busy, Reply(status))
    answers = [*answers[: busy + 1], Reply(body="session"), Reply(body="node-role"), answers[-1]]
    with Answering(lambda _: answers.pop(0)) as metadata:
        who = identity({"AWS_EC2_METADATA_SERVICE_ENDPOINT": metadata.url})
        with pytest.raises(UnreachableError, match=f"answered {status}"):
            who.keys()
        assert who.keys().principal == "the instance's role node-role"


def test_an_instance_without_a_role_has_no_credentials() -> None:
    with (
        Answering(lambda request: Reply(200 if request.method == "PUT" else 404)) as metadata,
        pytest.raises(AccessDeniedError, match="no AWS credentials found"),
    ):
        identity({"AWS_EC2_METADATA_SERVICE_ENDPOINT": metadata.url}).keys()


def test_what_aws_says_is_understood() -> None:
    message = (
        "User: arn:aws:sts::123456789012:assumed-role/poller/pod is not authorized to perform:"
        " kms:Decrypt on resource: arn:aws:kms:eu-west-1:123456789012:key/1"
    )
    assert told_principal(message) == "arn:aws:sts::123456789012:assumed-role/poller/pod"
    assert told_permission(message) == "kms:Decrypt"
    assert told_principal("Access Denied") is told_permission("Access Denied") is None


# -- S3, where no real server of the tests says it ----------------------------------------------

EMPTY = "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"


def source(
    answer: Callable[[Request], Reply], *, path_style: bool = True
) -> tuple[Answering, S3Source]:
    server = Answering(answer)
    made = S3Source(
        parse_uri("s3://models/imagenet"),
        endpoint=server.url,
        region=None,
        path_style=path_style,
        anonymous=False,
        credentials=Credentials({"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "s"}),
    )
    return server, made


def test_a_secret_that_no_header_takes_is_not_told() -> None:
    with Answering(lambda _: Reply(body=EMPTY)) as server:
        bucket = S3Source(
            parse_uri("s3://models/imagenet"),
            endpoint=server.url,
            region=None,
            path_style=True,
            anonymous=False,
            credentials=Credentials(
                {
                    "AWS_ACCESS_KEY_ID": "AKIA",
                    "AWS_SECRET_ACCESS_KEY": "s",
                    "AWS_SESSION_TOKEN": "hid\nxyz",
                }
            ),
        )
        with pytest.raises(AccessDeniedError, match="write them anew") as told:
            bucket.list()
    assert "xyz" not in "".join(traceback.format_exception(told.value))
    bucket.close()


@pytest.mark.parametrize(
    ("said", "written"),
    [("", "1/a+b%20c d"), ("<EncodingType>url</EncodingType>", "1/a%2Bb%2520c+d")],
)
def test_names_are_read_as_the_server_says_that_it_writes_them(said: str, written: str) -> None:
    # Several makers' servers don't know encoding-type.
    entry = f"<Contents><Key>imagenet/{written}</Key><Size>1</Size><ETag>x</ETag></Contents>"
    server, bucket = source(
        lambda _: Reply(body=f"<ListBucketResult>{said}{entry}</ListBucketResult>")
    )
    with server:
        assert [stored.path for stored in bucket.list()] == ["1/a+b%20c d"]
    bucket.close()


def test_a_path_that_no_url_has_is_not_taken_for_bad_credentials() -> None:
    with Answering(lambda _: Reply(body=EMPTY)) as server:
        bucket = S3Source(
            parse_uri("s3://models/imagenet"),
            endpoint=f"{server.url}/größe x",
            region=None,
            path_style=True,
            anonymous=True,
            credentials=Credentials({}),
        )
        with pytest.raises(InvalidSourceError, match=r"e x/models/.* that no URL has"):
            bucket.list()
    bucket.close()


def test_a_bucket_elsewhere_is_found_by_what_s3_says() -> None:
    def answer(request: Request) -> Reply:
        if "/eu-central-1/s3/" in request.headers["Authorization"]:
            return Reply(body=EMPTY)
        return Reply(
            400,
            "<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-central-1</Region></Error>",
        )

    server, bucket = source(answer)
    with server:
        assert bucket.list() == []
        assert bucket.list() == []
    assert len(server.asked) == 3
    assert all(request.target == server.asked[0].target for request in server.asked)
    bucket.close()


def test_a_connection_that_the_server_closed_meanwhile_is_no_fault(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_calls, "RETRIES", replace(http_calls.RETRIES, attempts=1))
    server, bucket = source(lambda _: Reply(body=EMPTY))
    with server:
        bucket.list()
        server.hang_up()
        assert bucket.list() == []
    bucket.close()


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_passing_fault_is_passed_by(status: int) -> None:
    replies = iter([Reply(status), Reply(status), Reply(body=EMPTY)])
    server, bucket = source(lambda _: next(replies))
    with server:
        assert bucket.list() == []
    bucket.close()


def test_a_lasting_fault_is_told_with_how_long_to_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    hurried = replace(http_calls.RETRIES, longest_seconds=0.001)
    monkeypatch.setattr(http_calls, "RETRIES", hurried)
    slow = "<Error><Code>SlowDown</Code></Error>"
    server, bucket = source(lambda _: Reply(503, slow, {"Retry-After": "7"}))
    with server, pytest.raises(UnreachableError, match="answered 503 SlowDown") as told:
        bucket.list()
    assert told.value.retry_after == 7
    assert len(server.asked) == 3
    bucket.close()


def test_who_and_what_are_taken_from_the_stores_own_words() -> None:
    message = (
        "User: arn:aws:iam::123456789012:user/ci is not authorized to perform: kms:Decrypt on it"
    )
    denied = f"<Error><Code>AccessDenied</Code><Message>{message}</Message></Error>"
    server, bucket = source(lambda _: Reply(403, denied))
    with server, pytest.raises(AccessDeniedError, match=r"^arn:.*:user/ci lacks kms:Decrypt on s3"):
        bucket.list()
    bucket.close()


@pytest.mark.parametrize(
    "answer",
    [
        "<html>",
        "<html></html>",
        "<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>",
    ],
)
def test_what_is_no_listing_is_no_answer_to_build_on(answer: str) -> None:
    server, bucket = source(lambda _: Reply(200, answer))
    with server, pytest.raises(UnreachableError):
        bucket.list()
    bucket.close()


@pytest.mark.parametrize(
    ("path_style", "host", "target"),
    [(False, "models.s3.test", "/?"), (True, "s3.test", "/models/?")],
)
def test_a_bucket_is_named_by_the_host_or_in_the_path(
    monkeypatch: pytest.MonkeyPatch, path_style: bool, host: str, target: str
) -> None:
    resolve = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda _, *more, **named: resolve("127.0.0.1", *more, **named)
    )
    with Answering(lambda _: Reply(body=EMPTY)) as server:
        port = server.url.rpartition(":")[2]
        bucket = S3Source(
            parse_uri("s3://models/imagenet"),
            endpoint=f"http://s3.test:{port}",
            region=None,
            path_style=path_style,
            anonymous=True,
            credentials=Credentials(),
        )
        bucket.list()
    (asked,) = server.asked
    assert asked.headers["Host"] == f"{host}:{port}"
    assert asked.target.startswith(target)
    bucket.close()


def test_a_bucket_that_is_not_there_is_told_by_404_alone() -> None:
    server, bucket = source(lambda _: Reply(404))
    with server, pytest.raises(BucketNotFoundError, match="bucket models does not exist"):
        bucket.list()
    bucket.close()


def test_keys_of_a_secret_are_read_once_a_second_and_after_a_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(aws, "time", SimpleNamespace(monotonic=lambda: now[0]))
    asking = identity({}, tmp_path)

    def rotate(key: str) -> None:
        (tmp_path / "AWS_ACCESS_KEY_ID").write_text(key)
        (tmp_path / "AWS_SECRET_ACCESS_KEY").write_text(f"secret of {key}")

    rotate("first")
    assert asking.keys().access_key_id == "first"
    rotate("second")
    assert asking.keys().access_key_id == "first"
    asking.forget()
    assert asking.keys().access_key_id == "second"
    rotate("third")
    now[0] += 1.1
    assert asking.keys().access_key_id == "third"


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("https://minio.example:443", "https://minio.example"),
        ("http://minio:80/behind", "http://minio"),
        ("https://MinIO.Example.com", "https://minio.example.com"),
        ("http://minio:09000", "http://minio:9000"),
        ("http://[::1]:9000", "http://[::1]:9000"),
        ("http://bücher.example", "http://xn--bcher-kva.example"),
    ],
)
def test_a_server_is_signed_for_as_it_is_asked(written: str, sent: str) -> None:
    bucket = S3Source(
        parse_uri("s3://models/imagenet"),
        endpoint=written,
        region=None,
        path_style=True,
        anonymous=True,
        credentials=Credentials(),
    )
    assert bucket.origin == sent
    bucket.close()


def test_a_signature_holds_for_the_name_that_the_server_is_called_by() -> None:
    keys = {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "s"}
    with Answering(lambda _: Reply(body=EMPTY)) as server:
        bucket = S3Source(
            parse_uri("s3://models/imagenet"),
            endpoint=server.url.replace("127.0.0.1", "LocalHost"),
            region="eu-west-1",
            path_style=True,
            anonymous=False,
            credentials=Credentials(keys),
        )
        bucket.list()
    bucket.close()
    (asked,) = server.asked
    moment = datetime.strptime(asked.headers["X-Amz-Date"], "%Y%m%dT%H%M%S%z").timestamp()
    signed = Signer(Keys("AKIA", "s", None, "somebody"), "eu-west-1", "s3").signed(
        "GET", asked.headers["Host"], asked.target, {}, hashlib.sha256().hexdigest(), moment
    )
    assert asked.headers["Authorization"] == signed["Authorization"]
