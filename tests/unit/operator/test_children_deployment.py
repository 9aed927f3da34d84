"""What an InferenceModel wants: the pods."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import msgspec
import pytest

from inferencemodel_operator import names
from inferencemodel_operator.children import batching, deployment, leaving
from inferencemodel_operator.children.manifest import Manifest, digest
from inferencemodel_operator.observe.objects import Deployment
from inferencemodel_operator.observe.wire import DeploymentStatus
from inferencemodel_operator.settings import Settings
from inferencemodel_operator.spec import Batching, InferenceModel, InferenceModelSpec, decode
from model_poller import drain
from model_poller.stores import trust
from model_poller.volume.assignment import QUARANTINED_FILE, ROLLOUT_FILE, SERVED_FILE


def model(**spec: Any) -> InferenceModel:
    return decode(
        {
            "metadata": {"name": "imagenet", "namespace": "vision", "uid": "u-1"},
            "spec": {"model": {"storageUri": "gs://models/imagenet"}, **spec},
        }
    )


def template(settings: Settings | None = None, **spec: Any) -> Manifest:
    built = deployment.build(model(**spec), settings or Settings())
    made: Manifest = built["spec"]["template"]
    return made


def poller(**spec: Any) -> Manifest:
    (container,) = template(**spec)["spec"]["initContainers"]
    made: Manifest = container
    return made


def server(**spec: Any) -> Manifest:
    (container,) = template(**spec)["spec"]["containers"]
    made: Manifest = container
    return made


def flags(container: Manifest) -> dict[str, str]:
    """The arguments by name; of a repeated one the last counts."""
    return dict(argument.removeprefix("--").partition("=")[::2] for argument in container["args"])


# -- the Deployment


def test_no_pod_leaves_before_its_successor_serves() -> None:
    strategy = deployment.build(model(), Settings())["spec"]["strategy"]
    assert strategy["rollingUpdate"]["maxUnavailable"] == 0


def test_how_pods_are_replaced_is_the_users_to_say() -> None:
    def built(**strategy: Any) -> Manifest:
        made: Manifest = deployment.build(model(strategy=strategy), Settings())["spec"]["strategy"]
        return made

    assert built(type="Recreate") == {"type": "Recreate"}
    assert built(rollingUpdate={"maxSurge": 0, "maxUnavailable": "50%"}) == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": 0, "maxUnavailable": "50%"},
    }
    assert built(rollingUpdate={"maxSurge": 2})["rollingUpdate"]["maxUnavailable"] == 0
    times = {"minReadySeconds": 30, "progressDeadlineSeconds": 600, "revisionHistoryLimit": 0}
    spec = deployment.build(model(**times), Settings())["spec"]
    assert times.items() <= spec.items()
    at_once = deployment.build(model(minReadySeconds=0), Settings())["spec"]
    assert "minReadySeconds" not in at_once


def test_the_selector_is_immutable_so_it_holds_nothing_that_a_user_can_change() -> None:
    one = deployment.build(model(), Settings())
    other = deployment.build(
        model(
            model={"storageUri": "gs://other/x", "name": "Other"},
            template={"metadata": {"labels": {"team": "vision"}}},
        ),
        Settings(poller_image="other:1"),
    )
    assert one["spec"]["selector"] == other["spec"]["selector"]


def test_the_pod_template_is_the_one_of_the_releases_before() -> None:
    """A changed hash restarts every serving pod of every user when the operator is upgraded.

    If that is meant, say so in CHANGELOG.md and write the new hash here.
    """
    full = template(
        Settings(poller_image="inferencemodel/poller:pinned"),
        source={"secretRef": {"name": "key"}, "pollInterval": "1m"},
        server={
            "image": "tensorflow/serving:pinned",
            "resources": {"limits": {"cpu": "2", "memory": "4Gi"}},
            "batching": {"maxBatchSize": 32},
            "env": [{"name": "TF_CPP_MIN_LOG_LEVEL", "value": "1"}],
        },
        template={"metadata": {"labels": {"team": "vision"}}, "nodeSelector": {"pool": "gpu"}},
    )
    assert digest(full) == "aa3e41b65071eae1"


@pytest.mark.parametrize(
    "spec",
    [
        {"replicas": 7},
        {"suspend": True},
        {"service": {"httpPort": 80, "type": "NodePort"}},
        {"ingress": {"host": "x.example.com"}},
        {"model": {"storageUri": "gs://models/imagenet", "version": 7, "minVersion": 3}},
    ],
)
def test_a_change_that_needs_no_restart_leaves_the_pod_template_alone(spec: Manifest) -> None:
    assert digest(template(**spec)) == digest(template())


def test_the_target_version_is_never_in_the_pod_template() -> None:
    made = template(model={"storageUri": "gs://models/imagenet", "version": 7})
    assert names.TARGET_VERSION_ANNOTATION not in made["metadata"].get("annotations", {})


# -- the pod


def test_the_pod_meets_the_restricted_security_standard() -> None:
    pod = template()["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    for container in (*pod["initContainers"], *pod["containers"]):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_the_users_labels_stand_beside_the_operators_and_never_replace_them() -> None:
    labels = {"team": "vision", names.MODEL_LABEL: "other"}
    made = template(template={"metadata": {"labels": labels, "annotations": {"a": "b"}}})
    assert made["metadata"]["labels"] == {"team": "vision", **names.labels("imagenet")}
    assert made["metadata"]["annotations"] == {
        "a": "b",
        names.STORAGE_URI_ANNOTATION: "gs://models/imagenet",
    }


def test_placement_is_handed_on_as_it_is() -> None:
    affinity: Manifest = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": []}}
    tolerations = [{"key": "gpu", "operator": "Exists", "tolerationSeconds": 0}]
    pod = template(
        template={
            "nodeSelector": {"pool": "gpu"},
            "tolerations": tolerations,
            "affinity": affinity,
        }
    )["spec"]
    assert pod["nodeSelector"] == {"pool": "gpu"}
    assert pod["tolerations"] == tolerations
    assert pod["affinity"] == affinity


def test_the_service_account_is_the_namespaces_default_unless_it_is_named() -> None:
    assert template()["spec"]["serviceAccountName"] == "default"
    named = template(source={"serviceAccountName": "reader"})
    assert named["spec"]["serviceAccountName"] == "reader"


def test_every_mount_has_its_volume() -> None:
    pod = template(source={"secretRef": {"name": "key"}})["spec"]
    volumes = {volume["name"] for volume in pod["volumes"]}
    mounted = {
        mount["name"]
        for container in (*pod["initContainers"], *pod["containers"])
        for mount in container["volumeMounts"]
    }
    assert mounted == volumes


# -- the poller


def test_the_poller_is_a_sidecar_that_holds_the_server_back_until_a_version_is_there() -> None:
    container = poller()
    assert container["restartPolicy"] == "Always"
    assert container["startupProbe"]["httpGet"]["path"] == "/startupz"
    assert container["livenessProbe"]["httpGet"]["path"] == "/livez"


def test_a_poller_takes_its_pod_out_of_its_services_only_where_that_is_wanted() -> None:
    assert "readinessProbe" not in poller()
    assert "readinessProbe" not in poller(rollout={"steps": []})
    probe = poller(rollout={"drain": True})["readinessProbe"]
    assert probe["httpGet"]["path"] == "/drainz"
    # The poller counts on it that the kubelet has seen it by then, and whoever it tells.
    assert probe["periodSeconds"] * (probe["failureThreshold"] + 1) + 4 <= drain.LEAST_SECONDS
    age = leaving.CONNECTION_AGE_SECONDS * 1.1
    assert drain.LEAST_SECONDS + age <= drain.MOST_SECONDS


def test_the_poller_is_told_what_the_spec_says() -> None:
    told = flags(
        poller(
            model={
                "storageUri": "gs://models/imagenet",
                "name": "ResNet",
                "numVersions": 2,
                "retainVersions": 4,
            },
            source={
                "endpoint": "http://bucket:4443",
                "anonymous": True,
                "pollInterval": "1m30s",
                "notifications": {
                    "pubsub": {
                        "subscription": "projects/p/subscriptions/s",
                        "endpoint": "pubsub:8085",
                    }
                },
            },
        )
    )
    assert told == {
        "model-name": "ResNet",
        "storage-uri": "gs://models/imagenet",
        "models-dir": "/models",
        "server-address": "127.0.0.1:8500",
        "server-config-dir": "/models/.server",
        "target-file": "/etc/podinfo/target-version",
        "http-port": "8502",
        "poll-interval": "90",
        "num-versions": "2",
        "retain-versions": "4",
        "log-format": "json",
        "endpoint": "http://bucket:4443",
        "anonymous": "",
        "pubsub-subscription": "projects/p/subscriptions/s",
        "pubsub-endpoint": "pubsub:8085",
    }


def test_a_dollar_reaches_the_poller_although_kubernetes_expands_variables() -> None:
    told = flags(poller(model={"storageUri": "gs://models/$(POD_NAME)/a$$b"}))
    assert told["storage-uri"] == "gs://models/$$(POD_NAME)/a$$$$b"


def test_what_the_spec_leaves_out_is_not_told() -> None:
    told = flags(poller())
    left_out = {"endpoint", "anonymous", "pubsub-subscription", "batching-parameters"}
    assert not left_out & told.keys()


@pytest.mark.parametrize(
    ("variable", "key"),
    [
        ("TARGET_VERSION", "target"),
        ("SERVED_VERSIONS", "served"),
        ("QUARANTINED_VERSIONS", "quarantined"),
    ],
)
def test_a_new_pod_starts_with_what_the_config_map_says_if_there_is_one(
    variable: str, key: str
) -> None:
    variables = {entry["name"]: entry for entry in poller()["env"]}
    assert variables[variable]["valueFrom"]["configMapKeyRef"] == {
        "name": "imagenet-versions",
        "key": key,
        "optional": True,
    }


def test_the_assignment_reaches_the_poller_as_files_of_one_folder() -> None:
    pod = template()["spec"]
    (volume,) = (volume for volume in pod["volumes"] if volume["name"] == "podinfo")
    (mount,) = (m for m in poller()["volumeMounts"] if m["name"] == "podinfo")
    items = {item["path"]: item["fieldRef"] for item in volume["downwardAPI"]["items"]}
    assert f"{mount['mountPath']}/target-version" == flags(poller())["target-file"]
    assert {file: reference["fieldPath"] for file, reference in items.items()} == {
        "target-version": f"metadata.annotations['{names.TARGET_VERSION_ANNOTATION}']",
        SERVED_FILE: f"metadata.annotations['{names.SERVED_VERSIONS_ANNOTATION}']",
        QUARANTINED_FILE: f"metadata.annotations['{names.QUARANTINED_VERSIONS_ANNOTATION}']",
        ROLLOUT_FILE: f"metadata.annotations['{names.ROLLOUT_ANNOTATION}']",
    }


def test_what_is_left_out_of_the_pollers_resources_keeps_its_default() -> None:
    usual = {"requests": {"cpu": "20m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}}
    assert poller()["resources"] == usual
    given = {"limits": {"cpu": "0.5", "ephemeral-storage": "1024Mi"}, "requests": {"cpu": "100m"}}
    assert poller(poller={"resources": given})["resources"] == {
        "requests": {"cpu": "100m", "memory": "128Mi"},
        "limits": {"cpu": "500m", "memory": "512Mi", "ephemeral-storage": "1Gi"},
    }


def test_the_pollers_variables_come_behind_the_operators() -> None:
    given = [{"name": "HTTPS_PROXY", "value": "http://$(POD_NAME).proxy:3128"}]
    spec: dict[str, Any] = {"poller": {"env": given}}
    assert poller(**spec)["env"] == [*poller()["env"], *given]
    assert "env" not in server(**spec)


def test_the_pollers_log_tells_more_where_that_is_wanted() -> None:
    assert "log-level" not in flags(poller())
    assert flags(poller(poller={"logLevel": "Debug"}))["log-level"] == "debug"


def test_extra_authorities_are_in_the_pollers_container_alone() -> None:
    config_map = {"name": "company", "key": "bundle.pem"}
    spec: dict[str, Any] = {"poller": {"extraCAs": {"configMap": config_map}}}
    (volume,) = (v for v in template(**spec)["spec"]["volumes"] if v["name"] == "extra-cas")
    (item,) = volume["configMap"]["items"]
    assert (volume["configMap"]["name"], item["key"]) == ("company", "bundle.pem")
    (mount,) = (m for m in poller(**spec)["volumeMounts"] if m["name"] == "extra-cas")
    assert mount["readOnly"] is True
    told = {v["name"]: v.get("value") for v in poller(**spec)["env"]}
    assert told["EXTRA_CA_FILE"] == f"{mount['mountPath']}/{item['path']}"
    assert told.keys() - {v["name"] for v in poller()["env"]} == {trust.EXTRA}
    assert "extra-cas" not in {m["name"] for m in server(**spec)["volumeMounts"]}


def test_credentials_are_in_the_pollers_container_alone() -> None:
    spec = {"source": {"secretRef": {"name": "key"}}}
    variables = {v["name"]: v.get("value") for v in poller(**spec)["env"]}
    (mount,) = (m for m in poller(**spec)["volumeMounts"] if m["name"] == "model-source")
    assert variables["GOOGLE_APPLICATION_CREDENTIALS"] == f"{mount['mountPath']}/key.json"
    assert mount["readOnly"] is True
    assert "model-source" not in {m["name"] for m in server(**spec)["volumeMounts"]}


def test_without_a_secret_no_credentials_are_named() -> None:
    assert "GOOGLE_APPLICATION_CREDENTIALS" not in {v["name"] for v in poller()["env"]}


def test_the_poller_is_of_the_operators_release_unless_an_installation_says_otherwise() -> None:
    assert poller()["image"] == f"inferencemodel/poller:{version('inferencemodel')}"


def test_the_pollers_image_is_the_installations() -> None:
    settings = Settings(poller_image="r/poller@sha256:1", poller_image_pull_policy="Always")
    (container,) = template(settings)["spec"]["initContainers"]
    assert (container["image"], container["imagePullPolicy"]) == ("r/poller@sha256:1", "Always")
    assert "imagePullPolicy" not in poller()


# -- the model server


def test_the_server_is_started_without_its_images_own_entry_point() -> None:
    assert server()["command"] == ["/usr/bin/tensorflow_model_server"]
    assert server(server={"command": ["/bin/tini", "--"]})["command"] == ["/bin/tini", "--"]


def test_the_servers_flags_avoid_the_harmful_defaults() -> None:
    told = flags(server())
    assert told["num_load_threads"] == "2"
    assert told["num_unload_threads"] == "1"
    assert told["max_num_load_retries"] == "2"
    assert told["enable_profiler"] == "false"
    assert told["file_system_poll_wait_seconds"] == "1"


def test_server_and_poller_agree_on_ports_and_config_folder() -> None:
    told, asked = flags(server()), flags(poller())
    assert asked["server-address"].endswith(f":{told['port']}")
    for config in ("model_config_file", "monitoring_config_file"):
        assert told[config].startswith(f"{asked['server-config-dir']}/")
    ports = {port["name"]: str(port["containerPort"]) for port in server()["ports"]}
    assert ports == {"grpc": told["port"], "http": told["rest_api_port"]}


def test_threads_follow_the_cpu_limit() -> None:
    told = flags(server(server={"resources": {"limits": {"cpu": "2500m"}}}))
    assert told["tensorflow_intra_op_parallelism"] == "3"
    assert told["tensorflow_inter_op_parallelism"] == "3"
    assert "tensorflow_intra_op_parallelism" not in flags(server())


def test_every_flag_has_its_value_behind_an_equals_sign() -> None:
    """TensorFlow Serving doesn't take ``--name value``, and ignores what it doesn't know."""
    container = server(server={"batching": {}, "resources": {"limits": {"cpu": 1}}})
    assert all(argument.startswith("--") and "=" in argument for argument in container["args"])


def test_the_users_flags_come_last_so_they_prevail() -> None:
    told = server(server={"args": ["--num_load_threads=8"]})
    assert told["args"][-1] == "--num_load_threads=8"
    assert flags(told)["num_load_threads"] == "8"


def test_ready_means_that_the_model_itself_can_be_served() -> None:
    ready = server(model={"storageUri": "gs://b/f", "name": "ResNet"})["readinessProbe"]
    assert ready["httpGet"]["path"] == "/v1/models/ResNet/metadata"


def channel(**spec: Any) -> dict[str, float]:
    """gRPC's own settings, in seconds."""
    pairs = flags(server(**spec))["grpc_channel_arguments"].split(",")
    return {name: int(text) / 1000 for name, text in (pair.split("=") for pair in pairs)}


