"""What the operator knows of watched objects: one small value for each, and who reads it.

`wire` mirrors the API server's JSON, `troubles` says why a pod does not come up.
"""

from __future__ import annotations

import datetime
import hashlib
import sys
from typing import TYPE_CHECKING, Any, Final

import msgspec
import orjson

from inferencemodel_operator import bounds, drift, managed_fields, names, spec, store
from inferencemodel_operator import status as resource_status
from inferencemodel_operator.cluster import DEPLOYMENTS, REPLICA_SETS
from inferencemodel_operator.errors import InvalidModelError
from inferencemodel_operator.observe import deflating, disruptions, troubles, wire

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from inferencemodel_operator.drift import Foreign
    from inferencemodel_operator.observe.disruptions import Disruption
    from inferencemodel_operator.observe.references import Reference

Key = tuple[str, str]
"""Namespace and name of an InferenceModel."""

LARGEST_CONTENT: Final = 2**18
"""Bytes of a child's JSON. The largest that the operator writes is the record of 64 quarantined
versions, each with a message of a kilobyte: a third of it."""
FINALIZERS: Final = 8
"""So many of them are told of."""
_NO_CONTENT: Final = b'{"metadata":{}}'
_DIGEST: Final = b'{"digest":'
_ASSIGNED: Final = frozenset({*names.ASSIGNMENT_ANNOTATIONS, names.ROLLOUT_ANNOTATION})
_STORAGE_URI: Final = "--storage-uri="
_NAMING: Final = (names.MODEL_LABEL, names.REHEARSAL_LABEL)


class Deployment(msgspec.Struct, frozen=True):
    """What is looked at of a Deployment alone."""

    status: wire.DeploymentStatus
    replicas: int
    """How many pods are wanted, whoever wants them."""
    holds_replicas: bool
    """Whether the operator is among those who do."""
    revision: str
    """Of the present pod template, counted by the Deployment's controller."""
    generation: int = 0
    pod_spec_hash: str = ""
    """Of what the InferenceModel's spec asked of the pods; empty by a release that wrote none."""
    template_hash: str = ""
    """Of the pod template that was last applied; empty by a release that wrote none."""
    template_update: str | None = None
    """The mark that the operator changed the pod template by itself."""

    spec_hash: int = 0
    """Of all of its spec; for comparisons within this process."""
    since: int | None = None
    """The first generation that is known to have had the same spec; None for this one."""

    @property
    def is_fresh(self) -> bool:
        """Whether the status is about the present spec.

        A Deployment's generation counts annotations as well, whoever writes them
        (pkg/registry/apps/deployment/strategy.go): they make nothing untrue that was said before.
        """
        first = self.generation if self.since is None else self.since
        return self.status.observed_generation >= first

    def after(self, before: Deployment) -> Deployment:
        """The same, with what is known from an earlier view of it."""
        if self.spec_hash != before.spec_hash:
            return self
        return msgspec.structs.replace(self, since=before.since)


class ReplicaSet(msgspec.Struct, frozen=True, kw_only=True):
    """The link between a pod and its Deployment; no more is known of it."""

    key: Key
    namespace: str
    name: str
    uid: str
    resource_version: int
    owner_uid: str | None
    """Of the Deployment that controls it."""
    revision: str
    """Of the Deployment's pod template that its pods are made from."""


class Rehearsing(msgspec.Struct, frozen=True):
    """What is looked at of a pod that rehearses a version alone."""

    created: datetime.datetime
    unscheduled: datetime.datetime | None
    """Since when no node takes it."""
    deleted: bool
    """Whether it has been asked to go."""


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
    """Deleted, or at its end: no replica any more, but it may still answer."""
    poller_port: int
    poller_running: bool
    server_restarts: int
    node: str = ""
    """The name of its node; empty while it has none."""
    assignment: dict[str, str]
    """Those annotations that tell its poller what to serve."""
    attempt: int = 0
    """How often it was told again what to serve."""
    template: str
    """Hash of the pod template that it was made from."""
    owner_uid: str | None = None
    """Of the ReplicaSet that controls it; of the InferenceModel where it rehearses a version."""
    storage_uri: str | None
    """Where its poller brings versions from; None when the pod does not say."""
    store: str = ""
    """Which server it asks for them; empty when the pod does not say."""
    trouble: troubles.Trouble | None
    message: str
    """About the trouble: stable while the trouble lasts, with what to do."""
    is_hanging: bool = False
    """It has a node, and nothing in its status says why it does not start."""
    behind_poller: str = ""
    """A container beside the operator's that starts only when the poller is done, if one waits."""
    needs: tuple[Reference, ...] = ()
    """What it can't start without; of a pod that hangs alone."""
    disruption: Disruption | None = None
    """Why it was taken away, or is being."""
    rehearsing: Rehearsing | None = None
    """Of one that rehearses a version; it is no replica."""


