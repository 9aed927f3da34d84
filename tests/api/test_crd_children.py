"""The desired children against what the API server makes of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from inferencemodel_operator import names
from inferencemodel_operator.children import children
from inferencemodel_operator.record import QuarantinedVersion, VersionsRecord
from inferencemodel_operator.settings import Settings
from inferencemodel_operator.spec import decode
from inferencemodel_operator.values import Quantity
from tests.support import crd, kinds
from tests.support.objects import Objects

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devcluster.client import Api
    from inferencemodel_operator.children.manifest import Manifest

pytestmark = pytest.mark.api

EVERYTHING: Manifest = {
    "apiVersion": "inferencemodel.dev/v1alpha1",
    "kind": "InferenceModel",
    "metadata": {"name": "m" * 50},
    "spec": {
        "model": {
            "name": "ResNet-50_v1.5",
            "storageUri": "gs://models/a/b/",
            "version": 15,
            "minVersion": 3,
            "numVersions": 2,
            "retainVersions": 4,
            "completion": {"marker": "DONE", "manifest": "Required", "publicKey": "RW" + "a" * 54},
            "warmup": {"configMap": {"name": "warm"}},
        },
        "source": {
            "serviceAccountName": "reader",
            "secretRef": {"name": "key"},
            "endpoint": "http://bucket.development-bucket:4443",
            "pollInterval": "1h30m",
            "fetch": {"parallelism": 8, "maxBandwidth": "50M"},
            "notifications": {
                "pubsub": {"subscription": "projects/p/subscriptions/sub", "endpoint": "h:8085"}
            },
        },
        "server": {
            "image": "r.example.com:5000/a/b:1",
            "imagePullPolicy": "Always",
            "command": ["/bin/tini", "--", "/usr/bin/tensorflow_model_server"],
            "args": ["--rest_api_timeout_in_ms=1000", "--enable_model_warmup"],
            "resources": {
                "requests": {
                    "cpu": "1000m",
                    "memory": "1024Mi",
                    "ephemeral-storage": "1.5Gi",
                    "hugepages-2Mi": "4096Ki",
                },
                "limits": {
                    "cpu": "1.5",
                    "memory": 2147483648,
                    "ephemeral-storage": "2e9",
                    "nvidia.com/gpu": 1,
                    "hugepages-2Mi": "4Mi",
                },
            },
            "batching": {
                "maxBatchSize": 8,
                "allowedBatchSizes": [2, 4, 8],
                "batchTimeoutMicros": 0,
                "padVariableLengthInputs": True,
            },
            "env": [
                {"name": "EMPTY", "value": ""},
                {"name": "ONE", "value": "1"},
                {
                    "name": "SECRET",
                    "valueFrom": {"secretKeyRef": {"name": "s", "key": "k", "optional": True}},
                },
                {
                    "name": "CONFIG",
                    "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k", "optional": False}},
                },
            ],
        },
        "storage": {
            "volumeClaimTemplate": {
                "spec": {
                    "resources": {"requests": {"storage": "1024Mi"}},
                    "storageClassName": "fast",
                }
            },
            "cache": {"claimName": "shared", "maxSize": "0.5Gi"},
        },
        "poller": {
            "resources": {
                "requests": {"cpu": "0.1", "memory": "0.25Gi", "ephemeral-storage": "1.5Gi"},
                "limits": {"cpu": 1, "memory": 2147483648, "ephemeral-storage": "2e9"},
            },
            "env": [
                {"name": "EMPTY", "value": ""},
                {"name": "C", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}},
            ],
            "extraCAs": {"configMap": {"name": "company"}},
            "logLevel": "Warning",
        },
        "replicas": 0,
        "strategy": {"rollingUpdate": {"maxSurge": "0%", "maxUnavailable": 1}},
        "minReadySeconds": 0,
        "progressDeadlineSeconds": 60,
        "revisionHistoryLimit": 0,
        "drain": {"seconds": 60},
        "service": {
            "type": "LoadBalancer",
            "httpPort": 80,
            "grpcPort": 9000,
            "labels": {"team": "vision", "empty": ""},
            "annotations": {"a.b/c": "d", "empty": ""},
            "loadBalancerClass": "example.com/internal",
            "externalTrafficPolicy": "Local",
            "sessionAffinity": "ClientIP",
            "trafficDistribution": "PreferSameNode",
            "ipFamilyPolicy": "PreferDualStack",
            "ipFamilies": ["IPv4"],
        },
        "ingress": {
            "className": "traefik",
            "host": "x.example.com",
            "hosts": ["*.x.example.com", "y.example.com"],
            "path": "/v1/models/ResNet-50_v1.5",
            "annotations": {"a/b": "c"},
            "tls": {"secretName": "cert"},
        },
        "disruptionBudget": {"maxUnavailable": "25%"},
        "gateway": {
            "parentRefs": [{"name": "public", "sectionName": "web", "port": 80}],
            "hostnames": ["x.example.com", "*.y.example.com"],
            "path": "/v1/models/ResNet-50_v1.5",
            "grpcHostnames": ["grpc.example.com"],
        },
        "networkPolicy": {
            "enabled": True,
            "from": [{"podSelector": {}}, {"ipBlock": {"cidr": "10.0.0.0/8"}}],
            "metricsFrom": [{"namespaceSelector": {"matchLabels": {"a": "b"}}}],
        },
        "template": {
            "imagePullSecrets": [{"name": "registry"}],
            "priorityClassName": "serving",
            "topologySpreadConstraints": [{"topologyKey": "rack", "maxSkew": 2}],
            "metadata": {
                "labels": {"team": "vision", "empty": ""},
                "annotations": {"a": "b", "empty": ""},
            },
            "nodeSelector": {"pool": "gpu", "empty": ""},
            "tolerations": [
                {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
                {"key": "a", "value": "b", "effect": "NoExecute", "tolerationSeconds": 0},
                {"key": "", "operator": "Exists", "value": ""},
            ],
            "affinity": {
                "nodeAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": {
                        "nodeSelectorTerms": [
                            {
                                "matchExpressions": [
                                    {"key": "zone", "operator": "In", "values": ["a", "b"]},
                                    {"key": "cores", "operator": "Gt", "values": ["4"]},
                                ],
                                "matchFields": [
                                    {"key": "metadata.name", "operator": "In", "values": ["n1"]}
                                ],
                            }
                        ]
                    },
                    "preferredDuringSchedulingIgnoredDuringExecution": [
                        {
                            "weight": 1,
                            "preference": {
                                "matchExpressions": [{"key": "ssd", "operator": "Exists"}]
                            },
                        }
                    ],
                },
                "podAffinity": {},
                "podAntiAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": [
                        {
                            "topologyKey": "kubernetes.io/hostname",
                            "labelSelector": {
                                "matchLabels": {"team": "vision"},
                                "matchExpressions": [{"key": "a", "operator": "DoesNotExist"}],
                            },
                            "namespaces": ["other"],
                            "namespaceSelector": {},
                            "matchLabelKeys": ["pod-template-hash"],
                        }
                    ],
                    "preferredDuringSchedulingIgnoredDuringExecution": [
                        {
                            "weight": 100,
                            "podAffinityTerm": {"topologyKey": "zone", "labelSelector": {}},
                        }
                    ],
                },
            },
        },
    },
}
"""Every field that makes a difference to a child, spelt in forms that the API server rewrites."""


def examples() -> Iterator[Manifest]:
    for path in sorted(crd.EXAMPLES.glob("*.yaml")):
        for manifest in yaml.safe_load_all(path.read_text()):
            if manifest["kind"] == names.KIND:
                yield manifest


MODELS = [EVERYTHING, *examples()]

RECORD = VersionsRecord(
    target=15,
    quarantined=(QuarantinedVersion(version=16, fingerprint="a1", reason="LoadFailed"),),
)


PRIORITY_CLASS = {
    "apiVersion": "scheduling.k8s.io/v1",
    "kind": "PriorityClass",
    "metadata": {"name": "serving"},
    "value": 1000,
}


RUNTIME_CLASS = {
    "apiVersion": "node.k8s.io/v1",
    "kind": "RuntimeClass",
    "metadata": {"name": "nvidia"},
    "handler": "nvidia",
}


@pytest.fixture(scope="module")
def namespace(api_server: Api) -> Iterator[str]:
    with crd.installed(api_server) as name, kinds.installed(api_server):
        api_server.kubectl("apply", "-f", "-", stdin=json.dumps(PRIORITY_CLASS))
        api_server.kubectl("apply", "-f", "-", stdin=json.dumps(RUNTIME_CLASS))
        yield name


def differences(desired: Any, live: Any, path: str) -> list[str]:
    """Where ``desired`` is not a part of ``live``, value and type alike."""
    if isinstance(desired, dict) and isinstance(live, dict):
        return [
            difference
            for key, value in desired.items()
            for difference in differences(value, live.get(key), f"{path}.{key}")
        ]
    if isinstance(desired, list) and isinstance(live, list) and len(desired) == len(live):
        return [
            difference
            for index, pair in enumerate(zip(desired, live, strict=True))
            for difference in differences(*pair, f"{path}[{index}]")
        ]
    same = desired == live and type(desired) is type(live)
    return [] if same else [f"{path}: desired {desired!r}, live {live!r}"]


@pytest.fixture(scope="module", params=MODELS, ids=[m["metadata"]["name"][:12] for m in MODELS])
def desired(
    request: pytest.FixtureRequest, api_server: Api, namespace: str
) -> tuple[Manifest, ...]:
    """The children of a model as the API server has filled it in."""
    created = api_server.kubectl(
        *("create", "--namespace", namespace, "-f", "-", "-o", "json"),
        stdin=json.dumps(request.param),
    )
    return children(decode(json.loads(created)), RECORD, Settings())


def applied(api: Api, manifest: Manifest) -> Manifest:
    return Objects(api.kubeconfig).apply(manifest, manager=names.FIELD_MANAGER)


def test_each_child_comes_back_as_it_was_desired(
    api_server: Api, desired: tuple[Manifest, ...]
) -> None:
    for child in desired:
        assert differences(child, applied(api_server, child), child["kind"]) == []


def test_applying_a_child_again_changes_nothing(
    api_server: Api, desired: tuple[Manifest, ...]
) -> None:
    for child in desired:
        first, again = applied(api_server, child), applied(api_server, child)
        assert first["metadata"]["resourceVersion"] == again["metadata"]["resourceVersion"]


def test_a_quantity_that_was_not_canonical_would_be_seen(
    api_server: Api, desired: tuple[Manifest, ...]
) -> None:
    (deployment,) = (child for child in desired if child["kind"] == "Deployment")
    changed = json.loads(json.dumps(deployment))
    server = changed["spec"]["template"]["spec"]["containers"][0]
    server["resources"] = {"requests": {"cpu": "1000m"}}
    live = applied(api_server, changed)
    assert differences(changed, live, "Deployment") == [
        "Deployment.spec.template.spec.containers[0].resources.requests.cpu: "
        "desired '1000m', live '1'"
    ]


def test_the_pods_meet_the_restricted_standard(
    api_server: Api, namespace: str, desired: tuple[Manifest, ...]
) -> None:
    enforced = "pod-security.kubernetes.io/enforce=restricted"
    api_server.kubectl("label", "--overwrite", "namespace", namespace, enforced)
    (deployment,) = (child for child in desired if child["kind"] == "Deployment")
    template = deployment["spec"]["template"]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**template["metadata"], "name": "pod", "namespace": namespace},
        "spec": {**template["spec"], "serviceAccountName": "default"},
    }
    answer = api_server.kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(pod))
    assert "pod/pod created" in answer


def test_what_is_no_longer_wished_for_goes_away(api_server: Api, namespace: str) -> None:
    metadata = {"name": "shrinking", "namespace": namespace, "uid": "u-1"}
    bare = {"model": {"storageUri": "gs://models/imagenet"}, "ingress": {"host": "x.example.com"}}
    before, after = (
        children(decode({"metadata": metadata, "spec": spec}), VersionsRecord(), Settings())
        for spec in (EVERYTHING["spec"], bare)
    )
    for child in before:
        applied(api_server, child)
    live = {
        child["kind"]: applied(api_server, child)
        for child in after
        if "headless" not in child["metadata"]["name"]
    }
    for child in after:
        assert differences(child, applied(api_server, child), child["kind"]) == []
    pod = live["Deployment"]["spec"]["template"]["spec"]
    assert not {"nodeSelector", "affinity", "tolerations"} & pod.keys()
    assert pod["serviceAccountName"] == "default"
    assert [c.get("resources") for c in pod["containers"]] == [{}]
    assert live["Service"]["spec"]["type"] == "ClusterIP"
    assert live["Service"]["metadata"]["annotations"].keys() == {names.DESIRED_HASH_ANNOTATION}
    assert "tls" not in live["Ingress"]["spec"]


CHOICES: dict[str, list[Manifest]] = {
    "how pods are replaced": [
        {},
        {"strategy": {"type": "Recreate"}},
        {"strategy": {"rollingUpdate": {"maxSurge": 1}}},
        {"strategy": {"type": "Recreate"}},
        {},
    ],
    "who keeps a client": [
        {},
        {"service": {"sessionAffinity": "ClientIP"}},
        {
            "service": {
                "sessionAffinity": "ClientIP",
                "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}},
            }
        },
        {"service": {"labels": {"a": "b"}}},
    ],
    "how it is reached from outside": [
        {"service": {"type": "LoadBalancer", "loadBalancerClass": "example.com/a"}},
        {"service": {"type": "NodePort", "externalTrafficPolicy": "Local"}},
        {"service": {"type": "LoadBalancer", "externalTrafficPolicy": "Local"}},
        {"service": {"trafficDistribution": "PreferClose"}},
        {},
    ],
    "which addresses it has": [
        {},
        {"service": {"ipFamilyPolicy": "PreferDualStack"}},
        {"service": {"ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4"]}},
        {},
    ],
    "how many pods stay": [
        {"replicas": 3},
        {"replicas": 3, "disruptionBudget": {"minAvailable": "50%"}},
        {"replicas": 3, "disruptionBudget": {"minAvailable": 2}},
        {"replicas": 3, "disruptionBudget": {"maxUnavailable": "25%"}},
    ],
    "which hosts": [
        {"ingress": {"host": "x.example.com", "tls": {}}},
        {"ingress": {"hosts": ["*.example.com", "y.example.com"]}},
        {"ingress": {"host": "y.example.com"}},
    ],
}
"""Of each, what a user chooses one after the other."""


@pytest.mark.parametrize("case", CHOICES)
def test_another_choice_is_taken_by_what_is_there(
    api_server: Api, namespace: str, case: str
) -> None:
    name = f"choice-{list(CHOICES).index(case)}"
    metadata = {"name": name, "namespace": namespace, "uid": "u-1"}
    for choice in CHOICES[case]:
        spec = {"model": {"storageUri": "gs://models/imagenet"}, **choice}
        for child in children(
            decode({"metadata": metadata, "spec": spec}), VersionsRecord(), Settings()
        ):
            live = applied(api_server, child)
            assert differences(child, live, f"{choice}: {child['kind']}") == []
            again = applied(api_server, child)
            assert again["metadata"]["resourceVersion"] == live["metadata"]["resourceVersion"]


QUANTITIES = (
    *(
        "1000m",
        "0.5",
        ".5",
        "1.5",
        "5.",
        "+1",
        "1.123",
        "1.500",
        "0",
        "0Mi",
        "0.1m",
        "0.5n",
        "123456789",
    ),
    *("1024Mi", "1025Mi", "1.5Gi", "0.5Ki", "1.2Ki", "1023", "1024", "1Ei", "1025Ki", "0.7Gi"),
    *("1000k", "1500k", "2E", "1e3", "1E3", "12e6", "1e-3", "100e3", "1e1", "15e-1", "1.5e3"),
)


def test_a_canonical_quantity_is_given_back_as_it_is(api_server: Api, namespace: str) -> None:
    canonical = [str(Quantity.parse(quantity)) for quantity in QUANTITIES]
    containers = [
        {"name": f"c{index}", "image": "i", "resources": {"requests": {"memory": quantity}}}
        for index, quantity in enumerate(canonical)
    ]
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "quantities", "namespace": namespace},
        "spec": {
            "selector": {"matchLabels": {"app": "quantities"}},
            "template": {
                "metadata": {"labels": {"app": "quantities"}},
                "spec": {"containers": containers},
            },
        },
    }
    answer = api_server.kubectl(
        *("create", "--dry-run=server", "-f", "-", "-o", "json"), stdin=json.dumps(deployment)
    )
    live = json.loads(answer)["spec"]["template"]["spec"]["containers"]
    assert [container["resources"]["requests"]["memory"] for container in live] == canonical
