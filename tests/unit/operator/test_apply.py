"""What is written and what is not, and whose objects are left alone."""

from __future__ import annotations

import copy
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from inferencemodel_operator import apply, names, pace
from inferencemodel_operator.apply import Applier, covers
from inferencemodel_operator.cache import Cache
from inferencemodel_operator.children import children
from inferencemodel_operator.cluster import CHILDREN, HTTP_ROUTES, Cluster, Resource
from inferencemodel_operator.errors import (
    ApiUnavailableError,
    ConflictError,
    ContestedError,
    NameConflictError,
    NotOfferedError,
    RefusedError,
    TransientError,
)
from inferencemodel_operator.observe import objects
from inferencemodel_operator.observe.offers import Offers
from inferencemodel_operator.record import VersionsRecord
from inferencemodel_operator.settings import Settings
from inferencemodel_operator.spec import decode
from tests.support.counting import Compared

if TYPE_CHECKING:
    from inferencemodel_operator.children.manifest import Manifest

OWNER: dict[str, Any] = {
    "metadata": {
        "name": "m",
        "namespace": "vision",
        "uid": "owner-1",
        "generation": 1,
        "resourceVersion": "1",
    },
    "spec": {"model": {"storageUri": "gs://models/m"}},
}
MODEL = objects.model(OWNER)


class Server(Cluster):
    """An API server of dictionaries, which counts what it is asked."""

    def __init__(self, *, refuse: bool = False) -> None:
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        self.requests: list[str] = []
        self.refuse = refuse
        self.refusal = RefusedError("Service", "vision/m", "no", "change it")
        self.offered: set[Resource] = set()
        self.unanswered: Exception | None = None
        self.mutate: Any = lambda obj: obj
        self.version = 100

    async def get(self, resource: Resource, namespace: str, name: str) -> Any:
        self.requests.append(f"get {resource.kind}")
        return self.objects.get((resource.kind, name))

    async def create(self, resource: Resource, wanted: Any) -> Any:
        self.requests.append(f"create {resource.kind}")
        if (resource.kind, wanted["metadata"]["name"]) in self.objects:
            raise ConflictError("there is one")
        return self._take(resource, wanted, uid=None, operation="Update")

    async def apply(
        self, resource: Resource, wanted: Any, *, uid: str | None, subresource: str = ""
    ) -> Any:
        self.requests.append(f"apply {resource.kind}")
        return self._take(resource, wanted, uid=uid, operation="Apply")

    def _take(self, resource: Resource, wanted: Any, *, uid: str | None, operation: str) -> Any:
        if self.refuse:
            raise self.refusal
        name = wanted["metadata"]["name"]
        self.version += 1
        made = self.mutate(copy.deepcopy(wanted))
        made["metadata"] |= {
            "uid": uid or f"uid-{name}",
            "resourceVersion": str(self.version),
            "managedFields": [{"manager": names.FIELD_MANAGER, "operation": operation}],
        }
        self.objects[resource.kind, name] = made
        return made

    async def set_field_managers(self, resource: Resource, obj: Any, managers: Any) -> Any:
        self.requests.append("take over")
        found = copy.deepcopy(obj)
        self.version += 1
        found["metadata"] |= {"resourceVersion": str(self.version), "managedFields": managers}
        self.objects[resource.kind, obj["metadata"]["name"]] = found
        return found

    async def rewrite(
        self, resource: Resource, namespace: str, name: str, *, version: int, content: Any
    ) -> Any:
        self.requests.append(f"rewrite {' '.join(content)}")
        if self.refuse:
            raise self.refusal
        found = copy.deepcopy(self.objects[resource.kind, name])
        if str(version) != found["metadata"]["resourceVersion"]:
            raise ConflictError("changed since")
        self.version += 1
        found |= {field: value for field, value in content.items() if value is not None}
        found["metadata"] |= {"resourceVersion": str(self.version), "managedFields": []}
        self.objects[resource.kind, name] = found
        return found

    async def offers(self, resource: Resource) -> bool:
        if self.unanswered is not None:
            raise self.unanswered
        return resource in self.offered

    async def hold_replicas(
        self, resource: Resource, namespace: str, name: str, *, uid: str, replicas: int
    ) -> Any:
        self.requests.append(f"hold {replicas}")

    async def delete(self, resource: Resource, namespace: str, name: str, *, uid: str) -> None:
        self.requests.append(f"delete {resource.kind}")
        assert self.objects.pop((resource.kind, name))["metadata"]["uid"] == uid


