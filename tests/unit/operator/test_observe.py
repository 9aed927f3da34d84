"""What comes in: the newest view of each object wins, and nothing that is gone stays."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any, ClassVar

import aiohttp
import msgspec
import pytest
from yarl import URL

from inferencemodel_operator.cache import Cache
from inferencemodel_operator.cluster import (
    DEPLOYMENTS,
    HTTP_ROUTES,
    MODELS,
    PODS,
    REPLICA_SETS,
    SCALED_OBJECTS,
    SERVICES,
    Cluster,
    Resource,
)
from inferencemodel_operator.elsewhere import KEEP_SECONDS, Elsewhere
from inferencemodel_operator.errors import (
    ApiUnavailableError,
    ExpiredError,
    NoRightError,
    NotFoundError,
)
from inferencemodel_operator.metrics import Metrics, classify
from inferencemodel_operator.observe import objects, pollers, references
from inferencemodel_operator.observe.channels import Direct
from inferencemodel_operator.observe.feed import Feed
from inferencemodel_operator.observe.offers import Offers
from inferencemodel_operator.observe.pollers import Pollers
from inferencemodel_operator.observe.reports import Unreachable
from inferencemodel_operator.observe.signs import DEAD_SECONDS, Signs
from inferencemodel_operator.observe.troubles import Trouble
from inferencemodel_operator.observe.watches import ModelWatches
from inferencemodel_operator.queue import WorkQueue
from model_poller.status import PollerStatus, VersionState
from tests.support.pods import StubPoller, told

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator

    from inferencemodel_operator.observe.objects import Key, Pod
    from inferencemodel_operator.observe.reports import Report


def obj(name: str, version: int, uid: str = "", **more: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "name": name,
            "namespace": "vision",
            "uid": uid or f"uid-{name}",
            "resourceVersion": str(version),
            "generation": 1,
            "labels": {"inferencemodel.dev/name": "m"},
            "managedFields": [{"manager": "much text"}],
        },
        **more,
    }


def model(name: str, version: int, **more: Any) -> dict[str, Any]:
    return obj(name, version, spec={"model": {"storageUri": "gs://b/m"}}, **more)


def owned(name: str, version: int, **more: Any) -> dict[str, Any]:
    """A child whose controller is the InferenceModel m."""
    child = obj(name, version, **more)
    child["metadata"]["ownerReferences"] = [
        {
            "apiVersion": "inferencemodel.dev/v1alpha1",
            "kind": "InferenceModel",
            "name": "m",
            "uid": "uid-m",
            "controller": True,
        }
    ]
    return child


# -- the cache


def test_of_two_views_the_newer_stays() -> None:
    cache = Cache()
    assert cache.put(DEPLOYMENTS, owned("m", 9)) is not None
    assert cache.put(DEPLOYMENTS, owned("m", 8)) is None
    assert cache.put(DEPLOYMENTS, owned("m", 9)) is None
    assert cache.put(DEPLOYMENTS, owned("m", 10, spec={"paused": True})) is not None
    found = cache.child("Deployment", "vision", "m")
    assert found is not None
    assert found.resource_version == 10


def test_an_annotation_makes_no_status_of_a_deployment_old_and_another_spec_does() -> None:
    cache = Cache()

    def fresh(version: int, generation: int, observed: int, **spec: Any) -> bool:
        view = owned("m", version, spec=spec, status={"observedGeneration": observed})
        view["metadata"]["generation"] = generation
        cache.put(DEPLOYMENTS, view)
        found = cache.deployment(("vision", "m"))
        assert found is not None
        assert found.deployment is not None
        return found.deployment.is_fresh

    assert not fresh(1, 5, 4, replicas=1)
    assert fresh(2, 5, 5, replicas=1)
    assert fresh(3, 6, 5, replicas=1)
    assert fresh(4, 7, 5, replicas=1)
    assert not fresh(5, 8, 7, replicas=2)
    assert not fresh(6, 9, 7, replicas=2)
    assert fresh(7, 9, 8, replicas=2)
    # That the spec was the same once before says nothing.
    assert not fresh(8, 10, 9, replicas=1)


def test_a_view_that_is_known_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache()
    cache.put(DEPLOYMENTS, obj("m", 5))

    def read(*_: object) -> objects.Child:
        raise AssertionError("read")

    monkeypatch.setattr(objects, "child", read)
    assert cache.put(DEPLOYMENTS, obj("m", 5)) is None
    assert cache.put(DEPLOYMENTS, obj("m", 4)) is None
    with pytest.raises(AssertionError):
        cache.put(DEPLOYMENTS, obj("m", 6))


def test_content_takes_a_fraction_of_its_text_and_is_equal_where_that_is() -> None:
    spec = {"template": [{"name": f"container-{n}", "image": "registry/image"} for n in range(50)]}
    one = objects.child("Deployment", owned("m", 1, spec=spec))
    same = objects.child("Deployment", owned("m", 2, spec=spec))
    assert one.content == same.content
    assert one.content_object()["spec"] == spec
    assert len(one.content) * 4 < len(repr(spec))


def test_what_all_objects_of_a_resource_say_is_kept_once() -> None:
    def read(name: str) -> objects.Child:
        return objects.child("Service", json.loads(json.dumps(owned(name, 1))))

    one, other = read("m"), read("m-headless")
    assert one.key is not None
    assert other.key is not None
    assert one.key[0] is other.key[0] is one.namespace is other.namespace
    assert one.key[1] is other.key[1]
    assert one.owner_uid is other.owner_uid


def test_a_deployments_spec_is_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = {"template": {"text": "x" * 10_000}}
    encode = msgspec.json.encode
    texts = []

    def watched(value: object, **options: Any) -> bytes:
        # What is encoded already is handed on as it is.
        texts.append("x" * 10_000 in repr(value) and not isinstance(value, msgspec.Raw))
        return encode(value, **options)

    monkeypatch.setattr(msgspec.json, "encode", watched)
    live = objects.child("Deployment", owned("m", 1, spec=spec))
    assert live.content_object()["spec"] == spec
    assert sum(texts) == 1


def test_what_nobody_looks_at_is_no_news() -> None:
    cache = Cache()
    cache.put(DEPLOYMENTS, owned("m", 1, spec={"replicas": 2}))
    assert cache.put(DEPLOYMENTS, owned("m", 2, spec={"replicas": 2})) is None
    assert cache.put(DEPLOYMENTS, owned("m", 3, spec={"replicas": 3})) is not None


def test_children_are_found_by_their_inferencemodel() -> None:
    cache = Cache()
    for kind in (DEPLOYMENTS, SERVICES):
        cache.put(kind, obj("m", 1))
    assert {child.kind for child in cache.children(("vision", "m"))} == {"Deployment", "Service"}

    moved = obj("m", 2)
    moved["metadata"]["labels"]["inferencemodel.dev/name"] = "another"
    cache.put(SERVICES, moved)
    assert [child.kind for child in cache.children(("vision", "m"))] == ["Deployment"]
    assert [child.kind for child in cache.children(("vision", "another"))] == ["Service"]
    cache.remove(DEPLOYMENTS, obj("m", 3))
    assert cache.children(("vision", "m")) == []


def test_what_is_deleted_is_not_brought_back_by_a_late_view() -> None:
    cache = Cache()
    cache.put(DEPLOYMENTS, obj("m", 5))
    assert cache.remove(DEPLOYMENTS, obj("m", 7)) is not None
    assert cache.put(DEPLOYMENTS, obj("m", 6)) is None
    assert cache.child("Deployment", "vision", "m") is None


def test_an_object_whose_label_comes_back_comes_back() -> None:
    cache = Cache()
    cache.put(DEPLOYMENTS, obj("m", 5))
    cache.remove(DEPLOYMENTS, obj("m", 7))
    assert cache.put(DEPLOYMENTS, obj("m", 8)) is not None


def test_the_deletion_of_a_predecessor_does_not_remove_its_successor() -> None:
    cache = Cache()
    cache.put(DEPLOYMENTS, obj("m", 9, uid="new"))
    assert cache.remove(DEPLOYMENTS, obj("m", 5, uid="old")) is None
    assert cache.child("Deployment", "vision", "m") is not None


def test_pods_are_found_by_their_inferencemodel_and_forgotten_with_their_report() -> None:
    cache = Cache()
    for name in ("b", "a"):
        cache.put(PODS, obj(name, 1))
    cache.reports["uid-a"] = Unreachable("gone")

    assert [pod.name for pod in cache.labelled_pods(("vision", "m"))] == ["a", "b"]
    cache.remove(PODS, obj("a", 2))
    assert [pod.name for pod in cache.labelled_pods(("vision", "m"))] == ["b"]
    assert cache.reports == {}
    assert cache.labelled_pods(("vision", "another")) == []


def test_a_pod_without_the_models_label_is_none_of_its_business() -> None:
    stray = obj("a", 1)
    stray["metadata"]["labels"] = {}
    assert Cache().put(PODS, stray) is None


def test_a_child_is_kept_without_what_nobody_looks_at() -> None:
    kept = objects.child("Deployment", owned("m", 1, spec={"replicas": 1}, status={"replicas": 1}))
    content = kept.content_object()
    assert "much text" not in repr(content)
    assert "status" not in content
    assert content["spec"] == {"replicas": 1}
    assert kept.deployment is not None
    assert (kept.deployment.replicas, kept.deployment.status.replicas) == (1, 1)


@pytest.mark.parametrize(
    "stray",
    [
        obj("m-versions", 1, data={"target": "x" * 10**6}),
        owned("any", 1, data={"target": "x" * 10**6}),
        owned("m-versions-2", 1, data={"target": "x" * 10**6}),
    ],
    ids=["nobody's", "of another name", "of a similar name"],
)
def test_of_an_object_that_nobody_asks_for_no_more_than_its_identity_is_kept(
    stray: dict[str, Any],
) -> None:
    kept = objects.child("ConfigMap", stray)
    assert (kept.key, kept.uid) == (("vision", "m"), f"uid-{kept.name}")
    assert len(kept.content) < 100


def test_of_a_child_that_is_too_large_a_digest_is_kept() -> None:
    first, second = (
        objects.child("ConfigMap", owned("m-versions", 1, data={"target": letter * 10**6}))
        for letter in "ab"
    )
    assert len(first.content) < 200
    assert first.content != second.content
    assert "data" not in first.content_object()
    assert first.is_too_large


def test_of_a_child_of_which_others_have_set_too_much_a_digest_is_kept() -> None:
    def child(fields: int, value: str = "") -> objects.Child:
        data = {f"k{n}": "" for n in range(fields)} | {"x": value}
        found = owned("m-versions", 1, data=data)
        set_by: dict[str, Any] = {"f:data": {f"f:{name}": {} for name in data}}
        found["metadata"]["managedFields"] = [
            {"manager": name, "operation": "Apply", "fieldsV1": set_by} for name in "abc"
        ]
        return objects.child("ConfigMap", found)

    assert child(100).is_whole
    assert len(child(100).foreign) == 3
    crowded = child(2000)
    assert (crowded.is_too_large, crowded.foreign) == (True, ())
    assert crowded.content != child(2000, "y").content


@pytest.mark.parametrize("field", ["name", "uid"])
def test_an_owner_that_no_object_can_be_is_none(field: str) -> None:
    stranger = owned("m", 1)
    stranger["metadata"]["ownerReferences"][0][field] = "x" * 1_000_000
    found = objects.child("Service", stranger)
    assert (found.key, found.owner_uid) == (("vision", "m"), None)
    pod = obj("p", 1, spec={})
    pod["metadata"]["ownerReferences"] = [
        {**stranger["metadata"]["ownerReferences"][0], "kind": "ReplicaSet"}
    ]
    assert objects.pod(pod).owner_uid is None  # type: ignore[union-attr]


def test_of_what_holds_a_resource_and_what_a_pod_needs_some_is_kept() -> None:
    held = model("m", 1)
    held["metadata"]["finalizers"] = [f"example.com/{n}" for n in range(10_000)]
    assert len(objects.model(held).finalizers) < 10
    volumes = [{"name": f"v{n}", "secret": {"secretName": f"s{n}"}} for n in range(10_000)]
    assert len(references.references({"volumes": volumes})) < 1_000


def test_the_source_of_a_pod_is_that_of_its_poller_whatever_is_annotated() -> None:
    pod = obj("p", 1, spec={})
    pod["metadata"]["annotations"] = {"inferencemodel.dev/storage-uri": "gs://other/m"}
    assert objects.pod(pod).storage_uri == "gs://other/m"  # type: ignore[union-attr]
    pod["spec"]["initContainers"] = [{"name": "poller", "args": ["--storage-uri=az://$$web/m"]}]
    assert objects.pod(pod).storage_uri == "az://$web/m"  # type: ignore[union-attr]


def test_a_pods_server_is_the_one_of_its_pollers_arguments() -> None:
    def server(*arguments: str) -> str:
        pod = obj("p", 1, spec={"initContainers": [{"name": "poller", "args": [*arguments]}]})
        return objects.pod(pod).store  # type: ignore[union-attr]

    uri = "--storage-uri=s3://b/m"
    assert server(uri, "--http-port=8502") == "default"
    given = ("--region=eu", "--endpoint=http://h/$$x", "--azure-account=a")
    assert server(uri, *given) == "endpoint=http://h/$x region=eu azure-account=a"
    assert server("sh", "-c", f"model-poller {uri}") == "", "it doesn't say"


def test_what_anybody_may_write_on_a_pod_is_kept_within_bounds() -> None:
    pod = obj("p", 1, status={"podIP": "10.0.0.1"})
    pod["metadata"]["annotations"] = {
        "inferencemodel.dev/storage-uri": "gs://" + "x" * 10**5,
        "inferencemodel.dev/served-versions": "1," * 10**5,
        "inferencemodel.dev/target-version": "9" * 10**5,
        "other": "x" * 10**5,
    }
    read = objects.pod(pod)
    assert read is not None
    assert len(msgspec.json.encode(msgspec.structs.asdict(read))) < 20_000


def test_an_object_of_another_release_is_kept_with_its_problem() -> None:
    read = objects.model(obj("m", 1, spec={"model": {}}))
    assert read.model is None
    assert read.problem is not None
    assert "spec.model" in str(read.problem)


# -- pods


def pod(**status: Any) -> Pod:
    read = objects.pod(obj("p", 1, status={"podIP": "10.0.0.1", **status}))
    assert read is not None
    return read


def container(name: str, restarts: int = 0, **state: Any) -> dict[str, Any]:
    return {"name": name, "image": "img:1", "restartCount": restarts, **state}


RUNNING: dict[str, Any] = {"state": {"running": {}}}


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return {"state": {"waiting": {"reason": reason, "message": message}}}


def test_a_poller_is_asked_while_its_pod_still_waits_for_a_version() -> None:
    assert pollers.askable(pod(initContainerStatuses=[container("poller", **RUNNING)]))
    assert not pollers.askable(
        pod(initContainerStatuses=[container("poller", **waiting("PodInitializing"))])
    )
    assert not pollers.askable(pod(phase="Failed"))


@pytest.mark.parametrize("reason", ["ErrImagePull", "ImagePullBackOff", "InvalidImageName"])
def test_an_image_that_cannot_be_pulled_is_told_in_the_same_words_each_time(reason: str) -> None:
    stuck = pod(containerStatuses=[container("model-server", **waiting(reason, f"{reason} 40s"))])
    assert stuck.trouble is Trouble.IMAGE_PULL_FAILED
    assert "image img:1 of container model-server" in stuck.message
    assert "40s" not in stuck.message


def test_an_unschedulable_pod_is_told_with_the_schedulers_words() -> None:
    stuck = pod(
        conditions=[
            {
                "type": "PodScheduled",
                "status": "False",
                "reason": "Unschedulable",
                "message": "0/3 nodes are available: 3 Insufficient cpu.",
            }
        ]
    )
    assert stuck.trouble is Trouble.UNSCHEDULABLE
    assert "3 Insufficient cpu" in stuck.message


def test_a_server_killed_for_memory_is_told_with_the_field_to_raise() -> None:
    ended = {"lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}
    crashed = pod(containerStatuses=[container("model-server", 3, **RUNNING, **ended)])
    assert crashed.trouble is Trouble.SERVER_CRASHED
    assert "spec.server.resources.limits.memory" in crashed.message
    assert pod(containerStatuses=[container("model-server", 2, **RUNNING)]).trouble is None


def test_a_ready_pod_is_in_no_trouble_whatever_it_went_through() -> None:
    well = pod(
        conditions=[{"type": "Ready", "status": "True"}],
        containerStatuses=[container("model-server", 9, **RUNNING)],
    )
    assert well.trouble is None


def test_a_pod_names_the_port_of_its_poller() -> None:
    declared = {"name": "poller", "ports": [{"name": "poller", "containerPort": 9999}]}
    read = objects.pod(
        obj("p", 1, spec={"initContainers": [declared]}, status={"podIP": "fd00::1"})
    )
    assert read is not None
    assert pollers.direct(read) == "http://[fd00::1]:9999"
    assert pollers.proxied("https://api", read) == (
        "https://api/api/v1/namespaces/vision/pods/p:9999/proxy"
    )
    assert pollers.direct(pod()) == "http://10.0.0.1:8502"


# -- listings


class Lists(Cluster):
    """An API server whose listings the test gives."""

    def __init__(self) -> None:
        self.lists: dict[str, list[dict[str, Any]]] = {}
        self.failures = 0
        self.listed_as_of, self.now = 50, 1000
        self.absent = False
        self.during: Any = None
        self.offered: set[Resource] = set()
        self.mute: set[Resource] = set()
        self.listings: Counter[str] = Counter()
        self.watched: list[tuple[str, str]] = []
        self.events: dict[str, asyncio.Queue[Any]] = defaultdict(asyncio.Queue)

    async def list(
        self, resource: Resource, namespace: str | None, *, label: tuple[str, str] | None = None
    ) -> AsyncIterator[dict[str, Any]]:
        if self.failures:
            self.failures -= 1
            raise ApiUnavailableError("away", retry_after=0.02)
        if self.absent:
            raise NotFoundError("no such kind")
        self.listings[resource.kind] += 1
        items = self.lists.get(resource.kind, [])
        if label is not None:
            items = [i for i in items if i["metadata"]["labels"].get(label[0]) == label[1]]
        yield {"metadata": {"resourceVersion": str(self.listed_as_of)}, "items": items}
        if self.during is not None and resource is MODELS:
            self.during()

    async def watch(
        self,
        resource: Resource,
        namespace: str | None,
        version: str,
        on_open: Callable[[], object] = lambda: None,
    ) -> AsyncGenerator[tuple[str, dict[str, Any]], None]:
        self.watched.append((resource.kind, version))
        on_open()
        while True:
            event = await self.events[resource.kind].get()
            if isinstance(event, Exception):
                raise event
            if event is None:
                return
            yield event

    async def is_before(self, resource: Resource, namespace: str | None, version: str) -> bool:
        return self.now < int(version)

    async def offers(self, resource: Resource) -> bool:
        if resource in self.mute:
            raise ApiUnavailableError(f"discover {resource.kind}: 503")
        return resource in self.offered


class Harness:
    """A feed between a fake API server, a real cache and a real queue."""

    def __init__(self, session: aiohttp.ClientSession, *, is_part: bool = False) -> None:
        self.server, self.cache = Lists(), Cache(is_part=is_part)
        self.queue: WorkQueue[Key] = WorkQueue()
        self.signs = Signs()
        self.running: list[asyncio.Task[None]] = []
        self.watches = ModelWatches((), self.signs)
        self.pollers = Pollers(
            Direct, pollers.direct, self.cache.reports, self.queue.add, Metrics()
        )
        self.pollers.start(())
        self.feed = Feed(
            *(self.server, self.cache, self.queue, self.pollers),
            *(self.watches, self.signs, Offers(self.server), ()),
        )

    def start(self) -> None:
        """Run the feed, once."""
        if not self.running:
            self.running.append(asyncio.create_task(self.feed.run()))

    def stop(self) -> None:
        for task in self.running:
            task.cancel()

    async def queued(self) -> set[Key]:
        keys = set()
        while len(self.queue):
            key = await self.queue.get()
            keys.add(key)
            self.queue.done(key)
        return keys


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


@pytest.fixture
async def harness(session: aiohttp.ClientSession) -> AsyncIterator[Harness]:
    made = Harness(session)
    yield made
    made.stop()
    await asyncio.gather(*made.running, return_exceptions=True)
    await made.pollers.close()


@pytest.fixture
async def part(session: aiohttp.ClientSession) -> AsyncIterator[Harness]:
    """Of an operator that serves some InferenceModels by their labels."""
    made = Harness(session, is_part=True)
    yield made
    made.stop()
    await asyncio.gather(*made.running, return_exceptions=True)
    await made.pollers.close()


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110  what is waited for has no event of its own
            await asyncio.sleep(0.01)


async def relisted(harness: Harness) -> None:
    harness.start()
    before = harness.server.listings["InferenceModel"]
    harness.watches.relist.set()
    await until(
        lambda: (
            harness.server.listings["InferenceModel"] > before and harness.feed.complete.is_set()
        )
    )
    await asyncio.sleep(0)


async def test_nothing_is_complete_before_all_watches_are_open(harness: Harness) -> None:
    harness.start()
    harness.feed.event(MODELS, None, model("m", 1))
    await until(lambda: harness.server.listings["Pod"])
    await asyncio.sleep(0.01)
    assert not harness.feed.complete.is_set()

    await relisted(harness)
    assert harness.feed.complete.is_set()


async def test_what_vanished_during_a_gap_is_dropped_by_the_next_listing(harness: Harness) -> None:
    harness.server.lists = {"InferenceModel": [model("kept", 1), model("lost", 2)]}
    await relisted(harness)
    await harness.queued()
    assert harness.cache.model(("vision", "lost")) is not None

    harness.server.lists = {"InferenceModel": [model("kept", 1)]}
    await relisted(harness)

    assert harness.cache.model(("vision", "lost")) is None
    assert harness.cache.model(("vision", "kept")) is not None
    assert ("vision", "lost") in await harness.queued()


async def test_what_appears_during_a_listing_is_not_dropped_by_it(harness: Harness) -> None:
    harness.server.during = lambda: harness.feed.event(MODELS, "ADDED", model("new", 9))
    await relisted(harness)
    assert harness.cache.model(("vision", "new")) is not None


async def test_what_is_deleted_during_a_listing_is_not_brought_back_by_it(
    harness: Harness,
) -> None:
    harness.feed.event(MODELS, "ADDED", model("m", 1))
    harness.server.lists = {"InferenceModel": [model("m", 1)]}
    harness.server.during = lambda: harness.feed.event(MODELS, "DELETED", model("m", 2))
    await relisted(harness)
    assert harness.cache.model(("vision", "m")) is None


async def test_a_listing_that_fails_is_tried_again(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inferencemodel_operator.observe.feed.RETRY_SECONDS", 0.01)
    harness.server.failures = 2
    await relisted(harness)
    assert harness.server.failures == 0


async def test_a_kind_that_can_not_be_asked_for_is_said_and_holds_up_no_other(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("inferencemodel_operator.observe.feed.OFFER_SECONDS", 0.01)
    monkeypatch.setattr("inferencemodel_operator.observe.feed.FIRST_OFFER_SECONDS", 0.01)
    caplog.set_level("INFO")
    harness.server.mute = {HTTP_ROUTES}
    harness.server.offered = {HTTP_ROUTES, SCALED_OBJECTS}
    await relisted(harness)
    assert harness.server.listings[SCALED_OBJECTS.kind] == 1
    assert harness.server.listings[HTTP_ROUTES.kind] == 0
    assert caplog.text.count("discover HTTPRoute: 503") == 1

    harness.server.mute.clear()
    await until(lambda: harness.server.listings[HTTP_ROUTES.kind])
    assert "asking which optional kinds there are is back" in caplog.text

    harness.server.mute = {HTTP_ROUTES}
    await until(lambda: caplog.text.count("discover HTTPRoute: 503") == 2)
    assert harness.feed._offers.optional == {HTTP_ROUTES, SCALED_OBJECTS}


async def test_an_event_queues_the_model_that_it_is_about_and_an_old_one_nothing(
    harness: Harness,
) -> None:
    harness.feed.event(DEPLOYMENTS, "MODIFIED", obj("m", 5))
    assert await harness.queued() == {("vision", "m")}
    harness.feed.event(DEPLOYMENTS, "MODIFIED", obj("m", 5))
    assert await harness.queued() == set()
    harness.feed.event(DEPLOYMENTS, "DELETED", obj("m", 6))
    assert await harness.queued() == {("vision", "m")}


async def test_one_odd_object_does_not_stop_the_others(
    harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    odd = obj("odd", 1, status={"podIP": 7})
    harness.server.lists = {"Pod": [odd, obj("p", 1)]}
    await relisted(harness)
    assert [pod.name for pod in harness.cache.labelled_pods(("vision", "m"))] == ["p"]
    assert "Pod odd" in caplog.text


# -- watches


class Answer:
    headers: ClassVar[dict[str, str]] = {}

    def __init__(self, status: int, body: dict[str, Any]) -> None:
        self.status, self.ok, self._body = status, status < 400, body
        self.content = self

    async def iter_any(self) -> AsyncIterator[bytes]:
        yield msgspec.json.encode(self._body)

    def close(self) -> None:
        pass


class Event(Answer):
    async def iter_any(self) -> AsyncIterator[bytes]:
        yield b"{}\n"


class Request:
    method = "GET"

    def __init__(self, path: str, **query: str) -> None:
        self.url = URL(f"https://api{path}").with_query(query)


async def asked(
    watching: ModelWatches,
    path: str,
    *,
    watch: bool,
    status: int = 200,
    body: dict[str, Any] | None = None,
    version: str = "",
) -> list[bytes]:
    """What kopf asks, and reads to its end."""

    async def send(_: Any) -> Any:
        return Answer(status, body or {})

    query = {"watch": "true", "resourceVersion": version} if watch else {}
    answer: Any = await watching(Request(path, **query), send)  # type: ignore[arg-type]
    return [line async for line in answer.content.iter_chunked(1)] if watch else []


async def test_a_listing_is_due_when_all_watches_are_open_and_after_each_gap() -> None:
    watching = ModelWatches(("vision", "speech"), Signs())
    paths = [MODELS.path(namespace) for namespace in ("vision", "speech")]
    for path in paths:
        assert not watching.relist.is_set()
        await asked(watching, path, watch=False)
        await asked(watching, path, watch=True)
    assert watching.relist.is_set()

    watching.relist.clear()
    await asked(watching, paths[0], watch=True)
    assert not watching.relist.is_set(), "a watch that goes on where it was has no gap"

    await asked(watching, paths[0], watch=False)
    assert not watching.relist.is_set()
    await asked(watching, paths[0], watch=True)
    assert watching.relist.is_set()


async def test_kopf_lists_anew_after_a_restore() -> None:
    questions: list[tuple[str | None, str]] = []
    is_restored = True

    async def went_back(namespace: str | None, version: str) -> bool:
        questions.append((namespace, version))
        return is_restored

    watching = ModelWatches(("vision",), Signs(), went_back=went_back)
    path = MODELS.path("vision")
    await asked(watching, path, watch=True, version="90")
    await asked(watching, path, watch=True, version="90")
    assert questions == [], "watches that ended as they should go on where they were"

    with pytest.raises(aiohttp.ClientConnectionError):
        await asked(watching, path, watch=True, status=500, version="90")
    (event,) = await asked(watching, path, watch=True, version="90")
    assert json.loads(event) == {"type": "ERROR", "object": {"kind": "Status", "code": 410}}
    assert questions == [("vision", "90")]

    is_restored = False
    assert await asked(watching, path, watch=True, version="45") == []
    assert questions == [("vision", "90"), ("vision", "45")]


async def test_what_kopf_would_end_by_is_a_broken_connection_to_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    watching = ModelWatches((), Signs())
    refusals = [
        (404, {}, "kubectl apply -f crds/"),
        (401, {"message": "Unauthorized"}, "Unauthorized"),
        (403, {"message": 'User "o" cannot watch'}, "give the operator's service account"),
        (400, {"message": "unable to parse requirement"}, "unable to parse"),
    ]
    for status, body, words in refusals:
        with pytest.raises(aiohttp.ClientConnectionError, match=words):
            await asked(watching, MODELS.path(None), watch=True, status=status, body=body)
    await asked(watching, MODELS.path(None), watch=True)
    assert "is back" in caplog.text


async def test_a_gone_kind_is_listed_so_that_its_objects_are_dropped() -> None:
    watching = ModelWatches((), Signs())
    with pytest.raises(aiohttp.ClientConnectionError):
        await asked(watching, MODELS.path(None), watch=True, status=404)
    assert watching.relist.is_set()

    watching.relist.clear()
    await asked(watching, MODELS.path(None), watch=True)
    assert watching.relist.is_set(), "what was dropped may be there after all"


async def test_an_api_server_below_a_path_of_its_own_is_recognised() -> None:
    watching = ModelWatches((), Signs(), "https://fleet/clusters/c")
    await asked(watching, "/clusters/c" + MODELS.path(None), watch=True)
    assert watching.relist.is_set()


async def test_each_event_of_a_watch_is_a_sign_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    signs = Signs()
    watching = ModelWatches((), signs)
    begun = time.monotonic()

    async def send(_: Any) -> Any:
        return Event(200, {})

    request: Any = Request(MODELS.path(None), watch="true", resourceVersion="")
    answer: Any = await watching(request, send)
    monkeypatch.setattr("time.monotonic", lambda: begun + 200)
    assert dict(signs.ages())[MODELS] >= 199
    async for _ in answer.content.iter_chunked(1):
        assert dict(signs.ages())[MODELS] == 0


@pytest.mark.parametrize("path", ["/api", "/apis", MODELS.path(None).rpartition("/")[0]])
async def test_an_operator_that_starts_before_its_api_server_lives(
    monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    signs = Signs()
    watching = ModelWatches((), signs)
    later = time.monotonic() + DEAD_SECONDS + 1
    monkeypatch.setattr("time.monotonic", lambda: later)

    async def send(_: Any) -> Any:
        raise aiohttp.ClientConnectionError("refused")

    assert signs.dead() == ["inferencemodels"]
    with pytest.raises(aiohttp.ClientConnectionError):
        await watching(Request(path), send)  # type: ignore[arg-type]
    assert signs.dead() == []


def test_a_watch_without_a_sign_of_life_is_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    signs = Signs()
    silent, beating, ended = (signs.expect(r) for r in (PODS, SERVICES, DEPLOYMENTS))
    later = time.monotonic() + DEAD_SECONDS + 1
    monkeypatch.setattr("time.monotonic", lambda: later)
    beating.beat()
    signs.drop(ended)
    assert signs.dead() == ["pods"]
    assert silent.age > DEAD_SECONDS


async def test_a_watch_goes_on_where_the_last_one_ended(harness: Harness) -> None:
    await relisted(harness)
    harness.server.watched.clear()
    events = harness.server.events["Pod"]
    events.put_nowait(("ADDED", obj("p", 51)))
    events.put_nowait(("BOOKMARK", {"metadata": {"resourceVersion": "60"}}))
    events.put_nowait(None)
    await until(lambda: harness.server.watched == [("Pod", "60")])
    assert [pod.name for pod in harness.cache.labelled_pods(("vision", "m"))] == ["p"]

    events.put_nowait(ApiUnavailableError("cut", retry_after=0.01))
    await until(lambda: harness.server.watched == [("Pod", "60"), ("Pod", "60")])
    events.put_nowait(("DELETED", obj("p", 61)))
    await until(lambda: harness.cache.labelled_pods(("vision", "m")) == [])
    assert harness.server.listings["Pod"] == 1


async def test_older_versions_count_after_a_restore(harness: Harness) -> None:
    harness.server.lists = {"Pod": [obj("p", 40), obj("deleted", 41)]}
    await relisted(harness)
    events = harness.server.events["Pod"]
    events.put_nowait(("MODIFIED", obj("p", 90, status={"podIP": "10.0.0.9"})))
    events.put_nowait(("DELETED", obj("deleted", 91)))
    await until(lambda: [p.name for p in harness.cache.labelled_pods(("vision", "m"))] == ["p"])

    harness.server.listed_as_of = harness.server.now = 45
    events.put_nowait(ApiUnavailableError("cut", retry_after=0.01))
    await until(lambda: len(harness.cache.labelled_pods(("vision", "m"))) == 2)
    deleted, back = harness.cache.labelled_pods(("vision", "m"))
    assert (deleted.name, back.name, back.resource_version) == ("deleted", "p", 40)
    assert harness.server.listings["Pod"] == 2
    assert harness.server.watched[-1] == ("Pod", "45")


async def test_what_is_behind_is_seen_by_a_listing_whatever_the_watch_was_like(
    harness: Harness,
) -> None:
    harness.server.lists = {"Pod": [obj("p", 40)]}
    await relisted(harness)
    events = harness.server.events["Pod"]
    events.put_nowait(("MODIFIED", obj("p", 90, status={"podIP": "10.0.0.9"})))
    await until(lambda: harness.cache.labelled_pods(("vision", "m"))[0].resource_version == 90)

    harness.server.listed_as_of = 45
    events.put_nowait(ExpiredError("too old"))
    await until(lambda: harness.cache.labelled_pods(("vision", "m"))[0].resource_version == 40)


async def test_a_right_to_list_without_the_one_to_watch_is_waited_for_with_backoff(
    harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await relisted(harness)
    events = harness.server.events["Pod"]
    for _ in range(3):
        events.put_nowait(NoRightError("watch Pod: may not"))
    await until(lambda: "waiting: watching pods" in caplog.text)
    assert harness.server.listings["Pod"] == 1

    events.put_nowait(("BOOKMARK", {"metadata": {"resourceVersion": "60"}}))
    await until(lambda: "watching pods in all namespaces is back" in caplog.text)


async def test_inferencemodels_of_a_kind_that_is_gone_are_gone(harness: Harness) -> None:
    harness.server.lists = {"InferenceModel": [model("m", 1)]}
    await relisted(harness)
    harness.server.absent = True
    harness.watches.relist.set()
    await until(lambda: harness.cache.model(("vision", "m")) is None)
    assert harness.feed.complete.is_set()


async def test_what_a_watch_has_missed_is_found_by_another_listing(harness: Harness) -> None:
    harness.server.lists = {"Pod": [obj("lost", 1), obj("kept", 1)]}
    await relisted(harness)
    await harness.queued()

    harness.server.lists = {"Pod": [obj("kept", 1)]}
    harness.server.events["Pod"].put_nowait(ExpiredError("too old"))
    await until(lambda: harness.server.listings["Pod"] == 2)
    await until(lambda: len(harness.cache.labelled_pods(("vision", "m"))) == 1)
    assert await harness.queued() == {("vision", "m")}


async def test_an_optional_kind_is_watched_while_it_is_offered(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inferencemodel_operator.observe.feed.OFFER_SECONDS", 0.01)
    harness.server.lists = {
        "InferenceModel": [model("m", 1)],
        "HTTPRoute": [obj("m", 1)],
    }
    await relisted(harness)
    assert harness.server.listings["HTTPRoute"] == 0
    await harness.queued()

    harness.server.offered = {HTTP_ROUTES}
    await until(lambda: harness.cache.children(("vision", "m")))
    await until(lambda: len(harness.queue))
    await harness.queued()

    harness.server.offered = set()
    await until(lambda: not harness.cache.children(("vision", "m")))
    await until(lambda: len(harness.queue))
    await until(lambda: HTTP_ROUTES not in dict(harness.signs.ages()))


# -- pollers


@pytest.fixture
def stub() -> Iterator[StubPoller]:
    made = StubPoller()
    made.start()
    yield made
    made.stop()


async def test_a_pods_report_is_known_when_it_changes_and_gone_with_the_pod(
    session: aiohttp.ClientSession, stub: StubPoller
) -> None:
    reports: dict[str, Report] = {}
    changed: asyncio.Queue[Key] = asyncio.Queue()
    asking = Pollers(
        Direct,
        lambda _: f"http://127.0.0.1:{stub.port}",
        reports,
        changed.put_nowait,
        Metrics(),
    )
    asking.start(())
    running = pod(initContainerStatuses=[container("poller", **RUNNING)])

    async def heard() -> Report:
        async with asyncio.timeout(10):
            assert await changed.get() == ("vision", "m")
        return reports["uid-p"]

    asking.sync(running)
    first = await heard()
    assert isinstance(first, PollerStatus)
    assert first.versions == ()

    stub.tell(told({1: VersionState.AVAILABLE}, target=1))
    second = await heard()
    assert isinstance(second, PollerStatus)
    assert second.active_version == 1

    stub.stop()
    assert isinstance(await heard(), Unreachable)
    stub.start()
    assert await heard() == second

    asking.sync(msgspec.structs.replace(running, terminating=True))
    assert reports == {"uid-p": second}

    asking.sync(msgspec.structs.replace(running, terminating=True, poller_running=False))
    assert reports == {}
    await asking.close()


async def test_what_changes_all_the_time_is_no_news(
    session: aiohttp.ClientSession, stub: StubPoller
) -> None:
    reports: dict[str, Report] = {}
    changed: asyncio.Queue[Key] = asyncio.Queue()
    asking = Pollers(
        Direct,
        lambda _: f"http://127.0.0.1:{stub.port}",
        reports,
        changed.put_nowait,
        Metrics(),
    )
    asking.start(())
    fetching = told({1: VersionState.FETCHING})
    (version,) = fetching.versions

    def progress(done: int) -> PollerStatus:
        grown = msgspec.structs.replace(
            version, bytes_done=done, bytes_total=100, seconds_left=100 - done
        )
        return msgspec.structs.replace(fetching, versions=(grown,))

    stub.tell(progress(1))
    asking.sync(pod(initContainerStatuses=[container("poller", **RUNNING)]))
    async with asyncio.timeout(10):
        await changed.get()
        for done in (2, 50, 99):
            stub.tell(progress(done))
        stub.tell(told({1: VersionState.FETCHED}))
        await changed.get()
    assert changed.empty()
    await asking.close()


# -- requests


@pytest.mark.parametrize(
    ("method", "path", "query", "expected"),
    [
        ("GET", "/api/v1/pods", {"watch": "true"}, ("watch", "pods")),
        ("GET", "/api/v1/namespaces/n/pods", {}, ("list", "pods")),
        ("GET", "/apis/apps/v1/namespaces/n/deployments/d", {}, ("get", "deployments")),
        ("PATCH", "/apis/g/v1/namespaces/n/things/t/status", {}, ("patch", "things/status")),
        ("POST", "/apis/events.k8s.io/v1/namespaces/n/events", {}, ("create", "events")),
        ("DELETE", "/api/v1/namespaces/n/services/s", {}, ("delete", "services")),
        ("GET", "/apis/apps/v1", {}, ("discovery", "")),
        ("GET", "/version", {}, ("discovery", "")),
        ("GET", "/clusters/c/api/v1/namespaces/n/pods/p", {}, ("get", "pods")),
    ],
)
def test_a_request_is_counted_by_verb_and_resource(
    method: str, path: str, query: dict[str, str], expected: tuple[str, str]
) -> None:
    assert classify(method, path, query) == expected


# -- a part of the InferenceModels


def named(name: str, uid: str, version: int, owner: str) -> dict[str, Any]:
    """A child or a pod of an InferenceModel of some name."""
    made = obj(name, version, uid=uid)
    made["metadata"]["labels"]["inferencemodel.dev/name"] = owner
    return made


def test_of_anothers_inferencemodels_nothing_is_kept_but_that_they_have_something() -> None:
    cache = Cache(is_part=True)
    cache.put(MODELS, model("m", 1))
    for owner in ("m", "theirs"):
        assert (cache.put(SERVICES, named(owner, f"s-{owner}", 2, owner)) is None) == (owner != "m")
        cache.put(PODS, named(f"{owner}-0", f"p-{owner}", 3, owner))
    assert len(cache.children(("vision", "m"))) == len(cache.labelled_pods(("vision", "m"))) == 1
    assert cache.children(("vision", "theirs")) == []
    assert cache.labelled_pods(("vision", "theirs")) == []
    assert cache.snapshot(PODS) == {("vision", "m-0"): "p-m"}
    assert cache.has_elsewhere(("vision", "theirs"))
    assert not cache.has_elsewhere(("vision", "m"))
    assert not cache.has_elsewhere(("vision", "new"))


async def test_what_belongs_to_an_inferencemodel_goes_with_it_to_another_operator(
    part: Harness,
) -> None:
    part.server.lists = {
        "InferenceModel": [model("m", 1)],
        "Deployment": [owned("m", 2)],
        "ReplicaSet": [obj("m-1", 3)],
        "Pod": [obj("m-1-0", 4)],
    }
    await relisted(part)
    assert part.cache.labelled_pods(("vision", "m"))
    await part.queued()

    part.feed.event(MODELS, "DELETED", model("m", 9))
    assert part.cache.children(("vision", "m")) == []
    assert part.cache.labelled_pods(("vision", "m")) == []
    for resource in (PODS, REPLICA_SETS, DEPLOYMENTS):
        assert part.cache.snapshot(resource) == {}
    assert await part.queued() == {("vision", "m")}


async def test_an_inferencemodel_that_comes_is_taken_in_after_all_that_belongs_to_it(
    part: Harness,
) -> None:
    theirs = [owned("m", 2), owned("other", 2, uid="o")]
    theirs[1]["metadata"]["labels"]["inferencemodel.dev/name"] = "other"
    theirs[1]["metadata"]["ownerReferences"][0]["name"] = "other"
    part.server.lists = {"Deployment": theirs, "Pod": [obj("m-1-0", 4)]}
    await relisted(part)
    assert part.cache.snapshot(DEPLOYMENTS) == part.cache.snapshot(PODS) == {}

    part.feed.event(MODELS, "ADDED", model("m", 9))
    assert part.cache.model(("vision", "m")) is None
    assert await part.queued() == set()
    # Meanwhile it changes, and so does something of its own.
    part.feed.event(MODELS, "MODIFIED", model("m", 11))
    part.feed.event(SERVICES, "ADDED", obj("m", 10))
    await until(lambda: part.cache.model(("vision", "m")))

    found = part.cache.model(("vision", "m"))
    assert found is not None
    assert found.resource_version == 11
    assert {c.kind for c in part.cache.children(("vision", "m"))} == {"Deployment", "Service"}
    assert [pod.name for pod in part.cache.labelled_pods(("vision", "m"))] == ["m-1-0"]
    assert part.cache.children(("vision", "other")) == []
    assert await part.queued() == {("vision", "m")}


async def test_an_inferencemodel_that_goes_again_at_once_is_not_taken_in(part: Harness) -> None:
    part.server.lists = {"Pod": [obj("m-1-0", 4)]}
    await relisted(part)
    part.feed.event(MODELS, "ADDED", model("m", 9))
    part.feed.event(MODELS, "DELETED", model("m", 10))
    await until(lambda: not [t for t in asyncio.all_tasks() if "arrival" in t.get_name()])
    assert part.cache.model(("vision", "m")) is None
    assert part.cache.snapshot(PODS) == {}

    part.feed.event(MODELS, "ADDED", model("m", 12))
    await until(lambda: part.cache.labelled_pods(("vision", "m")))


async def test_a_new_inferencemodel_asks_for_no_listing(part: Harness) -> None:
    await relisted(part)
    before = part.server.listings.copy()
    part.feed.event(MODELS, "ADDED", model("m", 9))
    assert part.cache.model(("vision", "m")) is not None
    part.feed.event(DEPLOYMENTS, "ADDED", owned("m", 10))
    assert part.cache.children(("vision", "m"))
    assert part.server.listings == before


def test_who_was_not_seen_for_long_has_nothing_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("inferencemodel_operator.elsewhere.time.monotonic", lambda: now[-1])
    elsewhere = Elsewhere()
    elsewhere.add([("vision", "gone"), ("vision", "there")])
    for _ in range(2):
        now.append(now[-1] + KEEP_SECONDS + 1)
        assert ("vision", "there") in elsewhere
        elsewhere.add([("vision", "there")])
    assert ("vision", "gone") not in elsewhere
    assert len(elsewhere) == 1
