"""One pass: what is written, in which order, and when nothing is judged yet."""

from __future__ import annotations

import asyncio
import copy
import datetime
from typing import TYPE_CHECKING, Any

import pytest

from inferencemodel_operator import hearsay, names, patience, reconcile
from inferencemodel_operator.apply import Applier
from inferencemodel_operator.cache import Cache
from inferencemodel_operator.cluster import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    DISRUPTION_BUDGETS,
    EVENTS,
    MODELS,
    OPTIONAL,
    PODS,
    REPLICA_SETS,
    SERVICES,
    Cluster,
    Resource,
)
from inferencemodel_operator.errors import (
    ApiUnavailableError,
    LastingError,
    RefusedError,
    StatusRefusedError,
    TransientError,
)
from inferencemodel_operator.metrics import Metrics
from inferencemodel_operator.observe import hangs
from inferencemodel_operator.observe.offers import Offers
from inferencemodel_operator.queue import WorkQueue
from inferencemodel_operator.reconcile import Reconciler
from inferencemodel_operator.record import Phase, PlannedStep, RolloutRecord, VersionsRecord
from inferencemodel_operator.recorder import Recorder
from inferencemodel_operator.settings import Settings
from inferencemodel_operator.template_updates import TemplateUpdates
from inferencemodel_operator.values import Share
from model_poller.status import VersionState
from tests.support.pods import told

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from inferencemodel_operator.observe.objects import Key

KEY: Key = ("vision", "m")
HANGING = {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "True"}]}
A, F = VersionState.AVAILABLE, VersionState.FETCHED


