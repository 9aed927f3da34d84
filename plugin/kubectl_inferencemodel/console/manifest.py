"""An InferenceModel as YAML, with what nobody has written and the definition has filled in. Pure.

The API server doesn't keep who wrote a value that is the definition's default. So a value counts as
filled in where it is the default, and neither a declared field nor in what kubectl applied last.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import msgspec
import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"
_DEPTH: Final = 40
_LINES: Final = 4000
"""More are left out."""
_MISSING: Final = object()
_SHOWN: Final = ("apiVersion", "kind", "metadata", "spec", "status")


class Line(msgspec.Struct, frozen=True):
    """One line."""

    text: str
    is_default: bool = False


def lines(obj: Mapping[str, Any], schema: Mapping[str, Any] | None) -> list[Line]:
    """The YAML of an object, line by line.

    Args:
        obj: as the API server gives it.
        schema: what the API server publishes of its kind (OpenAPI v3); None where it isn't known,
            so that no line is marked.
    """
    metadata = dict(obj.get("metadata") or {})
    declared = _declared(metadata)
    metadata.pop("managedFields", None)
    annotations = dict(metadata.get("annotations") or {})
    annotations.pop(_LAST_APPLIED, None)
    if annotations:
        metadata["annotations"] = annotations
    else:
        metadata.pop("annotations", None)
    whole = {**obj, "metadata": metadata}
    shown: dict[str, Any] = {key: whole[key] for key in _SHOWN if key in whole}
    kind = _kind(schema)
    found: list[Line] = []
    for line in _mapping(shown, kind, declared, 0):
        if len(found) == _LINES:
            found.append(Line("# … and more"))
            break
        found.append(line)
    return found


def _kind(schema: Mapping[str, Any] | None) -> Any:
    """The schema of InferenceModels."""
    schemas = ((schema or {}).get("components") or {}).get("schemas") or {}
    return next(
        (found for name, found in schemas.items() if name.endswith(".InferenceModel")), None
    )


def _mapping(value: Mapping[str, Any], schema: Any, declared: Any, depth: int) -> Iterator[Line]:
    indent = "  " * depth
    properties = schema.get("properties", {}) if isinstance(schema, dict) else {}
    for key, part in value.items():
        name = _scalar(key)
        below = properties.get(key)
        owned = declared.get(key, _MISSING) if isinstance(declared, dict) else _MISSING
        default = below.get("default", _MISSING) if isinstance(below, dict) else _MISSING
        is_default = owned is _MISSING and default is not _MISSING and part == default
        if depth < _DEPTH and isinstance(part, dict) and part:
            yield Line(f"{indent}{name}:", is_default)
            for line in _mapping(part, below, owned, depth + 1):
                yield Line(line.text, line.is_default or is_default)
        elif isinstance(part, list) and part:
            yield Line(f"{indent}{name}:", is_default)
            yield from (Line(f"{indent}{text}", is_default) for text in _dumped(part))
        else:
            yield Line(f"{indent}{name}: {_scalar(part)}", is_default)


def _dumped(value: Any) -> list[str]:
    try:
        return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=200).splitlines()
    except RecursionError:
        return ["# nested too deep to be shown"]


def _scalar(value: Any) -> str:
    """A value on one line: a number, a text in quotes where YAML asks for them, or `{}`."""
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=2**31)
    return text.removesuffix("\n").removesuffix("\n...")


def _declared(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that somebody has declared, as nested names."""
    found: dict[str, Any] = {}
    for entry in metadata.get("managedFields") or ():
        if isinstance(entry, dict) and entry.get("operation") == "Apply":
            _names(entry.get("fieldsV1"), found, 0)
    try:
        applied = json.loads((metadata.get("annotations") or {}).get(_LAST_APPLIED, "{}"))
    except (ValueError, TypeError, RecursionError):
        applied = {}
    _merge(applied, found, 0)
    return found


def _names(fields: Any, into: dict[str, Any], depth: int) -> None:
    if isinstance(fields, dict) and depth < _DEPTH:
        for key, below in fields.items():
            if key.startswith("f:"):
                _names(below, into.setdefault(key[2:], {}), depth + 1)


def _merge(value: Any, into: dict[str, Any], depth: int) -> None:
    if isinstance(value, dict) and depth < _DEPTH:
        for key, below in value.items():
            _merge(below, into.setdefault(key, {}), depth + 1)
