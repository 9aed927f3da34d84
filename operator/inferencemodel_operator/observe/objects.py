"""The parts of watched objects that the operator looks at; the rest is dropped at the edge."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

import msgspec
import orjson

from inferencemodel_operator import names, spec
from inferencemodel_operator.cluster import DEPLOYMENTS
from inferencemodel_operator.errors import InvalidModelError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Key = tuple[str, str]
"""Namespace and name of an InferenceModel."""


class _Wire(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    pass


class _Owner(_Wire, frozen=True):
    kind: str
    name: str
    uid: str
    api_version: str
    controller: bool = False


class _FieldManager(_Wire, frozen=True):
    manager: str = ""
    operation: str = ""
    fields_v1: dict[str, Any] = msgspec.field(default={}, name="fieldsV1")


class _Meta(_Wire, frozen=True):
    name: str
    namespace: str
    uid: str
    resource_version: str
    generation: int = 0
    deletion_timestamp: str | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    owner_references: tuple[_Owner, ...] = ()
    managed_fields: tuple[_FieldManager, ...] = ()

    @property
    def holds_replicas(self) -> bool:
        """Whether the operator has applied ``spec.replicas``."""
        return any(
            entry.manager == names.FIELD_MANAGER
            and entry.operation == "Apply"
            and "f:replicas" in entry.fields_v1.get("f:spec", ())
            for entry in self.managed_fields
        )


class _Condition(_Wire, frozen=True):
    type: str
    status: str
    reason: str = ""
    message: str = ""


class _Waiting(_Wire, frozen=True):
    reason: str = ""
    message: str = ""


class _Terminated(_Wire, frozen=True):
    exit_code: int = 0
    reason: str = ""


class _ContainerState(_Wire, frozen=True):
    waiting: _Waiting | None = None
    running: dict[str, Any] | None = None
    terminated: _Terminated | None = None


class _ContainerStatus(_Wire, frozen=True):
    name: str
    image: str = ""
    restart_count: int = 0
    state: _ContainerState = _ContainerState()
    last_state: _ContainerState = _ContainerState()


class _PodStatus(_Wire, frozen=True):
    phase: str = "Pending"
    pod_ip: str | None = msgspec.field(default=None, name="podIP")
    conditions: tuple[_Condition, ...] = ()
    container_statuses: tuple[_ContainerStatus, ...] = ()
    init_container_statuses: tuple[_ContainerStatus, ...] = ()


class _Port(_Wire, frozen=True):
    container_port: int
    name: str = ""


class _Container(_Wire, frozen=True):
    name: str
    ports: tuple[_Port, ...] = ()


class _PodSpec(_Wire, frozen=True):
    init_containers: tuple[_Container, ...] = ()


class _Pod(_Wire, frozen=True):
    metadata: _Meta
    spec: _PodSpec = _PodSpec()
    status: _PodStatus = _PodStatus()


class DeploymentStatus(_Wire, frozen=True):
    """A Deployment's own account of itself."""

    observed_generation: int = 0
    replicas: int = 0
    updated_replicas: int = 0
    conditions: tuple[_Condition, ...] = ()

    def condition(self, kind: str) -> _Condition | None:
        """One condition by its type."""
        return next((c for c in self.conditions if c.type == kind), None)


class Deployment(msgspec.Struct, frozen=True):
    """What is looked at of a Deployment alone."""

    status: DeploymentStatus
    replicas: int
    """How many pods are wanted, whoever wants them."""
    holds_replicas: bool
    """Whether the operator is among those who do."""


class _DeploymentSpec(_Wire, frozen=True):
    replicas: int = 1


class _Deployment(_Wire, frozen=True):
    metadata: _Meta
    spec: _DeploymentSpec = _DeploymentSpec()
    status: DeploymentStatus = DeploymentStatus()


class _Child(_Wire, frozen=True):
    metadata: _Meta


class Trouble(StrEnum):
    """Why a pod does not come up, as far as Kubernetes tells."""

    UNSCHEDULABLE = "Unschedulable"
    IMAGE_PULL_FAILED = "ImagePullFailed"
    CONTAINER_CONFIG_FAILED = "ContainerConfigFailed"
    POLLER_CRASHED = "PollerCrashed"
    SERVER_CRASHED = "ServerCrashed"


