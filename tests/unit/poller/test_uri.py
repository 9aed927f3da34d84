"""Storage URIs, and where they lead."""

from __future__ import annotations

import pytest

from model_poller.errors import InvalidSettingsError
from model_poller.notifications.sqs import Queue
from model_poller.stores.connections import Connections
from model_poller.stores.credentials import Credentials
from model_poller.stores.s3 import S3Source
from model_poller.stores.uri import Location, parse_uri

POINT = "arn:aws:s3:eu-west-1:123456789012:accesspoint/name"
KEYS = Credentials({"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "secret"})


@pytest.mark.parametrize(
    ("uri", "bucket", "prefix"),
    [
        (f"s3://{POINT}/a/b", POINT, "a/b"),
        (f"s3://{POINT}", POINT, ""),
        (f"s3://{POINT.replace('/', ':')}/a", POINT.replace("/", ":"), "a"),
        ("s3://My_Models.1999/a", "My_Models.1999", "a"),
        ("gs://my_models.example.com/a b", "my_models.example.com", "a b"),
        ("az://$web/a", "$web", "a"),
        ("https://[::1]:8080/a%20b", "[::1]:8080", "a%20b"),
        ("file:///a/b", "", "a/b"),
        ("file:///", "", ""),
    ],
)
def test_a_storage_uri_is_a_bucket_and_a_folder(uri: str, bucket: str, prefix: str) -> None:
    found = parse_uri(uri)
    assert found == Location(bucket, prefix, uri.partition(":")[0])
    assert found.uri == uri


@pytest.mark.parametrize(
    ("uri", "below"),
    [
        ("file:///", "file:///m"),
        ("file:///a", "file:///a/m"),
        ("s3://models", "s3://models/m"),
        ("https://a/b%20c/", "https://a/b%20c/m"),
    ],
)
def test_what_lies_below_a_storage_uri_is_called_by_one_that_can_be_given(
    uri: str, below: str
) -> None:
    assert parse_uri(uri).child("m") == below
    assert parse_uri(below).uri == below


@pytest.mark.parametrize(
    "uri",
    [
        f"s3://{POINT}_x/a",
        "s3://arn:aws:s3:::models/a",
        "s3://my/a",
        "az://$all/a",
        "https://[1:2]/a",
        "https://a..b/a",
        "https://a:65536/a",
        "https://a/b c",
        "https://a/100%",
        "http://",
        "file://",
    ],
)
def test_what_is_no_storage_uri_is_refused_at_once(uri: str) -> None:
    with pytest.raises(InvalidSettingsError):
        parse_uri(uri)


@pytest.mark.parametrize(
    ("uri", "endpoint", "url"),
    [
        (
            f"s3://{POINT}/a",
            None,
            "https://name-123456789012.s3-accesspoint.eu-west-1.amazonaws.com/k",
        ),
        (
            "s3://arn:aws-cn:s3:cn-north-1:123456789012:accesspoint/name",
            None,
            "https://name-123456789012.s3-accesspoint.cn-north-1.amazonaws.com.cn/k",
        ),
        (
            f"s3://{POINT}/a",
            "https://accesspoint.vpce-1.s3.eu-west-1.vpce.amazonaws.com",
            "https://name-123456789012.accesspoint.vpce-1.s3.eu-west-1.vpce.amazonaws.com/k",
        ),
        (
            "s3://arn:aws:s3::123456789012:accesspoint/abc.mrap/a",
            None,
            "https://abc.mrap.accesspoint.s3-global.amazonaws.com/k",
        ),
        ("s3://my_models/a", None, "https://s3.us-east-1.amazonaws.com/my_models/k"),
        ("s3://Models/a", None, "https://s3.us-east-1.amazonaws.com/Models/k"),
        ("s3://models/a", None, "https://models.s3.us-east-1.amazonaws.com/k"),
        ("s3://models/a", "http://[::1]:9000", "http://[::1]:9000/models/k"),
    ],
)
def test_an_object_is_where_its_bucket_or_access_point_is(
    uri: str, endpoint: str | None, url: str
) -> None:
    source = S3Source(
        parse_uri(uri),
        endpoint=endpoint,
        region=None,
        path_style=endpoint is not None,
        anonymous=False,
        credentials=KEYS,
    )
    assert source.origin + source.target("k") == url


def test_an_access_point_of_many_regions_is_signed_for_in_all_of_them() -> None:
    source = S3Source(
        parse_uri("s3://arn:aws:s3::123456789012:accesspoint/abc.mrap/a"),
        endpoint=None,
        region=None,
        path_style=False,
        anonymous=False,
        credentials=KEYS,
    )
    headers = source.signed("GET", "/k", {})
    assert headers["X-Amz-Region-Set"] == "*"
    assert headers["Authorization"].startswith("AWS4-ECDSA-P256-SHA256 ")


def test_a_notification_names_the_bucket_behind_an_access_point() -> None:
    for uri in (f"s3://{POINT}/a", "s3://models-abc-s3alias/a"):
        assert parse_uri(uri).holds("models", "a/1/saved_model.pb")
        assert not parse_uri(uri).holds("models", "b/1/saved_model.pb")
    assert not parse_uri("s3://models/a").holds("others", "a/1/saved_model.pb")


@pytest.mark.parametrize(
    ("url", "region"),
    [
        ("https://sqs.eu-central-1.amazonaws.com/123456789012/models", "eu-central-1"),
        ("https://sqs.us-gov-west-1.amazonaws.com/123456789012/models", "us-gov-west-1"),
        ("https://sqs.cn-north-1.amazonaws.com.cn/123456789012/models", "cn-north-1"),
        ("https://sqs-fips.us-east-2.amazonaws.com/123456789012/models", "us-east-2"),
        ("https://eu-west-1.queue.amazonaws.com/123456789012/models", "eu-west-1"),
        ("https://vpce-1.sqs.eu-west-1.vpce.amazonaws.com/123456789012/models", "eu-west-1"),
        ("http://sqs.eu-west-1.localhost.localstack.cloud:4566/000000000000/m", "eu-west-1"),
        ("http://localhost:4566/000000000000/models", "ap-south-1"),
    ],
)
def test_a_queue_is_asked_in_the_region_that_its_url_names(url: str, region: str) -> None:
    queue = Queue(
        url,
        credentials=KEYS,
        region="ap-south-1",
        on_object=lambda bucket, name: None,
        on_connect=lambda: None,
        report=lambda status: None,
    )
    assert queue.region == region


@pytest.mark.parametrize("endpoint", ["http://a:99999", "http://a..b", "http://[::1", "http://"])
def test_an_endpoint_that_names_no_host_is_refused_and_no_traceback(endpoint: str) -> None:
    with pytest.raises(InvalidSettingsError, match="names no host with a port"):
        Connections(endpoint, 1)
