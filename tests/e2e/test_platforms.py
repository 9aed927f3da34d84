"""Pods on platforms that change them: a mesh's proxy, users that OpenShift chooses."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
import yaml

from demo.cluster import TREE, VERSION
from tests.e2e.models import BUCKET_ENDPOINT_IN_CLUSTER
from tests.support.kubectl import condition
from tests.support.platforms import has_policies, policies

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.models import Served
    from tests.support.kubectl import Object

pytestmark = pytest.mark.e2e

PROXY = "mesh-proxy"
PORT = 15001
POLLER = f"inferencemodel/poller:{VERSION}"
NATIVE = "sidecar.istio.io/nativeSidecar"
_BUCKET = urlsplit(BUCKET_ENDPOINT_IN_CLUSTER)
LATE_SECONDS = 8
"""After its start the proxy opens its port so late, as one that gets a certificate first."""
FORWARD = f"""
import socket, threading, time
def pump(source, sink):
    while data := source.recv(65536):
        sink.sendall(data)
    sink.shutdown(socket.SHUT_WR)
def forward(near):
    far = socket.create_connection(("{_BUCKET.hostname}", {_BUCKET.port}))
    threading.Thread(target=pump, args=(near, far), daemon=True).start()
    pump(far, near)
time.sleep({LATE_SECONDS})
with socket.create_server(("127.0.0.1", {PORT})) as listener:
    while True:
        threading.Thread(target=forward, args=(listener.accept()[0],), daemon=True).start()
