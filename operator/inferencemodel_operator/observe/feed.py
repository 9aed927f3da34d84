"""Brings watches, listings and pollers together in the cache, and says what is to be reconciled."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from typing import TYPE_CHECKING, Any, Final

import msgspec

from inferencemodel_operator.cluster import MODELS, WATCHED
from inferencemodel_operator.errors import OperatorError, RefusedError
from inferencemodel_operator.observe import watches
from inferencemodel_operator.observe.objects import Pod

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from kopf._cogs.structs.references import Insights

    from inferencemodel_operator.cache import Cache, Entry
    from inferencemodel_operator.cluster import Cluster, Resource
    from inferencemodel_operator.observe.objects import Key
    from inferencemodel_operator.observe.offers import Offers
    from inferencemodel_operator.observe.pollers import Pollers
    from inferencemodel_operator.observe.watches import Watches
    from inferencemodel_operator.queue import WorkQueue

logger = logging.getLogger(__name__)

RELIST_SECONDS: Final = 600.0
RETRY_SECONDS: Final = 5.0
OFFER_SECONDS: Final = 10.0
"""How soon a CRD that is installed, or taken away, is noticed."""


class Feed:
    """Everything that comes in goes through here."""

    def __init__(
        self,
        cluster: Cluster,
        cache: Cache,
        queue: WorkQueue[Key],
        pollers: Pollers,
        watches: Watches,
        offers: Offers,
        namespaces: Collection[str],
    ) -> None:
        self._cluster = cluster
        self._cache = cache
        self._queue = queue
        self._pollers = pollers
        self._watches = watches
        self._offers = offers
        self._namespaces = tuple(namespaces) or (None,)
        self.complete = asyncio.Event()
        """Set once the cache holds all that there is; nothing is judged before."""

    def event(self, resource: Resource, kind: str | None, obj: Mapping[str, Any]) -> None:
        """Take in one event of a watch."""
        if kind == "DELETED":
            gone = self._cache.remove(resource, obj)
            if gone is not None:
                self._gone(gone)
        else:
            self._put(resource, obj)

    async def run(self) -> None:
        """List everything when all watches are open, after a gap in one, and now and then."""
        await self._watches.relist.wait()
        while True:
            self._watches.relist.clear()
            started = time.monotonic()
            try:
                for resource in WATCHED:
                    await self._list(resource)
                for resource in self._offers.optional:
                    await self._list_optional(resource)
            except OperatorError as error:
                logger.warning("listing failed, trying again: %s", error)
                await asyncio.sleep(RETRY_SECONDS * random.uniform(0.5, 1.0))  # noqa: S311
                continue
            if not self.complete.is_set():
                logger.info(
                    "watching %d InferenceModels after %.1f s",
                    len(self._cache.snapshot(MODELS)),
                    time.monotonic() - started,
                )
            self.complete.set()
            for model in self._cache.models():
                self._queue.add(model.key)
            try:
                async with asyncio.timeout(RELIST_SECONDS * random.uniform(0.9, 1.1)):  # noqa: S311
                    await self._watches.relist.wait()
            except TimeoutError:
                continue

    async def follow_offers(self, insights: Insights) -> None:
        """Have the optional kinds watched as their CRDs come and go."""
        while True:
            await asyncio.sleep(OFFER_SECONDS * random.uniform(0.9, 1.1))  # noqa: S311
            before = self._offers.optional
            try:
                if not await self._offers.refresh():
                    continue
            except OperatorError as error:
                logger.debug("optional kinds can't be asked for: %s", error)
                continue
            now = self._offers.optional
            logger.info("optional kinds: %s", ", ".join(sorted(r.crd for r in now)) or "none")
            for resource in before - now:
                for gone in self._cache.prune(resource, self._cache.snapshot(resource), set()):
                    self._gone(gone)
            self._watches.expect(now)
            await watches.follow(insights, now)
            for model in self._cache.models():
                self._queue.add(model.key)

    async def _list_optional(self, resource: Resource) -> None:
        try:
            await self._list(resource)
        except RefusedError as error:
            # Who has a child of this kind is told so by its condition; the others need none.
            logger.warning("%s is not watched: %s", resource.kind, error)

    async def _list(self, resource: Resource) -> None:
        before = self._cache.snapshot(resource)
        listed: set[str] = set()
        for namespace in self._namespaces:
            async for page in self._cluster.list(resource, namespace):
                for obj in page:
                    # The items of a list do not name their kind.
                    named = {"apiVersion": resource.api_version, "kind": resource.kind, **obj}
                    self._put(resource, named)
                    listed.add(obj["metadata"]["uid"])
        for gone in self._cache.prune(resource, before, listed):
            logger.info("%s %s was deleted unseen", resource.kind, gone.uid)
            self._gone(gone)

    def _put(self, resource: Resource, obj: Mapping[str, Any]) -> None:
        try:
            news = self._cache.put(resource, obj)
        except msgspec.ValidationError as error:
            # One odd object must not stop the others.
            logger.error("%s %s: %s", resource.kind, obj["metadata"].get("name"), error)  # noqa: TRY400
            return
        if news is None:
            return
        if isinstance(news, Pod):
            self._pollers.sync(news)
        if news.key is not None:
            self._queue.add(news.key)

    def _gone(self, entry: Entry) -> None:
        if isinstance(entry, Pod):
            self._pollers.drop(entry.uid)
        if entry.key is not None:
            self._queue.add(entry.key)
