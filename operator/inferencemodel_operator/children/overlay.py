"""``spec.template.spec``, laid over the operator's own pod spec by strategic merge; pure.

Maps are merged field by field, and lists whose items have a key item by item; any other list is
replaced as a whole, and null takes a field away. The keys are those by which the API server itself
merges the lists of a pod (``x-kubernetes-list-map-keys`` of its OpenAPI document, which a test
compares with `KEYS`), so that ports of one number may differ in their protocol. Of what there can
be only one of, such as a volume's source, the one that is given takes the place of the other, as
``retainKeys`` has it in Kubernetes' own patches.

https://kubernetes.io/docs/tasks/manage-kubernetes-objects/update-api-object-kubectl-patch/
https://github.com/kubernetes/community/blob/main/contributors/devel/sig-api-machinery/strategic-merge-patch.md
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from inferencemodel_operator.children.manifest import Manifest

FIELD: Final = "spec.template.spec"
"""Where it is in an InferenceModel."""

KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "claims": ("name",),
    "containers": ("name",),
    "env": ("name",),
    "ephemeralContainers": ("name",),
    "hostAliases": ("ip",),
    "imagePullSecrets": ("name",),
    "initContainers": ("name",),
    "ports": ("containerPort", "protocol"),
    "resourceClaims": ("name",),
    "schedulingGates": ("name",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
    "volumeDevices": ("devicePath",),
    "volumeMounts": ("mountPath",),
    "volumes": ("name",),
}
"""The lists of a pod that are merged item by item, and what tells their items apart."""
_DEFAULTS: Final = {"protocol": "TCP"}
"""Of keys that may be left out, or be empty."""

HANDLERS: Final = ("exec", "grpc", "httpGet", "sleep", "tcpSocket")
"""What a probe or a hook does; one of them."""
_ONE_OF: Final[Mapping[str, tuple[str, ...]]] = {
    "env": ("value", "valueFrom"),
    "livenessProbe": HANDLERS,
    "postStart": HANDLERS,
    "preStop": HANDLERS,
    "readinessProbe": HANDLERS,
    "startupProbe": HANDLERS,
}
"""Fields of which there can be one, by what has them."""
_ONE_OF_ALL: Final = ("valueFrom", "volumes")
"""What can have one field alone, beside its key."""

_PATCH: Final = "$patch"
_REPLACE, _DELETE, _MERGE = "replace", "delete", "merge"
_OTHER_DIRECTIVES: Final = ("$retainKeys", "$setElementOrder/", "$deleteFromPrimitiveList/")
_GONE: Final = object()

Key = tuple[tuple[str, Any], ...]


class Problem(msgspec.Struct, frozen=True):
    """What is wrong with an overlay."""

    field: str
    """Path in the InferenceModel."""
    why: str
    fix: str


class OverlayError(ValueError):
    """An overlay that can't be laid over anything."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(f"{problem.field}: {problem.why}; {problem.fix}")
        self.problem = problem


def merge(base: Manifest, overlay: Mapping[str, Any]) -> Manifest:
    """A pod spec with an overlay on top of it.

    Raises:
        OverlayError: a list that is merged by keys isn't one of items with keys, or a directive
            can't be followed.
    """
    merged = _merge_map(base, overlay, "", FIELD)
    if not isinstance(merged, dict):
        raise _wrong(f"{FIELD}.{_PATCH}", "it would take away the pod", "leave it out")
    return merged


def key(field: str, there: Mapping[str, Any]) -> Key | None:
    """What tells an item from the others of a list; None where it lacks that."""
    found = tuple((name, there.get(name) or _DEFAULTS.get(name)) for name in KEYS[field])
    return None if any(value is None for _, value in found) else found


def step(field: str, found: Key) -> str:
    """One item of a list, as paths name it: ``containers[name=logger]``."""
    return f"{field}[{','.join(f'{name}={value}' for name, value in found)}]"


def item(items: Any, field: str, wanted: Key) -> Manifest | None:
    """The item of that key in a list, if it is one and has it."""
    for there in items if isinstance(items, list) else ():
        if isinstance(there, dict) and key(field, there) == wanted:
            return there
    return None


def _merge(base: Any, value: Any, field: str, path: str) -> Any:
    # A map may have such a name for a key, too.
    if field in KEYS and (isinstance(value, list) or isinstance(base, list)):
        return _merge_items(base if isinstance(base, list) else [], value, field, path)
    if isinstance(value, dict):
        return _merge_map(base if isinstance(base, dict) else {}, value, field, path)
    if isinstance(value, list):
        # It replaces the one that there is in any case, so what asks for that adds nothing.
        given = (there for there in value if not _is_replacement(there))
        plain = (_merge(None, there, "", path) for there in given)
        return [there for there in plain if there is not _GONE]
    return value


