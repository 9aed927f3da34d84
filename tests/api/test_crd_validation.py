"""What the API server refuses, with the message that a user gets, and what it takes."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from devcluster.client import KubectlError
from tests.support import crd
from tests.support.objects import Objects, RefusedError
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devcluster.client import Api

pytestmark = pytest.mark.api

Object = dict[str, Any]

ABSENT: Any = object()
"""Takes a field out of the good object."""

GOOD: Object = {
    "apiVersion": "inferencemodel.dev/v1alpha1",
    "kind": "InferenceModel",
    "metadata": {"name": "imagenet"},
    "spec": {
        "model": {"storageUri": "gs://models/imagenet"},
        "server": {"resources": {"requests": {"cpu": "500m"}}},
        "ingress": {"host": "imagenet.example.com"},
    },
}


@pytest.fixture(scope="module")
def namespace(api_server: Api) -> Iterator[str]:
    with crd.installed(api_server) as name:
        yield name


def changed(path: str, value: Any) -> Object:
    """The good object with one field (``a.b.c``) set, or taken out."""
    made = copy.deepcopy(GOOD)
    *parents, last = path.split(".")
    at = made
    for parent in parents:
        at = at.setdefault(parent, {})
    if value is ABSENT:
        del at[last]
    else:
        at[last] = value
    return made


def posted(api: Api, namespace: str, made: Object) -> Object:
    return Objects(api.kubeconfig, namespace).create("inferencemodels", made, dry_run=True)


TOLERATION = "spec.template.tolerations"
AUTOSCALING = "spec.autoscaling"
AFFINITY = "spec.template.affinity"
NAME_RULE = "metadata.name must have at most 50 characters"

QUEUE = {"sqs": {"queueUrl": "https://sqs.eu-central-1.amazonaws.com/123456789012/models"}}
SUBSCRIPTION = {"pubsub": {"subscription": "projects/p/subscriptions/sub"}}
CPU = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}
USED = {"type": "cpu", "metricType": "Utilization", "metadata": {"value": "70"}}
NAMED = {"metric": {"name": "requests"}}
TRIGGERS = [{"type": "cron", "metadata": {"timezone": "UTC"}}]
PARENTS = [{"name": "public"}]


def stored(uri: str, source: Object) -> Object:
    """A spec with another store."""
    return {"model": {"storageUri": uri}, "source": source}


def scaled(**autoscaling: Any) -> Object:
    return {"maxReplicas": 5, **autoscaling}


def unrequested(**autoscaling: Any) -> Object:
    """A spec whose autoscaling has memory alone to take percents of."""
    return {
        "model": GOOD["spec"]["model"],
        "server": {"resources": {"requests": {"memory": "1Gi"}}},
        "autoscaling": scaled(**autoscaling),
    }


def by_requests(*, gateway: Object, minReplicas: int = 1, **keda: Any) -> Object:  # noqa: N803
    """A spec that is scaled by the requests that come through a Gateway."""
    return {
        "model": GOOD["spec"]["model"],
        "gateway": {"parentRefs": [{"name": "public"}], **gateway},
        "autoscaling": scaled(minReplicas=minReplicas, keda={"http": {"concurrency": 1}, **keda}),
    }


BOTH: Object = {"hostnames": ["m.example.com"], "grpcHostnames": ["grpc.example.com"]}
"""Hosts of REST and gRPC."""


def metric(**fields: Any) -> Object:
    return scaled(metrics=[fields])


def target(kind: str, field: Object, **target: Any) -> Object:
    """Autoscaling by one metric of a kind, such as ``containerResource``."""
    return metric(type=kind[0].upper() + kind[1:], **{kind: {**field, "target": target}})


def rules(**policy: Any) -> Object:
    """Autoscaling that scales in by one policy."""
    whole = {"type": "Pods", "value": 1, "periodSeconds": 60}
    return scaled(behavior={"scaleDown": {"policies": [{**whole, **policy}]}})


def expressed(**requirement: Any) -> Object:
    """A choice by one label."""
    return {"matchExpressions": [{"key": "a", "operator": "Exists", **requirement}]}


HOST = {"host": "imagenet.example.com"}
FIELD = {"key": "metadata.name", "operator": "In", "values": ["node-1"]}


def fenced(**peer: Any) -> Object:
    return {"enabled": True, "from": [peer]}


BAD: dict[str, tuple[str, Any, str, str]] = {
    "a poller's limit below what it requests by default": (
        "spec.poller",
        {"resources": {"limits": {"cpu": "10m"}}},
        "spec.poller.resources.limits.cpu",
        "(20m by default)",
    ),
    "a poller's request above its limit by default": (
        "spec.poller",
        {"resources": {"requests": {"memory": "1Gi"}}},
        "spec.poller.resources.limits.memory",
        "(512Mi by default)",
    ),
    "a poller's disk below what it requests": (
        "spec.poller",
        {
            "resources": {
                "requests": {"ephemeral-storage": "2Gi"},
                "limits": {"ephemeral-storage": "1Gi"},
            }
        },
        "spec.poller.resources.limits",
        "raise the limit or lower the request",
    ),
    "an amount for the poller that is none": (
        "spec.poller",
        {"resources": {"limits": {"cpu": "much"}}},
        "spec.poller.resources.limits.cpu",
        "such as 500m",
    ),
    "a GPU for the poller": (
        "spec.poller",
        {"resources": {"limits": {"nvidia.com/gpu": 1}}},
        "spec.poller.resources.limits.nvidia.com/gpu",
        "unknown field",
    ),
    "a variable of the operator's": (
        "spec.poller",
        {"env": [{"name": "TARGET_VERSION", "value": "7"}]},
        "spec.poller.env[0].name",
        "that the operator sets itself",
    ),
    "authorities by a variable": (
        "spec.poller",
        {"env": [{"name": "EXTRA_CA_FILE", "value": "/x"}]},
        "spec.poller.env[0].name",
        "poller.extraCAs",
    ),
    "two values of a variable of the poller": (
        "spec.poller",
        {
            "env": [
                {
                    "name": "A",
                    "value": "7",
                    "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}},
                }
            ]
        },
        "spec.poller.env[0]",
        "leave one of them out",
    ),
    "two keys of Google": (
        "spec",
        {
            **GOOD["spec"],
            "source": {"secretRef": {"name": "key"}},
            "poller": {"env": [{"name": "GOOGLE_APPLICATION_CREDENTIALS", "value": "/x"}]},
        },
        "spec.poller.env",
        "leave out one of the two",
    ),
    "authorities of nobody": (
        "spec.poller",
        {"extraCAs": {}},
        "spec.poller.extraCAs.configMap",
        "Required value",
    ),
    "authorities of a name that is none": (
        "spec.poller",
        {"extraCAs": {"configMap": {"name": "Company CA"}}},
        "spec.poller.extraCAs.configMap.name",
        "lower-case letters",
    ),
    "authorities in a folder": (
        "spec.poller",
        {"extraCAs": {"configMap": {"name": "company", "key": "../ca.crt"}}},
        "spec.poller.extraCAs.configMap.key",
        "not begin with",
    ),
    "a level that is none": (
        "spec.poller",
        {"logLevel": "info"},
        "spec.poller.logLevel",
        '"Info"',
    ),
    "a pod that goes at once": ("spec.drain.seconds", 14, "spec.drain.seconds", "15"),
    "a pod that stays for two hours": ("spec.drain.seconds", 7200, "spec.drain.seconds", "3600"),
    "a host twice": (
        "spec.ingress.hosts",
        ["imagenet.example.com"],
        "spec.ingress.hosts",
        "leave it out of one of the two",
    ),
    "a wildcard that is half a label": (
        "spec.ingress.hosts",
        ["a*.example.com"],
        "spec.ingress.hosts[0]",
        "as the whole first label alone",
    ),
    "a wildcard of everything": (
        "spec.ingress.hosts",
        ["*"],
        "spec.ingress.hosts[0]",
        "such as imagenet.example.com or *.example.com",
    ),
    "a wildcard with a port": (
        "spec.ingress.hosts",
        ["*.example.com:80"],
        "spec.ingress.hosts[0]",
        "port or path",
    ),
    "an address among hosts": (
        "spec.ingress.hosts",
        ["10.0.0.1"],
        "spec.ingress.hosts[0]",
        "must be DNS names",
    ),
    "a budget of both kinds": (
        "spec.disruptionBudget",
        {"minAvailable": 1, "maxUnavailable": 2},
        "spec.disruptionBudget.minAvailable",
        "leave out one of them",
    ),
    "all pods stay": (
        "spec.disruptionBudget",
        {"minAvailable": "100%"},
        "spec.disruptionBudget.minAvailable",
        "no node could be drained",
    ),
    "no pod stays": (
        "spec.disruptionBudget",
        {"minAvailable": 0},
        "spec.disruptionBudget.minAvailable",
        "a number from 1",
    ),
    "metrics for a range of pods": (
        "spec.networkPolicy",
        {"metricsFrom": [{"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}}]},
        "spec.networkPolicy.metricsFrom[0].ipBlock",
        "make it a peer of its own",
    ),
    "a load balancer's class without one": (
        "spec.service",
        {"loadBalancerClass": "internal"},
        "spec.service.loadBalancerClass",
        "or set the type",
    ),
    "a class that is no name": (
        "spec.service",
        {"type": "LoadBalancer", "loadBalancerClass": "a b"},
        "spec.service.loadBalancerClass",
        "such as service.k8s.aws/nlb",
    ),
    "a policy for outside of a Service for inside": (
        "spec.service",
        {"externalTrafficPolicy": "Local"},
        "spec.service.externalTrafficPolicy",
        "or set the type",
    ),
    "a time without affinity": (
        "spec.service",
        {"sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}}},
        "spec.service.sessionAffinityConfig",
        "needs service.sessionAffinity ClientIP",
    ),
    "affinity for more than a day": (
        "spec.service",
        {
            "sessionAffinity": "ClientIP",
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 86401}},
        },
        "spec.service.sessionAffinityConfig.clientIP.timeoutSeconds",
        "86400",
    ),
    "two families of one": (
        "spec.service",
        {"ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "SingleStack"},
        "spec.service.ipFamilyPolicy",
        "or name one family",
    ),
    "a family twice": (
        "spec.service",
        {"ipFamilies": ["IPv4", "IPv4"], "ipFamilyPolicy": "PreferDualStack"},
        "spec.service.ipFamilies",
        "Duplicate",
    ),
    "the operator's label of a Service": (
        "spec.service",
        {"labels": {"app.kubernetes.io/instance": "other"}},
        "spec.service.labels",
        "leave them out",
    ),
    "a label of a Service that is none": (
        "spec.service",
        {"labels": {"team": "computer vision"}},
        "spec.service.labels",
        "must be valid labels",
    ),
    "no room to replace a pod": (
        "spec.strategy",
        {"rollingUpdate": {"maxSurge": 0}},
        "spec.strategy.rollingUpdate.maxUnavailable",
        "set maxUnavailable 1",
    ),
    "no room in percent": (
        "spec.strategy",
        {"rollingUpdate": {"maxSurge": "0%", "maxUnavailable": "0%"}},
        "spec.strategy.rollingUpdate.maxUnavailable",
        "set maxUnavailable 1",
    ),
    "more than all pods": (
        "spec.strategy",
        {"rollingUpdate": {"maxUnavailable": "101%"}},
        "spec.strategy.rollingUpdate.maxUnavailable",
        "from 0% to 100%",
    ),
    "a part that is no part": (
        "spec.strategy",
        {"rollingUpdate": {"maxSurge": "a quarter"}},
        "spec.strategy.rollingUpdate.maxSurge",
        "such as 25%",
    ),
    "a number as text": (
        "spec.strategy",
        {"rollingUpdate": {"maxSurge": "1"}},
        "spec.strategy.rollingUpdate.maxSurge",
        "such as 25%",
    ),
    "a rolling update for all pods at once": (
        "spec.strategy",
        {"type": "Recreate", "rollingUpdate": {"maxSurge": 1}},
        "spec.strategy.rollingUpdate",
        "leave it out",
    ),
    "an unknown strategy": (
        "spec.strategy",
        {"type": "BlueGreen"},
        "spec.strategy.type",
        '"RollingUpdate", "Recreate"',
    ),
    "a deadline before any pod can be ready": (
        "spec.progressDeadlineSeconds",
        5,
        "spec.progressDeadlineSeconds",
        "raise the one or lower the other",
    ),
    # -- name: (the field that is changed, its value, the field in the message, what it says)
    "too long a name": ("metadata.name", "m" * 51, "", NAME_RULE),
    "a name that is no Service's": ("metadata.name", "1-imagenet", "", NAME_RULE),
    "a name with a dot": ("metadata.name", "image.net", "", NAME_RULE),
    "the name of another one's Service": (
        "metadata.name",
        "imagenet-headless",
        "",
        "must not end with -headless",
    ),
    "the name of another one's autoscaler": (
        "metadata.name",
        "keda-hpa-imagenet",
        "",
        "nor begin with keda-hpa-",
    ),
    "the name of another one's way through KEDA": (
        "metadata.name",
        "keda-http-imagenet",
        "",
        "nor begin with keda-hpa- or keda-http-",
    ),
    "no spec": ("spec", ABSENT, "spec", "Required value"),
    "no model": ("spec.model", ABSENT, "spec.model", "Required value"),
    "no storageUri": ("spec.model", {}, "spec.model.storageUri", "Required value"),
    "a misspelt field": (
        "spec.model.storageUrl",
        "gs://models/imagenet",
        "spec.model.storageUrl",
        "unknown field",
    ),
    # -- spec.model
    "a path as storageUri": (
        "spec.model.storageUri",
        "/models/imagenet",
        "spec.model.storageUri",
        "must begin with gs://, s3://, az://, https://, http:// or pvc://",
    ),
    "files of a node": (
        "spec.model.storageUri",
        "file:///models/imagenet",
        "spec.model.storageUri",
        "reached through a PersistentVolumeClaim",
    ),
    "an empty storageUri": ("spec.model.storageUri", "", "spec.model.storageUri", "at least 1"),
    "no bucket": (
        "spec.model.storageUri",
        "gs:///imagenet",
        "spec.model.storageUri",
        "must name a bucket after gs://",
    ),
    "an upper-case bucket": (
        "spec.model.storageUri",
        "gs://Models/imagenet",
        "spec.model.storageUri",
        "must name a bucket after gs://",
    ),
    "a storageUri with a signature": (
        "spec.model.storageUri",
        "az://models/imagenet?sv=2021-12-02&sig=x",
        "spec.model.storageUri",
        "must not hold a query",
    ),
    "a storageUri that climbs": (
        "spec.model.storageUri",
        "gs://models/imagenet/..",
        "spec.model.storageUri",
        "must not hold empty, '.' or '..' path segments",
    ),
    "a storageUri that climbs in between": (
        "spec.model.storageUri",
        "gs://models/../imagenet",
        "spec.model.storageUri",
        "must not hold empty, '.' or '..' path segments",
    ),
    "an empty segment": (
        "spec.model.storageUri",
        "gs://models//imagenet",
        "spec.model.storageUri",
        "must not hold empty, '.' or '..' path segments",
    ),
    "a storageUri with a line break": (
        "spec.model.storageUri",
        "gs://models/image\nnet",
        "spec.model.storageUri",
        "nor white space",
    ),
    "a storageUri without end": (
        "spec.model.storageUri",
        "gs://models/" + "a" * 1024,
        "spec.model.storageUri",
        "1024",
    ),
    "a slash in the model's name": (
        "spec.model.name",
        "vision/imagenet",
        "spec.model.name",
        "it is a part of URLs and a folder's name",
    ),
    "a hidden folder as the model's name": (
        "spec.model.name",
        ".staging",
        "spec.model.name",
        "must begin with a letter or digit",
    ),
    "too long a model name": ("spec.model.name", "m" * 64, "spec.model.name", "63"),
    "a pin below minVersion": (
        "spec.model",
        {"storageUri": "gs://models/imagenet", "version": 9, "minVersion": 10},
        "spec.model.version",
        "pin a version that is at least model.minVersion",
    ),
    "a version as text": ("spec.model.version", "15", "spec.model.version", "type integer"),
    "a negative version": ("spec.model.version", -1, "spec.model.version", "greater than or equal"),
    "a version beyond 64 bits": (
        "spec.model.version",
        2**63,
        "spec.model.version",
        "type integer",
    ),
    "a negative minVersion": (
        "spec.model.minVersion",
        -1,
        "spec.model.minVersion",
        "greater than or equal to 0",
    ),
    "no version served": (
        "spec.model.numVersions",
        0,
        "spec.model.numVersions",
        "greater than or equal to 1",
    ),
    "more versions served than kept": (
        "spec.model.numVersions",
        3,
        "spec.model.retainVersions",
        "set it to at least model.numVersions",
    ),
    "fewer versions kept than served": (
        "spec.model.retainVersions",
        0,
        "spec.model.retainVersions",
        "greater than or equal to 1",
    ),
    # -- spec.source
    "a service account with a slash": (
        "spec.source.serviceAccountName",
        "ns/reader",
        "spec.source.serviceAccountName",
        "must be the name of a ServiceAccount in this namespace",
    ),
    "a secret with a slash": (
        "spec.source.secretRef",
        {"name": "ns/key"},
        "spec.source.secretRef.name",
        "must be the name of a Secret in this namespace",
    ),
    "a secret without a name": (
        "spec.source.secretRef",
        {},
        "spec.source.secretRef.name",
        "Required value",
    ),
    "an endpoint without a scheme": (
        "spec.source.endpoint",
        "bucket:4443",
        "spec.source.endpoint",
        "must be a URL with http:// or https://",
    ),
    "an endpoint of another protocol": (
        "spec.source.endpoint",
        "ftp://bucket",
        "spec.source.endpoint",
        "must be a URL with http:// or https://",
    ),
    "anonymous with credentials": (
        "spec.source",
        {"anonymous": True, "secretRef": {"name": "key"}},
        "spec.source.anonymous",
        "exclude each other",
    ),
    "an interval without a unit": (
        "spec.source.pollInterval",
        "30",
        "spec.source.pollInterval",
        "such as 30s, 5m or 1h30m",
    ),
    "an interval as a number": (
        "spec.source.pollInterval",
        30,
        "spec.source.pollInterval",
        "type string",
    ),
    "an interval without a number": (
        "spec.source.pollInterval",
        ".m",
        "spec.source.pollInterval",
        "such as 30s, 5m or 1h30m",
    ),
    "an interval in days": (
        "spec.source.pollInterval",
        "1d",
        "spec.source.pollInterval",
        "such as 30s, 5m or 1h30m",
    ),
    "too short an interval": (
        "spec.source.pollInterval",
        "4999ms",
        "spec.source.pollInterval",
        "from 5s to 24h",
    ),
    "too long an interval": (
        "spec.source.pollInterval",
        "24h1s",
        "spec.source.pollInterval",
        "from 5s to 24h",
    ),
    "a negative interval": (
        "spec.source.pollInterval",
        "-30s",
        "spec.source.pollInterval",
        "from 5s to 24h",
    ),
    "notifications of no kind": (
        "spec.source.notifications",
        {},
        "spec.source.notifications",
        "must have either notifications.pubsub",
    ),
    "a subscription's short name": (
        "spec.source.notifications",
        {"pubsub": {"subscription": "imagenet"}},
        "spec.source.notifications.pubsub.subscription",
        "must be projects/PROJECT/subscriptions/SUBSCRIPTION",
    ),
    "a topic as subscription": (
        "spec.source.notifications",
        {"pubsub": {"subscription": "projects/p/topics/models"}},
        "spec.source.notifications.pubsub.subscription",
        "must be projects/PROJECT/subscriptions/SUBSCRIPTION",
    ),
    "an emulator as URL": (
        "spec.source.notifications",
        {
            "pubsub": {
                "subscription": "projects/p/subscriptions/sub",
                "endpoint": "http://pubsub:8085",
            }
        },
        "spec.source.notifications.pubsub.endpoint",
        "must be HOST:PORT without a scheme",
    ),
    "an emulator's port beyond 65535": (
        "spec.source.notifications",
        {"pubsub": {"subscription": "projects/p/subscriptions/sub", "endpoint": "pubsub:65536"}},
        "spec.source.notifications.pubsub.endpoint",
        "must be HOST:PORT",
    ),
    # -- spec.server
    "an image with a space": (
        "spec.server.image",
        "tensorflow/serving 2.20.0",
        "spec.server.image",
        "must be an image reference",
    ),
    **{
        f"no image: {image}": (
            "spec.server.image",
            image,
            "spec.server.image",
            "must be an image reference",
        )
        for image in (
            "tensorflow/Serving",
            "tensorflow/serving:",
            "tensorflow/serving@sha256:0",
            "tensorflow//serving",
            "https://r.example.com/serving",
            "r.example.com:/serving",
        )
    },
    "an unknown pull policy": (
        "spec.server.imagePullPolicy",
        "Sometimes",
        "spec.server.imagePullPolicy",
        '"Always", "IfNotPresent", "Never"',
    ),
    "a value behind a space": (
        "spec.server.args",
        ["--num_load_threads 4"],
        "spec.server.args[0]",
        "one flag as --NAME=VALUE",
    ),
    "an argument that is no flag": (
        "spec.server.args",
        ["--num_load_threads=4", "verbose"],
        "spec.server.args[1]",
        "one flag as --NAME=VALUE",
    ),
    **{
        f"the managed flag {flag}": (
            "spec.server.args",
            [f"--{flag}=1"],
            "spec.server.args[0]",
            "a flag that the operator sets itself",
        )
        for flag in (
            "port",
            "rest_api_port",
            "model_name",
            "model_base_path",
            "model_config_file",
            "model_config_file_poll_wait_seconds",
            "file_system_poll_wait_seconds",
            "monitoring_config_file",
            "platform_config_file",
        )
    },
    "a flag that ends the server": (
        "spec.server.args",
        ["--version"],
        "spec.server.args[0]",
        "that ends the server",
    ),
    "batching by flag": (
        "spec.server.args",
        ["--enable_batching"],
        "spec.server.args[0]",
        "use server.batching",
    ),
    "encryption by flag": (
        "spec.server.args",
        ["--ssl_config_file=/tls"],
        "spec.server.args[0]",
        "use ingress.tls",
    ),
    "a quantity that is none": (
        "spec.server.resources.limits",
        {"cpu": 1, "memory": "4 GB"},
        "spec.server.resources.limits[memory]",
        "server.resources must hold quantities",
    ),
    "a negative quantity": (
        "spec.server.resources.requests",
        {"cpu": "-1"},
        "spec.server.resources.requests[cpu]",
        "server.resources must hold quantities from 0 to 8E",
    ),
    "a quantity beyond all bounds": (
        "spec.server.resources.requests",
        {"memory": "1e99999999"},
        "spec.server.resources.requests[memory]",
        "must hold quantities from 0 to 8E",
    ),
    "a quantity that is true": (
        "spec.server.resources.requests",
        {"cpu": True},
        "spec.server.resources.requests.cpu",
        "type integer",
    ),
    "a misspelt resource": (
        "spec.server.resources.limits",
        {"cpus": "2", "memory": "2Gi"},
        "spec.server.resources.limits",
        "server.resources knows cpu, memory",
    ),
    "a device without a limit": (
        "spec.server.resources",
        {"requests": {"cpu": 1, "nvidia.com/gpu": 1}},
        "spec.server.resources.requests",
        "must equal their limits",
    ),
    "fewer devices than the limit": (
        "spec.server.resources",
        {"requests": {"nvidia.com/gpu": 1}, "limits": {"nvidia.com/gpu": 2}},
        "spec.server.resources.requests",
        "must equal their limits",
    ),
    "half a device": (
        "spec.server.resources",
        {"limits": {"nvidia.com/gpu": "500m"}},
        "spec.server.resources.limits",
        "must count devices such as nvidia.com/gpu in whole numbers",
    ),
    "a device's name with two slashes": (
        "spec.server.resources",
        {"limits": {"nvidia.com/gpu/a": 1}},
        "spec.server.resources.limits",
        "correct the resource's name",
    ),
    "hugepages of no size": (
        "spec.server.resources",
        {"limits": {"cpu": 1, "hugepages-big": "4Mi"}},
        "spec.server.resources.limits",
        "correct the resource's name",
    ),
    "half a hugepage": (
        "spec.server.resources",
        {"limits": {"cpu": 1, "hugepages-2Mi": "3Mi"}},
        "spec.server.resources.limits",
        "in whole pages",
    ),
    "hugepages alone": (
        "spec.server.resources",
        {"limits": {"hugepages-2Mi": "4Mi"}},
        "spec.server.resources.limits",
        "cpu or memory beside them",
    ),
    "a request above its limit": (
        "spec.server.resources",
        {"requests": {"cpu": "1500m"}, "limits": {"cpu": 1}},
        "spec.server.resources.requests",
        "raise the limit or lower the request",
    ),
    "an empty batch": (
        "spec.server.batching",
        {"maxBatchSize": 0},
        "spec.server.batching.maxBatchSize",
        "greater than or equal to 1",
    ),
    "a negative batch timeout": (
        "spec.server.batching",
        {"batchTimeoutMicros": -1},
        "spec.server.batching.batchTimeoutMicros",
        "greater than or equal to 0",
    ),
    "batch sizes that fall": (
        "spec.server.batching",
        {"maxBatchSize": 8, "allowedBatchSizes": [4, 2, 8]},
        "spec.server.batching.allowedBatchSizes",
        "must increase",
    ),
    "batch sizes that end too early": (
        "spec.server.batching",
        {"maxBatchSize": 8, "allowedBatchSizes": [2, 4]},
        "spec.server.batching.allowedBatchSizes",
        "the last of them must equal batching.maxBatchSize",
    ),
    "batch sizes without the default maximum": (
        "spec.server.batching",
        {"allowedBatchSizes": [2, 4]},
        "spec.server.batching.allowedBatchSizes",
        "1000 when that is left out",
    ),
    "a batch size twice": (
        "spec.server.batching",
        {"maxBatchSize": 4, "allowedBatchSizes": [4, 4]},
        "spec.server.batching.allowedBatchSizes[1]",
        "Duplicate value",
    ),
    "a variable's name with its value": (
        "spec.server.env",
        [{"name": "LOG_LEVEL=1"}],
        "spec.server.env[0].name",
        "printable ASCII characters other than '='",
    ),
    "a variable's name in Greek": (
        "spec.server.env",
        [{"name": "ΛΟΓΟΣ"}],
        "spec.server.env[0].name",
        "printable ASCII characters",
    ),
    "a variable twice": (
        "spec.server.env",
        [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}],
        "spec.server.env[1]",
        "Duplicate value",
    ),
    "a variable with two values": (
        "spec.server.env",
        [{"name": "A", "value": "1", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
        "spec.server.env[0]",
        "value or valueFrom, not both",
    ),
    "a variable from nowhere": (
        "spec.server.env",
        [{"name": "A", "valueFrom": {}}],
        "spec.server.env[0].valueFrom",
        "exactly one of secretKeyRef and configMapKeyRef",
    ),
    "a variable from a secret without a key": (
        "spec.server.env",
        [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s"}}}],
        "spec.server.env[0].valueFrom.secretKeyRef.key",
        "Required value",
    ),
    # -- spec.replicas, spec.suspend
    "negative replicas": ("spec.replicas", -1, "spec.replicas", "greater than or equal to 0"),
    "replicas as text": ("spec.replicas", "3", "spec.replicas", "type integer"),
    "suspend as text": ("spec.suspend", "yes", "spec.suspend", "type boolean"),
    # -- spec.service
    "an unknown service type": (
        "spec.service.type",
        "ExternalName",
        "spec.service.type",
        '"ClusterIP", "NodePort", "LoadBalancer"',
    ),
    "port 0": ("spec.service.httpPort", 0, "spec.service.httpPort", "greater than or equal to 1"),
    "port 65536": ("spec.service.grpcPort", 65536, "spec.service.grpcPort", "65535"),
    "the same port twice": (
        "spec.service.httpPort",
        8500,
        "spec.service.grpcPort",
        "change one of them",
    ),
    "an annotation's key with a space": (
        "spec.service.annotations",
        {"cloud balancer": "x"},
        "spec.service.annotations",
        "NAME or DOMAIN/NAME",
    ),
    "an annotation of the operator": (
        "spec.service.annotations",
        {"inferencemodel.dev/desired-hash": "x"},
        "spec.service.annotations",
        "the operator writes those itself",
    ),
    "ranges of a balancer that is none": (
        "spec.service.annotations",
        {"service.beta.kubernetes.io/load-balancer-source-ranges": "10.0.0.0/8"},
        "spec.service.annotations",
        "with service.type LoadBalancer alone",
    ),
    "ranges that are none": (
        "spec.service",
        {
            "type": "LoadBalancer",
            "annotations": {"service.beta.kubernetes.io/load-balancer-source-ranges": "all"},
        },
        "spec.service.annotations",
        "ranges such as 10.0.0.0/8",
    ),
    "two kinds of topology": (
        "spec.service.annotations",
        {
            "service.kubernetes.io/topology-mode": "Auto",
            "service.kubernetes.io/topology-aware-hints": "disabled",
        },
        "spec.service.annotations",
        "leave the older one out",
    ),
    **{
        f"the pods' annotation {key}": (
            "spec.template.metadata.annotations",
            {key: value},
            "spec.template.metadata.annotations",
            "must not have what Kubernetes reads as fields of the pod",
        )
        for key, value in {
            "kubernetes.io/config.mirror": "x",
            "scheduler.alpha.kubernetes.io/tolerations": "[]",
            "seccomp.security.alpha.kubernetes.io/pod": "unconfined",
            "container.apparmor.security.beta.kubernetes.io/model-server": "none",
            "container.apparmor.security.beta.kubernetes.io/sidecar": "unconfined",
        }.items()
    },
    "a device of too long a name": (
        "spec.server.resources",
        {"limits": {f"{'a.' * 125}b/gpu": 1}},
        "spec.server.resources.limits",
        "correct the resource's name",
    ),
    "annotations without end": (
        "spec.service.annotations",
        {f"a{number}": "é" * 16000 for number in range(7)},
        "spec.service.annotations",
        "must not hold more than 200000 bytes together",
    ),
    # -- spec.ingress
    "an address with leading zeros as host": (
        "spec.ingress.host",
        "010.0.0.1",
        "spec.ingress.host",
        "a DNS name",
    ),
    "a path with a space": (
        "spec.ingress.path",
        "/image net",
        "spec.ingress.path",
        "hold no white space",
    ),
    "an encoded slash in a path": (
        "spec.ingress.path",
        "/v1%2Fmodels",
        "spec.ingress.path",
        "unless ingress.pathType is ImplementationSpecific",
    ),
    "an unknown type of path": (
        "spec.ingress.pathType",
        "Regex",
        "spec.ingress.pathType",
        '"Exact", "Prefix", "ImplementationSpecific"',
    ),
    "an ingress class twice": (
        "spec.ingress",
        {"className": "nginx", "annotations": {"kubernetes.io/ingress.class": "nginx"}},
        "spec.ingress.annotations",
        "leave out the annotation",
    ),
    "a URL as host": (
        "spec.ingress.host",
        "http://imagenet.example.com",
        "spec.ingress.host",
        "without scheme, port, path or '*'",
    ),
    "a host with a port": (
        "spec.ingress.host",
        "imagenet.example.com:80",
        "spec.ingress.host",
        "must be a DNS name",
    ),
    "a host with an underscore": (
        "spec.ingress.host",
        "image_net.example.com",
        "spec.ingress.host",
        "must be a DNS name",
    ),
    "an upper-case host": (
        "spec.ingress.host",
        "ImageNet.example.com",
        "spec.ingress.host",
        "must be a DNS name",
    ),
    "a wildcard host": (
        "spec.ingress.host",
        "*.example.com",
        "spec.ingress.host",
        "must be a DNS name",
    ),
    "an address as host": ("spec.ingress.host", "10.0.0.1", "spec.ingress.host", "a DNS name"),
    "tls without a host": (
        "spec.ingress",
        {"tls": {"secretName": "cert"}},
        "spec.ingress.host",
        "name the hosts that the certificate is for",
    ),
    "a relative path": (
        "spec.ingress.path",
        "v1/models",
        "spec.ingress.path",
        "must begin with '/'",
    ),
    "a path that climbs": (
        "spec.ingress.path",
        "/v1/../admin",
        "spec.ingress.path",
        "a plain path",
    ),
    "an ingress class with a space": (
        "spec.ingress.className",
        "my class",
        "spec.ingress.className",
        "kubectl get ingressclass",
    ),
    "a certificate of another namespace": (
        "spec.ingress.tls",
        {"secretName": "ns/cert"},
        "spec.ingress.tls.secretName",
        "the name of a Secret in this namespace",
    ),
    # -- spec.template
    "a label of the operator": (
        "spec.template.metadata.labels",
        {"inferencemodel.dev/name": "other"},
        "spec.template.metadata.labels",
        "must not have the operator's own labels",
    ),
    "a label of the Deployment's controller": (
        "spec.template.metadata.labels",
        {"pod-template-hash": "0"},
        "spec.template.metadata.labels",
        "nor pod-template-hash",
    ),
    "a label's value with a space": (
        "spec.template.metadata.labels",
        {"team": "computer vision"},
        "spec.template.metadata.labels",
        "must be valid labels",
    ),
    "a node label that is none": (
        "spec.template.nodeSelector",
        {"a/b/c": "x"},
        "spec.template.nodeSelector",
        "must be valid labels",
    ),
    "a toleration without a key": (
        TOLERATION,
        [{"operator": "Equal", "value": "x"}],
        f"{TOLERATION}[0]",
        "must have a key",
    ),
    "a toleration that exists with a value": (
        TOLERATION,
        [{"key": "gpu", "operator": "Exists", "value": "x"}],
        f"{TOLERATION}[0]",
        "no value if it is",
    ),
    "a toleration's time without its effect": (
        TOLERATION,
        [{"key": "gpu", "operator": "Exists", "tolerationSeconds": 60}],
        f"{TOLERATION}[0]",
        "need effect NoExecute",
    ),
    "an unknown effect": (
        TOLERATION,
        [{"key": "gpu", "operator": "Exists", "effect": "Never"}],
        f"{TOLERATION}[0].effect",
        '"NoSchedule", "PreferNoSchedule", "NoExecute"',
    ),
    "a toleration's key that is none": (
        TOLERATION,
        [{"key": "a b", "operator": "Exists"}],
        f"{TOLERATION}[0].key",
        "must be a taint's key",
    ),
    "a toleration's value that is none": (
        TOLERATION,
        [{"key": "a", "value": "x y"}],
        f"{TOLERATION}[0].value",
        "must be a taint's value",
    ),
    **{
        f"an affinity to nodes by {what}": (
            AFFINITY,
            {
                "nodeAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}
                }
            },
            "nodeSelectorTerms[0]",
            says,
        )
        for what, term, says in (
            ("no value", expressed(operator="In"), "be one with Gt and Lt"),
            ("two bounds", expressed(operator="Gt", values=["1", "2"]), "be one with Gt and Lt"),
            ("a value of Exists", expressed(operator="Exists", values=["x"]), "not be there with"),
            ("a label that is none", expressed(key="a b"), "should match"),
            ("a value that is none", expressed(operator="In", values=["x y"]), "should match"),
            ("another field", {"matchFields": [{**FIELD, "key": "a"}]}, '"metadata.name"'),
            ("two names", {"matchFields": [{**FIELD, "values": ["a", "b"]}]}, "at most 1"),
        )
    },
    **{
        f"an affinity to pods by {what}": (
            AFFINITY,
            {
                "podAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": [
                        {"topologyKey": "zone", **term}
                    ]
                }
            },
            "requiredDuringSchedulingIgnoredDuringExecution[0]",
            says,
        )
        for what, term, says in (
            ("no label of nodes", {"topologyKey": "a b"}, "must be a label's name"),
            ("a namespace that can't be", {"namespaces": ["A"]}, "should match"),
            ("no labels", {"matchLabelKeys": ["a"]}, "must be there beside matchLabelKeys"),
            (
                "a label both ways",
                {"labelSelector": {}, "matchLabelKeys": ["a"], "mismatchLabelKeys": ["a"]},
                "must have no label of matchLabelKeys",
            ),
            (
                "a key that is none",
                {"labelSelector": {}, "matchLabelKeys": ["a b"]},
                "should match",
            ),
            (
                "labels that are none",
                {"labelSelector": {"matchLabels": {"a": "x y"}}},
                "must be valid labels",
            ),
            ("no values", {"labelSelector": expressed(operator="In")}, "must be there with In"),
        )
    },
    "an affinity without a place": (
        AFFINITY,
        {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{}]}},
        "topologyKey",
        "Required value",
    ),
    "a misspelt affinity": (
        AFFINITY,
        {"podAntiaffinity": {}},
        "spec.template.affinity.podAntiaffinity",
        "unknown field",
    ),
    # -- every store
    "an S3 bucket of two letters": (
        "spec.model.storageUri",
        "s3://my/imagenet",
        "spec.model.storageUri",
        "must name a bucket after s3://",
    ),
    "an access point of another service": (
        "spec.model.storageUri",
        "s3://arn:aws:s3-object-lambda:eu-west-1:123456789012:accesspoint/name/imagenet",
        "spec.model.storageUri",
        "arn:aws:s3:REGION:ACCOUNT:accesspoint/NAME",
    ),
    "a bucket's ARN": (
        "spec.model.storageUri",
        "s3://arn:aws:s3:::models/imagenet",
        "spec.model.storageUri",
        "must name a bucket after s3://",
    ),
    "an access point of no account": (
        "spec.model.storageUri",
        "s3://arn:aws:s3:eu-west-1::accesspoint/name/imagenet",
        "spec.model.storageUri",
        "arn:aws:s3:REGION:ACCOUNT:accesspoint/NAME",
    ),
    "an unknown special container": (
        "spec",
        stored("az://$everything/imagenet", {"azure": {"account": "models"}}),
        "spec.model.storageUri",
        "must name a container after az://",
    ),
    "a container with two dashes": (
        "spec",
        stored("az://my--models/imagenet", {"azure": {"account": "models"}}),
        "spec.model.storageUri",
        "must name a container after az://",
    ),
    "too long a container": (
        "spec",
        stored(f"az://{'m-' * 32}/imagenet", {"azure": {"account": "models"}}),
        "spec.model.storageUri",
        "must name a container after az://",
    ),
    "a container of no account": (
        "spec",
        stored("az://models/imagenet", {}),
        "spec.source.azure",
        "must name the storage account",
    ),
    "a claim with two dots": (
        "spec.model.storageUri",
        "pvc://models..v1/imagenet",
        "spec.model.storageUri",
        "must name a PersistentVolumeClaim",
    ),
    "an empty segment behind a colon": (
        "spec.model.storageUri",
        "gs://models/a://b",
        "spec.model.storageUri",
        "must not hold empty",
    ),
    "a space at the end": (
        "spec.model.storageUri",
        "gs://models/imagenet ",
        "spec.model.storageUri",
        "nor white space at its end",
    ),
    **{
        f"no web server: {uri}": (
            "spec.model.storageUri",
            uri,
            "spec.model.storageUri",
            "must be https://HOST/FOLDER",
        )
        for uri in (
            "https://models.example.com:65536/imagenet",
            "https://models.example.com:0/imagenet",
            "https://models.example.com:/imagenet",
            "https://models..example.com/imagenet",
            "https://-models.example.com/imagenet",
            "https://[1:2]/imagenet",
            "https://[::1/imagenet",
            "https://[fe80::1%25eth0]/imagenet",
            "https://::1/imagenet",
            "https://models.example.com/image net",
            "https://models.example.com/modèles",
            "https://models.example.com/100%/imagenet",
            "https://models.example.com/a#b",
        )
    },
    **{
        f"no endpoint: {endpoint}": (
            "spec.source.endpoint",
            endpoint,
            "spec.source.endpoint",
            "must be a URL with http:// or https:// and a host",
        )
        for endpoint in (
            "http://",
            "http://bucket:99999",
            "http://user:password@bucket",
            "http://bucket?x=1",
            "http://bucket#x",
            "http://buc ket",
            "http://bucket/a b",
            "http://[::g]:4443",
            "http://bucket..ns",
        )
    },
    "no container": (
        "spec.model.storageUri",
        "az:///imagenet",
        "spec.model.storageUri",
        "the storage account goes into source.azure.account",
    ),
    "an account in front of the container": (
        "spec.model.storageUri",
        "az://models@account/imagenet",
        "spec.model.storageUri",
        "must name a container after az://",
    ),
    "no claim": (
        "spec.model.storageUri",
        "pvc:///imagenet",
        "spec.model.storageUri",
        "must name a PersistentVolumeClaim of this namespace",
    ),
    "a password in a URL": (
        "spec.model.storageUri",
        "https://reader:secret@models.example.com/imagenet",
        "spec.model.storageUri",
        "credentials go into the Secret of source.secretRef",
    ),
    "a signed URL": (
        "spec.model.storageUri",
        "https://models.example.com/imagenet?signature=x",
        "spec.model.storageUri",
        "without user, password, query or fragment",
    ),
    "an endpoint of a web server": (
        "spec",
        stored("https://models.example.com/imagenet", {"endpoint": "http://bucket:4443"}),
        "spec.source.endpoint",
        "is for gs://, s3:// and az:// alone",
    ),
    "a region of a GCS bucket": (
        "spec.source",
        {"region": "europe-west3"},
        "spec.source.region",
        "are for s3:// alone",
    ),
    "path style of a GCS bucket": (
        "spec.source",
        {"pathStyle": True},
        "spec.source.region",
        "source.pathStyle are for s3:// alone",
    ),
    "a region in words": (
        "spec",
        stored("s3://models/imagenet", {"region": "EU (Frankfurt)"}),
        "spec.source.region",
        "must be a region's name, such as eu-central-1",
    ),
    "an Azure account of an S3 bucket": (
        "spec",
        stored("s3://models/imagenet", {"azure": {"account": "models"}}),
        "spec.source.azure",
        "is for az:// alone",
    ),
    "an Azure account's host": (
        "spec",
        stored("az://models/imagenet", {"azure": {"account": "models.blob"}}),
        "spec.source.azure.account",
        "3 to 24 lower-case letters and digits",
    ),
    "azure without an account": (
        "spec",
        stored("az://models/imagenet", {"azure": {}}),
        "spec.source.azure.account",
        "Required value",
    ),
    "credentials for a claim": (
        "spec",
        stored("pvc://models/imagenet", {"secretRef": {"name": "key"}}),
        "spec.source.secretRef",
        "mean nothing for pvc://",
    ),
    "an anonymous claim": (
        "spec",
        stored("pvc://models/imagenet", {"anonymous": True}),
        "spec.source.secretRef",
        "mean nothing for pvc://",
    ),
    "Pub/Sub for S3": (
        "spec",
        stored("s3://models/imagenet", {"notifications": SUBSCRIPTION}),
        "spec.source.notifications.pubsub",
        "is for gs:// alone",
    ),
    "a queue for GCS": (
        "spec.source",
        {"notifications": QUEUE},
        "spec.source.notifications.sqs",
        "is for s3:// alone",
    ),
    "two kinds of notifications": (
        "spec",
        stored("s3://models/imagenet", {"notifications": {**SUBSCRIPTION, **QUEUE}}),
        "spec.source.notifications",
        "leave out one of them",
    ),
    "a queue's ARN": (
        "spec",
        stored(
            "s3://models/imagenet",
            {"notifications": {"sqs": {"queueUrl": "arn:aws:sqs:eu-central-1:1:models"}}},
        ),
        "spec.source.notifications.sqs.queueUrl",
        "must be the queue's URL, such as https://sqs.",
    ),
    **{
        f"no queue: {url}": (
            "spec",
            stored("s3://models/imagenet", {"notifications": {"sqs": {"queueUrl": url}}}),
            "spec.source.notifications.sqs.queueUrl",
            "must be the queue's URL",
        )
        for url in (
            "https://sqs.eu-central-1.amazonaws.com/models",
            "https://sqs.eu-central-1.amazonaws.com//models",
            "https://sqs.eu-central-1.amazonaws.com/123456789012/mod els",
            "https://sqs.eu-central-1.amazonaws.com:70000/123456789012/models",
            "sqs.eu-central-1.amazonaws.com/123456789012/models",
        )
    },
    **{
        f"no subscription: {name}": (
            "spec.source.notifications",
            {"pubsub": {"subscription": name}},
            "spec.source.notifications.pubsub.subscription",
            "must be projects/PROJECT/subscriptions/SUBSCRIPTION",
        )
        for name in (
            "projects//subscriptions/models",
            "projects/p/subscriptions/m",
            "projects/p/subscriptions/1models",
            "projects/p/q/subscriptions/models",
            "projects/example.com:/subscriptions/models",
        )
    },
    **{
        f"no emulator: {endpoint}": (
            "spec.source.notifications",
            {"pubsub": {**SUBSCRIPTION["pubsub"], "endpoint": endpoint}},
            "spec.source.notifications.pubsub.endpoint",
            "must be HOST:PORT",
        )
        for endpoint in (
            "pubsub",
            "::1:8085",
            "[1:2]:8085",
            "pub sub:8085",
            "pubsub:8085/x",
            "[]:1",
        )
    },
    "no range at once": (
        "spec.source.fetch",
        {"parallelism": 0},
        "spec.source.fetch.parallelism",
        "greater than or equal to 1",
    ),
    "too many ranges at once": (
        "spec.source.fetch",
        {"parallelism": 33},
        "spec.source.fetch.parallelism",
        "less than or equal to 32",
    ),
    "a bandwidth with its unit": (
        "spec.source.fetch",
        {"maxBandwidth": "50MB/s"},
        "spec.source.fetch.maxBandwidth",
        "must be bytes a second from 1k to 1P, such as 50M",
    ),
    "a bandwidth of nothing": (
        "spec.source.fetch",
        {"maxBandwidth": 0},
        "spec.source.fetch.maxBandwidth",
        "must be bytes a second from 1k",
    ),
    # -- where versions are kept
    "two volumes of a replica's own": (
        "spec.storage",
        {
            "emptyDir": {},
            "volumeClaimTemplate": {"spec": {"resources": {"requests": {"storage": "1Gi"}}}},
        },
        "spec.storage.volumeClaimTemplate",
        "leave one of them out",
    ),
    "memory without a limit": (
        "spec.storage.emptyDir",
        {"medium": "Memory"},
        "spec.storage.emptyDir.sizeLimit",
        "must be given with the medium Memory",
    ),
    "a medium that is none": (
        "spec.storage.emptyDir",
        {"medium": "HugePages"},
        "spec.storage.emptyDir.medium",
        "Unsupported value",
    ),
    "a volume of bytes": (
        "spec.storage.emptyDir",
        {"sizeLimit": 100},
        "spec.storage.emptyDir.sizeLimit",
        "must have sizes from 1Mi to 1E",
    ),
    "a claim without a size": (
        "spec.storage.volumeClaimTemplate",
        {"spec": {"resources": {"requests": {}}}},
        "spec.storage.volumeClaimTemplate.spec.resources.requests.storage",
        "Required value",
    ),
    "a claim of which nobody may write": (
        "spec.storage.volumeClaimTemplate",
        {
            "spec": {
                "accessModes": ["ReadOnlyMany"],
                "resources": {"requests": {"storage": "1Gi"}},
            }
        },
        "spec.storage.volumeClaimTemplate.spec.accessModes[0]",
        "Unsupported value",
    ),
    "a class that has no such name": (
        "spec.storage.volumeClaimTemplate",
        {"spec": {"storageClassName": "Fast!", "resources": {"requests": {"storage": "1Gi"}}}},
        "spec.storage.volumeClaimTemplate.spec.storageClassName",
        "must be the name of a StorageClass",
    ),
    "a cache without a claim": (
        "spec.storage.cache",
        {"maxSize": "1Gi"},
        "spec.storage.cache.claimName",
        "Required value",
    ),
    "a cache on a path": (
        "spec.storage.cache",
        {"claimName": "/mnt/cache"},
        "spec.storage.cache.claimName",
        "must be the name of a PersistentVolumeClaim",
    ),
    "a cache of no size": (
        "spec.storage.cache",
        {"claimName": "c", "maxSize": "lots"},
        "spec.storage.cache.maxSize",
        "must have sizes from 1Mi to 1E",
    ),
    "a cache of what is read where it is": (
        "spec",
        stored("pvc://exports/imagenet", {}) | {"storage": {"cache": {"claimName": "c"}}},
        "spec.storage.cache",
        "of no use for pvc://",
    ),
    # -- what a version comes with
    "a marker in a folder": (
        "spec.model.completion",
        {"marker": "meta/_SUCCESS"},
        "spec.model.completion.marker",
        "must be the plain name of a file",
    ),
    "a marker that climbs": (
        "spec.model.completion",
        {"marker": ".."},
        "spec.model.completion.marker",
        "must be the plain name of a file",
    ),
    **{
        f"a marker called {name}": (
            "spec.model.completion",
            {"marker": name},
            "spec.model.completion.marker",
            "must be a name that models don't have without it",
        )
        for name in ("variables", "Saved_Model.pb", "SHA256SUMS.minisig", ".DS_Store", "._done")
    },
    "a manifest of another wish": (
        "spec.model.completion",
        {"manifest": "Always"},
        "spec.model.completion.manifest",
        '"Optional", "Required"',
    ),
    "a key that is too short": (
        "spec.model.completion",
        {"publicKey": "RWQf6LRCGA9i53"},
        "spec.model.completion.publicKey",
        "at least 56",
    ),
    "a key of another tool": (
        "spec.model.completion",
        {"publicKey": "MC" + "a" * 54},
        "spec.model.completion.publicKey",
        "the 56 characters of the line that begins with RW",
    ),
    "warm-up from nowhere": (
        "spec.model.warmup",
        {},
        "spec.model.warmup",
        "must have either warmup.uri or warmup.configMap",
    ),
    "warm-up from two places": (
        "spec.model.warmup",
        {"uri": "gs://models/warm/requests", "configMap": {"name": "warm"}},
        "spec.model.warmup",
        "leave out one of them",
    ),
    "a folder of warm-up requests": (
        "spec.model.warmup",
        {"uri": "gs://models/warm/"},
        "spec.model.warmup.uri",
        "must name one file",
    ),
    **{
        f"no warm-up file: {uri}": (
            "spec.model.warmup",
            {"uri": uri},
            "spec.model.warmup.uri",
            says,
        )
        for uri, says in {
            "gs://models": "must name one file",
            "gs://Models/requests": "must name a bucket, container or claim",
            "s3://m/requests": "must name a bucket, container or claim",
            "https://u:p@models.example.com/requests": "without user, password, query or fragment",
            "https://models.example.com/requests?x=1": "without user, password, query or fragment",
            "gs://models/a/../requests": "must not hold empty, '.' or '..'",
            "gs://models/a\nrequests": "nor line breaks",
        }.items()
    },
    "warm-up from a claim that is not mounted": (
        "spec.model",
        {"storageUri": "pvc://models/imagenet", "warmup": {"uri": "pvc://other/requests"}},
        "spec.model.warmup.uri",
        "must lie on the claim of model.storageUri",
    ),
    "a ConfigMap's hidden key": (
        "spec.model.warmup",
        {"configMap": {"name": "warm", "key": "..requests"}},
        "spec.model.warmup.configMap.key",
        "not begin with '..'",
    ),
    "a ConfigMap of another namespace": (
        "spec.model.warmup",
        {"configMap": {"name": "other/warm"}},
        "spec.model.warmup.configMap.name",
        "must be the name of a ConfigMap in this namespace",
    ),
    "a ConfigMap's key with a slash": (
        "spec.model.warmup",
        {"configMap": {"name": "warm", "key": "a/b"}},
        "spec.model.warmup.configMap.key",
        "must hold letters, digits",
    ),
    # -- spec.autoscaling
    "autoscaling without a maximum": (
        AUTOSCALING,
        {"minReplicas": 1},
        "spec.autoscaling.maxReplicas",
        "Required value",
    ),
    "a minimum above the maximum": (
        AUTOSCALING,
        scaled(minReplicas=6),
        "spec.autoscaling.minReplicas",
        "raise the one or lower the other",
    ),
    "a maximum of nothing": (
        AUTOSCALING,
        {"minReplicas": 0, "maxReplicas": 0},
        "spec.autoscaling.maxReplicas",
        "greater than or equal to 1",
    ),
    "scaling to zero without KEDA": (
        AUTOSCALING,
        scaled(minReplicas=0),
        "spec.autoscaling.minReplicas",
        "a HorizontalPodAutoscaler keeps at least one pod",
    ),
    "metrics beside KEDA": (
        AUTOSCALING,
        scaled(metrics=[{"type": "Resource", "resource": CPU}], keda={"triggers": TRIGGERS}),
        "spec.autoscaling.metrics",
        "give KEDA's triggers instead of metrics",
    ),
    "no metrics": (AUTOSCALING, scaled(metrics=[]), "spec.autoscaling.metrics", "at least 1"),
    "a metric of an unknown type": (
        AUTOSCALING,
        metric(type="Cpu"),
        "spec.autoscaling.metrics[0].type",
        '"Resource", "ContainerResource", "Pods", "Object", "External"',
    ),
    "a metric without its field": (
        AUTOSCALING,
        metric(type="Resource"),
        "spec.autoscaling.metrics[0]",
        "must each have just the field of their type",
    ),
    "a metric with the field of another type": (
        AUTOSCALING,
        metric(type="Pods", resource=CPU),
        "spec.autoscaling.metrics[0]",
        "must each have just the field of their type",
    ),
    "a target without its value": (
        AUTOSCALING,
        metric(type="Resource", resource={"name": "cpu", "target": {"type": "Utilization"}}),
        "spec.autoscaling.metrics[0].resource.target",
        "must have just the field of its type",
    ),
    "a target that is no quantity": (
        AUTOSCALING,
        metric(
            type="Pods",
            pods={
                "metric": {"name": "requests"},
                "target": {"type": "AverageValue", "averageValue": "many"},
            },
        ),
        "spec.autoscaling.metrics[0].pods.target.averageValue",
        "must hold quantities above 0, such as 100 or 500m",
    ),
    "a resource's whole value": (
        AUTOSCALING,
        target("resource", {"name": "cpu"}, type="Value", value=2),
        "spec.autoscaling.metrics[0].resource.target.type",
        "of a Resource or ContainerResource must be Utilization, in percent of the request, or",
    ),
    "a container's whole value": (
        AUTOSCALING,
        target("containerResource", {"name": "cpu", "container": "x"}, type="Value", value=2),
        "spec.autoscaling.metrics[0].containerResource.target.type",
        "of a Resource or ContainerResource must be Utilization",
    ),
    "the pods' whole value": (
        AUTOSCALING,
        target("pods", NAMED, type="Value", value=2),
        "spec.autoscaling.metrics[0].pods.target.type",
        "of Pods must be AverageValue",
    ),
    "percents of the pods' metric": (
        AUTOSCALING,
        target("pods", NAMED, type="Utilization", averageUtilization=70),
        "spec.autoscaling.metrics[0].pods.target.type",
        "of Pods must be AverageValue",
    ),
    "percents of an object": (
        AUTOSCALING,
        target(
            "object",
            {**NAMED, "describedObject": {"kind": "Service", "name": "x"}},
            type="Utilization",
            averageUtilization=70,
        ),
        "spec.autoscaling.metrics[0].object.target.type",
        "of an Object or External must be Value or AverageValue",
    ),
    "percents of something external": (
        AUTOSCALING,
        target("external", NAMED, type="Utilization", averageUtilization=70),
        "spec.autoscaling.metrics[0].external.target.type",
        "of an Object or External must be Value or AverageValue",
    ),
    "a target of nothing": (
        AUTOSCALING,
        target("pods", NAMED, type="AverageValue", averageValue="0"),
        "spec.autoscaling.metrics[0].pods.target.averageValue",
        "must hold quantities above 0",
    ),
    "a target below nothing": (
        AUTOSCALING,
        target("external", NAMED, type="Value", value=-1),
        "spec.autoscaling.metrics[0].external.target.value",
        "must hold quantities above 0",
    ),
    "a target beyond all bounds": (
        AUTOSCALING,
        target("external", NAMED, type="Value", value="1e99999999"),
        "spec.autoscaling.metrics[0].external.target.value",
        "must hold quantities above 0",
    ),
    "a metric's name with a slash": (
        AUTOSCALING,
        target("external", {"metric": {"name": "a/b"}}, type="Value", value=2),
        "spec.autoscaling.metrics[0].external.metric.name",
        "must be a metric's name",
    ),
    "a metric of an object in a folder": (
        AUTOSCALING,
        target(
            "object",
            {**NAMED, "describedObject": {"kind": "Service", "name": "ns/x"}},
            type="Value",
            value=2,
        ),
        "spec.autoscaling.metrics[0].object.describedObject.name",
        "must be an object's name",
    ),
    "a metric of no API version": (
        AUTOSCALING,
        target(
            "object",
            {**NAMED, "describedObject": {"kind": "Service", "name": "x", "apiVersion": "a/b/c"}},
            type="Value",
            value=2,
        ),
        "spec.autoscaling.metrics[0].object.describedObject.apiVersion",
        "must be VERSION or GROUP/VERSION",
    ),
    "a metric of no kind": (
        AUTOSCALING,
        target(
            "object",
            {**NAMED, "describedObject": {"kind": "v1/Service", "name": "x"}},
            type="Value",
            value=2,
        ),
        "spec.autoscaling.metrics[0].object.describedObject.kind",
        "must be an object's kind",
    ),
    "a container that can't be": (
        AUTOSCALING,
        target(
            "containerResource",
            {"name": "cpu", "container": "Model Server"},
            type="AverageValue",
            averageValue=2,
        ),
        "spec.autoscaling.metrics[0].containerResource.container",
        "must be the name of a container, such as model-server",
    ),
    "percents of a CPU that is not requested": (
        "spec",
        unrequested(metrics=[{"type": "Resource", "resource": CPU}]),
        "spec.server.resources.requests",
        "must have every resource that autoscaling follows in percent of the request",
    ),
    "percents of a container's CPU that is not requested": (
        "spec",
        unrequested(
            metrics=[
                {
                    "type": "ContainerResource",
                    "containerResource": {**CPU, "container": "model-server"},
                }
            ]
        ),
        "spec.server.resources.requests",
        "add it, such as cpu 500m, or give the metric a target of type AverageValue",
    ),
    "the default metric without a request": (
        "spec",
        unrequested(),
        "spec.server.resources.requests",
        "cpu where there are no autoscaling.metrics",
    ),
    "a misspelt metric": (
        AUTOSCALING,
        metric(type="Resource", resource={**CPU, "averageUtilization": 70}),
        "spec.autoscaling.metrics[0].resource.averageUtilization",
        "unknown field",
    ),
    "a window of days": (
        AUTOSCALING,
        scaled(behavior={"scaleDown": {"stabilizationWindowSeconds": 86400}}),
        "spec.autoscaling.behavior.scaleDown.stabilizationWindowSeconds",
        "less than or equal to 3600",
    ),
    "a negative tolerance": (
        AUTOSCALING,
        scaled(behavior={"scaleUp": {"tolerance": "-0.1"}}),
        "spec.autoscaling.behavior.scaleUp.tolerance",
        "must be a quantity from 0, such as 0.1",
    ),
    "a policy of an unknown type": (
        AUTOSCALING,
        rules(type="Nodes"),
        "spec.autoscaling.behavior.scaleDown.policies[0].type",
        '"Pods", "Percent"',
    ),
    "too long a period": (
        AUTOSCALING,
        rules(periodSeconds=1801),
        "spec.autoscaling.behavior.scaleDown.policies[0].periodSeconds",
        "less than or equal to 1800",
    ),
    "KEDA's percents of a CPU that is not requested": (
        "spec",
        unrequested(keda={"triggers": [USED]}),
        "spec.server.resources.requests",
        "must have what a trigger of autoscaling.keda follows in percent of the request",
    ),
    "KEDA without triggers": (
        AUTOSCALING,
        scaled(keda={}),
        "spec.autoscaling.keda.triggers",
        "give triggers, or http for requests",
    ),
    "requests that scale by nothing": (
        AUTOSCALING,
        scaled(keda={"http": {"timeout": "1m"}}),
        "spec.autoscaling.keda.http.concurrency",
        "must have concurrency or requestRate",
    ),
    "a host of requests that is a URL": (
        AUTOSCALING,
        scaled(keda={"http": {"concurrency": 1, "hosts": ["http://m.example.com"]}}),
        "spec.autoscaling.keda.http.hosts[0]",
        "without scheme, port or path",
    ),
    "requests that wait for ever": (
        AUTOSCALING,
        scaled(keda={"http": {"concurrency": 1, "timeout": "25h"}}),
        "spec.autoscaling.keda.http.timeout",
        "from 1s to 24h",
    ),
    "requests of a Gateway's every host": (
        "spec",
        by_requests(gateway={}),
        "spec.autoscaling.keda.http.hosts",
        "must name the hosts that clients ask for where gateway.hostnames doesn't",
    ),
    "gRPC that wakes nothing": (
        "spec",
        by_requests(gateway=BOTH, minReplicas=0),
        "spec.autoscaling.minReplicas",
        "gRPC doesn't go through the interceptor",
    ),
    "a trigger's number": (
        AUTOSCALING,
        scaled(keda={"triggers": [{"type": "cron", "metadata": {"desiredReplicas": 2}}]}),
        "spec.autoscaling.keda.triggers[0].metadata.desiredReplicas",
        "type string",
    ),
    # -- spec.disruptionBudget
    "a budget of nothing": (
        "spec.disruptionBudget",
        {"maxUnavailable": 0},
        "spec.disruptionBudget.maxUnavailable",
        "with 0, no node could be drained",
    ),
    "a budget beyond all": (
        "spec.disruptionBudget",
        {"maxUnavailable": "101%"},
        "spec.disruptionBudget.maxUnavailable",
        "a part from 1% to 100%",
    ),
    "a budget's number as text": (
        "spec.disruptionBudget",
        {"maxUnavailable": "2"},
        "spec.disruptionBudget.maxUnavailable",
        "must be a number from 1 or a part",
    ),
    # -- spec.gateway
    "a Gateway twice": (
        "spec.gateway",
        {"parentRefs": [{"name": "public"}, {"name": "public", "sectionName": "web"}]},
        "spec.gateway.parentRefs",
        "with a sectionName of its own each",
    ),
    **{
        f"a Gateway by no {field}": (
            "spec.gateway",
            {"parentRefs": [{"name": "public", field: value}]},
            f"spec.gateway.parentRefs[0].{field}",
            "must be",
        )
        for field, value in {
            "group": "a b",
            "kind": "gateways/v1",
            "namespace": "Infra",
            "sectionName": "Web",
        }.items()
    },
    "an encoded slash in a route's path": (
        "spec.gateway",
        {"parentRefs": PARENTS, "path": "/v1%2fmodels"},
        "spec.gateway.path",
        "a plain path",
    ),
    "a route's path with a brace": (
        "spec.gateway",
        {"parentRefs": PARENTS, "path": "/v1/{a}"},
        "spec.gateway.path",
        "a plain path",
    ),
    "routes without a Gateway": (
        "spec.gateway",
        {"hostnames": ["x.example.com"]},
        "spec.gateway.parentRefs",
        "Required value",
    ),
    "routes to no Gateway": (
        "spec.gateway",
        {"parentRefs": []},
        "spec.gateway.parentRefs",
        "at least 1",
    ),
    "a Gateway without a name": (
        "spec.gateway",
        {"parentRefs": [{"namespace": "infra"}]},
        "spec.gateway.parentRefs[0].name",
        "Required value",
    ),
    "a URL as a route's host": (
        "spec.gateway",
        {"parentRefs": PARENTS, "hostnames": ["https://x.example.com"]},
        "spec.gateway.hostnames[0]",
        "without scheme, port or path",
    ),
    "an address as a route's host": (
        "spec.gateway",
        {"parentRefs": PARENTS, "hostnames": ["127.0.0.1"]},
        "spec.gateway.hostnames[0]",
        "must be DNS names",
    ),
    "one host for both routes": (
        "spec.gateway",
        {"parentRefs": PARENTS, "hostnames": ["x.example.com"], "grpcHostnames": ["x.example.com"]},
        "spec.gateway.grpcHostnames",
        "a Gateway takes one kind of route for a host",
    ),
    "a route's path without a slash": (
        "spec.gateway",
        {"parentRefs": PARENTS, "path": "v1/models/imagenet"},
        "spec.gateway.path",
        "must begin with '/'",
    ),
    # -- spec.networkPolicy
    "a peer that is nobody": (
        "spec.networkPolicy",
        fenced(),
        "spec.networkPolicy.from[0]",
        "at least 1 properties",
    ),
    "a range that is none": (
        "spec.networkPolicy",
        fenced(ipBlock={"cidr": "10.0.0.1"}),
        "spec.networkPolicy.from[0].ipBlock.cidr",
        "must be a range such as 10.0.0.0/8",
    ),
    "a range with more than its prefix": (
        "spec.networkPolicy",
        fenced(ipBlock={"cidr": "10.0.0.1/8"}),
        "spec.networkPolicy.from[0].ipBlock.cidr",
        "with no bits beyond its prefix",
    ),
    "a range beside pods": (
        "spec.networkPolicy",
        fenced(ipBlock={"cidr": "10.0.0.0/8"}, podSelector={}),
        "spec.networkPolicy.from[0].ipBlock",
        "make it a peer of its own",
    ),
    "a range beside namespaces": (
        "spec.networkPolicy",
        fenced(ipBlock={"cidr": "10.0.0.0/8"}, namespaceSelector={}),
        "spec.networkPolicy.from[0].ipBlock",
        "make it a peer of its own",
    ),
    "an exception that is no range": (
        "spec.networkPolicy",
        fenced(ipBlock={"cidr": "10.0.0.0/8", "except": ["10.1.0.1"]}),
        "spec.networkPolicy.from[0].ipBlock.except[0]",
        "must hold ranges such as 10.1.0.0/16",
    ),
    "an exception with more than its prefix": (
        "spec.networkPolicy",
        fenced(ipBlock={"cidr": "10.0.0.0/8", "except": ["10.1.0.1/16"]}),
        "spec.networkPolicy.from[0].ipBlock.except[0]",
        "with no bits beyond their prefix",
    ),
    "an exception outside of the range": (
        "spec.networkPolicy",
        fenced(ipBlock={"cidr": "10.0.0.0/8", "except": ["192.168.0.0/16"]}),
        "spec.networkPolicy.from[0].ipBlock.except",
        "must hold smaller ranges in ipBlock.cidr",
    ),
    "an exception of the whole range": (
        "spec.networkPolicy",
        fenced(ipBlock={"cidr": "10.0.0.0/8", "except": ["10.0.0.0/8"]}),
        "spec.networkPolicy.from[0].ipBlock.except",
        "must hold smaller ranges in ipBlock.cidr",
    ),
    "an exception of another family": (
        "spec.networkPolicy",
        fenced(ipBlock={"cidr": "10.0.0.0/8", "except": ["2001:db8::/32"]}),
        "spec.networkPolicy.from[0].ipBlock.except",
        "must hold smaller ranges in ipBlock.cidr",
    ),
    "a peer's label value with a space": (
        "spec.networkPolicy",
        fenced(podSelector={"matchLabels": {"app": "web shop"}}),
        "spec.networkPolicy.from[0].podSelector.matchLabels",
        "must choose by valid labels",
    ),
    "a namespace's label that is none": (
        "spec.networkPolicy",
        fenced(namespaceSelector={"matchLabels": {"a/b/c": "x"}}),
        "spec.networkPolicy.from[0].namespaceSelector.matchLabels",
        "must choose by valid labels",
    ),
    "a misspelt peer": (
        "spec.networkPolicy",
        fenced(namespace={"matchLabels": {"a": "b"}}),
        "spec.networkPolicy.from[0].namespace",
        "unknown field",
    ),
    # -- more of spec.server
    "a variable from another namespace": (
        "spec.server.env",
        [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "other/keys", "key": "a"}}}],
        "spec.server.env[0].valueFrom.secretKeyRef.name",
        "must refer to an object of this namespace by its name",
    ),
    "a variable from a path": (
        "spec.server.env",
        [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "a/b"}}}],
        "spec.server.env[0].valueFrom.configMapKeyRef.key",
        "use the key as the Secret or ConfigMap has it",
    ),
    # -- more of spec.template
    "a registry's Secret with a slash": (
        "spec.template.imagePullSecrets",
        [{"name": "ns/registry"}],
        "spec.template.imagePullSecrets[0].name",
        "must be the name of a Secret in this namespace",
    ),
    "a registry's Secret twice": (
        "spec.template.imagePullSecrets",
        [{"name": "registry"}, {"name": "registry"}],
        "spec.template.imagePullSecrets",
        "leave out the repeated one",
    ),
    "a spread over a label that is none": (
        "spec.template.topologySpreadConstraints",
        [{"topologyKey": "a b"}],
        "spec.template.topologySpreadConstraints[0].topologyKey",
        "must be a label's name",
    ),
    "a priority as a number": (
        "spec.template.priorityClassName",
        1000,
        "spec.template.priorityClassName",
        "type string",
    ),
    "a priority class that can't be": (
        "spec.template.priorityClassName",
        "High Priority",
        "spec.template.priorityClassName",
        "those that kubectl get priorityclass prints",
    ),
    "a spread over nothing": (
        "spec.template.topologySpreadConstraints",
        [{"maxSkew": 1}],
        "spec.template.topologySpreadConstraints[0].topologyKey",
        "Required value",
    ),
    "a spread without room": (
        "spec.template.topologySpreadConstraints",
        [{"topologyKey": "rack", "maxSkew": 0}],
        "spec.template.topologySpreadConstraints[0].maxSkew",
        "greater than or equal to 1",
    ),
    "a spread twice": (
        "spec.template.topologySpreadConstraints",
        [{"topologyKey": "rack"}, {"topologyKey": "rack", "whenUnsatisfiable": "ScheduleAnyway"}],
        "spec.template.topologySpreadConstraints[1]",
        "Duplicate value",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_with_the_fields_name_and_the_fix(
    api_server: Api, namespace: str, case: str
) -> None:
    path, value, field, says = BAD[case]
    with pytest.raises(RefusedError) as refused:
        posted(api_server, namespace, changed(path, value))
    message = " ".join(str(refused.value).split())
    assert field in message
    assert says in message
    assert "evaluation error" not in message
    assert "evaluating rule" not in message


TAKEN: dict[str, tuple[str, Any]] = {
    "a poller that a strict namespace runs": (
        "spec.poller",
        {
            "resources": {
                "requests": {"cpu": "50m", "memory": "256Mi", "ephemeral-storage": "1Gi"},
                "limits": {"cpu": 1, "ephemeral-storage": "1.5Gi"},
            },
            "env": [
                {"name": "HTTPS_PROXY", "value": "http://proxy:3128"},
                {"name": "P", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
                {"name": "GOOGLE_APPLICATION_CREDENTIALS", "value": "/x.json"},
            ],
            "extraCAs": {"configMap": {"name": "company.v1", "key": "bundle.pem"}},
            "logLevel": "Debug",
        },
    ),
    "a poller's limit of cpu alone": ("spec.poller.resources", {"limits": {"cpu": "20m"}}),
    "an hour of draining": ("spec.drain.seconds", 3600),
    "several hosts": ("spec.ingress.hosts", ["*.example.com", "b.example.com", "c"]),
    "hosts without the one": (
        "spec.ingress",
        {"hosts": ["a.example.com", "*.example.com"], "tls": {}},
    ),
    "pods that stay": ("spec.disruptionBudget", {"minAvailable": 2}),
    "a part that stays": ("spec.disruptionBudget", {"minAvailable": "99%"}),
    "pods that stay in what an earlier release filled in": (
        "spec.disruptionBudget",
        {"minAvailable": 2, "maxUnavailable": 1},
    ),
    "an opening for metrics": (
        "spec.networkPolicy",
        {"enabled": True, "metricsFrom": [{"namespaceSelector": {}, "podSelector": {}}]},
    ),
    "a load balancer with all that it can have": (
        "spec.service",
        {
            "type": "LoadBalancer",
            "labels": {"team": "vision", "empty": ""},
            "loadBalancerClass": "service.k8s.aws/nlb",
            "externalTrafficPolicy": "Local",
            "sessionAffinity": "ClientIP",
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 86400}},
            "trafficDistribution": "PreferSameZone",
            "ipFamilyPolicy": "PreferDualStack",
            "ipFamilies": ["IPv4"],
        },
    ),
    "a policy for ports of nodes": (
        "spec.service",
        {"type": "NodePort", "externalTrafficPolicy": "Local"},
    ),
    "one family without a policy": ("spec.service", {"ipFamilies": ["IPv4"]}),
    "pods that go before their successors come": (
        "spec.strategy",
        {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
    ),
    "parts of the pods": (
        "spec.strategy.rollingUpdate",
        {"maxSurge": "200%", "maxUnavailable": "100%"},
    ),
    "all pods at once": ("spec.strategy", {"type": "Recreate"}),
    "the shortest deadline": (
        "spec",
        {**GOOD["spec"], "minReadySeconds": 0, "progressDeadlineSeconds": 1},
    ),
    "the longest name": ("metadata.name", "m" * 50),
    "the shortest name": ("metadata.name", "m"),
    **{
        f"the storage {uri}": ("spec", stored(uri, {}))
        for uri in (
            "gs://my_models.example.com/a",
            "gs://123",
            "gs://models/with space/ä",
            "s3://my_models/imagenet",
            "s3://Models.Of.1999_/imagenet",
            "s3://models-hrzrlukc5m36ft7okagglf3gmwluquse1b-s3alias/imagenet",
            "s3://arn:aws:s3:eu-west-1:123456789012:accesspoint/name/prefix",
            "s3://arn:aws:s3:eu-west-1:123456789012:accesspoint/name",
            "s3://arn:aws-cn:s3:cn-north-1:123456789012:accesspoint:name/a/b",
            "s3://arn:aws-us-gov:s3:us-gov-west-1:123456789012:accesspoint/name/a",
            "s3://arn:aws:s3::123456789012:accesspoint/mfzwi23gnjvgw.mrap/a",
            "pvc://m/with space",
            "pvc://models.v-1",
            "https://[::1]:8080/x",
            "https://[2001:db8::8:800:200c:417a]/x/",
            "http://10.0.0.1:65535",
            "http://my_bucket.local/a%20b/c,d;e=f/(g)'h'",
            "https://models.example.com./imagenet",
        )
    },
    **{
        f"the container {name}": ("spec", stored(f"az://{name}/a", {"azure": {"account": "m12"}}))
        for name in ("$web", "$root", "$logs", "a-b", "a12", "m" * 63, "a-" * 31 + "a")
    },
    "an account that the Secret names": (
        "spec",
        stored("az://models", {"secretRef": {"name": "key"}}),
    ),
    **{
        f"the endpoint {endpoint}": ("spec.source.endpoint", endpoint)
        for endpoint in (
            "https://[::1]:8080",
            "http://[2001:db8::1]/prefix",
            "http://bucket",
            "http://bucket_1.ns.svc.cluster.local.:65535/",
            "https://storage.googleapis.com",
        )
    },
    **{
        f"the region {region}": (
            "spec",
            stored("s3://models/imagenet", {"region": region}),
        )
        for region in ("us-gov-west-1", "RegionOne", "auto", "eu_west.1")
    },
    **{
        f"the queue {url}": (
            "spec",
            stored("s3://models/imagenet", {"notifications": {"sqs": {"queueUrl": url}}}),
        )
        for url in (
            "https://sqs.us-gov-west-1.amazonaws.com/123456789012/models",
            "https://sqs.cn-north-1.amazonaws.com.cn/123456789012/models",
            "https://sqs-fips.us-east-1.amazonaws.com/123456789012/models",
            "https://eu-west-1.queue.amazonaws.com/123456789012/my_models-1",
            "https://vpce-1a-2b.sqs.eu-west-1.vpce.amazonaws.com/123456789012/models",
            "http://sqs.eu-west-1.localhost.localstack.cloud:4566/000000000000/models",
            "http://localhost:4566/queue/eu-west-1/000000000000/models",
            "http://[::1]:9324/000000000000/models",
        )
    },
    **{
        f"the subscription {name}": (
            "spec.source.notifications",
            {"pubsub": {"subscription": name}},
        )
        for name in (
            "projects/123456/subscriptions/models",
            "projects/example.com:models-1/subscriptions/models",
            "projects/models-1/subscriptions/a.b_c~d+e%25-f",
        )
    },
    **{
        f"the emulator {endpoint}": (
            "spec.source.notifications",
            {"pubsub": {**SUBSCRIPTION["pubsub"], "endpoint": endpoint}},
        )
        for endpoint in ("[::1]:8085", "10.0.0.1:1", "pub_sub.ns:65535")
    },
    "part of a minute": ("spec.source.pollInterval", "1.5m"),
    **{
        f"the image {image}": ("spec.server.image", image)
        for image in (
            "serving",
            "localhost/serving:1",
            "R.example.com/a/b__c/d--e.f:V1_.-",
            "[::1]:5000/serving",
            "r:5000/serving:1@sha256:" + "0" * 64,
        )
    },
    "variables with dots and dashes": (
        "spec.server.env",
        [
            {"name": name, "value": "1"}
            for name in ("a.b", "a-b", "1a", "..", "a b", "!\"#$%&'()*+,/")
        ],
    ),
    "devices without a request": (
        "spec.server.resources",
        {"limits": {"nvidia.com/gpu": 1, "kubernetes.io/x": "500m"}},
    ),
    "devices and hugepages with their limits": (
        "spec.server.resources",
        {
            "requests": {"cpu": "+1", "nvidia.com/gpu": "1", "hugepages-2Mi": "4Mi"},
            "limits": {"nvidia.com/gpu": 1, "hugepages-2Mi": "4096Ki", "hugepages-1Gi": "1Gi"},
        },
    ),
    "AppArmor of a container": (
        "spec.template.metadata.annotations",
        {"container.apparmor.security.beta.kubernetes.io/model-server": "runtime/default"},
    ),
    "ranges of a balancer": (
        "spec.service",
        {
            "type": "LoadBalancer",
            "annotations": {
                "service.beta.kubernetes.io/load-balancer-source-ranges": "10.0.0.0/8, ::/0"
            },
        },
    ),
    "as many annotations as there may be": (
        "spec",
        {
            **GOOD["spec"],
            "ingress": {**HOST, "annotations": {f"a{n}": "x" * 16000 for n in range(12)}},
            "template": {"metadata": {"annotations": {f"a{n}": "x" * 16000 for n in range(12)}}},
        },
    ),
    "an annotation's key with capitals": (
        "spec.service.annotations",
        {"Example.com/Name": "x"},
    ),
    **{
        f"the path {path} as {kind}": ("spec.ingress", {**HOST, "path": path, "pathType": kind})
        for path, kind in (
            ("/serving(/|$)(.*)", "ImplementationSpecific"),
            ("/v1//%2Fa/../b", "ImplementationSpecific"),
            ("/v1/models/[a-z]+:predict", "ImplementationSpecific"),
            ("/v1/models/imagenet:predict", "Exact"),
            ("/v1/models/imagenet", "Prefix"),
            ("/a(b)*,;='%20@ü", "Prefix"),
            ("/" + "a" * 999, "Exact"),
        )
    },
    "an ingress class by its annotation": (
        "spec.ingress",
        {**HOST, "annotations": {"kubernetes.io/ingress.class": "nginx"}},
    ),
    "a route's path with all that it can have": (
        "spec.gateway",
        {"parentRefs": PARENTS, "path": "/" + "a" * 900 + "~!$&'()*+,;=:@%20-._"},
    ),
    "listeners of one Gateway and of another namespace's": (
        "spec.gateway",
        {
            "parentRefs": [
                {"name": "public", "sectionName": "web"},
                {"name": "public", "sectionName": "tls"},
                {"name": "public", "namespace": "infra"},
                {"name": "public", "kind": "XListenerSet", "group": "a.example.com"},
            ]
        },
    ),
    "peers by expressions": (
        "spec.networkPolicy",
        fenced(
            podSelector=expressed(operator="NotIn", values=["a", ""]),
            namespaceSelector=expressed(key="example.com/a"),
        ),
    ),
    "a metric's series by expressions": (
        AUTOSCALING,
        target(
            "external",
            {"metric": {"name": "a", "selector": expressed(operator="In", values=["b"])}},
            type="Value",
            value="+2",
        ),
    ),
    "a budget by its number": ("spec.disruptionBudget", {"maxUnavailable": 100_000}),
    "tolerations and affinities of all kinds": (
        "spec.template",
        {
            "tolerations": [{"key": "example.com/a", "value": "b.c"}, {"key": "a", "value": ""}],
            "affinity": {
                "nodeAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": {
                        "nodeSelectorTerms": [
                            expressed(operator="NotIn", values=["a", ""]),
                            expressed(key="example.com/A", operator="Lt", values=["4"]),
                            {"matchFields": [{**FIELD, "values": ["n" * 100 + ".example.com"]}]},
                        ]
                    }
                }
            },
        },
    ),
    "a whole bucket": ("spec.model.storageUri", "gs://models"),
    "a folder with a slash at its end": ("spec.model.storageUri", "gs://models/imagenet/"),
    "a bucket with dots": ("spec.model.storageUri", "gs://models.example.com/a/b"),
    "a folder with dots": ("spec.model.storageUri", "gs://models/v1..2/.hidden/a...b"),
    "a model's name with all that is allowed": ("spec.model.name", "ResNet-50_v1.5"),
    "version 0": ("spec.model.version", 0),
    "the highest version": ("spec.model.version", 2**63 - 1),
    "a pin at minVersion": (
        "spec.model",
        {"storageUri": "gs://models/imagenet", "version": 10, "minVersion": 10},
    ),
    "as many kept as served": (
        "spec.model",
        {"storageUri": "gs://models/imagenet", "numVersions": 3, "retainVersions": 3},
    ),
    "the shortest interval": ("spec.source.pollInterval", "5s"),
    "the longest interval": ("spec.source.pollInterval", "24h"),
    "a compound interval": ("spec.source.pollInterval", "1h30m"),
    "an endpoint with a port": ("spec.source.endpoint", "http://bucket.ns:4443"),
    "a domain-scoped project": (
        "spec.source.notifications",
        {"pubsub": {"subscription": "projects/example.com:p/subscriptions/sub"}},
    ),
    "an image by digest": ("spec.server.image", "r.example.com:5000/a/b@sha256:" + "0" * 64),
    "a flag without a value": ("spec.server.args", ["--enable_model_warmup"]),
    "a flag that begins like a managed one": ("spec.server.args", ["--port_name=x"]),
    "an operator's default replaced": ("spec.server.args", ["--num_load_threads=8"]),
    "quantities of all kinds": (
        "spec.server.resources",
        {
            "requests": {"cpu": "0.5", "memory": 1073741824, "ephemeral-storage": "1e9"},
            "limits": {"cpu": 1, "memory": "1.5Gi", "nvidia.com/gpu": 1, "hugepages-2Mi": "4Mi"},
        },
    ),
    "batching with defaults": ("spec.server.batching", {}),
    "batch sizes up to the maximum": (
        "spec.server.batching",
        {"maxBatchSize": 8, "allowedBatchSizes": [2, 4, 8]},
    ),
    "an empty variable": ("spec.server.env", [{"name": "EMPTY"}]),
    "no replicas": ("spec.replicas", 0),
    "the other way round of ports": ("spec.service", {"httpPort": 8500, "grpcPort": 8501}),
    "no ingress": ("spec.ingress", ABSENT),
    "an ingress that is prepared but has no host": ("spec.ingress", {"className": "traefik"}),
    "a host of one label": ("spec.ingress.host", "imagenet"),
    "empty parts as templates render them": (
        "spec.template",
        {"metadata": {"labels": {}}, "nodeSelector": {}, "tolerations": [], "affinity": {}},
    ),
    "a toleration of everything": (TOLERATION, [{"operator": "Exists"}]),
    "an S3 bucket with all that it can have": (
        "spec",
        stored(
            "s3://models.example/a/b/",
            {
                "endpoint": "https://minio.storage:9000",
                "region": "eu-central-1",
                "pathStyle": True,
                "notifications": QUEUE,
            },
        ),
    ),
    "Azure's root container": (
        "spec",
        stored("az://$root", {"azure": {"account": "models123"}, "secretRef": {"name": "key"}}),
    ),
    "a claim": ("spec", stored("pvc://models.v1/exports/imagenet", {})),
    "a web server with a port": (
        "spec",
        stored("http://models.example.com:8080/imagenet/", {"secretRef": {"name": "web"}}),
    ),
    "versions in memory": ("spec.storage.emptyDir", {"medium": "Memory", "sizeLimit": "2Gi"}),
    "a claim of each replica's own, and a cache": (
        "spec.storage",
        {
            "volumeClaimTemplate": {"spec": {"resources": {"requests": {"storage": "1Gi"}}}},
            "cache": {"claimName": "models.cache-1", "maxSize": "1.5Gi"},
        },
    ),
    "limits of a fetch": ("spec.source.fetch", {"parallelism": 32, "maxBandwidth": "1.5Gi"}),
    "a bandwidth as a number": ("spec.source.fetch", {"maxBandwidth": 50_000_000}),
    "signed versions with a marker": (
        "spec.model.completion",
        {"marker": "_SUCCESS", "manifest": "Required", "publicKey": "RW" + "a/+A" * 13 + "aa"},
    ),
    "warm-up from another store": ("spec.model.warmup", {"uri": "https://x.example.com/warm"}),
    "autoscaling with defaults": (AUTOSCALING, scaled()),
    "percents of a limit, which is the request too": (
        "spec",
        {
            **unrequested(metrics=[{"type": "Resource", "resource": CPU}]),
            "server": {"resources": {"limits": {"cpu": 2}}},
        },
    ),
    "percents of what is requested": (
        "spec",
        unrequested(metrics=[{"type": "Resource", "resource": {**CPU, "name": "memory"}}]),
    ),
    "percents of what the poller requests": (
        "spec",
        unrequested(
            metrics=[
                {"type": "ContainerResource", "containerResource": {**CPU, "container": "poller"}}
            ]
        ),
    ),
    "the used CPU without a request": (
        "spec",
        unrequested(
            metrics=[
                {
                    "type": "Resource",
                    "resource": {
                        "name": "cpu",
                        "target": {"type": "AverageValue", "averageValue": "500m"},
                    },
                }
            ]
        ),
    ),
    "KEDA's percents of what is requested": (
        "spec",
        unrequested(keda={"triggers": [{**USED, "type": "memory"}]}),
    ),
    "KEDA's percents of the poller's CPU": (
        "spec",
        unrequested(
            keda={"triggers": [{**USED, "metadata": {"value": "70", "containerName": "poller"}}]}
        ),
    ),
    "scaling by KEDA without a request": ("spec", unrequested(keda={"triggers": TRIGGERS})),
    "autoscaling beside replicas": (
        "spec",
        {**GOOD["spec"], "replicas": 3, "autoscaling": scaled()},
    ),
    "metrics of all types": (
        AUTOSCALING,
        scaled(
            metrics=[
                {"type": "Resource", "resource": CPU},
                {
                    "type": "ContainerResource",
                    "containerResource": {**CPU, "container": "model-server"},
                },
                {
                    "type": "Pods",
                    "pods": {
                        "metric": {"name": "queue", "selector": {"matchLabels": {"a": "b"}}},
                        "target": {"type": "AverageValue", "averageValue": "500m"},
                    },
                },
                {
                    "type": "Object",
                    "object": {
                        "describedObject": {"kind": "Service", "name": "x", "apiVersion": "v1"},
                        "metric": {"name": "requests"},
                        "target": {"type": "Value", "value": 10},
                    },
                },
                {
                    "type": "External",
                    "external": {
                        "metric": {"name": "messages"},
                        "target": {"type": "AverageValue", "averageValue": 30},
                    },
                },
            ]
        ),
    ),
    "behavior to the limits": (
        AUTOSCALING,
        scaled(
            behavior={
                "scaleUp": {"stabilizationWindowSeconds": 0, "selectPolicy": "Disabled"},
                "scaleDown": {
                    "stabilizationWindowSeconds": 3600,
                    "selectPolicy": "Min",
                    "tolerance": "0.05",
                    "policies": [{"type": "Percent", "value": 100, "periodSeconds": 1800}],
                },
            }
        ),
    ),
    "scaling to zero by requests": (
        AUTOSCALING,
        scaled(
            minReplicas=0,
            keda={"http": {"hosts": ["*.example.com"], "concurrency": 1, "requestRate": 1}},
        ),
    ),
    "gRPC that something else counts": (
        "spec",
        by_requests(gateway=BOTH, minReplicas=0, triggers=TRIGGERS),
    ),
    "scaling to zero with KEDA": (
        AUTOSCALING,
        scaled(minReplicas=0, keda={"triggers": TRIGGERS, "cooldownPeriod": 0}),
    ),
    "a budget for all": ("spec.disruptionBudget", {"maxUnavailable": "100%"}),
    "no budget": ("spec.disruptionBudget", {"enabled": False}),
    "routes to a Gateway's listener": (
        "spec.gateway",
        {
            "parentRefs": [{"name": "public", "namespace": "infra", "sectionName": "web"}],
            "hostnames": ["*.example.com"],
            "grpcHostnames": ["grpc.example.com"],
            "path": "/v1/models/imagenet",
        },
    ),
    "a mesh's Service as parent": (
        "spec.gateway",
        {"parentRefs": [{"group": "", "kind": "Service", "name": "x", "port": 80}]},
    ),
    "peers of all kinds": (
        "spec.networkPolicy",
        {
            "enabled": True,
            "from": [
                {"namespaceSelector": {"matchLabels": {"a": "b"}}, "podSelector": {}},
                {"ipBlock": {"cidr": "2001:db8::/32", "except": ["2001:db8:1::/48"]}},
            ],
        },
    ),
    "a spread that is preferred and one that is insisted on": (
        "spec.template.topologySpreadConstraints",
        [{"topologyKey": "rack"}, {"topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule"}],
    ),
    "no spread": ("spec.template.topologySpreadConstraints", []),
}


@pytest.mark.parametrize("case", TAKEN)
def test_what_is_legal_is_taken(api_server: Api, namespace: str, case: str) -> None:
    path, value = TAKEN[case]
    assert posted(api_server, namespace, changed(path, value))["metadata"]["uid"]


def named(resource: str, model: str | None) -> Object:
    made = changed("metadata.name", resource)
    if model is not None:
        made["spec"]["model"]["name"] = model
    return made


@pytest.mark.parametrize(
    ("resource", "before", "after"),
    [("added", None, "other"), ("changed", "one", "other"), ("removed", "one", None)],
)
def test_the_models_name_can_not_be_changed_later(
    api_server: Api, namespace: str, resource: str, before: str | None, after: str | None
) -> None:
    place = ("--namespace", namespace, "-f", "-")
    api_server.kubectl("create", *place, stdin=json.dumps(named(resource, before)))
    with pytest.raises(KubectlError, match="create another InferenceModel") as refused:
        api_server.kubectl("replace", *place, stdin=json.dumps(named(resource, after)))
    assert "spec.model.name" in str(refused.value)


def test_the_models_name_may_be_spelt_out_as_what_it_already_is(
    api_server: Api, namespace: str
) -> None:
    place = ("--namespace", namespace, "-f", "-")
    api_server.kubectl("create", *place, stdin=json.dumps(named("explicit", None)))
    replaced = api_server.kubectl(
        "replace", *place, stdin=json.dumps(named("explicit", "explicit"))
    )
    assert "replaced" in replaced


@pytest.mark.parametrize("example", sorted(path.name for path in crd.EXAMPLES.glob("*.yaml")))
def test_every_example_is_accepted(api_server: Api, namespace: str, example: str) -> None:
    created = api_server.kubectl(
        *("create", "--dry-run=server", "--validate=strict", "--namespace", namespace),
        *("-f", str(crd.EXAMPLES / example)),
    )
    assert "created (server dry run)" in created


def test_a_name_that_is_refused_now_is_kept_by_the_one_that_has_it(
    api_server: Api, namespace: str
) -> None:
    """An earlier release took it, and its Service must not go."""
    place = ("--namespace", namespace, "-f", "-")
    version = yaml.safe_load(crd.CRD.read_text())
    rules = version["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["x-kubernetes-validations"]
    (rule,) = (rule for rule in rules if "-headless" in rule["message"])
    rules.remove(rule)
    replace = ("apply", "--server-side", "--force-conflicts", "-f")
    old = named("imagenet-headless", None)
    try:
        api_server.kubectl(*replace, "-", stdin=json.dumps(version))
        eventually(
            lambda: not is_refused(api_server, namespace, old),
            what="the older definition is in force",
        )
        api_server.kubectl("create", *place, stdin=json.dumps(old))
    finally:
        api_server.kubectl(*replace, str(crd.CRD))
    eventually(
        lambda: is_refused(api_server, namespace, named("other-headless", None)),
        what="the newer definition is in force",
    )
    old["spec"]["replicas"] = 3
    assert "replaced" in api_server.kubectl("replace", *place, stdin=json.dumps(old))


def is_refused(api: Api, namespace: str, made: Object) -> bool:
    try:
        posted(api, namespace, made)
    except RefusedError:
        return True
    return False
