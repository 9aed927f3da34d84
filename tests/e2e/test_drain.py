"""A replica leaves its Services before its model server loads another version, and comes back."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

import pytest

from inferencemodel_operator import names
from model_poller.status import RolloutTask, VersionState, encode_task
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from tests.e2e.models import Served

pytestmark = pytest.mark.e2e


def state(served: Served, pod: str, version: int) -> str:
    """How far a version has come on a pod."""
    told = served.poller_status(pod)["versions"]
    return next((str(v["state"]) for v in told if v["version"] == version), "")


def is_fetched(served: Served, pod: str) -> bool:
    return state(served, pod, 2) == VersionState.FETCHED


def in_service(served: Served) -> set[str]:
    """The pods that the Service leads to."""
    slices = served.kubectl.list("endpointslices", f"kubernetes.io/service-name={served.name}")
    return {
        endpoint["targetRef"]["name"]
        for part in slices
        for endpoint in part.get("endpoints") or ()
        if endpoint["conditions"].get("ready")
    }


def test_a_replica_is_out_while_it_loads_and_back_without_an_operator(served: Served) -> None:
    served.upload(1, offset=2)
    served.apply(replicas=2, rollout={"drain": True})
    served.until_active(1, replicas=2)
    served.patch({"model": {"version": 1}})
    served.upload(2, offset=3)
    pods = [str(pod["metadata"]["name"]) for pod in served.pods()]
    for pod in pods:
        fetched = partial(is_fetched, served, pod)
        eventually(fetched, what="version 2 on the disk", within=60, every=1)
    assert in_service(served) == set(pods)
    changed, other = pods
    task = encode_task(RolloutTask(version=2, key="k", drain=True))
    with served.operator.stopped(), served.traffic(rate=20) as traffic:
        served.kubectl(
            *("annotate", "pod", changed, "--overwrite"),
            f"{names.ROLLOUT_ANNOTATION}={task}",
            f"{names.TARGET_VERSION_ANNOTATION}=2",
            f"{names.SERVED_VERSIONS_ANNOTATION}=2",
        )
        deadline = time.monotonic() + 60
        while is_fetched(served, changed):
            out = in_service(served) == {other}
            assert time.monotonic() < deadline, "version 2 is never published"
            time.sleep(0.2)
        assert out, "it was published while the pod was in its Service"
        eventually(lambda: in_service(served) == set(pods), what="the pod's return", within=30)
        assert state(served, changed, 2) == VersionState.AVAILABLE
        assert is_fetched(served, other)
    assert traffic.sent > 200
    assert traffic.failures == ()