class Origin(msgspec.Struct, frozen=True):
    """What tells whose an object is that names no InferenceModel as its controller."""

    controlled: bool
    """It has another controller."""
    owners: tuple[str, ...]
    """The uids of the first few owners."""
    desired_hash: str
    """Of what the operator last applied to it; empty where it never did."""
    managed: bool
    """It has the operator's label."""


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
    """The object's JSON without status and field managers, deflated; equal where that is equal.
    Of one that no InferenceModel asks for nothing but its identity is known, and of one that is
    too large to be the operator's own doing, or of which others have set too much, no more than a
    digest: what it says is not worth the memory."""
    foreign: tuple[Foreign, ...]
    """Which fields others have set, where the content is known."""
    origin: Origin | None
    """Of an object whose controller is no InferenceModel."""
    deployment: Deployment | None
    """Of a Deployment alone."""
    created: str = ""
    """When (RFC 3339, UTC, whole seconds)."""
    is_unapplied: bool = False
    """Whether the operator has created it, and applied nothing to it since."""

    def content_object(self) -> dict[str, Any]:
        """The content, decoded."""
        whole = self.is_whole
        text = deflating.inflate(self.kind, self.content) if whole else self.content
        decoded: dict[str, Any] = orjson.loads(text)
        return decoded

    @property
    def is_whole(self) -> bool:
        """Whether all of its content is known."""
        return _is_whole(self.content)

    @property
    def is_too_large(self) -> bool:
        """Whether no more than a digest of it is known."""
        return self.content.startswith(_DIGEST)


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
    finalizers: tuple[str, ...]
    actions: Mapping[str, str] = {}
    """The annotations by which somebody acts on a rollout."""
    status: bytes
    """The live status' JSON, deflated."""

    @property
    def is_followed(self) -> bool:
        """Whether children are brought to what its spec asks for."""
        return self.model is not None and not (self.terminating or self.model.spec.suspend)

    def live_status(self) -> resource_status.Status:
        """The live status, decoded."""
        return resource_status.decode(orjson.loads(deflating.inflate(names.KIND, self.status)))


def model(obj: Mapping[str, Any]) -> Model:
    """Read an InferenceModel."""
    meta = msgspec.convert(obj["metadata"], wire.Meta)
    typed: spec.InferenceModel | None = None
    problem: InvalidModelError | None = None
    try:
        typed = spec.decode(obj)
    except InvalidModelError as error:
        problem = error
    return Model(
        key=_key(meta.namespace, meta.name),
        uid=meta.uid,
        resource_version=version(meta.resource_version),
        generation=meta.generation,
        terminating=meta.deletion_timestamp is not None,
        model=typed,
        problem=problem,
        finalizers=meta.finalizers[:FINALIZERS],
        actions={
            name: bounds.text(meta.annotations[name], bounds.NAME)
            for name in names.ACTION_ANNOTATIONS
            if name in meta.annotations
        },
        status=deflating.deflate(names.KIND, _compact(obj.get("status") or {})),
    )


