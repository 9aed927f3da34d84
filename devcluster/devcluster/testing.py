"""Fixtures for pytest: ``pytest_plugins = ["devcluster.testing"]``.

Whoever exports KUBECONFIG gets the tests run on that cluster instead. It has to have the images
already, and INGRESS says where its ingress controller is reached (``host:port``).
"""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from devcluster import build, policies, recipes
from devcluster.apiserver import ApiServer
from devcluster.client import Api, external
from devcluster.cluster import Cluster

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


@pytest.fixture(scope="session")
def cluster() -> Iterator[Api]:
    """A whole cluster, for the whole test session.

    An embedded one that is up already is used, and stays; otherwise it lives as long as the tests.
    """
    exported = _exported()
    if exported:
        yield replace(exported, ingress=os.environ.get("INGRESS", ""))
        return
    embedded = Cluster()
    found = embedded.exists()
    yield embedded.up()
    if not found:
        embedded.down()


@pytest.fixture
def network_policies(cluster: Api) -> Iterator[None]:
    """The cluster enforces NetworkPolicies; the embedded one for the time of the test."""
    if cluster.audit_log is None:
        yield
        return
    if Cluster().settings().several:
        pytest.skip("NetworkPolicies are enforced where there is one node")
    with policies.enforced(cluster.kubeconfig):
        yield


@pytest.fixture(scope="session")
def project_images(cluster: Api) -> None:
    """The project's images, as its sources are now, on the node of the embedded cluster."""
    if cluster.audit_log is not None:
        recipes.build_and_load(recipes.names(), Cluster().images())
