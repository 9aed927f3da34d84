"""Pods that an autoscaler and a person bring and take, under traffic."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

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
            "resource": {"name": "cpu", "target": {"type": "AverageValue", "averageValue": "25m"}},
        }
    ],
    "behavior": {
        "scaleDown": {
            "stabilizationWindowSeconds": 15,
            "policies": [{"type": "Pods", "value": 2, "periodSeconds": 15}],
        }
    },
}
LOAD = 60
"""Requests a second, worth several times 25m of a core."""


def wanted(served: Served) -> int:
    """The number of pods that the Deployment asks for."""
    return int(served.kubectl.get("deployment", served.name)["spec"]["replicas"])


class Replicas:
    """Every number of pods that the Deployment asked for, in order."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._done = threading.Event()
        self.seen: list[int] = []

    def watch(self) -> None:
        while not self._done.wait(0.3):
            try:
                count = wanted(self._served)
            except KubectlError:
                continue
            if not self.seen or self.seen[-1] != count:
                self.seen.append(count)

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
    assert replicas.seen == [*sorted(replicas.seen[:-1]), 2], "only up, until somebody said two"

    with watched(served) as replicas:
        served.patch({"autoscaling": AUTOSCALING})
        eventually(
            lambda: wanted(served) == 1, what="one pod when it is quiet", within=180, every=1
        )
    # The autoscaler may still see the load of before; nobody else says a number.
    assert replicas.seen in ([2, 1], [2, 3, 1]), "handed over without a dip"
    served.until_active(1, replicas=1)
