"""Tables of what users meet leave out nothing: fields, children, Events, the chart's values."""

from __future__ import annotations

import re

import pytest
import yaml

from inferencemodel_operator import main, names, record
from inferencemodel_operator.conditions import ConditionType
from tests.support.crd import CRD, ROOT

PAGE = (ROOT / "docs" / "inferencemodel.md").read_text()
INSTALL = (ROOT / "docs" / "install.md").read_text()
VALUES = yaml.safe_load((ROOT / "charts/inferencemodel-operator/values.yaml").read_text())
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
OPERATOR = ROOT / "operator" / "inferencemodel_operator"


def first_cells(header: str) -> list[str]:
    """What is named in the first column of a table of the page, by the table's first header."""
    (body,) = re.findall(rf"^\| {header} \|.*\n\|[-|]+\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    return [name for row in body.splitlines() for name in re.findall(r"`(.+?)`", row.split("|")[1])]


def test_the_status_names_every_condition() -> None:
    (row,) = re.findall(r"^\| `status\.conditions` \| (.+) \|$", PAGE, re.MULTILINE)
    assert re.findall(r"`(\w+)`", row) == [kind.value for kind in ConditionType]


def test_the_definition_describes_every_condition() -> None:
    version = yaml.safe_load(CRD.read_text())["spec"]["versions"][0]
    status = version["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]
    text = status["conditions"]["description"]
    assert re.findall(r"(\w+) \(", text) == [kind.value for kind in ConditionType]


def test_every_key_of_the_memory_has_its_row() -> None:
    keys = {value for name, value in vars(record).items() if name.endswith("_KEY")}
    assert set(first_cells("key")) == keys


def test_every_child_has_its_row() -> None:
    shown = {*first_cells("object")}
    assert shown == {*names.children("NAME"), "NAME-rehearsal-…"}
    assert names.rehearsal("NAME", 2, "").startswith("NAME-rehearsal-")


def test_every_value_of_the_chart_has_its_row() -> None:
    shown = {
        name
        for row in re.findall(r"^\| (`.+?) \|", INSTALL, re.MULTILINE)
        for name in row.split(", ")
    }
    plain = {name.strip("`") for name in shown}
    for name, value in VALUES.items():
        inner = [f"{name}.{key}" for key in value] if isinstance(value, dict) else []
        short = [f".{key}" for key in value] if isinstance(value, dict) else []
        told = [one in plain or brief in plain for one, brief in zip(inner, short, strict=True)]
        assert name in plain or (inner and all(told)), name


def test_every_argument_of_the_operator_has_its_row(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main.parse(["run", "--help"])
    there = set(re.findall(r"^  (--[a-z-]+)", capsys.readouterr().out, re.MULTILINE))
    chapter = INSTALL.split("\n### The operator's arguments\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`--.+?) \|", chapter, re.MULTILINE)
    assert {option for row in rows for option in re.findall(r"`(--[a-z-]+)`", row)} == there


def test_every_event_that_is_no_reason_of_a_condition_has_its_row() -> None:
    sources = (path.read_text() for path in OPERATOR.rglob("*.py"))
    told = {name for text in sources for name in re.findall(r"\bChange\(\s*\"(\w+)\"", text)}
    assert "VersionActivated" in told
    chapter = OPERATIONS.split("\n## Events and repeated log lines\n")[1].split("\n## ")[0]
    assert [name for name in sorted(told) if f"| `{name}` |" not in chapter] == []
