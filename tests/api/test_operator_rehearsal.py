"""Pods that rehearse versions, on a real API server: made, seen, asked, told, and taken away."""

from __future__ import annotations

import asyncio
import copy
import datetime
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from inferencemodel_operator import cluster, names
from inferencemodel_operator.access import Access
from inferencemodel_operator.cache import Cache
from inferencemodel_operator.children import children
from inferencemodel_operator.children import rehearsal as child
from inferencemodel_operator.cluster import MODELS, PODS, Cluster
from inferencemodel_operator.metrics import Metrics
from inferencemodel_operator.observe import pollers
from inferencemodel_operator.observe.channels import Direct
from inferencemodel_operator.observe.feed import Feed
from inferencemodel_operator.observe.offers import Offers
from inferencemodel_operator.observe.pollers import Pollers
from inferencemodel_operator.observe.signs import Signs
from inferencemodel_operator.observe.troubles import Trouble
from inferencemodel_operator.observe.watches import ModelWatches
from inferencemodel_operator.queue import WorkQueue
from inferencemodel_operator.record import VersionsRecord
from inferencemodel_operator.rehearsal import PATIENCE, RehearsalPod, Verdict, verdict
from inferencemodel_operator.rehearsal_pods import RehearsalPods
from inferencemodel_operator.settings import Settings
from inferencemodel_operator.spec import InferenceModel, Rehearsal
from model_poller.status import CheckResult, RolloutTask, VersionState, encode_task
from tests.support import crd
from tests.support.kubectl import Kubectl
from tests.support.pods import StubPoller, told

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from devcluster.client import Api
    from inferencemodel_operator.children.manifest import Manifest
    from inferencemodel_operator.observe.objects import Model
    from model_poller.status import PollerStatus

pytestmark = pytest.mark.api

SPEC: dict[str, Any] = {
    "model": {"storageUri": "gs://models/m"},
    "template": {
        "metadata": {"labels": {"app": "photos"}},
        "spec": {
            "containers": [
                {
                    "name": "logs",
                    "image": "logs",
                    # Pods of this namespace may have none: one that rehearses leaves it out.
                    "ports": [{"containerPort": 9000, "hostPort": 9000}],
                    "lifecycle": {"preStop": {"sleep": {"seconds": 9}}},
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "capabilities": {"drop": ["ALL"]},
                    },
                }
            ]
        },
    },
    "networkPolicy": {"enabled": True},
    "rollout": {"rehearsal": {"enabled": True}},
}
RULES = Rehearsal(enabled=True)


@pytest.fixture
def place(api_server: Api) -> Iterator[Kubectl]:
    """A namespace that takes restricted pods alone, with one InferenceModel."""
    with crd.installed(api_server) as namespace:
        kubectl = Kubectl(api_server.program, api_server.kubeconfig, namespace)
        level = "pod-security.kubernetes.io/enforce=restricted"
        kubectl("label", "namespace", namespace, level)
        manifest = {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            "metadata": {"name": "m"},
            "spec": SPEC,
        }
        kubectl.apply(manifest)
        yield kubectl


class Stage:
    """The parts of an operator that a rehearsal takes, with a stub for the pod's poller."""

    def __init__(self, server: Cluster, kubectl: Kubectl, cache: Cache, feed: Feed) -> None:
        self.server, self.kubectl, self.cache, self._feed = server, kubectl, cache, feed
        self.poller = StubPoller()
        self.restart()

    def restart(self) -> None:
        """Another operator, which remembers nothing."""
        self.pods = RehearsalPods(self.server, self.cache, lambda *_: None)

    @property
    def key(self) -> tuple[str, str]:
        return str(self.kubectl.namespace), "m"

    @property
    def model(self) -> Model:
        found = self.cache.model(self.key)
        assert found is not None
        return found

    @property
    def typed(self) -> InferenceModel:
        assert self.model.model is not None
        return self.model.model

    def wanted(self, version: int = 15, *, quarantined: str = "") -> Manifest:
        """The pod, whose poller listens where the stub does."""
        kinds = {made["kind"]: made for made in self.children()}
        template = copy.deepcopy(kinds["Deployment"]["spec"]["template"])
        (poller,) = template["spec"]["initContainers"]
        poller["ports"][0]["containerPort"] = self.poller.port
        return child.build(
            self.typed,
            template,
            version=version,
            fingerprint=f"f{version}",
            served=(version, 14),
            quarantined=quarantined,
            rollout=encode_task(RolloutTask(version=version, key="k")),
        )

    def children(self) -> tuple[Manifest, ...]:
        return children(self.typed, VersionsRecord(target=14), Settings())

    async def arrange(self, wanted: Manifest | None) -> list[str]:
        return await self.pods.arrange(self.model, self.typed, wanted)

    def pod(self, version: int = 15) -> RehearsalPod | None:
        return self.pods.pod(self.typed, version)

    def verdict(self, after: datetime.timedelta = datetime.timedelta(0)) -> Verdict:
        pod = self.pod()
        since = pod.started if pod is not None else datetime.datetime.now(datetime.UTC)
        return verdict(
            RULES,
            pod,
            self.pods.refused(self.key),
            version=15,
            fingerprint="f15",
            since=since,
            now=since + after,
        )

    async def look(self) -> None:
        """Take in what an informer would list."""
        for resource in (MODELS, PODS):
            before, uids = self.cache.snapshot(resource), set()
            async for page in self.server.list(resource, self.kubectl.namespace):
                for obj in page["items"]:
                    self._feed.event(resource, None, resource.name_kind(obj))
                    uids.add(obj["metadata"]["uid"])
            for entry in self.cache.prune(resource, before, uids):
                self._feed._gone(entry)

    async def until(self, holds: Callable[[], object], what: str) -> None:
        """Wait for what is seen."""
        deadline = asyncio.get_running_loop().time() + 20
        while not holds():
            assert asyncio.get_running_loop().time() < deadline, what
            await asyncio.sleep(0.05)
            await self.look()

    async def become(self, name: str, **status: Any) -> None:
        """Have the scheduler or the kubelet say something of a pod."""
        patch = json.dumps({"status": status})
        patching = ("patch", "pod", name, "--subresource=status", "--type=merge", "--patch", patch)
        await asyncio.to_thread(self.kubectl, *patching)

    async def run(self, name: str) -> None:
        """Have the kubelet run a pod, and its poller listen."""
        state = {"image": "none", "imageID": "none", "state": {"running": {}}, "restartCount": 0}
        await self.become(
            name,
            phase="Running",
            podIP="127.0.0.1",
            podIPs=[{"ip": "127.0.0.1"}],
            conditions=[
                {"type": "PodScheduled", "status": "True"},
                {"type": "Ready", "status": "False"},
            ],
            initContainerStatuses=[{"name": "poller", "ready": True, **state}],
            containerStatuses=[{"name": "model-server", "ready": True, **state}],
        )


