from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferencemodel_operator import documents, drift, nesting
from inferencemodel_operator.observe import objects, wire


def nested(levels: int, *, beside: str = "") -> bytes:
    return (b'{"f:a":' * levels) + b"{}" + (b"%s}" % beside.encode()) * levels


def depth(value: Any) -> int:
    levels = 0
    while value:
        levels, value = levels + 1, value["f:a"] if isinstance(value, dict) else value[0]
    return levels


@pytest.mark.parametrize("beside", ["", ',"z":{}', ',"z":["]}",{"y":"\\\\\\""}]'])
def test_what_is_nested_deeper_than_any_object_is_cut(beside: str) -> None:
    found = documents.loads(b'{"metadata":{"name":"m"},"deep":%s}' % nested(5000, beside=beside))
    assert found["metadata"] == {"name": "m"}
    assert 50 < depth(found["deep"]) < 70


def test_what_comes_beside_it_stays() -> None:
    deep = b"[" * 5000 + b"]" * 5000
    text = b'[{"name":"a"},%s,{"name":"b{["},{"c":[%s,2]}]' % (deep, deep)
    a, _, b, c = documents.loads(text)
    assert (a, b, c["c"][1]) == ({"name": "a"}, {"name": "b{["}, 2)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=30,
)


@given(JSON)
def test_whatever_is_not_deep_is_the_same(value: Any) -> None:
    text = orjson.dumps([value, [[]] * 600])
    assert nesting.shallow(text) == text
    assert json.loads(nesting.shallow(text))[0] == value


@pytest.mark.parametrize("text", [b"", b"{", b"[" * 5000, b"}" * 5000, b'"' + b"{" * 5000])
def test_what_is_no_json_is_refused(text: bytes) -> None:
    with pytest.raises(orjson.JSONDecodeError):
        documents.loads(text)


@pytest.mark.parametrize("levels", [100, 800, 1000])
def test_a_childs_field_managers_may_be_nested_as_they_like(levels: int) -> None:
    fields = orjson.loads(nested(levels))
    managers = [
        {"manager": name, "operation": operation, "fieldsV1": fields}
        for name, operation in (("inferencemodel-operator", "Apply"), ("x", "Update"))
    ]
    owner = {
        "apiVersion": "inferencemodel.dev/v1alpha1",
        "kind": "InferenceModel",
        "name": "m",
        "uid": "u",
        "controller": True,
    }
    metadata = {
        "name": "m",
        "namespace": "vision",
        "uid": "uid",
        "resourceVersion": "1",
        "ownerReferences": [owner],
        "managedFields": managers,
    }
    assert objects.child("Service", {"metadata": metadata}).owner_uid == "u"


def test_a_key_that_cannot_be_read_is_no_item() -> None:
    key = "k:" + '{"port":' + "[" * 50_000 + "]" * 50_000 + "}"
    entry = wire.FieldManager(manager="x", fields_v1={"f:spec": {"f:ports": {key: {}}}})
    wanted = {"kind": "Service", "spec": {"ports": [{"name": "http", "port": 80}]}}
    live = {"spec": {"ports": [{"name": "http", "port": 80}]}}
    found = drift.extras(drift.foreign([entry]), live, wanted)
    assert [extra.manager for extra in found] == ["x"]
    assert drift.trimmed(live, found) == live
