"""Who asks Azure: where proofs come from, when they are renewed, and what is told of them."""

from __future__ import annotations

import json
import traceback
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest

from model_poller.errors import AccessDeniedError, InvalidSettingsError, UnreachableError
from model_poller.stores import http_calls
from model_poller.stores.az import AzureSource
from model_poller.stores.azure import AzureIdentity
from model_poller.stores.credentials import Credentials
from model_poller.stores.uri import parse_uri
from tests.unit.poller.answering import Answering, Reply, Request

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BLOB = "https://models.blob.core.windows.net/c/x"


def identity(environment: dict[str, str], account: str | None = "models") -> AzureIdentity:
    return AzureIdentity(Credentials(environment), account, anonymous=False)


def token(value: str = "t1", seconds: int = 3600) -> str:
    return json.dumps({"access_token": value, "expires_in": seconds, "token_type": "Bearer"})


def workload(tmp_path: Path, server: Answering) -> dict[str, str]:
    (tmp_path / "token").write_text("eyJ.first\n")
    return {
        "AZURE_CLIENT_ID": "client-1",
        "AZURE_TENANT_ID": "tenant-1",
        "AZURE_FEDERATED_TOKEN_FILE": str(tmp_path / "token"),
        "AZURE_AUTHORITY_HOST": f"{server.url}/",
    }


def test_a_workloads_token_is_exchanged_once_while_it_lasts(tmp_path: Path) -> None:
    with Answering(lambda _: Reply(body=token())) as authority:
        who = identity(workload(tmp_path, authority))
        proofs = [who.prove("GET", BLOB, {}) for _ in range(3)]
    (asked,) = authority.asked
    assert asked.target == "/tenant-1/oauth2/v2.0/token"
    form = parse_qs(asked.body.decode())
    assert form["client_assertion"] == ["eyJ.first"]
    assert form["scope"] == ["https://storage.azure.com/.default"]
    assert proofs[0][1]["Authorization"] == "Bearer t1"


def test_a_token_is_renewed_before_it_expires(tmp_path: Path) -> None:
    with Answering(lambda _: Reply(body=token(seconds=200))) as authority:
        who = identity(workload(tmp_path, authority))
        who.prove("GET", BLOB, {})
        (tmp_path / "token").write_text("eyJ.second")
        who.prove("GET", BLOB, {})
    assert [b"eyJ.first" in r.body for r in authority.asked] == [True, False]


def test_a_token_that_still_counts_outlives_who_hands_it_out(tmp_path: Path) -> None:
    with Answering(lambda _: Reply(body=token(seconds=200))) as authority:
        who = identity(workload(tmp_path, authority))
        who.prove("GET", BLOB, {})
    assert who.prove("GET", BLOB, {})[1]["Authorization"] == "Bearer t1"
    who.forget()
    with pytest.raises(UnreachableError):
        who.prove("GET", BLOB, {})


def test_a_refused_workload_names_client_and_reason(tmp_path: Path) -> None:
    told = {
        "error": "invalid_client",
        "error_description": "AADSTS700213: No matching federated identity\r\nTrace ID: 1",
    }
    with Answering(lambda _: Reply(401, json.dumps(told))) as authority:
        who = identity(workload(tmp_path, authority))
        with pytest.raises(
            AccessDeniedError, match=r"client-1 of the tenant tenant-1 .*AADSTS700213"
        ) as refused:
            who.prove("GET", BLOB, {})
    assert "eyJ" not in str(refused.value)
    assert "Trace" not in str(refused.value)


def test_a_workload_without_its_token_is_told(tmp_path: Path) -> None:
    missing = {
        "AZURE_CLIENT_ID": "c",
        "AZURE_TENANT_ID": "t",
        "AZURE_FEDERATED_TOKEN_FILE": str(tmp_path / "no"),
    }
    with pytest.raises(AccessDeniedError, match="AZURE_FEDERATED_TOKEN_FILE"):
        identity(missing).prove("GET", BLOB, {})


def test_a_machines_identity_can_be_one_of_several() -> None:
    with Answering(lambda _: Reply(body=token())) as metadata:
        who = identity(
            {"AZURE_POD_IDENTITY_AUTHORITY_HOST": metadata.url, "AZURE_CLIENT_ID": "client-1"}
        )
        who.prove("GET", BLOB, {})
    (asked,) = metadata.asked
    query = parse_qs(urlsplit(asked.target).query)
    assert query["client_id"] == ["client-1"]
    assert asked.headers["Metadata"] == "true"


@pytest.mark.parametrize("status", [408, 410, 429, 500, 503])
def test_a_busy_machine_is_not_taken_for_one_without_an_identity(status: int) -> None:
    answers = [Reply(status), Reply(body=token())]
    with Answering(lambda _: answers.pop(0)) as metadata:
        who = identity({"AZURE_POD_IDENTITY_AUTHORITY_HOST": metadata.url})
        with pytest.raises(UnreachableError, match=f"answered {status}"):
            who.prove("GET", BLOB, {})
        who.prove("GET", BLOB, {})


