"""An operator that is away for a day: what became of its InferenceModels meanwhile is made good."""

from __future__ import annotations

import datetime
import json
import re
from typing import TYPE_CHECKING

import pytest

from devcluster.apiserver import ApiServer
from inferencemodel_operator.record import ROLLOUT_KEY
from model_poller.status import VersionState
from tests.api.models import AT_ONCE, Model, World, world
from tests.support.controllers import running
from tests.support.kubectl import condition
from tests.support.operators import WRITES
from tests.support.pods import having, told
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any


pytestmark = pytest.mark.api

AVAILABLE, FETCHED, RETIRED = VersionState.AVAILABLE, VersionState.FETCHED, VersionState.RETIRED
DAY = datetime.timedelta(days=1)
LEASE = "inferencemodel-operator"
LEASES = {"create leases", "update leases"}
FOR_HOURS: dict[str, Any] = {"steps": [{"replicas": 1, "pause": {"duration": "6h"}}]}
UNTIL_PROMOTED: dict[str, Any] = {"steps": [{"replicas": 1, "pause": {}}]}
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z")


@pytest.fixture
def here() -> Iterator[World]:
    with (
        ApiServer() as api,
        running(api, "garbage-collector-controller"),
        world(api) as made,
    ):
        leading = f"--lease-namespace={made.namespace}"
        made.operator.arguments = (*made.operator.arguments, leading)
        made.operator.restart()
        yield made


def serving(here: World, *, replicas: int, **spec: Any) -> Model:
    """A resource whose pods serve version 1; it ends with its API server."""
    model = Model(here.kubectl, kubelet=here.kubelet)
    model.apply(replicas=replicas, **spec)
    for _ in range(replicas):
        model.add_pod().poller.tell(told({1: AVAILABLE}, target=1))
    until_active(model, 1)
    model.roll_out()
    return model


def until_active(model: Model, version: int) -> None:
    model.until(
        lambda o: (
            o["status"]["model"]["activeVersion"] == version
            and condition(o, "Ready")["status"] == "True"
            and o["status"]["observedGeneration"] == o["metadata"]["generation"]
        ),
        what=f"version {version} on all replicas",
        within=45,
    )


def upload(model: Model, *versions: int) -> None:
    """Each pod has got new versions from the bucket, and serves the first one."""
    for poller in model.pollers():
        poller.serve = having(1, *versions)
        poller.tell(told({1: AVAILABLE, **dict.fromkeys(versions, FETCHED)}, target=1))


def until_tried(model: Model) -> set[str]:
    """Wait until the first replica has version 2, and return which one."""
    model.until(lambda o: o["status"]["model"]["rollout"]["replicasOn"] == 1, what="one replica")
    return {pod.name for pod in model.pods if pod.target == "2"}


def replace_one(model: Model, *, but: set[str]) -> None:
    """A node takes a pod away, and another one begins with the version that it is told of."""
    lost = next(pod for pod in model.pods if pod.name not in but)
    lost.delete()
    poller = model.add_pod().poller
    poller.serve = having(1, 2)
    poller.tell(told({1: AVAILABLE, 2: FETCHED}, target=1))


def let_a_day_pass(here: World, *models: Model) -> None:
    """Put back by a day what was written down with a time: nobody has looked since."""
    for model in models:
        rollout = model.child("configmap", "-versions")["data"][ROLLOUT_KEY]
        patch = json.dumps({"data": {ROLLOUT_KEY: _TIME.sub(_a_day_before, rollout)}})
        name = f"{model.name}-versions"
        here.kubectl("patch", "configmap", name, "--type=merge", f"--patch={patch}")
    renewed = here.kubectl.get("lease", LEASE)["spec"]["renewTime"]
    patch = json.dumps({"spec": {"renewTime": _TIME.sub(_a_day_before, renewed)}})
    here.kubectl("patch", "lease", LEASE, "--type=merge", f"--patch={patch}")


def _a_day_before(found: re.Match[str]) -> str:
    moment = datetime.datetime.fromisoformat(found[0]) - DAY
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


@pytest.mark.runbook("operator-gone-for-a-day")
def test_a_days_changes_are_made_good_when_the_operator_is_back(here: World) -> None:
    edited, bereft, moved, deleted = (serving(here, replicas=1, rollout=AT_ONCE) for _ in range(4))
    timed = serving(here, replicas=3, rollout=FOR_HOURS)
    asking = serving(here, replicas=3, rollout=UNTIL_PROMOTED)
    for model in (timed, asking):
        upload(model, 2)
    tried = {model.name: until_tried(model) for model in (timed, asking)}
    here.operator.until_quiet(until_later=True)

    here.operator.kill()
    edited.patch(replicas=3)
    here.kubectl("delete", "service", bereft.name)
    here.kubectl("delete", "configmap", f"{bereft.name}-versions")
    ports = json.dumps([{"op": "replace", "path": "/spec/ports/0/port", "value": 80}])
    here.kubectl("patch", "service", f"{bereft.name}-headless", "--type=json", f"--patch={ports}")
    upload(moved, 2, 3)
    made = Model(here.kubectl, kubelet=here.kubelet).apply(replicas=1)
    here.kubectl("delete", "inferencemodel", deleted.name)
    eventually(lambda: deleted.children() == [], what="the garbage collector", within=60)
    for pod in deleted.pods:
        pod.delete()
    replace_one(timed, but=tried[timed.name])
    let_a_day_pass(here, timed, asking)
    assert all(pod.target == "1" for model in (edited, bereft, moved) for pod in model.pods)

    here.operator.start()

    edited.until_child("deployment", lambda o: o["spec"]["replicas"] == 3, what="3 replicas")
    bereft.until_children("configmap", "deployment", "service", "service")
    bereft.until_child(
        "service",
        lambda o: o["spec"]["ports"][0]["port"] != 80,
        what="its port",
        suffix="-headless",
    )
    until_active(bereft, 1)
    made.until_children("configmap", "deployment", "service", "service")
    until_active(moved, 3)
    history = moved.get()["status"]["model"]["history"]
    assert 2 not in [entry["version"] for entry in history], "only the newest one is taken"
    # Six hours have passed, so the rest follows; who has to be asked is still asked.
    until_active(timed, 2)
    found = asking.until(lambda o: condition(o, "RolloutPaused")["status"] == "True", what="told")
    assert found["status"]["model"]["activeVersion"] == 1
    assert {pod.name for pod in asking.pods if pod.target == "2"} == tried[asking.name]
    assert deleted.children() == []

    here.operator.until_quiet(until_later=True)
    assert "Traceback" not in here.operator.log()
    here.operator.restart()
    here.operator.until_quiet(until_later=True)
    # A status may follow where a pod is late with its answer.
    written = here.operator.requests(*WRITES).keys()
    assert written - {"patch inferencemodels/status"} <= LEASES
