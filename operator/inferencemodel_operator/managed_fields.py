"""What a field manager has applied to an object, read back from the object itself; pure.

``metadata.managedFields`` lists each manager's fields as a tree (FieldsV1): ``f:NAME`` is a field,
``k:{"KEY": VALUE}`` an item of a list by its keys, ``.`` the item itself, and an empty tree a whole
value (Kubernetes' structured-merge-diff).
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import msgspec

from inferencemodel_operator import names
from inferencemodel_operator.observe.wire import FieldManager

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Key = tuple[tuple[str, Any], ...]
"""What tells an item of a list from the others: its key fields with their values, in order."""

APPLY: Final = "Apply"
UPDATE: Final = "Update"
"""What isn't applied: created, patched, replaced."""
_FIELD: Final = "f:"


def step(name: str) -> str | Key:
    """One part of FieldsV1: the field's name, or the item's key."""
    kind, _, rest = name.partition(":")
    if kind == "k":
        # Anybody may have written it; one that can't be read is no item of anything.
        with suppress(ValueError, RecursionError):
            return tuple(sorted(msgspec.json.decode(rest, type=dict[str, Any]).items()))
    return rest


def own(managers: Iterable[FieldManager]) -> FieldManager | None:
    """The entry that tells what the operator wants of an object; None where it wants nothing.

    It is that of its applies, or, before the first of them, that of its create.
    """
    by_operation = {
        entry.operation: entry
        for entry in managers
        if entry.manager == names.FIELD_MANAGER and not entry.subresource
    }
    return by_operation.get(APPLY) or by_operation.get(UPDATE)


def as_applied(obj: Mapping[str, Any]) -> list[Any] | None:
    """An object's field managers, the operator's as if it had applied what it has created.

    An apply takes back what an earlier one has set, but not what a create has. client-go's
    ``csaupgrade`` does the same for kubectl.

    Returns:
        None where the operator has applied something already, or has created nothing.
    """
    raw = obj["metadata"].get("managedFields") or []
    entries = msgspec.convert(raw, list[FieldManager])
    created = own(entries)
    if created is None or created.operation == APPLY:
        return None
    return [
        {**there, "operation": APPLY} if entry is created else there
        for there, entry in zip(raw, entries, strict=True)
    ]


def applied(obj: Mapping[str, Any], *path: str) -> Any:
    """The part of an object below a path that the operator has set; None where it has none.

    Of one that it has created and not applied since, the API server's defaults are in it, too.
    """
    entry = own(msgspec.convert(obj["metadata"].get("managedFields") or [], list[FieldManager]))
    fields: Any = entry.fields_v1 if entry is not None else {}
    live: Any = obj
    for name in path:
        if not isinstance(live, dict) or f"{_FIELD}{name}" not in fields or name not in live:
            return None
        live, fields = live[name], fields[f"{_FIELD}{name}"]
    return _select(live, fields)


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
