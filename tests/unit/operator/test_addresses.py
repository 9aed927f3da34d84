"""Two InferenceModels with one host and path: who gets the requests, and who is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from inferencemodel_operator import addresses, names
from inferencemodel_operator.addresses import AddressBook, claims, live_claims
from inferencemodel_operator.cache import Cache
from inferencemodel_operator.children import children
from inferencemodel_operator.cluster import CHILDREN, MODELS
from inferencemodel_operator.observe import objects
from inferencemodel_operator.record import VersionsRecord
from inferencemodel_operator.settings import Settings
from inferencemodel_operator.spec import InferenceModel, decode

if TYPE_CHECKING:
    from inferencemodel_operator.errors import AddressConflictError
    from inferencemodel_operator.observe.objects import Key

Object = dict[str, Any]
HOST = {"host": "x.example.com"}
MESH = {"name": "s", "group": "", "kind": "Service"}
GATEWAYS = [{"name": "g"}, {"name": "h"}]


def typed(name: str = "m", namespace: str = "vision", **spec: Any) -> InferenceModel:
    metadata = {"name": name, "namespace": namespace}
    return decode({"metadata": metadata, "spec": {"model": {"storageUri": "gs://b/m"}, **spec}})


class Fleet:
    """A cache, filled as by watches."""

    def __init__(self) -> None:
        self.cache = Cache()
        self.notified: list[Key] = []
        self.cache.addresses.notify = self.notified.append
        self._version = 0

    def model(self, name: str, namespace: str = "vision", **spec: Any) -> None:
        self.cache.put(
            MODELS,
            self._object(
                name, namespace, spec={"model": {"storageUri": "gs://b/m"}, **spec}, status={}
            ),
        )

    def child(
        self, kind: str, name: str, created: str, namespace: str = "vision", **spec: Any
    ) -> None:
        made = self._object(name, namespace, spec=spec)
        made["metadata"] |= {
            "uid": f"{kind}-{namespace}-{name}",
            "creationTimestamp": f"2026-01-01T{created}Z",
            "labels": names.labels(name),
            "ownerReferences": [
                {
                    "kind": names.KIND,
                    "name": name,
                    "uid": f"{namespace}-{name}",
                    "apiVersion": names.API_VERSION,
                    "controller": True,
                }
            ],
        }
        self.cache.put(CHILDREN[kind], made)

    def delete(self, name: str, namespace: str = "vision") -> None:
        self.cache.remove(MODELS, self._object(name, namespace))

    def _object(self, name: str, namespace: str, **more: Any) -> Object:
        self._version += 1
        return {
            "metadata": {
                "name": name,
                "namespace": namespace,
                "uid": f"{namespace}-{name}",
                "resourceVersion": str(self._version),
            },
            **more,
        }

    def conflict(self, name: str, namespace: str = "vision") -> AddressConflictError | None:
        model = self.cache.model((namespace, name))
        assert model is not None
        return addresses.conflict(self.cache, model)


def test_the_one_whose_ingress_is_older_has_the_host_and_the_other_is_told() -> None:
    fleet = Fleet()
    for name, created in (("a", "00:00:02"), ("b", "00:00:01")):
        fleet.model(name, ingress=HOST)
        fleet.child("Ingress", name, created)
    assert fleet.conflict("b") is None
    assert str(fleet.conflict("a")) == (
        "x.example.com/ is asked for by InferenceModel b, too, whose Ingress is the older one, so"
        " requests go there; change spec.ingress.host, spec.ingress.hosts or spec.ingress.path here"
        " or there"
    )


def test_one_host_of_several_is_enough_to_meet() -> None:
    fleet = Fleet()
    fleet.model("a", ingress={"host": "a.example.com", "hosts": ["*.example.com", "b.example.com"]})
    fleet.model("b", ingress={"hosts": ["b.example.com", "c.example.com"]})
    fleet.model("c", ingress={"hosts": ["*.example.com"]})
    fleet.model("d", ingress={"hosts": ["d.example.com"]})
    fleet.child("Ingress", "a", "00:00:01")
    assert "b.example.com/ " in str(fleet.conflict("b"))
    assert "*.example.com/ " in str(fleet.conflict("c"))
    assert fleet.conflict("a") is None
    assert fleet.conflict("d") is None


def test_of_the_same_second_the_first_by_namespace_and_name_has_it() -> None:
    fleet = Fleet()
    for name, namespace in (("b", "one"), ("a", "one"), ("a", "two")):
        fleet.model(name, namespace, ingress=HOST)
        fleet.child("Ingress", name, "00:00:01", namespace)
    assert fleet.conflict("a", "one") is None
    assert fleet.conflict("b", "one") is not None
    assert fleet.conflict("a", "two") is not None


def test_one_that_came_first_but_asks_later_does_not_take_the_host_away() -> None:
    fleet = Fleet()
    fleet.model("a")
    fleet.model("b", ingress=HOST)
    fleet.child("Ingress", "b", "00:00:01")
    fleet.model("a", ingress=HOST)
    assert fleet.conflict("b") is None
    assert fleet.conflict("a") is not None


def test_what_is_in_another_namespace_is_not_named() -> None:
    fleet = Fleet()
    fleet.model("secret-project", "other", ingress=HOST)
    fleet.child("Ingress", "secret-project", "00:00:01", "other")
    fleet.model("a", ingress=HOST)
    words = str(fleet.conflict("a"))
    assert "an InferenceModel of another namespace" in words
    assert "secret-project" not in words
    assert "other," not in words


@pytest.mark.parametrize("change", ["gone", "moved", "class"])
def test_when_one_goes_the_other_hears_of_it_and_has_the_address(change: str) -> None:
    fleet = Fleet()
    for name, created in (("a", "00:00:01"), ("b", "00:00:02")):
        fleet.model(name, ingress=HOST)
        fleet.child("Ingress", name, created, ingressClassName="nginx")
    assert fleet.conflict("b") is not None
    fleet.notified.clear()
    match change:
        case "gone":
            fleet.delete("a")
        case "moved":
            fleet.model("a", ingress={"host": "y.example.com"})
        case "class":
            fleet.child("Ingress", "a", "00:00:01", ingressClassName="internal")
    assert fleet.notified == [("vision", "b")]
    assert fleet.conflict("b") is None


def rules(host: str) -> Object:
    return {"rules": [{"host": host, "http": {"paths": [{"path": "/", "pathType": "Prefix"}]}}]}


def test_a_suspended_one_asks_for_what_its_ingress_does_whatever_its_spec_says() -> None:
    fleet = Fleet()
    for name, created in (("a", "00:00:01"), ("b", "00:00:02")):
        fleet.model(name, ingress=HOST)
        fleet.child("Ingress", name, created, **rules("x.example.com"))
    fleet.model("a", ingress={"host": "y.example.com"}, suspend=True)
    fleet.model("c", ingress={"host": "y.example.com"})
    assert fleet.conflict("b") is not None, "a's Ingress has the host still"
    assert fleet.conflict("c") is None, "nobody's Ingress has it"
    assert fleet.conflict("a") is None

    fleet.notified.clear()
    fleet.model("a", ingress={"host": "y.example.com"})
    assert set(fleet.notified) == {("vision", "b"), ("vision", "c")}
    assert fleet.conflict("b") is None
    fleet.child("Ingress", "a", "00:00:01", **rules("y.example.com"))
    assert fleet.conflict("c") is not None


@pytest.mark.parametrize("model_first", [True, False])
def test_what_a_suspended_one_asks_for_is_known_in_whichever_order_it_is_listed(
    model_first: bool,
) -> None:
    fleet = Fleet()
    fleet.model("b", ingress=HOST)

    def suspended() -> None:
        fleet.model("a", ingress={"host": "y.example.com"}, suspend=True)

    if model_first:
        suspended()
    fleet.child("Ingress", "a", "00:00:01", **rules("x.example.com"))
    if not model_first:
        suspended()
    assert fleet.notified[-1] == ("vision", "b")
    assert fleet.conflict("b") is not None


def test_one_that_can_not_be_understood_keeps_the_class_and_the_host_of_its_ingress() -> None:
    fleet = Fleet()
    for name, created in (("a", "00:00:01"), ("b", "00:00:02")):
        fleet.model(name, ingress={**HOST, "className": "nginx"})
        fleet.child("Ingress", name, created, ingressClassName="nginx", **rules("x.example.com"))
    fleet.model("a", server={"resources": {"limits": {"cpu": "much"}}})
    assert fleet.cache.model(("vision", "a")).model is None  # type: ignore[union-attr]
    assert fleet.conflict("b") is not None


def test_a_child_of_somebody_else_gives_no_seniority() -> None:
    fleet = Fleet()
    fleet.model("a", ingress=HOST)
    fleet.child("Ingress", "a", "00:00:01", namespace="vision")
    fleet.cache.remove(
        MODELS,
        {
            "metadata": {
                "name": "a",
                "namespace": "vision",
                "uid": "vision-a",
                "resourceVersion": "90",
            }
        },
    )
    fleet.cache.put(
        MODELS,
        {
            "metadata": {
                "name": "a",
                "namespace": "vision",
                "uid": "created again",
                "resourceVersion": "91",
            },
            "spec": {"model": {"storageUri": "gs://b/m"}, "ingress": HOST},
        },
    )
    fleet.model("b", ingress=HOST)
    fleet.child("Ingress", "b", "00:00:09")
    assert fleet.conflict("b") is None
    assert fleet.conflict("a") is not None


DISTINCT: list[tuple[Object, Object]] = [
    ({"ingress": HOST}, {"ingress": {"host": "y.example.com"}}),
    ({"ingress": HOST}, {"ingress": {**HOST, "path": "/v1/models/b"}}),
    ({"ingress": HOST}, {"ingress": {"className": "nginx"}}),
    (
        {"ingress": {**HOST, "className": "public"}},
        {"ingress": {**HOST, "className": "internal"}},
    ),
    (
        {"ingress": {**HOST, "path": "/v1/models/a"}},
        {"ingress": {**HOST, "path": "/v1/models/a", "pathType": "Exact"}},
    ),
    ({"gateway": {"parentRefs": [{"name": "g"}]}}, {"gateway": {"parentRefs": [{"name": "h"}]}}),
    (
        {"gateway": {"parentRefs": [{"name": "g"}]}},
        {"gateway": {"parentRefs": [{"name": "g", "namespace": "infra"}]}},
    ),
    (
        {"gateway": {"parentRefs": [{"name": "g"}]}},
        {"gateway": {"parentRefs": [{"name": "g"}], "hostnames": ["x.example.com"]}},
    ),
    (
        {"gateway": {"parentRefs": [{"name": "g", "sectionName": "web"}]}},
        {"gateway": {"parentRefs": [{"name": "g", "sectionName": "tls"}]}},
    ),
    (
        {"gateway": {"parentRefs": [{"name": "g"}], "path": "/a"}},
        {"gateway": {"parentRefs": [{"name": "g"}], "path": "/b"}},
    ),
    ({"ingress": HOST}, {"gateway": {"parentRefs": [{"name": "g"}], "hostnames": [HOST["host"]]}}),
    (
        {"gateway": {"parentRefs": [{"name": "g"}], "hostnames": ["x"], "path": "/a"}},
        {"gateway": {"parentRefs": [{"name": "h"}], "hostnames": ["y"], "grpcHostnames": ["x"]}},
    ),
    (
        {"gateway": {"parentRefs": [{"name": "g", "sectionName": "web"}], "hostnames": ["x"]}},
        {
            "gateway": {
                "parentRefs": [{"name": "g", "sectionName": "grpc"}],
                "hostnames": ["y"],
                "grpcHostnames": ["x"],
            }
        },
    ),
    (
        {"gateway": {"parentRefs": [MESH], "hostnames": ["x"], "path": "/a"}},
        {"gateway": {"parentRefs": [MESH], "hostnames": ["y"], "grpcHostnames": ["x"]}},
    ),
]

SHARED: Object = {
    "maxReplicas": 2,
    "keda": {"http": {"concurrency": 1, "hosts": ["x.example.com"]}},
}
ONE: Object = {"storageUri": "gs://b/m", "name": "one"}
DISTINCT += [
    ({"autoscaling": SHARED}, {"autoscaling": SHARED}),
    ({"autoscaling": SHARED, "model": ONE}, {"ingress": HOST, "model": ONE}),
]

EQUAL: list[tuple[Object, Object, str]] = [
    (
        {"ingress": {**HOST, "path": "/a/"}},
        {"ingress": {**HOST, "path": "/a"}},
        "x.example.com/a",
    ),
    (
        {"ingress": {**HOST, "path": "/v1/models/a"}},
        {"ingress": {**HOST, "path": "/v1/models/a:predict", "pathType": "Exact"}},
        "x.example.com/v1/models/a:predict",
    ),
    (
        {"ingress": {**HOST, "path": "/a(.*)", "pathType": "ImplementationSpecific"}},
        {"ingress": {**HOST, "path": "/a(.*)", "pathType": "ImplementationSpecific"}},
        "x.example.com/a(.*)",
    ),
    (
        {"gateway": {"parentRefs": [{"name": "g"}]}},
        {"gateway": {"parentRefs": [{"name": "g", "sectionName": "web"}]}},
        "every host/",
    ),
    (
        {"gateway": {"parentRefs": [{"name": "g"}], "hostnames": ["a.x", "b.x"], "path": "/p"}},
        {"gateway": {"parentRefs": GATEWAYS, "hostnames": ["b.x"], "path": "/p/"}},
        "b.x/p",
    ),
    (
        {"gateway": {"parentRefs": [{"name": "g"}], "path": "/a", "grpcHostnames": ["g.x"]}},
        {"gateway": {"parentRefs": [{"name": "g"}], "path": "/b", "grpcHostnames": ["g.x"]}},
        "g.x/",
    ),
    (
        {"gateway": {"parentRefs": [{"name": "g"}], "hostnames": ["b.x"], "path": "/a"}},
        {"gateway": {"parentRefs": GATEWAYS, "hostnames": ["c.x"], "grpcHostnames": ["b.x"]}},
        "b.x/",
    ),
    (
        {"autoscaling": SHARED, "model": ONE},
        {"autoscaling": SHARED, "ingress": {**HOST, "path": "/a"}, "model": ONE},
        "x.example.com/v1/models/one",
    ),
]


@pytest.mark.parametrize("spec", [s for pair in (*DISTINCT, *EQUAL) for s in pair[:2]], ids=repr)
def test_a_specs_children_ask_for_what_the_spec_does(spec: Object) -> None:
    model = typed(**spec)
    made = children(model, VersionsRecord(), Settings())
    live = [
        objects.child(
            child["kind"],
            {**child, "metadata": {**child["metadata"], "uid": "u", "resourceVersion": "1"}},
        )
        for child in made
        if child["kind"] in addresses.KINDS
    ]
    assert live_claims(live) == claims(model)


@pytest.mark.parametrize(("one", "other"), DISTINCT, ids=repr)
def test_what_requests_can_be_told_apart_by_is_no_conflict(one: Object, other: Object) -> None:
    fleet = Fleet()
    fleet.model("a", **one)
    fleet.model("b", **other)
    assert fleet.conflict("a") is fleet.conflict("b") is None


@pytest.mark.parametrize(("one", "other", "address"), EQUAL, ids=repr)
def test_equal_addresses_are_a_conflict_of_the_younger_one(
    one: Object, other: Object, address: str
) -> None:
    fleet = Fleet()
    fleet.model("a", **one)
    fleet.model("b", **other)
    assert fleet.conflict("a") is None
    assert str(fleet.conflict("b")).startswith(f"{address} is asked for by InferenceModel a, too")


def test_a_gateway_takes_one_kind_of_route_for_a_host_that_of_the_older_one() -> None:
    fleet = Fleet()
    gateway = {"parentRefs": [{"name": "g"}], "path": "/a"}
    fleet.model("a", gateway={**gateway, "hostnames": ["b.x"]})
    fleet.child("HTTPRoute", "a", "00:00:02")
    fleet.model("c", gateway={**gateway, "hostnames": ["c.x"], "grpcHostnames": ["b.x"]})
    assert fleet.conflict("c") is not None, "its GRPCRoute is yet to come"
    fleet.child("GRPCRoute", "c", "00:00:01")
    assert fleet.notified[-1] == ("vision", "a")
    assert fleet.conflict("c") is None
    assert str(fleet.conflict("a")) == (
        "b.x/ is asked for by InferenceModel c, too, whose GRPCRoute is the older one, so requests"
        " go there; change spec.gateway.hostnames or spec.gateway.grpcHostnames here or there"
    )
    fleet.delete("c")
    assert fleet.conflict("a") is None


@pytest.mark.parametrize(
    ("host", "grpc", "both"),
    [
        ("*.x.y", "a.x.y", "a.x.y/"),
        ("a.x.y", "*.x.y", "a.x.y/"),
        ("*.y", "a.b.x.y", "a.b.x.y/"),
        ("*.x.y", "*.y", "*.x.y/"),
        ("*.x.y", "*.x.y", "*.x.y/"),
    ],
)
def test_a_wildcard_has_all_hosts_below_it_for_one_kind_of_route(
    host: str, grpc: str, both: str
) -> None:
    fleet = Fleet()
    gateway = {"parentRefs": [{"name": "g"}], "path": "/a"}
    fleet.model("a", gateway={**gateway, "hostnames": [host]})
    fleet.model("c", gateway={**gateway, "hostnames": ["c.z"], "grpcHostnames": [grpc]})
    assert fleet.notified[-1] == ("vision", "a")
    assert fleet.conflict("a") is None
    assert str(fleet.conflict("c")).startswith(f"{both} is asked for by InferenceModel a, too")
    fleet.child("GRPCRoute", "c", "00:00:01")
    assert str(fleet.conflict("a")).startswith(
        f"{both} is asked for by InferenceModel c, too, whose GRPCRoute is the older one"
    )
    fleet.delete("c")
    assert fleet.conflict("a") is None


@pytest.mark.parametrize(
    ("host", "grpc"), [("*.x.y", "x.y"), ("*.x.y", "a.xx.y"), ("a.x.y", "*.a.x.y"), ("*.x", "x.z")]
)
def test_a_wildcard_has_no_other_hosts(host: str, grpc: str) -> None:
    fleet = Fleet()
    gateway = {"parentRefs": [{"name": "g"}], "path": "/a"}
    fleet.model("a", gateway={**gateway, "hostnames": [host]})
    fleet.model("c", gateway={**gateway, "hostnames": ["c.z"], "grpcHostnames": [grpc]})
    assert fleet.conflict("a") is fleet.conflict("c") is None


def test_of_two_routes_of_a_kind_a_wildcard_and_a_host_below_it_are_both_obeyed() -> None:
    for more in ({}, {"hostnames": ["c.z"]}):
        fleet = Fleet()
        kind = "grpcHostnames" if more else "hostnames"
        gateway = {"parentRefs": [{"name": "g"}], "path": "/a", **more}
        fleet.model("a", gateway={**gateway, kind: ["*.x.y"]})
        fleet.model("b", gateway={**gateway, "path": "/b", kind: ["a.x.y"]})
        assert fleet.conflict("a") is fleet.conflict("b") is None


def test_the_clusters_default_class_is_the_one_that_the_ingress_got() -> None:
    fleet = Fleet()
    fleet.model("a", ingress={**HOST, "className": "nginx"})
    fleet.model("b", ingress=HOST)
    fleet.child("Ingress", "a", "00:00:01", ingressClassName="nginx")
    assert fleet.conflict("b") is None
    fleet.child("Ingress", "b", "00:00:02", ingressClassName="nginx")
    assert fleet.conflict("b") is not None


def test_models_that_share_a_host_by_path_do_not_disturb_each_other() -> None:
    book = AddressBook()
    notified: list[Key] = []
    book.notify = notified.append
    for number in range(3000):
        name = f"m-{number}"
        book.put(
            ("vision", name), claims(typed(name, ingress={**HOST, "path": f"/v1/models/{name}"}))
        )
    book.touch(("vision", "m-7"))
    assert notified == []


def test_what_is_taken_back_leaves_nothing() -> None:
    book = AddressBook()
    for number in range(10):
        book.put(("vision", f"m-{number}"), claims(typed(f"m-{number}", ingress=HOST)))
    for number in range(10):
        book.put(("vision", f"m-{number}"), {})
    (address,) = claims(typed(ingress=HOST))
    book.put(("vision", "m"), claims(typed(ingress=HOST)))
    assert list(book.rivals(("vision", "m"), address)) == []
    gateway = {"parentRefs": [{"name": "g"}], "hostnames": ["a.x.y"]}
    book.put(("vision", "m"), claims(typed(gateway=gateway)))
    book.put(("vision", "m"), {})
    assert not book._below