def child(kind: str, obj: Mapping[str, Any]) -> Child:
    """Read an object of one of the kinds that children have."""
    deployment = None
    whole_spec = _compact(obj.get("spec")) if kind == DEPLOYMENTS.kind else None
    if kind == DEPLOYMENTS.kind:
        live = msgspec.convert(obj, wire.Deployment)
        meta = live.metadata
        deployment = Deployment(
            live.status,
            live.spec.replicas,
            meta.holds_replicas,
            revision=_annotation(meta, names.REVISION_ANNOTATION),
            generation=meta.generation,
            pod_spec_hash=_annotation(meta, names.POD_SPEC_HASH_ANNOTATION),
            template_hash=_annotation(meta, names.TEMPLATE_HASH_ANNOTATION),
            template_update=_annotation(meta, names.TEMPLATE_UPDATE_ANNOTATION) or None,
            spec_hash=hash(whole_spec),
            since=meta.generation,
        )
    else:
        meta = msgspec.convert(obj, wire.Child).metadata
    owner = meta.controller_reference(names.KIND)
    name = owner.name if owner else meta.labels.get(names.MODEL_LABEL)
    expected = owner is not None and meta.name in names.children(owner.name)
    content = _content(kind, obj, whole_spec) if expected else _NO_CONTENT
    others = drift.foreign(meta.managed_fields) if _is_whole(content) else ()
    if drift.are_too_many(others):
        content, others = _digest(content), ()
    return Child(
        key=_key(meta.namespace, name) if name else None,
        kind=kind,
        namespace=sys.intern(meta.namespace),
        name=meta.name,
        uid=meta.uid,
        resource_version=version(meta.resource_version),
        generation=meta.generation,
        terminating=meta.deletion_timestamp is not None,
        owner_uid=sys.intern(owner.uid) if owner else None,
        content=content,
        foreign=others,
        origin=_origin(meta) if owner is None else None,
        deployment=deployment if expected else None,
        created=sys.intern(meta.creation_timestamp),
        is_unapplied=expected and _is_unapplied(meta),
    )


def foreign(obj: Mapping[str, Any]) -> tuple[Foreign, ...]:
    """Which fields others have set of an object, however many they are."""
    return drift.foreign(msgspec.convert(obj["metadata"], wire.Meta).managed_fields)


def _key(namespace: str, name: str) -> Key:
    """The key of an InferenceModel, of whose texts each is kept once for all its objects."""
    return sys.intern(namespace), sys.intern(name)


def _is_unapplied(meta: wire.Meta) -> bool:
    own = managed_fields.own(meta.managed_fields)
    return own is not None and own.operation != managed_fields.APPLY


def _is_whole(content: bytes) -> bool:
    return content != _NO_CONTENT and not content.startswith(_DIGEST)


def _origin(meta: wire.Meta) -> Origin:
    labels = meta.labels
    return Origin(
        controlled=any(reference.controller for reference in meta.owner_references),
        owners=tuple(reference.uid[: bounds.NAME] for reference in meta.owner_references[:4]),
        desired_hash=meta.annotations.get(names.DESIRED_HASH_ANNOTATION, "")[: bounds.NAME],
        managed=labels.get(names.MANAGED_BY_LABEL) == names.FIELD_MANAGER,
    )


def _content(kind: str, obj: Mapping[str, Any], encoded_spec: bytes | None) -> bytes:
    kept = {field: value for field, value in obj.items() if field != "status"}
    if encoded_spec is not None and "spec" in kept:
        kept["spec"] = msgspec.Raw(encoded_spec)
    kept["metadata"] = {
        field: value
        for field, value in obj["metadata"].items()
        if field not in ("managedFields", "resourceVersion", "generation", "creationTimestamp")
    }
    content = _compact(kept)
    if len(content) <= LARGEST_CONTENT:
        return deflating.deflate(kind, content)
    return _digest(content)


def _digest(content: bytes) -> bytes:
    return b'%s"%s","metadata":{}}' % (_DIGEST, hashlib.sha256(content).hexdigest().encode())


def replica_set(obj: Mapping[str, Any]) -> ReplicaSet | None:
    """Read a ReplicaSet's metadata; None when it belongs to no InferenceModel."""
    meta = msgspec.convert(obj, wire.Child).metadata
    name = meta.labels.get(names.MODEL_LABEL)
    if name is None:
        return None
    return ReplicaSet(
        key=_key(meta.namespace, name),
        namespace=sys.intern(meta.namespace),
        name=meta.name,
        uid=meta.uid,
        resource_version=version(meta.resource_version),
        owner_uid=meta.controller(DEPLOYMENTS.kind),
        revision=_annotation(meta, names.REVISION_ANNOTATION),
    )


def _annotation(meta: wire.Meta, name: str) -> str:
    return bounds.text(meta.annotations.get(name, ""), bounds.NAME)


def _compact(value: object) -> bytes:
    # orjson leaves its result in a buffer of a power of two, at least a kilobyte.
    return msgspec.json.encode(value, order="deterministic")


