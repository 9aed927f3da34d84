"""Another poller image on a real API server: who gets it when; the test plays the rollouts."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING

import pytest

from model_poller.status import VersionState
from tests.api.models import Model
from tests.support import crd
from tests.support.kubectl import Kubectl, Object, condition
from tests.support.operators import WRITES, Operator
from tests.support.pods import told
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devcluster.client import Api

pytestmark = pytest.mark.api

LIMIT = 5
Name = tuple[str, str]


class Fleet:
    """InferenceModels in two namespaces, and the Deployment controller that they would have."""

    def __init__(self, api: Api, namespaces: tuple[str, str]) -> None:
        self.namespaces = namespaces
        self.kubectl = Kubectl(api.program, api.kubeconfig)
        self.operator = Operator(api.kubeconfig, namespaces)

    def run(self, image: str) -> None:
        """End the operator, and start it with another poller image."""
        self.operator.stop()
        arguments = ("--poller-access=direct", f"--poller-image={image}")
        self.operator.arguments = arguments
        self.operator.start()

    def create(self, names: list[Name]) -> None:
        items = [
            {
                "apiVersion": "inferencemodel.dev/v1alpha1",
                "kind": "InferenceModel",
                "metadata": {"namespace": namespace, "name": name},
                "spec": {"model": {"storageUri": "gs://models/m"}, "replicas": 2},
            }
            for namespace, name in names
        ]
        self.kubectl.apply({"apiVersion": "v1", "kind": "List", "items": items})
        eventually(lambda: len(self.deployments()) == len(names), what="Deployments", within=30)

    def deployments(self) -> dict[Name, Object]:
        """All Deployments, in the order of their names."""
        found = {
            (namespace, obj["metadata"]["name"]): obj
            for namespace in self.namespaces
            for obj in self.kubectl.in_namespace(namespace).list("deployments")
        }
        return dict(sorted(found.items()))

    def have(self, image: str) -> list[Name]:
        """Whose template has a poller image."""
        return [name for name, obj in self.deployments().items() if poller(obj)["image"] == image]

    def until_have(self, image: str, names: list[Name]) -> None:
        eventually(lambda: self.have(image) == names, what=f"{image} for {names}", within=20)

    def moving(self, image: str) -> list[Name]:
        """Whose template has an image and is not rolled out."""
        return [
            name
            for name, obj in self.deployments().items()
            if poller(obj)["image"] == image and not rolled_out(obj)
        ]

    def roll_out(self, name: Name) -> None:
        numbers = ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas")
        replicas = self.get("deployment", name)["spec"]["replicas"]
        self.set_status(name, **dict.fromkeys(numbers, replicas))

    def overrun(self, name: Name) -> None:
        """Let the deadline of a rollout pass."""
        overrun = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}
        self.set_status(name, replicas=3, updatedReplicas=1, conditions=[overrun])

    def set_status(self, name: Name, **status: object) -> None:
        generation = self.get("deployment", name)["metadata"]["generation"]
        patch = {"status": {"observedGeneration": generation, **status}}
        self.of(name)(
            *("patch", "deployment", name[1], "--subresource=status", "--type=merge"),
            *("--patch", json.dumps(patch)),
        )

    def patch(self, kind: str, name: Name, patch: Object) -> None:
        self.of(name)("patch", kind, name[1], "--type=merge", "--patch", json.dumps(patch))

    def get(self, kind: str, name: Name) -> Object:
        return self.of(name).get(kind, name[1])

    def of(self, name: Name) -> Kubectl:
        return self.kubectl.in_namespace(name[0])

    def count(self, state: str) -> int:
        """What a metric tells."""
        prefix = f'inferencemodel_operator_template_updates{{state="{state}"}} '
        (line,) = [line for line in self.operator.get("/metrics").splitlines() if prefix in line]
        return int(float(line.removeprefix(prefix)))


def poller(deployment: Object) -> Object:
    (container,) = deployment["spec"]["template"]["spec"]["initContainers"]
    typed: Object = container
    return typed


def rolled_out(deployment: Object) -> bool:
    status, generation = deployment.get("status", {}), deployment["metadata"]["generation"]
    fresh: bool = status.get("observedGeneration") == generation
    return fresh and status.get("availableReplicas", 0) >= deployment["spec"]["replicas"]


@pytest.fixture
def fleet(api_server: Api) -> Iterator[Fleet]:
    with crd.installed(api_server) as first, crd.installed(api_server) as second:
        made = Fleet(api_server, (first, second))
        with made.operator:
            made.run("poller:1")
            yield made


def named(fleet: Fleet, count: int) -> list[Name]:
    return sorted((fleet.namespaces[n % 2], f"m{n:02}") for n in range(count))


def test_another_poller_image_is_rolled_out_to_five_models_at_a_time_in_order(
    fleet: Fleet,
) -> None:
    names = named(fleet, 30)
    fleet.create(names)
    assert fleet.have("poller:1") == names, "new models wait for nobody"
    for name in names:
        fleet.roll_out(name)

    fleet.run("poller:2")

    luck, restarted = random.Random(7), False
    begun, moving = LIMIT, names[:LIMIT]
    while moving:
        fleet.until_have("poller:2", names[:begun])
        fleet.operator.until_quiet()
        assert fleet.have("poller:2") == names[:begun]
        assert fleet.moving("poller:2") == sorted(moving)
        assert fleet.count("active") == len(moving)
        assert fleet.count("pending") == len(names) - begun
        if begun >= 15 and not restarted:
            fleet.operator.restart()
            restarted = True
            continue
        there = luck.sample(moving, k=luck.randint(1, len(moving)))
        for name in there:
            fleet.roll_out(name)
        begun, before = min(len(names), begun + len(there)), begun
        moving = [name for name in [*moving, *names[before:begun]] if name not in there]
    eventually(lambda: fleet.count("active") == 0, what="the end", within=20)
    annotations = [o["metadata"]["annotations"] for o in fleet.deployments().values()]
    assert not any("inferencemodel.dev/held-template" in a for a in annotations)


def test_those_that_wait_are_as_their_users_want_them_and_no_pod_is_touched(fleet: Fleet) -> None:
    names = named(fleet, 8)
    fleet.create(names)
    for name in names:
        fleet.roll_out(name)
    scaled, edited, changed = names[LIMIT:]
    served = Model(fleet.of(edited), edited[1])
    for _ in range(2):
        served.add_pod().poller.tell(told({1: VersionState.AVAILABLE}, target=1))
    until_settled(served, "Settled")
    fleet.operator.until_quiet()
    before = fleet.deployments()

    fleet.run("poller:2")
    fleet.operator.until_quiet()

    held = fleet.deployments()
    assert all(held[name]["spec"] == before[name]["spec"] for name in names[LIMIT:])
    # The controller takes notice of the annotation, which a Deployment's generation counts, too.
    fleet.roll_out(edited)
    until_settled(served, "AwaitingTurn")

    fleet.patch("inferencemodel", scaled, {"spec": {"replicas": 3}})
    eventually(lambda: fleet.get("deployment", scaled)["spec"]["replicas"] == 3, what="3 replicas")
    template = fleet.get("deployment", scaled)["spec"]["template"]
    assert template == before[scaled]["spec"]["template"]

    mine = json.dumps([{"op": "replace", "path": POLLER_IMAGE, "value": "mine:1"}])
    fleet.of(edited)("patch", "deployment", edited[1], "--type=json", "--patch", mine)
    eventually(
        lambda: poller(fleet.get("deployment", edited))["image"] == "poller:1",
        what="what it had before somebody's edit",
    )
    assert fleet.get("deployment", edited)["spec"] == before[edited]["spec"]

    fleet.patch("inferencemodel", changed, {"spec": {"server": {"image": "tf:2"}}})
    fleet.until_have("poller:2", [*names[:LIMIT], changed])
    fleet.operator.until_quiet()
    assert fleet.have("poller:2") == [*names[:LIMIT], changed]

    fleet.operator.restart()
    fleet.operator.until_quiet()
    assert fleet.operator.requests(*WRITES) == {}
    served.delete()


def until_settled(model: Model, reason: str) -> None:
    """Wait until nothing of the spec is under way, for that reason."""
    found = model.until(lambda o: condition(o, "Reconciling")["reason"] == reason, what=reason)
    assert condition(found, "Reconciling")["status"] == "False"
    assert condition(found, "Ready")["status"] == "True"


POLLER_IMAGE = "/spec/template/spec/initContainers/0/image"


@pytest.mark.runbook("a-stuck-rollout")
def test_one_that_fails_stops_the_others_and_says_so(fleet: Fleet) -> None:
    names = named(fleet, 12)
    fleet.create(names)
    for name in names:
        fleet.roll_out(name)
    fleet.run("poller:2")
    fleet.until_have("poller:2", names[:LIMIT])

    failed, *others = names[:LIMIT]
    fleet.overrun(failed)
    eventually(lambda: fleet.count("failed") == 1, what="the failure counted", within=20)
    for name in others:
        fleet.roll_out(name)
    fleet.operator.until_quiet()

    assert fleet.have("poller:2") == names[:LIMIT]
    assert f"{failed[0]}/{failed[1]}" in fleet.operator.log()
    assert "the update of pod templates stops" in fleet.operator.log()
    fleet.operator.restart()
    fleet.operator.until_quiet()
    assert fleet.have("poller:2") == names[:LIMIT], "a restart begins nothing new"

    fleet.patch("inferencemodel", failed, {"spec": {"suspend": True}})
    fleet.until_have("poller:2", names[: LIMIT + LIMIT])
