"""The API server's JSON, as far as the operator reads it; the rest is dropped at the edge."""

from __future__ import annotations

import datetime  # noqa: TC003  msgspec reads the annotations
from typing import Any, Final

import msgspec

from inferencemodel_operator import bounds, names


class _Wire(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    pass


class Owner(_Wire, frozen=True):
    """One entry of ``ownerReferences``."""

    kind: str
    name: str
    uid: str
    api_version: str
    controller: bool = False

    @property
    def is_plausible(self) -> bool:
        """Whether an object can have this name and uid: the API server takes any text here."""
        return max(len(self.name), len(self.uid)) <= bounds.NAME


_GROUPS: Final = {names.KIND: names.GROUP, "Deployment": "apps", "ReplicaSet": "apps"}
"""Of the kinds that own others here."""


class FieldManager(_Wire, frozen=True):
    """One entry of ``managedFields``: who set which fields."""

    manager: str = ""
    operation: str = ""
    subresource: str = ""
    fields_v1: dict[str, Any] = msgspec.field(default={}, name="fieldsV1")


class Meta(_Wire, frozen=True):
    """``ObjectMeta`` of a namespaced object."""

    name: str
    namespace: str
    uid: str
    resource_version: str
    generation: int = 0
    creation_timestamp: str = ""
    deletion_timestamp: str | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    owner_references: tuple[Owner, ...] = ()
    managed_fields: tuple[FieldManager, ...] = ()
    finalizers: tuple[str, ...] = ()

    def controller(self, kind: str) -> str | None:
        """The uid of the controller owner, when that is of this kind."""
        owner = self.controller_reference(kind)
        return None if owner is None else owner.uid

    def controller_reference(self, kind: str) -> Owner | None:
        """The controller owner, when that is of this kind, and an object can be called so.

        Kinds of other API groups have the same names: there is another InferenceModel, too.
        """
        group = _GROUPS[kind]
        found = (o for o in self.owner_references if o.controller and o.kind == kind)
        found = (o for o in found if o.api_version.partition("/")[0] == group)
        return next((owner for owner in found if owner.is_plausible), None)

    @property
    def holds_replicas(self) -> bool:
        """Whether the operator has applied ``spec.replicas``."""
        return any(
            entry.manager == names.FIELD_MANAGER
            and entry.operation == "Apply"
            and "f:replicas" in entry.fields_v1.get("f:spec", ())
            for entry in self.managed_fields
        )


class RoutePath(_Wire, frozen=True):
    """``matches[].path`` of an HTTPRoute."""

    type: str = "PathPrefix"
    value: str = "/"


class Prefix(_Wire, frozen=True):
    """A path of an InterceptorRoute's rule."""

    value: str = ""


class RouteMatch(_Wire, frozen=True):
    """One of an HTTPRoute's matches."""

    path: RoutePath = RoutePath()


class IngressPath(_Wire, frozen=True):
    """One path of an Ingress."""

    path: str = ""
    path_type: str = ""


class IngressHttp(_Wire, frozen=True):
    """The paths of an Ingress' rule."""

    paths: tuple[IngressPath, ...] = ()


class Rule(_Wire, frozen=True):
    """A rule of an Ingress or of a route."""

    host: str = ""
    http: IngressHttp = IngressHttp()
    matches: tuple[RouteMatch, ...] = ()
    hosts: tuple[str, ...] = ()
    paths: tuple[Prefix, ...] = ()


class ParentRef(_Wire, frozen=True):
    """A Gateway of a route."""

    name: str
    group: str = "gateway.networking.k8s.io"
    kind: str = "Gateway"
    namespace: str | None = None
    section_name: str | None = None
    port: int | None = None


class RoutingSpec(_Wire, frozen=True):
    """``spec`` of an Ingress or a route, as far as it says which requests come there."""

    ingress_class_name: str | None = None
    rules: tuple[Rule, ...] = ()
    hostnames: tuple[str, ...] = ()
    parent_refs: tuple[ParentRef, ...] = ()


class RoutingMeta(_Wire, frozen=True):
    """Its ``metadata``."""

    annotations: dict[str, str] = {}


class Routing(_Wire, frozen=True):
    """An Ingress, HTTPRoute, GRPCRoute or InterceptorRoute."""

    metadata: RoutingMeta = RoutingMeta()
    spec: RoutingSpec = RoutingSpec()


class Condition(_Wire, frozen=True):
    """One of an object's conditions."""

    type: str
    status: str
    reason: str = ""
    message: str = ""
    last_transition_time: datetime.datetime | None = None


class Waiting(_Wire, frozen=True):
    """Why a container has not started yet."""

    reason: str = ""
    message: str = ""


class Terminated(_Wire, frozen=True):
    """How a container ended."""

    exit_code: int = 0
    reason: str = ""
    message: str = ""
    started_at: datetime.datetime | None = None
    finished_at: datetime.datetime | None = None


class Running(_Wire, frozen=True):
    """Since when a container runs."""

    started_at: datetime.datetime | None = None


class ContainerState(_Wire, frozen=True):
    """Where a container is; one of the three at most."""

    waiting: Waiting | None = None
    running: Running | None = None
    terminated: Terminated | None = None


class ContainerStatus(_Wire, frozen=True):
    """A container, as the kubelet tells of it."""

    name: str
    image: str = ""
    restart_count: int = 0
    state: ContainerState = ContainerState()
    last_state: ContainerState = ContainerState()


class PodStatus(_Wire, frozen=True):
    """A pod, as scheduler and kubelet tell of it."""

    phase: str = "Pending"
    reason: str = ""
    message: str = ""
    pod_ip: str | None = msgspec.field(default=None, name="podIP")
    conditions: tuple[Condition, ...] = ()
    container_statuses: tuple[ContainerStatus, ...] = ()
    init_container_statuses: tuple[ContainerStatus, ...] = ()


class Port(_Wire, frozen=True):
    """A port that a container declares."""

    container_port: int
    name: str = ""


class Container(_Wire, frozen=True):
    """A container, as the pod's spec asks for it."""

    name: str
    args: tuple[str, ...] = ()
    ports: tuple[Port, ...] = ()


class PodSpec(_Wire, frozen=True):
    """What a pod asks for."""

    node_name: str = ""
    init_containers: tuple[Container, ...] = ()


class LocalName(_Wire, frozen=True):
    """A reference to an object of the same namespace."""

    name: str = ""


class Key(_Wire, frozen=True):
    """A key of a Secret or ConfigMap."""

    name: str = ""
    key: str = ""


class ValueSource(_Wire, frozen=True):
    """Where a variable's value comes from."""

    secret_key_ref: Key | None = None
    config_map_key_ref: Key | None = None


class Variable(_Wire, frozen=True):
    """One environment variable."""

    name: str
    value_from: ValueSource | None = None


class Names(_Wire, frozen=True):
    """A Secret or ConfigMap, all of it or some of its keys."""

    secret: LocalName | None = None
    secret_ref: LocalName | None = None
    config_map: LocalName | None = None
    config_map_ref: LocalName | None = None


class Environment(_Wire, frozen=True):
    """A container, as far as its variables go."""

    name: str
    env: tuple[Variable, ...] = ()
    env_from: tuple[Names, ...] = ()


class ProjectedVolume(_Wire, frozen=True):
    """Files of several objects."""

    sources: tuple[Names, ...] = ()


class SecretVolume(_Wire, frozen=True):
    """A Secret as files."""

    secret_name: str = ""


class ClaimVolume(_Wire, frozen=True):
    """A PersistentVolumeClaim."""

    claim_name: str = ""


class EphemeralVolume(_Wire, frozen=True):
    """A claim that the pod gets of its own."""


class Volume(_Wire, frozen=True):
    """A volume, as far as it is another object's."""

    name: str
    secret: SecretVolume | None = None
    config_map: LocalName | None = None
    projected: ProjectedVolume | None = None
    persistent_volume_claim: ClaimVolume | None = None
    ephemeral: EphemeralVolume | None = None


class Needs(_Wire, frozen=True):
    """A pod's spec, as far as it names other objects."""

    init_containers: tuple[Environment, ...] = ()
    containers: tuple[Environment, ...] = ()
    volumes: tuple[Volume, ...] = ()
    image_pull_secrets: tuple[LocalName, ...] = ()


class Pod(_Wire, frozen=True):
    """A pod."""

    metadata: Meta
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()


class DeploymentStatus(_Wire, frozen=True):
    """A Deployment's own account of itself."""

    observed_generation: int = 0
    replicas: int = 0
    updated_replicas: int = 0
    available_replicas: int = 0
    conditions: tuple[Condition, ...] = ()

    def condition(self, kind: str) -> Condition | None:
        """One condition by its type."""
        return next((c for c in self.conditions if c.type == kind), None)


class DeploymentSpec(_Wire, frozen=True):
    """What a Deployment asks for."""

    replicas: int = 1


class Deployment(_Wire, frozen=True):
    """A Deployment."""

    metadata: Meta
    spec: DeploymentSpec = DeploymentSpec()
    status: DeploymentStatus = DeploymentStatus()


class Series(_Wire, frozen=True):
    """How often something has happened."""

    last_observed_time: datetime.datetime | None = None


class Event(_Wire, frozen=True):
    """An Event (events.k8s.io/v1)."""

    reason: str = ""
    note: str = ""
    event_time: datetime.datetime | None = None
    series: Series | None = None
    deprecated_last_timestamp: datetime.datetime | None = None


class Child(_Wire, frozen=True):
    """An object of which the metadata alone is read."""

    metadata: Meta
