"""Alerts and board ask for what operator and poller really export, in objects that are taken."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from devcluster.client import KubectlError
from development_model_server.metrics import Metrics as ServerMetrics
from inferencemodel_operator.metrics import Metrics
from model_poller.metrics import METRICS
from tests.support import kinds
from tests.support.crd import ROOT, until_served
from tests.support.monitoring import (
    ALERTS,
    BOARD,
    LABEL,
    METRIC,
    MONITORING,
    RULES,
    board_queries,
    grouped,
    used,
)
from tests.support.rendering import MANIFESTS, SYSTEM, WITH_MONITORING, run

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from devcluster.client import Api
    from tests.support.rendering import Programs

pytestmark = pytest.mark.api

TESTS = Path(__file__).with_name("alerts.test.yaml")

ADDED_BY_SCRAPING = {"namespace", "job", "pod", "inferencemodel", "le"}


def exported(registry: CollectorRegistry) -> dict[str, set[str]]:
    """Every series that a program exports, with the labels that it sets itself."""
    found: dict[str, set[str]] = {}
    for name, collector in registry._names_to_collectors.items():
        found[name] = set(getattr(collector, "_labelnames", ()))
    return found


def exported_by_the_model_server() -> dict[str, set[str]]:
    """The same of the model server, as far as something asks for it."""
    metrics = ServerMetrics("0")
    metrics.request_count.add("m", "OK")
    metrics.request_latency.add(1, "m", "predict", "REST")
    series = re.findall(r"^(:tensorflow:[\w:]+)\{(.*)\} ", metrics.page(), re.MULTILINE)
    return {name: set(LABEL.findall(labels)) for name, labels in series}


EXPORTED = {
    **exported(Metrics().registry),
    **exported(METRICS.registry),
    **exported_by_the_model_server(),
}


@pytest.mark.parametrize("query", [*board_queries(), *(rule["expr"] for rule in RULES)])
def test_a_query_asks_for_metrics_and_labels_that_are_exported(query: str) -> None:
    asked = used(query)
    assert asked
    for name, labels in asked.items():
        assert name in EXPORTED
        assert labels <= EXPORTED[name] | ADDED_BY_SCRAPING
    known = set().union(*(EXPORTED[name] for name in asked)) | ADDED_BY_SCRAPING
    assert grouped(query) <= known


@pytest.mark.parametrize("query", board_queries())
def test_models_of_one_name_in_two_namespaces_are_not_added_up(query: str) -> None:
    assert "inferencemodel" not in grouped(query) or "namespace" in grouped(query)


@pytest.mark.parametrize(
    "query", [query for query in board_queries() if "max" in query and "operator_" in query]
)
def test_the_board_adds_up_what_several_operators_have(query: str) -> None:
    """Of one, all replicas tell, and only the one that leads has something to tell."""
    if "inferencemodel_operator_watch_age_seconds" in query:
        assert query.startswith("max "), "the oldest of all"
    else:
        assert query.startswith("sum")
        assert re.search(r"max by \(namespace, job[,)]", query)


def test_prometheus_takes_the_alerts_and_they_fire_when_they_should(
    programs: Programs, tmp_path: Path
) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text(yaml.safe_dump(ALERTS))
    run(programs.promtool, "check", "rules", "--lint=all", "--lint-fatal", rules)
    tests = tmp_path / "tests.yaml"
    tests.write_text(TESTS.read_text())
    run(programs.promtool, "test", "rules", tests)


def test_every_alert_is_tested_and_says_what_to_do() -> None:
    tests = TESTS.read_text()
    for rule in RULES:
        # Of the series ALERTS, which Prometheus itself writes, or of promtool's own form.
        labels = f'alertname="{rule["alert"]}",alertstate="firing",'
        assert labels in tests or f"alertname: {rule['alert']}\n" in tests
    for rule in RULES:
        assert rule["annotations"]["summary"].endswith(".")
        assert rule["annotations"]["description"]


def test_the_docs_name_every_metric_that_is_exported_and_no_other() -> None:
    docs = (ROOT / "docs" / "metrics.md").read_text()
    own = {
        metric.name + ("_total" if metric.type == "counter" else "")
        for registry in (Metrics().registry, METRICS.registry)
        for metric in registry.collect()
        if METRIC.fullmatch(metric.name)
    }
    assert own
    assert set(re.findall(r"\| `((?:inferencemodel_operator|model_poller)_\w+)", docs)) == own


def test_monitors_select_ports_that_are_there(programs: Programs) -> None:
    service, pods = yaml.safe_load_all((MONITORING / "monitors.yaml").read_text())
    objects = programs.kustomize(MANIFESTS / "base")
    served = objects["Service", "inferencemodel-system", "inferencemodel-operator"]
    assert {e["port"] for e in service["spec"]["endpoints"]} <= {
        port["name"] for port in served["spec"]["ports"]
    }
    wanted = service["spec"]["selector"]["matchLabels"].items()
    assert wanted <= served["metadata"]["labels"].items()
    assert [e["port"] for e in pods["spec"]["podMetricsEndpoints"]] == ["poller", "http"]


def test_an_api_server_with_prometheus_operators_definitions_knows_every_field(
    fresh_api: Api, programs: Programs
) -> None:
    offered = ("servicemonitors", "podmonitors", "prometheusrules")
    folder = kinds.prometheus_operator()
    definitions = [f"--filename={folder}/monitoring.coreos.com_{kind}.yaml" for kind in offered]
    fresh_api.kubectl("apply", "--server-side", *definitions)
    until_served(fresh_api.kubeconfig, *offered)
    fresh_api.kubectl("create", "namespace", SYSTEM)
    strictly = ("--server-side", "--validate=strict", "--warnings-as-errors")

    fresh_api.kubectl("apply", *strictly, "-k", str(MONITORING))
    without, chart = programs.chart(), programs.chart(*WITH_MONITORING)
    added = [obj for name, obj in chart.items() if name not in without]
    together = json.dumps({"apiVersion": "v1", "kind": "List", "items": added})
    fresh_api.kubectl("apply", *strictly, "--force-conflicts", "-f", "-", stdin=together)

    custom = [obj for obj in added if obj["kind"] != "ConfigMap"]
    assert len(custom) == len(definitions)
    for obj in custom:
        obj["spec"]["unknown"] = True
        with pytest.raises(KubectlError, match="field not declared in schema"):
            fresh_api.kubectl("apply", *strictly, "-f", "-", stdin=json.dumps(obj))


def test_panels_do_not_overlap_and_have_distinct_ids() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in BOARD["panels"]:
        at = panel["gridPos"]
        place = {(at["x"] + i, at["y"] + j) for i in range(at["w"]) for j in range(at["h"])}
        assert not place & taken, panel["title"]
        taken |= place
    ids = [panel["id"] for panel in BOARD["panels"]]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("query", [*board_queries(), *(rule["expr"] for rule in RULES)])
def test_no_query_takes_readiness_probes_for_requests(query: str) -> None:
    """Each is in request_count as OK, and in request_latency with an empty API."""
    for name, labels in METRIC.findall(query):
        if name.endswith(":request_count") and "status" not in labels:
            assert ':request_latency_count{API=""' in query
        if ":request_latency" in name:
            assert "API" in labels
