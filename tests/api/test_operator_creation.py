"""What was created by a create is, after its first change, what applies alone would have made."""

from __future__ import annotations

import asyncio
import copy
from typing import TYPE_CHECKING, Any

import pytest

from inferencemodel_operator import cluster, names
from inferencemodel_operator.access import Access
from inferencemodel_operator.apply import Applier
from inferencemodel_operator.cache import Cache
from inferencemodel_operator.children import children
from inferencemodel_operator.cluster import CHILDREN, Cluster
from inferencemodel_operator.observe import objects
from inferencemodel_operator.observe.offers import Offers
from inferencemodel_operator.record import VersionsRecord
from inferencemodel_operator.settings import Settings
from inferencemodel_operator.spec import decode

if TYPE_CHECKING:
    from devcluster.client import Api
    from inferencemodel_operator.children.manifest import Manifest

pytestmark = pytest.mark.api

OWNER: dict[str, Any] = {
    "metadata": {
        "name": "created",
        "namespace": "creation",
        "uid": "00000000-0000-4000-8000-000000000001",
        "generation": 1,
        "resourceVersion": "1",
    },
    "spec": {"model": {"storageUri": "gs://models/m"}},
}
FIRST: dict[str, Any] = {
    "server": {"args": ["--a"], "env": [{"name": "A", "value": "1"}]},
    "service": {"annotations": {"x": "1"}, "type": "NodePort"},
    "ingress": {"host": "a.example.com", "annotations": {"k": "v"}, "className": "nginx"},
    "networkPolicy": {"enabled": True, "from": [{"podSelector": {}}]},
    "autoscaling": {"maxReplicas": 3},
    "template": {
        "metadata": {"annotations": {"q": "1"}, "labels": {"team": "a"}},
        "nodeSelector": {"a": "b"},
        "priorityClassName": "system-cluster-critical",
    },
}
SECOND: dict[str, Any] = {
    "server": {"args": ["--b"]},
    "service": {"annotations": {"y": "1"}, "httpPort": 9000},
    "ingress": {"host": "b.example.com"},
    "networkPolicy": {"enabled": True},
    "autoscaling": {"maxReplicas": 4},
}


def wanted(spec: dict[str, Any]) -> list[Manifest]:
    typed = decode({**OWNER, "spec": {**OWNER["spec"], **spec}})
    return list(children(typed, VersionsRecord(), Settings()))


def comparable(obj: dict[str, Any]) -> dict[str, Any]:
    found = copy.deepcopy(obj)
    for field in ("uid", "resourceVersion", "creationTimestamp"):
        del found["metadata"][field]
    managers = found["metadata"]["managedFields"]
    # By the API server's default an autoscaled Deployment begins with one replica, which is kept.
    managers[:] = [entry for entry in managers if entry["manager"] != cluster.HANDOVER_MANAGER]
    for entry in managers:
        entry.pop("time", None)
    for field in ("clusterIP", "clusterIPs"):
        found.get("spec", {}).pop(field, None)
    return found


async def by_applies_alone(api: Cluster) -> list[dict[str, Any]]:
    made = []
    for first, second in zip(wanted(FIRST), wanted(SECOND), strict=True):
        resource = CHILDREN[first["kind"]]
        created = await api.apply(resource, first, uid=None)
        uid = created["metadata"]["uid"]
        made.append(await api.apply(resource, second, uid=uid))
        name = first["metadata"]["name"]
        await api.delete(resource, "creation", name, uid=uid)
    return made


async def by_the_operator(api: Cluster) -> list[dict[str, Any]]:
    cache = Cache()
    applier = Applier(api, cache, Offers(api))
    made: list[dict[str, Any] | None] = []
    for spec in (FIRST, SECOND):
        made = []
        for child in wanted(spec):
            await applier.ensure(objects.model(OWNER), child)
            assert not await applier.ensure(objects.model(OWNER), child)
            name = child["metadata"]["name"]
            made.append(await api.get(CHILDREN[child["kind"]], "creation", name))
    return [found for found in made if found is not None]


def test_a_changed_child_is_as_if_it_had_never_been_created_but_applied(api_server: Api) -> None:
    api_server.kubectl("create", "namespace", "creation")

    async def both() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        access = Access(api_server.kubeconfig)
        async with cluster.connect(access, watches=0) as pool, cluster.session(pool, access) as s:
            api = Cluster(access, s)
            return await by_applies_alone(api), await by_the_operator(api)

    expected, found = asyncio.run(both())
    changed = [one != other for one, other in zip(wanted(FIRST), wanted(SECOND), strict=True)]
    pairs = [
        pair
        for pair, differs in zip(zip(expected, found, strict=True), changed, strict=True)
        if differs
    ]
    kinds = {other["kind"] for _, other in pairs}
    assert kinds >= {"Deployment", "HorizontalPodAutoscaler", "Ingress", "NetworkPolicy", "Service"}
    for one, other in pairs:
        left = comparable(other)
        assert left == comparable(one)
        managers = {(m["manager"], m["operation"]) for m in left["metadata"]["managedFields"]}
        assert managers == {(names.FIELD_MANAGER, "Apply")}
