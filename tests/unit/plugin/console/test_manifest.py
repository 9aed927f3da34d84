"""YAML, with what the definition has filled in."""

from __future__ import annotations

import json
from typing import Any

import yaml

from kubectl_inferencemodel.console.manifest import lines

SCHEMA = {
    "components": {
        "schemas": {
            "dev.inferencemodel.v1alpha1.InferenceModel": {
                "properties": {
                    "spec": {
                        "properties": {
                            "replicas": {"default": 1},
                            "suspend": {"default": False},
                            "tags": {"default": ["a"]},
                            "model": {"properties": {"polling": {"default": "30s"}}},
                        }
                    }
                }
            },
            "dev.inferencemodel.v1alpha1.InferenceModelList": {},
        }
    }
}


def resource(*declared: str, **metadata: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for path in declared:
        place = fields
        for part in path.split("."):
            place = place.setdefault(f"f:{part}", {})
    return {
        "apiVersion": "inferencemodel.dev/v1alpha1",
        "kind": "InferenceModel",
        "metadata": {
            "name": "imagenet",
            "managedFields": [{"operation": "Apply", "manager": "me", "fieldsV1": fields}],
            **metadata,
        },
        "spec": {
            "replicas": 1,
            "suspend": False,
            "tags": ["a"],
            "model": {"storageUri": "gs://b/m", "polling": "30s"},
        },
    }


def marked(obj: dict[str, Any], schema: Any = SCHEMA) -> list[str]:
    return [line.text.strip() for line in lines(obj, schema) if line.is_default]


def test_what_nobody_has_declared_and_is_the_default_is_marked() -> None:
    found = marked(resource("spec.replicas", "spec.model.storageUri"))
    assert found == ["suspend: false", "tags:", "- a", "polling: 30s"]


def test_a_value_other_than_the_default_is_somebodys() -> None:
    obj = resource()
    obj["spec"]["replicas"] = 5
    assert "replicas: 5" not in marked(obj)


def test_what_kubectl_applied_last_counts_as_declared() -> None:
    applied = {"spec": {"suspend": False, "model": {"polling": "30s"}}}
    text = json.dumps(applied)
    obj = resource(annotations={"kubectl.kubernetes.io/last-applied-configuration": text})
    assert marked(obj) == ["replicas: 1", "tags:", "- a"]


def test_without_a_schema_nothing_is_marked() -> None:
    assert marked(resource(), None) == []


def test_the_lines_are_the_object_without_its_bookkeeping() -> None:
    obj = resource(
        annotations={"note": "a: b # c", "kubectl.kubernetes.io/last-applied-configuration": "{"}
    )
    obj["spec"]["odd"] = {"yes": "no", "empty": {}, "text": "two\nlines", "none": None, "1": "0x1"}
    text = "\n".join(line.text for line in lines(obj, SCHEMA))
    obj["metadata"].pop("managedFields")
    obj["metadata"]["annotations"].pop("kubectl.kubernetes.io/last-applied-configuration")
    assert yaml.safe_load(text) == obj


def test_an_object_of_any_size_and_depth_is_shown_as_far_as_that_goes() -> None:
    deep: Any = "end"
    for _ in range(3000):
        deep = {"x": deep}
    obj = resource()
    obj["spec"] = {"deep": [deep], "many": {str(n): n for n in range(10_000)}}
    found = lines(obj, SCHEMA)
    assert len(found) == 4001
    assert found[-1].text == "# … and more"