def _merge_map(base: Manifest, overlay: Mapping[str, Any], field: str, path: str) -> Any:
    directive = _directive(overlay, path)
    if directive == _DELETE:
        return _GONE
    merged = {} if directive == _REPLACE else dict(base)
    for name in _rivals(overlay, merged, field):
        del merged[name]
    for name, value in overlay.items():
        if name == _PATCH:
            continue
        found = _GONE if value is None else _merge(merged.get(name), value, name, f"{path}.{name}")
        if found is _GONE:
            merged.pop(name, None)
        else:
            merged[name] = found
    return merged


def _merge_items(base: list[Any], overlay: Any, field: str, path: str) -> list[Any]:
    given = _items(overlay, field, path)
    if any(map(_is_replacement, given)):
        base, given = [], [there for there in given if not _is_replacement(there)]
    keyed = dict(_keyed(given, field, path))
    merged: dict[Key | None, Any] = {key(field, there): there for there in base}
    # What comes before one that is there already in the overlay does so in the pod, too; and what
    # is added keeps its order, also where the overlay turns around what is there.
    places = {found: place for place, found in enumerate(merged)}
    added: list[list[Key]] = [[] for _ in range(len(merged) + 1)]
    place = len(merged)
    for given_key in reversed(keyed):
        if given_key in merged:
            place = min(place, places[given_key])
        else:
            added[place].insert(0, given_key)
    order = [one for index, there in enumerate(merged) for one in (*added[index], there)]
    order += added[-1]
    result = []
    for found in order:
        there = merged.get(found)
        if found is not None and found in keyed:
            where = f"{path.rpartition('.')[0]}.{step(field, found)}"
            there = _merge_map(there or {}, _with_key(keyed[found], found), field, where)
        if there is not _GONE:
            result.append(there)
    return result


def _with_key(there: Manifest, found: Key) -> Manifest:
    """The item with its whole key, unless it is to go."""
    return there if there.get(_PATCH) == _DELETE else {**there, **dict(found)}


def _is_replacement(there: Any) -> bool:
    """Whether an item says of its list that it replaces the one before, and nothing else."""
    return isinstance(there, dict) and there == {_PATCH: _REPLACE}


def _items(overlay: Any, field: str, path: str) -> list[Manifest]:
    if not isinstance(overlay, list) or not all(isinstance(there, dict) for there in overlay):
        names = " and ".join(KEYS[field])
        raise _wrong(path, "it is no list of objects", f"write it as a list of items with {names}")
    return overlay


def _keyed(items: Iterable[Manifest], field: str, path: str) -> Iterable[tuple[Key, Manifest]]:
    seen = set()
    for index, there in enumerate(items):
        found = key(field, there)
        if found is None or any(isinstance(value, dict | list) for _, value in found):
            missing = next(
                name for name in KEYS[field] if not isinstance(there.get(name), str | int)
            )
            raise _wrong(
                f"{path}[{index}].{missing}",
                "it is missing or no plain value, and tells the item from others",
                "set it",
            )
        if found in seen:
            where = f"{path.rpartition('.')[0]}.{step(field, found)}"
            raise _wrong(where, "it is there twice", "leave one of the two out")
        seen.add(found)
        yield found, there


def _rivals(overlay: Mapping[str, Any], base: Manifest, field: str) -> list[str]:
    """The fields that make room for those that are given."""
    if field in _ONE_OF_ALL:
        group = {*base, *overlay} - {*KEYS.get(field, ()), _PATCH}
    else:
        group = set(_ONE_OF.get(field, ()))
    given = {name for name in group if overlay.get(name) is not None}
    return [name for name in base if given and name in group and name not in given]


def _directive(overlay: Mapping[str, Any], path: str) -> str:
    for name in overlay:
        if name.startswith(_OTHER_DIRECTIVES):
            raise _wrong(
                f"{path}.{name}",
                "of the directives of a patch only $patch is known here",
                "leave it out: the order of a list is kept, null takes a field away, and "
                "`$patch: delete` an item",
            )
    found = overlay.get(_PATCH, _MERGE)
    if found not in (_REPLACE, _DELETE, _MERGE):
        raise _wrong(f"{path}.{_PATCH}", f"{found!r} is none", "set replace, delete or merge")
    return str(found)


def _wrong(field: str, why: str, fix: str) -> OverlayError:
    return OverlayError(Problem(field, why, fix))
