"""``spec.template.spec``, laid over the operator's own pod spec."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferencemodel_operator.children import overlay
from inferencemodel_operator.children.overlay import OverlayError, merge

Spec = dict[str, Any]

BASE: Spec = {
    "securityContext": {"runAsUser": 65532, "runAsNonRoot": True},
    "tolerations": [{"key": "a", "operator": "Exists"}],
    "nodeSelector": {"disk": "fast"},
    "initContainers": [{"name": "poller", "env": [{"name": "A", "value": "1"}]}],
    "containers": [
        {
            "name": "model-server",
            "args": ["--a", "--b"],
            "ports": [{"name": "grpc", "containerPort": 8500, "protocol": "TCP"}],
            "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
            "startupProbe": {"tcpSocket": {"port": "grpc"}, "periodSeconds": 1},
        }
    ],
    "volumes": [{"name": "models", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}],
}


def server(merged: Spec) -> Spec:
    (found,) = (there for there in merged["containers"] if there["name"] == "model-server")
    made: Spec = found
    return made


# -- what Kubernetes' own strategic merge does


def test_maps_are_merged_field_by_field_and_null_takes_a_field_away() -> None:
    given = {
        "securityContext": {"runAsUser": None, "fsGroup": 1},
        "nodeSelector": {"gpu": "yes"},
        "hostPID": None,
    }
    merged = merge(BASE, given)
    assert merged["securityContext"] == {"runAsNonRoot": True, "fsGroup": 1}
    assert merged["nodeSelector"] == {"disk": "fast", "gpu": "yes"}
    assert "hostPID" not in merged


def test_items_with_a_key_are_merged_and_others_are_added_behind_them() -> None:
    given = {
        "containers": [
            {
                "name": "model-server",
                "volumeMounts": [
                    {"mountPath": "/tmp", "name": "mine"},
                    {"mountPath": "/a", "name": "a"},
                ],
                "ports": [{"containerPort": 8500, "protocol": "UDP"}, {"containerPort": 9000}],
            },
            {"name": "logs", "image": "logs"},
        ]
    }
    merged = merge(BASE, given)
    assert [there["name"] for there in merged["containers"]] == ["model-server", "logs"]
    assert server(merged)["volumeMounts"] == [
        {"name": "mine", "mountPath": "/tmp"},
        {"mountPath": "/a", "name": "a"},
    ]
    assert [(there["containerPort"], there["protocol"]) for there in server(merged)["ports"]] == [
        (8500, "TCP"),
        (8500, "UDP"),
        (9000, "TCP"),
    ]
    assert server(merged)["args"] == ["--a", "--b"]


@pytest.mark.parametrize("protocol", [None, ""])
def test_an_empty_protocol_is_that_of_a_port_without_one(protocol: str | None) -> None:
    port = {"containerPort": 8500, "protocol": protocol, "hostPort": 1}
    merged = merge(BASE, {"containers": [{"name": "model-server", "ports": [port]}]})
    assert server(merged)["ports"] == [
        {"name": "grpc", "containerPort": 8500, "protocol": "TCP", "hostPort": 1}
    ]


def test_any_other_list_takes_the_place_of_the_one_before() -> None:
    given = {"tolerations": [{"key": "b"}], "containers": [{"name": "model-server", "args": []}]}
    merged = merge(BASE, given)
    assert merged["tolerations"] == [{"key": "b"}]
    assert server(merged)["args"] == []


def test_what_is_written_before_an_item_comes_before_it() -> None:
    names = ("first", "second", "poller", "last")
    merged = merge(BASE, {"initContainers": [{"name": name} for name in names]})
    assert [there["name"] for there in merged["initContainers"]] == list(names)


@pytest.mark.parametrize(
    ("given", "volume"),
    [
        ({"sizeLimit": "1Gi"}, {"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}}),
        (None, {"name": "tmp"}),
    ],
)
def test_a_volume_keeps_the_source_that_is_changed(given: Any, volume: Spec) -> None:
    merged = merge(BASE, {"volumes": [{"name": "tmp", "emptyDir": given}]})
    assert merged["volumes"] == [{"name": "models", "emptyDir": {}}, volume]


def test_of_what_there_can_be_one_the_given_one_takes_the_place_of_the_other() -> None:
    given = {
        "volumes": [{"name": "tmp", "hostPath": {"path": "/x"}}],
        "initContainers": [
            {
                "name": "poller",
                "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "x"}}}],
            }
        ],
        "containers": [{"name": "model-server", "startupProbe": {"exec": {"command": ["true"]}}}],
    }
    merged = merge(BASE, given)
    assert merged["volumes"][1] == {"name": "tmp", "hostPath": {"path": "/x"}}
    (variable,) = merged["initContainers"][0]["env"]
    assert "value" not in variable
    assert server(merged)["startupProbe"] == {"exec": {"command": ["true"]}, "periodSeconds": 1}


@pytest.mark.parametrize(
    ("given", "field", "result"),
    [
        ({"securityContext": {"$patch": "replace", "a": 1}}, "securityContext", {"a": 1}),
        ({"securityContext": {"$patch": "merge", "runAsUser": 1}}, "securityContext",
         {"runAsUser": 1, "runAsNonRoot": True}),
        ({"volumes": [{"name": "tmp", "$patch": "delete"}]}, "volumes",
         [{"name": "models", "emptyDir": {}}]),
        ({"volumes": [{"$patch": "replace"}, {"name": "a"}]}, "volumes", [{"name": "a"}]),
        ({"volumes": [{"name": "tmp", "$patch": "replace", "secret": {}}]}, "volumes",
         [{"name": "models", "emptyDir": {}}, {"name": "tmp", "secret": {}}]),
        ({"affinity": {"$patch": "replace", "podAffinity": {"$patch": "delete"}}}, "affinity", {}),
        ({"tolerations": [{"key": "b", "value": None}]}, "tolerations", [{"key": "b"}]),
        ({"tolerations": [{"$patch": "replace"}, {"key": "b"}]}, "tolerations", [{"key": "b"}]),
        ({"securityContext": {"supplementalGroups": [{"$patch": "replace"}, 1]}}, "securityContext",
         {"runAsUser": 65532, "runAsNonRoot": True, "supplementalGroups": [1]}),
    ],
)  # fmt: skip
def test_directives_and_nulls_leave_nothing_of_themselves(
    given: Spec, field: str, result: Any
) -> None:
    assert merge(BASE, given)[field] == result


def test_a_map_may_have_the_name_of_a_list_for_a_key() -> None:
    merged = merge(BASE, {"nodeSelector": {"ports": "many", "env": "test"}})
    assert merged["nodeSelector"] == {"disk": "fast", "ports": "many", "env": "test"}


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"containers": [{"image": "a"}]}, "containers[0].name"),
        ({"containers": [{"name": {"a": 1}}]}, "containers[0].name"),
        ({"containers": [{"name": "a"}, {"name": "a"}]}, "containers[name=a]"),
        ({"containers": {"name": "a"}}, "containers"),
        ({"containers": [None]}, "containers"),
        ({"containers": [{"name": "a", "ports": [{"name": "x"}]}]},
         "containers[name=a].ports[0].containerPort"),
        ({"containers": [{"name": "a", "env": ["x"]}]}, "containers[name=a].env"),
        ({"$setElementOrder/containers": []}, "$setElementOrder/containers"),
        ({"volumes": [{"name": "a", "$retainKeys": ["b"]}]}, "volumes[name=a].$retainKeys"),
        ({"securityContext": {"$patch": "remove"}}, "securityContext.$patch"),
        ({"$patch": "delete"}, "$patch"),
    ],
)  # fmt: skip
def test_what_can_t_be_merged_is_refused_by_its_field(given: Spec, field: str) -> None:
    with pytest.raises(OverlayError) as refused:
        merge(BASE, given)
    assert refused.value.problem.field == f"spec.template.spec.{field}"
    assert refused.value.problem.fix


# -- what holds for any overlay

NAMES = st.sampled_from(["model-server", "poller", "a", "b"])
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(0, 9), st.sampled_from(["", "x"]))
VARIABLES = st.lists(
    st.fixed_dictionaries({"name": NAMES}, optional={"value": SCALARS}),
    max_size=3,
    unique_by=lambda there: there["name"],
)
CONTAINERS: st.SearchStrategy[list[Spec]] = st.lists(
    st.fixed_dictionaries(
        {"name": NAMES},
        optional={
            "image": SCALARS,
            "env": VARIABLES,
            "args": st.lists(st.sampled_from(["x", "y"]), max_size=2),
            "securityContext": st.dictionaries(st.sampled_from(["a", "b"]), SCALARS, max_size=2),
        },
    ),
    max_size=4,
    unique_by=lambda there: str(there["name"]),
)
SPECS = st.fixed_dictionaries(
    {},
    optional={
        "containers": CONTAINERS,
        "initContainers": CONTAINERS,
        "securityContext": st.dictionaries(st.sampled_from(["a", "b", "runAsUser"]), SCALARS),
        "tolerations": st.lists(st.fixed_dictionaries({"key": NAMES}), max_size=2),
        "hostname": SCALARS,
    },
)


@given(SPECS, SPECS)
def test_nothing_changes_nothing_and_twice_is_once(base: Spec, given: Spec) -> None:
    base = merge({}, base)
    before = copy.deepcopy((base, given))
    assert merge(base, {}) == base
    once = merge(base, given)
    assert merge(once, given) == once
    assert (base, given) == before, "neither is changed itself"


def test_what_is_added_keeps_its_order_where_the_overlay_turns_around_what_is_there() -> None:
    there = {"initContainers": [{"name": "model-server"}, {"name": "a"}]}
    given = {"initContainers": [{"name": name} for name in ("b", "a", "poller", "model-server")]}
    names = [each["name"] for each in merge(there, given)["initContainers"]]
    assert names == ["b", "poller", "model-server", "a"]


@given(SPECS, SPECS)
def test_every_item_of_both_is_there_once_and_keeps_its_order(base: Spec, given: Spec) -> None:
    base = merge({}, base)
    merged = merge(base, given)
    for field in ("containers", "initContainers"):
        before = [there["name"] for there in base.get(field, ())]
        asked = [there["name"] for there in given.get(field, ())]
        names = [there["name"] for there in merged.get(field, ())]
        assert sorted(names) == sorted({*before, *asked})
        assert [name for name in names if name in before] == before
        added = [name for name in asked if name not in before]
        assert [name for name in names if name in added] == added


@given(SPECS, SPECS)
def test_what_is_given_is_what_comes_out(base: Spec, given: Spec) -> None:
    merged = merge(merge({}, base), given)
    assert says(merged, given)
    assert not has_null(merged)


def says(merged: Any, given: Any) -> bool:
    if isinstance(given, dict):
        return all(
            name not in merged if value is None else says(merged[name], value)
            for name, value in given.items()
        )
    if isinstance(given, list) and all(isinstance(there, dict) for there in merged):
        by_name = {there.get("name"): there for there in merged}
        if None not in by_name:
            return all(says(by_name[there["name"]], there) for there in given)
    return bool(merged == given)


def has_null(value: Any) -> bool:
    if isinstance(value, dict | list):
        return any(map(has_null, value.values() if isinstance(value, dict) else value))
    return value is None


def test_an_item_is_named_by_its_keys() -> None:
    key = overlay.key("ports", {"containerPort": 1})
    assert key is not None
    assert overlay.step("ports", key) == "ports[containerPort=1,protocol=TCP]"
    assert overlay.item([{"containerPort": 1}], "ports", key) == {"containerPort": 1}
