"""What others wrote, made fit to be stored and shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferencemodel_operator import bounds

ANY_TEXT = st.text(st.characters(codec=None), max_size=200)


@given(ANY_TEXT, st.integers(3, 60))
def test_a_text_keeps_to_its_limit_in_bytes_and_is_one_clean_line(value: str, limit: int) -> None:
    line = bounds.text(value, limit)
    assert len(line.encode()) <= limit
    assert not any(ord(character) < 32 or 127 <= ord(character) < 160 for character in line)
    assert bounds.text(line, limit) == line


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ("no graph", "no graph"),
        ("naïve 模型 🙂", "naïve 模型 🙂"),
        ("one\ntwo\r\n\tthree", "one two three"),
        ("a\x00b\x1b[31mred\x7f", "ab[31mred"),
        ("half \ud83d of a pair", "half  of a pair"),
        ("cod\u202eexe", "codexe"),
        ("cod\u061cexe", "codexe"),
        ("", ""),
    ],
)
def test_what_can_be_shown_stays_and_the_rest_goes(value: str, line: str) -> None:
    assert bounds.text(value) == line


def test_a_text_is_cut_between_two_characters_and_says_so() -> None:
    assert bounds.text("x" * 2000, 10) == "xxxxxxx…"
    assert bounds.text("模" * 2000, 10) == "模模…"
    assert bounds.text("\x00" * 5000 + "the end", 10) == "…"


@pytest.mark.parametrize(
    ("digits", "number"),
    [
        ("7", 7),
        ("0007", 7),
        ("9223372036854775807", 2**63 - 1),
        ("9223372036854775808", None),
        ("9" * 5000, None),
        ("-1", None),
        ("1.0", None),
        ("٣", None),
        ("", None),
    ],
)
def test_a_version_number_is_decimal_and_an_int64(digits: str, number: int | None) -> None:
    assert bounds.number(digits) == number


def test_of_many_versions_the_wanted_and_the_newest_stay() -> None:
    assert bounds.newest(range(1000), 4, wanted={7, 500}) == [999, 998, 500, 7]
    assert bounds.newest([1, 1, 2], 4) == [2, 1]
    assert bounds.newest(range(10), 2, wanted=range(10)) == [9, 8]
