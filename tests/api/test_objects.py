"""What tests ask the API server for without kubectl is what kubectl would have got and sent."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.api.models import Model
from tests.support import crd
from tests.support.kubectl import Kubectl, KubectlError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devcluster.client import Api
    from tests.support.kubectl import Object

pytestmark = pytest.mark.api

THEIR_OWN = ("creationTimestamp", "resourceVersion", "uid")


@pytest.fixture(scope="module")
def kubectl(api_server: Api) -> Iterator[Kubectl]:
    with crd.installed(api_server) as namespace:
        yield Kubectl(api_server.program, api_server.kubeconfig, namespace)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("namespace", "default"),
        ("Namespace", "default"),
        ("svc", "kubernetes"),
        ("clusterroles.rbac.authorization.k8s.io", "edit"),
        ("crd", "inferencemodels.inferencemodel.dev"),
        ("clusterrole", "view"),
    ],
)
def test_an_object_is_found_as_kubectl_shows_it(kubectl: Kubectl, kind: str, name: str) -> None:
    kubectl = kubectl.in_namespace("default")
    shown = json.loads(kubectl("get", kind, name, "-o", "json"))
    assert kubectl.get(kind, name) == shown


def test_a_list_is_found_as_kubectl_shows_it(kubectl: Kubectl) -> None:
    for name, label in (("one", "a=1"), ("two", "a=1"), ("three", "a=2")):
        kubectl("create", "configmap", name)
        kubectl("label", "configmap", name, label)
    shown = json.loads(kubectl("get", "configmaps", "--selector=a=1", "-o", "json"))["items"]
    assert kubectl.list("configmaps", "a=1") == shown
    assert [found["metadata"]["name"] for found in shown] == ["one", "two"]


@pytest.mark.parametrize(
    ("kind", "name"), [("deployment", "missing"), ("tfm", "missing"), ("nonsense", "missing")]
)
def test_what_is_not_there_is_said_in_the_same_words(
    kubectl: Kubectl, kind: str, name: str
) -> None:
    with pytest.raises(KubectlError) as told:
        kubectl("get", kind, name)
    with pytest.raises(KubectlError) as found:
        kubectl.get(kind, name)
    assert str(found.value) in str(told.value)


def test_a_model_is_applied_as_kubectl_applies_it(kubectl: Kubectl) -> None:
    model = Model(kubectl).apply(replicas=2)
    first = _lasting(model.get())
    model.delete()
    kubectl.apply(model.manifest(replicas=2))
    assert first == _lasting(model.get())
    model.delete()

    model.apply(replicas=2, suspend=True)
    model.apply(replicas=3)
    assert model.get()["spec"]["replicas"] == 3
    assert not model.get()["spec"].get("suspend")
    model.delete()


def _lasting(obj: Object) -> Object:
    """Without what differs between two of the same name."""
    metadata = {key: text for key, text in obj["metadata"].items() if key not in THEIR_OWN}
    return {**obj, "metadata": metadata}
