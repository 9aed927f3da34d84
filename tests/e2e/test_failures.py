"""Parts that die are replaced, and those who send requests do not notice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.waiting import eventually

if TYPE_CHECKING:
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


def test_a_pod_deleted_under_traffic_fails_no_request(served: Served) -> None:
    served.upload(1, offset=2)
    served.apply(replicas=2)
    served.until_active(1, replicas=2)
    victim = served.pods()[0]["metadata"]["name"]

    with served.traffic(rate=20) as traffic:
        served.kubectl("delete", "pod", victim, "--wait=false")
        eventually(
            lambda: victim not in [p["metadata"]["name"] for p in served.pods()],
            what=f"pod {victim} gone",
            within=120,
        )
        served.until_active(1, replicas=2)

    assert traffic.failures == ()


def test_deletion_with_the_operator_down_leaves_nothing(served: Served) -> None:
    served.upload(1, offset=2)
    served.apply(replicas=1)
    served.until_active(1, replicas=1)

    with served.operator.stopped():
        served.kubectl("delete", "inferencemodel", served.name, timeout=20)
        eventually(
            lambda: served.children() == [],
            what="the garbage collector to remove the children",
            within=120,
        )


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
