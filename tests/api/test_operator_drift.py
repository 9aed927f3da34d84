"""What somebody changes of a child on a real API server is changed back, or told with a way out.

No operator runs: each edit is met by a fresh applier, as after a restart, so that nothing but the
objects themselves can tell it what to do.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from inferencemodel_operator import cluster, drift, names
from inferencemodel_operator.access import Access
from inferencemodel_operator.apply import Applier
from inferencemodel_operator.cache import Cache
from inferencemodel_operator.children import children
from inferencemodel_operator.cluster import CHILDREN, MODELS, Cluster
from inferencemodel_operator.errors import ConflictError, OperatorError, RefusedError
from inferencemodel_operator.observe import objects
from inferencemodel_operator.observe.offers import Offers
from inferencemodel_operator.record import VersionsRecord
from inferencemodel_operator.settings import Settings
from tests.support import crd, kinds

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from devcluster.client import Api
    from inferencemodel_operator.children.manifest import Manifest
    from tests.support.kubectl import Object

pytestmark = pytest.mark.api

SPEC: Object = {
    "model": {
        "storageUri": "gs://models/m",
        "warmup": {"configMap": {"name": "requests"}},
    },
    "source": {"secretRef": {"name": "key"}},
    "server": {
        "env": [{"name": "TF_CPP_MIN_LOG_LEVEL", "value": "1"}],
        "resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "2", "memory": "2Gi"}},
    },
    "autoscaling": {
        "minReplicas": 2,
        "maxReplicas": 4,
        "metrics": [
            {
                "type": "Resource",
                "resource": {
                    "name": "cpu",
                    "target": {"type": "Utilization", "averageUtilization": 60},
                },
            }
        ],
    },
    "ingress": {"host": "m.example.com", "tls": {"secretName": "tls"}},
    "gateway": {
        "parentRefs": [{"name": "public"}],
        "hostnames": ["m.example.com"],
        "grpcHostnames": ["grpc.example.com"],
    },
    "networkPolicy": {"enabled": True},
    "template": {
        "imagePullSecrets": [{"name": "registry"}],
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
    },
}
BY_REQUESTS: Object = {
    "model": {"storageUri": "gs://models/scaled"},
    "autoscaling": {
        "minReplicas": 0,
        "maxReplicas": 3,
        "keda": {
            "http": {"concurrency": 4, "requestRate": 50, "timeout": "90s"},
            "triggers": [
                {"type": "cron", "metadata": {"timezone": "Etc/UTC", "desiredReplicas": "2"}}
            ],
        },
    },
    "ingress": {"host": "scaled.example.com"},
}
"""With what those children are made for that exclude others of `SPEC`."""
_POD = ("spec", "template", "spec")
_SERVER = (*_POD, "containers", 0)
_POLLER = (*_POD, "initContainers", 0)
SIDECAR: Object = {"name": "proxy", "image": "mesh/proxy:1"}
Edit = list[dict[str, Any]]
"""Operations of a JSON patch."""


def _set(*path: str | int, value: Any) -> Edit:
    pointer = "/" + "/".join(str(p).replace("~", "~0").replace("/", "~1") for p in path)
    return [{"op": "add", "path": pointer, "value": value}]


def _drop(*path: str | int) -> Edit:
    return [{**operation, "op": "remove"} for operation in _set(*path, value=None)]


BY_HAND: dict[str, list[Edit]] = {
    "Service": [
        _set("spec", "sessionAffinity", value="ClientIP"),
        _set("spec", "publishNotReadyAddresses", value=True),
        _set("spec", "externalIPs", value=["203.0.113.7"]),
        _set("spec", "type", value="NodePort"),
        _set("spec", "type", value="LoadBalancer"),
        [
            *_set("spec", "type", value="LoadBalancer"),
            *_set("spec", "loadBalancerSourceRanges", value=["192.0.2.0/24"]),
            *_set("spec", "externalTrafficPolicy", value="Local"),
        ],
        [
            *_set("spec", "type", value="ExternalName"),
            *_set("spec", "externalName", value="elsewhere.example.com"),
        ],
        _set("spec", "internalTrafficPolicy", value="Local"),
        _set("spec", "trafficDistribution", value="PreferClose"),
        _set("spec", "ports", value=[{"name": "http", "port": 80, "targetPort": 1}]),
        _set("spec", "ports", "-", value={"name": "metrics", "port": 9090}),
        _drop("spec", "selector"),
        _set("spec", "selector", "team", value="vision"),
    ],
    "Deployment": [
        _set("spec", "paused", value=True),
        _set("spec", "strategy", value={"type": "Recreate"}),
        _set(*_POD, "hostNetwork", value=True),
        _set(*_POD, "hostAliases", value=[{"ip": "127.0.0.1", "hostnames": ["a"]}]),
        _set(*_POD, "schedulerName", value="another"),
        _set(*_POD, "affinity", value={"nodeAffinity": {}}),
        _set(*_POD, "priorityClassName", value="high"),
        _set(*_POD, "runtimeClassName", value="gvisor"),
        _set(*_POD, "serviceAccountName", value="another"),
        _set(*_POD, "dnsPolicy", value="Default"),
        _set(*_POD, "shareProcessNamespace", value=True),
        _set(*_POD, "tolerations", "-", value={"operator": "Exists"}),
        _set(*_POD, "imagePullSecrets", "-", value={"name": "another"}),
        _set(*_POD, "imagePullSecrets", 0, "name", value="another"),
        _set(*_POD, "securityContext", "supplementalGroups", value=[7]),
        _set(*_POD, "topologySpreadConstraints", 0, "topologyKey", value="rack"),
        _set(*_POD, "volumes", 0, value={"name": "models", "hostPath": {"path": "/srv"}}),
        _set(*_POD, "volumes", 0, value={"name": "models", "emptyDir": {"medium": "Memory"}}),
        [
            *_set(*_POD, "volumes", 1, "name", value="other"),
            *_set(*_SERVER, "volumeMounts", 1, "name", value="other"),
            *_set(*_POLLER, "volumeMounts", 1, "name", value="other"),
        ],
        _set(*_SERVER, "name", value="renamed"),
        _set(*_POLLER, "name", value="renamed"),
        _set(*_SERVER, "image", value="theirs:1"),
        _set(*_SERVER, "ports", 0, "containerPort", value=9000),
        _set(*_SERVER, "ports", 0, "protocol", value="UDP"),
        _set(*_SERVER, "ports", "-", value={"containerPort": 9000, "name": "more"}),
        _set(*_SERVER, "env", 0, "name", value="RENAMED"),
        _set(*_SERVER, "env", "-", value={"name": "LD_PRELOAD", "value": "/x.so"}),
        _set(
            *(*_SERVER, "env", 0),
            value={
                "name": "TF_CPP_MIN_LOG_LEVEL",
                "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}},
            },
        ),
        _set(*_SERVER, "env", value=[{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]),
        _set(*_SERVER, "envFrom", value=[{"configMapRef": {"name": "x", "optional": True}}]),
        _set(*_SERVER, "volumeMounts", 0, "mountPath", value="/elsewhere"),
        _set(*_SERVER, "volumeMounts", 0, "subPath", value="below"),
        _set(*_SERVER, "volumeMounts", "-", value={"name": "tmp", "mountPath": "/more"}),
        _set(*_SERVER, "livenessProbe", value={"exec": {"command": ["true"]}}),
        _set(*_SERVER, "readinessProbe", value={"tcpSocket": {"port": 1}}),
        _set(*_SERVER, "lifecycle", value={"preStop": {"exec": {"command": ["true"]}}}),
        _set(*_SERVER, "lifecycle", "postStart", value={"exec": {"command": ["true"]}}),
        _set(*_SERVER, "securityContext", value={"privileged": True}),
        _set(*_SERVER, "resources", value={"limits": {"example.com/gpu": "1"}}),
        _set(*_SERVER, "args", "-", value="--enable_profiler=true"),
        _set(*_SERVER, "workingDir", value="/srv"),
        _set(*_SERVER, "terminationMessagePolicy", value="FallbackToLogsOnError"),
        _set(*_POD, "initContainers", 0, "env", 0, value={"name": "TARGET_VERSION", "value": "7"}),
        [
            *_set(*_POD, "containers", value=[SIDECAR]),
            *_set(*_POD, "initContainers", value=[]),
        ],
    ],
    "Ingress": [
        _set("spec", "defaultBackend", value={"resource": {"kind": "Bucket", "name": "b"}}),
        _set("spec", "rules", 0, "host", value="theirs.example.com"),
        _set("spec", "rules", "-", value={"host": "more.example.com"}),
        _set("spec", "tls", "-", value={"hosts": ["more.example.com"]}),
        _set("spec", "rules", 0, "http", "paths", 0, "path", value="/theirs"),
        _drop("spec", "tls"),
    ],
    "PodDisruptionBudget": [
        [*_drop("spec", "maxUnavailable"), *_set("spec", "minAvailable", value=1)],
        _drop("spec", "maxUnavailable"),
        _set("spec", "unhealthyPodEvictionPolicy", value="IfHealthyBudget"),
        _set("spec", "selector", "matchLabels", "team", value="vision"),
    ],
    "HorizontalPodAutoscaler": [
        _set("spec", "behavior", value={"scaleDown": {"selectPolicy": "Disabled"}}),
        _set("spec", "scaleTargetRef", "name", value="another"),
        _drop("spec", "metrics"),
    ],
    "NetworkPolicy": [
        [
            *_set("spec", "egress", value=[]),
            *_set("spec", "policyTypes", value=["Ingress", "Egress"]),
        ],
        _set("spec", "egress", value=[{}]),
        _set("spec", "ingress", value=[{}]),
        _set("spec", "ingress", 0, "ports", 0, "port", value=1),
        _set("spec", "ingress", 0, "ports", 0, "endPort", value=9000),
        _set("spec", "podSelector", value={}),
    ],
    "ConfigMap": [
        _set("immutable", value=True),
        [*_set("immutable", value=True), *_set("data", "target-version", value="7")],
        _set("binaryData", value={"more": "AAAA"}),
        _set("data", "more", value="text"),
        _drop("data"),
    ],
    "HTTPRoute": [
        _set("spec", "parentRefs", 0, "name", value="another"),
        _set("spec", "parentRefs", "-", value={"name": "another"}),
        _set("spec", "hostnames", "-", value="more.example.com"),
        _set("spec", "rules", 0, "timeouts", value={"request": "1s"}),
        _set("spec", "rules", "-", value={}),
        _set("spec", "rules", 0, "backendRefs", 0, "weight", value=0),
        _drop("spec", "rules"),
    ],
    "GRPCRoute": [
        _set("spec", "rules", 0, "backendRefs", 0, "port", value=1),
        _drop("spec", "hostnames"),
    ],
    "ScaledObject": [
        _set("spec", "advanced", value={"restoreToOriginalReplicaCount": True}),
        _set("spec", "fallback", value={"failureThreshold": 3, "replicas": 6}),
        _set("spec", "pollingInterval", value=1),
        _set("spec", "scaleTargetRef", "name", value="another"),
        _set("spec", "triggers", "-", value={"type": "cpu", "metadata": {"value": "50"}}),
        _drop("spec", "triggers"),
    ],
    "InterceptorRoute": [
        _set("spec", "target", "service", value="another"),
        _set("spec", "rules", "-", value={"hosts": ["more.example.com"]}),
        _set("spec", "coldStart", value={"fallback": {"service": "another", "port": 80}}),
        _drop("spec", "timeouts"),
        _drop("spec", "scalingMetric", "concurrency"),
    ],
}
"""Edits that no walk over what is there finds: fields that nothing asks for, one of several that
exclude each other, and what belongs together."""


_SCALED = ("ScaledObject", "InterceptorRoute")


@pytest.fixture(scope="module")
def namespace(api_server: Api) -> Iterator[str]:
    with crd.installed(api_server) as made, kinds.installed(api_server):
        yield made


class Child:
    """One child, and the hands of somebody who edits it."""

    def __init__(self, api: Cluster, owner: objects.Model, wanted: Manifest) -> None:
        self.api, self.owner, self.wanted = api, owner, wanted
        self.resource = CHILDREN[wanted["kind"]]
        self.name: str = wanted["metadata"]["name"]

    async def live(self) -> Object | None:
        return await self.api.get(self.resource, self.owner.key[0], self.name)

    async def content(self) -> Object:
        """The object without what changes with every write."""
        live = await self.live()
        assert live is not None
        return objects.child(self.resource.kind, live).content_object()

    async def bring(self) -> None:
        """Bring it to what is wanted, as an operator that has just started would."""
        offers = Offers(self.api)
        await offers.refresh()
        for _ in range(5):
            cache = Cache()
            live = await self.live()
            if live is not None:
                cache.put(self.resource, live)
            try:
                written = await Applier(self.api, cache, offers).ensure(self.owner, self.wanted)
            except ConflictError:
                # A controller has written it meanwhile.
                continue
            if not written:
                return
        raise AssertionError("it is written again and again")

    async def edit(self, edit: Edit) -> bool:
        """What `kubectl edit` does; whether the API server has taken it as a change."""
        before = await self.content()
        path = self.resource.path(self.owner.key[0], self.name)
        target = self.resource.target("edit", self.owner.key[0], self.name)
        try:
            await self.api._json(
                "PATCH",
                path,
                target,
                query={"fieldManager": "kubectl-edit"},
                body=edit,
                content_type="application/json-patch+json",
            )
        except OperatorError:
            return False
        return await self.content() != before

    async def refusal(self) -> str:
        """Bring it to what is wanted; why that was refused, if it was."""
        try:
            await self.bring()
        except RefusedError as refusal:
            return str(refusal)
        return ""

    async def recreate(self) -> None:
        live = await self.live()
        if live is not None:
            uid = live["metadata"]["uid"]
            await self.api.delete(self.resource, self.owner.key[0], self.name, uid=uid)
        await self.bring()


@asynccontextmanager
async def all_children(api: Api, namespace: str, kind: str) -> AsyncIterator[list[Child]]:
    access = Access(api.kubeconfig)
    async with (
        cluster.connect(access, watches=0) as pool,
        cluster.session(pool, access) as session,
    ):
        server = Cluster(access, session)
        name, spec = ("m", SPEC) if kind not in _SCALED else ("scaled", BY_REQUESTS)
        model = {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            "metadata": {"name": name, "namespace": namespace},
            "spec": spec,
        }
        found = await server.get(MODELS, namespace, name) or await server.create(MODELS, model)
        owner = objects.model(found)
        assert owner.model is not None
        wanted = children(owner.model, VersionsRecord(target=1), Settings())
        yield [Child(server, owner, child) for child in wanted if child["kind"] == kind]


def leaves(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[Edit]:
    """Each field changed, each field and item removed, one more item in each list."""
    if path:
        yield _drop(*path)
    if isinstance(value, dict):
        yield _set(*path, "more", value="text")
        for name, below in value.items():
            yield from leaves(below, (*path, name))
    elif isinstance(value, list):
        if value:
            yield _set(*path, "-", value=other(value[0]))
            yield _set(*path, 0, value=other(value[0]))
            yield _set(*path, value=[])
        for index, item in enumerate(value):
            yield from leaves(item, (*path, index))
    elif path:
        yield _set(*path, value=other(value))


def other(value: Any) -> Any:
    """The same shape with other content."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, str):
        return ALTERNATIVES.get(value, f"{value}x")
    if isinstance(value, dict) and value:
        first, *_ = value
        return {**value, first: other(value[first])}
    return value