@asynccontextmanager
async def stage(place: Kubectl) -> AsyncIterator[Stage]:
    access = Access(place.kubeconfig)
    assert place.namespace is not None
    cache, signs = Cache(), Signs()
    async with (
        cluster.connect(access, watches=0) as pool,
        cluster.session(pool, access) as session,
    ):
        server = Cluster(access, session)
        asking = Pollers(Direct, pollers.direct, cache.reports, lambda _: None, Metrics())
        asking.start(())
        watches = ModelWatches((), signs, access.server)
        feed = Feed(
            server, cache, WorkQueue(), asking, watches, signs, Offers(server), (place.namespace,)
        )
        made = Stage(server, place, cache, feed)
        await made.look()
        made.poller.start()
        try:
            yield made
        finally:
            made.poller.stop()
            await asking.close()


def name(wanted: Manifest) -> str:
    made: str = wanted["metadata"]["name"]
    return made


def listed(kubectl: Kubectl, selector: str) -> set[str]:
    found = kubectl("get", "pods", f"--selector={selector}", "-o", "name").split()
    return {pod.removeprefix("pod/") for pod in found}


async def test_a_rehearsal_from_the_first_pod_to_the_verdict_and_the_end(place: Kubectl) -> None:
    async with stage(place) as here:
        wanted = here.wanted()
        assert await here.arrange(wanted) == [f"created Pod {name(wanted)}"]
        made = place.get("pod", name(wanted))
        assert here.verdict().result is None

        await here.run(name(wanted))
        report = told({15: VersionState.PUBLISHED, 14: VersionState.AVAILABLE}, target=15)
        here.poller.tell(about(report))
        await here.until(
            lambda: (pod := here.pod()) is not None and pod.report is not None, "its report"
        )
        assert here.verdict().result is None
        report = told({15: VersionState.AVAILABLE, 14: VersionState.AVAILABLE}, target=15)
        here.poller.tell(about(report))
        await here.until(lambda: here.verdict().result is CheckResult.PASSED, "it to pass")

        before = place.get("pod", name(wanted))
        assert await here.arrange(wanted) == []
        here.restart()
        assert await here.arrange(wanted) == []
        assert place.get("pod", name(wanted)) == before
        assert before["metadata"]["uid"] == made["metadata"]["uid"]

        # An operator that was killed in between finds it, and nobody wants it any more.
        here.restart()
        assert await here.arrange(None) == [f"deleted Pod {name(wanted)}"]
        assert await here.arrange(None) == []
        await here.until(lambda: here.pod() is None, "it to be gone")
        assert here.cache.reports == {}


def about(report: PollerStatus) -> PollerStatus:
    """The report, as one about the InferenceModel's own source."""
    return replace(report, model="m", source=replace(report.source, uri="gs://models/m"))


