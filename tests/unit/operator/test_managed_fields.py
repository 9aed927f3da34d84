"""What the operator has applied is read back from an object, and nothing of anybody else's."""

from __future__ import annotations

from typing import Any

import pytest

from inferencemodel_operator import drift, names
from inferencemodel_operator.managed_fields import applied, as_applied, step

FIELDS: dict[str, Any] = {
    "f:spec": {
        "f:replicas": {},
        "f:template": {
            "f:metadata": {"f:labels": {"f:inferencemodel.dev/name": {}}},
            "f:spec": {
                "f:containers": {
                    'k:{"name":"model-server"}': {
                        ".": {},
                        "f:name": {},
                        "f:args": {},
                        "f:ports": {
                            'k:{"containerPort":8500,"protocol":"TCP"}': {".": {}, "f:name": {}}
                        },
                    }
                },
                "f:volumes": {'k:{"name":"tmp"}': {".": {}, "f:emptyDir": {}, "f:name": {}}},
            },
        },
    }
}
SPEC: dict[str, Any] = {
    "replicas": 3,
    "template": {
        "metadata": {"labels": {"inferencemodel.dev/name": "m", "theirs": "x"}},
        "spec": {
            "containers": [
                {"name": "injected", "image": "sidecar"},
                {
                    "name": "model-server",
                    "args": ["--a", "--b"],
                    "terminationMessagePath": "/dev/termination-log",
                    "ports": [
                        {"name": "grpc", "containerPort": 8500, "protocol": "TCP"},
                        {"name": "theirs", "containerPort": 9, "protocol": "TCP"},
                    ],
                },
            ],
            "restartPolicy": "Always",
            "volumes": [{"name": "tmp", "emptyDir": {}}],
        },
    },
}
OURS = {
    "metadata": {"labels": {"inferencemodel.dev/name": "m"}},
    "spec": {
        "containers": [
            {
                "name": "model-server",
                "args": ["--a", "--b"],
                "ports": [{"name": "grpc", "containerPort": 8500, "protocol": "TCP"}],
            }
        ],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
    },
}


def managed(**entry: Any) -> dict[str, Any]:
    given = {"manager": names.FIELD_MANAGER, "operation": "Apply", "fieldsV1": FIELDS, **entry}
    others = {"manager": "kubectl-edit", "operation": "Update", "fieldsV1": {"f:spec": {}}}
    return {"metadata": {"managedFields": [others, given]}, "spec": SPEC}


def test_what_others_and_the_defaults_added_is_left_out() -> None:
    assert applied(managed(), "spec", "template") == OURS


@pytest.mark.parametrize(
    "entry", [{"manager": "helm"}, {"operation": "Other"}, {"subresource": "status"}]
)
def test_another_managers_fields_are_not_the_operators(entry: dict[str, str]) -> None:
    assert applied(managed(**entry), "spec", "template") is None
    assert as_applied(managed(**entry)) is None


def test_what_is_created_is_the_operators_and_counts_as_applied_when_that_is_asked_for() -> None:
    created = managed(operation="Update", time="2026-01-01T00:00:00Z")
    assert applied(created, "spec", "template") == OURS
    theirs, ours = created["metadata"]["managedFields"]
    assert as_applied(created) == [theirs, {**ours, "operation": "Apply"}]


def test_what_is_applied_is_not_taken_over_again() -> None:
    both = managed()
    patched = {"manager": names.FIELD_MANAGER, "operation": "Update", "fieldsV1": {"f:data": {}}}
    both["metadata"]["managedFields"].append(patched)
    assert as_applied(both) is None
    assert applied(both, "spec", "template") == OURS
    assert as_applied({"metadata": {}}) is None


def test_an_object_that_tells_of_no_manager_has_nothing_applied() -> None:
    assert applied({"metadata": {}, "spec": SPEC}, "spec", "template") is None
    assert applied(managed(), "spec", "strategy") is None


@pytest.mark.parametrize("illegible", ["k:{", "k:7", "k:" + "[" * 5000, "k:"])
def test_an_item_whose_key_can_not_be_read_is_no_item_of_anything(illegible: str) -> None:
    volumes = {**FIELDS["f:spec"]["f:template"]["f:spec"]["f:volumes"], illegible: {}}
    fields = {"f:spec": {"f:template": {"f:spec": {"f:volumes": volumes}}}}
    template = applied(managed(fieldsV1=fields), "spec", "template")
    assert template["spec"]["volumes"] == [{"name": "tmp", "emptyDir": {}}]
    assert isinstance(step(illegible), str)


def test_what_the_operator_has_applied_is_read_as_what_others_have_set() -> None:
    key = 'k:{"protocol":"TCP","containerPort":8500}'
    assert step(key) == (("containerPort", 8500), ("protocol", "TCP"))
    fields: dict[str, Any] = {"f:spec": {"f:template": {"f:spec": {"f:containers": {
        'k:{"name":"model-server"}': {"f:ports": {key: {}}}}}}}}  # fmt: skip
    theirs = [drift.Foreign("x", fields)]
    template = applied(managed(fieldsV1=fields), "spec", "template")
    wanted = {"kind": "Deployment", "spec": {"template": template}}
    assert drift.extras(theirs, managed(), wanted) == []
    assert drift.taken(theirs, wanted)
