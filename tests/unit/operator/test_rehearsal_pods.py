"""Pods that rehearse versions are made once, told what changes, and never left behind."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from inferencemodel_operator import names
from inferencemodel_operator.cache import Cache
from inferencemodel_operator.cluster import MODELS, PODS, Cluster, Resource
from inferencemodel_operator.errors import ApiUnavailableError, ConflictError, RefusedError
from inferencemodel_operator.observe.troubles import Trouble
from inferencemodel_operator.rehearsal_pods import RehearsalPods
from model_poller.status import CacheState, CacheStatus, VersionState
from tests.unit.operator.test_rehearsal import KEY, OWNER, built, reported
from tests.unit.operator.test_rehearsal import model as typed_model

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from inferencemodel_operator.children.manifest import Manifest
    from inferencemodel_operator.observe.objects import Model
    from inferencemodel_operator.rehearsal import RehearsalPod

REFUSED = RefusedError("Pod", "vision/r", "exceeded quota: team", "raise the quota")


class Server(Cluster):
    """Pods, as an API server keeps them, and a kubelet that takes its time."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self.pods: dict[str, dict[str, Any]] = {}
        self.writes: list[str] = []
        self.problem: Exception | None = None
        self.is_late = False
        """Whether the watch of pods has yet to tell what is deleted."""
        self._version = 10

    def _answer(self, request: str, obj: dict[str, Any]) -> dict[str, Any]:
        self.writes.append(request)
        if self.problem is not None:
            raise self.problem
        self._version += 1
        obj["metadata"]["resourceVersion"] = str(self._version)
        return copy.deepcopy(obj)

    async def create(self, resource: Resource, wanted: Manifest) -> dict[str, Any]:
        assert resource is PODS
        name = wanted["metadata"]["name"]
        made = copy.deepcopy(wanted)
        if name in self.pods:
            self.problem = ConflictError("there is one")
        made["metadata"] |= {
            "uid": f"uid-{self._version}",
            "creationTimestamp": "2026-11-28T12:00:00Z",
        }
        answer = self._answer(f"create {made['metadata']['annotations'][TARGET]}", made)
        self.pods[name] = made
        return answer

    async def delete(self, resource: Resource, namespace: str, name: str, *, uid: str) -> None:
        assert resource is PODS
        pod = self.pods[name]
        assert pod["metadata"]["uid"] == uid
        answer = self._answer(f"delete {pod['metadata']['annotations'][TARGET]}", pod)
        answer["metadata"]["deletionTimestamp"] = "2026-11-28T12:01:00Z"
        if not self.is_late:
            self.cache.put(PODS, answer)

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
        pod = self.pods[name]
        assert pod["metadata"]["uid"] == uid
        pod["metadata"]["annotations"] |= annotations
        return self._answer("annotate", pod)

    async def events_about(
        self, namespace: str, uid: str, reasons: Iterable[str]
    ) -> tuple[dict[str, Any], ...]:
        return ()

    def become(self, name: str, **status: Any) -> None:
        """Have the kubelet say something."""
        pod = self.pods[name]
        pod["status"] = status
        self._version += 1
        pod["metadata"]["resourceVersion"] = str(self._version)
        self.cache.put(PODS, copy.deepcopy(pod))

    def go(self, name: str) -> None:
        """A pod that was deleted is gone."""
        pod = self.pods.pop(name)
        self._version += 1
        pod["metadata"]["resourceVersion"] = str(self._version)
        self.cache.remove(PODS, pod)


TARGET = names.TARGET_VERSION_ANNOTATION


class World:
    """One InferenceModel, and an operator as often as it is started."""

    def __init__(self) -> None:
        self.cache = Cache()
        self.server = Server(self.cache)
        self.cache.put(MODELS, OWNER)
        self.later: list[float] = []
        self.restart()

    def restart(self) -> None:
        """Another operator, which remembers nothing."""
        self.pods = RehearsalPods(
            self.server, self.cache, lambda _, seconds: self.later.append(seconds)
        )

    @property
    def model(self) -> Model:
        found = self.cache.model(KEY)
        assert found is not None
        return found

    async def arrange(self, wanted: Manifest | None) -> list[str]:
        """One pass; the writes of it."""
        self.server.writes.clear()
        await self.pods.arrange(self.model, typed_model(), wanted)
        return list(self.server.writes)

    def pod(self, version: int = 15) -> RehearsalPod | None:
        return self.pods.pod(typed_model(), version)