@pytest.mark.parametrize("seconds", [15, 20, 34, 35, 36, 60, 300, 3600])
def test_a_pod_serves_on_until_every_connection_has_aged_out(seconds: int) -> None:
    spec: dict[str, Any] = {"drain": {"seconds": seconds}}
    told = channel(**spec)
    age, grace = told["grpc.max_connection_age_ms"], told["grpc.max_connection_age_grace_ms"]
    drain = server(**spec)["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert drain == seconds < template(**spec)["spec"]["terminationGracePeriodSeconds"]
    assert age >= 3
    assert grace >= 3
    assert seconds - 1.1 < age * 1.1 + grace + 8.5 <= seconds


def test_by_default_a_pod_goes_as_in_the_releases_before() -> None:
    assert channel() == {
        "grpc.max_connection_age_ms": 15,
        "grpc.max_connection_age_grace_ms": 10,
    }
    assert template()["spec"]["terminationGracePeriodSeconds"] == 45
    assert "rest_api_timeout_in_ms" not in flags(server())


@pytest.mark.parametrize(
    ("seconds", "grpc", "rest"), [(35, 10, None), (39, 14, None), (40, 15, 31), (60, 35, 51)]
)
def test_longer_requests_are_let_through_where_a_pod_waits_for_them(
    seconds: int, grpc: int, rest: int | None
) -> None:
    spec: dict[str, Any] = {"drain": {"seconds": seconds}}
    assert channel(**spec)["grpc.max_connection_age_grace_ms"] == grpc
    limit = flags(server(**spec)).get("rest_api_timeout_in_ms")
    assert limit == (None if rest is None else str(rest * 1000))
    mine = flags(server(**spec, server={"args": ["--rest_api_timeout_in_ms=1000"]}))
    assert mine["rest_api_timeout_in_ms"] == "1000"


def test_the_models_are_read_only_to_the_server() -> None:
    mounts = {mount["name"]: mount for mount in server()["volumeMounts"]}
    assert mounts["models"]["readOnly"] is True
    assert "readOnly" not in {mount["name"]: mount for mount in poller()["volumeMounts"]}["models"]


def test_resources_are_canonical_and_absent_when_none_are_given() -> None:
    given = {"requests": {"cpu": "0.5", "memory": "1024Mi"}, "limits": {"memory": "2048Mi"}}
    assert server(server={"resources": given})["resources"] == {
        "requests": {"cpu": "500m", "memory": "1Gi"},
        "limits": {"memory": "2Gi"},
    }
    assert "resources" not in server()


def test_environment_comes_from_values_secrets_and_config_maps() -> None:
    given: list[Manifest] = [
        {"name": "A", "value": "1"},
        {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k", "optional": True}}},
        {"name": "C", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}},
    ]
    assert server(server={"env": given})["env"] == given


# -- batching


def test_batching_is_off_unless_it_is_given() -> None:
    assert "enable_batching" not in flags(server())


def test_batching_turns_the_server_on_and_hands_the_parameters_to_the_poller() -> None:
    spec = {"server": {"batching": {"maxBatchSize": 32}}}
    assert flags(server(**spec))["enable_batching"] == "true"
    assert flags(server(**spec))["batching_parameters_file"] == "/models/.server/batching.config"
    assert "max_batch_size { value: 32 }" in flags(poller(**spec))["batching-parameters"]


def test_batching_parameters_are_text_of_the_protocol_buffer() -> None:
    every = Batching(
        max_batch_size=8,
        batch_timeout_micros=0,
        max_enqueued_batches=100,
        num_batch_threads=4,
        allowed_batch_sizes=(2, 4, 8),
        pad_variable_length_inputs=True,
    )
    assert batching.textproto(every, threads=2) == (
        "max_batch_size { value: 8 } batch_timeout_micros { value: 0 } "
        "max_enqueued_batches { value: 100 } num_batch_threads { value: 4 } "
        "allowed_batch_sizes: 2 allowed_batch_sizes: 4 allowed_batch_sizes: 8 "
        "pad_variable_length_inputs: true"
    )


def test_batch_threads_follow_the_cpu_limit_when_nobody_says() -> None:
    assert "num_batch_threads { value: 3 }" in batching.textproto(Batching(), threads=3)
    assert "num_batch_threads" not in batching.textproto(Batching(), threads=None)


def test_batching_without_parameters_is_still_batching() -> None:
    assert batching.textproto(Batching(), threads=None) != ""


# -- what a user, and what the operator, changes in the template


def hashes(deployment: Manifest) -> tuple[str, str]:
    annotations = deployment["metadata"]["annotations"]
    return (
        annotations["inferencemodel.dev/pod-spec-hash"],
        annotations["inferencemodel.dev/template-hash"],
    )


WITHOUT_PODS: dict[str, Any] = {
    "replicas": 3,
    "autoscaling": {"maxReplicas": 4},
    "disruptionBudget": {"enabled": False},
    "suspend": True,
    "service": {"httpPort": 80},
    "ingress": {"host": "example.com"},
    "gateway": {"parentRefs": [{"name": "g"}]},
    "networkPolicy": {"enabled": True},
    "strategy": {"type": "Recreate"},
    "minReadySeconds": 30,
    "progressDeadlineSeconds": 600,
    "revisionHistoryLimit": 0,
    "rollout": {"steps": [], "paused": True},
    "model": {"storageUri": "gs://models/imagenet", "version": 3, "minVersion": 2},
}
WITH_PODS: dict[str, Any] = {
    "server": {"args": ["--x=1"]},
    "source": {"pollInterval": "5s"},
    "drain": {"seconds": 60},
    "poller": {"logLevel": "Debug"},
    "template": {"nodeSelector": {"gpu": "true"}},
    "storage": {"cache": {"claimName": "c"}},
    "model": {"storageUri": "gs://models/imagenet", "numVersions": 2},
}


@pytest.mark.parametrize("field", WITHOUT_PODS)
def test_what_concerns_no_pod_changes_no_hash(field: str) -> None:
    plain = deployment.build(model(), Settings())
    built = deployment.build(model(**{field: WITHOUT_PODS[field]}), Settings())
    assert hashes(built) == hashes(plain)


@pytest.mark.parametrize("field", WITH_PODS)
def test_what_a_user_changes_in_the_pods_changes_both_hashes(field: str) -> None:
    plain = deployment.build(model(), Settings())
    built = deployment.build(model(**{field: WITH_PODS[field]}), Settings())
    assert all(one != other for one, other in zip(hashes(built), hashes(plain), strict=True))


def test_every_field_of_the_spec_is_known_to_concern_the_pods_or_not() -> None:
    assert {*WITHOUT_PODS, *WITH_PODS} == {
        field.encode_name for field in msgspec.structs.fields(InferenceModelSpec)
    }


def test_what_the_operator_changes_leaves_the_hash_of_what_a_user_asked() -> None:
    (asked, one), (same, other) = (
        hashes(deployment.build(model(), Settings(poller_image=image))) for image in ("a", "b")
    )
    assert asked == same
    assert one != other


def test_a_default_that_is_written_out_is_no_change() -> None:
    written = {"server": {"image": "tensorflow/serving:2.20.0"}, "source": {"pollInterval": "30s"}}
    assert deployment.pod_spec_hash(model(**written)) == deployment.pod_spec_hash(model())


def test_the_hash_of_what_a_user_asked_is_the_same_from_release_to_release() -> None:
    """Where it changes for these, `_FORM` has to change, or an upgrade passes for users' doing."""
    rich = model(
        model={"storageUri": "s3://b/m", "retainVersions": 5},
        source={"pollInterval": "1m30s", "fetch": {"maxBandwidth": "50M"}},
        server={
            "image": "tf:1",
            "args": ["--x=1"],
            "resources": {"limits": {"memory": "4Gi"}},
            "env": [{"name": "A", "value": "b"}],
        },
        template={"tolerations": [{"key": "gpu", "operator": "Exists"}]},
    )
    assert deployment.pod_spec_hash(model()) == "1-a7d09eee1652ec03"
    assert deployment.pod_spec_hash(rich) == "1-e5c7dd7e55033b3a"


def live(**fields: Any) -> Deployment:
    return Deployment(DeploymentStatus(), 1, holds_replicas=True, revision="1", **fields)


def test_a_held_deployment_has_the_template_that_it_had_and_all_else_that_is_wanted() -> None:
    before = deployment.build(model(), Settings(poller_image="a"))
    newest = deployment.build(model(replicas=4), Settings(poller_image="b"))
    asked, old = hashes(before)

    held = deployment.hold(newest, before["spec"]["template"], live(template_hash=old))

    assert held["spec"] == {**newest["spec"], "template": before["spec"]["template"]}
    assert hashes(held) == (asked, old)
    assert deployment.held_template(held) == before["spec"]["template"]
    assert deployment.held_template(newest) is None
    sealed = held["metadata"]["annotations"][names.DESIRED_HASH_ANNOTATION]
    assert sealed != newest["metadata"]["annotations"][names.DESIRED_HASH_ANNOTATION]
    assert deployment.hold(newest, before["spec"]["template"], live(template_hash=old)) == held


def test_a_template_beyond_what_an_annotation_takes_is_held_without_one() -> None:
    newest = deployment.build(model(), Settings())
    large = {"spec": {"x": "y" * deployment.LARGEST_HELD}}
    held = deployment.hold(newest, large, live())
    assert held["spec"]["template"] == large
    assert deployment.held_template(held) is None


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"x"', "7"])
def test_what_somebody_else_wrote_is_no_held_template(text: str) -> None:
    obj = {"metadata": {"annotations": {names.HELD_TEMPLATE_ANNOTATION: text}}}
    assert deployment.held_template(obj) is None
