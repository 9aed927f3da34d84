"""The programs that render and check an install."""

from __future__ import annotations

import pytest

from devcluster import build
from tests.support.rendering import Programs


@pytest.fixture(scope="session")
def programs() -> Programs:
    """The real helm, kubectl (for its kustomize) and promtool."""
    built = build.ensure(["helm", "kubectl", "promtool"])
    return Programs(built["helm"], built["kubectl"], built["promtool"])