async def test_no_selector_of_replicas_finds_it_and_the_network_policys_does(
    place: Kubectl,
) -> None:
    async with stage(place) as here:
        wanted = here.wanted()
        await here.arrange(wanted)
        found: dict[str, set[str]] = {}
        for made in here.children():
            spec = made.get("spec", {})
            chosen = spec.get("podSelector") or spec.get("selector")
            if chosen:
                labels = chosen.get("matchLabels", chosen)
                text = ",".join(f"{label}={value}" for label, value in labels.items())
                found[made["kind"]] = await asyncio.to_thread(listed, place, text)
        assert found.pop("NetworkPolicy") == {name(wanted)}
        assert not any(found.values())
        assert found.keys() >= {"Service", "Deployment"}
        assert listed(place, names.MANAGED_SELECTOR) == {name(wanted)}
        live = place.get("pod", name(wanted))
        assert live["spec"]["readinessGates"] == [{"conditionType": names.REHEARSAL_GATE}]


async def test_another_version_takes_the_place_of_the_one_before(place: Kubectl) -> None:
    async with stage(place) as here:
        await here.arrange(here.wanted())
        newer = here.wanted(16)
        assert len(await here.arrange(newer)) == 2
        await here.until(lambda: here.pod(15) is None, "the one before to be gone")
        assert listed(place, names.MANAGED_SELECTOR) == {name(newer)}


async def test_it_is_told_what_has_changed_without_being_made_anew(place: Kubectl) -> None:
    async with stage(place) as here:
        await here.arrange(here.wanted())
        before = place.get("pod", name(here.wanted()))
        changed = here.wanted(quarantined="13@f13")
        assert await here.arrange(changed) == []
        after = place.get("pod", name(changed))
        assert after["metadata"]["uid"] == before["metadata"]["uid"]
        annotations = after["metadata"]["annotations"]
        assert annotations[names.QUARANTINED_VERSIONS_ANNOTATION] == "13@f13"


async def test_a_pod_that_no_node_takes_is_held_with_the_schedulers_words(place: Kubectl) -> None:
    async with stage(place) as here:
        wanted = here.wanted()
        await here.arrange(wanted)
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        condition = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": "0/3 nodes are available: 3 Insufficient memory.",
            "lastTransitionTime": now,
        }
        await here.become(name(wanted), conditions=[condition])
        await here.until(
            lambda: (pod := here.pod()) is not None and pod.trouble is Trouble.UNSCHEDULABLE,
            "the scheduler's words",
        )
        assert here.verdict().result is None
        held = here.verdict(PATIENCE * 2)
        assert held.result is CheckResult.INCONCLUSIVE
        assert "3 Insufficient memory" in held.message


async def test_what_a_quota_refuses_is_told_and_made_once_there_is_room(
    place: Kubectl, monkeypatch: pytest.MonkeyPatch
) -> None:
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "none"},
        "spec": {"hard": {"pods": "0"}},
    }
    place.apply(quota)
    # No controller is here to take it in.
    taken = json.dumps({"status": {"hard": {"pods": "0"}, "used": {"pods": "0"}}})
    place("patch", "quota", "none", "--subresource=status", "--type=merge", "--patch", taken)
    async with stage(place) as here:
        wanted = here.wanted()

        async def refused() -> bool:
            await here.arrange(wanted)
            return "exceeded quota" in here.pods.refused(here.key)

        # The admission of quotas hears of a new one by a watch.
        async with asyncio.timeout(30):
            while not await refused():
                await here.arrange(None)
                await here.until(lambda: here.pod() is None, "the pod to be gone")
        assert here.verdict(PATIENCE).result is CheckResult.INCONCLUSIVE
        assert listed(place, names.MANAGED_SELECTOR) == set()

        place("delete", "quota", "none")
        monkeypatch.setattr("inferencemodel_operator.rehearsal_pods._REST_SECONDS", 0.0)
        here.restart()

        async def made() -> bool:
            return bool(await here.arrange(wanted))

        async with asyncio.timeout(30):
            while not await made():
                assert "exceeded quota" in here.pods.refused(here.key)
        assert here.pods.refused(here.key) == ""


async def test_a_pod_of_a_predecessor_of_the_same_name_is_neither_believed_nor_touched(
    place: Kubectl,
) -> None:
    async with stage(place) as here:
        strange = copy.deepcopy(here.wanted())
        strange["metadata"]["ownerReferences"][0]["uid"] = "another"
        await here.server.create(PODS, strange)
        await here.until(lambda: here.cache.labelled_pods(here.key), "the pod to be seen")
        assert here.pod() is None
        await here.arrange(here.wanted())
        assert "does not belong to this InferenceModel" in here.pods.refused(here.key)
        await here.arrange(None)
        assert listed(place, names.MANAGED_SELECTOR) == {name(strange)}


async def test_an_action_is_taken_away_once_it_is_read(place: Kubectl) -> None:
    async with stage(place) as here:
        place("annotate", "inferencemodel/m", f"{names.ABORT_ANNOTATION}=15")
        live = place.get("inferencemodel", "m")["metadata"]
        await here.server.annotate(
            MODELS,
            *here.key,
            uid=live["uid"],
            version=int(live["resourceVersion"]),
            annotations={names.ABORT_ANNOTATION: None},
        )
        after = place.get("inferencemodel", "m")
        assert names.ABORT_ANNOTATION not in after["metadata"].get("annotations", {})
        assert after["metadata"]["generation"] == live["generation"]
