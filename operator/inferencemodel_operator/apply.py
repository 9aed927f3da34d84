"""Brings children to what is wanted, and writes nothing where they are already.

Two facts decide that a child needs no write: it carries the hash of what is wanted now, and what
is wanted is still all there. The second finds what others changed since.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import msgspec

from inferencemodel_operator import bounds, drift, managed_fields, names, ownership
from inferencemodel_operator.cluster import CHILDREN, CONFIG_MAPS
from inferencemodel_operator.errors import (
    ConflictError,
    ContestedError,
    NameConflictError,
    PermanentError,
    RefusedError,
)
from inferencemodel_operator.observe import objects
from inferencemodel_operator.pace import REPAIR_SECONDS, Bucket, repairs
from inferencemodel_operator.values import same_amount

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from inferencemodel_operator.cache import Cache
    from inferencemodel_operator.children.manifest import Manifest
    from inferencemodel_operator.cluster import Cluster, Object, Resource
    from inferencemodel_operator.drift import Extra, Foreign
    from inferencemodel_operator.observe.objects import Child, Key, Model
    from inferencemodel_operator.observe.offers import Offers

RECHECK_SECONDS: Final = 60.0
"""How soon something that only a person can change is looked at again."""
RIVALS: Final = 400
"""Bytes of who changes a child, and what of it: field managers are called as they like."""

_SHARED_LISTS: Final[Mapping[str, tuple[str, ...]]] = {
    "containers": ("name",),
    "env": ("name",),
    "initContainers": ("name",),
    "ownerReferences": ("uid",),
    "ports": ("containerPort", "port"),
    "volumeMounts": ("mountPath",),
    "volumes": ("name",),
}
"""Lists that others may add to (list maps by their schema): an injected sidecar is no drift. Each
with the fields one of which is the same in two items that are about the same."""
_QUANTITIES: Final = frozenset(
    {
        ("scaleDown", "tolerance"),
        ("scaleUp", "tolerance"),
        ("target", "averageValue"),
        ("target", "value"),
    }
)
"""Fields of an autoscaler, each behind the one that it is in: they are handed on as the user wrote
them, and come back in canonical form. Elsewhere a ``value`` is any text."""
_AMOUNTS: Final = frozenset({"divisor", "sizeLimit"})
"""Fields of a pod that are handed on in the same way, wherever they are, ..."""
_OF_AMOUNTS: Final = frozenset({"limits", "overhead", "requests"})
"""... and those that are maps of such."""
_FALSE_IS_NOTHING: Final = frozenset(
    {
        "chapAuthDiscovery",
        "chapAuthSession",
        "hostIPC",
        "hostNetwork",
        "hostPID",
        "hostPort",
        "initialDelaySeconds",
        "partition",
        "readOnly",
        "sslEnabled",
        "stdin",
        "stdinOnce",
        "tty",
    }
)
_MAPS: Final = frozenset(
    {
        *_OF_AMOUNTS,
        *("annotations", "labels", "matchLabels", "nodeSelector", "options", "volumeAttributes"),
    }
)
_FILLED_IN: Final = frozenset(
    {
        *("failureThreshold", "periodSeconds", "successThreshold", "timeoutSeconds"),
        *("apiVersion", "dnsPolicy", "imagePullPolicy", "iscsiInterface", "path", "protocol"),
        *("schedulerName", "scheme", "terminationMessagePath", "terminationMessagePolicy"),
    }
)
"""Fields of a pod for which 0 or nothing is written: the API server takes its default instead."""


def covers(live: Any, wanted: Any, *, field: str = "", within: str = "") -> bool:
    """Whether everything wanted is in the live value.

    The API server adds defaults to it, and drops what says nothing (a user's ``hostPID: false``).
    """
    if isinstance(wanted, dict):
        return isinstance(live, dict) and all(
            covers(live[name], value, field=name, within=field)
            if name in live
            else _says_nothing(name, value)
            for name, value in wanted.items()
        )
    if isinstance(wanted, list) and isinstance(live, list):
        if field in _SHARED_LISTS:
            # By name, as there may be thousands of both.
            named: dict[Any, list[Any]] = {}
            for there in live:
                named.setdefault(_name(field, there), []).append(there)
            return all(
                any(covers(there, item) for there in named.get(_name(field, item), ()))
                for item in wanted
            )
        return len(live) == len(wanted) and all(map(covers, live, wanted))
    if field in _FILLED_IN and wanted in ("", 0) and live not in (None, "", 0):
        return True
    is_amount = (within, field) in _QUANTITIES or field in _AMOUNTS or within in _OF_AMOUNTS
    return bool(live == wanted) or (is_amount and same_amount(live, wanted))


def _name(field: str, item: Any) -> Any:
    """What is the same in another item of the list that is about the same."""
    if not isinstance(item, dict):
        return None
    found = next((item[name] for name in _SHARED_LISTS[field] if name in item), None)
    return found if isinstance(found, str | int) else None


def _says_nothing(field: str, value: Any) -> bool:
    """Whether the API server leaves it out, as it does with what is empty.

    Not with an object that is a choice, such as ``emptyDir: {}``, nor with a false or a 0 that
    means something else than nothing, such as that of ``automountServiceAccountToken``.
    """
    if value is False or (isinstance(value, int) and value == 0):
        return field in _FALSE_IS_NOTHING
    return value in ("", []) or (value == {} and field in _MAPS)


class _Held(msgspec.Struct, frozen=True):
    """A child that was refused or belongs to somebody else, and until when to leave it be."""

    about: tuple[int, str, bytes | None]
    """The spec's generation, the hash of what was wanted, and what there was of the child: when
    any of them changes, another attempt is worth it."""
    problem: PermanentError
    until: float


class _Memory(msgspec.Struct):
    """What spares requests and comparisons for one InferenceModel, by kind and name of a child."""

    held: dict[tuple[str, str], _Held] = {}
    repairs: dict[tuple[str, str], Bucket] = {}
    settled: dict[tuple[str, str], tuple[str, bytes]] = {}
    """The hash of what was wanted, and the content that was found to be it."""


class Applier:
    """Applies children one by one; remembers only what spares requests and work."""

    def __init__(self, cluster: Cluster, cache: Cache, offers: Offers) -> None:
        self._cluster = cluster
        self._cache = cache
        self._offers = offers
        self._memories: dict[Key, _Memory] = {}

    async def ensure(self, owner: Model, wanted: Manifest) -> bool:
        """Bring one child to what is wanted.

        Returns:
            Whether something was written.

        Raises:
            NameConflictError: an object of that name belongs to somebody else.
            ContestedError: somebody else changes it back each time.
            NotOfferedError: the API server doesn't know the kind.
            RefusedError: the API server refuses the child as it is.
            TransientError: it may work later.
        """
        resource = CHILDREN[wanted["kind"]]
        namespace, name = owner.key[0], wanted["metadata"]["name"]
        self._offers.check(resource, f"{namespace}/{name}")
        memory = self._memories.setdefault(owner.key, _Memory())
        child = (resource.kind, name)
        wanted_hash = _hash(wanted)
        held = memory.held.get(child)
        about = (owner.generation, wanted_hash, self._content(resource, namespace, name))
        if held is not None and held.about == about and time.monotonic() < held.until:
            raise held.problem
        try:
            answer = await self._write(owner, resource, wanted, memory)
        except (NameConflictError, RefusedError) as problem:
            # A change of what is watched is told; of anything else, only asking again tells.
            if isinstance(problem, RefusedError) or about[2] is None:
                until = time.monotonic() + RECHECK_SECONDS * 0.9
                memory.held[child] = _Held(about, problem, until)
            raise
        memory.held.pop(child, None)
        if answer is not None:
            self._cache.put(resource, answer)
            # Without another look: an admission webhook may have changed what was asked for, and
            # that is then how it is. What the cache has may be newer, and somebody else's doing.
            live = self._cache.child(resource.kind, namespace, name)
            if live is None or live.resource_version != objects.version(
                answer["metadata"]["resourceVersion"]
            ):
                live = objects.child(resource.kind, answer)
            memory.settled[child] = (wanted_hash, live.content)
        elif about[2] is not None:
            memory.settled[child] = (wanted_hash, about[2])
        return answer is not None

    def _content(self, resource: Resource, namespace: str, name: str) -> bytes | None:
        live = self._cache.child(resource.kind, namespace, name)
        return live.content if live is not None else None

    async def _write(
        self, owner: Model, resource: Resource, wanted: Manifest, memory: _Memory
    ) -> Object | None:
        """The child as the API server made it; None when it was as wanted already."""
        namespace, name = owner.key[0], wanted["metadata"]["name"]
        wanted_hash = _hash(wanted)
        live = self._cache.child(resource.kind, namespace, name)
        found: Object | None = None
        if live is None:
            try:
                return await self._create(resource, wanted)
            except ConflictError:
                live, found = await self._look(resource, namespace, name)
        ownership.check(owner, live, wanted_hash)
        child = (resource.kind, name)
        if memory.settled.get(child) == (wanted_hash, live.content):
            return None
        if found is None and not live.is_whole:
            live, found = await self._look(resource, namespace, name)
        content = found or live.content_object()
        others = objects.foreign(found) if found else live.foreign
        extras = drift.extras(others, content, wanted)
        if _hash(content) == wanted_hash:
            if covers(content, wanted) and not extras and not drift.taken(others, wanted):
                return None
            if not memory.repairs.setdefault(child, repairs()).try_take(time.monotonic()):
                raise _contested(live, others, extras)
        if live.is_unapplied:
            found = await self._take_over(resource, found, live)
            live, content = objects.child(resource.kind, found), found
            extras = drift.extras(objects.foreign(found), content, wanted)
        deployment = live.deployment
        if deployment and deployment.holds_replicas and "replicas" not in wanted["spec"]:
            await self._cluster.hold_replicas(
                resource, namespace, name, uid=live.uid, replicas=deployment.replicas
            )
        return await self._bring(resource, live, content, extras, wanted)

    async def _create(self, resource: Resource, wanted: Manifest) -> Object:
        """Create a child: by an apply where the next is soon to follow.

        A create takes the API server far less time, and one request more before the first apply.
        """
        if resource is CONFIG_MAPS:
            return await self._cluster.apply(resource, wanted, uid=None)
        return await self._cluster.create(resource, wanted)

    async def _take_over(self, resource: Resource, found: Object | None, live: Child) -> Object:
        """Have what was created count as applied: an apply takes back nothing else."""
        if found is None:
            newest, found = await self._look(resource, live.namespace, live.name)
            if newest.uid != live.uid:
                raise ConflictError(f"{live.kind} {live.namespace}/{live.name} is another one")
        managers = managed_fields.as_applied(found)
        if managers is None:
            return found
        answer = await self._cluster.set_field_managers(resource, found, managers)
        self._cache.put(resource, answer)
        return answer

    async def _look(self, resource: Resource, namespace: str, name: str) -> tuple[Child, Object]:
        """What the API server has of a child of which the cache has nothing, or not all."""
        found = await self._cluster.get(resource, namespace, name)
        if found is None:
            raise ConflictError(f"{resource.kind} {namespace}/{name} is gone; looking again")
        return objects.child(resource.kind, found), found

    async def _bring(
        self,
        resource: Resource,
        live: Child,
        content: Object,
        extras: Sequence[Extra],
        wanted: Manifest,
    ) -> Object:
        """Apply; before that, take back what others have set and an apply would leave."""
        try:
            if extras:
                trimmed = drift.trimmed(content, extras)
                await self._rewrite(resource, live, content, trimmed, wanted)
            return await self._cluster.apply(resource, wanted, uid=live.uid)
        except RefusedError as refusal:
            if not refusal.invalid:
                raise
        # Together with what is there it makes no valid object, and whose that is isn't known: its
        # field managers were wiped, say. Nothing stays but what others may set.
        try:
            theirs = drift.theirs(content, wanted)
            await self._rewrite(resource, live, content, theirs, wanted)
            return await self._cluster.apply(resource, wanted, uid=live.uid)
        except RefusedError as refusal:
            if not refusal.invalid or _hash(content) != _hash(wanted):
                raise
            # It was right before somebody edited the child.
            raise refusal.with_fix(resource.target("", live.namespace, live.name).way_out) from None

    async def _rewrite(
        self, resource: Resource, live: Child, content: Object, base: Object, wanted: Manifest
    ) -> None:
        changes = drift.changes(content, drift.merged(base, drift.fields(wanted)))
        if changes:
            answer = await self._cluster.rewrite(
                resource, live.namespace, live.name, version=live.resource_version, content=changes
            )
            self._cache.put(resource, answer)

    async def remove(self, owner: Model, child: Child) -> bool:
        """Delete a child that is no longer wanted; only when it is the owner's own."""
        if child.owner_uid != owner.uid or child.terminating:
            return False
        resource = CHILDREN[child.kind]
        await self._cluster.delete(resource, child.namespace, child.name, uid=child.uid)
        return True

    def forget(self, key: Key) -> None:
        """Drop what is remembered for an InferenceModel that is gone."""
        self._memories.pop(key, None)


def _hash(content: Object) -> str:
    annotations = content["metadata"].get("annotations") or {}
    found: str = annotations.get(names.DESIRED_HASH_ANNOTATION, "")
    return found


def _contested(live: Child, others: Sequence[Foreign], extras: Sequence[Extra]) -> ContestedError:
    managers = sorted({extra.manager for extra in extras} or {other.manager for other in others})
    rivals = ", ".join(managers) or "somebody else"
    if extras:
        rivals += f" ({', '.join(drift.text(extra.path) for extra in extras[:5])})"
    rivals = bounds.text(rivals, RIVALS)
    return ContestedError(live.kind, f"{live.namespace}/{live.name}", rivals, REPAIR_SECONDS)
