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
    return [
        Extra(other.manager, path)
        for other in others
        for path in _unwanted(other.fields, wanted, ())
        if not _is_theirs(path, live, wanted)
    ]


def trimmed(live: Mapping[str, Any], unwanted: Iterable[Extra]) -> dict[str, Any]:
    """The live object without these."""
    content: dict[str, Any] = copy.deepcopy(dict(live))
    for extra in unwanted:
        _remove(content, extra.path)
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
    for field in _SIDECARS if wanted["kind"] == "Deployment" else ():
        items = [
            copy.deepcopy(item)
            for item in _at(live, (*_POD, field)) or ()
            if _is_theirs((*_POD, field, _key(field, item)), live, wanted)
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
    for name, below in content.items():
        found, value = _wanted(name, wanted)
        if found and (not below or set(below) == {"."} or _holds(below, value)):
            return True
    return False


def _unwanted(content: Mapping[str, Any], wanted: Any, path: Path) -> Iterator[Path]:
    """The topmost fields of a set that are not in what is wanted."""
    for name, below in content.items():
        found, value = _wanted(name, wanted)
        if name == "." or not isinstance(wanted, dict | list):
            continue
        step = managed_fields.step(name)
        if found:
            yield from _unwanted(below, value, (*path, step))
        else:
            yield (*path, step)


def _wanted(name: str, wanted: Any) -> tuple[bool, Any]:
    """Whether a field or an item of a set is wanted, and how."""
    if name == ".":
        return False, None
    step = managed_fields.step(name)
    if isinstance(step, tuple):
        item = _find(wanted, step) if isinstance(wanted, list) else None
        return item is not None, item
    return (True, wanted[step]) if isinstance(wanted, dict) and step in wanted else (False, None)


def _is_theirs(path: Path, live: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    kind = wanted["kind"]
    if any(_matches(path, pattern) for pattern in _OTHERS.get(kind, ())):
        return True
    if kind != "Deployment" or path[:3] != _POD or len(path) < 5:
        return False
    field, key = path[3], path[4]
    if field not in _SIDECARS or not isinstance(key, tuple):
        return False
    if len(path) == 5:
        return _is_whole(field, live, wanted) and _find(_at(wanted, path[:4]) or [], key) is None
    return len(path) == 7 and path[5] == "volumeMounts" and _is_mount_of_theirs(path, live, wanted)


def _is_whole(field: str | Key, live: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether all of the operator's items are in a list that others may add to.

    Where one is missing, it may be there under another name, so nothing beside the wanted ones is
    left; a sidecar is then injected anew.
    """
    there = _at(live, (*_POD, field)) or []
    return all(
        _find(there, _key(str(field), item)) is not None
        for item in _at(wanted, (*_POD, field)) or ()
    )


def _is_mount_of_theirs(path: Path, live: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    mount = _at(live, path)
    name = mount.get("name") if isinstance(mount, dict) else None
    return name is not None and _is_theirs((*_POD, "volumes", (("name", name),)), live, wanted)


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


def _remove(content: dict[str, Any], path: Path) -> None:
    parent, last = _at(content, path[:-1]), path[-1]
    if isinstance(last, str) and isinstance(parent, dict):
        parent.pop(last, None)
    elif isinstance(last, tuple) and isinstance(parent, list):
        parent[:] = [item for item in parent if _find([item], last) is None]


def _branch(content: dict[str, Any], path: Iterable[str]) -> dict[str, Any]:
    for step in path:
        content = content.setdefault(step, {})
    return content
