"""Buckets of more objects than a page shows, on real servers."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeAlias

import pytest

from model_poller.metrics import METRICS
from model_poller.stores import az
from model_poller.stores.credentials import Credentials
from model_poller.stores.opening import SourceSettings, open_source
from model_poller.stores.uri import parse_uri
from model_poller.versions import Interest, discover
from tests.support.stores import AZURE_KEY, Aws, BlobContainer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from demo.storage import Storage
    from model_poller.stores import Source

    Filled: TypeAlias = tuple[Source, int]

pytestmark = pytest.mark.e2e

VERSIONS = range(1, 401)
FILES = ("saved_model.pb", "assets/my vocab.txt", "assets/größe.txt")


def names() -> Iterator[str]:
    for number in VERSIONS:
        yield from (f"a+b/{number}/{name}" for name in FILES)
    yield "a+b/7000.zip"
    yield "a+b/7000.zip.bak"
    yield "a+b2/9000.zip"


def fill(upload: Callable[[str, bytes], object]) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: upload(name, b"x"), names()))


@pytest.fixture(params=["gs", "s3", "az"])
def large(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Source]:
    match request.param:
        case "gs":
            storage: Storage = request.getfixturevalue("storage")
            fill(storage.bucket.upload)
            chosen = SourceSettings((parse_uri("gs://models/a+b"),), storage.url, anonymous=True)
        case "s3":
            aws: Aws = request.getfixturevalue("aws")
            bucket = aws.bucket(request.getfixturevalue("fresh_name")("models"))
            fill(bucket.upload)
            chosen = SourceSettings(
                (parse_uri(f"s3://{bucket.name}/a+b"),),
                aws.endpoint,
                path_style=True,
                credentials=Credentials(aws.keys),
            )
        case _:
            monkeypatch.setattr(az, "PAGE", 1000)
            container: BlobContainer = request.getfixturevalue("container")
            fill(container.upload)
            chosen = SourceSettings(
                (parse_uri(f"az://{container.name}/a+b"),),
                container.endpoint,
                azure_account="devstoreaccount1",
                credentials=Credentials({"AZURE_STORAGE_ACCOUNT_KEY": AZURE_KEY}),
            )
    source = open_source(chosen)
    yield source
    source.close()


def calls() -> float:
    return float(METRICS.source_requests.labels("list")._value.get())


def test_a_large_bucket_is_listed_by_the_names_below_the_uri_and_what_is_gone_into(
    large: Source,
) -> None:
    found = discover(large.survey(), {}, files=large.files)
    assert found.keys() == {*VERSIONS, 7000}
    assert [stored.path for stored in found[7000].objects] == ["7000.zip"]
    assert sorted(stored.path for stored in found[400].objects) == sorted(
        f"400/{name}" for name in FILES
    )
    assert {number for number, version in found.items() if version.is_known} == {399, 400, 7000}

    before = calls()
    again = discover(
        large.survey(),
        {},
        interest=Interest(newest=7000, wanted=frozenset({9})),
        files=large.files,
    )
    assert calls() - before == 2, "the names, and version 9"
    assert again[7000].fingerprint == found[7000].fingerprint
    assert sorted(stored.path for stored in again[9].objects) == sorted(
        f"9/{name}" for name in FILES
    )
    expected = {name.removeprefix("a+b/") for name in names() if name.startswith("a+b/")}
    assert {stored.path for stored in large.list()} == expected
