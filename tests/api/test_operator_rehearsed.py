"""Versions that are rehearsed before any replica is told of them, by a whole operator."""

from __future__ import annotations

import itertools
import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import pytest

from inferencemodel_operator import names
from model_poller.status import VersionReason, VersionState
from tests.api.models import Model, World, world
from tests.support.pods import StubPoller, told
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devcluster.client import Api
    from tests.support.kubectl import Object

pytestmark = pytest.mark.api

AVAILABLE, FETCHED = VersionState.AVAILABLE, VersionState.FETCHED
PUBLISHED, QUARANTINED = VersionState.PUBLISHED, VersionState.QUARANTINED
REHEARSED: Final[dict[str, Any]] = {"steps": [], "rehearsal": {"enabled": True}}
_hosts = itertools.count(2)


@pytest.fixture(scope="module")
def here(api_server: Api) -> Iterator[World]:
    with world(api_server) as made:
        yield made


class RehearsalPod:
    """The pod that the operator has made, with the test as its kubelet."""

    def __init__(self, model: Model, found: Object) -> None:
        self.model, self.made = model, found
        self.name: str = found["metadata"]["name"]
        # A poller's port is always the same, so that each needs an address of its own.
        self.poller = StubPoller(f"127.86.{next(_hosts)}.1", names.POLLER_PORT)
        self.poller.model, self.poller.uri = model.name, f"gs://models/{model.name}"

    def set_status(self, **status: Any) -> None:
        """Say something as the scheduler or the kubelet would."""
        self.model.kubectl(
            *("patch", "pod", self.name, "--subresource=status", "--type=merge"),
            *("--patch", json.dumps({"status": status})),
        )

    def run(self, *, restarts: int = 0) -> RehearsalPod:
        """Have its containers run."""
        state = {"image": "none", "imageID": "none", "ready": True, "state": {"running": {}}}
        server = {"name": "model-server", "restartCount": restarts, **state}
        self.set_status(
            phase="Running",
            podIP=self.poller.host,
            podIPs=[{"ip": self.poller.host}],
            conditions=[
                {"type": "PodScheduled", "status": "True"},
                {"type": "Ready", "status": "False", "reason": "ReadinessGatesNotReady"},
            ],
            initContainerStatuses=[{"name": "poller", "restartCount": 0, **state}],
            containerStatuses=[server],
        )
        return self

    def tell(self, state: VersionState, reason: VersionReason | None = None) -> None:
        """Report how far the version is."""
        reasons = {2: (reason, "it is broken")} if reason else None
        states = {1: AVAILABLE, 2: state}
        self.poller.tell(told(states, target=2, reasons=reasons))

    @property
    def annotations(self) -> dict[str, str]:
        """What it is told."""
        found: dict[str, str] = self.made["metadata"]["annotations"]
        return found


def rehearsals(model: Model) -> list[Object]:
    """The pods that rehearse a version of it."""
    selector = f"--selector={names.REHEARSAL_LABEL}={model.name}"
    found: list[Object] = json.loads(model.kubectl("get", "pods", selector, "-o", "json"))["items"]
    return found


def until_gone(model: Model) -> None:
    eventually(lambda: rehearsals(model) == [], what="the rehearsal pod to be gone", within=20)


@contextmanager
def rehearsing(here: World) -> Iterator[tuple[Model, RehearsalPod]]:
    """A resource whose two pods serve version 1 and have fetched version 2, which is rehearsed."""
    with here.model(replicas=2, rollout=REHEARSED) as model:
        for _ in range(2):
            model.add_pod().poller.tell(told({1: AVAILABLE}, target=1))
        model.until(lambda o: o["status"]["model"]["activeVersion"] == 1, what="version 1")
        for replica in model.pods:
            replica.poller.tell(told({1: AVAILABLE, 2: FETCHED}, target=1))
        eventually(lambda: len(rehearsals(model)) == 1, what="the rehearsal pod", within=20)
        pod = RehearsalPod(model, rehearsals(model)[0])
        pod.poller.start()
        try:
            yield model, pod
        finally:
            pod.poller.stop()


def targets(model: Model) -> list[str | None]:
    return [pod.target for pod in model.pods]


