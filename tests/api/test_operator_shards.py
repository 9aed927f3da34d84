"""Two operators that share a namespace by a label, on a real API server: each model has one."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from model_poller.status import VersionState
from tests.api.models import Model
from tests.support import crd
from tests.support.controllers import DeploymentController
from tests.support.kubectl import Kubectl
from tests.support.kubelet import Kubelet
from tests.support.operators import WRITES, Operator
from tests.support.pages import commands
from tests.support.pods import told
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devcluster.client import Api
    from tests.support.rendering import Programs

pytestmark = pytest.mark.api

LABEL = "inferencemodel.dev/shard"


class Place:
    """A namespace for models, and for the Leases of their operators."""

    def __init__(self, api: Api, kubectl: Kubectl, kubelet: Kubelet) -> None:
        self.api = api
        self.kubectl = kubectl
        self.kubelet = kubelet

    def operator(self, selector: str, *arguments: str) -> Operator:
        """One that serves the models with some labels."""
        return self.with_arguments(f"--selector={LABEL}{selector}", *arguments)

    def with_arguments(self, *arguments: str) -> Operator:
        """One over this namespace, with its Lease there."""
        namespace = self.kubectl.namespace
        assert namespace
        given = ("--poller-access=direct", f"--lease-namespace={namespace}")
        return Operator(self.kubectl.kubeconfig, (namespace,), (*given, *arguments))

    @contextmanager
    def served(self, shard: str) -> Iterator[Model]:
        """A model of a shard whose two pods answer with version 1."""
        model = Model(self.kubectl, kubelet=self.kubelet)
        manifest = model.manifest(replicas=2)
        manifest["metadata"]["labels"] = {LABEL: shard}
        self.kubectl.apply(manifest)
        try:
            model.until_reported()
            for _ in range(2):
                pod = model.add_pod()
                pod.poller.tell(told({1: VersionState.AVAILABLE}, target=1))
            model.roll_out()
            model.until(is_ready, what="it to be ready")
            yield model
        finally:
            model.delete()


@pytest.fixture
def place(api_server: Api) -> Iterator[Place]:
    with crd.installed(api_server) as namespace:
        kubectl = Kubectl(api_server.program, api_server.kubeconfig, namespace)
        with Kubelet(kubectl) as kubelet, DeploymentController(api_server.kubeconfig, namespace):
            yield Place(api_server, kubectl, kubelet)


def is_ready(model: dict[str, Any]) -> bool:
    conditions = {c["type"]: c["status"] for c in model["status"]["conditions"]}
    return conditions["Ready"] == "True" and bool(model["status"]["model"]["activeVersion"] == 1)


def move(model: Model, shard: str) -> None:
    model.kubectl("label", "inferencemodel", model.name, f"{LABEL}={shard}", "--overwrite")


def metric(operator: Operator, name: str) -> float:
    prefix = f"inferencemodel_operator_{name} "
    lines = (line for line in operator.get("/metrics").splitlines() if line.startswith(prefix))
    return float(next(lines).rpartition(" ")[2])


def asks(operator: Operator, pods: int) -> bool:
    return metric(operator, "long_polls") == pods


class Statuses:
    """All statuses that a model has had while the block runs, as its watch brings them."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self.seen: list[dict[str, Any]] = []
        self._over = threading.Event()

    def __enter__(self) -> Statuses:
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.is_set():
            status = self._model.get()["status"]
            if not self.seen or status != self.seen[-1]:
                self.seen.append(status)


