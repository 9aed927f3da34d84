"""A form made from a model's own signature, and a request made from the form. Pure."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

import msgspec

from kubectl_inferencemodel.errors import AnswerError
from kubectl_inferencemodel.predictions import BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kubectl_inferencemodel.predictions import Described

_WHOLE: Final = frozenset(
    f"DT_{sign}INT{bits}" for sign in ("", "U") for bits in ("8", "16", "32", "64")
)
_FRACTIONS: Final = frozenset({"DT_FLOAT", "DT_DOUBLE", "DT_HALF", "DT_BFLOAT16"})
_FIELDS: Final = 60
"""A signature of more inputs is asked by JSON."""
_EXAMPLE: Final = 4
"""So many values of a long dimension are shown as an example."""


class Kind(StrEnum):
    """How a value is typed."""

    TEXT = "text"
    WHOLE = "whole"
    FRACTION = "fraction"
    TRUTH = "truth"
    JSON = "json"


class Field(msgspec.Struct, frozen=True):
    """One input of a signature."""

    name: str
    kind: Kind
    says: str
    """Type and shape, as people write them: ``float32[224, 224, 3]``."""
    example: str = ""


class Form(msgspec.Struct, frozen=True):
    """One signature."""

    signature: str
    fields: tuple[Field, ...]
    takes_photo: bool
    """Whether its one input takes a file's bytes."""


def forms(model: Described) -> list[Form]:
    """A form for each signature, the one that is asked by default first."""
    names = sorted(model.inputs, key=lambda name: (name != "serving_default", name))
    return [_form(model, name) for name in names]


def request(form: Form, values: Mapping[str, str]) -> bytes:
    """A predict request of the REST API with one instance.

    Raises:
        AnswerError: a value is none of its input's type; names the input.
    """
    instance = {field.name: _value(field, values.get(field.name, "")) for field in form.fields}
    return json.dumps({"signature_name": form.signature, "instances": [instance]}).encode()


def _form(model: Described, signature: str) -> Form:
    inputs = model.inputs[signature]
    shapes = model.shapes.get(signature, {})
    fields = [
        _field(name, dtype, shapes.get(name)) for name, dtype in sorted(inputs.items())[:_FIELDS]
    ]
    return Form(signature, tuple(fields), list(inputs.values()) == [BYTES])


def _field(name: str, dtype: str, shape: tuple[int, ...] | None) -> Field:
    """One input; its first dimension counts the instances, so it isn't typed."""
    one = None if shape is None else shape[1:]
    kind = _kind(dtype) if one == () else Kind.JSON
    example = "" if kind is not Kind.JSON else json.dumps(_example(dtype, one or (1,)))
    size = "?" if one is None else ", ".join("any" if size < 0 else str(size) for size in one)
    says = f"{dtype.removeprefix('DT_').lower()}{f'[{size}]' if size else ''}"
    return Field(name, kind, says, example)


def _kind(dtype: str) -> Kind:
    if dtype == BYTES:
        return Kind.TEXT
    if dtype in _WHOLE:
        return Kind.WHOLE
    if dtype in _FRACTIONS:
        return Kind.FRACTION
    return Kind.TRUTH if dtype == "DT_BOOL" else Kind.JSON


def _example(dtype: str, shape: tuple[int, ...]) -> Any:
    if not shape or len(shape) > _EXAMPLE:
        if dtype == BYTES:
            return "text"
        return False if dtype == "DT_BOOL" else 0 if dtype in _WHOLE else 0.0
    count = min(max(shape[0], 1), _EXAMPLE)
    return [_example(dtype, shape[1:])] * count


def _value(field: Field, text: str) -> Any:
    if field.kind is Kind.TEXT:
        return text
    if field.kind is Kind.TRUTH:
        return text == "true"
    try:
        if field.kind is Kind.WHOLE:
            return int(text)
        if field.kind is Kind.FRACTION:
            return float(text)
        return json.loads(text)
    except (ValueError, RecursionError):
        given = repr(text[:40]) if text else "an empty field"
        what = "JSON" if field.kind is Kind.JSON else "a number"
        raise AnswerError(f"input {field.name} takes {field.says}; {given} is not {what}") from None
