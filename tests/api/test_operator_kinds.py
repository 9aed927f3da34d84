"""Children of all kinds on a real API server: replicas that others scale, kinds that come late."""

from __future__ import annotations

import copy
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from inferencemodel_operator import cluster, names
from inferencemodel_operator.access import Access
from inferencemodel_operator.apply import Applier
from inferencemodel_operator.cache import Cache
from inferencemodel_operator.children import children
from inferencemodel_operator.children.manifest import digest
from inferencemodel_operator.cluster import DEPLOYMENTS, Cluster
from inferencemodel_operator.errors import ConflictError, NameConflictError
from inferencemodel_operator.observe import objects
from inferencemodel_operator.observe.offers import Offers
from inferencemodel_operator.record import VersionsRecord
from inferencemodel_operator.settings import Settings
from tests.api.models import World, world
from tests.support.kubectl import condition
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from devcluster.client import Api
    from inferencemodel_operator.children.manifest import Manifest
    from tests.api.models import Model
    from tests.support.kubectl import Object

pytestmark = pytest.mark.api

ALL = ("configmap", "deployment", "service", "service")
CRON = {"type": "cron", "metadata": {"timezone": "Etc/UTC"}}
ROUTES = "httproutes.gateway.networking.k8s.io"


@pytest.fixture(scope="module")
def here(api_server: Api) -> Iterator[World]:
    with world(api_server) as made:
        yield made


class Hands:
    """An applier of this process, for an InferenceModel that the operator does not touch."""

    def __init__(self, api: Cluster, model: Model) -> None:
        self.api, self.cache, self.model = api, Cache(), model
        found = model.get()
        self.owner = objects.model(found)
        assert self.owner.model is not None
        made = children(self.owner.model, VersionsRecord(target=1), Settings())
        self._deployment = next(child for child in made if child["kind"] == "Deployment")
        self.applier = Applier(api, self.cache, Offers(api))

    async def apply(self, replicas: int | None, **spec: Any) -> Object:
        """Apply the Deployment with or without replicas, as a pass with a fresh view would."""
        wanted: Manifest = copy.deepcopy(self._deployment)
        wanted["spec"] |= {"replicas": replicas, **spec}
        if replicas is None:
            del wanted["spec"]["replicas"]
        wanted["metadata"]["annotations"][names.DESIRED_HASH_ANNOTATION] = digest(wanted)
        live = await self.api.get(DEPLOYMENTS, *self.owner.key)
        if live is not None:
            self.cache.put(DEPLOYMENTS, live)
        await self.applier.ensure(self.owner, wanted)
        made = await self.api.get(DEPLOYMENTS, *self.owner.key)
        assert made is not None
        return made


@asynccontextmanager
async def hands(here: World, model: Model) -> AsyncIterator[Hands]:
    access = Access(here.api.kubeconfig)
    async with (
        cluster.connect(access, watches=0) as pool,
        cluster.session(pool, access) as session,
    ):
        yield Hands(Cluster(access, session), model)


def _owners(deployment: Object) -> set[str]:
    return {
        entry["manager"]
        for entry in deployment["metadata"]["managedFields"]
        if "f:replicas" in entry["fieldsV1"].get("f:spec", {})
    }


async def test_replicas_are_handed_over_without_a_dip_and_taken_back(here: World) -> None:
    with here.model(suspend=True, replicas=5) as model:
        async with hands(here, model) as ours:
            assert _owners(await ours.apply(5)) == {names.FIELD_MANAGER}

            handed = await ours.apply(None)
            assert handed["spec"]["replicas"] == 5
            assert names.FIELD_MANAGER not in _owners(handed)
            # One more for each annotation, the operator's and the Deployment controller's: a dip
            # would have taken two on top.
            assert handed["metadata"]["generation"] <= 3

            model.kubectl("scale", "deployment", model.name, "--replicas=8")
            later = await ours.apply(None, minReadySeconds=7)
            assert (later["spec"]["replicas"], later["spec"]["minReadySeconds"]) == (8, 7)
            assert names.FIELD_MANAGER not in _owners(later)

            back = await ours.apply(8)
            assert back["spec"]["replicas"] == 8
            assert names.FIELD_MANAGER in _owners(back)
            assert (await ours.apply(3))["spec"]["replicas"] == 3
            again = await ours.apply(None)
            assert again["spec"]["replicas"] == 3, "handed over once more"