def pod(obj: Mapping[str, Any]) -> Pod | None:
    """Read a pod; None when it belongs to no InferenceModel."""
    live = msgspec.convert(obj, wire.Pod)
    meta, status = live.metadata, live.status
    owner = meta.controller_reference(names.KIND)
    rehearses = owner is not None and meta.labels.get(names.REHEARSAL_LABEL) == owner.name
    name = meta.labels.get(names.REHEARSAL_LABEL if rehearses else names.MODEL_LABEL)
    if name is None:
        return None
    ready = any(c.type == "Ready" and c.status == "True" for c in status.conditions)
    seen = troubles.Status(status, obj.get("spec") or {})
    poller, model_server = seen.poller, seen.server
    uri, server = _source(live)
    hanging = not ready and troubles.is_hanging(seen)
    trouble, message = (None, "") if ready else troubles.trouble(seen)
    return Pod(
        key=_key(meta.namespace, name),
        namespace=sys.intern(meta.namespace),
        name=meta.name,
        uid=meta.uid,
        resource_version=version(meta.resource_version),
        ip=status.pod_ip,
        poller_port=_port(live.spec),
        ready=ready,
        terminating=meta.deletion_timestamp is not None or status.phase in ("Succeeded", "Failed"),
        poller_running=poller.state.running is not None if poller else status.phase == "Running",
        server_restarts=model_server.restart_count if model_server else 0,
        node=sys.intern(bounds.text(live.spec.node_name, bounds.NAME)),
        assignment={
            name: bounds.text(text, bounds.ASSIGNMENT)
            for name, text in meta.annotations.items()
            if name in _ASSIGNED
        },
        attempt=_counter(meta.annotations.get(names.ASSIGNMENT_ATTEMPT_ANNOTATION, "")),
        template=sys.intern(meta.labels.get("pod-template-hash", "")),
        owner_uid=meta.controller(names.KIND if rehearses else REPLICA_SETS.kind),
        storage_uri=None if uri is None else sys.intern(uri),
        store=sys.intern(server),
        trouble=trouble,
        message=bounds.text(message),
        is_hanging=hanging,
        behind_poller="" if ready else sys.intern(troubles.behind_poller(seen)),
        needs=seen.needs if hanging else (),
        disruption=disruptions.read(status),
        rehearsing=_rehearsing(live) if rehearses else None,
    )


def _rehearsing(pod: wire.Pod) -> Rehearsing:
    scheduled = next((c for c in pod.status.conditions if c.type == "PodScheduled"), None)
    waits = scheduled is not None and scheduled.status != "True"
    return Rehearsing(
        created=msgspec.convert(pod.metadata.creation_timestamp, datetime.datetime),
        unscheduled=scheduled.last_transition_time if scheduled and waits else None,
        deleted=pod.metadata.deletion_timestamp is not None,
    )


def _source(pod: wire.Pod) -> tuple[str | None, str]:
    """By the poller's arguments, which nobody can change; what the annotation says counts only
    where these don't tell, for admission has wrapped them, say."""
    poller = next((c for c in pod.spec.init_containers if c.name == names.POLLER_CONTAINER), None)
    arguments = [argument.replace("$$", "$") for argument in (poller.args if poller else ())]
    for argument in arguments:
        if argument.startswith(_STORAGE_URI):
            uri = bounds.text(argument.removeprefix(_STORAGE_URI), bounds.URI)
            return uri, bounds.text(store.of_arguments(arguments), bounds.URI)
    text = pod.metadata.annotations.get(names.STORAGE_URI_ANNOTATION)
    return None if text is None else bounds.text(text, bounds.URI), ""


def _counter(text: str) -> int:
    """Anybody may have written there: what can't be one of the operator's own counts as none."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else 0


def _port(pod: wire.PodSpec) -> int:
    """A pod that another release has made may listen elsewhere; it says so itself."""
    for container in pod.init_containers:
        for port in container.ports:
            if (container.name, port.name) == (names.POLLER_CONTAINER, names.POLLER_CONTAINER):
                return port.container_port
    return names.POLLER_PORT


def owners(metadata: Mapping[str, Any]) -> Iterator[Key]:
    """The InferenceModels that an object may belong to, by its metadata as it came."""
    namespace = metadata.get("namespace", "")
    labels = metadata.get("labels") or {}
    owners = [o for o in metadata.get("ownerReferences") or () if o.get("kind") == names.KIND]
    named = [labels.get(label) for label in _NAMING] + [owner.get("name") for owner in owners]
    for name in dict.fromkeys(named):
        if isinstance(name, str):
            yield namespace, name


def version(text: str) -> int:
    """A resourceVersion as a number: comparable within a resource, since Kubernetes 1.35 by
    promise and before by practice (KEP-5504)."""
    return int(text)
