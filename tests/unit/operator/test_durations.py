"""How a span of time is told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferencemodel_operator import durations
from inferencemodel_operator.values import Duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (-3, "0s"),
        (0.25, "0.2s"),
        (1.5, "1.5s"),
        (30, "30s"),
        (59.96, "1m"),
        (90, "1m30s"),
        (1800, "30m"),
        (3600, "1h"),
        (5400, "1h30m"),
        (86401, "24h1s"),
    ],
)
def test_a_span_is_written_as_in_the_spec(seconds: float, text: str) -> None:
    assert durations.text(seconds) == text


@given(st.integers(0, 10**9))
def test_what_is_written_is_read_as_the_same(seconds: int) -> None:
    assert float(Duration.parse(durations.text(seconds))) == seconds
