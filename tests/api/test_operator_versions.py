"""Versions from the pods' reports to target and status, on a real API server.

No node runs there: a pod is a Pod object whose status the test sets, and its poller a stub that
speaks the poller's HTTP interface on 127.0.0.1 and tells what the test says.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec
import pytest

from model_poller.status import (
    NotificationsStatus,
    SourceReason,
    SourceState,
    SourceStatus,
    VersionReason,
    VersionState,
)
from tests.api.models import Model, World, world
from tests.support.kubectl import Object, condition
from tests.support.operators import WRITES
from tests.support.pods import told
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devcluster.client import Api
    from tests.support.pods import SimulatedPod

pytestmark = pytest.mark.api

AVAILABLE = VersionState.AVAILABLE
DISCOVERED = VersionState.DISCOVERED
FETCHED = VersionState.FETCHED
PUBLISHED = VersionState.PUBLISHED
QUARANTINED = VersionState.QUARANTINED
RETIRED = VersionState.RETIRED


@pytest.fixture(scope="module")
def here(api_server: Api) -> Iterator[World]:
    with world(api_server) as made:
        yield made


@contextmanager
def serving(here: World, *, replicas: int, version: int = 1) -> Iterator[Model]:
    """A resource all of whose pods serve one version."""
    with here.model(replicas=replicas) as model:
        for _ in range(replicas):
            model.add_pod().poller.tell(told({version: AVAILABLE}, target=version))
        until_active(model, version)
        yield model


def until_active(model: Model, version: int) -> Object:
    return model.until(
        lambda o: (
            o["status"]["model"]["activeVersion"] == version
            and o["status"]["model"]["transitionStatus"] == "UpToDate"
        ),
        what=f"version {version} active",
    )


def until_told(model: Model, version: int) -> None:
    eventually(
        lambda: all(pod.target == str(version) for pod in model.pods),
        what=f"all pods of {model.name} told to serve {version}",
        within=20,
    )


def test_the_first_version_that_one_pod_finds_is_told_to_all(here: World) -> None:
    with here.model(replicas=2) as model:
        first, second = model.add_pod(ready=False), model.add_pod(ready=False)
        second.poller.tell(told({}))
        first.poller.tell(told({7: DISCOVERED}))

        until_told(model, 7)

        data = model.child("configmap", "-versions")["data"]
        assert data["target"] == "7"
        status = model.until(
            lambda o: o["status"]["model"]["targetVersion"] == 7, what="the target in the status"
        )["status"]
        assert status["model"]["transitionStatus"] == "Pending"
        assert status["replicaSummary"] == "0/2"
        assert "activeVersion" not in status["model"]


def test_a_new_version_is_active_when_the_last_replica_has_it(here: World) -> None:
    with serving(here, replicas=3) as model:
        one, two, three = model.pollers()
        one.tell(told({1: AVAILABLE, 2: FETCHED}, target=1))
        until_told(model, 2)

        for poller in (one, two):
            poller.tell(told({1: RETIRED, 2: AVAILABLE}, target=2))
        half = model.until(
            lambda o: o["status"]["model"]["versions"][0]["replicas"] == 2, what="2 of 3 replicas"
        )
        assert half["status"]["model"]["activeVersion"] == 1
        assert half["status"]["model"]["transitionStatus"] == "InProgress"
        assert condition(half, "Reconciling")["reason"] in ("ChangingVersion", "RollingOut")

        three.tell(told({1: RETIRED, 2: AVAILABLE}, target=2))
        status = until_active(model, 2)["status"]
        assert status["model"]["versions"] == [
            {"version": 2, "state": "Available", "replicas": 3},
            {"version": 1, "state": "Retired", "replicas": 0},
        ]
        assert condition(model.get(), "ModelLoaded")["status"] == "True"


def test_a_pod_that_cannot_be_asked_is_named_and_holds_the_version_back(here: World) -> None:
    with serving(here, replicas=2) as model:
        known, lost = model.pods
        lost.poller.stop()
        unknown = model.until(
            lambda o: condition(o, "Ready")["status"] == "Unknown", what="Ready unknown"
        )
        assert condition(unknown, "Ready")["reason"] == "PollerUnreachable"
        assert lost.name in condition(unknown, "Ready")["message"]
        assert known.name not in condition(unknown, "Ready")["message"]
        assert unknown["status"]["model"]["transitionStatus"] == "Unknown"

        known.poller.tell(told({1: RETIRED, 2: AVAILABLE}, target=2))
        half = model.until(
            lambda o: o["status"]["model"]["versions"][0]["replicas"] == 1, what="2 on the other"
        )
        assert half["status"]["model"]["activeVersion"] == 1

        lost.poller.tell(told({1: RETIRED, 2: AVAILABLE}, target=2))
        lost.poller.start()
        until_active(model, 2)


def test_a_broken_version_is_left_for_the_one_before_and_remembered(here: World) -> None:
    with serving(here, replicas=2) as model:
        one, two = model.pollers()
        one.tell(told({1: AVAILABLE, 2: FETCHED}, target=1))
        until_told(model, 2)

        one.tell(
            told(
                {1: AVAILABLE, 2: QUARANTINED},
                target=2,
                reasons={2: (VersionReason.LOAD_FAILED, "no graph in it")},
            )
        )
        blocked = model.until(
            lambda o: o["status"]["model"]["transitionStatus"] == "BlockedByFailedLoad",
            what="blocked",
        )
        until_told(model, 1)

        status = blocked["status"]["model"]
        assert status["quarantined"] == [
            {"version": 2, "reason": "LoadFailed", "message": "no graph in it"}
        ]
        assert (status["activeVersion"], status["latestVersion"]) == (1, 2)
        assert condition(blocked, "ModelLoaded")["reason"] == "LoadFailed"
        assert condition(blocked, "Ready")["status"] == "True"

        # Another pod, which knows nothing of it, and another operator.
        two.tell(told({1: AVAILABLE, 2: FETCHED}, target=1))
        model.pods[0].delete()
        here.operator.restart()
        until_told_by_record(model, "1")
        here.operator.until_quiet()
        assert model.pods[1].target == "1"

        # Nor is it forgotten with the memory: the pods have been told it.
        here.kubectl("delete", "configmap", f"{model.name}-versions")
        until_told_by_record(model, "1")
        here.operator.until_quiet()
        assert model.pods[1].target == "1"
        assert model.get()["status"]["model"]["quarantined"] == status["quarantined"]

        two.tell(told({1: AVAILABLE, 2: FETCHED}, target=1, fingerprints={2: "repaired"}))
        eventually(lambda: model.pods[1].target == "2", what="the repaired version", within=20)
        model.until(lambda o: "quarantined" not in o["status"]["model"], what="no quarantine")


def until_told_by_record(model: Model, target: str) -> None:
    model.until_child(
        "configmap",
        lambda o: o["data"]["target"] == target,
        what=f"target {target} in the record",
        suffix="-versions",
    )


def test_a_version_that_crashes_the_model_server_is_left_for_one_that_does_not(
    here: World,
) -> None:
    with serving(here, replicas=1) as model:
        (pod,) = model.pods
        pod.poller.tell(told({1: RETIRED, 2: PUBLISHED}, target=2, reachable=False))
        until_told(model, 2)

        pod.set_status(ready=False, restarts=1)
        here.operator.until_quiet()
        assert pod.target == "2"
        pod.set_status(ready=False, restarts=2)

        until_told(model, 1)
        found = model.until(
            lambda o: condition(o, "ModelLoaded")["reason"] == "CrashedServing", what="told"
        )
        assert "ended 2 times" in condition(found, "ModelLoaded")["message"]
        pod.poller.tell(told({1: PUBLISHED, 2: FETCHED}, target=1, reachable=False))
        here.operator.restart()
        here.operator.until_quiet()
        assert pod.target == "1", "the restarts during version 2 are not held against version 1"


def test_a_model_server_that_never_answered_speaks_against_no_version(here: World) -> None:
    with here.model(replicas=1) as model:
        pod = model.add_pod(ready=False)
        pod.poller.tell(told({1: FETCHED, 2: PUBLISHED}, target=2, reachable=False))
        until_told(model, 2)
        pod.set_status(ready=False, restarts=9)
        model.until(lambda o: condition(o, "Ready")["reason"] == "ServerCrashed", what="told")
        here.operator.until_quiet()
        assert pod.target == "2"
        assert "quarantined" not in model.get()["status"]["model"]


def test_every_pod_is_told_what_is_served_and_what_failed_elsewhere(here: World) -> None:
    with serving(here, replicas=2, version=2) as model:
        model.patch(model={"numVersions": 2, "retainVersions": 3})
        one, two = model.pollers()
        one.tell(told({1: RETIRED, 2: AVAILABLE, 3: QUARANTINED}, target=2))
        two.tell(told({1: RETIRED, 2: AVAILABLE, 3: DISCOVERED}, target=2))
        wanted = {"target-version": "2", "served-versions": "2,1", "quarantined-versions": "3@f3"}

        def assigned(pod: SimulatedPod) -> dict[str, str]:
            annotations = here.kubectl.get("pod", pod.name)["metadata"]["annotations"]
            return {name: annotations[f"inferencemodel.dev/{name}"] for name in wanted}

        later = model.add_pod(ready=False)
        eventually(
            lambda: all(assigned(pod) == wanted for pod in (*model.pods, later)),
            what="all pods told the same",
            within=20,
        )
        data = model.child("configmap", "-versions")["data"]
        assert {key: data[key] for key in ("target", "served", "quarantined")} == {
            "target": "2",
            "served": "2,1",
            "quarantined": "3@f3",
        }
        model.until(
            lambda o: o["status"]["model"]["servedVersions"] == [2, 1], what="told in the status"
        )


def test_a_pinned_version_is_followed_down_and_up(here: World) -> None:
    with serving(here, replicas=1, version=3) as model:
        (poller,) = model.pollers()
        poller.tell(told({2: RETIRED, 3: AVAILABLE}, target=3))
        model.patch(model={"version": 2})
        until_told(model, 2)
        poller.tell(told({2: AVAILABLE, 3: RETIRED}, target=2))
        until_active(model, 2)

        model.patch(model={"version": None})
        until_told(model, 3)


@pytest.mark.runbook("bucket-deleted-and-restored")
def test_a_wiped_bucket_takes_nothing_back(here: World) -> None:
    with serving(here, replicas=1, version=5) as model:
        wiped = SourceStatus(
            uri="gs://models/m",
            state=SourceState.READY,
            reason=SourceReason.NO_VERSION_FOUND,
            message="no version in gs://models/m",
        )
        report = told({5: AVAILABLE}, target=5, source=wiped)
        gone = tuple(msgspec.structs.replace(v, in_source=False) for v in report.versions)
        model.pollers()[0].tell(msgspec.structs.replace(report, versions=gone))

        found = model.until(
            lambda o: condition(o, "SourceReady")["reason"] == "NoVersionFound", what="told"
        )
        assert condition(found, "SourceReady")["status"] == "False"
        assert found["status"]["model"]["targetVersion"] == 5
        assert found["status"]["model"]["activeVersion"] == 5
        assert condition(found, "Ready")["status"] == "True"


def test_a_subscription_that_is_gone_is_told_while_the_bucket_is_listed(here: World) -> None:
    with serving(here, replicas=1) as model:
        down = SourceStatus(
            uri="gs://models/m",
            state=SourceState.READY,
            reason=SourceReason.LISTED,
            notifications=NotificationsStatus(connected=False, message="no subscription s"),
        )
        model.pollers()[0].tell(told({1: AVAILABLE}, target=1, source=down))

        found = model.until(
            lambda o: condition(o, "SourceReady")["reason"] == "NotificationsDown", what="told"
        )
        assert condition(found, "SourceReady")["status"] == "True"
        assert "no subscription s" in condition(found, "SourceReady")["message"]


def test_a_restart_of_the_operator_with_pods_that_serve_writes_nothing(here: World) -> None:
    with serving(here, replicas=3) as model:
        here.operator.until_quiet()
        before = model.get()

        here.operator.restart()
        eventually(
            lambda: "inferencemodel_operator_long_polls 3.0" in here.operator.get("/metrics"),
            what="3 pods to be asked",
        )
        here.operator.until_quiet()

        assert here.operator.requests(*WRITES, "get") == {}
        assert model.get() == before


def test_a_restart_of_the_operator_with_pods_that_wait_for_a_version_writes_nothing(
    here: World,
) -> None:
    with here.model(replicas=2) as model:
        empty = SourceStatus(
            uri="gs://models/m",
            state=SourceState.READY,
            reason=SourceReason.NO_VERSION_FOUND,
            message="no version in gs://models/m",
        )
        for _ in range(2):
            model.add_pod(ready=False).poller.tell(told({}, source=empty))
        model.until(
            lambda o: condition(o, "Ready")["reason"] == "WaitingForVersion", what="waiting"
        )
        here.operator.until_quiet()
        before = model.get()

        here.operator.restart()
        eventually(
            lambda: "inferencemodel_operator_long_polls 2.0" in here.operator.get("/metrics"),
            what="2 pods to be asked",
        )
        here.operator.until_quiet()

        assert here.operator.requests(*WRITES, "get") == {}
        assert model.get() == before


def test_a_restart_in_the_middle_of_a_change_goes_on_with_it(here: World) -> None:
    with serving(here, replicas=2) as model:
        one, two = model.pollers()
        here.operator.stop()
        one.tell(told({1: RETIRED, 2: AVAILABLE}, target=2))
        two.tell(told({1: AVAILABLE, 2: FETCHED}, target=1))

        here.operator.start()

        until_told(model, 2)
        assert model.get()["status"]["model"]["activeVersion"] == 1
        two.tell(told({1: RETIRED, 2: AVAILABLE}, target=2))
        until_active(model, 2)


def test_a_pod_that_goes_away_counts_no_more(here: World) -> None:
    with serving(here, replicas=2) as model:
        _, leaving = model.pods
        leaving.poller.tell(told({1: RETIRED, 2: AVAILABLE}, target=2))
        leaving.delete()

        model.until(lambda o: o["status"]["replicaSummary"] == "1/2", what="one of two")
        eventually(
            lambda: "inferencemodel_operator_long_polls 1.0" in here.operator.get("/metrics"),
            what="one pod to be asked",
        )


def test_each_change_is_one_event(here: World) -> None:
    with serving(here, replicas=1) as model:
        model.pollers()[0].tell(told({1: RETIRED, 2: AVAILABLE}, target=2))
        until_active(model, 2)
        model.pollers()[0].tell(told({1: RETIRED, 2: AVAILABLE, 3: DISCOVERED}, target=2))
        until_told(model, 3)
        here.operator.restart()
        here.operator.until_quiet()

        def notes() -> list[str]:
            events = model.kubectl.list("events.events.k8s.io")
            return sorted(
                e["note"]
                for e in events
                if e["regarding"]["name"] == model.name and e["reason"] == "VersionActivated"
            )

        assert notes() == [
            "version 1 answers on all replicas",
            "version 2 answers on all replicas instead of version 1",
        ]


def test_a_pod_that_has_not_heard_what_it_is_to_serve_is_told_again(here: World) -> None:
    with serving(here, replicas=3) as model:
        one, deaf, three = model.pods
        deaf.poller.misses = 1
        one.poller.tell(told({1: AVAILABLE, 2: FETCHED}, target=1))
        until_told(model, 2)

        eventually(lambda: deaf.poller.target == 2, what="version 2 heard of", within=20)

        here.operator.until_quiet(until_later=True)  # Nobody else finds the version.
        assert [pod.attempt for pod in (one, deaf, three)] == [None, "1", None]
        assert "assignments_repeated_total 1.0" in here.operator.get("/metrics")


def test_a_suspended_resource_moves_no_pod_but_tells_what_is(here: World) -> None:
    with serving(here, replicas=1) as model:
        model.patch(suspend=True)
        model.until(lambda o: condition(o, "Reconciling")["reason"] == "Suspended", what="told")
        model.pollers()[0].tell(told({1: AVAILABLE, 2: FETCHED}, target=1))

        found = model.until(
            lambda o: o["status"]["model"]["latestVersion"] == 2, what="version 2 seen"
        )
        assert found["status"]["model"]["targetVersion"] == 1
        assert model.pods[0].target == "1"

        model.patch(suspend=False)
        until_told(model, 2)


def test_a_burst_of_changes_is_few_writes_and_a_true_end(here: World) -> None:
    with serving(here, replicas=1) as model:
        here.operator.until_quiet()
        before = len(here.writes())
        changes = 60

        for number in range(2, 2 + changes):
            model.pollers()[0].tell(told({1: AVAILABLE, number: DISCOVERED}, target=1))
        last = 1 + changes
        model.until(
            lambda o: o["status"]["model"]["targetVersion"] == last, what="the last version"
        )
        here.operator.until_quiet()

        statuses = [write for write in here.writes()[before:] if "/status?" in write]
        assert len(statuses) < changes / 2
        assert model.get()["status"]["model"]["latestVersion"] == last
