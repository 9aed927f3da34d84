"""Which InferenceModels of other operators have children: nothing else is kept of those.

An operator that serves a part of the InferenceModels by their labels sees the children and pods of
all, for these carry no such label (a label of a pod's template could not change without a new pod).
What belongs to others would be most of its memory. That there is something is remembered: where
such an InferenceModel comes to this operator, it has to be listed.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from inferencemodel_operator.observe.objects import Key

KEEP_SECONDS: Final = 1500.0
"""All that is is seen within this time, by the periodic listing of its kind."""


class Elsewhere:
    """A set of InferenceModels out of which those go that nothing was seen of for long."""

    def __init__(self) -> None:
        self._before: set[Key] = set()
        self._now: set[Key] = set()
        self._since = time.monotonic()

    def __contains__(self, key: Key) -> bool:
        return key in self._now or key in self._before

    def __len__(self) -> int:
        return len(self._now | self._before)

    def add(self, keys: Iterable[Key]) -> None:
        """Take in that something of these was seen."""
        now = time.monotonic()
        if now > self._since + KEEP_SECONDS:
            self._before, self._now, self._since = self._now, set(), now
        self._now.update(keys)
