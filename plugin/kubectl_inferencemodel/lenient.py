"""Values of another release, read as far as they are understood."""

from __future__ import annotations

import types
from typing import Any, TypeVar, Union, get_args, get_origin

import msgspec

T = TypeVar("T")


def read(value: object, kind: type[T]) -> T:
    """Convert, and leave out what has another shape than this release knows.

    A field is left out where it has a default, an element where the rest of its list is fine.

    Raises:
        msgspec.ValidationError: something is wrong, and nothing can stand in its place.
    """
    found: T = _read(value, kind)
    return found


def _read(value: object, kind: Any) -> Any:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError:
        if isinstance(value, dict) and isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            return _fields(value, kind)
        if isinstance(value, list) and get_origin(kind) is tuple:
            return tuple(_elements(value, get_args(kind)[0]))
        inner = _without_none(kind)
        if inner is None:
            raise
    return _read(value, inner)


def _fields(value: dict[str, object], kind: type[msgspec.Struct]) -> msgspec.Struct:
    found = {}
    for field in msgspec.structs.fields(kind):
        if field.encode_name not in value:
            continue
        try:
            found[field.name] = _read(value[field.encode_name], field.type)
        except msgspec.ValidationError:
            if field.required:
                raise
    missing = [
        field.encode_name
        for field in msgspec.structs.fields(kind)
        if field.required and field.name not in found
    ]
    if missing:
        raise msgspec.ValidationError(f"Object missing required field `{missing[0]}`")
    return kind(**found)


def _elements(values: list[object], kind: Any) -> list[Any]:
    found = []
    for value in values:
        try:
            found.append(_read(value, kind))
        except msgspec.ValidationError:
            continue
    return found


def _without_none(kind: Any) -> Any:
    """What else than None a value may be; None for a kind that is no such choice."""
    if get_origin(kind) not in (Union, types.UnionType):
        return None
    arms = [arm for arm in get_args(kind) if arm is not type(None)]
    return arms[0] if len(arms) == 1 else None