@pytest.fixture
def world() -> World:
    return World()


def name(wanted: Manifest) -> str:
    found: str = wanted["metadata"]["name"]
    return found


async def test_a_pod_that_is_wanted_is_made_once(world: World) -> None:
    assert await world.arrange(built()) == ["create 15"]
    assert await world.arrange(built()) == []
    world.restart()
    assert await world.arrange(built()) == []
    pod = world.pod()
    assert pod is not None
    assert (pod.version, pod.report) == (15, None)
    world.cache.reports[pod.uid] = reported(VersionState.PUBLISHED)
    pod = world.pod()
    assert pod is not None
    assert pod.report == reported(VersionState.PUBLISHED)
    assert world.pod(16) is None


async def test_without_a_wish_nothing_is_written(world: World) -> None:
    assert await world.arrange(None) == []


async def test_one_that_nobody_wants_any_more_goes_and_is_asked_only_once(world: World) -> None:
    await world.arrange(built())
    # The operator was killed, and the rehearsal was taken out of the spec meanwhile.
    world.restart()
    assert await world.arrange(None) == ["delete 15"]
    assert await world.arrange(None) == []
    pod = world.pod()
    assert pod is not None
    assert pod.gone
    world.server.go(name(built()))
    assert world.pod() is None
    assert await world.arrange(None) == []


def storing(state: VersionState) -> Any:
    return replace(reported(state), cache=CacheStatus(state=CacheState.READY, storing=True))


async def test_one_that_brings_to_the_cache_what_replicas_wait_for_goes_after_that(
    world: World,
) -> None:
    await world.arrange(built())
    pod = world.pod()
    assert pod is not None
    world.cache.reports[pod.uid] = storing(VersionState.AVAILABLE)
    assert await world.arrange(None) == []
    assert world.later
    pod = world.pod()
    assert pod is not None
    assert pod.gone, "it says nothing more"
    # The same is wanted once more, and is there.
    assert await world.arrange(built()) == []
    pod = world.pod()
    assert pod is not None
    assert not pod.gone
    assert await world.arrange(None) == []
    world.cache.reports[pod.uid] = reported(VersionState.AVAILABLE)
    assert await world.arrange(None) == ["delete 15"]


async def test_one_that_takes_too_long_to_bring_something_to_the_cache_goes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.arrange(built())
    pod = world.pod()
    assert pod is not None
    world.cache.reports[pod.uid] = storing(VersionState.AVAILABLE)
    monkeypatch.setattr("time.monotonic", lambda: 1e9)
    assert await world.arrange(built(version=16)) == ["create 16"]
    monkeypatch.setattr("time.monotonic", lambda: 1e9 + 299)
    assert await world.arrange(built(version=16)) == []
    monkeypatch.setattr("time.monotonic", lambda: 1e9 + 300)
    assert await world.arrange(built(version=16)) == ["delete 15"]


async def test_one_that_has_ended_brings_nothing_to_the_cache(world: World) -> None:
    await world.arrange(built())
    pod = world.pod()
    assert pod is not None
    world.cache.reports[pod.uid] = storing(VersionState.AVAILABLE)
    world.server.become(name(built()), phase="Failed", reason="Evicted")
    assert await world.arrange(built()) == ["delete 15"]


async def test_it_is_asked_only_once_however_late_the_watch_is(world: World) -> None:
    await world.arrange(built())
    world.server.is_late = True
    assert await world.arrange(None) == ["delete 15"]
    assert await world.arrange(None) == []
    assert await world.arrange(None) == []
    world.server.go(name(built()))
    await world.arrange(built())
    assert await world.arrange(None) == ["delete 15"]


async def test_it_goes_even_when_the_resource_can_not_be_understood(world: World) -> None:
    await world.arrange(built())
    world.server.writes.clear()
    await world.pods.arrange(world.model, None, None)
    assert world.server.writes == ["delete 15"]


async def test_another_version_takes_its_place(world: World) -> None:
    await world.arrange(built())
    assert await world.arrange(built(version=16)) == ["delete 15", "create 16"]
    assert await world.arrange(built(version=16)) == []


async def test_one_that_has_ended_is_removed_and_made_anew_once_it_is_gone(world: World) -> None:
    await world.arrange(built())
    world.server.become(name(built()), phase="Failed", reason="Evicted")
    assert await world.arrange(built()) == ["delete 15"]
    assert await world.arrange(built()) == []
    world.server.go(name(built()))
    assert await world.arrange(built()) == ["create 15"]


