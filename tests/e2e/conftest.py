"""The operator and a bucket on a whole cluster, and a resource in a namespace of its own."""

from __future__ import annotations

import secrets
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING

import pytest

from demo.bucket import Bucket
from demo.cluster import MANIFESTS, TREE
from tests.e2e.models import Operator, Served
from tests.support import savedmodels, subscriptions
from tests.support.kubectl import Kubectl

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from devcluster.client import Api

SYSTEM = "inferencemodel-system"
BUCKET = "development-bucket"
BUCKET_FROM_HERE = "127.0.0.1:30443"
PUBSUB_FROM_HERE = "127.0.0.1:30085"

_RUN = secrets.token_hex(3)
_numbers = count(1)


@pytest.fixture(scope="session")
def exports(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """SavedModels of ``y = 0.5 x + offset``, by offset."""
    return savedmodels.build(tmp_path_factory.mktemp("exports"), 2, 3)


@pytest.fixture(scope="session")
def installed(cluster: Api, project_images: None) -> Kubectl:
    """The operator and the development bucket, running."""
    kubectl = Kubectl(cluster.program, cluster.kubeconfig)
    kubectl("apply", "-k", str(TREE / MANIFESTS))
    # A tag that was loaded anew is noticed by new pods only.
    kubectl.in_namespace(SYSTEM)("rollout", "restart", "deployment/inferencemodel-operator")
    for namespace, deployment in (
        (SYSTEM, "inferencemodel-operator"),
        (BUCKET, "bucket"),
        (BUCKET, "pubsub"),
    ):
        within = kubectl.in_namespace(namespace)
        within("rollout", "status", f"deployment/{deployment}", "--timeout=120s", timeout=150)
    return kubectl


@contextmanager
def serving(
    request: pytest.FixtureRequest, cluster: Api, kubectl: Kubectl, exports: dict[int, Path]
) -> Iterator[Served]:
    """A resource that is not applied yet, and its bucket folder, empty."""
    name = f"model-{next(_numbers)}"
    # The bucket and the subscriptions of an earlier run may still be there.
    namespace = f"e2e-{_RUN}-{name}"
    subscription = f"projects/development/subscriptions/{namespace}"
    kubectl.apply(
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {
                "name": namespace,
                "labels": {"pod-security.kubernetes.io/enforce": "restricted"},
            },
        }
    )
    subscriptions.create(
        PUBSUB_FROM_HERE, topic="projects/development/topics/models", subscription=subscription
    )
    served = Served(
        name=name,
        namespace=namespace,
        kubectl=kubectl.in_namespace(namespace),
        operator=Operator(kubectl.in_namespace(SYSTEM)),
        bucket=Bucket(BUCKET_FROM_HERE, "models"),
        subscription=subscription,
        ingress=cluster.ingress,
        exports=exports,
    )
    failed_before = request.session.testsfailed
    try:
        yield served
    finally:
        if request.session.testsfailed > failed_before:
            served.tell()
        kubectl("delete", "namespace", namespace, "--wait=false")
        pods = kubectl.in_namespace(namespace)
        # Nobody sends requests any more, so there is nothing to drain.
        pods("delete", "pods", "--all", "--force", "--grace-period=0", "--wait=false")


@pytest.fixture
def served(
    request: pytest.FixtureRequest, cluster: Api, installed: Kubectl, exports: dict[int, Path]
) -> Iterator[Served]:
    """A resource that is not applied yet, and its bucket folder, empty."""
    with serving(request, cluster, installed, exports) as served:
        yield served


@pytest.fixture(scope="module")
def served_once(
    request: pytest.FixtureRequest, cluster: Api, installed: Kubectl, exports: dict[int, Path]
) -> Iterator[Served]:
    """A resource that serves a good version and goes through all tests of a module."""
    with serving(request, cluster, installed, exports) as served:
        served.upload(1, offset=2)
        served.apply(replicas=1)
        served.until_active(1, replicas=1)
        yield served
