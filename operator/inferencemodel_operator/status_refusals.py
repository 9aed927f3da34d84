"""Statuses that the API server refuses: logged once for each reason, whosever they are.

Most often the CRD is of another release, and then all are refused for the same.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from inferencemodel_operator import refusals
from inferencemodel_operator.logs import about

if TYPE_CHECKING:
    from inferencemodel_operator.errors import StatusRefusedError
    from inferencemodel_operator.observe.objects import Key

logger = logging.getLogger(__name__)


class StatusRefusals:
    """Whose status was refused last, and why."""

    def __init__(self) -> None:
        self._keys: dict[str, set[Key]] = {}
        """By the reason."""

    def refused(self, key: Key, error: StatusRefusedError) -> bool:
        """A status was refused; whether it was not before, or for another reason."""
        why = refusals.reason(error.problem.replace(error.name, ""))
        if key in self._keys.get(why, ()):
            return False
        self.forget(key)
        if why not in self._keys:
            logger.error("%s; trying again", error, extra=about(key))
        self._keys.setdefault(why, set()).add(key)
        return True

    def forget(self, key: Key) -> None:
        """A status was taken, or nobody's any more."""
        for why, keys in list(self._keys.items()):
            keys.discard(key)
            if not keys:
                del self._keys[why]
