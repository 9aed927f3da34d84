"""What a field manager has applied to an object, read back from the object itself; pure.

``metadata.managedFields`` lists each manager's fields as a tree (FieldsV1): ``f:NAME`` is a field,
``k:{"KEY": VALUE}`` an item of a list by its keys, ``.`` the item itself, and an empty tree a whole
value (Kubernetes' structured-merge-diff).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from inferencemodel_operator import documents, names

if TYPE_CHECKING:
    from collections.abc import Mapping

_FIELD, _ITEM = "f:", "k:"


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
            (documents.loads(name.removeprefix(_ITEM).encode()), below)
            for name, below in fields.items()
            if name.startswith(_ITEM)
        ]
        return [
            {**keys, **_select(item, below)}
            for item in live
            for keys, below in chosen
            if isinstance(item, dict) and keys.items() <= item.items()
        ]
    return live
