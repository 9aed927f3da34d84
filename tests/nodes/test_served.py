"""What those see who ask models on three nodes, while a node or the control plane is away."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from demo.load import Load, RequestError, Traffic
from devcluster import Cluster, Settings, paths, topology
from devcluster.controllers import CONTROLLER_MANAGER, SCHEDULER
from devcluster.controlplane import API_SERVER
from devcluster.packages import require_linux_root
from tests.e2e.conftest import exports, installed, serving
from tests.support import audit
from tests.support.kubectl import condition
from tests.support.operators import WRITES
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from demo.load import Failure, Send
    from devcluster import Api
    from tests.e2e.models import Served
    from tests.support.kubectl import Kubectl, Object

__all__ = ["exports", "installed"]

pytestmark = pytest.mark.e2e

REPLICAS = 3
REST, GRPC = 10, 10
"""Requests a second."""
TRY_SECONDS = 1.0
PATIENCE = 9.0
"""Seconds of a client that asks again, each time another replica."""
HEARD = 12.0
"""Seconds until everybody has heard that a pod is not ready, those included who wait for an answer;
they give up after ten."""
STATUS_SECONDS = 30.0
"""From when Kubernetes knows of it until the status says so."""
OTHERS = 4
"""Models beside the one that is asked."""
AWAY_SECONDS = float(os.environ.get("AWAY_SECONDS", "60"))
"""How long the control plane is away; longer ones show what expires meanwhile."""
QUIET_SECONDS = 30.0
"""From its return until nothing is written any more for models that stay as they are."""
BACK_SECONDS = 120.0
"""The same until a new version is everywhere: kubelets ask again after up to a minute."""
WRITES_EACH = 2


@pytest.fixture(scope="session")
def cluster() -> Iterator[Api]:
    if os.environ.get("KUBECONFIG"):
        pytest.skip("nodes are stopped on the embedded cluster alone")
    embedded = Cluster()
    if embedded.exists():
        pytest.skip("a cluster is up, and taking it down is not for a test")
    require_linux_root()
    try:
        yield embedded.up(Settings(nodes=3))
    finally:
        embedded.down()


@pytest.fixture(scope="session")
def spare(cluster: Api) -> Iterator[str]:
    """A node on which nothing runs but replicas: what of it fails is about them."""
    name = topology.several(3, paths.STATE, paths.RUN)[2].name
    cluster.kubectl("cordon", name)
    for line in cluster.kubectl(
        *("get", "pods", "--all-namespaces", f"--field-selector=spec.nodeName={name}"),
        "--output=jsonpath={range .items[*]}{.metadata.namespace} {.metadata.name}{'\\n'}{end}",
    ).splitlines():
        namespace, pod = line.split()
        cluster.kubectl(f"--namespace={namespace}", "delete", "pod", pod)
    yield name
    cluster.kubectl("uncordon", name)


@pytest.fixture(scope="module")
def fleet(
    request: pytest.FixtureRequest,
    cluster: Api,
    spare: str,
    installed: Kubectl,
    exports: dict[int, Path],
) -> Iterator[list[Served]]:
    """One model with a replica on each node, and some of one replica beside it."""
    with serving(request, cluster, installed, exports) as served:
        found = [served, *(replace(served, name=f"other-{n}", newest=0) for n in range(OTHERS))]
        cluster.kubectl("uncordon", spare)
        for model in found:
            model.upload(1, offset=2)
            model.apply(
                replicas=REPLICAS if model is served else 1,
                subscription=None,
                pollInterval="5s",
            )
        for model in found:
            model.until_active(1, replicas=REPLICAS if model is served else 1)
        assert {pod["spec"]["nodeName"] for pod in served.pods()} == {
            node.name for node in topology.several(3, paths.STATE, paths.RUN)
        }
        yield found


def patient(loads: Sequence[Load]) -> list[Load]:
    """The same loads, by clients that ask again."""
    return [Load(f"{load.name}, asked again", _again(load.client), load.rate) for load in loads]


def _again(
    client: Callable[[], AbstractAsyncContextManager[Send]],
) -> Callable[[], AbstractAsyncContextManager[Send]]:
    @asynccontextmanager
    async def patiently() -> AsyncIterator[Send]:
        async with client() as send:

            async def ask() -> str:
                until = time.monotonic() + PATIENCE
                while True:
                    try:
                        return await asyncio.wait_for(send(), TRY_SECONDS)
                    except (RequestError, TimeoutError):
                        if time.monotonic() > until:
                            raise
                        await asyncio.sleep(0.05)

            yield ask

    return patiently


def split(traffic: Traffic) -> tuple[list[Failure], list[Failure]]:
    """What failed at once, and what failed for those who ask again."""
    patiently = [failure for failure in traffic.failures if failure.load.endswith("asked again")]
    return [each for each in traffic.failures if each not in patiently], patiently


def ready(status: Object) -> int:
    return int(status.get("readyReplicas") or 0)


def test_a_node_that_stops_costs_what_was_sent_to_it_before_others_knew(
    fleet: Sequence[Served], spare: str
) -> None:
    served, embedded = fleet[0], Cluster()
    (lost,) = (pod for pod in served.pods() if pod["spec"]["nodeName"] == spare)
    loads = served.loads(rate=REST, grpc_rate=GRPC)
    with Traffic(*loads, *patient(loads)) as traffic:
        time.sleep(5.0)
        assert not traffic.failures
        stopped = time.time()
        embedded.stop_node(spare)

        def known() -> bool:
            pod = served.kubectl.get("pod", lost["metadata"]["name"])
            return condition(pod, "Ready").get("status") != "True"

        eventually(known, what="Kubernetes to know that the pod is lost", within=90, every=0.2)
        heard = time.time()
        served.until(
            lambda obj: ready(obj["status"]) == REPLICAS - 1,
            what="the status to say so",
            within=STATUS_SECONDS,
        )
        told = time.time()
        assert told - heard <= STATUS_SECONDS
        time.sleep(HEARD + 3.0)
        embedded.start_node(spare)
        served.until(
            lambda obj: ready(obj["status"]) == REPLICAS, what="all replicas again", within=240
        )
        back = time.time()
        time.sleep(5.0)

    once, patiently = split(traffic)
    rate = REST + GRPC
    print(
        f"Kubernetes knew after {heard - stopped:.1f} s, the status {told - heard:.1f} s later;"
        f" all was back {back - stopped:.0f} s after the stop\n"
        f"of {rate * (heard - stopped):.0f} requests until then {len(once)} failed, the last"
        f" {max((each.at for each in once), default=stopped) - stopped:.1f} s after it;"
        f" of clients that ask again: {len(patiently)} of {traffic.sent}"
    )
    assert patiently == []
    assert [each for each in once if not stopped - HEARD < each.at < heard + HEARD] == []
    # One of three replicas gets a third.
    assert len(once) <= rate * (heard + HEARD - stopped) / REPLICAS


def test_nobody_who_asks_notices_that_the_control_plane_is_away(
    fleet: Sequence[Served], cluster: Api
) -> None:
    served, embedded = fleet[0], Cluster()
    newer = served.next_version()
    with served.traffic(rate=REST, grpc_rate=GRPC) as traffic:
        for program in (SCHEDULER, CONTROLLER_MANAGER, API_SERVER, "etcd"):
            embedded.kill_program(program)
        time.sleep(AWAY_SECONDS / 2)
        served.upload(newer, offset=3)
        time.sleep(AWAY_SECONDS / 2)
        assert traffic.failures == ()
        embedded.start_control_plane()
        back = time.time()
        served.until(
            lambda obj: (
                obj["status"]["model"].get("activeVersion") == newer
                and ready(obj["status"]) == REPLICAS
            ),
            what="the version that came meanwhile",
            within=BACK_SECONDS,
        )
        active = time.time()
        time.sleep(max(0.0, back + QUIET_SECONDS + 15.0 - time.time()))

    writes = written(cluster, served.namespace)
    others = [(at, f"{verb} {uri}") for at, verb, uri in writes if at > back and "/other-" in uri]
    late = [write for at, write in others if at > back + QUIET_SECONDS]
    print(
        f"away for {AWAY_SECONDS:.0f} s: {len(traffic.failures)} of {traffic.sent} requests failed;"
        f" the version that came meanwhile was active {active - back:.1f} s after its return,"
        f" with {len([at for at, _, _ in writes if at > back])} writes, {len(others)} of them for"
        f" the {OTHERS} models of which nothing had changed"
    )
    assert traffic.failures == ()
    assert late == []
    assert len(others) <= WRITES_EACH * OTHERS


def written(api: Api, namespace: str) -> list[tuple[float, str, str]]:
    """The operator's writes to a namespace: when, how, and to what."""
    return [
        (
            audit.received(entry).timestamp(),
            str(entry["verb"]),
            str(entry["requestURI"]).partition("?")[0],
        )
        for entry in audit.entries(api, namespace)
        if entry["verb"] in WRITES and entry["objectRef"].get("resource") != "events"
    ]
