"""What the API server says of a pod, with the fields of the InferenceModel."""

from __future__ import annotations

from typing import Any

import pytest

from inferencemodel_operator.children import deployment, origin
from inferencemodel_operator.settings import Settings
from inferencemodel_operator.spec import decode

OVERLAY: dict[str, Any] = {
    "initContainers": [{"name": "first", "image": "a"}, {"name": "poller"}],
    "containers": [
        {"name": "logs", "ports": [{"containerPort": 9}], "args": ["a", "b"]},
        {"name": "model-server", "env": [{"name": "MINE", "value": "1"}]},
    ],
    "volumes": [{"name": "host", "hostPath": {"path": "/x"}}],
    "hostPID": True,
    "tolerations": [{"key": "a"}],
}
MODEL = decode(
    {
        "metadata": {"name": "m", "namespace": "vision", "uid": "u"},
        "spec": {
            "model": {"storageUri": "gs://models/m"},
            "server": {"env": [{"name": "TYPED", "value": "1"}]},
            "template": {"spec": OVERLAY, "priorityClassName": "high"},
        },
    }
)
POD = deployment.pod_template(MODEL, Settings())["spec"]
OWN = "spec.template.spec"


@pytest.mark.parametrize(
    ("path", "field"),
    [
        # Of containers that are a user's
        (".containers[0].image", f"{OWN}.containers[name=logs].image"),
        (".containers[0].ports[0].name",
         f"{OWN}.containers[name=logs].ports[containerPort=9,protocol=TCP].name"),
        (".containers[0].args[1]", f"{OWN}.containers[name=logs].args[1]"),
        (".initContainers[0].image", f"{OWN}.initContainers[name=first].image"),
        # Of the operator's, by whoever said it
        (".containers[1].image", "spec.server.image"),
        (".containers[1].resources.requests", "spec.server.resources.requests"),
        (".containers[1].env[1].value",
         f"{OWN}.containers[name=model-server].env[name=MINE].value"),
        (".containers[1].env[0].value", "spec.server.env[name=TYPED].value"),
        (".containers[1].ports[0].name",
         f"{OWN}.containers[name=model-server].ports[containerPort=8500,protocol=TCP].name"),
        (".initContainers[1].image", f"{OWN}.initContainers[name=poller].image"),
        # Of the pod
        (".priorityClassName", "spec.template.priorityClassName"),
        (".serviceAccountName", "spec.source.serviceAccountName"),
        (".tolerations[0].key", f"{OWN}.tolerations[0].key"),
        (".hostPID", f"{OWN}.hostPID"),
        (".volumes[3].hostPath", f"{OWN}.volumes[name=host].hostPath"),
        (".nodeSelector[a/b]", "spec.template.nodeSelector[a/b]"),
        (".whatever[7].more", f"{OWN}.whatever[7].more"),
        (".containers[99].image", f"{OWN}.containers[99].image"),
        # Without an index, as of values that can't be read
        (".containers.ports", f"{OWN}.containers.ports"),
    ],
)  # fmt: skip
def test_a_field_of_the_pod_is_one_of_the_inferencemodel(path: str, field: str) -> None:
    assert origin.field(path, POD, OVERLAY) == field


def test_what_an_item_lacks_is_missing_where_the_item_is_written() -> None:
    over = {
        "topologySpreadConstraints": [
            {"topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule"}
        ],
        "tolerations": [None],
    }
    pod = {**POD, **over}
    spread = "topologySpreadConstraints[topologyKey=rack,whenUnsatisfiable=DoNotSchedule]"
    for path, field in (
        (".topologySpreadConstraints[0].maxSkew", f"{spread}.maxSkew"),
        (".tolerations[0].operator", "tolerations[0].operator"),
    ):
        assert origin.field(path, pod, over) == f"{OWN}.{field}"
        assert origin.field(path, pod, {}) == f"spec.template.{field}"


@pytest.mark.parametrize(
    ("said", "translated"),
    [
        ("[spec.containers[0].image: Required value, spec.hostPID: Invalid value: true]",
         f"[{OWN}.containers[name=logs].image: Required value, "
         f"{OWN}.hostPID: Invalid value: true]"),
        ('strict decoding error: unknown field "spec.containers[0].imag"',
         f'strict decoding error: unknown field "{OWN}.containers[name=logs].imag"'),
        ("json: cannot unmarshal string into Go struct field Container.spec.containers.ports of x",
         f"json: cannot unmarshal string into Go struct field {OWN}.containers.ports of x"),
        ('violates PodSecurity "restricted:latest": host namespaces (hostPID=true), '
         'allowPrivilegeEscalation != false (container "logs" must set '
         'securityContext.allowPrivilegeEscalation=false), restricted volume types '
         '(volume "host" uses restricted volume type "hostPath")',
         f'violates PodSecurity "restricted:latest": host namespaces ({OWN}.hostPID=true), '
         f'allowPrivilegeEscalation != false (container "logs" ({OWN}.containers[name=logs]) must '
         'set securityContext.allowPrivilegeEscalation=false), restricted volume types '
         f'(volume "host" ({OWN}.volumes[name=host]) uses restricted volume type "hostPath")'),
        ('containers "first", "logs", "model-server" must set x',
         f'containers "first" ({OWN}.initContainers[name=first]), '
         f'"logs" ({OWN}.containers[name=logs]), '
         f'"model-server" ({OWN}.containers[name=model-server]) must set x'),
        ("maximum memory usage per Container is 1Gi, but limit is 2Gi",
         "maximum memory usage per Container is 1Gi, but limit is 2Gi"),
    ],
)  # fmt: skip
def test_words_of_the_api_server_name_these_fields(said: str, translated: str) -> None:
    assert origin.translated(said, POD, OVERLAY) == translated


def test_what_is_said_of_the_deployment_is_translated_as_well() -> None:
    said = "spec.template.spec.containers[0].image: Required value; spec.replicas: Invalid"
    assert origin.translated(said, POD, OVERLAY, prefix="spec.template.") == (
        f"{OWN}.containers[name=logs].image: Required value; spec.replicas: Invalid"
    )
