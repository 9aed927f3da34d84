"""What the operator knows of the cluster: slim values, one for each object, by key.

Filled by watches, by the answers to the operator's own writes, and by a periodic listing. The
three come in any order; of two views of one object the newer one stays.
"""

from __future__ import annotations

import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from inferencemodel_operator import identity, names
from inferencemodel_operator.addresses import KINDS, AddressBook, claims, live_claims
from inferencemodel_operator.cluster import DEPLOYMENTS, MODELS, PODS, REPLICA_SETS, Resource
from inferencemodel_operator.elsewhere import Elsewhere
from inferencemodel_operator.observe import objects
from inferencemodel_operator.observe.objects import Child, Key, Model, Pod, ReplicaSet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from inferencemodel_operator.observe.objects import Deployment
    from inferencemodel_operator.observe.reports import Report

Entry = Model | Child | Pod | ReplicaSet
ObjectName = tuple[str, str]
"""Namespace and name of any object."""

GONE_SECONDS: Final = 300.0
"""For how long a deleted object is remembered, so that a late view doesn't bring it back."""

_NEVER: Final = (-1, 0.0)
_KINDS: Final = {Pod: PODS.kind, ReplicaSet: REPLICA_SETS.kind}

N = TypeVar("N")
T = TypeVar("T")

_WRITTEN: Final = {
    # Each generation has a spec of its own, and reading one that is bad makes an error each time.
    MODELS.kind: ("resource_version", "status", "model", "problem"),
    PODS.kind: ("resource_version", "assignment", "attempt"),
}
"""What is different after a write of the operator's own, by kind."""


