"""Another poller image reaches all pods, some InferenceModels at a time, whatever happens."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import pytest

from inferencemodel_operator import names, waves
from inferencemodel_operator.cache import Cache
from inferencemodel_operator.children import children
from inferencemodel_operator.cluster import (
    DEPLOYMENTS,
    MODELS,
    PODS,
    REPLICA_SETS,
    Cluster,
    Resource,
)
from inferencemodel_operator.errors import RefusedError
from inferencemodel_operator.metrics import Metrics
from inferencemodel_operator.queue import WorkQueue
from inferencemodel_operator.record import VersionsRecord
from inferencemodel_operator.settings import Settings
from inferencemodel_operator.template_updates import TemplateUpdates
from inferencemodel_operator.values import Share
from inferencemodel_operator.waves import Hold

if TYPE_CHECKING:
    from inferencemodel_operator.children.manifest import Manifest
    from inferencemodel_operator.observe.objects import Deployment, Key

READY = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
OLD, NEW, NEWER = "poller:1", "poller:2", "poller:3"


class Server(Cluster):
    """Deployments, as an API server and its Deployment controller keep them."""

    def __init__(self) -> None:
        self.objects: dict[Key, dict[str, Any]] = {}
        self.reads = 0

    async def get(self, resource: Resource, namespace: str, name: str) -> Any:
        assert resource is DEPLOYMENTS
        self.reads += 1
        return copy.deepcopy(self.objects.get((namespace, name)))


class World:
    """Two namespaces of InferenceModels, and an operator as often as it is started."""

    def __init__(self, models: int = 6) -> None:
        self.server, self.cache = Server(), Cache()
        self.holds: dict[Key, Hold | None] = {}
        self.refuses: Key | None = None
        self.limit = Share(2)
        self._version = 0
        self.keys: list[Key] = [(f"team-{n % 2}", f"m{n}") for n in range(models)]
        for key in self.keys:
            self.model(key)

    async def start(self, image: str) -> None:
        """Another operator, which remembers nothing and looks at everything."""
        self.settings = Settings(poller_image=image)
        self.queue: WorkQueue[Key] = WorkQueue()
        self.metrics = Metrics()
        self.updates = TemplateUpdates(
            self.server, self.cache, self.queue, self.limit, self.metrics
        )
        # The last first: the order of the looks is not that of the turns.
        for key in sorted(self.keys, reverse=True):
            self.queue.add(key)
        await self.until_idle()

    async def until_idle(self) -> None:
        """Reconcile whatever is queued."""
        for _ in range(1000):
            if not len(self.queue):
                return
            key = await self.queue.get()
            await self.reconcile(key)
            self.queue.done(key)
        raise AssertionError("the queue never gets empty")

    async def reconcile(self, key: Key) -> None:
        try:
            model = self.cache.model(key)
            if model is None or model.model is None or model.model.spec.suspend:
                self.updates.forget(key)
                return
            wanted = children(model.model, VersionsRecord(), self.settings)
            arranged, self.holds[key] = await self.updates.arrange(model, wanted)
            (deployment,) = (c for c in arranged if c["kind"] == "Deployment")
            problems = [RefusedError("Deployment", "m", "no", "fix it")]
            if self.refuses == key and self.image(deployment) != OLD:
                self.updates.settle(key, arranged, problems)
                return
            self.apply(key, deployment)
            self.updates.settle(key, arranged, [])
        finally:
            self.updates.look(key)

    # -- what others do

    def model(self, key: Key, **spec: Any) -> None:
        self._version += 1
        namespace, name = key
        self.cache.put(
            MODELS,
            {
                "metadata": {
                    "name": name,
                    "namespace": namespace,
                    "uid": f"uid-{name}",
                    "resourceVersion": str(self._version),
                    "generation": self._version,
                },
                "spec": {"model": {"storageUri": f"gs://b/{name}"}, "replicas": 3, **spec},
            },
        )

    def apply(self, key: Key, wanted: Manifest) -> None:
        before = self.server.objects.get(key)
        made = copy.deepcopy(wanted)
        annotations = made["metadata"]["annotations"]
        if before is not None:
            theirs = before["metadata"]["annotations"].get(names.REVISION_ANNOTATION)
            annotations |= {} if theirs is None else {names.REVISION_ANNOTATION: theirs}
            if (before["spec"], before["metadata"]["annotations"]) == (made["spec"], annotations):
                return
        generation = before["metadata"]["generation"] if before else 0
        # As the API server counts: another annotation is another generation, too
        # (pkg/registry/apps/deployment/strategy.go).
        changed = before is None or any(
            was != now
            for was, now in (
                (before["spec"], made["spec"]),
                (before["metadata"]["annotations"], annotations),
            )
        )
        made["metadata"] |= {"uid": f"uid-of-{key[1]}", "generation": generation + changed}
        made["status"] = (before or {}).get("status", {})
        self.put(key, made)
        self.queue.add(key)

    def put(self, key: Key, obj: dict[str, Any]) -> None:
        self._version += 1
        obj["metadata"]["resourceVersion"] = str(self._version)
        self.server.objects[key] = obj
        self.cache.put(DEPLOYMENTS, obj)

    def status(self, key: Key, **status: Any) -> None:
        obj = copy.deepcopy(self.server.objects[key])
        obj["status"] = {"observedGeneration": obj["metadata"]["generation"], **status}
        self.put(key, obj)
        self.queue.add(key)

    async def finish(self, *keys: Key) -> None:
        """Have the Deployment controller roll these out."""
        for key in keys:
            replicas = self.server.objects[key]["spec"]["replicas"]
            numbers = ("replicas", "updatedReplicas", "availableReplicas")
            self.status(key, **dict.fromkeys(numbers, replicas))
        await self.until_idle()

    async def fail(self, key: Key) -> None:
        condition = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}
        self.status(key, conditions=[condition])
        await self.until_idle()

    async def change(self, key: Key, **spec: Any) -> None:
        self.model(key, **spec)
        self.queue.add(key)
        await self.until_idle()

    def pod_without_image(self, key: Key, revision: str) -> None:
        """Have a pod of one revision of the Deployment's template wait for its image."""
        namespace, name = key
        deployment = copy.deepcopy(self.server.objects[key])
        deployment["metadata"]["annotations"][names.REVISION_ANNOTATION] = "2"
        self.put(key, deployment)
        self.status(key, replicas=4, updatedReplicas=1, availableReplicas=3)
        owners = (("Deployment", f"uid-of-{name}"), ("ReplicaSet", f"uid-set-{name}"))
        (to_deployment, to_set) = (
            {"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": uid, "controller": True}
            for kind, uid in owners
        )
        common = {
            "namespace": namespace,
            "resourceVersion": "1",
            "labels": {names.MODEL_LABEL: name},
        }
        replica_set: dict[str, Any] = {"name": f"{name}-s", "uid": f"uid-set-{name}"} | common
        replica_set["ownerReferences"] = [to_deployment]
        replica_set["annotations"] = {names.REVISION_ANNOTATION: revision}
        self.cache.put(REPLICA_SETS, {"metadata": replica_set})
        pod = {"name": f"{name}-p", "uid": f"uid-pod-{name}", "ownerReferences": [to_set]} | common
        waiting = {"name": names.POLLER_CONTAINER, "state": {"waiting": {"reason": "ErrImagePull"}}}
        self.cache.put(PODS, {"metadata": pod, "status": {"initContainerStatuses": [waiting]}})
        self.queue.add(key)

    def ready_pod(self, key: Key) -> None:
        """Have one more pod of the newest template that is ready."""
        namespace, name = key
        self._version += 1
        number = f"{name}-{self._version}"
        revision = self.server.objects[key]["metadata"]["annotations"].get(
            names.REVISION_ANNOTATION, ""
        )
        common = {
            "namespace": namespace,
            "resourceVersion": str(self._version),
            "labels": {names.MODEL_LABEL: name},
        }
        for resource, uid, owner_kind, owner_uid, rest in (
            (REPLICA_SETS, f"uid-set-{name}", "Deployment", f"uid-of-{name}", {}),
            (PODS, f"uid-{number}", "ReplicaSet", f"uid-set-{name}", {"status": READY}),
        ):
            owner = {"apiVersion": "apps/v1", "kind": owner_kind, "name": name, "uid": owner_uid}
            metadata = {
                **common,
                "name": f"{name}-set" if resource is REPLICA_SETS else number,
                "uid": uid,
                "annotations": {names.REVISION_ANNOTATION: revision},
                "ownerReferences": [{**owner, "controller": True}],
            }
            self.cache.put(resource, {"metadata": metadata, **rest})
        self.queue.add(key)

    # -- what there is

    @staticmethod
    def image(deployment: Manifest) -> str:
        (poller,) = deployment["spec"]["template"]["spec"]["initContainers"]
        return str(poller["image"])

    def have(self, image: str) -> list[Key]:
        return sorted(k for k, obj in self.server.objects.items() if self.image(obj) == image)

    def deployment(self, key: Key) -> Deployment:
        found = self.cache.child("Deployment", *key)
        assert found is not None
        assert found.deployment is not None
        return found.deployment

    def counts(self) -> dict[str, float]:
        return {
            sample.labels["state"]: sample.value
            for metric in self.metrics.template_updates.collect()
            for sample in metric.samples
        }