ALTERNATIVES = {
    "TCP": "UDP",
    "ClusterIP": "NodePort",
    "RollingUpdate": "Recreate",
    "IfNotPresent": "Always",
    "ScheduleAnyway": "DoNotSchedule",
    "HTTP": "HTTPS",
    "Prefix": "ImplementationSpecific",
    "Exact": "Prefix",
    "AlwaysAllow": "IfHealthyBudget",
    "Exists": "Equal",
    "Ingress": "Egress",
    "RuntimeDefault": "Unconfined",
    "ClusterFirst": "Default",
    "1": "2",
    "2Gi": "3Gi",
    "25%": "50%",
}


@pytest.mark.parametrize("kind", [*BY_HAND])
async def test_every_edit_of_a_child_is_undone_or_told_with_a_command(
    api_server: Api, namespace: str, kind: str
) -> None:
    async with all_children(api_server, namespace, kind) as found:
        for child in found:
            await child.recreate()
            before = await child.content()
            undone, wrong = 0, []
            for edit in [*leaves(drift.fields(before)), *BY_HAND[kind]]:
                if not await child.edit(edit):
                    continue
                told = await child.refusal()
                after = await child.content()
                if after == before:
                    undone += 1
                    continue
                left = [found for found in differences(before, after) if not _is_theirs(found)]
                if left and f"`kubectl --namespace={namespace} delete " not in told:
                    wrong.append(f"{edit}: {told or left}")
                await child.recreate()
                before = await child.content()
            assert not wrong, "\n".join(wrong)
            assert undone > 5