async def test_replicas_that_somebody_scales_during_the_handover_are_not_overwritten(
    here: World,
) -> None:
    with here.model(suspend=True) as model:
        async with hands(here, model) as ours:
            live = await ours.apply(2)
            model.kubectl("scale", "deployment", model.name, "--replicas=6")
            with pytest.raises(ConflictError):
                await ours.api.hold_replicas(
                    DEPLOYMENTS,
                    here.namespace,
                    model.name,
                    uid=live["metadata"]["uid"],
                    replicas=2,
                )
            assert model.child("deployment")["spec"]["replicas"] == 6


async def test_a_child_that_exists_is_never_taken_over_by_a_creation(here: World) -> None:
    with here.model(suspend=True) as model:
        model.kubectl("create", "deployment", model.name, "--image=theirs:1")
        before = model.child("deployment")
        async with hands(here, model) as ours:
            # Not in the cache: nothing says that there is one, until the API server does.
            ours.api.get = _nothing_once(ours.api.get)  # type: ignore[method-assign]
            with pytest.raises(NameConflictError):
                await ours.apply(3)
        assert model.child("deployment") == before
        model.kubectl("delete", "deployment", model.name)


def _nothing_once(get: Any) -> Any:
    calls = 0

    async def first_nothing(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        return None if calls == 1 else await get(*args)

    return first_nothing


def test_a_child_that_nothing_asks_for_is_deleted_whatever_its_kind(here: World) -> None:
    with here.model() as model:
        model.apply()
        model.until_children(*ALL)
        uid = model.get()["metadata"]["uid"]
        target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": model.name}
        specs: dict[tuple[str, str], Object] = {
            ("policy/v1", "PodDisruptionBudget"): {"maxUnavailable": 1},
            ("networking.k8s.io/v1", "NetworkPolicy"): {"podSelector": {}},
            ("autoscaling/v2", "HorizontalPodAutoscaler"): {
                "scaleTargetRef": target,
                "maxReplicas": 3,
            },
        }
        for (api_version, kind), spec in specs.items():
            for name, owned in ((model.name, True), (f"{model.name}-theirs", False)):
                model.kubectl.apply(_child(model, uid, api_version, kind, name, spec, owned=owned))

        for _, kind in specs:
            eventually(
                lambda kind=kind: _names(model, kind) == [f"{kind}/{model.name}-theirs"],  # type: ignore[misc]
                what=f"the {kind} that is not wanted to be gone, the other one to stay",
                within=20,
            )
        for _, kind in specs:
            model.kubectl("delete", kind, f"{model.name}-theirs")


def test_a_quantity_in_another_form_than_the_api_servers_is_not_written_again_after_a_restart(
    here: World,
) -> None:
    queue = {"type": "AverageValue", "averageValue": "0.5"}
    messages = {"type": "Value", "value": 3000}
    autoscaling = {
        "maxReplicas": 3,
        "metrics": [
            {"type": "Pods", "pods": {"metric": {"name": "queue"}, "target": queue}},
            {"type": "External", "external": {"metric": {"name": "sent"}, "target": messages}},
        ],
        "behavior": {"scaleDown": {"tolerance": "0.05"}},
    }
    with here.model(autoscaling=autoscaling) as model:
        model.until_children(*ALL)
        scaler = model.until_child("hpa", lambda o: o["spec"], what="an autoscaler")
        assert scaler["spec"]["metrics"][0]["pods"]["target"]["averageValue"] == "500m"
        assert scaler["spec"]["metrics"][1]["external"]["target"]["value"] == "3k"
        assert scaler["spec"]["behavior"]["scaleDown"]["tolerance"] == "50m"
        model.until_reported()
        here.operator.until_quiet()
        before = here.writes()

        here.operator.restart()
        here.operator.until_quiet()

        assert here.writes() == before
        model.kubectl("delete", "hpa", model.name)


@pytest.mark.parametrize(
    ("spec", "crd", "field"),
    [
        ({"gateway": {"parentRefs": [{"name": "public"}]}}, ROUTES, "spec.gateway"),
        (
            {"autoscaling": {"maxReplicas": 3, "keda": {"triggers": [CRON]}}},
            "scaledobjects.keda.sh",
            "spec.autoscaling.keda",
        ),
    ],
)
def test_a_kind_that_the_cluster_lacks_is_told_with_its_crd_and_the_field_to_remove(
    here: World, spec: Object, crd: str, field: str
) -> None:
    with here.model(**spec) as model:
        stalled = model.until(lambda o: condition(o, "Stalled")["status"] == "True", what="Stalled")
        told = condition(stalled, "Stalled")
        assert told["reason"] == "KindMissing"
        assert f"install the CRD {crd}, or remove {field} from" in told["message"]
        model.until_children(*ALL)

        model.patch(**dict.fromkeys(spec))
        model.until(lambda o: condition(o, "Stalled")["status"] == "False", what="no stall")


def test_a_kind_is_watched_from_when_its_crd_is_installed_until_it_is_taken_away(
    here: World,
) -> None:
    kubectl = here.kubectl
    with here.model() as model:
        model.apply()
        model.until_children(*ALL)
        uid = model.get()["metadata"]["uid"]
        assert ROUTES not in _watched(here)

        kubectl.apply(_crd("gateway.networking.k8s.io", "httproutes", "HTTPRoute"))
        eventually(lambda: ROUTES in _watched(here), what="HTTPRoutes to be watched", within=30)
        route = _child(
            model, uid, "gateway.networking.k8s.io/v1", "HTTPRoute", model.name, {}, owned=True
        )
        eventually(lambda: kubectl.apply(route), what="HTTPRoutes to be served", within=20)
        eventually(
            lambda: _names(model, "HTTPRoute") == [], what="the unwanted route to go", within=20
        )

        kubectl("delete", "crd", ROUTES)
        eventually(lambda: ROUTES not in _watched(here), what="the watch to end", within=30)
        kubectl("delete", "service", model.name)
        model.until_children(*ALL)
        assert here.operator.get("/livez") == "ok\n"


def _watched(here: World) -> str:
    lines = here.operator.log().splitlines()
    told = [line for line in lines if "optional kinds: " in line]
    return told[-1] if told else ""


def _names(model: Model, kind: str) -> list[str]:
    found = model.kubectl("get", kind, "-o", "json", f"-linferencemodel.dev/name={model.name}")
    return sorted(f"{kind}/{item['metadata']['name']}" for item in json.loads(found)["items"])


def _child(
    model: Model,
    uid: str,
    api_version: str,
    kind: str,
    name: str,
    spec: Object,
    *,
    owned: bool,
) -> Object:
    owner = {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "name": model.name,
        "uid": uid,
        "controller": True,
    }
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {
            "name": name,
            "labels": names.labels(model.name),
            "ownerReferences": [owner] if owned else [],
        },
        "spec": spec,
    }


def _crd(group: str, plural: str, kind: str) -> Object:
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{plural}.{group}",
            # The API server wants it for groups below k8s.io.
            "annotations": {"api-approved.kubernetes.io": "unapproved, a stand-in of a test"},
        },
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": plural, "kind": kind},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": schema},
                }
            ],
        },
    }
