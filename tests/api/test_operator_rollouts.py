"""How a version gets from replica to replica, on a real API server; pods are stubs.

What is decided in each case is tested in tests/unit/operator/test_rollout.py. Here it is whether
the operator writes it, in which order, and reads what somebody asks for.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from model_poller.status import VersionState
from tests.api.models import AT_ONCE, Model, World, world
from tests.support.kubectl import Object, condition
from tests.support.operators import WRITES
from tests.support.pages import commands
from tests.support.pods import having, told
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devcluster.client import Api
    from tests.support.pages import Command
    from tests.support.pods import SimulatedPod

pytestmark = pytest.mark.api

AVAILABLE = VersionState.AVAILABLE
FETCHED = VersionState.FETCHED
RETIRED = VersionState.RETIRED

SERVES = having(1, 2)
ONE_THEN_ALL: dict[str, Any] = {}
WAITING: dict[str, Any] = {"steps": [{"replicas": 1, "pause": {}}]}


@pytest.fixture(scope="module")
def here(api_server: Api) -> Iterator[World]:
    with world(api_server) as made:
        yield made


@contextmanager
def serving(here: World, rollout: dict[str, Any], *, replicas: int = 3) -> Iterator[Model]:
    """A resource whose pods serve version 1."""
    with here.model(replicas=replicas, rollout=rollout) as model:
        for _ in range(replicas):
            pod = model.add_pod()
            pod.poller.tell(told({1: AVAILABLE}, target=1))
        model.until(lambda o: o["status"]["model"]["activeVersion"] == 1, what="version 1")
        model.roll_out()
        yield model


def upload(model: Model, *, does: bool = True) -> None:
    """Version 2 is on the disk of each pod, which serves version 1, and what it is told next."""
    for poller in model.pollers():
        if does:
            poller.serve = SERVES
        poller.tell(told({1: AVAILABLE, 2: FETCHED}, target=1))


def have(model: Model, number: int) -> list[SimulatedPod]:
    """The pods that are told a version."""
    return [pod for pod in model.pods if pod.target == str(number)]


def phase(model: Model, wanted: str) -> Object:
    return model.until(
        lambda o: o["status"]["model"]["rollout"]["phase"] == wanted,
        what=f"the rollout of {model.name} to be {wanted}",
    )


def act(model: Model, action: str, value: str) -> None:
    model.kubectl(
        *("annotate", "inferencemodel", model.name, "--overwrite"),
        f"inferencemodel.dev/{action}={value}",
    )


def until_read(model: Model, action: str) -> None:
    model.until(
        lambda o: f"inferencemodel.dev/{action}" not in o["metadata"].get("annotations", {}),
        what=f"the annotation {action} to be read",
    )


def notes(model: Model, reason: str) -> list[str]:
    """What Events say."""
    events = model.kubectl(
        *("get", "events", "-o", "json"),
        f"--field-selector=involvedObject.name={model.name},reason={reason}",
    )
    return [event["message"] for event in json.loads(events)["items"]]


def record(model: Model) -> dict[str, str]:
    data: dict[str, str] = model.child("configmap", "-versions")["data"]
    return data


def test_one_pod_has_it_first_and_then_all(here: World) -> None:
    with serving(here, ONE_THEN_ALL) as model:
        first = model.pollers()
        upload(model, does=False)
        eventually(lambda: len(have(model, 2)) == 1, what="one pod told of version 2")
        here.operator.until_quiet()
        assert len(have(model, 2)) == 1
        assert (record(model)["target"], record(model)["candidate"]) == ("1", "2")
        status = model.get()["status"]["model"]
        assert (status["targetVersion"], status["activeVersion"]) == (2, 1)
        for pod in have(model, 2):
            pod.poller.serve = SERVES
            pod.poller.tell(SERVES(2))
        eventually(lambda: len(have(model, 2)) == 3, what="all pods told of version 2")
        for poller in first:
            poller.tell(SERVES(2))
        found = phase(model, "Completed")
        assert found["status"]["model"]["activeVersion"] == 2
        assert record(model)["target"] == "2"
        assert "candidate" not in record(model)


def test_it_waits_for_a_promotion_that_is_taken_away(here: World) -> None:
    with serving(here, WAITING) as model:
        upload(model)
        found = phase(model, "Paused")
        assert condition(found, "RolloutPaused")["status"] == "True"
        assert condition(found, "Ready")["status"] == "True"
        assert len(have(model, 2)) == 1
        act(model, "promote", "2")
        until_read(model, "promote")
        phase(model, "Completed")
        assert len(have(model, 2)) == 3


def test_an_abort_sends_all_back_and_a_retry_tries_again(here: World) -> None:
    with serving(here, WAITING) as model:
        upload(model)
        phase(model, "Paused")
        act(model, "abort", "2")
        until_read(model, "abort")
        found = phase(model, "RolledBack")
        assert len(have(model, 1)) == 3
        assert condition(found, "ModelLoaded")["reason"] == "Aborted"
        quarantined = json.loads(record(model)["quarantined.json"])
        assert [entry["reason"] for entry in quarantined] == ["Aborted"]
        act(model, "retry", "2")
        until_read(model, "retry")
        phase(model, "Paused")
        assert len(have(model, 2)) == 1


def test_an_action_that_means_nothing_is_dropped_with_an_event(here: World) -> None:
    with serving(here, WAITING) as model:
        act(model, "promote", "7")
        until_read(model, "promote")
        eventually(
            lambda: [n for n in notes(model, "ActionDropped") if "version 7" in n],
            what="an Event that says so",
        )


def test_what_names_no_version_is_taken_away_and_does_nothing(here: World) -> None:
    actions = ("promote", "promote-full", "abort", "retry", "approve")
    with serving(here, WAITING, replicas=2) as model:
        upload(model)
        phase(model, "Paused")
        for text in ("", "two", "2 ", "-2", "9" * 400, "2\n2"):
            for action in actions:
                act(model, action, text)
            for action in actions:
                until_read(model, action)
        here.operator.until_quiet()
        phase(model, "Paused")
        assert len(have(model, 2)) == 1


def test_a_version_that_nodes_evict_twice_goes_to_no_third_pod(here: World) -> None:
    with serving(here, WAITING) as model:
        upload(model)
        for number in (1, 2):
            phase(model, "Paused")
            (pod,) = have(model, 2)
            pod.evict()
            if number == 1:
                model.pods.remove(pod)
                eventually(lambda: have(model, 2), what="another pod told of version 2")
        found = phase(model, "RolledBack")
        message = found["status"]["model"]["rollout"]["message"]
        assert message.startswith("2 pods were taken away by their nodes since they were given")
        quarantined = json.loads(record(model)["quarantined.json"])
        assert [entry["reason"] for entry in quarantined] == ["CrashedServing"]


def test_another_bucket_in_the_middle_ends_the_rollout_as_superseded(here: World) -> None:
    with serving(here, WAITING) as model:
        upload(model)
        phase(model, "Paused")
        before = {pod.name: pod.target for pod in model.pods}
        model.patch(model={"storageUri": "gs://models/other"})
        told = phase(model, "Superseded")["status"]["model"]["rollout"]
        assert "spec.model.storageUri is gs://models/other now" in told["message"]
        here.operator.until_quiet()
        assert phase(model, "Superseded")["status"]["model"]["rollout"] == told
        (note,) = notes(model, "RolloutSuperseded")
        assert told["message"] in note
        assert "candidate" not in record(model)
        assert "rollout.json" not in record(model)
        # What is about the former bucket is told nothing of the present one.
        assert {pod.name: pod.target for pod in model.pods} == before


def test_a_replica_that_comes_in_the_middle_begins_with_the_version_before(here: World) -> None:
    with serving(here, WAITING) as model:
        upload(model)
        phase(model, "Paused")
        model.patch(replicas=5)
        model.until_child("deployment", lambda d: d["spec"]["replicas"] == 5, what="5 replicas")
        for _ in range(2):
            model.add_pod().poller.tell(told({1: AVAILABLE, 2: FETCHED}, target=1))
        here.operator.until_quiet()
        assert (len(have(model, 2)), len(have(model, 1))) == (1, 4)
        phase(model, "Paused")


def test_a_restart_in_the_middle_goes_on_with_the_same_pod(here: World) -> None:
    with serving(here, WAITING) as model:
        upload(model)
        phase(model, "Paused")
        before = [pod.name for pod in have(model, 2)]
        here.operator.restart()
        here.operator.until_quiet()
        assert [pod.name for pod in have(model, 2)] == before
        phase(model, "Paused")


def test_a_step_that_only_waits_writes_nothing(here: World) -> None:
    with serving(here, WAITING) as model:
        upload(model)
        phase(model, "Paused")
        here.operator.until_quiet()
        before = model.get()["metadata"]["resourceVersion"]
        for poller in model.pollers():
            poller.tell(SERVES(poller.target or 1))
        here.operator.until_quiet()
        assert model.get()["metadata"]["resourceVersion"] == before


@pytest.mark.runbook("a-bad-version-everywhere")
def test_a_bad_version_on_all_replicas_is_left_and_held_off_by_the_command_of_the_runbook(
    here: World,
) -> None:
    (back, forward) = (
        command
        for command in commands(["kubectl", "patch"])
        if command.place.startswith("docs/runbooks.md") and '"version"' in command.words[-1]
    )
    with serving(here, AT_ONCE) as model:
        upload(model)
        model.until(lambda o: o["status"]["model"]["activeVersion"] == 2, what="version 2")
        pods = [pod["metadata"]["uid"] for pod in here.kubectl.list("pods")]

        patch(model, back)

        model.until(
            lambda o: (
                o["status"]["model"]["activeVersion"] == 1
                and o["status"]["model"]["transitionStatus"] == "UpToDate"
            ),
            what="version 1 on all replicas",
        )
        assert have(model, 1) == model.pods
        assert [pod["metadata"]["uid"] for pod in here.kubectl.list("pods")] == pods
        here.operator.restart()
        here.operator.until_quiet()
        assert have(model, 1) == model.pods, "the newest one stays away"

        for poller in model.pollers():
            poller.serve = having(1, 2, 3)
            poller.tell(told({1: AVAILABLE, 2: RETIRED, 3: FETCHED}, target=1))
        patch(model, forward)
        found = model.until(lambda o: o["status"]["model"]["activeVersion"] == 3, what="version 3")
        history = [entry["version"] for entry in found["status"]["model"]["history"]]
        assert history[:3] == [3, 1, 2]


def patch(model: Model, command: Command) -> None:
    """Run a command of the docs, about this model."""
    words = [word.replace("/imagenet", f"/{model.name}") for word in command.words]
    model.kubectl("patch", *words)


def writes_of_a_change(here: World, rollout: dict[str, Any]) -> int:
    """How often the operator writes anything while version 2 takes the place of version 1."""
    with serving(here, rollout) as model:
        here.operator.until_quiet()
        before = sum(here.operator.requests(*WRITES).values())
        upload(model)
        model.until(lambda o: o["status"]["model"]["activeVersion"] == 2, what="version 2")
        eventually(lambda: "candidate" not in record(model), what="the end of the rollout")
        here.operator.until_quiet()
        return sum(here.operator.requests(*WRITES).values()) - before


def test_steps_cost_few_writes_more_than_all_at_once(here: World) -> None:
    at_once = writes_of_a_change(here, AT_ONCE)
    in_steps = writes_of_a_change(here, ONE_THEN_ALL)
    print(f"{at_once} writes at once, {in_steps} in steps")
    assert in_steps <= at_once + 5