class Clock:
    """The time, as the turns are told it."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("inferencemodel_operator.template_updates.time", made)
    return made


@pytest.fixture
async def world() -> World:
    """All on the old poller and rolled out; the next operator has the new one."""
    made = World()
    await made.start(OLD)
    await made.finish(*made.keys)
    assert made.have(OLD) == sorted(made.keys)
    return made


async def test_new_models_are_made_at_once(world: World) -> None:
    fresh = World(models=20)
    await fresh.start(NEW)
    assert len(fresh.have(NEW)) == 20
    assert fresh.counts() == {"pending": 0, "active": 0, "failed": 0}


async def test_the_same_operator_again_changes_nothing(world: World) -> None:
    before = copy.deepcopy(world.server.objects)
    await world.start(OLD)
    assert world.server.objects == before
    assert world.server.reads == 0


async def test_the_first_by_namespace_and_name_begin_and_the_next_follow(world: World) -> None:
    order = sorted(world.keys)
    await world.start(NEW)
    assert world.have(NEW) == order[:2]
    assert world.counts() == {"pending": 4, "active": 2, "failed": 0}
    assert world.holds[order[2]] is Hold.WAITING
    assert world.holds[order[0]] is None

    await world.finish(order[1])
    assert world.have(NEW) == order[:3]
    await world.finish(order[0], order[2])
    assert world.have(NEW) == order[:5]
    await world.finish(order[3], order[4])
    await world.finish(order[5])
    assert world.have(NEW) == order
    assert set(world.holds.values()) == {None}
    assert world.counts() == {"pending": 0, "active": 0, "failed": 0}


async def test_those_that_wait_keep_their_template_and_get_all_else(world: World) -> None:
    last = max(world.keys)
    before = copy.deepcopy(world.server.objects[last])
    await world.start(NEW)
    after = world.server.objects[last]
    assert after["spec"] == before["spec"]

    await world.change(last, replicas=7)
    assert world.server.objects[last]["spec"] == {**before["spec"], "replicas": 7}


async def test_pods_of_a_user_s_own_wait_in_turn_with_all_that_was_added(world: World) -> None:
    last = max(world.keys)
    own = {
        "containers": [{"name": "logs", "image": "logs", "ports": [{"containerPort": 9}]}],
        "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["store"]}],
    }
    await world.change(last, template={"spec": own})
    await world.finish(last)
    before = copy.deepcopy(world.server.objects[last])
    assert len(before["spec"]["template"]["spec"]["containers"]) == 2
    for _ in range(2):
        await world.start(NEW)
        assert world.holds[last] is Hold.WAITING
        assert world.server.objects[last]["spec"] == before["spec"]
        waits = world.server.objects[last]["metadata"]["annotations"]
        has = before["metadata"]["annotations"]
        # By this it is known that there is nothing new to ask the API server about.
        assert waits[names.TEMPLATE_HASH_ANNOTATION] == has[names.TEMPLATE_HASH_ANNOTATION]


async def test_a_restart_in_the_middle_goes_on_where_it_was(world: World) -> None:
    order = sorted(world.keys)
    await world.start(NEW)
    await world.finish(order[0])
    for _ in range(3):
        before = copy.deepcopy(world.server.objects)
        await world.start(NEW)
        assert world.have(NEW) == order[:3]
        assert world.server.objects == before


async def test_what_a_user_changes_waits_for_nothing_and_takes_no_turn(world: World) -> None:
    order = sorted(world.keys)
    await world.start(NEW)
    await world.change(order[5], server={"image": "tf:2"})
    assert world.have(NEW) == [*order[:2], order[5]]
    assert world.deployment(order[5]).template_update is None

    await world.start(NEW)
    assert world.have(NEW) == [*order[:2], order[5]], "its rollout is not the operator's doing"
    await world.finish(order[0])
    assert world.have(NEW) == [*order[:3], order[5]]


async def test_one_that_fails_stops_those_that_wait_until_it_is_repaired(world: World) -> None:
    order = sorted(world.keys)
    await world.start(NEW)
    await world.fail(order[0])
    await world.finish(order[1])
    assert world.have(NEW) == order[:2]
    assert world.counts() == {"pending": 4, "active": 0, "failed": 1}
    assert {world.holds[key] for key in order[2:]} == {Hold.STOPPED}

    await world.start(NEW)
    assert world.have(NEW) == order[:2], "nor by a restart"

    await world.finish(order[0])
    assert world.have(NEW) == order[:4]
    assert world.holds[order[5]] is Hold.WAITING


async def test_another_write_to_one_that_failed_lets_nobody_go(world: World) -> None:
    order = sorted(world.keys)
    await world.start(NEW)
    await world.fail(order[0])
    await world.finish(order[1])
    await world.change(order[0], replicas=5)
    assert world.have(NEW) == order[:2], "the status is of the generation before"
    await world.start(NEW)
    assert world.have(NEW) == order[:2]


async def test_another_write_to_one_that_is_there_takes_no_turn(world: World) -> None:
    order = sorted(world.keys)
    await world.start(NEW)
    await world.finish(order[0])
    await world.change(order[0], replicas=5)
    assert world.counts() == {"pending": 3, "active": 2, "failed": 0}


@pytest.mark.parametrize(
    "spec", [{"suspend": True}, {"replicas": 0}, {"server": {"image": "tf:2"}}]
)
async def test_one_that_failed_is_left_behind(world: World, spec: dict[str, Any]) -> None:
    order = sorted(world.keys)
    await world.start(NEW)
    await world.fail(order[0])
    await world.change(order[0], **spec)
    assert world.have(NEW) == order[:3]
    await world.start(NEW)
    assert world.have(NEW) == order[:3]


async def test_going_back_to_the_old_poller_needs_no_turn_but_of_those_that_moved(
    world: World,
) -> None:
    order = sorted(world.keys)
    await world.start(NEW)
    await world.fail(order[0])
    await world.finish(order[1])
    waiting = {key: world.server.objects[key]["spec"] for key in order[2:]}

    await world.start(OLD)

    assert world.have(OLD) == order
    assert waiting == {key: world.server.objects[key]["spec"] for key in order[2:]}
    assert all(
        names.HELD_TEMPLATE_ANNOTATION not in obj["metadata"]["annotations"]
        for obj in world.server.objects.values()
    )


async def test_a_better_poller_goes_first_to_those_that_move(world: World) -> None:
    order = sorted(world.keys)
    await world.start(NEW)
    await world.fail(order[0])
    await world.start(NEWER)
    assert world.have(NEWER) == order[:2]
    assert world.have(NEW) == []
    await world.finish(order[0], order[1])
    assert world.have(NEWER) == order[:4]


async def test_one_that_had_failed_before_stops_nobody(world: World) -> None:
    order = sorted(world.keys)
    await world.fail(order[0])
    await world.start(NEW)
    await world.fail(order[0])
    assert world.have(NEW) == order[:3]
    assert world.counts()["failed"] == 0


async def test_one_that_never_gets_there_stops_those_that_wait_whatever_its_own_deadline(
    world: World, clock: Clock
) -> None:
    order = sorted(world.keys)
    await world.start(NEW)
    await world.finish(order[1])
    for _ in range(3):
        # One more pod each time.
        clock.now += waves.PATIENCE * 0.9
        world.ready_pod(order[0])
        await world.until_idle()
    assert world.counts() == {"pending": 3, "active": 2, "failed": 0}

    clock.now += waves.PATIENCE
    world.queue.add(order[0])
    await world.until_idle()
    assert world.counts()["failed"] == 1
    assert {world.holds[key] for key in order[3:]} == {Hold.STOPPED}

    await world.finish(order[0], order[2])
    assert world.have(NEW) == order[:5]


async def test_one_that_had_failed_before_is_not_waited_for_for_ever(
    world: World, clock: Clock
) -> None:
    order = sorted(world.keys)
    await world.fail(order[0])
    await world.start(NEW)
    assert world.have(NEW) == order[:2]
    clock.now += waves.PATIENCE
    world.queue.add(order[0])
    await world.until_idle()
    assert world.have(NEW) == order[:3]
    assert world.counts()["failed"] == 0


async def test_suspended_empty_and_new_models_hold_nobody_up(world: World) -> None:
    order = sorted(world.keys)
    world.model(order[0], suspend=True)
    world.model(order[1], replicas=0)
    world.model(order[2], replicas="two")
    await world.start(NEW)
    assert world.have(NEW) == [order[1], *order[3:5]]


async def test_one_that_is_deleted_while_it_moves_gives_its_turn_to_the_next(
    world: World,
) -> None:
    order = sorted(world.keys)
    await world.start(NEW)
    metadata = {"namespace": order[0][0], "name": order[0][1], "uid": f"uid-{order[0][1]}"}
    world.cache.remove(MODELS, {"metadata": {**metadata, "resourceVersion": "99999"}})
    world.queue.add(order[0])
    await world.until_idle()
    assert world.have(NEW) == order[:3]


async def test_a_template_that_the_api_server_refuses_stops_the_others(world: World) -> None:
    order = sorted(world.keys)
    world.refuses = order[0]
    await world.start(NEW)
    await world.finish(order[1])
    assert world.have(NEW) == [order[1]]
    assert world.counts()["failed"] == 1

    world.refuses = None
    world.queue.add(order[0])
    await world.until_idle()
    assert world.have(NEW) == order[:3]
    assert world.counts() == {"pending": 3, "active": 2, "failed": 0}


@pytest.mark.parametrize(("revision", "stopped"), [("2", True), ("1", False)])
async def test_a_pod_of_the_new_template_that_cannot_start_stops_the_others_at_once(
    world: World, revision: str, stopped: bool
) -> None:
    order = sorted(world.keys)
    await world.start(NEW)
    world.pod_without_image(order[0], revision)
    await world.finish(order[1])
    assert world.have(NEW) == (order[:2] if stopped else order[:3])
    assert world.counts()["failed"] == stopped


def forget_hashes(world: World) -> None:
    """As a release left them that wrote none."""
    for key, obj in world.server.objects.items():
        old = copy.deepcopy(obj)
        for name in (names.POD_SPEC_HASH_ANNOTATION, names.TEMPLATE_HASH_ANNOTATION):
            del old["metadata"]["annotations"][name]
        world.put(key, old)


async def test_an_older_release_is_taken_over_without_a_restart(world: World) -> None:
    forget_hashes(world)
    specs = {key: obj["spec"] for key, obj in world.server.objects.items()}
    await world.start(OLD)
    assert specs == {key: obj["spec"] for key, obj in world.server.objects.items()}
    assert all(world.deployment(key).template_hash for key in world.keys)
    assert world.counts() == {"pending": 0, "active": 0, "failed": 0}


async def test_an_older_release_with_another_poller_is_taken_over_in_turns(world: World) -> None:
    order = sorted(world.keys)
    forget_hashes(world)
    await world.start(NEW)
    assert world.have(NEW) == order[:2]

    await world.change(order[5], server={"image": "tf:2"})
    assert world.have(NEW) == [*order[:2], order[5]], "what a user changes is known by now"


async def test_the_template_that_is_held_is_remembered_against_edits(world: World) -> None:
    last = max(world.keys)
    await world.start(NEW)
    edited = copy.deepcopy(world.server.objects[last])
    (poller,) = edited["spec"]["template"]["spec"]["initContainers"]
    poller["image"] = "mine:1"
    world.put(last, edited)
    await world.reconcile(last)
    assert world.image(world.server.objects[last]) == OLD
    held = world.server.objects[last]["metadata"]["annotations"][names.HELD_TEMPLATE_ANNOTATION]
    assert json.loads(held) == world.server.objects[last]["spec"]["template"]


async def test_a_share_is_counted_of_all_models(world: World) -> None:
    order = sorted(world.keys)
    world.limit = Share.parse("50%")
    await world.start(NEW)
    assert world.have(NEW) == order[:3]
