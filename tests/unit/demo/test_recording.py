"""The recorded demo: true times in the cast, shortened ones in the picture."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree

import pytest

from demo.errors import OutcomeError
from demo.recording import COLUMNS, ROWS, Line, cast, paced, picture

LINES = [Line(0.5, "[1/2] Begin"), Line(100.0, "      $ ls <here> & there"), Line(100.2, "")]


def test_a_cast_has_the_times_of_the_run() -> None:
    head, *events = map(json.loads, cast(LINES).splitlines())

    assert head["version"] == 2
    assert [event[0] for event in events] == [0.5, 100.0, 100.2]
    assert events[1][1:] == ["o", "      $ ls <here> & there\r\n"]


def test_a_picture_shortens_waits_and_keeps_the_order() -> None:
    times = [line.at for line in paced(LINES, longest=1.0)]

    assert times == pytest.approx([0.5, 1.5, 1.7])


def test_a_picture_shows_each_line() -> None:
    drawn = ElementTree.fromstring(picture(LINES))

    texts = [element.text for element in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert texts[1:] == [line.text or None for line in LINES]


def test_a_picture_scrolls_to_its_end_and_crops() -> None:
    lines = [Line(number / 10, "x" * (COLUMNS + 5)) for number in range(ROWS + 7)]
    drawn = picture(lines)

    offsets = [int(found) for found in re.findall(r"translateY\((-\d+)px\)", drawn)]
    assert offsets[:7] == [-17 * number for number in range(1, 8)]
    assert set(offsets[7:]) == {-17 * 7}
    assert "x" * (COLUMNS - 1) + "…<" in drawn


def test_nothing_is_no_picture() -> None:
    with pytest.raises(OutcomeError):
        picture([])
