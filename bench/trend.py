"""Whether a figure that is sampled over a long time grows."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_LONG_ENOUGH = 8
"""Samples; a slope of fewer says nothing."""
_MOST = 400
"""Samples that are compared in pairs; of more, every so manieth is taken."""
_SPREADS = 2.0
_LEAST_MB = 1.0
"""An allocator keeps what it once had, a few pages at a time."""


@dataclass(frozen=True)
class Trend:
    """A straight line through samples.

    Attributes:
        hourly: by how much the figure grows in an hour, in its own unit.
        growth: by how much it grew over the samples, by that line.
        spread: within which nine of ten samples lie around the line.
    """

    hourly: float
    growth: float
    spread: float

    @property
    def is_growing(self) -> bool:
        """Whether the growth stands out of what the samples vary by anyway."""
        return self.growth > max(_SPREADS * self.spread, _LEAST_MB)


def trend(seconds: Sequence[float], values: Sequence[float]) -> Trend:
    """The median of all slopes between two samples, which single leaps do not move
    (https://en.wikipedia.org/wiki/Theil%E2%80%93Sen_estimator).

    Raises:
        ValueError: too few samples, or two at one time.
    """
    if len(seconds) < _LONG_ENOUGH:
        raise ValueError(f"{len(seconds)} samples are too few; {_LONG_ENOUGH} are needed")
    step = -(-len(seconds) // _MOST)
    points = list(zip(seconds, values, strict=True))[::step]
    slope = median((b[1] - a[1]) / (b[0] - a[0]) for a, b in combinations(points, 2))
    middle = median(value - slope * at for at, value in points)
    apart = sorted(value - slope * at - middle for at, value in points)
    edge = len(apart) // 20
    return Trend(
        hourly=slope * 3600,
        growth=slope * (points[-1][0] - points[0][0]),
        spread=apart[-1 - edge] - apart[edge],
    )
