"""Stores and clients that answer and ask as nobody should."""

from __future__ import annotations

import itertools
import socket
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from model_poller.api import MAX_HEAD_BYTES
from model_poller.errors import AccessDeniedError, UnreachableError
from model_poller.stores.credentials import Credentials
from model_poller.stores.http_ranges import HttpRanges
from model_poller.stores.uri import parse_uri
from model_poller.stores.web_site import _MAX_ORIGINS, Site
from model_poller.versions import discover
from tests.unit.poller.answering import Answering, Reply
from tests.unit.poller.test_api import pod  # noqa: F401 - a fixture
from tests.unit.poller.test_aws import EMPTY, assumed, identity, irsa, later, source
from tests.unit.poller.test_azure import source as azure
from tests.unit.poller.test_store import adopt, store  # noqa: F401 - a fixture

if TYPE_CHECKING:
    from pathlib import Path

    from model_poller.volume.store import Store
    from tests.unit.poller.answering import Request
    from tests.unit.poller.test_api import Pod


def entry(key: str, size: str = "1") -> str:
    return f"<Contents><Key>{key}</Key><Size>{size}</Size><ETag>x</ETag></Contents>"


@pytest.mark.parametrize("size", ["", "-1", "1e3", "9" * 5000])
def test_a_size_that_is_none_spoils_its_version_alone(size: str) -> None:
    shown = entry("imagenet/1/a", size) + entry("imagenet/2.zip")
    server, bucket = source(lambda _: Reply(body=f"<ListBucketResult>{shown}</ListBucketResult>"))
    with server, closing(bucket):
        found = discover(bucket.survey(), {})
    assert found[2].incomplete is None
    assert found[1].incomplete
    assert f"imagenet/1/a: it is listed with {size[:50]!r}, which" in found[1].incomplete.message


def test_a_size_of_a_blob_that_is_none_spoils_its_version_alone() -> None:
    def blob(name: str, size: str) -> str:
        told = f"<Content-Length>{size}</Content-Length><Etag>x</Etag>"
        return f"<Blob><Name>{name}</Name><Properties>{told}</Properties></Blob>"

    shown = blob("imagenet/1/a", "-1") + blob("imagenet/2.zip", "1")
    page = f"<EnumerationResults><Blobs>{shown}</Blobs></EnumerationResults>"
    server, container = azure(lambda _: Reply(body=page))
    with server, closing(container):
        found = discover(container.survey(), {})
    assert found[2].incomplete is None
    assert found[1].incomplete
    assert "imagenet/1/a: it is listed with '-1', which is no C" in found[1].incomplete.message


def test_what_a_store_shows_beside_the_folder_is_none_of_it() -> None:
    shown = "".join(map(entry, ["1/a", "other/2/a", "imagenet/3/a", "imagenet-new/4/a"]))
    server, bucket = source(lambda _: Reply(body=f"<ListBucketResult>{shown}</ListBucketResult>"))
    with server, closing(bucket):
        assert [stored.path for stored in bucket.list()] == ["3/a"]


def test_a_bucket_that_is_in_ever_another_region_is_told() -> None:
    regions = itertools.cycle(["eu-central-1", "eu-west-1"])

    def answer(_: Request) -> Reply:
        return Reply(400, f"<Error><Code>Odd</Code><Region>{next(regions)}</Region></Error>")

    server, bucket = source(answer)
    with server, closing(bucket), pytest.raises(UnreachableError, match="400 Odd"):
        bucket.list()
    assert len(server.asked) < 10


@pytest.mark.parametrize("region", ["evil.example/", "x@evil.example", "a b", "é"])
def test_what_is_no_region_becomes_no_part_of_a_host(region: str) -> None:
    answers = itertools.chain([Reply(400, f"<Error><Region>{region}</Region></Error>")])
    server, bucket = source(lambda _: next(answers, Reply(body=EMPTY)))
    with server, closing(bucket), pytest.raises(UnreachableError):
        bucket.list()
    assert len(server.asked) == 1