def test_replicas_are_told_of_a_version_once_it_answers_where_nobody_asks(here: World) -> None:
    with rehearsing(here) as (model, pod):
        assert pod.annotations[names.TARGET_VERSION_ANNOTATION] == "2"
        assert pod.annotations[names.SERVED_VERSIONS_ANNOTATION] == "2,1"
        pod.run().tell(PUBLISHED)
        status = model.until(
            lambda o: o["status"]["model"]["rollout"]["phase"] == "Rehearsing",
            what="the rehearsal in the status",
        )["status"]
        assert (status["replicas"], status["readyReplicas"]) == (2, 2)
        assert status["model"]["activeVersion"] == 1
        here.operator.until_quiet(until_later=True)
        assert targets(model) == ["1", "1"]
        assert len(rehearsals(model)) == 1

        pod.tell(AVAILABLE)
        eventually(lambda: targets(model) == ["2", "2"], what="both to be told", within=20)
        until_gone(model)
        for replica in model.pods:
            replica.poller.tell(told({1: VersionState.RETIRED, 2: AVAILABLE}, target=2))
        rollout = model.until(
            lambda o: o["status"]["model"]["rollout"]["phase"] == "Completed", what="the end"
        )["status"]["model"]["rollout"]
        results = {check["name"]: check["result"] for check in rollout["checks"]}
        assert results["rehearsal"] == "Passed"
        page = here.operator.get("/metrics")
        assert 'rollout_checks_total{check="rehearsal",result="Passed"} 0.0' not in page


def test_one_that_fails_there_is_taken_back_and_no_replica_ever_hears_of_it(here: World) -> None:
    with rehearsing(here) as (model, pod):
        pod.run().tell(QUARANTINED, VersionReason.LOAD_FAILED)
        status = model.until(
            lambda o: o["status"]["model"]["rollout"]["phase"] == "RolledBack", what="the end"
        )["status"]["model"]
        (bad,) = status["quarantined"]
        assert (bad["version"], bad["reason"]) == (2, "RehearsalFailed")
        assert "it is broken" in bad["message"]
        until_gone(model)
        here.operator.until_quiet()
        assert targets(model) == ["1", "1"]


def test_what_brings_its_server_down_again_and_again_is_taken_back(here: World) -> None:
    with rehearsing(here) as (model, pod):
        pod.run().tell(PUBLISHED)
        pod.run(restarts=1)
        model.until(
            lambda o: o["status"]["model"]["rollout"]["phase"] == "Rehearsing", what="patience"
        )
        pod.run(restarts=2)
        model.until(
            lambda o: o["status"]["model"]["rollout"]["phase"] == "RolledBack", what="the end"
        )
        until_gone(model)
        assert targets(model) == ["1", "1"]


def test_an_operator_that_is_killed_finds_its_pod_and_takes_it_away_in_the_end(
    here: World,
) -> None:
    with rehearsing(here) as (model, pod):
        pod.run().tell(PUBLISHED)
        here.operator.kill()
        here.operator.start()
        here.operator.until_quiet(until_later=True)
        (found,) = rehearsals(model)
        assert found["metadata"]["uid"] == pod.made["metadata"]["uid"]
        here.operator.kill()
        model.patch(rollout={"rehearsal": {"enabled": False}})
        # Nobody but the operator would take it away.
        model.patch(suspend=True)
        here.operator.start()
        until_gone(model)


def test_while_it_only_waits_nothing_is_written(here: World) -> None:
    with rehearsing(here) as (model, pod):
        pod.run().tell(PUBLISHED)
        model.until(
            lambda o: o["status"]["model"]["rollout"]["phase"] == "Rehearsing", what="its phase"
        )
        here.operator.until_quiet(until_later=True)
        before = here.writes()
        model.kubectl("annotate", f"inferencemodel/{model.name}", "example.com/look=again")
        pod.set_status(message="the kubelet says something that means nothing")
        here.operator.until_quiet(until_later=True)
        assert here.writes() == before


def test_the_status_says_how_far_it_is_and_what_keeps_it_waiting(here: World) -> None:
    with rehearsing(here) as (model, pod):
        condition = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": "0/3 nodes are available: 3 Insufficient memory.",
        }
        pod.set_status(conditions=[condition])
        for words in ("3 Insufficient memory", "loads it"):
            model.until(
                lambda o, words=words: words in o["status"]["model"]["rollout"]["message"],  # type: ignore[misc]
                what=words,
            )
            pod.run().tell(PUBLISHED)


def test_an_abort_ends_it(here: World) -> None:
    with rehearsing(here) as (model, pod):
        pod.run().tell(PUBLISHED)
        model.kubectl("annotate", f"inferencemodel/{model.name}", f"{names.ABORT_ANNOTATION}=2")
        until_gone(model)
        assert targets(model) == ["1", "1"]
        model.until(
            lambda o: names.ABORT_ANNOTATION not in o["metadata"].get("annotations", {}),
            what="the annotation to be read",
        )


def test_another_pod_template_is_rehearsed_anew(here: World) -> None:
    with rehearsing(here) as (model, pod):
        pod.run().tell(PUBLISHED)
        model.patch(server={"resources": {"limits": {"memory": "1Gi"}}})
        eventually(
            lambda: [p["metadata"]["name"] for p in rehearsals(model)] not in ([], [pod.name]),
            what="another pod",
            within=20,
        )
        (found,) = (p for p in rehearsals(model) if p["metadata"]["name"] != pod.name)
        (server,) = found["spec"]["containers"]
        assert server["resources"]["limits"]["memory"] == "1Gi"