def test_an_odd_answer_is_told_without_what_is_in_it() -> None:
    with Answering(lambda _: Reply(body='{"token": "hidden"}')) as metadata:
        who = identity({"AZURE_POD_IDENTITY_AUTHORITY_HOST": metadata.url})
        with pytest.raises(AccessDeniedError, match="gets no token") as told:
            who.prove("GET", BLOB, {})
    assert "hidden" not in str(told.value)


def test_without_any_credentials_the_ways_to_give_some_are_told() -> None:
    who = identity({"AZURE_POD_IDENTITY_AUTHORITY_HOST": "http://127.0.0.1:9"})
    with pytest.raises(AccessDeniedError, match="give AZURE_STORAGE_CONNECTION_STRING"):
        who.prove("GET", BLOB, {})


def test_a_key_that_is_none_is_told() -> None:
    with pytest.raises(AccessDeniedError, match="key of the account models is not in base64"):
        identity({"AZURE_STORAGE_ACCOUNT_KEY": "hid den"}).prove("GET", BLOB, {})


def test_a_secret_that_no_header_takes_is_not_told() -> None:
    with Answering(lambda _: Reply(body=token("hid\nxyz"))) as metadata:
        container = AzureSource(
            parse_uri("az://models/imagenet"),
            endpoint=metadata.url,
            account=None,
            anonymous=False,
            credentials=Credentials({"AZURE_POD_IDENTITY_AUTHORITY_HOST": metadata.url}),
        )
        with pytest.raises(AccessDeniedError, match="write them anew") as told:
            container.list()
    assert "xyz" not in "".join(traceback.format_exception(told.value))
    container.close()


@pytest.mark.parametrize(
    ("environment", "account", "endpoint"),
    [
        ({}, "models", "https://models.blob.core.windows.net"),
        ({"AZURE_STORAGE_ACCOUNT_NAME": "m2"}, None, "https://m2.blob.core.windows.net"),
        (
            {
                "AZURE_STORAGE_CONNECTION_STRING": (
                    "DefaultEndpointsProtocol=https;AccountName=m3;AccountKey=a==;"
                    "EndpointSuffix=core.chinacloudapi.cn"
                )
            },
            None,
            "https://m3.blob.core.chinacloudapi.cn",
        ),
    ],
)
def test_the_endpoint_follows_from_the_account(
    environment: dict[str, str], account: str | None, endpoint: str
) -> None:
    assert identity(environment, account).endpoint == endpoint


def test_a_missing_account_is_told() -> None:
    with pytest.raises(InvalidSettingsError, match="--azure-account"):
        AzureSource(
            parse_uri("az://models/imagenet"),
            endpoint=None,
            account=None,
            anonymous=False,
            credentials=Credentials(),
        )


# -- Blob Storage, where no real server of the tests says it -------------------------------------


def source(answer: Callable[[Request], Reply]) -> tuple[Answering, AzureSource]:
    server = Answering(answer)
    made = AzureSource(
        parse_uri("az://models/imagenet"),
        endpoint=server.url,
        account=None,
        anonymous=True,
        credentials=Credentials(),
    )
    return server, made


def test_names_that_xml_cannot_hold_are_decoded() -> None:
    listing = """<EnumerationResults><Blobs><Blob><Name Encoded="true">imagenet/1/a%EF%BF%BE</Name>
    <Properties><Etag>0x1</Etag><Content-Length>3</Content-Length></Properties></Blob></Blobs>
    <NextMarker/></EnumerationResults>"""
    server, container = source(lambda _: Reply(body=listing))
    with server:
        (stored,) = container.list()
    assert (stored.path, stored.md5) == ("1/a\ufffe", None)
    container.close()


@pytest.mark.parametrize(
    "answer",
    [
        "<html>",
        "<html></html>",
        "<EnumerationResults><NextMarker>again</NextMarker></EnumerationResults>",
    ],
)
def test_what_is_no_listing_is_no_answer_to_build_on(answer: str) -> None:
    server, container = source(lambda _: Reply(200, answer))
    with server, pytest.raises(UnreachableError):
        container.list()
    container.close()


def test_an_account_that_is_closed_to_the_public_refuses() -> None:
    closed = "<Error><Code>PublicAccessNotPermitted</Code></Error>"
    server, container = source(lambda _: Reply(409, closed))
    with server, pytest.raises(AccessDeniedError, match="an anonymous caller may not list"):
        container.list()
    container.close()


def test_a_busy_account_is_told_with_how_long_to_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    hurried = replace(http_calls.RETRIES, longest_seconds=0.001)
    monkeypatch.setattr(http_calls, "RETRIES", hurried)
    busy = "<Error><Code>ServerBusy</Code></Error>"
    server, container = source(lambda _: Reply(503, busy, {"Retry-After": "7"}))
    with server, pytest.raises(UnreachableError, match="answered 503 ServerBusy") as told:
        container.list()
    assert told.value.retry_after == 7
    container.close()