def test_a_wrong_clock_is_told_as_that() -> None:
    refusal = "<Error><Code>RequestTimeTooSkewed</Code><Message>by 3600 s</Message></Error>"
    server, bucket = source(lambda _: Reply(403, refusal))
    with server, closing(bucket), pytest.raises(AccessDeniedError, match=r"clock is wrong \(by 36"):
        bucket.list()


def test_who_hands_out_keys_is_not_asked_at_every_request_as_a_clock_is_wrong(
    tmp_path: Path,
) -> None:
    with Answering(lambda _: Reply(body=assumed(later(-3600)))) as sts:
        who = identity(irsa(tmp_path, sts))
        assert {who.keys().access_key_id for _ in range(5)} == {"ASIA1"}
    assert len(sts.asked) == 1


def test_an_end_of_keys_that_is_no_time_is_told(tmp_path: Path) -> None:
    with (
        Answering(lambda _: Reply(body=assumed("soon"))) as sts,
        pytest.raises(AccessDeniedError, match="not in the documented form"),
    ):
        identity(irsa(tmp_path, sts)).keys()


def test_an_end_of_keys_without_a_zone_is_the_same_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Answering(lambda _: Reply(body=assumed("2040-01-01T00:00:00"))) as sts:
        monkeypatch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        try:
            assert identity(irsa(tmp_path, sts)).keys().expires == 2208988800
        finally:
            monkeypatch.undo()
            time.tzset()


@pytest.mark.parametrize("told", ["%%%", "AAAA", "no"])
def test_an_md5_of_a_blob_that_is_none_proves_nothing(told: str) -> None:
    page = (
        "<EnumerationResults><Blobs><Blob><Name>imagenet/1/a</Name><Properties><Etag>x</Etag>"
        f"<Content-Length>1</Content-Length><Content-MD5>{told}</Content-MD5></Properties></Blob>"
        "</Blobs><NextMarker/></EnumerationResults>"
    )
    server, container = azure(lambda _: Reply(body=page))
    with server, closing(container):
        (stored,) = container.list()
    assert not stored.has_checksum


def test_redirects_to_ever_another_server_keep_few_connections() -> None:
    with closing(Site(parse_uri("http://127.0.0.1/models"), Credentials({}))) as site:
        for number in range(3 * _MAX_ORIGINS):
            calls = site._calls_of(f"http://127.0.0.1:{number + 1}")
            site._ranges_of(f"http://127.0.0.1:{number + 1}")
            assert site._calls_of(f"http://127.0.0.1:{number + 1}") is calls
        assert len(site._calls) == len(site._ranges) == _MAX_ORIGINS


def test_a_part_of_unknown_place_and_another_length_is_no_part() -> None:
    with Answering(lambda _: Reply(206, b"0123456789")) as server:
        ranges = HttpRanges(server.url)
        with (
            pytest.raises(UnreachableError, match="doesn't say which bytes"),
            ranges.get("/x", {}, 4, 3),
        ):
            pass
        ranges.close()


def test_a_file_of_a_versions_name_keeps_the_version_not_away(
    store: Store,  # noqa: F811
) -> None:
    adopt(store, 2)
    (store.base / "2").write_text("what is this?")
    store.publish(2)
    assert store.scan().published.keys() == {2}


def test_a_head_without_an_end_is_refused_before_it_is_all_there(pod: Pod) -> None:  # noqa: F811
    with socket.create_connection(("127.0.0.1", pod.api.port), timeout=10) as client:
        client.sendall(b"GET /livez HTTP/1.1\r\n")
        line = b"X: " + b"x" * 1000 + b"\r\n"
        for _ in range(MAX_HEAD_BYTES // len(line) + 1):
            client.sendall(line)
        assert b" 431 " in client.recv(1000)
    assert pod.get("/livez")[0] == 200
