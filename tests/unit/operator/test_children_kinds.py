"""What an InferenceModel wants: scaling, disruption, routes, policies, stores and placement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from inferencemodel_operator import names
from inferencemodel_operator.children import children
from inferencemodel_operator.record import VersionsRecord
from inferencemodel_operator.settings import Settings, Upstream
from inferencemodel_operator.spec import InferenceModel, decode
from inferencemodel_operator.values import Quantity

if TYPE_CHECKING:
    from inferencemodel_operator.children.manifest import Manifest

KEDA = {"triggers": [{"type": "cron", "metadata": {"timezone": "UTC"}}]}
CPU = {"type": "Utilization", "averageUtilization": 70}
METRICS = [{"type": "Resource", "resource": {"name": "cpu", "target": CPU}}]
BEHAVIOR = {"scaleDown": {"stabilizationWindowSeconds": 0, "selectPolicy": "Max"}}
TARGET = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "imagenet"}
PODS = {"matchLabels": names.selector("imagenet")}


def model(**spec: Any) -> InferenceModel:
    return decode(
        {
            "metadata": {"name": "imagenet", "namespace": "vision", "uid": "u-1"},
            "spec": {"model": {"storageUri": "gs://models/imagenet"}, **spec},
        }
    )


def built(settings: Settings | None = None, **spec: Any) -> dict[str, Manifest]:
    """The specs of the children by kind."""
    made = children(model(**spec), VersionsRecord(target=15), settings or Settings())
    return {child["kind"]: child.get("spec", {}) for child in made if child["kind"] != "Service"}


def pod(**spec: Any) -> Manifest:
    made: Manifest = built(**spec)["Deployment"]["template"]["spec"]
    return made


def mounted(container: Manifest) -> dict[str, Manifest]:
    return {mount["name"]: mount for mount in container["volumeMounts"]}


def volume(name: str, **spec: Any) -> Manifest:
    (found,) = (volume for volume in pod(**spec)["volumes"] if volume["name"] == name)
    made: Manifest = found
    return made


# -- autoscaling


def test_the_autoscaler_has_the_fields_of_autoscaling_v2_as_they_are() -> None:
    given = {"minReplicas": 2, "maxReplicas": 9, "metrics": METRICS, "behavior": BEHAVIOR}
    assert built(autoscaling=given)["HorizontalPodAutoscaler"] == {
        "scaleTargetRef": TARGET,
        **given,
    }


def test_what_the_autoscaler_is_to_follow_is_kubernetes_default_unless_it_is_given() -> None:
    wanted = built(autoscaling={"maxReplicas": 3})["HorizontalPodAutoscaler"]
    assert wanted == {"scaleTargetRef": TARGET, "minReplicas": 1, "maxReplicas": 3}


def test_with_keda_a_scaled_object_scales_and_nothing_else_does() -> None:
    wanted = built(autoscaling={"minReplicas": 0, "maxReplicas": 3, "keda": KEDA})
    assert wanted["ScaledObject"] == {
        "scaleTargetRef": TARGET,
        "minReplicaCount": 0,
        "maxReplicaCount": 3,
        "pollingInterval": 30,
        "cooldownPeriod": 300,
        "triggers": KEDA["triggers"],
    }
    assert "HorizontalPodAutoscaler" not in wanted


def test_keda_is_told_how_fast_the_autoscaler_that_it_makes_may_scale() -> None:
    wanted = built(autoscaling={"maxReplicas": 3, "keda": KEDA, "behavior": BEHAVIOR})
    advanced = wanted["ScaledObject"]["advanced"]
    assert advanced == {"horizontalPodAutoscalerConfig": {"behavior": BEHAVIOR}}


HTTP = {"minReplicas": 0, "maxReplicas": 3, "keda": {"http": {"concurrency": 4}}}
SERVED_HERE = [
    "keda-http-imagenet.vision",
    "keda-http-imagenet.vision.svc",
    "keda-http-imagenet.vision.svc.cluster.local",
]
OTHER_ADD_ON = Settings(
    interceptor=Upstream(namespace="scaling", service="proxy", port=80),
    scaler=Upstream(namespace="scaling", service="scaler", port=81),
    cluster_domain="k8s.example.com",
)


def services(settings: Settings | None = None, **spec: Any) -> dict[str, Manifest]:
    made = children(model(**spec), VersionsRecord(target=15), settings or Settings())
    return {c["metadata"]["name"]: c["spec"] for c in made if c["kind"] == "Service"}


def test_requests_are_counted_for_the_model_whose_host_and_path_they_have() -> None:
    http = {"hosts": ["m.example.com", "*.example.org"], "concurrency": 4, "requestRate": 50}
    wanted = built(
        model={"storageUri": "gs://models/imagenet", "name": "ResNet"},
        service={"httpPort": 80},
        ingress={"host": "m.example.com", "hosts": ["*.m.example.com"], "path": "/api"},
        gateway={"parentRefs": [{"name": "public"}], "hostnames": ["g.example.com"]},
        autoscaling={"maxReplicas": 3, "keda": {"http": {**http, "timeout": "1m30s"}}},
    )
    api = "/v1/models/ResNet"
    assert wanted["InterceptorRoute"] == {
        "target": {"service": "imagenet", "port": 80},
        "rules": [
            {
                "hosts": [
                    "m.example.com",
                    "*.m.example.com",
                    "g.example.com",
                    "*.example.org",
                    *SERVED_HERE,
                ],
                "paths": [
                    {"value": api},
                    *({"value": f"{api}:{v}"} for v in ("predict", "classify", "regress")),
                ],
            }
        ],
        "scalingMetric": {"concurrency": {"targetValue": 4}, "requestRate": {"targetValue": 50}},
        "timeouts": {"readiness": "90s"},
    }


def test_one_scaled_object_follows_requests_and_what_else_is_given() -> None:
    trigger = {
        "type": "external-push",
        "metadata": {
            "scalerAddress": "keda-add-ons-http-external-scaler.keda:9090",
            "interceptorRoute": "imagenet",
        },
    }
    assert built(autoscaling=HTTP)["ScaledObject"]["triggers"] == [trigger]
    both = {"maxReplicas": 3, "keda": {"http": {"requestRate": 9}, **KEDA}}
    assert built(autoscaling=both)["ScaledObject"]["triggers"] == [trigger, *KEDA["triggers"]]
    elsewhere = built(OTHER_ADD_ON, autoscaling=HTTP)["ScaledObject"]["triggers"]
    assert elsewhere[0]["metadata"]["scalerAddress"] == "scaler.scaling:81"


def test_ingress_and_routes_lead_to_the_interceptor_of_another_namespace() -> None:
    spec: dict[str, Any] = {
        "autoscaling": HTTP,
        "ingress": {"host": "m.example.com"},
        "gateway": {"parentRefs": [{"name": "public"}], "grpcHostnames": ["g.example.com"]},
    }
    wanted = built(OTHER_ADD_ON, **spec)
    paths = wanted["Ingress"]["rules"][0]["http"]["paths"]
    backend = {"name": "keda-http-imagenet", "port": {"number": 80}}
    assert [path["backend"] for path in paths] == [{"service": backend}]
    assert services(OTHER_ADD_ON, **spec)["keda-http-imagenet"] == {
        "type": "ExternalName",
        "externalName": "proxy.scaling.svc.k8s.example.com",
        "ports": [{"name": "http", "protocol": "TCP", "port": 80, "targetPort": 80}],
    }
    (there,) = wanted["HTTPRoute"]["rules"][0]["backendRefs"]
    assert (there["namespace"], there["name"], there["port"]) == ("scaling", "proxy", 80)
    # The interceptor takes gRPC, and the route has one port: REST's.
    (grpc,) = wanted["GRPCRoute"]["rules"][0]["backendRefs"]
    assert grpc["name"] == "imagenet"


def test_the_walls_let_the_interceptor_in() -> None:
    clients = {"namespaceSelector": {"matchLabels": {"team": "web"}}}
    policy = {"enabled": True, "from": [clients]}
    plain = built(networkPolicy=policy)["NetworkPolicy"]["ingress"]
    wanted = built(OTHER_ADD_ON, networkPolicy=policy, autoscaling=HTTP)["NetworkPolicy"]["ingress"]
    (more,) = [rule for rule in wanted if rule not in plain]
    namespace = {"matchLabels": {"kubernetes.io/metadata.name": "scaling"}}
    assert more["from"] == [{"namespaceSelector": namespace}]
    assert [port["port"] for port in more["ports"]] == [names.HTTP_PORT]


def test_pods_are_the_same_whatever_counts_their_requests() -> None:
    autoscaling = {"minReplicas": 0, "maxReplicas": 3, "keda": KEDA}
    assert built(autoscaling=HTTP)["Deployment"] == built(autoscaling=autoscaling)["Deployment"]


def test_nothing_leads_to_an_interceptor_that_nobody_asks_for() -> None:
    spec: dict[str, Any] = {
        "autoscaling": {"maxReplicas": 3, "keda": KEDA},
        "ingress": {"host": "m.example.com"},
    }
    assert "InterceptorRoute" not in built(**spec)
    assert services(**spec).keys() == {"imagenet", "imagenet-headless"}


@pytest.mark.parametrize("keda", [{}, {"keda": KEDA}])
def test_the_number_of_pods_is_the_autoscalers_while_there_is_one(keda: Manifest) -> None:
    wanted = built(replicas=4, autoscaling={"maxReplicas": 9, **keda})
    assert "replicas" not in wanted["Deployment"]


def test_without_autoscaling_the_number_of_pods_is_the_specs() -> None:
    wanted = built(replicas=0)
    assert wanted["Deployment"]["replicas"] == 0
    assert not {"HorizontalPodAutoscaler", "ScaledObject"} & wanted.keys()


def test_an_autoscaler_prevails_over_the_number_that_somebody_gave() -> None:
    assert model(replicas=3, autoscaling={"maxReplicas": 5}).replicas is None


# -- disruption


@pytest.mark.parametrize(
    "spec",
    [
        {"replicas": 2},
        {"replicas": 1, "autoscaling": {"maxReplicas": 2}},
        {"autoscaling": {"minReplicas": 0, "maxReplicas": 2, "keda": KEDA}},
    ],
)
def test_a_node_drain_takes_one_pod_at_once_where_there_can_be_more(spec: Manifest) -> None:
    assert built(**spec)["PodDisruptionBudget"] == {
        "maxUnavailable": 1,
        "selector": PODS,
        # A pod that never got ready must not stop a node from being drained.
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
    }


@pytest.mark.parametrize(
    "spec",
    [
        {"replicas": 0},
        {"replicas": 1},
        {"replicas": 5, "autoscaling": {"maxReplicas": 1}},
        {"replicas": 5, "disruptionBudget": {"enabled": False}},
    ],
)
def test_no_budget_holds_up_a_drain_where_it_would_be_of_no_use(spec: Manifest) -> None:
    assert "PodDisruptionBudget" not in built(**spec)


@pytest.mark.parametrize("most", [2, "25%"])
def test_the_budget_is_a_number_or_a_part(most: int | str) -> None:
    wanted = built(replicas=8, disruptionBudget={"maxUnavailable": most})
    assert wanted["PodDisruptionBudget"]["maxUnavailable"] == most


@pytest.mark.parametrize("least", [2, "75%"])
def test_how_many_pods_stay_counts_instead_of_how_many_go(least: int | str) -> None:
    wanted = built(replicas=8, disruptionBudget={"minAvailable": least, "maxUnavailable": 1})
    assert wanted["PodDisruptionBudget"]["minAvailable"] == least
    assert "maxUnavailable" not in wanted["PodDisruptionBudget"]


# -- routes


def test_there_are_no_routes_without_a_gateway() -> None:
    assert not {"HTTPRoute", "GRPCRoute"} & built(ingress={"host": "x.example.com"}).keys()


def test_rest_goes_by_path_to_the_services_rest_port() -> None:
    wanted = built(
        service={"httpPort": 80, "grpcPort": 9000},
        gateway={
            "parentRefs": [{"name": "public", "namespace": "infra", "sectionName": "web"}],
            "hostnames": ["models.example.com"],
            "path": "/v1/models/imagenet",
        },
    )
    assert wanted["HTTPRoute"] == {
        "parentRefs": [
            {
                "group": "gateway.networking.k8s.io",
                "kind": "Gateway",
                "namespace": "infra",
                "name": "public",
                "sectionName": "web",
            }
        ],
        "hostnames": ["models.example.com"],
        "rules": [
            {
                "matches": [
                    {"path": {"type": "PathPrefix", "value": "/v1/models/imagenet"}},
                    {"path": {"type": "Exact", "value": "/v1/models/imagenet:predict"}},
                    {"path": {"type": "Exact", "value": "/v1/models/imagenet:classify"}},
                    {"path": {"type": "Exact", "value": "/v1/models/imagenet:regress"}},
                ],
                "backendRefs": [
                    {"group": "", "kind": "Service", "name": "imagenet", "port": 80, "weight": 1}
                ],
            }
        ],
    }
    assert "GRPCRoute" not in wanted


def test_grpc_goes_by_hosts_of_its_own_to_the_services_grpc_port() -> None:
    wanted = built(
        service={"httpPort": 80, "grpcPort": 9000},
        gateway={
            "parentRefs": [{"name": "public"}, {"name": "internal", "port": 443}],
            "grpcHostnames": ["grpc.example.com"],
        },
    )
    route = wanted["GRPCRoute"]
    assert route["hostnames"] == ["grpc.example.com"]
    assert [parent["name"] for parent in route["parentRefs"]] == ["public", "internal"]
    (rule,) = route["rules"]
    assert [backend["port"] for backend in rule["backendRefs"]] == [9000]
    # The hosts of the listeners, on all paths.
    assert "hostnames" not in wanted["HTTPRoute"]
    assert wanted["HTTPRoute"]["rules"][0]["matches"][0]["path"]["value"] == "/"


def test_a_service_as_parent_is_of_kubernetes_own_group() -> None:
    parent = {"group": "", "kind": "Service", "name": "mesh"}
    assert built(gateway={"parentRefs": [parent]})["HTTPRoute"]["parentRefs"] == [parent]


def test_a_gateway_speaks_http_2_to_the_grpc_port_of_each_service() -> None:
    made = children(model(), VersionsRecord(), Settings())
    ports = [child["spec"]["ports"] for child in made if child["kind"] == "Service"]
    assert len(ports) == 2
    for http, grpc in ports:
        assert (http["name"], grpc["name"]) == ("http", "grpc")
        assert "appProtocol" not in http
        assert grpc["appProtocol"] == "kubernetes.io/h2c"


# -- the network policy


def test_there_is_no_policy_unless_it_is_asked_for() -> None:
    assert "NetworkPolicy" not in built()
    assert "NetworkPolicy" not in built(networkPolicy={"from": [{"podSelector": {}}]})


def test_requests_come_from_everybody_and_the_pollers_reports_go_to_the_operator_alone() -> None:
    wanted = built(Settings(namespace="ops"), networkPolicy={"enabled": True})["NetworkPolicy"]
    operator = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ops"}}}
    assert wanted == {
        "podSelector": {"matchLabels": names.walled("imagenet")},
        "policyTypes": ["Ingress"],
        "ingress": [
            {"ports": [{"port": 8501, "protocol": "TCP"}, {"port": 8500, "protocol": "TCP"}]},
            {"ports": [{"port": 8502, "protocol": "TCP"}], "from": [operator]},
        ],
    }


def test_who_reads_metrics_reaches_their_ports_and_grpc_not() -> None:
    peers = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]
    policy = {"enabled": True, "from": [{"podSelector": {}}], "metricsFrom": peers}
    *before, metrics = built(networkPolicy=policy)["NetworkPolicy"]["ingress"]
    assert metrics["from"] == peers
    assert [port["port"] for port in metrics["ports"]] == [8501, 8502]
    del policy["metricsFrom"]
    assert built(networkPolicy=policy)["NetworkPolicy"]["ingress"] == before


def test_only_the_named_peers_send_requests_and_none_of_them_asks_the_poller() -> None:
    peers = [{"namespaceSelector": {"matchLabels": {"team": "web"}}, "podSelector": {}}]
    wanted = built(networkPolicy={"enabled": True, "from": peers})["NetworkPolicy"]
    requests, reports = wanted["ingress"]
    assert requests["from"] == peers
    assert peers[0] not in reports["from"]


# -- the pods


def test_a_claim_is_read_only_at_the_same_place_in_both_containers() -> None:
    """Versions of a claim are published as links, which the model server follows."""
    spec = {"model": {"storageUri": "pvc://exports/imagenet"}}
    assert volume("model-claim", **spec)["persistentVolumeClaim"] == {
        "claimName": "exports",
        "readOnly": True,
    }
    (poller,), (server,) = pod(**spec)["initContainers"], pod(**spec)["containers"]
    where = {"name": "model-claim", "mountPath": "/mnt/model-source", "readOnly": True}
    assert mounted(poller)["model-claim"] == mounted(server)["model-claim"] == where
    assert "--storage-uri=pvc://exports/imagenet" in poller["args"]
    assert "--source-dir=/mnt/model-source" in poller["args"]


def test_warm_up_requests_of_a_config_map_are_the_pollers_to_read() -> None:
    warmup = {"configMap": {"name": "warm", "key": "requests"}}
    spec = {"model": {"storageUri": "gs://models/imagenet", "warmup": warmup}}
    assert volume("warmup", **spec)["configMap"]["name"] == "warm"
    (poller,), (server,) = pod(**spec)["initContainers"], pod(**spec)["containers"]
    assert "--warmup-requests=/etc/warmup/requests" in poller["args"]
    assert mounted(poller)["warmup"]["mountPath"] == "/etc/warmup"
    assert "warmup" not in mounted(server)


def test_warm_up_requests_of_a_store_need_no_volume() -> None:
    warmup = {"uri": "gs://models/warm/requests"}
    spec = {"model": {"storageUri": "gs://models/imagenet", "warmup": warmup}}
    (poller,) = pod(**spec)["initContainers"]
    assert "--warmup-requests=gs://models/warm/requests" in poller["args"]
    assert "warmup" not in {volume["name"] for volume in pod(**spec)["volumes"]}


def test_credentials_of_other_stores_are_a_folder_and_no_google_key() -> None:
    (poller,) = pod(
        model={"storageUri": "s3://models/imagenet"}, source={"secretRef": {"name": "keys"}}
    )["initContainers"]
    assert f"--credentials-dir={mounted(poller)['model-source']['mountPath']}" in poller["args"]
    assert "GOOGLE_APPLICATION_CREDENTIALS" not in {variable["name"] for variable in poller["env"]}


def test_bandwidth_reaches_the_poller_in_bytes_a_second() -> None:
    (poller,) = pod(source={"fetch": {"parallelism": 8, "maxBandwidth": "1.5Mi"}})["initContainers"]
    assert {"--parallelism=8", "--max-bandwidth=1572864"} <= set(poller["args"])


CACHED = {"cache": {"claimName": "shared", "maxSize": "1.5Ki"}}


def test_a_cache_is_the_pollers_to_read_and_write() -> None:
    assert volume("model-cache", storage=CACHED)["persistentVolumeClaim"] == {"claimName": "shared"}
    (poller,), (server,) = pod(storage=CACHED)["initContainers"], pod(storage=CACHED)["containers"]
    assert mounted(poller)["model-cache"] == {
        "name": "model-cache",
        "mountPath": "/mnt/model-cache",
    }
    assert "model-cache" not in mounted(server)
    assert {"--cache-dir=/mnt/model-cache", "--cache-max-size=1536"} <= set(poller["args"])


def test_a_large_cache_is_not_gone_through_before_each_pod_starts() -> None:
    assert "fsGroupChangePolicy" not in pod()["securityContext"]
    assert pod(storage=CACHED)["securityContext"]["fsGroupChangePolicy"] == "OnRootMismatch"


def test_a_replicas_own_volume_is_what_the_spec_says() -> None:
    assert volume("models")["emptyDir"] == {}
    assert volume("models", storage={"emptyDir": {"sizeLimit": "20480Mi"}})["emptyDir"] == {
        "sizeLimit": "20Gi"
    }
    (poller,) = pod(storage={"emptyDir": {"sizeLimit": "20480Mi"}})["initContainers"]
    assert f"--models-max-size={20 << 30}" in poller["args"], "nothing else tells it"
    wanted = {"resources": {"requests": {"storage": "20Gi"}}, "storageClassName": "fast"}
    claimed = volume("models", storage={"volumeClaimTemplate": {"spec": wanted}})
    assert claimed["ephemeral"]["volumeClaimTemplate"]["spec"] == {
        **wanted,
        "accessModes": ["ReadWriteOnce"],
        "volumeMode": "Filesystem",
    }
    assert "emptyDir" not in claimed


def test_versions_in_memory_count_against_who_writes_them() -> None:
    memory = {"emptyDir": {"medium": "Memory", "sizeLimit": "1536Mi"}}
    (poller,), (plain,) = pod(storage=memory)["initContainers"], pod()["initContainers"]
    assert plain["resources"]["limits"]["memory"] == "512Mi"
    assert Quantity(poller["resources"]["limits"]["memory"]).value == 2 << 30
    assert volume("models", storage=memory)["emptyDir"]["medium"] == "Memory"
    # The file system itself ends there.
    assert [text for text in poller["args"] if text.startswith("--models-max-size")] == []


def test_pods_spread_over_hosts_and_zones_as_far_as_there_is_room() -> None:
    spread = pod()["topologySpreadConstraints"]
    assert [constraint["topologyKey"] for constraint in spread] == [
        "kubernetes.io/hostname",
        "topology.kubernetes.io/zone",
    ]
    for constraint in spread:
        assert constraint["whenUnsatisfiable"] == "ScheduleAnyway"
        assert constraint["labelSelector"] == PODS


def test_a_spread_that_is_given_replaces_the_default_and_none_is_one_too() -> None:
    rack = {"topologyKey": "rack", "maxSkew": 2, "whenUnsatisfiable": "DoNotSchedule"}
    (given,) = pod(template={"topologySpreadConstraints": [rack]})["topologySpreadConstraints"]
    assert given.items() >= rack.items()
    assert "topologySpreadConstraints" not in pod(template={"topologySpreadConstraints": []})


def test_pods_pull_with_the_given_secrets_and_have_the_given_priority() -> None:
    wanted = pod(template={"imagePullSecrets": [{"name": "r"}], "priorityClassName": "serving"})
    assert wanted["imagePullSecrets"] == [{"name": "r"}]
    assert wanted["priorityClassName"] == "serving"


def test_a_pull_secret_that_is_named_twice_is_wanted_once() -> None:
    """The API server takes no apply with two items of one name; older CRDs let them in."""
    wanted = pod(template={"imagePullSecrets": [{"name": "r"}, {"name": "s"}, {"name": "r"}]})
    assert wanted["imagePullSecrets"] == [{"name": "r"}, {"name": "s"}]


@pytest.mark.parametrize(
    "spec",
    [
        {"autoscaling": {"maxReplicas": 3}},
        {"disruptionBudget": {"enabled": False}},
        {"gateway": {"parentRefs": [{"name": "public"}]}},
        {"networkPolicy": {"enabled": True}},
    ],
)
def test_what_stands_around_the_pods_restarts_none(spec: Manifest) -> None:
    assert built(**spec)["Deployment"]["template"] == built()["Deployment"]["template"]
