"""Who has set what of a child, and what of it is taken back (on a real API server: tests/api)."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from inferencemodel_operator import drift, names
from inferencemodel_operator.drift import Foreign
from inferencemodel_operator.observe.wire import FieldManager
from tests.support.counting import Compared


def manager(name: str, fields: dict[str, Any], **more: str) -> FieldManager:
    entry = {"manager": name, "operation": "Update", "fieldsV1": fields, **more}
    return msgspec.convert(entry, FieldManager)


SERVICE = {
    "kind": "Service",
    "spec": {
        "type": "ClusterIP",
        "selector": {"a": "b"},
        "ports": [{"name": "http", "port": 80, "protocol": "TCP"}],
    },
}
PORT_80 = 'k:{"port":80,"protocol":"TCP"}'
PORT_81 = 'k:{"port":81,"protocol":"TCP"}'
APPLIED = manager(
    names.FIELD_MANAGER,
    {"f:spec": {"f:type": {}, "f:ports": {PORT_80: {".": {}, "f:port": {}, "f:name": {}}}}},
    operation="Apply",
)


@pytest.mark.parametrize(
    ("entry", "left"),
    [
        (manager("kubectl-edit", {"f:spec": {"f:paused": {}}}), {"f:spec": {"f:paused": {}}}),
        (manager("kubectl-edit", {"f:metadata": {"f:labels": {"f:a": {}}}}), None),
        (manager("kubelet", {"f:status": {"f:phase": {}}}), None),
        (manager("hpa", {"f:spec": {"f:replicas": {}}}, subresource="scale"), None),
        (manager(names.FIELD_MANAGER, {"f:spec": {"f:paused": {}}}), None),
        (manager("before-first-apply", {"f:spec": {"f:sessionAffinity": {}}}), None),
        (manager("flux", {"f:spec": {"f:type": {}}}, operation="Apply"), None),
        (
            manager("x", {"f:spec": {"f:ports": {PORT_80: {".": {}, "f:targetPort": {}}}}}),
            {"f:spec": {"f:ports": {PORT_80: {"f:targetPort": {}}}}},
        ),
    ],
)
def test_foreign_is_what_others_have_set_and_the_operator_has_not_applied(
    entry: FieldManager, left: dict[str, Any] | None
) -> None:
    expected = () if left is None else (Foreign(entry.manager, left),)
    assert drift.foreign([APPLIED, entry]) == expected


@pytest.mark.parametrize(
    ("fields", "extras", "taken"),
    [
        ({"f:spec": {"f:sessionAffinity": {}}}, ["spec.sessionAffinity"], False),
        ({"f:spec": {"f:type": {}}}, [], True),
        ({"f:spec": {"f:selector": {}}}, [], True),
        ({"f:spec": {"f:selector": {"f:team": {}}}}, ["spec.selector.team"], False),
        (
            {"f:spec": {"f:ports": {PORT_81: {".": {}, "f:port": {}}}}},
            ["spec.ports[port=81,protocol=TCP]"],
            False,
        ),
        ({"f:spec": {"f:ports": {PORT_80: {"f:name": {}, "f:nodePort": {}}}}}, [], True),
        ({"f:spec": {"f:clusterIP": {}}}, [], False),
        # A cloud's webhook sets it, and nobody can take it back.
        ({"f:spec": {"f:loadBalancerClass": {}}}, [], False),
        ({"f:spec": {"f:externalTrafficPolicy": {}}}, ["spec.externalTrafficPolicy"], False),
        ({"f:immutable": {}}, ["immutable"], False),
    ],
)
def test_what_others_have_set_is_wanted_theirs_or_too_much(
    fields: dict[str, Any], extras: list[str], taken: bool
) -> None:
    others = [Foreign("kubectl-edit", fields)]
    assert [drift.text(e.path) for e in drift.extras(others, SERVICE, SERVICE)] == extras
    assert drift.taken(others, SERVICE) is taken


def pods(**spec: Any) -> dict[str, Any]:
    template = {"metadata": {"annotations": {"ours": "1"}}, "spec": spec}
    return {"kind": "Deployment", "spec": {"template": template}}


WANTED = pods(
    containers=[{"name": "server", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
    volumes=[{"name": "v", "emptyDir": {}}],
)


def of_template(**fields: Any) -> dict[str, Any]:
    return {"f:spec": {"f:template": {"f:spec": {f"f:{n}": v for n, v in fields.items()}}}}


def test_a_sidecar_and_what_it_mounts_are_its_owners() -> None:
    live = pods(
        containers=[
            {
                "name": "server",
                "volumeMounts": [
                    {"name": "v", "mountPath": "/v"},
                    {"name": "theirs", "mountPath": "/theirs"},
                    {"name": "v", "mountPath": "/again"},
                ],
            },
            {"name": "proxy"},
        ],
        volumes=[{"name": "v", "emptyDir": {}}, {"name": "theirs", "emptyDir": {}}],
    )
    mounts: dict[str, Any] = {
        'k:{"mountPath":"/theirs"}': {".": {}},
        'k:{"mountPath":"/again"}': {".": {}},
    }
    others = [
        Foreign(
            "injector",
            of_template(
                containers={
                    'k:{"name":"proxy"}': {".": {}},
                    'k:{"name":"server"}': {"f:volumeMounts": mounts, "f:tty": {}},
                },
                volumes={'k:{"name":"theirs"}': {".": {}}},
            ),
        )
    ]
    found = drift.extras(others, live, WANTED)
    where = "spec.template.spec.containers[name=server]"
    assert [drift.text(extra.path) for extra in found] == [
        f"{where}.volumeMounts[mountPath=/again]",
        f"{where}.tty",
    ]
    after = drift.merged(drift.trimmed(live, found), drift.fields(WANTED))
    (server, proxy) = after["spec"]["template"]["spec"]["containers"]
    assert [mount["mountPath"] for mount in server["volumeMounts"]] == ["/v", "/theirs"]
    assert proxy == {"name": "proxy"}


def test_a_container_that_was_renamed_is_no_sidecar() -> None:
    live = pods(containers=[{"name": "renamed"}], volumes=[{"name": "v", "emptyDir": {}}])
    others = [Foreign("x", of_template(containers={'k:{"name":"renamed"}': {".": {}}}))]
    (extra,) = drift.extras(others, live, WANTED)
    after = drift.merged(drift.trimmed(live, [extra]), drift.fields(WANTED))
    assert after["spec"] == WANTED["spec"]


def test_what_is_others_stays_when_all_else_is_set_anew() -> None:
    live = pods(
        containers=[{"name": "server", "tty": True}, {"name": "proxy"}],
        volumes=[{"name": "v", "hostPath": {"path": "/"}}],
        hostNetwork=True,
    )
    live["spec"]["replicas"] = 7
    live["spec"]["template"]["metadata"]["annotations"]["restartedAt"] = "now"
    after = drift.merged(drift.theirs(live, WANTED), drift.fields(WANTED))
    template = after["spec"]["template"]
    assert after["spec"]["replicas"] == 7
    assert template["metadata"]["annotations"] == {"ours": "1", "restartedAt": "now"}
    assert {c["name"]: c for c in template["spec"]["containers"]} == {
        "server": WANTED["spec"]["template"]["spec"]["containers"][0],
        "proxy": {"name": "proxy"},
    }
    assert template["spec"]["volumes"] == [{"name": "v", "emptyDir": {}}]
    assert "hostNetwork" not in template["spec"]


def test_of_thousands_of_items_each_is_looked_at_a_few_times() -> None:
    wanted = pods(volumes=[{"name": Compared(f"v{n}"), "emptyDir": {}} for n in range(2000)])
    live = pods(volumes=[{"name": f"v{n}", "emptyDir": {}} for n in range(2000)])
    volumes = live["spec"]["template"]["spec"]["volumes"]
    volumes.extend({"name": f"theirs{n}"} for n in range(1000))
    others = [
        Foreign("edit", of_template(volumes={f'k:{{"name":"{n}"}}': {} for n in found}))
        for found in ([f"v{n}" for n in range(2000)], [f"theirs{n}" for n in range(1000)])
    ]
    before = Compared.times
    assert drift.taken(others, wanted)
    assert drift.extras(others, live, wanted) == []
    assert len(drift.theirs(live, wanted)["spec"]["template"]["spec"]["volumes"]) == 1000
    assert Compared.times - before < 60_000

    env = [{"name": Compared(f"A{n}")} for n in range(2000)]
    edited = pods(containers=[{"name": "server", "env": env}])
    path = ("spec", "template", "spec", "containers", (("name", "server"),), "env")
    extras = [drift.Extra("edit", (*path, (("name", f"A{n}"),))) for n in range(1999)]
    before = Compared.times
    (server,) = drift.trimmed(edited, extras)["spec"]["template"]["spec"]["containers"]
    assert server["env"] == [{"name": "A1999"}]
    assert Compared.times - before < 20_000


def test_what_an_edit_has_written_twice_goes_twice() -> None:
    env = [{"name": "A", "value": "1"}, {"name": "B"}, {"name": "A", "value": "2"}]
    path = ("spec", "template", "spec", "containers", (("name", "server"),), "env")
    extra = drift.Extra("edit", (*path, (("name", "A"),)))
    trimmed = drift.trimmed(pods(containers=[{"name": "server", "env": env}]), [extra])
    (server,) = trimmed["spec"]["template"]["spec"]["containers"]
    assert server["env"] == [{"name": "B"}]


def test_only_what_differs_is_rewritten() -> None:
    before = {
        "kind": "ConfigMap",
        "metadata": {"x": 1},
        "data": {"a": "b"},
        "binaryData": {"c": ""},
    }
    assert drift.changes(before, {"data": {"a": "b"}}) == {"binaryData": None}
    assert drift.changes(before, {"data": {}, "binaryData": {"c": ""}}) == {"data": {}}
    assert drift.changes(before, drift.fields(before)) == {}
