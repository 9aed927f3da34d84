"""What a field manager has applied to an object, read back from the object itself; pure.

``metadata.managedFields`` lists each manager's fields as a tree (FieldsV1): ``f:NAME`` is a field,
``k:{"KEY": VALUE}`` an item of a list by its keys, ``.`` the item itself, and an empty tree a whole
value (Kubernetes' structured-merge-diff).
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from inferencemodel_operator import names

if TYPE_CHECKING:
    from collections.abc import Mapping

Key = tuple[tuple[str, Any], ...]
"""What tells an item of a list from the others: its key fields with their values, in order."""

_FIELD = "f:"


def step(name: str) -> str | Key:
    """One part of FieldsV1: the field's name, or the item's key."""
    kind, _, rest = name.partition(":")
    if kind == "k":
        # Anybody may have written it; one that can't be read is no item of anything.
        with suppress(ValueError, RecursionError):
            return tuple(sorted(msgspec.json.decode(rest, type=dict[str, Any]).items()))
    return rest


def applied(obj: Mapping[str, Any], *path: str) -> Any:
    """The part of an object below a path that the operator has applied; None where it has none."""
    fields: Any = _fields(obj)
    live: Any = obj
    for name in path:
        if not isinstance(live, dict) or f"{_FIELD}{name}" not in fields or name not in live:
            return None
        live, fields = live[name], fields[f"{_FIELD}{name}"]
    return _select(live, fields)


def _fields(obj: Mapping[str, Any]) -> Mapping[str, Any]:
    for entry in obj["metadata"].get("managedFields") or ():
        if (
            entry.get("manager") == names.FIELD_MANAGER
            and entry.get("operation") == "Apply"
            and not entry.get("subresource")
        ):
            found: Mapping[str, Any] = entry.get("fieldsV1") or {}
            return found
    return {}


def _select(live: Any, fields: Mapping[str, Any]) -> Any:
    if not fields:
        return live
    if isinstance(live, dict):
        return {
            name: _select(value, fields[f"{_FIELD}{name}"])
            for name, value in live.items()
            if f"{_FIELD}{name}" in fields
        }
    if isinstance(live, list):
        chosen = [
            (dict(key), below)
            for name, below in fields.items()
            if isinstance(key := step(name), tuple)
        ]
        return [
            {**keys, **_select(item, below)}
            for item in live
            for keys, below in chosen
            if isinstance(item, dict) and keys.items() <= item.items()
        ]
    return live
