"""The set of conditions and reasons is closed, and all of it is documented."""

from __future__ import annotations

import re
from pathlib import Path

from inferencemodel_operator.conditions import ConditionType, Reason
from inferencemodel_operator.observe.troubles import CRASHED

PAGE = Path(__file__).parents[3] / "docs" / "conditions.md"


def test_every_reason_is_documented_and_no_other() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.+) \| (.+) \|$", PAGE.read_text(), re.MULTILINE)
    documented = [reason for reason, _, _ in rows]

    assert sorted(set(documented)) == sorted(reason.value for reason in Reason)
    assert all(meaning.strip() and todo.strip() for _, meaning, todo in rows)


def test_every_condition_has_a_chapter_in_the_order_of_the_status() -> None:
    chapters = re.findall(r"^## (\w+)$", PAGE.read_text(), re.MULTILINE)
    assert chapters == [kind.value for kind in ConditionType]


def test_stalled_names_what_brings_all_new_pods_down() -> None:
    chapter = PAGE.read_text().split("\n## Stalled\n")[1].split("\n## ")[0]
    assert [trouble for trouble in CRASHED if f"`{trouble}`" not in chapter] == []
