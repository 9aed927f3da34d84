"""``spec.template.spec`` with real containers: a sidecar, an init container, variables."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.models import DEVELOPMENT_SERVER
from tests.support.kubectl import condition
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from tests.e2e.models import Served

pytestmark = pytest.mark.e2e

RESTRICTED = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
SHARED = {"name": "shared", "mountPath": "/shared"}
PREPARE = "import os; open('/shared/prepared', 'w').write('prepared ' + os.environ['GREETING'])"
FOLLOW = """
import os, time
print(open('/shared/prepared').read(), os.environ['GREETING'], os.environ['POD'], flush=True)
with open('/shared/server.log') as log:
    while True:
        print(log.readline(), end='', flush=True) or time.sleep(0.2)
"""


def added(name: str, program: str, **fields: Any) -> dict[str, Any]:
    """A container of the image that is on the node anyway."""
    return {
        "name": name,
        "image": DEVELOPMENT_SERVER,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-c", program],
        "envFrom": [{"configMapRef": {"name": "settings"}}],
        "securityContext": RESTRICTED,
        "volumeMounts": [SHARED],
        **fields,
    }


POD: dict[str, Any] = {
    "shareProcessNamespace": True,
    "initContainers": [added("prepare", PREPARE), {"name": "poller"}],
    "containers": [
        added(
            "logs",
            FOLLOW,
            env=[{"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        ),
        {"name": "model-server", "volumeMounts": [SHARED]},
    ],
    "volumes": [{"name": "shared", "emptyDir": {}}],
}
COMMAND = ["/bin/sh", "-c", 'exec /usr/bin/tensorflow_model_server "$@" 2>/shared/server.log', "sh"]


def test_a_pod_with_a_sidecar_an_init_container_and_variables_serves_and_a_bad_one_stops_nothing(
    served: Served,
) -> None:
    settings = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}}
    served.kubectl.apply({**settings, "data": {"GREETING": "hello"}})
    server = {"image": DEVELOPMENT_SERVER, "imagePullPolicy": "IfNotPresent", "command": COMMAND}
    served.upload(1, offset=2)
    served.apply(replicas=1, server=server, template={"spec": POD})
    served.until_active(1, replicas=1)

    (pod,) = served.pods()
    name = pod["metadata"]["name"]
    told = f"prepared hello hello {name}"
    eventually(
        lambda: (
            len(log := served.kubectl("logs", name, "--container=logs").splitlines()) > 1
            and log[0] == told
        ),
        what="the sidecar to tell what the init container wrote, and what the server logs",
    )

    bad = {"containers": [added("logs", FOLLOW, securityContext={"privileged": True})]}
    served.kubectl(
        *("patch", "inferencemodel", served.name, "--type=merge"),
        *("--patch", json.dumps({"spec": {"template": {"spec": bad}}})),
    )
    served.until(
        lambda obj: "containers[name=logs]" in condition(obj, "Stalled")["message"],
        what="the refusal by Pod Security, with the container's field",
    )
    served.upload(2, offset=3)
    served.until_active(2, replicas=1)
    assert [there["metadata"]["name"] for there in served.pods()] == [name]
