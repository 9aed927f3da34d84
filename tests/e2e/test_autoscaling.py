"""Pods that an autoscaler and a person bring and take, under traffic."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from inferencemodel_operator import names
from tests.support.kubectl import KubectlError
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.models import Served

pytestmark = pytest.mark.e2e

AUTOSCALING: dict[str, Any] = {
    "minReplicas": 1,
    "maxReplicas": 3,
    "metrics": [
        {
            "type": "Resource",
            "resource": {"name": "cpu", "target": {"type": "AverageValue", "averageValue": "50m"}},
        }
    ],
    "behavior": {
        "scaleDown": {
            "stabilizationWindowSeconds": 15,
            "policies": [{"type": "Pods", "value": 2, "periodSeconds": 15}],
        }
    },
}
AUTOSCALER = frozenset({"kube-controller-manager"})
LOAD = 60
"""Requests a second, worth about 150m of a core. At rest two pods take less than 50m, also on a
busy machine."""


def wanted(served: Served) -> int:
    """The number of pods that the Deployment asks for."""
    return int(served.kubectl.get("deployment", served.name)["spec"]["replicas"])


@dataclass(frozen=True)
class Said:
    """A number of pods that the Deployment asks for, and whose it is."""

    count: int
    by: frozenset[str]
    """The field managers that own the number."""


def said(served: Served) -> Said:
    """What the Deployment asks for now."""
    read = ("get", "deployment", served.name, "--show-managed-fields", "-o", "json")
    deployment = json.loads(served.kubectl(*read))
    owners = (
        entry["manager"]
        for entry in deployment["metadata"]["managedFields"]
        if "f:replicas" in entry["fieldsV1"].get("f:spec", {})
    )
    return Said(deployment["spec"]["replicas"], frozenset(owners))


class Replicas:
    """Every number of pods that the Deployment asked for, in order."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._done = threading.Event()
        self._first = said(served)
        self.changes: list[Said] = []

    def watch(self) -> None:
        last = self._first
        while not self._done.wait(0.3):
            try:
                now = said(self._served)
            except KubectlError:
                continue
            if now.count != last.count:
                self.changes.append(now)
            last = now

    def stop(self) -> None:
        self._done.set()


@contextmanager
def watched(served: Served) -> Iterator[Replicas]:
    replicas = Replicas(served)
    thread = threading.Thread(target=replicas.watch, daemon=True)
    thread.start()
    try:
        yield replicas
    finally:
        replicas.stop()
        thread.join()


def has_autoscaler(served: Served) -> bool:
    found = served.kubectl("get", "horizontalpodautoscalers", served.name, "--ignore-not-found")
    return bool(found.strip())


@pytest.mark.timeout(600)
def test_load_scales_out_quiet_scales_in_and_nobody_resets_the_replicas(served: Served) -> None:
    served.upload(1, offset=2)
    served.apply(replicas=1)
    served.until_active(1, replicas=1)
    served.patch({"autoscaling": AUTOSCALING})
    eventually(lambda: has_autoscaler(served), what="the autoscaler", within=30)

    with watched(served) as replicas, served.traffic(rate=LOAD, grpc_rate=10) as traffic:
        eventually(lambda: wanted(served) == 3, what="three pods under load", within=180, every=1)
        served.until_active(1, replicas=3)
        served.patch({"autoscaling": None, "replicas": 3})
        eventually(lambda: not has_autoscaler(served), what="no autoscaler", within=30)
        served.until_active(1, replicas=3)
        served.kubectl("scale", f"inferencemodel/{served.name}", "--replicas=2")
        served.until_active(1, replicas=2)
        served.until_pods(2)
    assert traffic.failures == ()
    operators = [change.count for change in replicas.changes if names.FIELD_MANAGER in change.by]
    assert operators in ([2], [3, 2]), f"no number that nobody asked for: {replicas.changes}"

    with watched(served) as replicas:
        served.patch({"autoscaling": AUTOSCALING})
        eventually(
            lambda: wanted(served) == 1, what="one pod when it is quiet", within=180, every=1
        )
    # How often the autoscaler changes its mind, with the load of before in its figures, is its own.
    assert {change.by for change in replicas.changes} == {AUTOSCALER}, "handed over without a dip"
    served.until_active(1, replicas=1)
