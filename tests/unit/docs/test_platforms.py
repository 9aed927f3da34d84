"""docs/platforms.md says of each row how it is known, and names tests that there are."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docs/platforms.md").read_text()
HEADER = "| known |"


def rows() -> list[str]:
    """The rows of all tables that tell how something is known."""
    found: list[str] = []
    inside = False
    for before, line in pairwise(TEXT.splitlines()):
        if line.startswith("|---"):
            inside = before.endswith(HEADER)
        elif not line.startswith("|"):
            inside = False
        elif inside:
            found.append(line)
    return found


def test_every_row_says_how_it_is_known() -> None:
    assert len(rows()) > 40
    for row in rows():
        cells = row.strip("|").split(" | ")
        assert len(cells) == 3, row
        assert re.match(r" ?(tried|read)\b", cells[-1]), row


def test_what_was_tried_names_tests_that_there_are() -> None:
    named = set(re.findall(r"`(tests/[^`]+)`", TEXT))
    assert named
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []
