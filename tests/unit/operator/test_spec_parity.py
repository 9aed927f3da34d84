"""The CRD and the typed spec are one: compared field by field, in both directions."""

from __future__ import annotations

import types
from typing import Any, Literal, Union, get_args, get_origin

import msgspec
import pytest
import yaml

from inferencemodel_operator import names
from inferencemodel_operator.spec import InferenceModelSpec, Toleration, decode
from inferencemodel_operator.values import Duration, Quantity
from model_poller.status import VersionState
from tests.support.crd import CRD, ROOT

Schema = dict[str, Any]

CRD_OBJECT: Schema = yaml.safe_load(CRD.read_text())
VERSION: Schema = CRD_OBJECT["spec"]["versions"][0]
SPEC: Schema = VERSION["schema"]["openAPIV3Schema"]["properties"]["spec"]

OPAQUE = {
    "spec.autoscaling.behavior",
    "spec.autoscaling.keda.triggers[]",
    "spec.autoscaling.metrics[]",
    "spec.networkPolicy.from[]",
    "spec.networkPolicy.metricsFrom[]",
    "spec.template.affinity",
    "spec.template.spec",
}
"""Typed in the CRD, or by Kubernetes alone: handed on to a child as it is."""

SCALARS = {str: "string", int: "integer", bool: "boolean", float: "number", Duration: "string"}


def differences(path: str, schema: Schema, kind: Any) -> list[str]:
    kind = _without_none(kind)
    if path in OPAQUE:
        return [] if kind == dict[str, Any] else [f"{path}: not handed on as it is"]
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return _object_differences(path, schema, kind)
    if get_origin(kind) is tuple:
        if schema.get("type") != "array":
            return [f"{path}: a list in Python, {schema.get('type')} in the CRD"]
        return differences(f"{path}[]", schema["items"], get_args(kind)[0])
    if get_origin(kind) is dict:
        values = schema.get("additionalProperties")
        if values is None:
            return [f"{path}: a map in Python, not in the CRD"]
        return differences(f"{path}{{}}", values, get_args(kind)[1])
    if get_origin(kind) is Literal:
        listed = sorted(schema.get("enum", []))
        return [] if listed == sorted(get_args(kind)) else [f"{path}: enum {listed} vs {kind}"]
    if kind in (Quantity, int | str):
        return [] if schema.get("x-kubernetes-int-or-string") else [f"{path}: no quantity"]
    wanted = SCALARS[kind]
    if "enum" in schema:
        return [f"{path}: has an enum in the CRD alone"]
    return [] if schema.get("type") == wanted else [f"{path}: {schema.get('type')} vs {wanted}"]


def _object_differences(path: str, schema: Schema, kind: type[msgspec.Struct]) -> list[str]:
    properties: Schema = schema.get("properties", {})
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    found = [f"{path}.{name}: in the CRD alone" for name in properties.keys() - fields.keys()]
    found += [f"{path}.{name}: in Python alone" for name in fields.keys() - properties.keys()]
    required = {name for name, field in fields.items() if field.required}
    if required != set(schema.get("required", [])):
        found.append(f"{path}: required {sorted(required)} vs {schema.get('required')}")
    for name in properties.keys() & fields.keys():
        field = fields[name]
        found += differences(f"{path}.{name}", properties[name], field.type)
        if not field.required and _given(properties[name], kind, name) != _default(field):
            found.append(f"{path}.{name}: defaults differ")
    return found


def _given(schema: Schema, kind: type[msgspec.Struct], name: str) -> Any:
    """The CRD's default as the operator would read it; absence when there is none."""
    field = next(f for f in msgspec.structs.fields(kind) if f.encode_name == name)
    if "default" not in schema:
        return None if _optional(field.type) else msgspec.convert(_empty(field.type), field.type)
    if isinstance(field.default, Duration):
        return Duration.parse(schema["default"])
    if isinstance(field.default, Quantity):
        return Quantity.parse(schema["default"])
    return msgspec.convert(schema["default"], field.type, dec_hook=_no_hook)


def _default(field: msgspec.structs.FieldInfo) -> Any:
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    return field.default


def _no_hook(kind: type, value: object) -> object:
    raise AssertionError(f"a default of {kind} needs a look of its own: {value}")


def _empty(kind: Any) -> Any:
    return [] if get_origin(kind) is tuple else {}


def _optional(kind: Any) -> bool:
    return type(None) in get_args(kind)


def _without_none(kind: Any) -> Any:
    if get_origin(kind) in (Union, types.UnionType) and _optional(kind):
        return Union[*(arm for arm in get_args(kind) if arm is not type(None))]
    return kind


def test_every_field_has_the_same_name_type_default_and_necessity_on_both_sides() -> None:
    assert differences("spec", SPEC, InferenceModelSpec) == []


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"type": "integer"}, "spec.key: integer vs string"),
        ({"enum": ["a"], "type": "string"}, "spec.key: has an enum in the CRD alone"),
        ({"default": "a", "type": "string"}, "spec.key: defaults differ"),
    ],
)
def test_the_comparison_sees_a_field_that_drifts(change: Schema, difference: str) -> None:
    schema: Schema = SPEC["properties"]["template"]["properties"]["tolerations"]["items"]
    drifted = {**schema, "properties": {**schema["properties"], "key": change}}
    assert differences("spec", drifted, Toleration) == [difference]


def test_the_comparison_sees_a_field_that_is_on_one_side_alone() -> None:
    schema: Schema = SPEC["properties"]["template"]["properties"]["tolerations"]["items"]
    properties = {k: v for k, v in schema["properties"].items() if k != "key"}
    drifted = {**schema, "properties": {**properties, "later": {"type": "string"}}}
    assert sorted(differences("spec", drifted, Toleration)) == [
        "spec.key: in Python alone",
        "spec.later: in the CRD alone",
    ]


def test_group_kind_and_version_are_those_of_the_names() -> None:
    spec = CRD_OBJECT["spec"]
    assert spec["group"] == names.GROUP
    assert VERSION["name"] == names.VERSION
    assert spec["names"]["kind"] == names.KIND
    assert spec["names"]["plural"] == names.PLURAL


def test_an_object_that_the_schema_fills_in_is_the_one_that_python_fills_in() -> None:
    given = {"model": {"storageUri": "gs://models/imagenet"}}
    metadata = {"name": "imagenet", "namespace": "vision"}
    filled = filled_in(given, SPEC)
    assert filled["source"]["pollInterval"] == "30s"
    assert decode({"metadata": metadata, "spec": filled}) == decode(
        {"metadata": metadata, "spec": given}
    )


def filled_in(value: Any, schema: Schema) -> Any:
    """The value with the schema's defaults, as the API server fills them in."""
    if not isinstance(value, dict) or "properties" not in schema:
        return value
    properties: Schema = schema["properties"]
    defaults = {name: s["default"] for name, s in properties.items() if "default" in s}
    return {
        name: filled_in(given, properties[name]) for name, given in {**defaults, **value}.items()
    }


def everything(schema: Schema, path: str) -> list[tuple[str, Schema]]:
    found = [(path, schema)]
    for name, child in schema.get("properties", {}).items():
        found += everything(child, f"{path}.{name}")
    for inner in ("items", "additionalProperties"):
        if isinstance(schema.get(inner), dict):
            found += everything(schema[inner], f"{path}[]")
    return found


FIELDS = everything(VERSION["schema"]["openAPIV3Schema"], "")


def test_every_field_is_described_in_whole_sentences() -> None:
    described = {path: s.get("description", "") for path, s in FIELDS if not path.endswith("[]")}
    described.pop(".metadata")
    wrong = [
        path
        for path, text in described.items()
        if not text.strip().endswith(".") or not text[0].isalnum() or "  " in text
    ]
    assert wrong == []


def test_every_rule_of_the_spec_has_a_message_that_names_a_field() -> None:
    rules = [rule for _, s in FIELDS for rule in s.get("x-kubernetes-validations", [])]
    assert len(rules) > 30
    for rule in rules:
        first = rule["message"].split()[0]
        assert "." in first or first in {"annotations", "server.env"}, rule["message"]


def test_every_string_and_list_of_the_spec_is_bounded() -> None:
    unbounded = [
        path
        for path, s in everything(SPEC, "spec")
        if (s.get("type") == "string" and not {"maxLength", "enum"} & s.keys())
        or (s.get("type") == "array" and "maxItems" not in s)
        or ("additionalProperties" in s and "maxProperties" not in s)
    ]
    assert unbounded == []


def leaves(schema: Schema, path: str) -> dict[str, Schema]:
    """The fields that hold a value, and not fields of their own."""
    if path in OPAQUE:
        return {path: schema}
    if "properties" in schema:
        inner = {k: leaves(v, f"{path}.{k}") for k, v in schema["properties"].items()}
        return {path: s for found in inner.values() for path, s in found.items()}
    if schema.get("type") == "array" and "properties" in schema["items"]:
        return leaves(schema["items"], f"{path}[]")
    return {path: schema}


def test_the_states_of_a_version_are_the_pollers_and_the_model_servers() -> None:
    """A state that the schema lacks would have the whole status refused."""
    status: Schema = VERSION["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]
    version: Schema = status["model"]["properties"]["versions"]["items"]["properties"]
    assert set(version["state"]["enum"]) == {*VersionState, "Loading"}


def documented() -> dict[str, list[str]]:
    """The rows of the fields' tables by the field's path."""
    text = (ROOT / "docs" / "inferencemodel.md").read_text()
    fields = ("| `spec.", "| `status.")
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith(fields)]
    return {row[0].strip().strip("`"): [cell.strip() for cell in row[1:]] for row in rows}


def test_every_field_of_the_spec_is_documented_with_its_default_and_necessity() -> None:
    rows = documented()
    fields = leaves(SPEC, "spec")
    assert fields.keys() - rows.keys() == set()
    for path, schema in fields.items():
        kind, default, _ = rows[path]
        if "default" in schema:
            value = schema["default"]
            written = str(value).lower() if isinstance(value, bool) else str(value)
            assert default == f"`{written}`", path
        else:
            assert not default.startswith("`") or path == "spec.server.command", path
        for value in schema.get("enum", []):
            assert value in kind, path


def test_every_field_of_the_status_is_documented() -> None:
    status: Schema = VERSION["schema"]["openAPIV3Schema"]["properties"]["status"]
    conditions = {"status.conditions"}
    fields = {p for p in leaves(status, "status") if not p.startswith("status.conditions[]")}
    assert (fields | conditions) - documented().keys() == set()


def test_nothing_is_documented_that_is_not_there() -> None:
    assert documented().keys() - {path.lstrip(".") for path, _ in FIELDS} == set()
