"""The API of the releases so far, and what a later one takes away from it.

``python -m tests.support.released v0.2.0`` keeps today's API as that release's.
"""

from __future__ import annotations

import json
import operator
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tests.support import crd

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

FOLDER = Path(__file__).parent / "releases"

_WORDS = ("description", "title", "example", "externalDocs", "message", "messageExpression")
"""What a schema says to people."""
_LOWER = ("minimum", "minLength", "minItems", "minProperties")
_UPPER = ("maximum", "maxLength", "maxItems", "maxProperties")
_SAME = (
    *("type", "format", "default", "pattern", "nullable", "uniqueItems"),
    *("x-kubernetes-list-type", "x-kubernetes-list-map-keys", "x-kubernetes-map-type"),
    *("exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
)
_FREE = ("x-kubernetes-preserve-unknown-fields", "x-kubernetes-int-or-string")


def api() -> dict[str, Any]:
    """Today's versions by name: whether each is served and stored, and its schema without words."""
    definition = yaml.safe_load(crd.CRD.read_text())
    return {
        version["name"]: {
            "served": version["served"],
            "storage": version["storage"],
            "schema": _bare(version["schema"]["openAPIV3Schema"]),
        }
        for version in definition["spec"]["versions"]
    }


def releases() -> dict[str, dict[str, Any]]:
    """What was kept of each release."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}


def taken_away(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What a client of the ``old`` API, or an object stored by it, misses in the ``new`` one."""
    found = []
    for name, version in old.items():
        if not new.get(name, {}).get("served"):
            found.append(f"{name} is no longer served")
            continue
        found += _narrower(version["schema"], new[name]["schema"], name)
    return found


def _bare(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_bare(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    bare = {}
    for key, value in schema.items():
        if key == "properties":
            # Fields may be called like the words of a schema.
            bare[key] = {name: _bare(field) for name, field in value.items()}
        elif key not in _WORDS:
            bare[key] = _bare(value)
    return bare


def _narrower(old: Mapping[str, Any], new: Mapping[str, Any], path: str) -> Iterator[str]:
    for key in _SAME:
        if key in new and old.get(key) != new[key]:
            yield f"{path}: {key} is {new[key]!r}, was {old.get(key)!r}"
        elif key in ("type", "default", "format") and key in old and key not in new:
            yield f"{path}: {key} is gone, was {old[key]!r}"
    for keys, is_narrower in ((_LOWER, operator.gt), (_UPPER, operator.lt)):
        for key in keys:
            if key in new and (key not in old or is_narrower(new[key], old[key])):
                yield f"{path}: {key} is {new[key]}, was {old.get(key)}"
    yield from (f"{path}: {key} is gone" for key in _FREE if old.get(key) and not new.get(key))
    if "enum" in new:
        missing = [value for value in old.get("enum", ["anything"]) if value not in new["enum"]]
        yield from (f"{path}: {value!r} is no longer taken" for value in missing)
    yield from (
        f"{path}.{name} has to be there now"
        for name in new.get("required", [])
        if name not in old.get("required", [])
    )
    ruled = {rule["rule"] for rule in old.get("x-kubernetes-validations", [])}
    yield from (
        f"{path}: the rule {rule['rule']!r} is new"
        for rule in new.get("x-kubernetes-validations", [])
        if rule["rule"] not in ruled
    )
    yield from (
        f"{path}: {key} is new or another one"
        for key in ("allOf", "anyOf", "oneOf", "not")
        if key in new and new[key] != old.get(key)
    )
    keeps_any = new.get("x-kubernetes-preserve-unknown-fields")
    for name, field in old.get("properties", {}).items():
        if name in new.get("properties", {}):
            yield from _narrower(field, new["properties"][name], f"{path}.{name}")
        elif not keeps_any:
            yield f"{path}.{name} is gone"
    for key, step in (("items", "[]"), ("additionalProperties", ".*")):
        if isinstance(old.get(key), dict):
            if isinstance(new.get(key), dict):
                yield from _narrower(old[key], new[key], path + step)
            elif not keeps_any:
                yield f"{path}{step} is gone"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{sys.argv[1]}.json").write_text(json.dumps(api(), separators=(",", ":")) + "\n")
