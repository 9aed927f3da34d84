"""Signatures are those that AWS' own library makes, byte for byte."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from urllib.parse import quote, urlencode

import pytest
from awscrt import auth, http
from hypothesis import example, given
from hypothesis import strategies as st

from model_poller.stores.aws_signature import Keys, Signer

NAMES = st.text(min_size=1, max_size=20).filter(lambda name: name.encode(errors="ignore") != b"")
VALUES = st.text("abcXYZ019 \t/+=,;:\"'()~*%", max_size=30)
HEADERS = st.dictionaries(
    st.sampled_from(
        ["If-Match", "x-amz-checksum-mode", "Content-Type", "X-Amz-Target", "x-amz-meta-a"]
    ),
    VALUES,
)
PAYLOADS = st.sampled_from(
    [hashlib.sha256(b"").hexdigest(), hashlib.sha256(b"{}").hexdigest(), "UNSIGNED-PAYLOAD"]
)
PATHS = st.lists(NAMES, min_size=1, max_size=4).map(
    lambda names: "/" + quote("/".join(names).encode(errors="replace"), safe="/~")
)
QUERIES = st.lists(st.tuples(NAMES, NAMES | st.just("")), max_size=4, unique_by=lambda p: p[0]).map(
    lambda pairs: urlencode(pairs, quote_via=quote, safe="", errors="replace")
)
TEXT = st.text("abcdefXYZ0189/+", min_size=1, max_size=40)


def told(signed: dict[str, str]) -> dict[str, str]:
    """Headers as the library gives them back."""
    return {name.lower(): value.strip(" \t") for name, value in signed.items()}


def by_awscrt(
    keys: Keys,
    region: str,
    service: str,
    request: tuple[str, str, str, dict[str, str], str],
    moment: int,
) -> dict[str, str]:
    method, host, target, headers, payload = request
    asked = http.HttpRequest(method, target, http.HttpHeaders([("host", host), *headers.items()]))
    kinds = auth.AwsSignedBodyHeaderType
    config = auth.AwsSigningConfig(
        algorithm=auth.AwsSigningAlgorithm.V4,
        signature_type=auth.AwsSignatureType.HTTP_REQUEST_HEADERS,
        credentials_provider=auth.AwsCredentialsProvider.new_static(
            keys.access_key_id, keys.secret, keys.token
        ),
        region=region,
        service=service,
        date=datetime.fromtimestamp(moment, UTC),
        use_double_uri_encode=service != "s3",
        should_normalize_uri_path=service != "s3",
        signed_body_value=payload,
        signed_body_header_type=kinds.X_AMZ_CONTENT_SHA_256 if service == "s3" else kinds.NONE,
    )
    auth.aws_sign_request(asked, config).result(10)
    return told({name: value for name, value in asked.headers if name.lower() != "host"})


@given(
    secrets=st.tuples(TEXT, TEXT, st.none() | TEXT),
    moments=st.lists(st.integers(10**9, 4 * 10**9), min_size=1, max_size=3),
    method=st.sampled_from(["GET", "HEAD", "PUT", "POST", "DELETE"]),
    path=PATHS,
    query=QUERIES,
    headers=HEADERS,
    payload=PAYLOADS,
)
@example(
    secrets=("AKIA", "s", None),
    moments=[1_700_000_000],
    method="POST",
    path="/models/x~y/a%20b%2Bc",
    query="uploads",
    headers={"If-Match": '"a  b"', "Content-Type": " a\t b "},
    payload="UNSIGNED-PAYLOAD",
)
def test_a_request_to_s3_is_signed_as_by_the_library(
    secrets: tuple[str, str, str | None],
    moments: list[int],
    method: str,
    path: str,
    query: str,
    headers: dict[str, str],
    payload: str,
) -> None:
    keys = Keys(*secrets, "somebody")
    signer = Signer(keys, "eu-west-1", "s3")
    target = f"{path}?{query}" if query else path
    request = (method, "models.s3.eu-west-1.amazonaws.com:9000", target, headers, payload)
    for moment in moments:
        found = told(signer.signed(*request, float(moment)))
        assert found == by_awscrt(keys, "eu-west-1", "s3", request, moment)


@given(path=st.sampled_from(["/", "/123456789012/queue", "/a%20b"]), token=st.none() | TEXT)
def test_a_request_to_another_service_is_signed_as_by_the_library(
    path: str, token: str | None
) -> None:
    keys = Keys("AKIA", "secret", token, "somebody")
    headers = {"Content-Type": "application/x-amz-json-1.0", "X-Amz-Target": "AmazonSQS.Receive"}
    payload = hashlib.sha256(b"{}").hexdigest()
    request = ("POST", "sqs.us-east-1.amazonaws.com", path, headers, payload)
    found = told(Signer(keys, "us-east-1", "sqs").signed(*request, 1_800_000_000.0))
    assert found == by_awscrt(keys, "us-east-1", "sqs", request, 1_800_000_000)


@pytest.mark.parametrize("seconds", [86400 * 20000 - 1, 86400 * 20000])
def test_a_key_lasts_for_a_day(seconds: int) -> None:
    keys = Keys("AKIA", "secret", None, "somebody")
    signer = Signer(keys, "us-east-1", "s3")
    request = ("GET", "b.s3.amazonaws.com", "/x", dict[str, str](), "UNSIGNED-PAYLOAD")
    signer.signed(*request, 86400 * 20000 - 1)
    found = told(signer.signed(*request, seconds))
    assert found == by_awscrt(keys, "us-east-1", "s3", request, seconds)
