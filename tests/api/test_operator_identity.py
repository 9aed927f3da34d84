"""Only an InferenceModel's own pods, with its own source, speak for its versions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from model_poller.status import VersionState
from tests.api.models import Model, World, world
from tests.support.pods import SimulatedPod, told

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devcluster.client import Api
    from tests.support.kubectl import Object

pytestmark = pytest.mark.api

A = VersionState.AVAILABLE


@pytest.fixture(scope="module")
def here(api_server: Api) -> Iterator[World]:
    with world(api_server) as made:
        yield made


@pytest.fixture
def served(here: World) -> Iterator[Model]:
    """A model whose two pods serve version 1."""
    with here.model(replicas=2) as model:
        for _ in range(2):
            model.add_pod().poller.tell(told({1: A}, target=1))
        until_up_to_date(model)
        yield model


def until_up_to_date(model: Model) -> None:
    model.until(
        lambda o: (
            o["status"]["observedGeneration"] == o["metadata"]["generation"]
            and o["status"]["model"]["transitionStatus"] == "UpToDate"
        ),
        what="version change over",
    )


def conditions(obj: Object) -> dict[str, str]:
    return {c["type"]: c["status"] for c in obj["status"]["conditions"]}


def test_a_successor_of_the_same_name_has_nothing_of_its_predecessors_pods(
    here: World, served: Model
) -> None:
    # Children go before pods and ReplicaSets, as the garbage collector has it.
    served.kubectl("delete", "inferencemodel", served.name)
    served.kubectl("delete", *served.children(), f"poddisruptionbudget/{served.name}")
    served.apply(replicas=2, model={"storageUri": "gs://another/bucket"})
    served.until_reported()
    here.operator.until_quiet()
    found = served.get()
    assert conditions(found)["Ready"] == "False"
    assert conditions(found)["ModelLoaded"] != "True"
    assert found["status"]["replicas"] == 0
    assert found["status"]["model"].keys() == {"name", "storageUri", "store", "transitionStatus"}


def test_after_a_change_of_the_source_nothing_is_said_before_its_own_pods_say_it(
    here: World, served: Model
) -> None:
    served.patch(model={"storageUri": "gs://another/bucket"})
    served.until_reported()
    here.operator.until_quiet()
    found = served.get()
    status = conditions(found)
    assert {status[c] for c in ("Ready", "SourceReady", "ModelLoaded")} <= {"False", "Unknown"}
    assert status["Reconciling"] == "True"
    assert found["status"]["model"]["transitionStatus"] == "Pending"
    assert "activeVersion" not in found["status"]["model"]
    assert "targetVersion" not in found["status"]["model"]

    old = list(served.pods)
    for number in (1, 2):
        pod = SimulatedPod(served.kubectl, served.name, f"{served.name}-new-{number}", "t2")
        served.pods.append(pod)
        pod.create().poller.tell(told({1: A}, target=1))
    for pod in old:
        pod.delete()
    until_up_to_date(served)
    assert served.get()["status"]["model"]["activeVersion"] == 1


@pytest.mark.parametrize("owned", [False, True], ids=["no owner", "an owner of its own"])
def test_a_pod_that_merely_carries_the_labels_decides_nothing(
    here: World, served: Model, owned: bool
) -> None:
    stranger = SimulatedPod(served.kubectl, served.name, f"{served.name}-stranger")
    served.pods.append(stranger)
    owner = {"apiVersion": "v1", "kind": "ReplicaSet", "name": "x", "uid": "y", "controller": True}
    stranger.create(owners=[owner] if owned else []).poller.tell(told({999: A}, target=999))
    here.operator.until_quiet()

    found = served.get()["status"]
    assert found["replicas"] == 2
    assert found["model"]["targetVersion"] == found["model"]["activeVersion"] == 1
    assert served.child("configmap", "-versions")["data"]["target"] == "1"
    assert stranger.target is None


@pytest.mark.parametrize("lie", ["model", "source"])
def test_a_report_about_something_else_is_not_believed(
    here: World, served: Model, lie: str
) -> None:
    truth = told({1: A, 7: A}, target=1)
    poller = served.pods[0].poller
    poller.tell(truth)
    model, uri = poller.model, poller.uri
    poller.model, poller.uri = ("other", uri) if lie == "model" else (model, "gs://other/m")
    poller.tell(told({1: A, 9: A}, target=1))
    found = served.until(
        lambda o: conditions(o)["Ready"] == "Unknown", what="a report that is not believed"
    )
    assert found["status"]["model"]["targetVersion"] in (1, 7)
    assert "reports about" in next(
        c["message"] for c in found["status"]["conditions"] if c["type"] == "Ready"
    )