def test_shards_in_one_namespace_both_lead_and_a_model_moves_by_its_label(place: Place) -> None:
    with place.operator("=blue") as blue, place.operator("=green") as green:
        for operator in (blue, green):
            eventually(
                lambda o=operator: metric(o, "leading"),  # type: ignore[misc]
                what="both to lead",
                within=20,
            )
        with place.served("blue") as model:
            eventually(lambda: asks(blue, 2), what="blue to ask the pods", within=20)
            assert asks(green, 0)
            before = model.child("deployment")
            with Statuses(model) as statuses:
                move(model, "green")
                eventually(lambda: asks(green, 2), what="green to ask the pods", within=20)
                eventually(lambda: asks(blue, 0), what="blue to ask nobody", within=20)
                green.until_quiet(until_later=True)
                blue.until_quiet(until_later=True)
            assert all(is_ready({"status": status}) for status in statuses.seen)
            assert {status["replicaSummary"] for status in statuses.seen} == {"2/2"}
            after = model.child("deployment")
            assert after["spec"] == before["spec"]
            assert after["metadata"]["annotations"] == before["metadata"]["annotations"]

            writes = blue.requests(*WRITES)
            model.patch(replicas=3)
            model.until_child("deployment", lambda o: o["spec"]["replicas"] == 3, what="3 replicas")
            green.until_quiet(until_later=True)
            assert _besides_leases(blue.requests(*WRITES)) == _besides_leases(writes)

            move(model, "blue")
            eventually(lambda: asks(blue, 2), what="blue to ask them again", within=20)
            model.patch(replicas=4)
            model.until_child("deployment", lambda o: o["spec"]["replicas"] == 4, what="4 replicas")


def test_a_model_of_two_selectors_is_served_by_the_older_operator_and_then_by_the_other(
    place: Place,
) -> None:
    with place.operator("=blue") as blue:
        eventually(lambda: metric(blue, "leading"), what="blue to lead", within=20)
        with place.served("blue") as model, place.operator(" in (blue,green)") as both:
            left = 'overlapping_inferencemodels{outcome="left"}'
            eventually(lambda: metric(both, left) == 1, what="it to be left to blue", within=30)
            assert "serves them: let the selectors or namespaces exclude" in both.log()
            served = 'overlapping_inferencemodels{outcome="served"}'
            eventually(lambda: metric(blue, served) == 1, what="blue to say so, too", within=40)
            model.patch(replicas=3)
            model.until_child("deployment", lambda o: o["spec"]["replicas"] == 3, what="3 replicas")
            both.until_quiet(until_later=True)
            assert _besides_leases(both.requests(*WRITES)) == {}
            assert asks(both, 0)

            blue.kill()
            eventually(lambda: asks(both, 2), what="the other one to take over", within=60)
            assert metric(both, left) == 0
            model.patch(replicas=4)
            model.until_child("deployment", lambda o: o["spec"]["replicas"] == 4, what="4 replicas")


def test_an_operator_that_would_stand_by_for_another_selector_says_so(place: Place) -> None:
    with (
        place.operator("=blue", "--lease-name=same") as blue,
        place.operator("=green", "--lease-name=same") as green,
    ):
        eventually(
            lambda: "give each a --lease-name of its own" in green.log(),
            what="the mistake to be named",
            within=30,
        )
        assert metric(blue, "leading")
        assert not metric(green, "leading")


def _besides_leases(requests: dict[str, int]) -> dict[str, int]:
    return {name: count for name, count in requests.items() if not name.endswith("leases")}


def _told() -> dict[str, dict[str, str]]:
    """The options of the two releases that docs/scale.md installs, by the releases' names."""
    found = {}
    for command in commands(["helm", "install"]):
        if command.place.startswith("docs/scale.md") and not command.partial:
            release, _, *options = command.words
            found[release] = dict(o.partition("=")[::2] for o in options)
    return found


def test_the_two_shards_of_the_docs_serve_each_model_once(place: Place, programs: Programs) -> None:
    releases = _told()
    assert list(releases) == ["blue", "green"]
    operators = {}
    for release, options in releases.items():
        assert options["--namespace"] == "inferencemodel-system"
        values = options["--set"]
        chart = programs.chart(values, release=release)
        (container,) = chart[
            "Deployment", options["--namespace"], f"{release}-inferencemodel-operator"
        ]["spec"]["template"]["spec"]["containers"]
        chosen = [a for a in container["args"] if a.startswith(("--selector=", "--lease-name="))]
        assert len(chosen) == 2
        operators[release] = place.with_arguments(*chosen)
    with (
        operators["blue"] as blue,
        operators["green"] as green,
        place.served("blue") as one,
        place.served("none") as other,
    ):
        eventually(lambda: asks(blue, 2) and asks(green, 2), what="each to have one", within=20)
        for model in (one, other):
            model.patch(replicas=3)
            model.until_child("deployment", lambda o: o["spec"]["replicas"] == 3, what="3 replicas")
        for operator in (blue, green):
            assert metric(operator, 'overlapping_inferencemodels{outcome="left"}') == 0
