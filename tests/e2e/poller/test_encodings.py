"""Objects with ``Content-Encoding: gzip``, on real servers."""

from __future__ import annotations

import gzip
import urllib.request
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import pytest

from model_poller.stores.credentials import Credentials
from model_poller.stores.opening import SourceSettings, open_source
from model_poller.stores.uri import parse_uri
from tests.support.stores import AZURE_ACCOUNT, AZURE_KEY, Aws, BlobContainer
from tests.unit.poller.doubles import below, model, zipped
from tests.unit.poller.world import World

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from demo.storage import Storage

pytestmark = pytest.mark.e2e

FILES = model(b"w" * 100_000)
UPLOADS = {
    **{f"imagenet/{path}": content for path, content in below("1", FILES).items()},
    "imagenet/2.zip": zipped(FILES),
}


def check(chosen: SourceSettings, folder: Path) -> None:
    source = open_source(chosen)
    assert all(source.describe(stored).is_gzipped for stored in source.list())
    world = World(folder, source=source)
    world.settle(4)
    assert world.base() == {"2": FILES}
    source.close()


def test_google_cloud_storage(storage: Storage, tmp_path: Path) -> None:
    for name, content in UPLOADS.items():
        query = urlencode({"uploadType": "media", "name": name, "contentEncoding": "gzip"})
        urllib.request.urlopen(
            urllib.request.Request(
                f"{storage.url}/upload/storage/v1/b/models/o?{query}", gzip.compress(content)
            ),
            timeout=60,
        ).close()
    check(
        SourceSettings((parse_uri("gs://models/imagenet"),), storage.url, anonymous=True),
        tmp_path / "pod",
    )


def test_s3(aws: Aws, fresh_name: Callable[[str], str], tmp_path: Path) -> None:
    bucket = aws.bucket(fresh_name("models"))
    for name, content in UPLOADS.items():
        bucket.upload(name, gzip.compress(content), {"Content-Encoding": "gzip"})
    check(
        SourceSettings(
            (parse_uri(f"s3://{bucket.name}/imagenet"),),
            aws.endpoint,
            path_style=True,
            credentials=Credentials(aws.keys),
        ),
        tmp_path / "pod",
    )


def test_azure(container: BlobContainer, tmp_path: Path) -> None:
    for name, content in UPLOADS.items():
        container.upload(name, gzip.compress(content), {"x-ms-blob-content-encoding": "gzip"})
    check(
        SourceSettings(
            (parse_uri(f"az://{container.name}/imagenet"),),
            container.endpoint.removesuffix(f"/{container.name}"),
            azure_account=AZURE_ACCOUNT,
            credentials=Credentials({"AZURE_STORAGE_ACCOUNT_KEY": AZURE_KEY}),
        ),
        tmp_path / "pod",
    )
