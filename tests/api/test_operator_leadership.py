"""Two replicas of the operator on a real API server: one works, the other takes over."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest

from tests.api.models import Model
from tests.support import crd
from tests.support.kubectl import Kubectl
from tests.support.operators import WRITES, Operator
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devcluster.client import Api

pytestmark = pytest.mark.api

ALL = ("configmap", "deployment", "service", "service")
LEASE = "inferencemodel-operator"
TAKE_OVER_SECONDS = 20.0


class Pair:
    """Two replicas over one namespace."""

    def __init__(self, api: Api, namespace: str) -> None:
        self.kubectl = Kubectl(api.program, api.kubeconfig, namespace)
        arguments = ("--poller-access=direct", f"--lease-namespace={namespace}")
        self.first, self.second = (
            Operator(api.kubeconfig, (namespace,), arguments) for _ in range(2)
        )

    def leads(self, operator: Operator) -> bool:
        return "inferencemodel_operator_leading 1.0" in operator.get("/metrics")


@pytest.fixture
def pair(api_server: Api) -> Iterator[Pair]:
    with crd.installed(api_server) as namespace:
        made = Pair(api_server, namespace)
        with made.first:
            eventually(lambda: made.leads(made.first), what="the first one to lead", within=20)
            with made.second:
                yield made


def test_a_standby_is_ready_writes_nothing_and_takes_over_when_the_leader_is_killed(
    pair: Pair,
) -> None:
    model = Model(pair.kubectl).apply(replicas=1)
    model.until_children(*ALL)
    model.until_reported()
    assert pair.second.get("/readyz") == "ok\n"
    assert pair.second.get("/livez") == "ok\n"
    assert not pair.leads(pair.second)
    assert pair.second.requests(*WRITES) == {}

    pair.first.kill()
    killed = time.monotonic()
    model.patch(replicas=4)
    eventually(
        lambda: model.child("deployment")["spec"]["replicas"] == 4,
        what="the second one to take over",
        within=TAKE_OVER_SECONDS - (time.monotonic() - killed),
    )

    lease = pair.kubectl.get("lease", LEASE)["spec"]
    assert lease["leaseTransitions"] == 1
    model.delete()


def test_a_leader_that_ends_in_order_is_followed_at_once(pair: Pair) -> None:
    assert pair.first.stop() == 0
    eventually(lambda: pair.leads(pair.second), what="the second one to lead", within=10)


def test_a_leader_whose_lease_is_taken_ends_and_writes_no_more(pair: Pair) -> None:
    model = Model(pair.kubectl).apply(replicas=1)
    model.until_children(*ALL)
    taken = {"spec": {"holderIdentity": "thief", "leaseDurationSeconds": 3600}}
    pair.kubectl("patch", "lease", LEASE, "--type=merge", "--patch", json.dumps(taken))

    eventually(lambda: pair.first.ended() is not None, what="the leader to end", within=20)
    assert pair.first.ended() == 1
    assert "is lost: thief holds it" in pair.first.log()
    assert pair.kubectl.get("lease", LEASE)["spec"]["holderIdentity"] == "thief"
    model.patch(replicas=4)
    assert pair.second.requests(*WRITES) == {}
    assert model.child("deployment")["spec"]["replicas"] == 1
    model.delete()