def service(**spec: Any) -> Manifest:
    typed = decode({**OWNER, "spec": {**OWNER["spec"], "service": spec}})
    made = children(typed, VersionsRecord(), Settings())
    return next(child for child in made if child["kind"] == "Service")


def live(server: Server, cache: Cache, wanted: Manifest, **metadata: Any) -> dict[str, Any]:
    """Put an object where the server and, as a watch would, the cache have it."""
    made: dict[str, Any] = copy.deepcopy(wanted)
    made["metadata"] |= {"uid": "live", "resourceVersion": "7", **metadata}
    server.objects[made["kind"], made["metadata"]["name"]] = made
    cache.put(CHILDREN[made["kind"]], made)
    return made


@pytest.fixture
def cache() -> Cache:
    return Cache()


async def test_what_is_not_there_is_created_with_one_request(cache: Cache) -> None:
    server = Server()
    applier = Applier(server, cache, Offers(server))

    assert await applier.ensure(MODEL, service())
    assert not await applier.ensure(MODEL, service())

    assert server.requests == ["create Service"]


async def test_what_was_created_is_taken_over_before_the_first_apply_alone(cache: Cache) -> None:
    server = Server()
    applier = Applier(server, cache, Offers(server))
    await applier.ensure(MODEL, service())
    server.requests.clear()

    assert await applier.ensure(MODEL, service(httpPort=80))
    assert await applier.ensure(MODEL, service(httpPort=81))
    assert not await applier.ensure(MODEL, service(httpPort=81))

    assert server.requests == ["get Service", "take over", "apply Service", "apply Service"]


async def test_what_others_did_meanwhile_to_what_was_created_is_seen(cache: Cache) -> None:
    server = Server()
    applier = Applier(server, cache, Offers(server))
    await applier.ensure(MODEL, service())
    edited = server.objects["Service", "m"]
    edited["spec"]["sessionAffinity"] = "ClientIP"
    edited["metadata"]["managedFields"].append(
        {
            "manager": "kubectl-edit",
            "operation": "Update",
            "fieldsV1": {"f:spec": {"f:sessionAffinity": {}}},
        }
    )
    server.requests.clear()

    await applier.ensure(MODEL, service(httpPort=80))

    assert server.requests == ["get Service", "take over", "rewrite spec", "apply Service"]
    assert "sessionAffinity" not in server.objects["Service", "m"]["spec"]


async def test_a_config_map_whose_next_change_is_soon_is_applied_at_once(cache: Cache) -> None:
    server = Server()
    applier = Applier(server, cache, Offers(server))
    typed = decode(OWNER)
    for record in (VersionsRecord(), VersionsRecord(target=1)):
        wanted = children(typed, record, Settings())
        await applier.ensure(MODEL, next(c for c in wanted if c["kind"] == "ConfigMap"))
    assert server.requests == ["apply ConfigMap", "apply ConfigMap"]


async def test_what_is_as_wanted_costs_no_request(cache: Cache) -> None:
    server = Server()
    made = live(server, cache, service())
    made["spec"]["clusterIP"] = "10.0.0.1"

    assert not await Applier(server, cache, Offers(server)).ensure(MODEL, service())
    assert server.requests == []


async def test_another_wish_is_applied(cache: Cache) -> None:
    server = Server()
    live(server, cache, service())

    assert await Applier(server, cache, Offers(server)).ensure(MODEL, service(httpPort=80))
    assert server.requests == ["apply Service"]
    assert server.objects["Service", "m"]["metadata"]["uid"] == "live"


async def test_what_somebody_changed_is_applied_again(cache: Cache) -> None:
    server = Server()
    drifted = service()
    drifted["spec"]["ports"][0]["port"] = 1234
    live(server, cache, drifted)

    assert await Applier(server, cache, Offers(server)).ensure(MODEL, service())


async def test_what_the_api_server_makes_of_a_wish_is_not_fought(cache: Cache) -> None:
    server = Server()

    def webhook(obj: dict[str, Any]) -> dict[str, Any]:
        obj["spec"]["type"] = "LoadBalancer"
        return obj

    server.mutate = webhook
    applier = Applier(server, cache, Offers(server))

    assert await applier.ensure(MODEL, service())
    assert not await applier.ensure(MODEL, service())
    assert server.requests.count("create Service") == 1


