"""What ``spec.template.spec`` can't take away from a pod, and what it can change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferencemodel_operator.children import deployment, rehearsal
from inferencemodel_operator.errors import InvalidModelError
from inferencemodel_operator.settings import Settings
from inferencemodel_operator.spec import LARGEST_POD_SPEC, InferenceModel, decode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from inferencemodel_operator.children.manifest import Manifest

Spec = dict[str, Any]


def model(overlay: Spec, **spec: Any) -> InferenceModel:
    template = {**spec.pop("template", {}), "spec": overlay}
    return decode(
        {
            "metadata": {"name": "m", "namespace": "vision", "uid": "u"},
            "spec": {"model": {"storageUri": "gs://models/m"}, **spec, "template": template},
        }
    )


def pod(overlay: Spec, **spec: Any) -> Manifest:
    made: Manifest = deployment.pod_template(model(overlay, **spec), Settings())["spec"]
    return made


def server(**fields: Any) -> Spec:
    return {"containers": [{"name": "model-server", **fields}]}


def poller(**fields: Any) -> Spec:
    return {"initContainers": [{"name": "poller", **fields}]}


def sidecar(**fields: Any) -> Spec:
    return {"containers": [{"name": "logs", "image": "logs", **fields}]}


def mount(path: str, volume: str = "mine", **fields: Any) -> Spec:
    return {"volumeMounts": [{"name": volume, "mountPath": path, **fields}]}


SERVER = "containers[name=model-server]"
POLLER = "initContainers[name=poller]"
LOGS = "containers[name=logs]"

REFUSED: list[tuple[Spec, str]] = [
    # The containers, and where they are
    (server(**{"$patch": "delete"}), SERVER),
    ({"containers": [{"$patch": "replace"}, {"name": "mine", "image": "a"}]}, SERVER),
    ({"containers": None}, SERVER),
    ({"initContainers": "none"}, "initContainers"),
    (poller(**{"$patch": "delete"}), POLLER),
    ({"containers": [{"name": "poller"}]}, "containers[name=poller]"),
    ({"initContainers": [{"name": "model-server"}]}, "initContainers[name=model-server]"),
    # Their ports, and others'
    (server(ports=None), f"{SERVER}.ports[containerPort=8500,protocol=TCP]"),
    (server(ports=[{"containerPort": 8501, "name": "rest"}]),
     f"{SERVER}.ports[containerPort=8501,protocol=TCP]"),
    (server(ports=[{"containerPort": 8500, "hostPort": 8500}]),
     f"{SERVER}.ports[containerPort=8500,protocol=TCP]"),
    (poller(ports=[{"containerPort": 8502, "$patch": "delete"}]),
     f"{POLLER}.ports[containerPort=8502,protocol=TCP]"),
    (sidecar(ports=[{"containerPort": 8500}]), f"{LOGS}.ports[containerPort=8500,protocol=TCP]"),
    (sidecar(ports=[{"containerPort": 8502}]), f"{LOGS}.ports[containerPort=8502,protocol=TCP]"),
    (sidecar(ports=[{"containerPort": 8502, "protocol": ""}]),
     f"{LOGS}.ports[containerPort=8502,protocol=TCP]"),
    (sidecar(ports=[{"containerPort": 9, "name": "http"}]),
     f"{LOGS}.ports[containerPort=9,protocol=TCP].name"),
    (server(ports=[{"containerPort": 8502}]),
     f"{SERVER}.ports[containerPort=8502,protocol=TCP]"),
    (server(ports=[{"containerPort": 9, "name": "poller"}]),
     f"{SERVER}.ports[containerPort=9,protocol=TCP].name"),
    (poller(ports=[{"containerPort": 9, "name": "http"}]),
     f"{POLLER}.ports[containerPort=9,protocol=TCP].name"),
    # The volumes and what is mounted where
    ({"volumes": None}, "volumes[name=models]"),
    ({"volumes": [{"name": "models", "emptyDir": None}]}, "volumes[name=models]"),
    ({"volumes": [{"name": "models", "hostPath": {"path": "/x"}}]}, "volumes[name=models]"),
    ({"volumes": [{"name": "models", "emptyDir": {"medium": "Memory"}}]}, "volumes[name=models]"),
    ({"volumes": [{"name": "podinfo", "$patch": "delete"}]}, "volumes[name=podinfo]"),
    ({"volumes": [{"name": "tmp", "$patch": "delete"}]}, "volumes[name=tmp]"),
    (server(**mount("/models", "mine")), f"{SERVER}.volumeMounts[mountPath=/models]"),
    (server(**mount("/models", "models", readOnly=False)),
     f"{SERVER}.volumeMounts[mountPath=/models]"),
    (server(**mount("/models", "models", subPath="x")),
     f"{SERVER}.volumeMounts[mountPath=/models]"),
    (server(**mount("/models/")), f"{SERVER}.volumeMounts[mountPath=/models/]"),
    (server(**mount("/models/m/1")), f"{SERVER}.volumeMounts[mountPath=/models/m/1]"),
    (server(**mount("//x/../models")), f"{SERVER}.volumeMounts[mountPath=//x/../models]"),
    (server(**mount("/")), f"{SERVER}.volumeMounts[mountPath=/]"),
    (server(volumeDevices=[{"name": "a", "devicePath": "/models/x"}]),
     f"{SERVER}.volumeDevices[devicePath=/models/x]"),
    (poller(**mount("/etc")), f"{POLLER}.volumeMounts[mountPath=/etc]"),
    (poller(**mount("/etc/podinfo/target-version", subPath="x")),
     f"{POLLER}.volumeMounts[mountPath=/etc/podinfo/target-version]"),
    (poller(**mount("/etc/podinfo", "mine")), f"{POLLER}.volumeMounts[mountPath=/etc/podinfo]"),
    (sidecar(**mount("/m", "models")), f"{LOGS}.volumeMounts[mountPath=/m]"),
    (server(**mount("/again", "models")), f"{SERVER}.volumeMounts[mountPath=/again]"),
    # What the poller is told by
    (poller(args=["--help"]), f"{POLLER}.args"),
    (poller(command=["sh"]), f"{POLLER}.command"),
    (poller(image="mine"), f"{POLLER}.image"),
    (poller(workingDir="/tmp"), f"{POLLER}.workingDir"),
    (poller(restartPolicy=None), f"{POLLER}.restartPolicy"),
    (poller(env=[{"name": "TARGET_VERSION", "value": "1"}]), f"{POLLER}.env[name=TARGET_VERSION]"),
    (poller(env=[{"$patch": "replace"}]), f"{POLLER}.env[name=TARGET_VERSION]"),
    # Probes and hooks
    (server(readinessProbe=None), f"{SERVER}.readinessProbe"),
    (server(readinessProbe={"httpGet": {"path": "/"}}), f"{SERVER}.readinessProbe"),
    (server(readinessProbe={"exec": {"command": ["true"]}}), f"{SERVER}.readinessProbe"),
    (server(startupProbe=None), f"{SERVER}.startupProbe"),
    (poller(startupProbe=None), f"{POLLER}.startupProbe"),
    (poller(livenessProbe={"httpGet": {"path": "/"}}), f"{POLLER}.livenessProbe"),
    (poller(readinessProbe={"httpGet": {"path": "/", "port": 1}}), f"{POLLER}.readinessProbe"),
    (server(lifecycle=None), f"{SERVER}.lifecycle.preStop"),
    (server(lifecycle={"preStop": {"sleep": {"seconds": 1}}}), f"{SERVER}.lifecycle.preStop"),
    (server(lifecycle={"preStop": {"exec": {}}}), f"{SERVER}.lifecycle.preStop"),
    ({"terminationGracePeriodSeconds": 5}, "terminationGracePeriodSeconds"),
    ({"terminationGracePeriodSeconds": None}, "terminationGracePeriodSeconds"),
    # What has a field of its own
    (server(image="mine"), f"{SERVER}.image"),
    (server(args=[]), f"{SERVER}.args"),
    (server(command=["sh"]), f"{SERVER}.command"),
    (server(resources={"limits": {"memory": "1Gi"}}), f"{SERVER}.resources.limits"),
    ({"serviceAccountName": "mine"}, "serviceAccountName"),
    ({"serviceAccount": "mine"}, "serviceAccount"),
    # What no pod of a Deployment, or none of these, has
    ({"automountServiceAccountToken": True}, "automountServiceAccountToken"),
    ({"automountServiceAccountToken": None}, "automountServiceAccountToken"),
    ({"hostNetwork": True}, "hostNetwork"),
    ({"restartPolicy": "Never"}, "restartPolicy"),
    ({"activeDeadlineSeconds": 60}, "activeDeadlineSeconds"),
    ({"ephemeralContainers": [{"name": "a"}]}, "ephemeralContainers"),
    # What is of another type than the operator reads
    ({"volumes": [{"name": 5, "emptyDir": {}}]}, "volumes[name=5].name"),
    (sidecar(ports=[{"containerPort": 9, "name": ["metrics"]}]),
     f"{LOGS}.ports[containerPort=9,protocol=TCP].name"),
    (sidecar(ports=[{"containerPort": "9"}]),
     f"{LOGS}.ports[containerPort=9,protocol=TCP].containerPort"),
    (sidecar(ports=9000), f"{LOGS}.ports"),
    (sidecar(volumeMounts=[{"mountPath": "/logs", "name": ["mine"]}]),
     f"{LOGS}.volumeMounts[mountPath=/logs].name"),
    (server(volumeDevices=5), f"{SERVER}.volumeDevices"),
    ({"initContainers": [{"name": "first", "args": ["-v", 2]}]},
     "initContainers[name=first].args[1]"),
    ({"initContainers": [{"name": "first", "args": "-v"}]}, "initContainers[name=first].args"),
    (sidecar(lifecycle="none"), f"{LOGS}.lifecycle"),
]  # fmt: skip


@pytest.mark.parametrize(("overlay", "field"), REFUSED, ids=[field for _, field in REFUSED])
def test_what_holds_the_pod_together_is_refused_with_field_reason_and_fix(
    overlay: Spec, field: str
) -> None:
    with pytest.raises(InvalidModelError) as refused:
        pod(overlay)
    assert refused.value.field == f"spec.template.spec.{field}"
    assert str(refused.value).startswith(f"InferenceModel vision/m: {refused.value.field}: ")
    assert "; " in str(refused.value), "what to do about it"


def test_of_several_faults_the_others_are_named_as_well() -> None:
    with pytest.raises(InvalidModelError, match=r"corrected as well: .*[.]hostNetwork") as one:
        pod({"hostNetwork": True, "serviceAccountName": "mine"})
    assert one.value.field == "spec.template.spec.serviceAccountName"


def test_the_volumes_of_spec_storage_are_held_as_well() -> None:
    cached = {"storage": {"cache": {"claimName": "shared"}}}
    logs = mount("/c", "model-cache")
    assert pod(sidecar(**mount("/c", "model-cache", readOnly=True)), **cached)
    for overlay, fix in (
        (sidecar(**logs), "readOnly: true"),
        ({"volumes": [{"name": "model-cache", "emptyDir": {}}]}, "spec.storage.cache"),
        ({"volumes": [{"name": "models", "emptyDir": {"sizeLimit": "1Gi"}}]}, "spec.storage,"),
    ):
        with pytest.raises(InvalidModelError, match=fix):
            pod(overlay, **cached)


CLAIM = {"model": {"storageUri": "pvc://claim/m"}}


def test_the_claim_of_the_versions_is_held_as_well() -> None:
    assert pod(server(**mount("/mnt/mine")), **CLAIM)
    for overlay in (server(**mount("/mnt")), server(**mount("/mnt/model-source/m/1"))):
        with pytest.raises(InvalidModelError, match="hide /mnt/model-source"):
            pod(overlay, **CLAIM)


def test_no_variable_that_the_operator_sets_is_another_one() -> None:
    everything = {
        "source": {"secretRef": {"name": "key"}},
        "poller": {
            "env": [{"name": "HTTPS_PROXY", "value": "http://proxy"}],
            "extraCAs": {"configMap": {"name": "authorities"}},
        },
    }
    (container,) = pod({}, **everything)["initContainers"]
    for name in {variable["name"] for variable in container["env"]} - {"HTTPS_PROXY"}:
        for other in ({"value": "mine"}, {"$patch": "delete"}):
            with pytest.raises(InvalidModelError) as refused:
                pod(poller(env=[{"name": name, **other}]), **everything)
            assert refused.value.field == f"spec.template.spec.{POLLER}.env[name={name}]"
    assert pod(poller(env=[{"name": "HTTPS_PROXY", "value": "http://other"}]), **everything)


ACCEPTED: list[Spec] = [
    sidecar(ports=[{"containerPort": 9000, "name": "metrics"}]),
    sidecar(ports=[{"containerPort": 8500, "protocol": "UDP"}]),
    sidecar(**mount("/models", "models", readOnly=True)),
    server(envFrom=[{"configMapRef": {"name": "x"}}], workingDir="/tmp"),
    server(ports=[{"containerPort": 8500}, {"containerPort": 7000, "name": "debug"}]),
    server(resources={"claims": [{"name": "gpu"}]}),
    server(livenessProbe=None, readinessProbe={"timeoutSeconds": 9}),
    server(startupProbe={"httpGet": {"path": "/", "port": "http"}, "failureThreshold": 9}),
    server(lifecycle={"postStart": {"sleep": {"seconds": 1}}}),
    server(**mount("/tmp", "mine")),
    server(**mount("/models2")),
    server(securityContext=None),
    poller(env=[{"name": "HTTPS_PROXY", "value": "http://proxy"}], **mount("/certificates")),
    poller(livenessProbe={"periodSeconds": 30}, resources={"limits": {"cpu": "1"}}),
    {"volumes": [{"name": "tmp", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}}]},
    {"terminationGracePeriodSeconds": 300, "restartPolicy": "Always", "hostNetwork": False},
    {"serviceAccountName": "default", "automountServiceAccountToken": False, "hostIPC": True},
    {"hostPID": True, "dnsPolicy": "None", "runtimeClassName": "gvisor"},
]


@pytest.mark.parametrize("overlay", ACCEPTED)
def test_what_does_not_is_taken(overlay: Spec) -> None:
    assert pod(overlay) != pod({})


def test_resources_that_are_empty_are_none() -> None:
    assert pod(server(resources={"requests": {}, "limits": {}}))


def test_a_volume_of_a_user_s_own_may_be_called_as_one_that_the_pod_lacks() -> None:
    volume = {"name": "model-cache", "emptyDir": {}}
    overlay = {"volumes": [volume], **sidecar(**mount("/cache", "model-cache"))}
    assert volume in pod(overlay)["volumes"]
    with pytest.raises(InvalidModelError, match="only the poller may write"):
        pod(
            sidecar(**mount("/cache", "model-cache")),
            storage={"cache": {"claimName": "shared"}},
        )


# -- the one order: defaults, typed fields, spec.template.spec


def test_what_is_laid_over_counts_more_than_typed_fields_and_these_than_the_defaults() -> None:
    typed = {
        "server": {"env": [{"name": "A", "value": "typed"}, {"name": "B", "value": "typed"}]},
        "template": {
            "nodeSelector": {"disk": "typed", "zone": "typed"},
            "priorityClassName": "typed",
            "topologySpreadConstraints": [{"topologyKey": "kubernetes.io/hostname", "maxSkew": 2}],
        },
    }
    overlay = {
        **server(env=[{"name": "B", "value": "over"}]),
        "nodeSelector": {"disk": "over"},
        "priorityClassName": "over",
    }
    made = pod(overlay, **typed)
    assert made["nodeSelector"] == {"disk": "over", "zone": "typed"}
    assert made["priorityClassName"] == "over"
    (container,) = made["containers"]
    assert [variable["value"] for variable in container["env"]] == ["typed", "over"]
    (spread,) = made["topologySpreadConstraints"]
    assert spread["maxSkew"] == 2, "the default gave way to a typed field"


def test_no_overlay_leaves_the_template_as_it_is() -> None:
    plain = decode(
        {
            "metadata": {"name": "m", "namespace": "vision", "uid": "u"},
            "spec": {"model": {"storageUri": "gs://models/m"}},
        }
    )
    built = [deployment.build(one, Settings()) for one in (plain, model({}))]
    assert built[0] == built[1]


# -- anything that may be written there

FIELDS = st.sampled_from(
    [
        "name", "containers", "initContainers", "volumes", "volumeMounts", "mountPath", "ports",
        "containerPort", "env", "value", "lifecycle", "preStop", "readinessProbe", "resources",
        "limits", "$patch", "hostNetwork", "terminationGracePeriodSeconds", "imagePullSecrets",
    ]
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(0, 9000) | st.sampled_from(["", "model-server", "/"]),
    lambda below: st.lists(below, max_size=2) | st.dictionaries(FIELDS, below, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(FIELDS, JSON, max_size=4))
@settings(max_examples=300)
def test_whatever_is_written_there_makes_a_pod_or_a_message(overlay: Spec) -> None:
    template = built(overlay)
    if template is not None:
        names = [container["name"] for container in template["spec"]["containers"]]
        assert "model-server" in names


def test_whichever_part_is_of_another_type_makes_a_pod_or_a_message() -> None:
    container: Spec = {
        "image": "a",
        "args": ["a"],
        "command": ["x"],
        "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        "envFrom": [{"configMapRef": {"name": "x"}}],
        "lifecycle": {"preStop": {"sleep": {"seconds": 1}}},
        "ports": [{"containerPort": 9, "name": "z", "hostPort": 3}],
        "readinessProbe": {"exec": {"command": ["x"]}, "periodSeconds": 3},
        "resources": {"limits": {"cpu": "1"}, "claims": [{"name": "g"}]},
        "securityContext": {"capabilities": {"add": ["A"]}},
        "volumeDevices": [{"name": "d", "devicePath": "/dev/x"}],
        "volumeMounts": [{"name": "mine", "mountPath": "/z"}],
    }
    whole: Spec = {
        "containers": [{"name": "logs", **container}, {"name": "model-server", **container}],
        "initContainers": [{"name": "first", **container}, {"name": "poller", **container}],
        "securityContext": {"sysctls": [{"name": "a", "value": "b"}]},
        "topologySpreadConstraints": [{"topologyKey": "a", "whenUnsatisfiable": "DoNotSchedule"}],
        "volumes": [{"name": "mine", "emptyDir": {}}],
    }
    others: tuple[Any, ...] = (
        *(None, True, 5, 1.5, "x", [], {}, [None], [5], ["x"], [[]]),
        *({"name": []}, [{"name": "x"}], {"$patch": {}}, [{"$patch": "delete"}]),
    )
    for overlay in (alone for other in others for alone in changed(whole, other)):
        built(overlay)


def built(overlay: Spec) -> Spec | None:
    """The template of replicas, once a rehearsal was made of it; None where it is refused."""
    wanted = model(overlay)
    try:
        template = deployment.pod_template(wanted, Settings())
    except InvalidModelError:
        return None
    rehearsal.build(
        wanted, template, version=1, fingerprint="f", served=(1,), quarantined="", rollout=""
    )
    return template


def changed(value: Any, other: Any) -> Iterator[Any]:
    """The value with another one in the place of each of its parts, and little beside that."""
    if isinstance(value, dict):
        keys = {name: value[name] for name in KEYS if name in value}
        for name, below in value.items():
            for found in (other, *changed(below, other)):
                yield {**keys, name: found}
    elif isinstance(value, list):
        for below in value:
            for found in (other, *changed(below, other)):
                yield [found]


KEYS = ("name", "containerPort", "mountPath", "devicePath", "topologyKey", "whenUnsatisfiable")


def test_its_size_and_depth_are_bounded() -> None:
    deep: Any = {}
    for _ in range(40):
        deep = {"affinity": deep}
    with pytest.raises(InvalidModelError, match=r"spec.template: .*32 levels"):
        model(deep)
    with pytest.raises(InvalidModelError, match=r"spec.template: .*65536 bytes"):
        model({"hostname": "x" * LARGEST_POD_SPEC})


# -- rehearsals


def test_a_rehearsal_has_the_same_containers_without_what_lies_in_its_way() -> None:
    overlay = {
        "runtimeClassName": "nvidia",
        "readinessGates": [{"conditionType": "a/b"}],
        **sidecar(
            ports=[{"containerPort": 9, "hostPort": 9}],
            lifecycle={"preStop": {"sleep": {"seconds": 9}}, "postStart": {"exec": {}}},
        ),
    }
    wanted = model(overlay)
    template = deployment.pod_template(wanted, Settings())
    made = rehearsal.build(
        wanted, template, version=1, fingerprint="f", served=(1,), quarantined="", rollout=""
    )
    assert made["spec"]["runtimeClassName"] == "nvidia"
    served, logs = made["spec"]["containers"]
    assert "lifecycle" not in served
    assert logs["lifecycle"] == {"postStart": {"exec": {}}}
    assert logs["ports"] == [{"containerPort": 9, "protocol": "TCP"}]
    assert {"conditionType": "a/b"} not in made["spec"]["readinessGates"]
