"""Which kinds the API server offers, of those that a cluster need not have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inferencemodel_operator.cluster import OPTIONAL

if TYPE_CHECKING:
    from inferencemodel_operator.cluster import Cluster, Resource


class Offers:
    """The kinds that can be used now; ``resource in offers`` asks."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.optional: frozenset[Resource] = frozenset()
        """Those of the optional kinds that are offered."""

    def __contains__(self, resource: Resource) -> bool:
        return not resource.optional or resource in self.optional

    async def refresh(self) -> bool:
        """Ask the API server.

        Returns:
            Whether the answer is another one than before.

        Raises:
            ApiUnavailableError: it can't be asked; the last answer stays.
        """
        found = [resource for resource in OPTIONAL if await self._cluster.offers(resource)]
        before, self.optional = self.optional, frozenset(found)
        return before != self.optional