CRASHES: Final = 3
"""Restarts of a container that never got well after which it counts as crashing."""


class Pod(msgspec.Struct, frozen=True, kw_only=True):
    """One pod of an InferenceModel."""

    key: Key
    namespace: str
    name: str
    uid: str
    resource_version: int
    ip: str | None
    ready: bool
    terminating: bool
    """Deleted, or at its end; it counts for nothing any more."""
    poller_port: int
    poller_running: bool
    server_restarts: int
    target: str | None
    """The annotation's text."""
    template: str
    """Hash of the pod template that it was made from."""
    storage_uri: str | None
    """Where its poller brings versions from; None when the pod does not say."""
    trouble: Trouble | None
    message: str
    """About the trouble: stable while the trouble lasts, with what to do."""


class Child(msgspec.Struct, frozen=True, kw_only=True):
    """One object that carries the operator's label."""

    key: Key | None
    kind: str
    namespace: str
    name: str
    uid: str
    resource_version: int
    generation: int
    terminating: bool
    owner_uid: str | None
    """Of the controller owner, when that is an InferenceModel."""
    content: bytes
    """The object's JSON without status and field managers, as compact as it gets."""
    deployment: Deployment | None
    """Of a Deployment alone."""

    def content_object(self) -> dict[str, Any]:
        """The content, decoded."""
        decoded: dict[str, Any] = orjson.loads(self.content)
        return decoded


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """One InferenceModel, with the status that it has in the cluster."""

    key: Key
    uid: str
    resource_version: int
    generation: int
    terminating: bool
    model: spec.InferenceModel | None
    """None when the operator can't understand it."""
    problem: InvalidModelError | None
    status: bytes
    """The live status' JSON."""

    def status_object(self) -> dict[str, Any]:
        """The live status, decoded."""
        decoded: dict[str, Any] = orjson.loads(self.status)
        return decoded


def model(obj: Mapping[str, Any]) -> Model:
    """Read an InferenceModel."""
    meta = msgspec.convert(obj["metadata"], _Meta)
    typed: spec.InferenceModel | None = None
    problem: InvalidModelError | None = None
    try:
        typed = spec.decode(obj)
    except InvalidModelError as error:
        problem = error
    return Model(
        key=(meta.namespace, meta.name),
        uid=meta.uid,
        resource_version=version(meta.resource_version),
        generation=meta.generation,
        terminating=meta.deletion_timestamp is not None,
        model=typed,
        problem=problem,
        status=_compact(obj.get("status") or {}),
    )


def child(kind: str, obj: Mapping[str, Any]) -> Child:
    """Read an object of one of the kinds that children have."""
    deployment = None
    if kind == DEPLOYMENTS.kind:
        wire = msgspec.convert(obj, _Deployment)
        meta = wire.metadata
        deployment = Deployment(wire.status, wire.spec.replicas, meta.holds_replicas)
    else:
        meta = msgspec.convert(obj, _Child).metadata
    owner = next((o for o in meta.owner_references if o.controller and o.kind == names.KIND), None)
    name = owner.name if owner else meta.labels.get(names.MODEL_LABEL)
    kept = {field: value for field, value in obj.items() if field != "status"}
    kept["metadata"] = {
        field: value
        for field, value in obj["metadata"].items()
        if field not in ("managedFields", "resourceVersion", "generation", "creationTimestamp")
    }
    return Child(
        key=(meta.namespace, name) if name else None,
        kind=kind,
        namespace=meta.namespace,
        name=meta.name,
        uid=meta.uid,
        resource_version=version(meta.resource_version),
        generation=meta.generation,
        terminating=meta.deletion_timestamp is not None,
        owner_uid=owner.uid if owner else None,
        content=_compact(kept),
        deployment=deployment,
    )


def _compact(value: object) -> bytes:
    # orjson leaves its result in a buffer of a power of two, at least a kilobyte.
    return msgspec.json.encode(value, order="deterministic")


