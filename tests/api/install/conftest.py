"""An API server to install on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from devcluster.apiserver import ApiServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devcluster.client import Api


@pytest.fixture(scope="module")
def fresh_api() -> Iterator[Api]:
    """An API server that nobody else uses: roles and the CRD are the whole cluster's."""
    with ApiServer() as api:
        yield api