async def test_a_child_that_somebody_made_too_large_to_remember_is_read_once(
    cache: Cache,
) -> None:
    server = Server()
    grown = live(server, cache, service())
    grown["metadata"]["annotations"]["other"] = "x" * 300_000
    grown["metadata"]["resourceVersion"] = "8"
    cache.put(CHILDREN["Service"], grown)

    applier = Applier(server, cache, Offers(server))

    for _ in range(3):
        assert not await applier.ensure(MODEL, service())
    assert server.requests == ["get Service"]

    grown["spec"]["sessionAffinity"] = "ClientIP"
    grown["metadata"] |= {"resourceVersion": "9", "managedFields": by_hand(sessionAffinity=1)}
    cache.put(CHILDREN["Service"], grown)
    assert await applier.ensure(MODEL, service())
    assert server.requests[1:] == ["get Service", "rewrite spec", "apply Service"]


async def test_what_somebody_changes_during_a_write_is_not_taken_for_its_outcome(
    cache: Cache,
) -> None:
    server = Server()

    def meanwhile(obj: dict[str, Any]) -> dict[str, Any]:
        changed = copy.deepcopy(obj)
        changed["spec"]["ports"][0]["port"] = 1234
        changed["metadata"] |= {"uid": "uid-m", "resourceVersion": "9000"}
        cache.put(CHILDREN["Service"], changed)
        return obj

    server.mutate = meanwhile
    applier = Applier(server, cache, Offers(server))
    assert await applier.ensure(MODEL, service())

    server.mutate = lambda obj: obj
    assert await applier.ensure(MODEL, service()), "it is changed back"


@pytest.mark.parametrize(
    "owners",
    [
        [],
        [{"apiVersion": "v1", "kind": "Node", "name": "m", "uid": "n", "controller": True}],
        [
            {
                "apiVersion": names.API_VERSION,
                "kind": names.KIND,
                "name": "another",
                "uid": "owner-2",
                "controller": True,
            }
        ],
        [
            {
                "apiVersion": "inference.networking.x-k8s.io/v1alpha2",
                "kind": names.KIND,
                "name": "m",
                "uid": "owner-3",
                "controller": True,
            }
        ],
    ],
)
@pytest.mark.parametrize("watched", [True, False])
async def test_what_is_somebody_elses_is_told_and_not_touched(
    cache: Cache, owners: list[Any], watched: bool
) -> None:
    server = Server()
    seen = cache if watched else Cache()
    made = live(server, seen, service(httpPort=80), ownerReferences=owners)
    theirs = copy.deepcopy(made)
    applier = Applier(server, cache, Offers(server))

    for _ in range(3):
        with pytest.raises(NameConflictError, match="Service vision/m exists"):
            await applier.ensure(MODEL, service())

    assert server.objects["Service", "m"] == theirs
    expected = [] if watched else ["create Service", "get Service"]
    assert server.requests == expected, "it is not looked at again with every event"