async def test_what_it_is_told_is_told_to_the_one_that_is_there(world: World) -> None:
    await world.arrange(built())
    changed = built(quarantined="13@f13,12@f12")
    assert await world.arrange(changed) == ["annotate"]
    assert await world.arrange(changed) == []
    told = world.server.pods[name(built())]["metadata"]["annotations"]
    assert told[names.QUARANTINED_VERSIONS_ANNOTATION] == "13@f13,12@f12"


async def test_what_somebody_else_tells_it_is_undone_but_not_for_ever(world: World) -> None:
    await world.arrange(built())
    made = 0
    for _ in range(20):
        pod = world.server.pods[name(built())]
        pod["metadata"]["annotations"][TARGET] = "1"
        world.server.become(name(built()), phase="Running")
        made += len(await world.arrange(built()))
    assert 0 < made < 10
    assert "somebody else" in world.pods.refused(KEY)


async def test_a_refusal_is_told_and_asked_again_only_after_a_while(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.server.problem = REFUSED
    assert await world.arrange(built()) == ["create 15"]
    assert "exceeded quota" in world.pods.refused(KEY)
    assert world.later
    assert await world.arrange(built()) == []
    assert "exceeded quota" in world.pods.refused(KEY)
    # Another pod, of less memory perhaps, may be taken at once.
    smaller = built(server={"resources": {"limits": {"memory": "1Gi"}}})
    assert await world.arrange(smaller) == ["create 15"]
    world.server.problem = None
    monkeypatch.setattr("time.monotonic", lambda: 1e9)
    assert await world.arrange(smaller) == ["create 15"]
    assert world.pods.refused(KEY) == ""


async def test_a_refusal_lasts_from_the_first_until_there_is_a_pod(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for now, refused, lasts in (
        *((1000.0, False, 0.0), (1010.0, False, 0.0)),
        *((2000.0, True, 0.0), (2100.0, True, 100.0), (2200.0, False, 0.0)),
    ):
        monkeypatch.setattr("time.monotonic", lambda now=now: now)
        world.server.problem = REFUSED if refused else None
        if refused and name(built()) in world.server.pods:
            # Its node is drained.
            world.server.go(name(built()))
        await world.arrange(built())
        assert world.pods.refused_for(KEY) == lasts


async def test_a_refusal_is_forgotten_with_the_wish(world: World) -> None:
    world.server.problem = REFUSED
    await world.arrange(built())
    await world.arrange(None)
    assert world.pods.refused(KEY) == ""


async def test_a_pod_of_that_name_that_is_somebody_elses_stays_untouched(world: World) -> None:
    world.server.pods[name(built())] = {}
    await world.arrange(built())
    assert "exists and does not belong to this InferenceModel" in world.pods.refused(KEY)
    assert world.server.pods == {name(built()): {}}


async def test_what_heals_by_waiting_is_the_queues_business(world: World) -> None:
    world.server.problem = ApiUnavailableError("503")
    with pytest.raises(ApiUnavailableError):
        await world.arrange(built())
    world.server.problem = None
    assert await world.arrange(built()) == ["create 15"]


async def test_of_two_pods_the_one_that_stays_is_looked_at(world: World) -> None:
    await world.arrange(built())
    again = built(fingerprint="f15-again")
    await world.arrange(again)
    pod = world.pod()
    assert pod is not None
    assert (pod.name, pod.gone) == (name(again), False)


async def test_why_it_hangs_is_asked_as_for_a_replica(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def events(*_: Any) -> tuple[dict[str, Any], ...]:
        return ({"reason": "FailedMount", "note": "secret not found"},)

    monkeypatch.setattr("inferencemodel_operator.observe.hangs.FIRST_SECONDS", 0.0)
    monkeypatch.setattr(world.server, "events_about", events)
    await world.arrange(built())
    creating = {"waiting": {"reason": "ContainerCreating"}}
    world.server.become(
        name(built()),
        phase="Pending",
        conditions=[{"type": "PodScheduled", "status": "True"}],
        initContainerStatuses=[{"name": "poller", "state": creating}],
    )
    await world.pods.look(KEY)
    pod = world.pod()
    assert pod is not None
    assert pod.trouble is Trouble.CONTAINER_CONFIG_FAILED
    assert "volumes can't be mounted" in pod.message
