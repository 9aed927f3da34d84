"""Real storage servers, one of each kind for all tests."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

import pytest

from demo.storage import Storage
from tests.support import store_servers
from tests.support.pollers import Pods
from tests.support.stores import AZURE_ACCOUNT, Aws, BlobContainer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_numbers = count(1)


@pytest.fixture(scope="session")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    """S3, SQS and STS, which answer whoever gives any keys."""
    server = store_servers.moto(tmp_path_factory.mktemp("moto") / "log")
    yield Aws(server.url)
    server.stop()


@pytest.fixture(scope="session")
def azurite_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Azure Blob Storage, which checks what proves who asks."""
    server = store_servers.azurite(tmp_path_factory.mktemp("azurite") / "log")
    yield f"{server.url}/{AZURE_ACCOUNT}"
    server.stop()


@pytest.fixture
def container(azurite_url: str) -> BlobContainer:
    """A container of the test's own."""
    return BlobContainer(azurite_url, f"models-{next(_numbers)}")


@pytest.fixture
def fresh_name() -> Callable[[str], str]:
    """Names that no other test uses."""
    return lambda kind: f"{kind}-{next(_numbers)}"


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    with Storage(tmp_path, in_memory=True) as running:
        yield running


@pytest.fixture
def pods(storage: Storage, tmp_path: Path) -> Iterator[Pods]:
    made = Pods(storage, tmp_path)
    yield made
    made.stop()