async def test_a_conflict_is_looked_at_again_after_a_while(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server()
    live(server, Cache(), service(httpPort=80), ownerReferences=[])
    applier = Applier(server, cache, Offers(server))
    monkeypatch.setattr(apply, "RECHECK_SECONDS", 0.0)
    with pytest.raises(NameConflictError):
        await applier.ensure(MODEL, service())

    server.objects.clear()

    assert await applier.ensure(MODEL, service())


async def test_the_remains_of_a_deleted_namesake_are_waited_for(cache: Cache) -> None:
    server = Server()
    wanted = service()
    owner = {**wanted["metadata"]["ownerReferences"][0], "uid": "owner-0"}
    live(server, cache, wanted, ownerReferences=[owner])

    with pytest.raises(TransientError, match="garbage collector"):
        await Applier(server, cache, Offers(server)).ensure(MODEL, wanted)
    assert server.requests == []


async def test_a_child_that_is_being_deleted_is_waited_for(cache: Cache) -> None:
    server = Server()
    live(server, cache, service(), deletionTimestamp="2026-01-01T00:00:00Z")

    with pytest.raises(TransientError, match="is being deleted"):
        await Applier(server, cache, Offers(server)).ensure(MODEL, service())


async def test_a_refused_wish_is_held_until_it_changes(cache: Cache) -> None:
    server = Server(refuse=True)
    applier = Applier(server, cache, Offers(server))
    for _ in range(3):
        with pytest.raises(RefusedError):
            await applier.ensure(MODEL, service())
    assert server.requests.count("create Service") == 1

    server.refuse = False
    assert await applier.ensure(MODEL, service(httpPort=80))


async def test_a_refused_child_is_tried_again_when_it_or_the_spec_changed(cache: Cache) -> None:
    server = Server(refuse=True)
    applier = Applier(server, cache, Offers(server))
    drifted = service()
    drifted["spec"]["ports"][0]["port"] = 1234
    live(server, cache, drifted)
    for _ in range(2):
        with pytest.raises(RefusedError):
            await applier.ensure(MODEL, service())
    assert server.requests == ["apply Service"]

    live(server, cache, drifted, resourceVersion="8", labels={"app": "other"})
    with pytest.raises(RefusedError):
        await applier.ensure(MODEL, service())
    assert server.requests == ["apply Service"] * 2

    server.refuse = False
    later = objects.model({**OWNER, "metadata": {**OWNER["metadata"], "generation": 2}})
    assert await applier.ensure(later, service())


EDITED = {"manager": "kubectl-edit", "operation": "Update"}


def by_hand(**spec: Any) -> list[dict[str, Any]]:
    return [{**EDITED, "fieldsV1": {"f:spec": {f"f:{field}": {} for field in spec}}}]


async def test_what_others_have_set_is_taken_back_before_the_rest_is_applied(
    cache: Cache,
) -> None:
    server = Server()
    edited = service()
    edited["spec"]["sessionAffinity"] = "ClientIP"
    live(server, cache, edited, managedFields=by_hand(sessionAffinity=1))
    applier = Applier(server, cache, Offers(server))

    assert await applier.ensure(MODEL, service())
    assert server.requests == ["rewrite spec", "apply Service"]
    assert "sessionAffinity" not in server.objects["Service", "m"]["spec"]
    assert not await applier.ensure(MODEL, service())


async def test_what_an_apply_can_not_mend_is_set_anew(cache: Cache) -> None:
    server = Server()
    edited = service()
    edited["spec"]["ports"][0]["port"] = 1234
    live(server, cache, edited)
    first = RefusedError("Service", "vision/m", "Duplicate value", "mend it", invalid=True)
    server.apply = _refused_once(server.apply, first)  # type: ignore[method-assign]

    assert await Applier(server, cache, Offers(server)).ensure(MODEL, service())
    assert server.requests == ["rewrite spec", "apply Service"]


def _refused_once(apply: Any, refusal: Exception) -> Any:
    refusals = [refusal]

    async def refused_once(*args: Any, **options: Any) -> Any:
        if refusals:
            raise refusals.pop()
        return await apply(*args, **options)

    return refused_once


async def test_an_edit_that_can_not_be_undone_is_told_with_the_way_out(cache: Cache) -> None:
    server = Server(refuse=True)
    server.refusal = RefusedError("Service", "vision/m", "frozen", "mend the spec", invalid=True)
    edited = service()
    edited["spec"]["ports"][0]["port"] = 1234
    live(server, cache, edited)
    applier = Applier(server, cache, Offers(server))
    for _ in range(3):
        with pytest.raises(RefusedError, match=r"`kubectl --namespace=vision delete service m`"):
            await applier.ensure(MODEL, service())
    assert server.requests == ["apply Service", "rewrite spec"]

    with pytest.raises(RefusedError, match="mend the spec"):
        await applier.ensure(MODEL, service(httpPort=80))


async def test_what_nobody_may_write_is_not_set_anew(cache: Cache) -> None:
    server = Server(refuse=True)
    live(server, cache, service())
    with pytest.raises(RefusedError):
        await Applier(server, cache, Offers(server)).ensure(MODEL, service(httpPort=80))
    assert server.requests == ["apply Service"]


async def test_a_child_that_somebody_changes_each_time_is_not_fought_for(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server()
    applier = Applier(server, cache, Offers(server))
    edited = service()
    edited["spec"]["type"] = "NodePort"

    async def fight(rounds: int) -> str:
        told = ""
        for _ in range(rounds):
            server.version += 1
            version = str(server.version)
            live(server, cache, edited, resourceVersion=version, managedFields=by_hand(type=1))
            try:
                await applier.ensure(MODEL, service())
            except ContestedError as contested:
                told = str(contested)
        return told

    told = await fight(100)
    assert "changed again and again by kubectl-edit" in told
    assert server.requests.count("apply Service") == pace.REPAIRS

    later = time.monotonic() + pace.REPAIR_SECONDS
    monkeypatch.setattr(apply, "time", SimpleNamespace(monotonic=lambda: later))
    await fight(1)
    assert server.requests.count("apply Service") == pace.REPAIRS + 1
    assert await applier.ensure(MODEL, service(httpPort=80)), "another wish does not wait"


@pytest.mark.parametrize(
    "owners",
    [[], [{**service()["metadata"]["ownerReferences"][0], "controller": False}]],
)
async def test_a_child_whose_owner_somebody_took_away_gets_it_back(
    cache: Cache, owners: list[Any]
) -> None:
    server = Server()
    live(server, cache, service(), ownerReferences=owners)
    applier = Applier(server, cache, Offers(server))
    assert await applier.ensure(MODEL, service())
    (owner,) = server.objects["Service", "m"]["metadata"]["ownerReferences"]
    assert (owner["uid"], owner["controller"]) == (MODEL.uid, True)


async def test_only_an_own_child_is_removed(cache: Cache) -> None:
    server = Server()
    applier = Applier(server, cache, Offers(server))
    live(server, cache, service(), ownerReferences=[])
    (theirs,) = cache.children(MODEL.key)
    assert not await applier.remove(MODEL, theirs)

    live(server, cache, service(), resourceVersion="8")
    (own,) = cache.children(MODEL.key)
    assert await applier.remove(MODEL, own)
    assert server.requests == ["delete Service"]


async def test_a_child_of_a_kind_that_is_not_offered_names_the_crd_and_the_field(
    cache: Cache,
) -> None:
    server = Server()
    offers = Offers(server)
    route = {**service(), "kind": "HTTPRoute", "apiVersion": "gateway.networking.k8s.io/v1"}
    with pytest.raises(NotOfferedError) as refused:
        await Applier(server, cache, offers).ensure(MODEL, route)
    told = str(refused.value)
    assert "install the CRD httproutes.gateway.networking.k8s.io" in told
    assert "or remove spec.gateway from the InferenceModel" in told
    assert server.requests == []

    server.offered = {HTTP_ROUTES}
    assert await offers.refresh()
    assert not await offers.refresh()
    assert await Applier(server, cache, offers).ensure(MODEL, route)


async def test_a_child_of_a_kind_that_can_not_be_asked_for_is_not_said_to_be_lacking(
    cache: Cache,
) -> None:
    server = Server()
    server.unanswered = ApiUnavailableError("discover HTTPRoute: 503 backend is away")
    offers = Offers(server)
    await offers.refresh()
    route = {**service(), "kind": "HTTPRoute", "apiVersion": "gateway.networking.k8s.io/v1"}
    with pytest.raises(TransientError, match="503 backend is away"):
        await Applier(server, cache, offers).ensure(MODEL, route)

    server.unanswered = None
    await offers.refresh()
    with pytest.raises(NotOfferedError):
        await Applier(server, cache, offers).ensure(MODEL, route)


def deployment(**spec: Any) -> Manifest:
    typed = decode(OWNER)
    made = children(typed, VersionsRecord(), Settings())
    wanted = next(child for child in made if child["kind"] == "Deployment")
    wanted["spec"] = {**wanted["spec"], **spec}
    wanted["metadata"]["annotations"][names.DESIRED_HASH_ANNOTATION] = str(spec)
    return wanted


async def test_replicas_are_held_by_somebody_before_the_operator_lets_go_of_them(
    cache: Cache,
) -> None:
    server = Server()
    fields = {"manager": names.FIELD_MANAGER, "operation": "Apply"}
    fields["fieldsV1"] = {"f:spec": {"f:replicas": {}}}  # type: ignore[assignment]
    live(server, cache, deployment(replicas=3), managedFields=[fields])
    scaled = deployment()
    del scaled["spec"]["replicas"]
    applier = Applier(server, cache, Offers(server))

    assert await applier.ensure(MODEL, scaled)
    assert server.requests == ["hold 3", "apply Deployment"]

    server.requests.clear()
    later = copy.deepcopy(scaled)
    later["spec"]["minReadySeconds"] = 9
    later["metadata"]["annotations"][names.DESIRED_HASH_ANNOTATION] = "later"
    assert await applier.ensure(MODEL, later)
    assert server.requests == ["apply Deployment"]


@pytest.mark.parametrize(
    ("live", "wanted", "covered"),
    [
        ({"a": 1, "b": 2}, {"a": 1}, True),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1}}, True),
        ({}, {"a": False}, False),
        ({"a": False}, {"a": False}, True),
        ({"args": ["x", "y"]}, {"args": ["x"]}, False),
        ({"args": ["y", "x"]}, {"args": ["x", "y"]}, False),
        ({"rules": [{"host": "a"}, {"host": "b"}]}, {"rules": [{"host": "a"}]}, False),
        ({"env": [{"name": "a"}, {"name": "b", "x": 1}]}, {"env": [{"name": "b"}]}, True),
        ({"env": [{"name": "a"}]}, {"env": [{"name": "b"}]}, False),
        ({"volumes": [{"name": "a", "x": [1, 2]}]}, {"volumes": [{"name": "a", "x": [1]}]}, False),
        ({"a": [1]}, {"a": {"b": 1}}, False),
        (None, {"a": 1}, False),
        ({"target": {"averageValue": "500m"}}, {"target": {"averageValue": "0.5"}}, True),
        ({"target": {"value": "30"}}, {"target": {"value": 30}}, True),
        ({"scaleUp": {"tolerance": "50m"}}, {"scaleUp": {"tolerance": "0.05"}}, True),
        ({"target": {"averageValue": "500m"}}, {"target": {"averageValue": "0.6"}}, False),
        ({"env": [{"value": "500m"}]}, {"env": [{"value": "0.5"}]}, False),
        ({"limits": {"cpu": "1"}}, {"limits": {"cpu": 1}}, True),
        ({"limits": {"memory": "1Gi"}}, {"limits": {"memory": "1024Mi"}}, True),
        ({"limits": {"memory": "1Gi"}}, {"limits": {"memory": "1025Mi"}}, False),
        ({"overhead": {"cpu": "250m"}}, {"overhead": {"cpu": "0.25"}}, True),
        ({"emptyDir": {"sizeLimit": "1Gi"}}, {"emptyDir": {"sizeLimit": "1024Mi"}}, True),
        ({}, {"hostPID": False, "initialDelaySeconds": 0, "value": "", "tolerations": []}, True),
        ({"hostPID": True}, {"hostPID": False}, False),
        ({}, {"runAsUser": 0}, False),
        ({}, {"emptyDir": {}}, False),
        ({"resources": {}}, {"resources": {"limits": {}}}, True),
        ({"metadata": {}}, {"metadata": {"labels": {}}}, True),
        ({"startupProbe": {"timeoutSeconds": 1}}, {"startupProbe": {"timeoutSeconds": 0}}, True),
        ({"httpGet": {"scheme": "HTTP"}}, {"httpGet": {"scheme": ""}}, True),
        ({"ports": [{"containerPort": 1, "protocol": "TCP"}]},
         {"ports": [{"containerPort": 1, "protocol": ""}]}, True),
        ({"containers": [{"imagePullPolicy": "Always"}]}, {"containers": [{"imagePullPolicy": ""}]},
         True),
        ({"startupProbe": {"timeoutSeconds": 3}}, {"startupProbe": {"timeoutSeconds": 1}}, False),
        ({"sleep": {"seconds": 5}}, {"sleep": {"seconds": 0}}, False),
        ({"ports": [{"port": 1, "name": "a"}]}, {"ports": [{"port": 1}]}, True),
        ({"ports": [{"containerPort": 1}]}, {"ports": [{"containerPort": 2}]}, False),
        ({"ports": [{"protocol": "UDP"}]}, {"ports": [{"protocol": "TCP"}]}, False),
        ({"ports": [{"containerPort": 1, "protocol": "TCP"},
                    {"containerPort": 1, "protocol": "UDP"}]},
         {"ports": [{"containerPort": 1, "protocol": "UDP"}]}, True),
    ],
)  # fmt: skip
def test_wanted_is_covered_by_live_with_what_others_add(
    live: Any, wanted: Any, covered: bool
) -> None:
    assert covers(live, wanted) is covered


def test_lists_of_thousands_are_compared_item_by_item() -> None:
    # As large as what may be laid over a pod.
    wanted = {"env": [{"name": Compared(f"A{n}")} for n in range(3000)]}
    live = {"env": [{"name": f"A{n}", "value": "x"} for n in reversed(range(3000))]}
    before = Compared.times
    assert covers(live, wanted)
    assert Compared.times - before < 30_000
