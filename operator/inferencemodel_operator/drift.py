"""What others have set of a child that nothing asks for, and how it is taken back.

An apply brings every wanted field back, but it leaves what others have added: a second port where
a port's number was edited (the number is the item's key), a ``hostPath`` beside the ``emptyDir``
that the volume is to be, a session affinity. The API server keeps who set which field in
``metadata.managedFields``, so what somebody set on purpose is told from its own defaults and from
what admission has put in, neither of which is anybody's
(https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management).

Not taken back is what others have good reasons to set: labels, annotations and finalizers of a
child and of its pod template, containers and volumes beside the operator's (an injected sidecar,
with what it mounts into the operator's containers), replicas while an autoscaler sets them, and
what only the cluster can know of a Service or an Ingress.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Final

import msgspec

from inferencemodel_operator import managed_fields, names, nesting
from inferencemodel_operator.managed_fields import Key

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from inferencemodel_operator.observe.wire import FieldManager

Path = tuple[str | Key, ...]


class Foreign(msgspec.Struct, frozen=True):
    """The fields of one other manager, outside of metadata and status."""

    manager: str
    fields: dict[str, Any]
    """In the form of FieldsV1."""


class Extra(msgspec.Struct, frozen=True):
    """Something that another manager has set and nothing asks for."""

    manager: str
    path: Path


FIELDS: Final = 5000
"""A Deployment has a few hundred, and several may hold each."""
_NOBODY: Final = "before-first-apply"
"""Whom the API server makes hold everything, defaults included, of an object that tells of nobody
(k8s.io/apimachinery/pkg/util/managedfields/internal/skipnonapplied.go)."""
_ANY: Final = "*"
_POD: Final = ("spec", "template", "spec")
_SIDECARS: Final = ("containers", "initContainers", "volumes")
_OTHERS: Final[Mapping[str, tuple[tuple[str, ...], ...]]] = {
    "Deployment": (
        ("spec", "replicas"),
        ("spec", "template", "metadata", "annotations", _ANY),
        ("spec", "template", "metadata", "labels", _ANY),
    ),
    "Service": (
        ("spec", "clusterIP"),
        ("spec", "clusterIPs"),
        ("spec", "healthCheckNodePort"),
        ("spec", "ipFamilies"),
        ("spec", "ipFamilyPolicy"),
        ("spec", "loadBalancerClass"),
        ("spec", "ports", _ANY, "nodePort"),
    ),
    "Ingress": (("spec", "ingressClassName"),),
}
"""Fields that are others' where nothing is wanted of them, by kind."""
_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "containers": ("name",),
    "env": ("name",),
    "imagePullSecrets": ("name",),
    "initContainers": ("name",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
    "volumeMounts": ("mountPath",),
    "volumes": ("name",),
}
"""The key fields of those lists of children that the API server merges item by item."""


def foreign(managers: Iterable[FieldManager]) -> tuple[Foreign, ...]:
    """What others have set of an object and the operator has not applied.

    Left out are metadata and status, and what a subresource such as ``scale`` has set.
    """
    entries = [entry for entry in managers if not entry.subresource]
    own = managed_fields.own(entries)
    applied = own.fields_v1 if own is not None else {}
    found = []
    for entry in entries:
        if entry.manager in (names.FIELD_MANAGER, _NOBODY):
            continue
        content = {
            name: value
            for name, value in entry.fields_v1.items()
            if name not in ("f:metadata", "f:status")
        }
        alone = _without(content, applied)
        if alone:
            found.append(Foreign(entry.manager, alone))
    return tuple(found)


def are_too_many(others: Iterable[Foreign]) -> bool:
    """Whether others have set more fields than anybody does who means well."""
    left: list[Mapping[str, Any]] = [other.fields for other in others]
    count = 0
    while left:
        fields = left.pop()
        count += len(fields)
        if count > FIELDS:
            return True
        left.extend(below for below in fields.values() if isinstance(below, dict) and below)
    return False


def taken(others: Iterable[Foreign], wanted: Mapping[str, Any]) -> bool:
    """Whether somebody else holds a field that is wanted, and the operator no longer does.

    Of a value that the API server takes as one, such as a NetworkPolicy's rules, that says more
    than a comparison: it may have more in it than is wanted.
    """
    return any(_holds(other.fields, wanted) for other in others)


def extras(
    others: Iterable[Foreign], live: Mapping[str, Any], wanted: Mapping[str, Any]
) -> list[Extra]:
    """What others have set of a child that is neither wanted nor theirs to set."""
    theirs = _Theirs(live, wanted)
    return [
        Extra(other.manager, path)
        for other in others
        for path in _unwanted(other.fields, wanted, ())
        if not theirs.has(path)
    ]


