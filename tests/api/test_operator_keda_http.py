"""Requests that scale, with the real definitions of KEDA and its HTTP add-on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.api.models import World, world
from tests.support import kinds
from tests.support.kubectl import condition
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devcluster.client import Api
    from tests.api.models import Model
    from tests.support.kubectl import Object

pytestmark = pytest.mark.api

BY_REQUESTS: Object = {
    "minReplicas": 0,
    "maxReplicas": 3,
    "keda": {"http": {"concurrency": 4, "requestRate": 50, "timeout": "90s"}},
}
USUAL = ("configmap", "deployment", "ingress", "service", "service")
SCALED = ("scaledobjects.keda.sh", "interceptorroutes.http.keda.sh")


@pytest.fixture(scope="module")
def here(api_server: Api) -> Iterator[World]:
    with world(api_server) as made:
        yield made


def _leads_to(model: Model, service: str) -> bool:
    rules = model.child("ingress")["spec"]["rules"]
    backends = {path["backend"]["service"]["name"] for r in rules for path in r["http"]["paths"]}
    return backends == {service}


@pytest.mark.timeout(300)
def test_requests_go_by_the_interceptor_from_when_it_knows_the_model_until_they_need_not(
    here: World,
) -> None:
    with here.model(ingress={"host": "m.example.com"}) as model:
        way = f"keda-http-{model.name}"
        model.until_children(*USUAL)
        assert _leads_to(model, model.name)

        model.patch(autoscaling=BY_REQUESTS)
        stalled = model.until(lambda o: condition(o, "Stalled")["status"] == "True", what="Stalled")
        assert condition(stalled, "Stalled")["reason"] == "KindMissing"
        told = condition(stalled, "Stalled")["message"]
        assert "interceptorroutes.http.keda.sh (KEDA's HTTP add-on, 0.14 or newer)" in told
        here.operator.until_quiet(until_later=True)
        assert _leads_to(model, model.name), "by the way that there is"

        with kinds.installed(here.api):
            eventually(lambda: _leads_to(model, way), what="the interceptor's turn", within=75)
            model.until_children(*USUAL, "service")
            for kind in SCALED:
                model.until_child(kind, lambda o: o["spec"], what=f"one of {kind}")
            model.until(lambda o: condition(o, "Stalled")["status"] == "False", what="no stall")
            route = model.child("interceptorroute")["spec"]
            assert route["target"] == {"service": model.name, "port": 8501}
            assert route["scalingMetric"]["requestRate"]["targetValue"] == 50
            assert route["timeouts"] == {"readiness": "90s"}

            _drift(model, way)
            model.until_reported()
            here.operator.until_quiet()
            before = here.writes()
            here.operator.restart()
            here.operator.until_quiet()
            assert here.writes() == before, "a restart writes nothing"

            model.patch(autoscaling=None)
            model.until_children(*USUAL)
            assert _leads_to(model, model.name)
            eventually(
                lambda: not model.kubectl("get", ",".join(SCALED), "-o", "name").strip(),
                what="neither route nor trigger",
                within=20,
            )


def _drift(model: Model, way: str) -> None:
    """Change what leads requests, and take it away."""
    named = model.kubectl
    other = '{"spec": {"rules": [{"hosts": ["theirs.example.com"]}]}}'
    named("patch", "interceptorroute", model.name, "--type=merge", "--patch", other)
    model.until_child(
        "interceptorroute",
        lambda o: "m.example.com" in o["spec"]["rules"][0]["hosts"],
        what="the model's own hosts",
    )
    named("delete", "service", way)
    eventually(
        lambda: named.get("service", way)["spec"]["externalName"].endswith(".cluster.local"),
        what="the way to the interceptor",
        within=20,
    )
    added = '[{"op": "add", "path": "/spec/triggers/-", "value": {"type": "cpu", "metadata": {}}}]'
    named("patch", "scaledobject", model.name, "--type=json", "--patch", added)
    model.until_child(
        "scaledobject",
        lambda o: [t["type"] for t in o["spec"]["triggers"]] == ["external-push"],
        what="one trigger",
    )
