"""Which kinds the API server offers, of those that a cluster need not have.

Each is asked for by itself: one whose server is away, an aggregated API without a backend say, says
nothing of the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from inferencemodel_operator.cluster import OPTIONAL
from inferencemodel_operator.errors import NotOfferedError, OperatorError, TransientError
from inferencemodel_operator.waits import Wait

if TYPE_CHECKING:
    from inferencemodel_operator.cluster import Cluster, Resource

QUIET_FAILURES: Final = 2
"""Failures in a row that nobody needs to hear of."""


class Offers:
    """The kinds that can be used now."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.optional: frozenset[Resource] = frozenset()
        """Those of the optional kinds that are offered."""
        self._unknown: dict[Resource, OperatorError] = {}
        """Those that never could be asked for, and why."""
        self._answered: set[Resource] = set()
        self._wait = Wait("asking which optional kinds there are", quiet=QUIET_FAILURES)

    @property
    def are_known(self) -> bool:
        """Whether all have been asked for, or can't be for longer than nobody needs to hear of."""
        return not self._unknown or self._wait.failures > QUIET_FAILURES

    def check(self, resource: Resource, name: str) -> None:
        """Make sure that an object, NAMESPACE/NAME, is of a kind that can be used.

        Raises:
            NotOfferedError: the API server doesn't know the kind.
            TransientError: whether it does can't be asked.
        """
        if not resource.optional or resource in self.optional:
            return
        if resource in self._unknown:
            raise TransientError(
                f"{resource.kind} {name}: whether this cluster has {resource.kind} "
                f"({resource.api_version}) can't be asked: {self._unknown[resource]}"
            )
        raise NotOfferedError(
            resource.kind,
            name,
            resource.crd,
            resource.api_version,
            resource.asked_by,
            resource.brought_by,
        )

    async def refresh(self) -> bool:
        """Ask the API server; of a kind that it can't be asked for, the last answer stays.

        Returns:
            Whether the answer is another one than before.
        """
        before, problems = self.optional, []
        for resource in OPTIONAL:
            try:
                offered = await self._cluster.offers(resource)
            except OperatorError as problem:
                problems.append(problem)
                if resource not in self._answered:
                    self._unknown[resource] = problem
                continue
            self._answered.add(resource)
            self._unknown.pop(resource, None)
            rest = self.optional - {resource}
            self.optional = rest | {resource} if offered else rest
        if problems:
            self._wait.failed(problems[0])
        else:
            self._wait.worked()
        return before != self.optional
