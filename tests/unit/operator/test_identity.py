"""Whose pod it is, and what of its poller's report counts."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from inferencemodel_operator import identity, store
from inferencemodel_operator.cache import Cache
from inferencemodel_operator.children import poller
from inferencemodel_operator.cluster import DEPLOYMENTS, MODELS, PODS, REPLICA_SETS
from inferencemodel_operator.observe.feed import Feed
from inferencemodel_operator.observe.objects import Pod
from inferencemodel_operator.observe.reports import Unreachable
from inferencemodel_operator.observed import Unversioned
from inferencemodel_operator.spec import decode
from model_poller.status import SourceStatus, VersionState
from tests.support.pods import told

KEY = ("vision", "m")
ONE = told({1: VersionState.AVAILABLE}, target=1)
MODEL = decode(
    {
        "metadata": {"name": "m", "namespace": "vision", "uid": "u", "generation": 1},
        "spec": {"model": {"storageUri": "gs://models/m"}},
    }
)


def obj(name: str, uid: str, *, kind: str = "", by: str = "", **more: Any) -> dict[str, Any]:
    version = "inferencemodel.dev/v1alpha1" if kind == "InferenceModel" else "apps/v1"
    owner = {"apiVersion": version, "kind": kind, "name": "m", "uid": by, "controller": True}
    return {
        "metadata": {
            "name": name,
            "namespace": "vision",
            "uid": uid,
            "resourceVersion": "1",
            "labels": {"inferencemodel.dev/name": "m"},
            "ownerReferences": [owner] if by else [],
        },
        **more,
    }


SPEC = {"model": {"storageUri": "gs://models/m"}}
CHAIN: dict[str, Any] = {
    "model": (MODELS, obj("m", "model", spec=SPEC)),
    "deployment": (DEPLOYMENTS, obj("m", "deployment", kind="InferenceModel", by="model")),
    "replica set": (REPLICA_SETS, obj("m-1", "set", kind="Deployment", by="deployment")),
    "pod": (PODS, obj("p", "pod", kind="ReplicaSet", by="set")),
}


def pods(**changed: Any) -> list[str]:
    cache = Cache()
    for resource, made in {**CHAIN, **changed}.values():
        cache.put(resource, made)
    return [pod.name for pod in cache.pods(KEY)]


def test_a_pod_belongs_to_the_inferencemodel_that_its_owners_lead_to() -> None:
    assert pods() == ["p"]


@pytest.mark.parametrize(
    "changed",
    [
        {"pod": (PODS, obj("p", "pod"))},
        {"pod": (PODS, obj("p", "pod", kind="ReplicaSet", by="another"))},
        {"pod": (PODS, obj("p", "pod", kind="Job", by="set"))},
        {"pod": (PODS, obj("p", "pod", kind="InferenceModel", by="model"))},
        {"replica set": (REPLICA_SETS, obj("m-1", "set"))},
        {"replica set": (REPLICA_SETS, obj("m-1", "set", kind="Deployment", by="predecessor"))},
        {"deployment": (DEPLOYMENTS, obj("m", "deployment"))},
        {"deployment": (DEPLOYMENTS, obj("m", "deployment", kind="InferenceModel", by="old"))},
        {"model": (MODELS, obj("m", "successor", spec=SPEC))},
    ],
)
def test_labels_and_names_alone_make_no_pod_its_own(changed: dict[str, Any]) -> None:
    assert pods(**changed) == []


def test_a_pod_is_its_own_in_whichever_order_its_owners_become_known() -> None:
    cache = Cache()
    for resource, made in reversed(CHAIN.values()):
        cache.put(resource, made)
    assert [pod.name for pod in cache.pods(KEY)] == ["p"]


def pod(storage_uri: str | None = "gs://models/m", store: str = "") -> Pod:
    return Pod(
        key=KEY,
        namespace="vision",
        name="p",
        uid="u",
        resource_version=1,
        ip="10.0.0.1",
        ready=True,
        terminating=False,
        poller_port=8502,
        poller_running=True,
        server_restarts=0,
        assignment={},
        template="t",
        storage_uri=storage_uri,
        store=store,
        trouble=None,
        message="",
    )


def about(**changed: Any) -> Any:
    source = SourceStatus(uri=changed.pop("uri", "gs://models/m"))
    return msgspec.structs.replace(ONE, source=source, **changed)


@pytest.mark.parametrize(
    ("report", "counts"),
    [
        (about(), True),
        (about(uri="gs://models/m/"), True),
        (about(uri="gs://models/other"), False),
        (about(uri="s3://models/m"), False),
        (about(uri=""), False),
        (about(model="other"), False),
        (Unreachable("gone"), False),
        (None, False),
    ],
)
def test_only_a_report_about_the_specs_model_and_source_counts(report: Any, counts: bool) -> None:
    assert (identity.believed(pod(), MODEL, report) is not None) is counts


@pytest.mark.parametrize(
    ("source", "written", "counts"),
    [
        ({}, "default", True),
        ({}, "endpoint=http://minio:9000", False),
        ({"endpoint": "http://minio:9000"}, "endpoint=http://minio:9000", True),
        ({"endpoint": "http://minio:9000"}, "default", False),
        ({"endpoint": "http://minio:9000"}, "endpoint=http://other:9000", False),
        ({"endpoint": "http://m", "region": "b"}, "endpoint=http://m region=a", False),
        ({"azure": {"account": "one"}}, "azure-account=one", True),
        ({"azure": {"account": "two"}}, "azure-account=one", False),
        ({"endpoint": "http://minio:9000"}, "", True),
        ({"pathStyle": True, "pollInterval": "5s"}, "default", True),
    ],
)
def test_the_same_uri_on_another_server_is_another_source(
    source: dict[str, Any], written: str, *, counts: bool
) -> None:
    model = decode(
        {
            "metadata": {"name": "m", "namespace": "vision"},
            "spec": {"model": {"storageUri": "gs://models/m"}, "source": source},
        }
    )
    of_pods = store.of_arguments(a.replace("$$", "$") for a in poller.arguments(model))
    assert of_pods == store.of_source(model.spec.source)
    assert identity.has_source(pod(store=written), model) is counts
    assert (identity.believed(pod(store=written), model, about()) is not None) is counts


def test_a_pod_of_another_source_answers_with_another_sources_version() -> None:
    old = identity.replica(pod("gs://models/old"), MODEL, ONE, current=False)
    assert (old.answer, old.report, old.gets_requests) == (Unversioned.OTHER_SOURCE, None, True)


@pytest.mark.parametrize(
    ("report", "running", "counts"),
    [
        (ONE, True, True),
        (None, True, True),
        (Unreachable("gone"), True, False),
        (None, False, False),
    ],
    ids=["answers", "not asked yet", "node lost", "evicted"],
)
def test_a_pod_of_another_source_that_has_ended_gets_no_requests(
    report: Any, running: bool, counts: bool
) -> None:
    old = msgspec.structs.replace(
        pod("gs://models/old"), ready=False, terminating=True, poller_running=running
    )
    assert identity.replica(old, MODEL, report, current=False).gets_requests is counts


def test_a_present_pod_that_reports_about_something_else_is_unknown_and_named() -> None:
    liar = identity.replica(pod(), MODEL, about(model="other"), current=True)
    assert liar.answer is Unversioned.UNKNOWN
    assert "'other'" in liar.doubt
    renamed = identity.replica(pod(), MODEL, about(model="before"), current=False)
    assert renamed.answer is Unversioned.OTHER_SOURCE


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("gs://b/m", "gs://b/m/"),
        ("https://user:pw@host/m", "https://host/m"),
        ("https://host/m?sig=secret", "https://host/m"),
        ("gs://b", "gs://b/"),
    ],
)
def test_a_sources_address_has_one_form(one: str, other: str) -> None:
    assert identity.address(one) == identity.address(other)


@pytest.mark.parametrize("last", CHAIN)
async def test_a_pod_is_asked_once_its_owners_are_known_whoever_learnt_of_them(last: str) -> None:
    cache, pollers = Cache(), Asked()
    unused: Any = SimpleNamespace(add=None)
    asked: Any = pollers
    Feed(unused, cache, unused, asked, unused, unused, unused, ())
    for name, (resource, made) in CHAIN.items():
        if name != last:
            cache.put(resource, made)
    assert not pollers.pods
    # As the answer to the operator's own write comes in; its watch then brings nothing new.
    cache.put(*CHAIN[last])
    assert pollers.pods == {"pod"}


class Asked:
    """The uids of the pods that are asked."""

    def __init__(self) -> None:
        self.pods: set[str] = set()

    def sync(self, pod: Pod) -> None:
        self.pods.add(pod.uid)

    def drop(self, uid: str) -> None:
        self.pods.discard(uid)