def trimmed(live: Mapping[str, Any], unwanted: Iterable[Extra]) -> dict[str, Any]:
    """The live object without these."""
    content: dict[str, Any] = copy.deepcopy(dict(live))
    items: dict[Path, list[Key]] = {}
    for extra in unwanted:
        parent, last = extra.path[:-1], extra.path[-1]
        if isinstance(last, tuple):
            items.setdefault(parent, []).append(last)
        elif isinstance(there := _at(content, parent), dict):
            there.pop(last, None)
    for path, keys in items.items():
        if isinstance(there := _at(content, path), list):
            listed = _Items(there)
            # An edit may have written one twice.
            gone = {id(item) for key in keys for item in listed.all(key)}
            there[:] = [item for item in there if id(item) not in gone]
    return content


def theirs(live: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Of the live object, only what is others' to set."""
    kept: dict[str, Any] = {}
    for pattern in _OTHERS.get(wanted["kind"], ()):
        *parents, name = pattern[:-1] if pattern[-1] == _ANY else pattern
        # Nothing for a path into a list: its items come with what is wanted of them.
        found = _at(live, (*parents, name))
        if found is not None:
            _branch(kept, parents)[name] = copy.deepcopy(found)
    judge = _Theirs(live, wanted)
    for field in _SIDECARS if wanted["kind"] == "Deployment" else ():
        items = [
            copy.deepcopy(item)
            for item in _at(live, (*_POD, field)) or ()
            if judge.has((*_POD, field, _key(field, item)))
        ]
        if items:
            _branch(kept, _POD)[field] = items
    return kept


def merged(base: Any, wanted: Any, field: str = "") -> Any:
    """What is wanted, on top of what there is: maps by name, lists of items by their keys."""
    if isinstance(base, dict) and isinstance(wanted, dict):
        both = {name: merged(base.get(name), value, name) for name, value in wanted.items()}
        return {**base, **both}
    if isinstance(base, list) and isinstance(wanted, list) and _is_keyed(field, wanted):
        ours = {_key(field, item): item for item in wanted}
        live = {_key(field, item): item for item in base}
        both = {key: merged(live.get(key), item) for key, item in ours.items()}
        if ours.keys() <= live.keys():
            # In the order that there is: another one would restart pods.
            return [both.get(key, item) for key, item in live.items()]
        return [*both.values(), *(item for key, item in live.items() if key not in ours)]
    return wanted


def fields(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """An object's content: what is beside its identity and its metadata."""
    return {
        name: value
        for name, value in wanted.items()
        if name not in ("apiVersion", "kind", "metadata", "status")
    }


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """The top-level fields that differ, as they are afterwards; None for one that goes."""
    old, new = fields(before), fields(after)
    return {name: new.get(name) for name in sorted({*old, *new}) if old.get(name) != new.get(name)}


def text(path: Path) -> str:
    """A path in words, such as ``spec.ports[port=80,protocol=TCP].nodePort``."""
    words = ""
    for step in path:
        if isinstance(step, tuple):
            words += "[" + ",".join(f"{name}={value}" for name, value in step) + "]"
        else:
            words += f".{step}" if words else step
    return words


def _without(
    content: Mapping[str, Any], applied: Mapping[str, Any], levels: int = nesting.DEPTH
) -> dict[str, Any]:
    """A set of fields without those that are in another one, as far down as any object goes."""
    left = {}
    for name, below in content.items():
        if name not in applied:
            left[name] = below
        elif name != "." and below:
            inner = _without(below, applied[name], levels - 1) if levels else below
            if inner:
                left[name] = inner
    return left


def _holds(content: Mapping[str, Any], wanted: Any) -> bool:
    here = _Items(wanted) if isinstance(wanted, list) else wanted
    for name, below in content.items():
        found, value = _wanted(name, here)
        if found and (not below or set(below) == {"."} or _holds(below, value)):
            return True
    return False


def _unwanted(content: Mapping[str, Any], wanted: Any, path: Path) -> Iterator[Path]:
    """The topmost fields of a set that are not in what is wanted."""
    here = _Items(wanted) if isinstance(wanted, list) else wanted
    for name, below in content.items():
        found, value = _wanted(name, here)
        if name == "." or not isinstance(wanted, dict | list):
            continue
        step = managed_fields.step(name)
        if found:
            yield from _unwanted(below, value, (*path, step))
        else:
            yield (*path, step)


def _wanted(name: str, here: Any) -> tuple[bool, Any]:
    """Whether a field or an item of a set is wanted, and how."""
    if name == ".":
        return False, None
    step = managed_fields.step(name)
    if isinstance(step, tuple):
        item = here.find(step) if isinstance(here, _Items) else None
        return item is not None, item
    return (True, here[step]) if isinstance(here, dict) and step in here else (False, None)


class _Theirs:
    """What of a child is others' to set."""

    def __init__(self, live: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
        self._live = live
        self._patterns = _OTHERS.get(wanted["kind"], ())
        self._ours: dict[str, _Items] = {}
        """By the lists that others may add to."""
        for field in _SIDECARS if wanted["kind"] == "Deployment" else ():
            ours = _at(wanted, (*_POD, field)) or []
            there = _Items(_at(live, (*_POD, field)))
            # Where one of ours is missing, it may be there under another name, so nothing beside
            # the wanted ones is left; a sidecar is then injected anew.
            if all(there.find(_key(field, item)) is not None for item in ours):
                self._ours[field] = _Items(ours)

    def has(self, path: Path) -> bool:
        """Whether it is a field of theirs."""
        if any(_matches(path, pattern) for pattern in self._patterns):
            return True
        if path[:3] != _POD or len(path) not in (5, 7):
            return False
        if len(path) == 7:
            return path[3] in _SIDECARS and path[5] == "volumeMounts" and self._is_mount(path)
        field, key = path[3], path[4]
        ours = self._ours.get(field) if isinstance(field, str) else None
        return ours is not None and isinstance(key, tuple) and ours.find(key) is None

    def _is_mount(self, path: Path) -> bool:
        mount = _at(self._live, path)
        name = mount.get("name") if isinstance(mount, dict) else None
        return name is not None and self.has((*_POD, "volumes", (("name", name),)))


def _matches(path: Path, pattern: tuple[str, ...]) -> bool:
    return len(path) == len(pattern) and all(
        part in (_ANY, step) for step, part in zip(path, pattern, strict=True)
    )


def _is_keyed(field: str, items: list[Any]) -> bool:
    return all(isinstance(item, dict) and _key(field, item) for item in items)


def _key(field: str, item: Mapping[str, Any]) -> Key:
    """What tells an item from the others of a list; nothing where no item has a key."""
    if field == "ports":
        number = "containerPort" if "containerPort" in item else "port"
        found = {number: item.get(number), "protocol": item.get("protocol", "TCP")}
        # A NetworkPolicy's ports are one value: they have no name.
        return tuple(sorted(found.items())) if "name" in item else ()
    return tuple(sorted((name, item[name]) for name in _KEYS.get(field, ()) if name in item))


class _Items:
    """The items of a list by their keys; there may be thousands."""

    def __init__(self, items: Any) -> None:
        given = items if isinstance(items, list) else ()
        self._items = [item for item in given if isinstance(item, dict)]
        self._by_key: dict[tuple[str, ...], dict[tuple[Any, ...], list[dict[str, Any]]]] = {}

    def find(self, key: Key) -> dict[str, Any] | None:
        """The item of that key."""
        return next(iter(self.all(key)), None)

    def all(self, key: Key) -> list[dict[str, Any]]:
        """All items of that key."""
        fields = tuple(name for name, _ in key)
        found = self._by_key.get(fields)
        if found is None:
            if len(self._by_key) == _KINDS_OF_KEYS:
                return []
            found = self._by_key[fields] = {}
            for item in self._items:
                # A key that is empty is left out of the item.
                there = tuple(_plain(item.get(name, "")) for name in fields)
                found.setdefault(there, []).append(item)
        return found.get(tuple(_plain(value) for _, value in key), [])


_KINDS_OF_KEYS: Final = 4
"""A list's items have the same fields for a key; somebody may write down others."""


def _plain(value: Any) -> Any:
    return repr(value) if isinstance(value, dict | list) else value


def _find(items: Iterable[Any], key: Key) -> dict[str, Any] | None:
    for item in items:
        # A key that is empty is left out of the item.
        if isinstance(item, dict) and all(item.get(name, "") == value for name, value in key):
            return item
    return None


def _at(value: Any, path: Iterable[str | Key]) -> Any:
    for step in path:
        if isinstance(step, tuple):
            value = _find(value, step) if isinstance(value, list) else None
        else:
            value = value.get(step) if isinstance(value, dict) else None
    return value


def _branch(content: dict[str, Any], path: Iterable[str]) -> dict[str, Any]:
    for step in path:
        content = content.setdefault(step, {})
    return content
