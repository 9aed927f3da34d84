"""Alerts lead to runbooks, and each drill of docs/runbooks.md is one that tests run."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING
from urllib.parse import urldefrag

import yaml
from markdown.extensions.toc import slugify  # type: ignore[import-untyped]

from release.install import FILES
from tests.support.pages import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = (ROOT / "docs" / "runbooks.md").read_text()
RULES = [
    rule
    for group in yaml.safe_load((ROOT / "manifests/components/monitoring/alerts.yaml").read_text())[
        "spec"
    ]["groups"]
    for rule in group["rules"]
]
PARTS = ("Symptom.", "Alert.", "Look.", "Do.", "Over when", "Tried by")
_LINK = re.compile(r"\]\(#([\w-]+)\)")


def sections(part: str) -> dict[str, str]:
    """The sections below a heading, by what an address calls them."""
    text = PAGE.split(f"\n## {part}\n")[1].split("\n## ")[0]
    _, *found = re.split(r"^### (.+)$", text, flags=re.MULTILINE)
    return {slugify(found[i], "-"): found[i + 1] for i in range(0, len(found), 2)}


DRILLS, ALERTS = sections("Drills"), sections("Alerts")


def marked() -> Iterator[tuple[str, str]]:
    """The drills that tests are marked with, each with the file."""
    for path in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                for mark in node.decorator_list:
                    if isinstance(mark, ast.Call) and ast.unparse(mark.func).endswith(".runbook"):
                        (drill,) = mark.args
                        assert isinstance(drill, ast.Constant)
                        yield str(drill.value), str(path.relative_to(ROOT))


def test_every_alert_leads_to_a_section_of_its_own_and_every_section_is_of_an_alert() -> None:
    led = [urldefrag(rule["annotations"]["runbook_url"]) for rule in RULES]
    assert {page for page, _ in led} == {f"{FILES}/docs/runbooks.md"}
    assert [section for _, section in led] == [rule["alert"].lower() for rule in RULES]
    assert sorted(section for _, section in led) == sorted(ALERTS)


def test_every_section_of_an_alert_says_where_to_look_what_to_do_and_when_it_is_over() -> None:
    for name, text in ALERTS.items():
        parts = re.findall(r"^- (Look|Do|Over when): ", text, re.MULTILINE)
        assert parts == ["Look", "Do", "Over when"], name


def test_every_drill_has_all_its_parts_and_names_the_alerts_that_lead_to_it() -> None:
    for name, text in DRILLS.items():
        found = re.findall(r"^\*\*([^*]+)\*\*", text, re.MULTILINE)
        assert tuple(found) == PARTS, name
        alert = text.split("**Alert.**")[1].split("**Look.**")[0]
        assert set(_LINK.findall(alert)) & ALERTS.keys(), name


def test_every_link_within_the_page_leads_somewhere() -> None:
    assert set(_LINK.findall(PAGE)) <= {*DRILLS, *ALERTS, "drills", "alerts"}


def test_every_drill_is_run_by_the_tests_that_it_names_and_by_no_others() -> None:
    named = {
        (drill, path)
        for drill, text in DRILLS.items()
        for path in re.findall(r"`(tests/[\w/]+\.py)`", text.split("**Tried by**")[1])
    }
    assert named == set(marked())
    assert {drill for drill, _ in named} == set(DRILLS)
