"""Growth is told from what samples vary by anyway."""

from __future__ import annotations

import random

import pytest

from bench.trend import trend

HOUR = [15.0 * number for number in range(240)]


def noisy(per_hour: float, seed: int, noise: float = 0.5) -> list[float]:
    chance = random.Random(seed)
    return [70 + per_hour * at / 3600 + chance.uniform(-noise, noise) for at in HOUR]


@pytest.mark.parametrize("seed", range(5))
def test_what_only_varies_does_not_grow(seed: int) -> None:
    found = trend(HOUR, noisy(0, seed))
    assert not found.is_growing
    assert found.spread == pytest.approx(0.95, abs=0.15)


@pytest.mark.parametrize("seed", range(5))
def test_what_grows_slowly_is_seen_through_the_noise(seed: int) -> None:
    found = trend(HOUR, noisy(4, seed))
    assert found.is_growing
    assert found.hourly == pytest.approx(4, abs=0.3)


def test_what_shrinks_does_not_grow() -> None:
    assert not trend(HOUR, noisy(-30, 1)).is_growing


def test_a_leap_and_a_return_are_no_growth() -> None:
    values = noisy(0, 2)
    values[100:120] = [120.0] * 20
    assert not trend(HOUR, values).is_growing


def test_a_page_more_is_no_growth() -> None:
    assert not trend(HOUR, [70.0] * 120 + [70.5] * 120).is_growing


def test_a_day_of_samples_is_compared_at_a_bounded_number_of_points() -> None:
    day = [15.0 * number for number in range(5760)]
    found = trend(day, [50 + at / 3600 for at in day])
    assert found.hourly == pytest.approx(1)


def test_few_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="3 samples are too few"):
        trend([1, 2, 3], [1, 2, 3])
