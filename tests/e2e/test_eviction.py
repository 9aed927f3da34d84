"""Pods that a node drain takes, under traffic."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.support.kubectl import KubectlError, condition
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from tests.e2e.models import Served

pytestmark = pytest.mark.e2e


def test_an_eviction_fails_no_request_and_takes_one_pod_at_a_time(served: Served) -> None:
    served.upload(1, offset=2)
    served.apply(replicas=2)
    served.until_active(1, replicas=2)
    first, second = (pod["metadata"]["name"] for pod in served.pods())
    disruptions = served.kubectl.until(
        "poddisruptionbudget",
        served.name,
        lambda found: found["status"].get("disruptionsAllowed") == 1,
        what="a disruption to be allowed",
    )
    assert disruptions["spec"]["maxUnavailable"] == 1

    with served.traffic(rate=20, grpc_rate=20) as traffic:
        evict(served, first)
        with pytest.raises(KubectlError, match="disruption budget"):
            evict(served, second)
        eventually(
            lambda: first not in {pod["metadata"]["name"] for pod in served.pods()},
            what="the evicted pod to be gone",
            within=120,
            every=1,
        )
        served.until_active(1, replicas=2)
    assert traffic.failures == ()
    assert condition(served.get(), "Ready")["status"] == "True"


def evict(served: Served, pod: str) -> None:
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod, "namespace": served.namespace},
    }
    path = f"/api/v1/namespaces/{served.namespace}/pods/{pod}/eviction"
    served.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(eviction))