"""
INJECT = f"""
has(object.metadata.annotations) && "{NATIVE}" in object.metadata.annotations ? [
  JSONPatch{{op: "add", path: "/spec/initContainers/0", value: Object.spec.initContainers{{
    name: "{PROXY}", image: "{POLLER}", imagePullPolicy: "IfNotPresent",
    restartPolicy: "Always", command: ["python3", "-c", {{code}}],
    securityContext: Object.spec.initContainers.securityContext{{
      allowPrivilegeEscalation: false,
      capabilities: Object.spec.initContainers.securityContext.capabilities{{drop: ["ALL"]}}
    }}
  }}}}
] : [
  JSONPatch{{op: "add", path: "/spec/containers/-", value: Object.spec.containers{{
    name: "{PROXY}", image: "{POLLER}", imagePullPolicy: "IfNotPresent",
    command: ["python3", "-c", {{code}}],
    securityContext: Object.spec.containers.securityContext{{
      allowPrivilegeEscalation: false,
      capabilities: Object.spec.containers.securityContext.capabilities{{drop: ["ALL"]}}
    }}
  }}}}
]"""
FIRST_USER = 1_000_680_000
USERS = f"""
has(object.spec.securityContext) && has(object.spec.securityContext.runAsUser) ? [] : [
  JSONPatch{{op: "add", path: "/spec/securityContext/runAsUser", value: {FIRST_USER}}},
  JSONPatch{{op: "add", path: "/spec/securityContext/fsGroup", value: {FIRST_USER}}}
]"""
IN_RANGE = (
    "!has(object.spec.securityContext.runAsUser) ||"
    f" object.spec.securityContext.runAsUser >= {FIRST_USER}",
    f"runAsUser: must be in the ranges: [{FIRST_USER}, {FIRST_USER + 9999}]",
)


@pytest.fixture(autouse=True)
def _policies(served: Served) -> None:
    if not has_policies(served.kubectl):
        pytest.skip("the cluster doesn't change pods by policies")


@pytest.fixture
def mesh(served: Served) -> Iterator[None]:
    """The proxy is injected into every pod: an ordinary container unless an annotation says so."""
    code = '"' + FORWARD.replace('"', "'").replace("\n", "\\n") + '"'
    with policies(
        served.kubectl,
        changes=[INJECT.replace("{code}", code)],
        works=lambda pod: PROXY in str(pod),
    ):
        yield


@pytest.fixture
def openshift(served: Served) -> Iterator[None]:
    """Users are chosen for pods that name none, and pods that name others are refused."""
    with policies(
        served.kubectl,
        changes=[USERS],
        refusals=[IN_RANGE],
        works=lambda pod: str(FIRST_USER) in str(pod),
    ):
        yield


def never_restarted(pod: Object) -> bool:
    status = pod["status"]
    containers = [*status["initContainerStatuses"], *status["containerStatuses"]]
    return all(container["restartCount"] == 0 for container in containers)


@pytest.mark.usefixtures("mesh")
def test_a_proxy_that_is_no_native_sidecar_is_told_and_one_that_is_late_waited_for(
    served: Served,
) -> None:
    served.upload(1, offset=2)
    # The proxy is the pod's only way to the store.
    source = {"endpoint": f"http://127.0.0.1:{PORT}", "anonymous": True, "pollInterval": "30s"}
    served.apply(replicas=1, source=source)
    found = served.until(
        lambda obj: f"container {PROXY} starts only" in condition(obj, "SourceReady")["message"],
        what="the container that waits for the poller",
    )
    assert condition(found, "SourceReady")["reason"] == "Unreachable"
    (held,) = served.pods()
    # It is started only behind all init containers: behind the poller, which waits for it.
    assert held["spec"]["containers"][-1]["name"] == PROXY
    assert "running" not in held["status"]["containerStatuses"][-1]["state"]

    served.patch({"template": {"metadata": {"annotations": {NATIVE: "true"}}}})
    served.until_active(1, replicas=1)
    pod = next(p for p in served.pods() if NATIVE in p["metadata"].get("annotations", {}))
    assert [c["name"] for c in pod["spec"]["initContainers"]] == [PROXY, "poller"]
    assert never_restarted(pod)
    deployment = served.kubectl.get("deployment", served.name)
    assert PROXY not in str(deployment["spec"]["template"])


@pytest.fixture
def operator_as_any_user(served: Served) -> Iterator[None]:
    """The operator's own pods run as such a user, as the chart's values have it."""
    deployment = "deployment/inferencemodel-operator"
    kubectl = served.operator.kubectl

    def run_as(user: int, group: int) -> None:
        security = {"runAsUser": user, "runAsGroup": group}
        patch = {"spec": {"template": {"spec": {"securityContext": security}}}}
        kubectl("patch", deployment, f"--patch={json.dumps(patch)}")
        kubectl("rollout", "status", deployment, "--timeout=90s")

    before = kubectl.get("deployment", "inferencemodel-operator")
    found = before["spec"]["template"]["spec"]["securityContext"]
    run_as(FIRST_USER, 0)
    try:
        yield
    finally:
        run_as(found["runAsUser"], found["runAsGroup"])


@pytest.mark.usefixtures("openshift", "operator_as_any_user")
def test_pods_run_as_the_user_that_the_platform_chooses(served: Served) -> None:
    served.upload(1, offset=2)
    served.apply(replicas=1)
    served.until(
        lambda obj: any(
            "must be in the ranges" in c["message"] for c in obj["status"]["conditions"]
        ),
        what="the user that the platform refuses",
    )
    example = yaml.safe_load((TREE / "examples/openshift.yaml").read_text())
    served.patch({"template": example["spec"]["template"]})
    served.until_active(1, replicas=1)
    with served.traffic(rate=5) as traffic:
        served.upload(2, offset=3)
        served.until_active(2, replicas=1)
        served.patch({"model": {"version": 1}})
        served.until_active(1, replicas=1)
    assert traffic.failures == ()
    pod = next(p for p in served.pods() if p["status"]["phase"] == "Running")
    user = "import os; print(os.getuid(), os.getgid())"
    for container in ("poller", "model-server"):
        ran: Any = served.kubectl(
            *("exec", pod["metadata"]["name"], f"--container={container}"),
            *("--", "python3", "-c", user),
        )
        assert ran.split() == [str(FIRST_USER), "0"]
    assert never_restarted(pod)
