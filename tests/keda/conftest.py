"""The operator, a bucket, KEDA and its HTTP add-on on a whole cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e.conftest import exports, installed, served
from tests.support import keda

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devcluster.client import Api

__all__ = ["exports", "installed", "served"]


@pytest.fixture(scope="session")
def requests_counted(cluster: Api) -> Iterator[None]:
    """KEDA and its HTTP add-on, ready."""
    with keda.installed(cluster):
        yield