class Cache:
    """The newest known view of every watched object. Not safe for threads; needs none."""

    def __init__(self, *, is_part: bool = False) -> None:
        """Start with nothing.

        Args:
            is_part: whether there are InferenceModels that another operator serves, whose children
                and pods come in, too: they are not kept.
        """
        self.is_part = is_part
        self._elsewhere = Elsewhere()
        self._arriving: set[Key] = set()
        self._entries: dict[str, dict[ObjectName, Entry]] = defaultdict(dict)
        self._pods: dict[Key, dict[str, Pod]] = defaultdict(dict)
        self._rehearsals: dict[Key, dict[str, Pod]] = defaultdict(dict)
        """Pods that rehearse a version: replicas in no respect."""
        self._children: dict[Key, dict[tuple[str, str], Child]] = defaultdict(dict)
        self._replica_sets: dict[str, ReplicaSet] = {}
        """By uid."""
        self._gone: dict[str, tuple[int, float]] = {}
        self.reports: dict[str, Report] = {}
        """What pollers told, by the pod's uid."""
        self.addresses = AddressBook()
        """Who asks for which host and path."""
        self.notify: Callable[[Entry], object] = _tell_nobody
        """Called with what is news, from a watch or from the answer to one's own write."""

    def model(self, key: Key) -> Model | None:
        """One InferenceModel."""
        found = self._entries[MODELS.kind].get(key)
        return found if isinstance(found, Model) else None

    def models(self) -> Iterable[Model]:
        """All InferenceModels."""
        return (m for m in self._entries[MODELS.kind].values() if isinstance(m, Model))

    def child(self, kind: str, namespace: str, name: str) -> Child | None:
        """One child by kind and name, whoever owns it."""
        found = self._entries[kind].get((namespace, name))
        return found if isinstance(found, Child) else None

    def children(self, key: Key) -> list[Child]:
        """All children that name an InferenceModel, whether it owns them or not."""
        return list(self._children.get(key, {}).values())

    def served_pods(self) -> list[Pod]:
        """The pods of all InferenceModels that are known: others may be another operator's."""
        return [
            pod
            for model in self.models()
            for pod in (*self.pods(model.key), *self.rehearsals(model.key))
        ]

    def pods(self, key: Key) -> list[Pod]:
        """The pods of one InferenceModel, by name: those alone that are truly its own."""
        pods = self._pods.get(key, {})
        return [pods[name] for name in sorted(pods) if self.owns(pods[name])]

    def rehearsals(self, key: Key) -> list[Pod]:
        """The pods of one InferenceModel that rehearse a version, by name."""
        pods = self._rehearsals.get(key, {})
        return [pods[name] for name in sorted(pods) if self.owns(pods[name])]

    def owns(self, pod: Pod) -> bool:
        """Whether the pod is that of the InferenceModel whose name it carries."""
        model, deployment = self.model(pod.key), self.deployment(pod.key)
        if pod.rehearsing is not None:
            return identity.rehearses(model, pod)
        return identity.owns(model, deployment, self.replica_set(pod), pod)

    def labelled_pods(self, key: Key) -> list[Pod]:
        """All pods that carry an InferenceModel's name, whoever made them and for what; by name."""
        pods = {**self._pods.get(key, {}), **self._rehearsals.get(key, {})}
        return [pods[name] for name in sorted(pods)]

    def deployment(self, key: Key) -> Child | None:
        """The Deployment that has the name of an InferenceModel's, whoever owns it."""
        return self.child(DEPLOYMENTS.kind, key[0], names.deployment(key[1]))

    def replica_set(self, pod: Pod) -> ReplicaSet | None:
        """The ReplicaSet that controls a pod."""
        return None if pod.owner_uid is None else self._replica_sets.get(pod.owner_uid)

    def is_current(self, pod: Pod, deployment: Deployment) -> bool:
        """Whether a pod is made from the Deployment's present pod template."""
        replica_set = self.replica_set(pod)
        return replica_set is not None and replica_set.revision == deployment.revision

    def put(self, resource: Resource, obj: Mapping[str, Any]) -> Entry | None:
        """Take in one view of an object.

        Returns:
            The entry when it is news; None when the same or a newer one was there already, when
            only something that nobody looks at has changed, or when the object is none of the
            operator's business.
        """
        if self._is_known(resource, obj["metadata"]) or not self._is_kept(resource, obj):
            return None
        entry = _entry(resource, obj)
        if entry is None or entry.resource_version <= self._gone.get(entry.uid, _NEVER)[0]:
            return None
        entries = self._entries[resource.kind]
        name = _name(entry)
        known = entries.get(name)
        if known is not None and _place(known) != _place(entry):
            self._forget(resource.kind, known)
            known = None
        entry = _after(entry, known)
        entries[name] = entry
        if isinstance(entry, Pod):
            self._group(entry)[entry.key][entry.name] = entry
        elif isinstance(entry, ReplicaSet):
            self._replica_sets[entry.uid] = entry
        elif isinstance(entry, Child) and entry.key is not None:
            self._children[entry.key][entry.kind, entry.name] = entry
        if known is not None:
            same = msgspec.structs.replace(entry, resource_version=known.resource_version)
            if same == known:
                return None
        self._address(entry)
        self.notify(entry)
        return entry

    def take_answer(self, resource: Resource, obj: Mapping[str, Any], before: Model | Pod) -> bool:
        """Take in the answer to a write of a status, or of what a pod is told to serve.

        Args:
            resource: the kind.
            obj: the object as it is after the write.
            before: what the write was decided by.

        Returns:
            Whether somebody else has changed it, too: the answer tells that before its watch does,
            for which it is no news any more.
        """
        news = self.put(resource, obj)
        if news is None:
            return False
        own = {field: getattr(before, field) for field in _WRITTEN[resource.kind]}
        return bool(msgspec.structs.replace(news, **own) != before)

    def has_elsewhere(self, key: Key) -> bool:
        """Whether an InferenceModel that is not known has children that were not kept."""
        return key in self._elsewhere and self.model(key) is None

    def expect(self, key: Key) -> None:
        """Keep what belongs to an InferenceModel from now on, before it is known itself."""
        self._arriving.add(key)

    def leave(self, key: Key) -> None:
        """Drop what belongs to an InferenceModel that another operator may serve from now on."""
        self._arriving.discard(key)
        if not self.is_part or self.model(key) is not None:
            return
        sets = [r for r in self._replica_sets.values() if r.key == key]
        owned: list[Entry] = [*self.children(key), *self.labelled_pods(key), *sets]
        for entry in owned:
            kind = entry.kind if isinstance(entry, Child) else _KINDS[type(entry)]
            self._forget(kind, entry)
        if owned:
            self._elsewhere.add([key])

    def _is_kept(self, resource: Resource, obj: Mapping[str, Any]) -> bool:
        """Whether an object is, or may be, that of an InferenceModel that is served here."""
        if not self.is_part or resource is MODELS:
            return True
        keys = list(objects.owners(obj["metadata"]))
        if not keys or any(self.model(key) is not None or key in self._arriving for key in keys):
            return True
        self._elsewhere.add(keys)
        return False

    def _group(self, pod: Pod) -> dict[Key, dict[str, Pod]]:
        return self._pods if pod.rehearsing is None else self._rehearsals

    def _is_known(self, resource: Resource, metadata: Mapping[str, Any]) -> bool:
        """Whether this view or a newer one is there: the answer to a write comes by its watch, too.

        Told by the metadata, for reading the whole object costs a hundred times as much.
        """
        known = self._entries[resource.kind].get((metadata.get("namespace", ""), metadata["name"]))
        return known is not None and known.resource_version >= objects.version(
            metadata["resourceVersion"]
        )

    def remove(self, resource: Resource, obj: Mapping[str, Any]) -> Entry | None:
        """Take in that an object is gone or lost its label, and return what was known of it."""
        metadata = obj["metadata"]
        name, uid = (metadata["namespace"], metadata["name"]), metadata["uid"]
        self._gone[uid] = objects.version(metadata["resourceVersion"]), time.monotonic()
        known = self._entries[resource.kind].get(name)
        if known is None or known.uid != uid:
            return None
        self._forget(resource.kind, known)
        return known

    def give_up(self, key: Key) -> Model | None:
        """Drop an InferenceModel that is there, for another operator serves it; what was known."""
        known = self.model(key)
        if known is not None:
            self._forget(MODELS.kind, known)
        return known

    def snapshot(self, resource: Resource, namespace: str | None = None) -> dict[ObjectName, str]:
        """The uids of all known objects of a kind: what `prune` may remove later."""
        return {
            name: entry.uid
            for name, entry in self._entries[resource.kind].items()
            if namespace in (None, name[0])
        }

    def forget_versions(self, resource: Resource, namespace: str | None = None) -> None:
        """Let the next view of each object count, although its version is an older one."""
        entries = self._entries[resource.kind]
        for name, entry in entries.items():
            if namespace in (None, name[0]):
                entries[name] = msgspec.structs.replace(entry, resource_version=_NEVER[0])
        self._gone.clear()

    def prune(
        self, resource: Resource, before: Mapping[ObjectName, str], listed: set[str]
    ) -> list[Entry]:
        """Drop what was known before a listing and is not in it.

        Args:
            resource: the kind that was listed.
            before: `snapshot`, taken before the listing began.
            listed: the uids of the listing.

        Returns:
            What was dropped.
        """
        entries = self._entries[resource.kind]
        dropped = []
        for name, uid in before.items():
            known = entries.get(name)
            if known is not None and known.uid == uid and uid not in listed:
                self._forget(resource.kind, known)
                dropped.append(known)
        oldest = time.monotonic() - GONE_SECONDS
        self._gone = {uid: gone for uid, gone in self._gone.items() if gone[1] > oldest}
        return dropped

    def _forget(self, kind: str, entry: Entry) -> None:
        self._entries[kind].pop(_name(entry), None)
        if isinstance(entry, Pod):
            _discard(self._group(entry), entry.key, entry.name)
            self.reports.pop(entry.uid, None)
        elif isinstance(entry, ReplicaSet):
            self._replica_sets.pop(entry.uid, None)
        elif isinstance(entry, Child) and entry.key is not None:
            _discard(self._children, entry.key, (entry.kind, entry.name))
        self._address(entry)

    def _address(self, entry: Entry) -> None:
        """Take in what a model asks for, after it or one of its children came, changed or went."""
        is_child = isinstance(entry, Child) and entry.kind in KINDS
        if entry.key is None or not (is_child or isinstance(entry, Model)):
            return
        model = self.model(entry.key)
        if model is None:
            self.addresses.put(entry.key, {})
        elif model.model is None or not model.is_followed:
            own = (c for c in self.children(entry.key) if c.owner_uid == model.uid)
            self.addresses.put(entry.key, live_claims(c for c in own if c.kind in KINDS))
        elif not is_child:
            self.addresses.put(entry.key, claims(model.model))
        if is_child:
            self.addresses.touch(entry.key)


def _discard(groups: dict[Key, dict[N, T]], key: Key, name: N) -> None:
    group = groups.get(key, {})
    group.pop(name, None)
    if not group:
        groups.pop(key, None)


def _entry(resource: Resource, obj: Mapping[str, Any]) -> Entry | None:
    if resource is MODELS:
        return objects.model(obj)
    if resource is PODS:
        return objects.pod(obj)
    if resource is REPLICA_SETS:
        return objects.replica_set(obj)
    return objects.child(resource.kind, obj)


def _after(entry: Entry, known: Entry | None) -> Entry:
    """The entry with what only an earlier view of the same object tells."""
    if not isinstance(entry, Child) or not isinstance(known, Child):
        return entry
    if entry.deployment is None or known.deployment is None:
        return entry
    return msgspec.structs.replace(entry, deployment=entry.deployment.after(known.deployment))


def _place(entry: Entry) -> tuple[str, Key | None, bool]:
    """What has to be the same for one view of an object to replace another."""
    return entry.uid, entry.key, isinstance(entry, Pod) and entry.rehearsing is not None


def _name(entry: Entry) -> ObjectName:
    return entry.key if isinstance(entry, Model) else (entry.namespace, entry.name)


def _tell_nobody(_: Entry) -> None:
    pass
