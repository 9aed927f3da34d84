"""docs/rollouts.md names every phase, check, result and action that there is, and no other."""

from __future__ import annotations

import re
from typing import Any

import yaml

from inferencemodel_operator import names
from inferencemodel_operator.conditions import Reason
from inferencemodel_operator.spec import Rollout
from model_poller.status import CheckResult
from tests.support.crd import CRD, ROOT

PAGE = (ROOT / "docs" / "rollouts.md").read_text()
SCHEMA: dict[str, Any] = yaml.safe_load(CRD.read_text())["spec"]["versions"][0]["schema"]
STATUS: dict[str, Any] = SCHEMA["openAPIV3Schema"]["properties"]["status"]["properties"]["model"][
    "properties"
]["rollout"]["properties"]
CHECK: dict[str, Any] = STATUS["checks"]["items"]["properties"]


def table(header: str) -> list[list[str]]:
    """The cells of the rows below a header."""
    (body,) = re.findall(
        rf"^\| {re.escape(header)} \|.*\n\|[-|]+\n((?:\|.*\n)+)", PAGE, re.MULTILINE
    )
    return [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in body.splitlines()
    ]


def code(cell: str) -> list[str]:
    found: list[str] = re.findall(r"`([^`]+)`", cell)
    return found


def test_every_phase_has_its_row() -> None:
    rows = table("`status.model.rollout.phase`")
    assert [code(row[0]) for row in rows] == [[phase] for phase in STATUS["phase"]["enum"]]


def test_every_result_has_its_row() -> None:
    rows = table("result")
    assert [code(row[0]) for row in rows] == [[result.value] for result in CheckResult]
    assert CHECK["result"]["enum"] == [result.value for result in CheckResult]


def test_every_check_is_a_rung_with_its_default_and_reasons_that_there_are() -> None:
    rows = {code(row[0])[0]: row for row in table("check") if code(row[0])}
    assert sorted(rows) == sorted(CHECK["name"]["enum"])
    checks = Rollout().checks
    for name in ("memory", "golden", "live"):
        check = getattr(checks, name)
        assert rows[name][2].startswith(getattr(check, "mode", check))
    for row in table("check"):
        assert all(reason in set(Reason) for reason in code(row[3]))


def test_every_reason_to_take_back_is_one_that_there_is() -> None:
    reasons = [reason for row in table("reason") for reason in code(row[0])]
    assert {"Aborted", "GoldenMismatch", "DeadlineExceeded"} <= set(reasons)
    assert set(reasons) <= set(Reason)


def test_every_action_has_its_row() -> None:
    rows = table("command")
    annotations = {text for row in rows for text in code(row[1])} - {"spec.rollout.paused"}
    assert annotations == set(names.ACTION_ANNOTATIONS)
