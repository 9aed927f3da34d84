"""A namespace that can't be deleted, and what its owner does about it (docs/runbooks.md)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from devcluster.apiserver import ApiServer
from tests.api.models import Model
from tests.support import crd
from tests.support.controllers import running
from tests.support.kubectl import Kubectl, condition
from tests.support.operators import Operator
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devcluster.client import Api

pytestmark = pytest.mark.api

ALL = ("configmap", "deployment", "service", "service")
FINALIZER = "example.com/audit"


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    """An API server with the controllers that delete."""
    with ApiServer() as made, running(made, "namespace-controller", "garbage-collector-controller"):
        yield made


def hold(kubectl: Kubectl, kind: str, name: str) -> None:
    """Somebody's finalizer, whose owner doesn't come any more."""
    patch = json.dumps({"metadata": {"finalizers": [FINALIZER]}})
    kubectl("patch", kind, name, "--type=merge", f"--patch={patch}")


def let_go(kubectl: Kubectl, kind: str, name: str) -> None:
    """As the runbook says."""
    kubectl(
        *("patch", kind, name, "--type=merge", "--patch", '{"metadata": {"finalizers": null}}'),
    )


@pytest.mark.runbook("a-namespace-that-cant-be-deleted")
@pytest.mark.parametrize("held", ["inferencemodel", "deployment"])
def test_it_says_who_holds_it_and_goes_without_an_operator_once_that_is_taken_away(
    api: Api, held: str
) -> None:
    with crd.installed(api) as namespace:
        kubectl = Kubectl(api.program, api.kubeconfig, namespace)
        model, other = (Model(kubectl).apply(replicas=1) for _ in range(2))
        with Operator(api.kubeconfig, (namespace,)) as operator:
            for each in (model, other):
                each.until_children(*ALL)
            hold(kubectl, held, model.name)

            operator.stop()
            api.kubectl("delete", "namespace", namespace, "--wait=false")

            def who_holds_it() -> bool:
                found = condition(
                    json.loads(api.kubectl("get", "namespace", namespace, "-o=json")),
                    "NamespaceFinalizersRemaining",
                )
                return FINALIZER in found.get("message", "")

            eventually(who_holds_it, what="the namespace to say who holds it", within=60)
            # The operator is back before it is over, and makes nothing anew.
            operator.start()
            operator.until_quiet()
            eventually(lambda: other.children() == [], what="the other one's children to go")
            assert kubectl("get", "inferencemodels", "-o=name").split() == (
                [f"inferencemodel.inferencemodel.dev/{model.name}"]
                if held == "inferencemodel"
                else []
            )
            if held == "inferencemodel":
                told = model.until(
                    lambda o: condition(o, "Ready")["reason"] == "Terminating", what="told"
                )
                assert FINALIZER in condition(told, "Ready")["message"]

            let_go(kubectl, held, model.name)
            api.kubectl("wait", "--for=delete", f"namespace/{namespace}", "--timeout=60s")
            operator.until_quiet()
            assert "Traceback" not in operator.log()
