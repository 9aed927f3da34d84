"""How long what heals by waiting is waited for before somebody is told that it does not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from inferencemodel_operator.errors import (
    LastingError,
    NamespaceTerminatingError,
    OperatorError,
    TransientError,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

LASTING_SECONDS: Final = 30.0
"""Longer than an API server, a webhook or a garbage collector takes to start anew."""


class Patience(msgspec.Struct):
    """Since when the passes over one InferenceModel have met something that only waiting heals."""

    since: float | None = None

    def judge(self, problems: Sequence[OperatorError], now: float) -> list[OperatorError]:
        """The problems of one pass; those that should have healed by now are lasting ones.

        Args:
            problems: all of them; none means that the waiting is over.
            now: seconds on a clock that never goes back.
        """
        # A namespace that goes takes the InferenceModel along: there is nobody to tell.
        waiting = [p for p in problems if _heals(p)]
        if not waiting:
            self.since = None
        elif self.since is None:
            self.since = now
        if self.since is None or now - self.since < LASTING_SECONDS:
            return list(problems)
        return [LastingError(p) if p in waiting else p for p in problems]


def _heals(problem: OperatorError) -> bool:
    return isinstance(problem, TransientError) and not isinstance(
        problem, NamespaceTerminatingError
    )
