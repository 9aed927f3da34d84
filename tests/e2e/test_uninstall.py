"""The operator comes and goes; what serves stays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from demo.cluster import MANIFESTS, TREE
from devcluster import build
from tests.e2e.conftest import SYSTEM
from tests.support.kubectl import KubectlError
from tests.support.pages import arguments, run_by
from tests.support.rendering import CHART, run
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.models import Served
    from tests.support.kubectl import Kubectl

pytestmark = pytest.mark.e2e

ROLLOUT = ("rollout", "status", "deployment/inferencemodel-operator", "--timeout=120s")


@pytest.fixture
def installed_afterwards(installed: Kubectl) -> Iterator[Kubectl]:
    """The operator is there again for the tests that follow."""
    yield installed
    installed("apply", "-k", str(TREE / MANIFESTS))
    installed.in_namespace(SYSTEM)(*ROLLOUT, timeout=150)


def uninstall(kubectl: Kubectl) -> None:
    """As docs/install.md says."""
    kubectl("delete", "namespace", SYSTEM, timeout=180)
    kubectl("delete", "clusterrole,clusterrolebinding", "inferencemodel-operator")
    kubectl("delete", "clusterrole", "inferencemodel-view", "inferencemodel-edit")


@pytest.mark.runbook("operator-gone-for-a-day")
def test_models_are_served_while_the_operator_is_uninstalled_and_installed_by_helm(
    served: Served, installed_afterwards: Kubectl
) -> None:
    kubectl = installed_afterwards
    served.upload(1, offset=2)
    served.apply(replicas=2)
    served.until_active(1, replicas=2)
    before = {pod["metadata"]["uid"] for pod in served.pods()}
    children = set(served.children())

    with served.traffic(rate=10) as traffic:
        uninstall(kubectl)
        assert set(served.children()) == children

        options = ("--create-namespace", "--set=crds.install=false", "--wait")
        helm(kubectl, "install", "inferencemodel", str(CHART), *options)
        served.upload(2, offset=3)
        served.until_active(2, replicas=2)

        helm(kubectl, "uninstall", "inferencemodel", "--wait")
        with pytest.raises(KubectlError, match="not found"):
            kubectl.in_namespace(SYSTEM).get("deployment", "inferencemodel-operator")
        assert served.predict(1.0) == 3.5

    assert traffic.failures == ()
    assert {pod["metadata"]["uid"] for pod in served.pods()} == before


def helm(kubectl: Kubectl, *arguments: str) -> None:
    """Run one command of helm."""
    program = build.ensure(["helm"])["helm"]
    run(program, *arguments, f"--namespace={SYSTEM}", f"--kubeconfig={kubectl.kubeconfig}")


def test_both_namespaces_enforce_the_restricted_standard(
    served: Served, installed: Kubectl
) -> None:
    for namespace in (SYSTEM, served.namespace):
        labels = installed.get("namespace", namespace)["metadata"]["labels"]
        assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    served.upload(1, offset=2)
    served.apply(replicas=1)
    served.until_active(1, replicas=1)


def test_deletion_leaves_nothing_and_can_be_waited_for_without_an_operator(served: Served) -> None:
    served.upload(1, offset=2)
    served.apply(replicas=1)
    served.until_active(1, replicas=1)
    (block,) = run_by("test_deletion_leaves_nothing_and_can_be_waited_for_without_an_operator")
    recipe = arguments(block)

    named = [argument.replace("/imagenet", f"/{served.name}") for argument in recipe]
    with served.operator.stopped():
        served.kubectl(*named, timeout=330)
        eventually(lambda: served.children() == [], what="nothing to be left")
