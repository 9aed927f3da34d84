"""Brings children to what is wanted, and writes nothing where they are already.

Two facts decide that a child needs no write: it carries the hash of what is wanted now, and what
is wanted is still all there. The second finds what others changed since.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import msgspec

from inferencemodel_operator import names
from inferencemodel_operator.cluster import CHILDREN, INGRESSES
from inferencemodel_operator.errors import (
    NameConflictError,
    PermanentError,
    RefusedError,
    TransientError,
)
from inferencemodel_operator.observe import objects

if TYPE_CHECKING:
    from inferencemodel_operator.cache import Cache
    from inferencemodel_operator.children.manifest import Manifest
    from inferencemodel_operator.cluster import Cluster
    from inferencemodel_operator.observe.objects import Child, Key, Model

RECHECK_SECONDS: Final = 60.0
"""How soon something that only a person can change is looked at again."""

_SHARED_LISTS: Final = frozenset(
    {
        "containers",
        "env",
        "initContainers",
        "ownerReferences",
        "ports",
        "volumeMounts",
        "volumes",
    }
)
"""Lists that others may add to (list maps by their schema): an injected sidecar is no drift."""


def covers(live: Any, wanted: Any, *, field: str = "") -> bool:
    """Whether everything wanted is in the live value; the API server adds defaults to it."""
    if isinstance(wanted, dict):
        return isinstance(live, dict) and all(
            name in live and covers(live[name], value, field=name) for name, value in wanted.items()
        )
    if isinstance(wanted, list) and isinstance(live, list):
        if field in _SHARED_LISTS:
            return all(any(covers(there, item) for there in live) for item in wanted)
        return len(live) == len(wanted) and all(map(covers, live, wanted))
    return bool(live == wanted)


class _Held(msgspec.Struct, frozen=True):
    """A child that was refused or belongs to somebody else, and until when to leave it be."""

    wanted_hash: str
    problem: PermanentError
    until: float


class Applier:
    """Applies children one by one; remembers only what spares requests."""

    def __init__(self, cluster: Cluster, cache: Cache) -> None:
        self._cluster = cluster
        self._cache = cache
        self._held: dict[tuple[str, str, str], _Held] = {}
        self._accepted: dict[str, tuple[str, bytes]] = {}

    async def ensure(self, owner: Model, wanted: Manifest) -> bool:
        """Bring one child to what is wanted.

        Returns:
            Whether something was written.

        Raises:
            NameConflictError: an object of that name belongs to somebody else.
            RefusedError: the API server refuses the child as it is.
            TransientError: it may work later.
        """
        resource = CHILDREN[wanted["kind"]]
        metadata = wanted["metadata"]
        namespace, name = metadata["namespace"], metadata["name"]
        wanted_hash = metadata["annotations"][names.DESIRED_HASH_ANNOTATION]
        child = (resource.kind, namespace, name)
        held = self._held.get(child)
        if held is not None and held.wanted_hash == wanted_hash and time.monotonic() < held.until:
            raise held.problem
        live = self._cache.child(*child)
        try:
            if live is None:
                found = await self._cluster.get(resource, namespace, name)
                live = None if found is None else objects.child(resource.kind, found)
            if live is not None:
                _check_owner(owner, live)
                if self._settled(live, wanted, wanted_hash):
                    self._held.pop(child, None)
                    return False
            answer = await self._cluster.apply(resource, wanted, uid=live.uid if live else None)
        except (NameConflictError, RefusedError) as problem:
            # A change of what is watched is told; of anything else, only asking again tells.
            if isinstance(problem, RefusedError) or self._cache.child(*child) is None:
                until = time.monotonic() + RECHECK_SECONDS * 0.9
                self._held[child] = _Held(wanted_hash, problem, until)
            raise
        self._held.pop(child, None)
        self._cache.put(resource, answer)
        applied = objects.child(resource.kind, answer)
        if not covers(applied.content_object(), wanted):
            # An admission webhook may change what was asked for: that is then how it is.
            self._accepted[applied.uid] = (wanted_hash, applied.content)
        return True

    async def remove(self, owner: Model, kind: str, name: str) -> bool:
        """Delete a child that is no longer wanted; only when it is the owner's own."""
        live = self._cache.child(kind, owner.key[0], name)
        if live is None or live.owner_uid != owner.uid or live.terminating:
            return False
        await self._cluster.delete(CHILDREN[kind], live.namespace, live.name, uid=live.uid)
        return True

    def forget(self, key: Key) -> None:
        """Drop what is remembered for an InferenceModel that is gone."""
        namespace, name = key
        for kind, child in (
            ("Deployment", names.deployment(name)),
            ("Service", names.service(name)),
            ("Service", names.headless_service(name)),
            (INGRESSES.kind, names.ingress(name)),
            ("ConfigMap", names.versions_config_map(name)),
        ):
            self._held.pop((kind, namespace, child), None)

    def _settled(self, live: Child, wanted: Manifest, wanted_hash: str) -> bool:
        if self._accepted.get(live.uid) == (wanted_hash, live.content):
            return True
        content = live.content_object()
        annotations = content["metadata"].get("annotations") or {}
        return annotations.get(names.DESIRED_HASH_ANNOTATION) == wanted_hash and covers(
            content, wanted
        )


def _check_owner(owner: Model, live: Child) -> None:
    whole_name = f"{live.namespace}/{live.name}"
    if live.owner_uid != owner.uid:
        if live.owner_uid is not None and live.key == owner.key:
            raise TransientError(
                f"{live.kind} {whole_name} belongs to an InferenceModel of this name that was "
                "deleted; waiting for the garbage collector to remove it"
            )
        raise NameConflictError(live.kind, whole_name)
    if live.terminating:
        raise TransientError(
            f"{live.kind} {whole_name} is being deleted; it is created anew when it is gone"
        )
