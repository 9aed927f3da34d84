"""``spec.networkPolicy``, enforced: who gets through to which port."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.support.kubectl import KubectlError
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.models import Served

pytestmark = pytest.mark.e2e

GRPC, REST, POLLER = 8500, 8501, 8502
CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 2)"
POLICY: dict[str, Any] = {
    "enabled": True,
    "from": [
        # Where the Ingress controller is.
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}},
        {"podSelector": {"matchLabels": {"team": "credit"}}},
    ],
    "metricsFrom": [{"podSelector": {"matchLabels": {"team": "platform"}}}],
}


def start_client(served: Served, name: str, *, team: str) -> Callable[[], set[int]]:
    """Start a pod in the model's namespace; what is returned tells which ports it reaches."""
    (pod,) = served.pods()
    (poller,) = pod["spec"]["initContainers"]
    served.kubectl.apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": {"team": team}},
            "spec": {
                "automountServiceAccountToken": False,
                "securityContext": pod["spec"]["securityContext"],
                "containers": [
                    {
                        "name": "client",
                        # Any image with Python does.
                        "image": poller["image"],
                        "imagePullPolicy": poller["imagePullPolicy"],
                        "command": ["python3", "-c", "import signal; signal.pause()"],
                        "securityContext": poller["securityContext"],
                    }
                ],
            },
        }
    )
    served.kubectl("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=60s")

    def reached() -> set[int]:
        return {port for port in (GRPC, REST, POLLER) if connects(port)}

    def connects(port: int) -> bool:
        connect = ("python3", "-c", CONNECT, pod["status"]["podIP"], str(port))
        try:
            served.kubectl("exec", name, "--", *connect)
        except KubectlError:
            return False
        return True

    return reached


@pytest.mark.usefixtures("network_policies")
def test_only_who_is_named_and_the_operator_get_through(served: Served) -> None:
    served.upload(1, offset=2)
    served.apply(replicas=1)
    served.until_active(1, replicas=1)
    stranger = start_client(served, "stranger", team="other")
    friend = start_client(served, "friend", team="credit")
    prometheus = start_client(served, "prometheus", team="platform")
    assert stranger() == {GRPC, REST, POLLER}

    with served.traffic(rate=10) as traffic:
        served.patch({"networkPolicy": POLICY})
        eventually(lambda: stranger() == set(), what="the policy to be enforced", within=60)
        assert friend() == {GRPC, REST}
        assert prometheus() == {REST, POLLER}
        served.upload(2, offset=3)
        served.until_active(2, replicas=1)
    assert traffic.failures == ()

    served.patch({"networkPolicy": {"enabled": False}})
    eventually(
        lambda: stranger() == {GRPC, REST, POLLER}, what="everybody to get through", within=60
    )
