"""Parts that die are replaced, and those who send requests do not notice."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.kubectl import condition
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devcluster import Api
    from tests.e2e.models import Served

pytestmark = pytest.mark.e2e


_KILL_POLLER = """
import os, pathlib
def parent(pid):
    return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1]
(poller,) = [p.name for p in pathlib.Path("/proc").glob("[0-9]*") if parent(p.name) == "1"]
print(poller)
if KILL:
    os.kill(int(poller), 9)
"""


def test_a_killed_poller_comes_back_and_brings_the_next_version(served: Served) -> None:
    served.upload(1, offset=2)
    served.apply(replicas=1, pollInterval="5s")
    served.until_active(1, replicas=1)
    (pod,) = served.pods()

    def poller(*, kill: bool) -> str:
        """The id of the poller's process below the one that watches over it."""
        script = _KILL_POLLER.replace("KILL:", f"{kill}:")
        name = pod["metadata"]["name"]
        return served.kubectl("exec", name, "-c", "poller", "--", "python3", "-c", script).strip()

    with served.traffic(rate=10) as traffic:
        killed = poller(kill=True)
        eventually(
            lambda: poller(kill=False) != killed, what="another poller in place of the killed one"
        )
        served.upload(2, offset=3)
        served.until_active(2, replicas=1)

    assert traffic.sent > 10
    assert traffic.failures == ()


@contextmanager
def cut_off(address: str, port: int) -> Iterator[None]:
    """Lose every packet from and to one port of a pod, as a broken network would."""
    ends = [("-d", address, "--dport", str(port)), ("-s", address, "--sport", str(port))]

    def change(action: str) -> None:
        for host_option, host, port_option, number in ends:
            subprocess.run(
                [
                    *("iptables", "--wait", action, "FORWARD", "--protocol", "tcp"),
                    *(host_option, host, port_option, number, "--jump", "DROP"),
                ],
                check=True,
            )

    change("--insert")
    try:
        yield
    finally:
        change("--delete")


def test_a_replica_that_can_not_be_asked_is_not_taken_for_known(
    served: Served, cluster: Api
) -> None:
    if cluster.audit_log is None:
        pytest.skip("the network of somebody else's cluster is not for a test to break")
    served.upload(1, offset=2)
    served.apply(replicas=2)
    served.until_active(1, replicas=2)
    pod = served.pods()[0]

    def unknown(obj: dict[str, Any]) -> bool:
        ready = condition(obj, "Ready")
        return ready["status"] == "Unknown" and pod["metadata"]["name"] in ready["message"]

    with served.traffic(rate=10) as traffic:
        with cut_off(pod["status"]["podIP"], 8502):
            served.until(unknown, what="the replica to count as unknown", within=35)
            served.upload(2, offset=3)
            eventually(
                lambda: served.versions_on_each_replica() == [2, 2],
                what="version 2 on both replicas",
                within=60,
            )
            served.until(
                lambda obj: obj["status"]["model"]["targetVersion"] == 2, what="the target"
            )
            assert served.get()["status"]["model"]["activeVersion"] == 1, "one is not known"
        served.until_active(2, replicas=2)
    assert traffic.failures == ()


def test_pods_carry_no_token_and_pass_the_restricted_standard(served: Served) -> None:
    """The namespace enforces ``restricted``; a pod that breaks it would not exist."""
    served.upload(1, offset=2)
    served.apply(replicas=1)
    served.until_active(1, replicas=1)
    (pod,) = served.pods()

    namespace = served.kubectl.get("namespace", served.namespace)
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    mounts = [
        mount["mountPath"]
        for container in pod["spec"]["containers"] + pod["spec"]["initContainers"]
        for mount in container["volumeMounts"]
    ]
    assert not [path for path in mounts if "serviceaccount" in path]
    for container in ("poller", "model-server"):
        listed = served.kubectl(
            *("exec", pod["metadata"]["name"], "--container", container, "--"),
            *("python3", "-c", "import os; print(os.path.exists('/var/run/secrets'), os.getuid())"),
        )
        assert listed.split() == ["False", "65532"]
