"""Operators that serve a part of a cluster, on a real API server: some namespaces, some labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.api import accounts
from tests.api.models import Model
from tests.support import crd
from tests.support.kubectl import Kubectl, KubectlError
from tests.support.operators import WRITES, Operator
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from devcluster.client import Api
    from tests.support.rendering import Programs

pytestmark = pytest.mark.api

ALL = ("configmap", "deployment", "service", "service")


@pytest.fixture
def kubectl(api_server: Api) -> Iterator[Kubectl]:
    with crd.installed(api_server) as namespace:
        yield Kubectl(api_server.program, api_server.kubeconfig, namespace)


def _operator(kubectl: Kubectl, selector: str) -> Operator:
    assert kubectl.namespace
    arguments = ("--poller-access=direct", f"--selector={selector}")
    return Operator(kubectl.kubeconfig, (kubectl.namespace,), arguments)


def _label(model: Model, team: str) -> None:
    model.kubectl("label", "inferencemodel", model.name, f"team={team}", "--overwrite")


def _polls(operator: Operator) -> bool:
    return "inferencemodel_operator_long_polls 1.0" in operator.get("/metrics")


def test_an_operator_serves_the_resources_that_its_selector_picks(kubectl: Kubectl) -> None:
    with _operator(kubectl, "team=vision") as vision:
        one, other = Model(kubectl).apply(), Model(kubectl).apply()
        _label(one, "vision")
        _label(other, "speech")
        one.until_reported()
        vision.until_quiet()
        assert one.children()
        assert other.children() == []
        assert "status" not in other.get() or "conditions" not in other.get()["status"]

        _label(other, "vision")
        other.until_reported()
        one.delete()
        other.delete()


def test_two_operators_leave_each_others_resources_and_pods_alone(kubectl: Kubectl) -> None:
    with _operator(kubectl, "team=vision") as vision, _operator(kubectl, "team!=vision") as rest:
        model = Model(kubectl).apply(replicas=1)
        _label(model, "vision")
        model.until_reported()
        pod = model.add_pod()
        eventually(lambda: _polls(vision), what="the pod to be asked by its operator", within=20)
        rest.until_quiet()
        vision.until_quiet()
        assert not _polls(rest)
        before = rest.requests(*WRITES)

        model.patch(replicas=2)
        model.until_child("deployment", lambda o: o["spec"]["replicas"] == 2, what="2 replicas")
        vision.until_quiet()
        assert rest.requests(*WRITES) == before
        assert pod is not None
        model.delete()


def test_an_operator_serves_the_namespaces_that_the_chart_lists_with_the_roles_there(
    kubectl: Kubectl, programs: Programs, tmp_path: Path
) -> None:
    system = kubectl.namespace
    assert system
    served, other = (f"{system}-vision", f"{system}-speech"), f"{system}-other"
    for namespace in (*served, other):
        kubectl("create", "namespace", namespace)
    chart = accounts.installed(kubectl, programs, *served)
    container = chart["Deployment", system, accounts.NAME]["spec"]["template"]["spec"][
        "containers"
    ][0]
    listed = [argument.partition("=") for argument in container["args"]]
    namespaces = tuple(value for option, _, value in listed if option == "--namespace")
    account = accounts.login(kubectl, tmp_path)
    with pytest.raises(KubectlError):
        account.in_namespace(other)("auth", "can-i", "list", "inferencemodels")

    models = [Model(kubectl.in_namespace(n), "shared").apply() for n in (*served, other)]
    arguments = ("--poller-access=direct", f"--lease-namespace={system}")
    with Operator(account.kubeconfig, namespaces, arguments) as operator:
        for model in models[:2]:
            model.until_children(*ALL)
            model.until_reported()
        for number, model in enumerate(models, start=2):
            model.patch(replicas=number)
        for number, model in enumerate(models[:2], start=2):
            model.until_child(
                "deployment",
                lambda o, number=number: o["spec"]["replicas"] == number,  # type: ignore[misc]
                what=f"{number} replicas",
            )
        operator.until_quiet()
        assert models[2].children() == []
        assert "conditions" not in models[2].get().get("status", {})
        assert 'outcome="403"' not in operator.get("/metrics")
    for namespace in (*served, other):
        kubectl("delete", "namespace", namespace, "--wait=false")
