"""Rights that the operator's account lacks to write, or to read one object: logged once each, and
once when it is back.

They are the cluster's business, not that of the InferenceModel that happened to need one first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from inferencemodel_operator import refusals
from inferencemodel_operator.errors import RefusedError
from inferencemodel_operator.waits import Wait

if TYPE_CHECKING:
    from inferencemodel_operator.answers import Target

_Right = tuple[str, str, str]
"""Verb, kind and subresource."""


class Rights:
    """Those that are missing now."""

    def __init__(self) -> None:
        self._missing: dict[_Right, tuple[set[str], Wait]] = {}

    def refused(self, target: Target, problem: Exception) -> None:
        """A request was refused for want of a right."""
        right = _right(target)
        if right not in self._missing:
            verb, kind, subresource = right
            about = f"{subresource} of {kind}" if subresource else kind
            self._missing[right] = set(), Wait(f"the right to {verb} {about}")
        namespaces, wait = self._missing[right]
        namespaces.add(target.namespace)
        wait.failed(problem)

    def granted(self, target: Target) -> None:
        """A request was not refused."""
        right = _right(target)
        if right not in self._missing:
            return
        namespaces, wait = self._missing[right]
        namespaces.discard(target.namespace)
        if not namespaces:
            wait.worked()
            del self._missing[right]


def is_missing(problem: Exception) -> bool:
    """Whether an object was refused for want of a right, which `Rights` says once for all."""
    return isinstance(problem, RefusedError) and refusals.lacks_right(problem.problem)


def _right(target: Target) -> _Right:
    return target.verb, target.kind, target.subresource
