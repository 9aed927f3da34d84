"""The programs that render and check an install, and an API server to install on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from devcluster import build
from devcluster.apiserver import ApiServer
from tests.support.rendering import Programs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devcluster.client import Api


@pytest.fixture(scope="session")
def programs() -> Programs:
    """The real helm, kubectl (for its kustomize) and promtool."""
    built = build.ensure(["helm", "kubectl", "promtool"])
    return Programs(built["helm"], built["kubectl"], built["promtool"])


@pytest.fixture(scope="module")
def fresh_api() -> Iterator[Api]:
    """An API server that nobody else uses: roles and the CRD are the whole cluster's."""
    with ApiServer() as api:
        yield api