class Server(Cluster):
    """Takes every write and keeps what it was asked, in order."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.failures: dict[str, Exception] = {}
        self.events: list[dict[str, Any]] = []
        self.drop_fields: tuple[str, ...] = ()
        self.meanwhile: dict[str, dict[str, Any]] = {}
        """What others change by kind just before the next write, which its answer has, too."""
        self.together = 0
        self._under_way = 0
        self._version = 1000

    async def _answer(self, request: str, obj: Any) -> Any:
        self.requests.append(request)
        self._under_way += 1
        self.together = max(self.together, self._under_way)
        await asyncio.sleep(0)
        self._under_way -= 1
        if request in self.failures:
            raise self.failures[request]
        self._version += 1
        made = copy.deepcopy(obj)
        made["metadata"]["resourceVersion"] = str(self._version)
        return made

    async def get(self, resource: Resource, namespace: str, name: str) -> Any:
        if f"get {resource.kind}" in self.failures:
            raise self.failures[f"get {resource.kind}"]
        return None

    async def apply(
        self, resource: Resource, wanted: Any, *, uid: str | None, subresource: str = ""
    ) -> Any:
        obj = copy.deepcopy(wanted)
        obj["metadata"].setdefault("uid", uid or f"uid-{wanted['metadata']['name']}")
        if subresource:
            obj |= {"spec": {"model": {"storageUri": "gs://models/m"}, "replicas": 2}}
            obj["metadata"]["generation"] = 1
            for name in self.drop_fields:
                obj["status"].pop(name, None)
            changes = self.meanwhile.pop(resource.kind, {})
            obj["spec"] |= changes
            obj["metadata"]["generation"] += bool(changes)
        return await self._answer(f"apply {resource.kind}{subresource and '/' + subresource}", obj)

    async def annotate(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        *,
        uid: str,
        annotations: Mapping[str, str | None],
        version: int | None = None,
    ) -> Any:
        obj = pod_object(name, annotations=dict(annotations))
        obj["status"] |= self.meanwhile.pop(resource.kind, {})
        answer = await self._answer(f"annotate {name} {next(iter(annotations.values()))}", obj)
        return None if resource is MODELS else answer

    async def events_about(
        self, namespace: str, uid: str, reasons: Iterable[str]
    ) -> tuple[dict[str, Any], ...]:
        self.requests.append(f"events about {uid}")
        return tuple(self.events)

    async def create(self, resource: Resource, wanted: Any) -> Any:
        if resource is EVENTS:
            return await self._answer(f"event {wanted['reason']}", wanted)
        obj = copy.deepcopy(wanted)
        obj["metadata"]["uid"] = f"uid-{wanted['metadata']['name']}"
        return await self._answer(f"create {resource.kind}", obj)

    async def merge(self, resource: Resource, namespace: str, name: str, patch: Any) -> Any:
        assert resource is EVENTS
        return await self._answer("series", {"metadata": {}})

    async def delete(self, resource: Resource, namespace: str, name: str, *, uid: str) -> None:
        await self._answer(f"delete {resource.kind} {name}", {"metadata": {}})


def owner(kind: str, api_version: str, name: str, uid: str) -> dict[str, Any]:
    made = {"kind": kind, "apiVersion": api_version, "name": name, "uid": uid}
    return {**made, "controller": True}


MODEL_OWNER = owner("InferenceModel", "inferencemodel.dev/v1alpha1", "m", "uid-m")
DEPLOYMENT_OWNER = owner("Deployment", "apps/v1", "m", "uid-deployment")
REPLICA_SET_OWNER = owner("ReplicaSet", "apps/v1", "m-1", "uid-replica-set")


def owned(name: str, uid: str, by: dict[str, Any]) -> dict[str, Any]:
    return {
        "metadata": {
            "name": name,
            "namespace": "vision",
            "uid": uid,
            "resourceVersion": "1",
            "labels": {"inferencemodel.dev/name": "m"},
            "ownerReferences": [by],
        }
    }


def pod_object(name: str, version: int = 1, **metadata: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "ownerReferences": [REPLICA_SET_OWNER],
            "name": name,
            "namespace": "vision",
            "uid": f"uid-{name}",
            "resourceVersion": str(version),
            "labels": {"inferencemodel.dev/name": "m"},
            **metadata,
        },
        "status": {
            "phase": "Running",
            "podIP": "10.0.0.1",
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


class World:
    """A reconciler over a fake API server and a real cache."""

    def __init__(self) -> None:
        self.server, self.cache = Server(), Cache()
        self.queue: WorkQueue[Key] = WorkQueue()
        metrics = Metrics()
        self.offers = Offers(self.server)
        applier = Applier(self.server, self.cache, self.offers)
        self.reconciler = Reconciler(
            self.server,
            self.cache,
            self.queue,
            applier,
            Settings(poller_image="p:1"),
            metrics,
            Recorder(self.server),
            TemplateUpdates(self.server, self.cache, self.queue, Share(1), metrics),
        )
        self.model()
        self.cache.put(DEPLOYMENTS, owned("m", "uid-deployment", MODEL_OWNER))
        self.cache.put(REPLICA_SETS, owned("m-1", "uid-replica-set", DEPLOYMENT_OWNER))

    def model(
        self, version: int = 1, annotations: Mapping[str, str] | None = None, **spec: Any
    ) -> None:
        self.cache.put(
            MODELS,
            {
                "metadata": {
                    "name": "m",
                    "namespace": "vision",
                    "uid": "uid-m",
                    "resourceVersion": str(version),
                    "generation": version,
                    "annotations": dict(annotations or {}),
                },
                "spec": {"model": {"storageUri": "gs://models/m"}, "replicas": 2, **spec},
            },
        )

    def pod(
        self,
        name: str,
        report: Any = None,
        status: Mapping[str, Any] | None = None,
        **metadata: Any,
    ) -> None:
        made = pod_object(name, **metadata)
        self.cache.put(PODS, made if status is None else {**made, "status": status})
        if report is not None:
            self.cache.reports[f"uid-{name}"] = report

    async def pass_(self) -> list[str]:
        """One pass, for which the queue waits no longer; the requests that it sent."""
        before = len(self.server.requests)
        due = [await self.queue.get() for _ in range(len(self.queue))]
        for key in due:
            self.queue.done(key)
            if key != KEY:
                self.queue.add(key)
        await self.reconciler.reconcile(KEY)
        return self.server.requests[before:]

    def record(self) -> VersionsRecord:
        found = self.cache.child("ConfigMap", "vision", "m-versions")
        assert found is not None
        return VersionsRecord.from_config_map(found.content_object()["data"])

    def status(self) -> dict[str, Any]:
        found = self.cache.model(KEY)
        assert found is not None
        return found.live_status().to_object()


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(reconcile, "STATUS_SECONDS", 0.0)
    return World()


async def test_the_pods_are_told_first_and_all_at_once(world: World) -> None:
    world.pod("a", told({2: F}, target=None))
    world.pod("b", told({}, target=None))

    sent = await world.pass_()

    assert sent[:2] == ["annotate a 2", "annotate b 2"]
    assert sent.index("apply InferenceModel/status") > sent.index("apply ConfigMap")
    assert world.server.together >= 3


async def test_what_is_reached_is_remembered_at_once_and_a_further_pass_does_nothing(
    world: World,
) -> None:
    for name in ("a", "b"):
        world.pod(name, told({1: A}, target=1))
    await world.pass_()
    assert await world.pass_() == []


async def test_no_status_is_judged_before_a_ready_pod_was_asked_once(world: World) -> None:
    world.pod("a", told({1: A}, target=1))
    world.pod("b")
    assert "apply InferenceModel/status" not in await world.pass_()

    world.cache.reports["uid-b"] = told({1: A}, target=1)
    assert "apply InferenceModel/status" in await world.pass_()


async def test_a_version_that_one_pod_makes_up_is_wanted_until_two_others_have_looked(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hearsay, "LOOK_SECONDS", 0.0)
    world.model(2, source={"pollInterval": "0s"})
    world.pod("a", told({1: A, 999: VersionState.DISCOVERED}, target=1))
    world.pod("b", told({1: A}, target=1))
    world.pod("c", told({1: A}, target=1), deletionTimestamp="2026-01-01T00:00:00Z")
    await world.pass_()
    assert world.record().wanted == 999
    # What writes the status takes the spec for that of the beginning.
    world.server._version = 6000
    world.model(5000, source={"pollInterval": "0s"})
    world.pod("d", told({1: A}, target=1))
    await world.pass_()
    assert world.record().wanted == 1


async def test_a_suspended_resource_is_only_reported(world: World) -> None:
    world.model(2, suspend=True)
    world.pod("a", told({1: A, 2: F}, target=1))
    assert [request for request in await world.pass_() if not request.startswith("event")] == [
        "apply InferenceModel/status"
    ]


async def test_what_was_decided_for_a_source_is_not_told_of_another_one(world: World) -> None:
    world.pod("a", told({1: A}, target=1))
    await world.pass_()
    assert world.status()["model"]["targetVersion"] == 1
    world.server._version = 6000
    world.model(5000, suspend=True, model={"storageUri": "gs://models/other"})
    await world.pass_()
    told_of = world.status()["model"]
    assert told_of["storageUri"] == "gs://models/other"
    assert not told_of.keys() & {"targetVersion", "servedVersions", "activeVersion"}


async def test_what_was_decided_for_a_server_is_not_told_of_another_one(world: World) -> None:
    world.pod("a", told({1: A}, target=1))
    await world.pass_()
    assert (world.status()["model"]["store"], world.record().store) == ("default", "default")
    world.server._version = 6000
    world.model(5000, suspend=True, source={"endpoint": "http://minio:9000"})
    await world.pass_()
    told_of = world.status()["model"]
    assert told_of["store"] == "endpoint=http://minio:9000"
    assert not told_of.keys() & {"targetVersion", "servedVersions", "activeVersion"}


@pytest.mark.parametrize("left", [(), ("target", "source")])
async def test_what_somebody_took_out_of_the_memory_is_read_from_what_pods_were_told(
    world: World, left: tuple[str, ...]
) -> None:
    texts = {
        names.TARGET_VERSION_ANNOTATION: "1",
        names.SERVED_VERSIONS_ANNOTATION: "1",
        names.QUARANTINED_VERSIONS_ANNOTATION: "2@f2",
    }
    for name in ("a", "b"):
        world.pod(name, told({1: A, 2: F}, target=1), annotations=texts)
    made = owned("m-versions", "uid-m-versions", MODEL_OWNER)
    data = {"target": "1", "source": "gs://models/m", "quarantined.json": "[]"}
    world.cache.put(CONFIG_MAPS, {**made, "data": {key: data[key] for key in left}})
    await world.pass_()
    record = world.record()
    assert record.wanted == 1
    assert [(entry.version, entry.fingerprint) for entry in record.quarantined] == [(2, "f2")]


async def test_a_clock_that_was_set_ends_no_bake_although_that_can_not_be_written_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    monkeypatch.setattr(reconcile, "_now", lambda: now)
    for name in ("a", "b"):
        world.pod(name, told({1: F, 2: A}, target=2))
    run = RolloutRecord(
        version=2,
        from_version=1,
        phase=Phase.BAKING,
        steps=(PlannedStep("100%"),),
        step=1,
        started=now,
        step_started=now,
    )
    record = VersionsRecord(target=2, served=(2,), rollout=run, source="gs://models/m")
    made = owned("m-versions", "uid-m-versions", MODEL_OWNER)
    world.cache.put(CONFIG_MAPS, {**made, "data": record.to_data()})

    async def pass_(version: int) -> None:
        # What the status was written to has lost it.
        world.model(version, rollout={"bake": "1h"})
        await world.pass_()

    await pass_(2000)
    # As after a suspension of the machine: nobody can be reached at first.
    now += datetime.timedelta(hours=2)
    world.server.failures["apply ConfigMap"] = ApiUnavailableError("away")
    for version in (3000, 4000):
        with pytest.raises(TransientError):
            await pass_(version)
    world.server.failures.clear()
    await pass_(5000)
    after = world.record().rollout
    assert after is not None
    assert after.phase is Phase.BAKING
    assert after.step_started is not None
    assert now - after.step_started < datetime.timedelta(minutes=1)
    await pass_(6000)
    assert world.record().rollout == after


async def test_a_pod_that_hangs_is_told_by_its_events_of_which_one_is_asked_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hangs, "FIRST_SECONDS", 0.0)
    world.server.events = [{"reason": "FailedMount", "note": 'secret "key" not found'}]
    for name in ("a", "b"):
        world.pod(name, status=HANGING)
    sent = await world.pass_()
    assert sum(request.startswith("events about") for request in sent) == 1
    ready = world.status()["conditions"][0]
    assert ready["reason"] == "ContainerConfigFailed"
    assert 'Secret "key" is not there' in ready["message"]
    assert "event ContainerConfigFailed" in sent
    world.queue.close()


async def test_a_pod_that_was_evicted_explains_the_one_in_its_place(world: World) -> None:
    gone = {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "TerminationByKubelet",
        "lastTransitionTime": datetime.datetime.now(datetime.UTC).isoformat(),
    }
    words = "The node was low on resource: ephemeral-storage."
    world.pod(
        "b",
        status={"phase": "Failed", "reason": "Evicted", "message": words, "conditions": [gone]},
    )
    world.pod("c", status=HANGING)
    sent = await world.pass_()
    ready = world.status()["conditions"][0]
    assert ready["reason"] == "Evicted"
    assert f"pod b was evicted by its node (Evicted: {words[:-1]})" in ready["message"]
    assert "spec.server.resources.requests.ephemeral-storage" in ready["message"]
    assert "event Evicted" in sent
    world.queue.close()


async def test_a_burst_of_changes_waits_for_its_turn(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconcile, "STATUS_SECONDS", 3600.0)
    world.pod("a", told({1: A}, target=1))
    assert "apply InferenceModel/status" in await world.pass_()

    world.cache.reports["uid-a"] = told({1: A, 2: F}, target=1)
    sent = await world.pass_()

    assert "annotate a 2" in sent, "only the status waits"
    assert "apply InferenceModel/status" not in sent
    assert world.queue.waiting == 1
    world.queue.close()


async def test_a_status_that_goes_on_flipping_is_written_less_often(world: World) -> None:
    sent: list[str] = []
    world.pod("a")
    world.pod("b", told({1: A}, target=1))
    for number in range(50):
        world.cache.reports["uid-a"] = told({1: F if number % 2 else A}, target=1)
        sent += await world.pass_()
    assert sent.count("apply InferenceModel/status") == reconcile.STATUS_BURST
    assert sum(request.startswith("event") for request in sent) == 1
    assert world.queue.waiting == 1, "the last one is told when its time has come"
    world.queue.close()


async def test_what_heals_by_waiting_is_reported_and_repeated(world: World) -> None:
    world.server.failures["create Service"] = ApiUnavailableError("away")
    with pytest.raises(ApiUnavailableError):
        await world.pass_()
    reasons = {c["type"]: c["reason"] for c in world.status()["conditions"]}
    assert reasons["Reconciling"] == "Applying"

    world.server.failures.clear()
    assert "create Service" in await world.pass_()


async def test_what_should_have_healed_by_now_is_told_by_an_event_and_still_repeated(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.server.failures["create Service"] = ApiUnavailableError("Service vision/m: the webhook")
    monkeypatch.setattr(patience, "LASTING_SECONDS", 0.0)
    with pytest.raises(LastingError):
        await world.pass_()
    assert "event ApplyFailed" in world.server.requests
    told = next(c for c in world.status()["conditions"] if c["type"] == "Reconciling")
    assert (told["status"], told["reason"]) == ("True", "ApplyFailed")
    assert "Service vision/m: the webhook" in told["message"]

    world.server.failures.clear()
    assert "create Service" in await world.pass_()


async def test_a_deployment_that_can_not_be_read_keeps_nothing_else_back(world: World) -> None:
    refusal = RefusedError("Deployment", "vision/m", "may not get", "give the right")
    world.server.failures["get Deployment"] = refusal
    world.pod("a", told({1: A, 2: F}, target=1))

    sent = await world.pass_()

    assert {"annotate a 2", "apply ConfigMap", "apply InferenceModel/status"} <= set(sent)
    assert "apply Deployment" not in sent
    stalled = next(c for c in world.status()["conditions"] if c["type"] == "Stalled")
    assert (stalled["status"], stalled["reason"]) == ("True", "Refused")

    world.server.failures["get Deployment"] = ApiUnavailableError("away")
    with pytest.raises(ApiUnavailableError):
        await world.pass_()

    world.server.failures.clear()
    assert "apply Deployment" in await world.pass_()


async def test_a_right_that_is_missing_is_no_error_of_each_model(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    lacking = 'services "m" is forbidden: User "u" cannot create resource "services"'
    world.server.failures["create Service"] = RefusedError("Service", "vision/m", lacking, "give")
    await world.pass_()
    assert "ERROR" not in caplog.text
    assert "cannot create resource" in str(world.status()["conditions"])

    refusal = RefusedError("Deployment", "vision/m", "invalid", "correct")
    world.server.failures = {"apply Deployment": refusal}
    world.server._version = 6000
    world.model(5000, replicas=3)
    await world.pass_()
    assert "ERROR" in caplog.text


async def test_an_action_that_may_not_be_taken_away_keeps_no_status_back(world: World) -> None:
    world.model(2, annotations={names.ABORT_ANNOTATION: "7"})
    refusal = RefusedError("InferenceModel", "vision/m", "may not patch", "give the right")
    world.server.failures["annotate m None"] = refusal
    world.pod("a", told({1: A}, target=1))
    sent = await world.pass_()
    assert sent.index("annotate m None") < sent.index("apply InferenceModel/status")
    stalled = next(c for c in world.status()["conditions"] if c["type"] == "Stalled")
    assert "give the right" in stalled["message"]


async def test_a_refused_child_keeps_no_action_from_being_taken_away(world: World) -> None:
    world.model(2, annotations={names.ABORT_ANNOTATION: "7"})
    world.server.failures["create Service"] = RefusedError("Service", "m", "no", "fix it")
    world.pod("a", told({1: A}, target=1))
    sent = await world.pass_()
    assert {"annotate m None", "event ActionDropped"} <= set(sent)
    assert sent.index("apply ConfigMap") < sent.index("annotate m None")


async def test_an_action_stays_until_what_it_does_is_remembered(world: World) -> None:
    world.model(2, annotations={names.ABORT_ANNOTATION: "7"})
    world.server.failures["apply ConfigMap"] = RefusedError("ConfigMap", "m", "no", "fix it")
    world.pod("a", told({1: A}, target=1))
    assert "annotate m None" not in await world.pass_()
    del world.server.failures["apply ConfigMap"]
    world.model(2000, annotations={names.ABORT_ANNOTATION: "7"})
    assert "annotate m None" in await world.pass_()


async def test_one_refused_child_does_not_keep_the_others_back(world: World) -> None:
    world.server.failures["apply Deployment"] = RefusedError("Deployment", "m", "no", "fix it")
    sent = await world.pass_()
    assert {"apply ConfigMap", "create Service"} <= set(sent)
    reasons = {c["type"]: c["reason"] for c in world.status()["conditions"]}
    assert reasons["Stalled"] == "Refused"
    assert world.queue.waiting == 1, "it is looked at again without an event"
    world.queue.close()


async def test_a_status_that_the_api_server_takes_as_another_is_not_written_again(
    world: World,
) -> None:
    world.server.drop_fields = ("replicaSummary",)
    world.pod("a", told({1: A}, target=1))
    await world.pass_()
    await world.pass_()
    assert await world.pass_() == []

    world.cache.reports["uid-a"] = told({1: A, 2: F}, target=1)
    assert "apply InferenceModel/status" in await world.pass_()


async def test_one_that_is_made_again_at_once_begins_without_its_predecessors_memory(
    world: World,
) -> None:
    await world.pass_()
    before = world.reconciler._memories[KEY]
    await world.pass_()
    assert world.reconciler._memories[KEY] is before
    # Deleted and made again, and nobody has seen that it was gone.
    again = {"name": "m", "namespace": "vision", "uid": "uid-again", "generation": 1}
    again["resourceVersion"] = "5000"
    spec = {"model": {"storageUri": "gs://models/m"}, "replicas": 2}
    world.cache.put(MODELS, {"metadata": again, "spec": spec})
    with pytest.raises(TransientError, match="of this name that was deleted"):
        await world.pass_()
    assert world.reconciler._memories[KEY] is not before


async def test_a_status_that_is_refused_is_told_by_one_event(world: World) -> None:
    world.server.failures["apply InferenceModel/status"] = StatusRefusedError("vision/m", "old")
    for _ in range(3):
        with pytest.raises(StatusRefusedError):
            await world.pass_()
    assert world.server.requests.count("event StatusRefused") == 1

    world.server.failures.clear()
    assert "apply InferenceModel/status" in await world.pass_()


async def test_an_event_that_is_refused_is_no_failure(world: World) -> None:
    world.server.failures["event VersionActivated"] = RefusedError("Event", "m", "no", "fix it")
    for name in ("a", "b"):
        world.pod(name, told({1: A}, target=1))
    assert "event VersionActivated" in await world.pass_()


async def test_a_resource_of_another_release_is_told_and_its_children_are_left(
    world: World,
) -> None:
    world.model(2, replicas="two")
    assert await world.pass_() == ["apply InferenceModel/status", "event InvalidSpec"]
    reasons = {c["type"]: c["reason"] for c in world.status()["conditions"]}
    assert reasons == {"Reconciling": "Blocked", "Stalled": "InvalidSpec"}


async def test_a_resource_that_is_gone_is_forgotten(world: World) -> None:
    world.pod("a", told({1: A}, target=1))
    await world.pass_()
    assert list(world.reconciler.ready_states()) == ["False"]
    world.cache.remove(
        MODELS,
        {
            "metadata": {
                "name": "m",
                "namespace": "vision",
                "uid": "uid-m",
                "resourceVersion": "9999",
            }
        },
    )
    assert await world.pass_() == []
    assert list(world.reconciler.ready_states()) == []


async def test_children_of_others_come_before_the_first_status(world: World) -> None:
    world.queue.add(("vision", "another"))
    first = await world.pass_()
    assert [request for request in first if "status" in request] == []
    assert "apply Deployment" in first
    assert len(world.queue) == 2

    again = await world.pass_()
    assert again == ["apply InferenceModel/status"], "nothing is written twice"


async def test_an_owned_child_that_is_not_wanted_is_deleted(world: World) -> None:
    await world.pass_()
    for name, owners in (("old", [MODEL_OWNER]), ("theirs", [])):
        world.cache.put(
            DISRUPTION_BUDGETS,
            {
                "metadata": {
                    "name": name,
                    "namespace": "vision",
                    "uid": f"uid-{name}",
                    "resourceVersion": "5",
                    "labels": {"inferencemodel.dev/name": "m"},
                    "ownerReferences": owners,
                }
            },
        )
    assert await world.pass_() == ["delete PodDisruptionBudget old"]


BY_REQUESTS = {"maxReplicas": 3, "keda": {"http": {"concurrency": 10}}}
ENTRANCE = {"host": "m.example.com"}
WAY = ["delete InterceptorRoute m", "delete Service keda-http-m"]


async def test_requests_come_past_the_interceptor_before_the_way_by_it_goes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconcile, "WAY_SECONDS", 0.3)
    world.offers.optional = frozenset(OPTIONAL)
    world.model(2, autoscaling=BY_REQUESTS, ingress=ENTRANCE, networkPolicy={"enabled": True})
    sent = await world.pass_()
    assert sent.index("create InterceptorRoute") < sent.index("create Ingress")
    assert sent.index("create Service") < sent.index("create Ingress")

    world.model(5000, ingress=ENTRANCE, networkPolicy={"enabled": True})
    world.server.failures["apply Ingress"] = RefusedError("Ingress", "m", "no", "fix it")
    sent = await world.pass_()
    assert "delete ScaledObject m" in sent
    assert not {*WAY, "apply NetworkPolicy"} & {*sent}, "the Ingress still leads there"

    world.server.failures.clear()
    world.model(6000, ingress={**ENTRANCE, "path": "/x"}, networkPolicy={"enabled": True})
    sent = await world.pass_()
    assert "apply Ingress" in sent
    assert not {*WAY, "apply NetworkPolicy"} & {*sent}, "who serves it has yet to hear of it"
    world.model(7000, ingress={**ENTRANCE, "path": "/x"}, networkPolicy={"enabled": True})
    assert not {*WAY} & {*await world.pass_()}

    await asyncio.sleep(0.35)
    world.model(8000, ingress={**ENTRANCE, "path": "/x"}, networkPolicy={"enabled": True})
    sent = await world.pass_()
    assert {*WAY, "apply NetworkPolicy"} <= {*sent}
    world.queue.close()


async def test_nothing_leads_to_a_service_of_somebody_else(world: World) -> None:
    world.offers.optional = frozenset(OPTIONAL)
    theirs = owned("keda-http-m", "uid-theirs", MODEL_OWNER)
    theirs["metadata"]["ownerReferences"] = []
    world.cache.put(SERVICES, theirs)
    world.model(2, autoscaling=BY_REQUESTS, ingress=ENTRANCE)
    sent = await world.pass_()
    assert "create InterceptorRoute" in sent
    assert "create Ingress" not in sent
    world.queue.close()


@pytest.mark.parametrize(
    "meanwhile",
    [
        {MODELS.kind: {"replicas": 3}},
        {PODS.kind: {"conditions": [{"type": "Ready", "status": "False"}]}},
        {},
    ],
)
async def test_what_the_answer_to_a_write_tells_of_others_changes_is_looked_at(
    world: World, meanwhile: dict[str, dict[str, Any]]
) -> None:
    # Its watch tells the same a moment later, and the cache takes that for known.
    for name in ("a", "b"):
        world.pod(name, told({1: A, 2: F}, target=1))
    world.server.meanwhile = dict(meanwhile)
    sent = await world.pass_()
    assert "annotate a 2" in sent
    assert world.server.meanwhile == {}
    assert len(world.queue) == bool(meanwhile)
