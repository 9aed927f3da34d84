"""The alerts and the board of the manifests, and what their queries ask for."""

from __future__ import annotations

import json
import re

import yaml

from tests.support.rendering import MANIFESTS

MONITORING = MANIFESTS / "components" / "monitoring"
BOARD = json.loads((MONITORING / "dashboard.json").read_text())
ALERTS = yaml.safe_load((MONITORING / "alerts.yaml").read_text())["spec"]
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]

METRIC = re.compile(
    r"((?:\binferencemodel_operator_|\bmodel_poller_|:tensorflow:)[\w:]+)(?:\{([^}]*)\})?"
)
LABEL = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)")
_GROUPING = re.compile(r"\b(?:by|on)\s*\(([^)]*)\)")


def board_queries() -> list[str]:
    """What the panels ask for."""
    return [target["expr"] for panel in BOARD["panels"] for target in panel.get("targets", [])]


def used(query: str) -> dict[str, set[str]]:
    """The metrics that a query asks for, each with the labels of its selector."""
    return {name: set(LABEL.findall(labels)) for name, labels in METRIC.findall(query)}


def grouped(query: str) -> set[str]:
    """The labels that a query groups or joins by."""
    return {label.strip() for group in _GROUPING.findall(query) for label in group.split(",")}
