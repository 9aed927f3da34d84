"""``spec.template.spec`` on a real API server: taken, refused, corrected, and kept."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from inferencemodel_operator.children import overlay
from tests.api.models import Model, World, world
from tests.support.kubectl import Object, condition
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devcluster.client import Api

pytestmark = pytest.mark.api

ALL = ("configmap", "deployment", "service", "service")
TRIAL = "dryRun=All"

WHOLE: dict[str, Any] = {
    "runtimeClassName": "test-runtime",
    "schedulerName": "volcano",
    "shareProcessNamespace": True,
    "hostPID": False,
    "dnsPolicy": "None",
    "dnsConfig": {"nameservers": ["10.0.0.10"], "options": [{"name": "ndots", "value": "2"}]},
    "hostAliases": [{"ip": "10.1.2.3", "hostnames": ["store.example.com"]}],
    "resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "one-gpu"}],
    "securityContext": {"runAsUser": None, "runAsGroup": None, "fsGroup": None},
    "tolerations": [],
    "initContainers": [
        {
            "name": "certificates",
            "image": "certificates",
            "resources": {"requests": {"cpu": 1, "memory": "1024Mi"}},
            "volumeMounts": [{"name": "certificates", "mountPath": "/certificates"}],
        },
        {
            "name": "poller",
            "env": [{"name": "EMPTY", "value": ""}],
            "volumeMounts": [{"name": "certificates", "mountPath": "/certificates"}],
        },
    ],
    "containers": [
        {
            "name": "model-server",
            "resources": {"claims": [{"name": "gpu"}]},
            "envFrom": [{"configMapRef": {"name": "settings", "optional": True}}],
            "env": [
                {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
                {
                    "name": "CORES",
                    "valueFrom": {
                        "resourceFieldRef": {"resource": "limits.cpu", "divisor": "1000m"}
                    },
                },
            ],
            "livenessProbe": {"failureThreshold": 12, "initialDelaySeconds": 0},
            "lifecycle": {"postStart": {"sleep": {"seconds": 1}}},
        },
        {
            "name": "logs",
            "image": "logs",
            "imagePullPolicy": "",
            "stdin": False,
            "args": [],
            "startupProbe": {
                "httpGet": {"path": "", "port": "metrics", "scheme": ""},
                "timeoutSeconds": 0,
                "periodSeconds": 0,
                "failureThreshold": 0,
            },
            "terminationMessagePath": "",
            "ports": [{"containerPort": 9000, "name": "metrics"}],
            "resources": {"limits": {"cpu": "0.5", "memory": "64Mi"}},
            "volumeMounts": [{"name": "models", "mountPath": "/models", "readOnly": True}],
        },
    ],
    "volumes": [
        {"name": "certificates", "emptyDir": {"sizeLimit": "1024Mi"}},
        {
            "name": "scratch",
            "ephemeral": {
                "volumeClaimTemplate": {
                    "metadata": {"labels": {}},
                    "spec": {
                        "accessModes": ["ReadWriteOnce"],
                        "resources": {"requests": {"storage": "1024Mi"}},
                    },
                }
            },
        },
    ],
}
"""In forms that the API server rewrites, too."""

RUNTIME_CLASS = {
    "apiVersion": "node.k8s.io/v1",
    "kind": "RuntimeClass",
    "metadata": {"name": "test-runtime"},
    "handler": "runc",
}


@pytest.fixture(scope="module")
def here(api_server: Api) -> Iterator[World]:
    with world(api_server) as made:
        made.kubectl.apply(RUNTIME_CLASS)
        yield made


def sidecar(**fields: Any) -> dict[str, Any]:
    return {"containers": [{"name": "logs", "image": "logs", **fields}]}


def pod_spec(model: Model) -> Object:
    found: Object = model.child("deployment")["spec"]["template"]["spec"]
    return found


def trials(here: World) -> list[str]:
    return [write for write in here.writes() if TRIAL in write]


def apply_server_side(model: Model, **spec: Any) -> None:
    """Without `--server-side`, kubectl leaves out every null."""
    text = json.dumps(model.manifest(**spec))
    model.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=text)


def until_stalled(model: Model, *parts: str) -> Object:
    """Wait for a condition that says all of it, for the present spec."""

    def stalled(obj: Object) -> bool:
        found = condition(obj, "Stalled")
        current = found["observedGeneration"] == obj["metadata"]["generation"]
        return current and all(part in found["message"] for part in parts)

    return model.until(stalled, what=f"Stalled with {parts}")


def until_well(model: Model) -> None:
    def well(obj: Object) -> bool:
        found = condition(obj, "Stalled")
        current = found["observedGeneration"] == obj["metadata"]["generation"]
        return bool(current and found["status"] == "False")

    model.until(well, what="not stalled any more")


@contextmanager
def nothing_happens_to_the_pods(model: Model) -> Iterator[None]:
    # Which is written to the Deployment by its controller.
    revision = "deployment.kubernetes.io/revision"
    model.until_child(
        "deployment",
        lambda o: revision in o["metadata"].get("annotations", {}),
        what="its controller to have seen it",
    )
    before = model.child("deployment")
    yield
    after = model.child("deployment")
    assert after["metadata"]["generation"] == before["metadata"]["generation"]
    assert after["metadata"]["annotations"] == before["metadata"]["annotations"]


# -- taken


def test_a_whole_pod_reaches_the_deployment_is_asked_about_once_and_stays(here: World) -> None:
    before = len(trials(here))
    with here.model() as model:
        apply_server_side(model, template={"spec": WHOLE, "nodeSelector": {"disk": "fast"}})
        model.until_children(*ALL)
        until_well(model)
        pod = pod_spec(model)
        assert [c["name"] for c in pod["containers"]] == ["model-server", "logs"]
        assert [c["name"] for c in pod["initContainers"]] == ["certificates", "poller"]
        assert pod["nodeSelector"] == {"disk": "fast"}
        assert pod["hostAliases"] == WHOLE["hostAliases"]
        assert not {"runAsUser", "runAsGroup", "fsGroup"} & pod["securityContext"].keys()
        assert pod["securityContext"]["runAsNonRoot"] is True
        here.operator.until_quiet()
        assert len(trials(here)) == before + 1

        writes = here.writes()
        here.operator.restart()
        here.operator.until_quiet()
        assert here.writes() == writes, "an operator that starts finds all as it is to be"
        assert not [w for w in writes if w.startswith("patch") and f"deployments/{model.name}" in w]


def test_what_somebody_else_changes_of_an_added_container_is_changed_back(here: World) -> None:
    with here.model(template={"spec": sidecar()}) as model:
        model.until_children(*ALL)
        here.operator.until_quiet()
        asked = len(trials(here))
        patch = {"spec": {"template": {"spec": sidecar(image="another", stdin=True)}}}
        model.kubectl("patch", "deployment", model.name, "--patch", json.dumps(patch))

        def as_before(deployment: Object) -> bool:
            logs = deployment["spec"]["template"]["spec"]["containers"][1]
            return bool(logs["image"] == "logs")

        model.until_child("deployment", as_before, what="the container as it was")
        assert len(trials(here)) == asked, "nothing new is wanted"


def test_what_is_no_longer_said_goes_away(here: World) -> None:
    with here.model(template={"spec": {**sidecar(), "hostAliases": WHOLE["hostAliases"]}}) as model:
        model.until_children(*ALL)
        model.apply()

        def plain(deployment: Object) -> bool:
            pod = deployment["spec"]["template"]["spec"]
            return len(pod["containers"]) == 1 and "hostAliases" not in pod

        model.until_child("deployment", plain, what="the operator's own pod")


def test_what_the_operator_sets_is_taken_away_however_it_is_applied(here: World) -> None:
    with here.model() as one, here.model() as other:
        nothing = {"securityContext": {"runAsUser": None}}
        apply_server_side(one, template={"spec": nothing})
        other.apply(template={"spec": {"securityContext": {"$patch": "replace", "fsGroup": 1}}})
        for model in (one, other):
            until_well(model)
            model.until_children(*ALL)
            assert "runAsUser" not in pod_spec(model)["securityContext"]
        assert pod_spec(other)["securityContext"] == {"fsGroup": 1}


# -- refused by the operator: what holds the pod together


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"volumes": [{"name": "models", "$patch": "delete"}]}, "volumes[name=models]"),
        ({"hostNetwork": True}, "hostNetwork"),
        ({"containers": [{"name": "poller", "image": "mine"}]}, "containers[name=poller]"),
    ],
)
def test_what_holds_the_pod_together_is_refused_and_what_is_served_stays(
    here: World, spec: Object, field: str
) -> None:
    with here.model(service={"httpPort": 80}) as model:
        model.until_children(*ALL)
        here.operator.until_quiet()
        asked = len(trials(here))
        with nothing_happens_to_the_pods(model):
            model.patch(template={"spec": spec}, service={"httpPort": 81})
            obj = until_stalled(model, f"spec.template.spec.{field}: ")
            assert condition(obj, "Stalled")["reason"] == "InvalidSpec"
            model.until_child(
                "service",
                lambda o: {p["name"]: p["port"] for p in o["spec"]["ports"]}["http"] == 81,
                what="all else to go on",
            )
        assert len(trials(here)) == asked
        model.patch(template=None)
        until_well(model)


def test_a_first_pod_that_can_t_be_is_refused_before_there_is_a_deployment(here: World) -> None:
    with here.model(template={"spec": {"activeDeadlineSeconds": 1}}) as model:
        until_stalled(model, "spec.template.spec.activeDeadlineSeconds")
        model.until_children("configmap", "service", "service")
        model.apply(template={"spec": {"hostname": "a"}})
        until_well(model)
        model.until_children(*ALL)


# -- refused by the API server


LOGS = "spec.template.spec.containers[name=logs]"


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        (sidecar(imag="x"), (f'unknown field "{LOGS}.imag"',)),
        ({"containers": [{"name": "logs"}]}, (f"{LOGS}.image: Required value",)),
        (sidecar(ports=[{"containerPort": 70000}]),
         (f"{LOGS}.ports[containerPort=70000,protocol=TCP].containerPort: Invalid value",)),
        (sidecar(volumeMounts=[{"name": "none", "mountPath": "/x"}]),
         (f"{LOGS}.volumeMounts[mountPath=/x].name: Not found",)),
        (sidecar(tty="text"), ("spec.template.spec.containers.tty", "cannot unmarshal string")),
        ({"securityContext": "text"}, ("spec.template.spec.securityContext",)),
        ({"runtimeClassName": "absent"}, ("absent",)),
        ({"dnsPolicy": "Whatever"}, ("spec.template.spec.dnsPolicy: Unsupported value",)),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else None,
)  # fmt: skip
def test_a_refusal_of_the_api_server_names_the_field_and_changes_nothing(
    here: World, spec: Object, parts: tuple[str, ...]
) -> None:
    with here.model(replicas=2) as model:
        model.until_children(*ALL)
        here.operator.until_quiet()
        with nothing_happens_to_the_pods(model):
            model.patch(template={"spec": spec})
            obj = until_stalled(model, "was refused by the API server", *parts)
            assert condition(obj, "Stalled")["reason"] == "Refused"
            assert " pods " not in condition(obj, "Stalled")["message"]
        model.patch(template=None)
        until_well(model)


def test_a_typed_field_is_named_where_it_is_what_is_refused(here: World) -> None:
    with here.model(template={"spec": sidecar()}) as model:
        model.until_children(*ALL)
        with nothing_happens_to_the_pods(model):
            model.patch(template={"priorityClassName": "absent"})
            until_stalled(model, "no PriorityClass", "spec.template.priorityClassName")


# -- refused by admission


@contextmanager
def labelled(here: World, level: str) -> Iterator[None]:
    label = "pod-security.kubernetes.io/enforce"
    here.kubectl("label", "namespace", here.namespace, f"{label}={level}")
    try:
        yield
    finally:
        here.kubectl("label", "namespace", here.namespace, f"{label}-")


def test_pod_security_is_asked_before_the_pods_are_touched(here: World) -> None:
    with labelled(here, "restricted"), here.model(replicas=1) as model:
        model.until_children(*ALL)
        here.operator.until_quiet()
        with nothing_happens_to_the_pods(model):
            model.patch(template={"spec": {"hostPID": True, **sidecar()}})
            until_stalled(
                model,
                'violates PodSecurity "restricted:latest"',
                "spec.template.spec.hostPID=true",
                f'container "logs" ({LOGS}) must set',
                "exempt the namespace from it",
            )


@contextmanager
def made(here: World, kind: str, spec: Object) -> Iterator[None]:
    obj = {"apiVersion": "v1", "kind": kind, "metadata": {"name": "bounds"}, "spec": spec}
    here.kubectl.apply(obj)
    try:
        yield
    finally:
        here.kubectl("delete", kind.lower(), "bounds")


def test_a_limit_range_is_asked_as_well(here: World) -> None:
    limits = {"limits": [{"type": "Container", "max": {"memory": "1Gi"}}]}
    with (
        made(here, "LimitRange", limits),
        here.model(server={"resources": {"limits": {"memory": "1Gi"}}}) as model,
    ):
        model.until_children(*ALL)
        with nothing_happens_to_the_pods(model):
            model.patch(template={"spec": sidecar(resources={"limits": {"memory": "2Gi"}})})
            until_stalled(model, "maximum memory usage per Container is 1Gi", "LimitRange")


def test_what_never_fits_a_quota_is_refused_and_what_fits_once_there_is_room_is_not(
    here: World,
) -> None:
    server = {"resources": {"requests": {"memory": "100Mi"}}}
    with (
        made(here, "ResourceQuota", {"hard": {"requests.memory": "1Gi"}}),
        here.model(server=server) as model,
    ):
        # As the controller of quotas would count it.
        counted = {"hard": {"requests.memory": "1Gi"}, "used": {"requests.memory": "1000Mi"}}
        here.kubectl(
            *("patch", "resourcequota", "bounds", "--subresource=status", "--type=merge"),
            *("--patch", json.dumps({"status": counted})),
        )
        model.until_children(*ALL)
        with nothing_happens_to_the_pods(model):
            model.patch(template={"spec": sidecar(resources={"requests": {"memory": "2Gi"}})})
            until_stalled(model, "exceeded quota", "limited: requests.memory=1Gi")
        model.patch(template={"spec": sidecar(resources={"requests": {"memory": "10Mi"}})})
        until_well(model)
        assert len(pod_spec(model)["containers"]) == 2


# -- the keys


def test_lists_are_merged_by_the_keys_of_the_api_server(api_server: Api) -> None:
    document = json.loads(api_server.kubectl("get", "--raw", "/openapi/v3/api/v1"))
    schemas = document["components"]["schemas"]
    found: dict[str, set[tuple[str, ...]]] = {}
    seen: set[str] = set()

    def look(schema: Object) -> None:
        for reference in _references(schema):
            if reference not in seen:
                seen.add(reference)
                look(schemas[reference])
        for name, field in schema.get("properties", {}).items():
            if field.get("type") == "array":
                keys = field.get("x-kubernetes-list-map-keys", ())
                found.setdefault(name, set()).add(tuple(keys))

    look(schemas["io.k8s.api.core.v1.PodSpec"])
    keyed = {name: keys for name, (keys, *others) in found.items() if keys and not others}
    del keyed["ownerReferences"]  # of the metadata of a claim's template
    assert keyed == dict(overlay.KEYS)
    assert not [name for name in overlay.KEYS if len(found[name]) != 1], "one meaning for each"


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        for name, value in schema.items():
            if name == "$ref":
                yield value.rpartition("/")[2]
            else:
                yield from _references(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _references(value)


def test_no_deployment_goes_away_while_its_pods_can_t_be_told(here: World) -> None:
    with here.model(replicas=1) as model:
        model.until_children(*ALL)
        model.patch(template={"spec": {"hostNetwork": True}})
        until_stalled(model, "hostNetwork")
        here.operator.restart()
        here.operator.until_quiet(until_later=True)
        eventually(lambda: len(model.children()) == len(ALL), what="all children")