def pod(obj: Mapping[str, Any]) -> Pod | None:
    """Read a pod; None when it belongs to no InferenceModel."""
    wire = msgspec.convert(obj, _Pod)
    meta, status = wire.metadata, wire.status
    name = meta.labels.get(names.MODEL_LABEL)
    if name is None:
        return None
    ready = any(c.type == "Ready" and c.status == "True" for c in status.conditions)
    poller = _container(status.init_container_statuses, names.POLLER_CONTAINER)
    server = _container(status.container_statuses, names.SERVER_CONTAINER)
    trouble, message = (None, "") if ready else _trouble(status, poller, server)
    return Pod(
        key=(meta.namespace, name),
        namespace=meta.namespace,
        name=meta.name,
        uid=meta.uid,
        resource_version=version(meta.resource_version),
        ip=status.pod_ip,
        poller_port=_port(wire.spec),
        ready=ready,
        terminating=meta.deletion_timestamp is not None or status.phase in ("Succeeded", "Failed"),
        poller_running=poller.state.running is not None if poller else status.phase == "Running",
        server_restarts=server.restart_count if server else 0,
        target=meta.annotations.get(names.TARGET_VERSION_ANNOTATION),
        template=meta.labels.get("pod-template-hash", ""),
        storage_uri=meta.annotations.get(names.STORAGE_URI_ANNOTATION),
        trouble=trouble,
        message=message,
    )


def _port(pod: _PodSpec) -> int:
    """A pod that another release has made may listen elsewhere; it says so itself."""
    for container in pod.init_containers:
        for port in container.ports:
            if (container.name, port.name) == (names.POLLER_CONTAINER, names.POLLER_CONTAINER):
                return port.container_port
    return names.POLLER_PORT


def version(text: str) -> int:
    """A resourceVersion as a number: comparable within a resource, since Kubernetes 1.35 by
    promise and before by practice (KEP-5504)."""
    return int(text)


def _container(statuses: Iterable[_ContainerStatus], name: str) -> _ContainerStatus | None:
    return next((status for status in statuses if status.name == name), None)


_PULL_FAILED: Final = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"}
)
_CONFIG_FAILED: Final = frozenset(
    {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
)
_UNNAMED: Final = re.compile(r"\d+/\d+ nodes are available: ")


def _trouble(
    status: _PodStatus, poller: _ContainerStatus | None, server: _ContainerStatus | None
) -> tuple[Trouble | None, str]:
    scheduled = next((c for c in status.conditions if c.type == "PodScheduled"), None)
    if scheduled is not None and scheduled.reason == "Unschedulable":
        return Trouble.UNSCHEDULABLE, (
            f"no node takes the pod: {_UNNAMED.sub('', scheduled.message)} "
            "Add nodes, or ask for less in spec.server.resources or spec.template"
        )
    for container in (poller, server):
        waiting = container.state.waiting if container else None
        if container is None or waiting is None:
            continue
        if waiting.reason in _PULL_FAILED:
            return Trouble.IMAGE_PULL_FAILED, (
                f"the image {container.image} of container {container.name} can't be pulled; "
                "check its name and tag, and that the nodes may pull it"
            )
        if waiting.reason in _CONFIG_FAILED:
            return Trouble.CONTAINER_CONFIG_FAILED, (
                f"container {container.name} can't be started: {waiting.message or waiting.reason}"
            )
    for container, trouble in (
        (server, Trouble.SERVER_CRASHED),
        (poller, Trouble.POLLER_CRASHED),
    ):
        if container is not None and container.restart_count >= CRASHES:
            return trouble, _crash(container)
    return None, ""


def _crash(container: _ContainerStatus) -> str:
    ended = container.last_state.terminated or container.state.terminated
    if ended is not None and ended.reason == "OOMKilled":
        what = "was killed for using more memory than its limit"
        fix = "raise spec.server.resources.limits.memory"
    else:
        what = f"ended with exit code {ended.exit_code}" if ended else "ended"
        fix = f"read why with `kubectl logs POD --container {container.name} --previous`"
    return f"container {container.name} {what}, again and again; {fix}"
