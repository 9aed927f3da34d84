"""Fixtures for pytest: ``pytest_plugins = ["devcluster.testing"]``.

Whoever exports KUBECONFIG gets the tests run on that cluster instead.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from devcluster import build
from devcluster.apiserver import ApiServer
from devcluster.client import Api, external

if TYPE_CHECKING:
    from collections.abc import Iterator


def _exported() -> Api | None:
    kubeconfig = os.environ.get("KUBECONFIG")
    if not kubeconfig:
        return None
    installed = shutil.which("kubectl")
    program = Path(installed) if installed else build.ensure(["kubectl"])["kubectl"]
    return external(Path(kubeconfig), program)


@pytest.fixture(scope="session")
def api_server() -> Iterator[Api]:
    """A real API server (no node, no controllers), for the whole test session."""
    exported = _exported()
    if exported:
        yield exported
        return
    with ApiServer() as api:
        yield api
