"""Signs of life of the watches: one that gives none for long is dead, and has to be replaced."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from inferencemodel_operator.cluster import Resource

DEAD_SECONDS: Final = 360.0
"""A watch without a sign of life for so long is dead. One that the API server keeps silent is
ended and opened anew after a quarter of that, and every attempt counts."""


class Sign:
    """The last sign of life of one watch."""

    def __init__(self, resource: Resource) -> None:
        self.resource = resource
        self._at = time.monotonic()

    def beat(self) -> None:
        """It lives."""
        self._at = time.monotonic()

    @property
    def age(self) -> float:
        """Seconds since then."""
        return time.monotonic() - self._at


class Signs:
    """Those of all watches."""

    def __init__(self) -> None:
        self._signs: set[Sign] = set()

    def expect(self, resource: Resource) -> Sign:
        """Expect one more watch to live."""
        sign = Sign(resource)
        self._signs.add(sign)
        return sign

    def drop(self, sign: Sign) -> None:
        """Expect nothing more of a watch."""
        self._signs.discard(sign)

    def ages(self) -> Iterator[tuple[Resource, float]]:
        """Seconds since the watches of each kind gave a sign of life, the most silent one's."""
        oldest: dict[Resource, float] = {}
        for sign in self._signs:
            oldest[sign.resource] = max(sign.age, oldest.get(sign.resource, 0.0))
        yield from oldest.items()

    def dead(self) -> list[str]:
        """The kinds that have a dead watch."""
        return sorted(resource.plural for resource, age in self.ages() if age > DEAD_SECONDS)