_THEIRS = (
    ".spec.template.metadata.annotations.more",
    ".spec.template.metadata.labels.more",
    # An autoscaler's.
    ".spec.replicas",
    # Of a Service that was none for a while.
    ".spec.clusterIP",
)


def _is_theirs(difference: str) -> bool:
    return difference.startswith(_THEIRS)


@pytest.mark.parametrize("kind", [*BY_HAND])
async def test_labels_annotations_and_the_owner_come_back_and_what_others_add_to_them_stays(
    api_server: Api, namespace: str, kind: str
) -> None:
    async with all_children(api_server, namespace, kind) as found:
        for child in found:
            await child.recreate()
            before = await child.content()
            owner = before["metadata"]["ownerReferences"][0]
            for edit in (
                *(_drop("metadata", "labels", label) for label in before["metadata"]["labels"]),
                *(_set("metadata", "labels", x, value="y") for x in before["metadata"]["labels"]),
                _drop("metadata", "labels"),
                _drop("metadata", "annotations"),
                _set("metadata", "annotations", names.DESIRED_HASH_ANNOTATION, value="0"),
                _drop("metadata", "ownerReferences"),
                _set("metadata", "ownerReferences", value=[]),
                _set("metadata", "ownerReferences", value=[{**owner, "controller": False}]),
                _set("metadata", "ownerReferences", value=[{**owner, "name": "another"}]),
                _set("metadata", "ownerReferences", 0, "blockOwnerDeletion", value=False),
            ):
                assert await child.edit(edit), edit
                await child.bring()
                assert await child.content() == before, edit

            node = {"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "1"}
            theirs = [
                *_set("metadata", "labels", "team", value="vision"),
                *_set("metadata", "annotations", "mesh.example.com/inject", value="true"),
                *_set("metadata", "finalizers", value=["example.com/later"]),
                *_set("metadata", "ownerReferences", "-", value=node),
            ]
            assert await child.edit(theirs)
            edited = await child.content()
            await child.bring()
            assert await child.content() == edited
            assert await child.edit(_drop("metadata", "finalizers"))


async def test_an_injected_sidecar_stays_whatever_else_is_undone(
    api_server: Api, namespace: str
) -> None:
    async with all_children(api_server, namespace, "Deployment") as (child,):
        await child.recreate()
        injected = [
            *_set(*_POD, "containers", 0, value={"name": "proxy", "image": "mesh/proxy:1"}),
            *_set(*_POD, "volumes", "-", value={"name": "certificates", "emptyDir": {}}),
            *_set(
                *(*_POD, "containers", 1, "volumeMounts", "-"),
                value={"name": "certificates", "mountPath": "/etc/certificates"},
            ),
            *_set("spec", "template", "metadata", "annotations", "injected", value="true"),
        ]
        assert await child.edit(injected)
        with_sidecar = await child.content()
        await child.bring()
        assert await child.content() == with_sidecar

        server = (*_POD, "containers", 1)
        for edit in (
            _set(*server, "image", value="theirs:1"),
            _set(*server, "ports", 0, "containerPort", value=9000),
            _set(*server, "env", 0, "name", value="RENAMED"),
            _set(*server, "volumeMounts", 0, "mountPath", value="/elsewhere"),
            _set("spec", "paused", value=True),
        ):
            assert await child.edit(edit)
            await child.bring()
            assert await child.content() == with_sidecar, edit


async def test_an_edited_port_is_undone_where_nobody_knows_any_more_who_has_set_what(
    api_server: Api, namespace: str
) -> None:
    async with all_children(api_server, namespace, "Service") as found:
        for child in found:
            await child.recreate()
            before = await child.content()
            wiped = _set("metadata", "managedFields", value=[{}])
            assert await child.edit([*_set("spec", "ports", 0, "port", value=80), *wiped])
            await child.bring()
            assert await child.content() == before


def differences(one: Any, two: Any, path: str = "") -> list[str]:
    if isinstance(one, dict) and isinstance(two, dict):
        return [
            found
            for name in sorted({*one, *two})
            for found in differences(one.get(name), two.get(name), f"{path}.{name}")
        ]
    return [] if one == two else [f"{path}: {one!r} became {two!r}"]
