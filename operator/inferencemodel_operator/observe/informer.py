"""A listing and a watch of one kind, kept going for ever.

kopf keeps a task, a queue and the last object for everything that it watches, and takes a third of
a millisecond for an event: fit for the InferenceModels, too much for the dozen children and pods
that each of them has.
"""

from __future__ import annotations

import asyncio
import logging
import random
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

from inferencemodel_operator.errors import (
    ApiUnavailableError,
    ExpiredError,
    NoRightError,
    NotFoundError,
    OperatorError,
)
from inferencemodel_operator.observe import objects
from inferencemodel_operator.waits import Wait

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from inferencemodel_operator.cache import Cache, Entry
    from inferencemodel_operator.cluster import Cluster, Resource
    from inferencemodel_operator.observe.signs import Sign, Signs

logger = logging.getLogger(__name__)

RELIST_SECONDS: Final = 600.0
"""How often everything is listed although the watch seems to miss nothing."""
FIRST_BACKOFF: Final = 0.5
LONGEST_BACKOFF: Final = 10.0
STEADY_SECONDS: Final = 3.0
"""A watch that stays open for so long works, whether anything happens or not. A listing alone does
not say so: the right to watch is another one."""
QUIET_FAILURES: Final = 2
"""Failures in a row that nobody needs to hear of."""


class Informer:
    """What is and what changes, of one kind in one namespace or (None) in all."""

    def __init__(
        self,
        cluster: Cluster,
        cache: Cache,
        resource: Resource,
        namespace: str | None,
        signs: Signs,
        *,
        seen: Callable[[Resource, str | None, Mapping[str, Any]], None],
        gone: Callable[[Entry], None],
    ) -> None:
        """Start with nothing.

        Args:
            cluster: is listed and watched.
            cache: is pruned of what a listing doesn't have.
            resource: the kind.
            namespace: the namespace; None for all.
            signs: gets one more, which beats with all that comes.
            seen: gets the kind, the event's type (None while listing) and the object.
            gone: gets what a listing found gone.
        """
        self._cluster = cluster
        self._cache = cache
        self._resource = resource
        self._namespace = namespace
        self._signs = signs
        self._seen = seen
        self._gone = gone
        where = namespace or "all namespaces"
        self._reached = 0
        """The newest version that was listed or watched."""
        self._is_broken = False
        """Whether the last watch did not end as it should."""
        self._wait = Wait(f"watching {resource.plural} in {where}", quiet=QUIET_FAILURES)
        self.listed = asyncio.Event()
        """Set once everything was listed; of an optional kind, or can't be."""
        self.answered = asyncio.Event()
        """Set once everything was listed, or can't be for want of a right."""

    async def run(self) -> None:
        """List and watch; ends only by being cancelled."""
        sign = self._signs.expect(self._resource)
        try:
            await self._run(sign)
        finally:
            self._signs.drop(sign)

    async def _run(self, sign: Sign) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                version = await self._list(sign)
                relist_at = loop.time() + RELIST_SECONDS * random.uniform(0.9, 1.1)  # noqa: S311
                while loop.time() < relist_at:
                    version = await self._follow(version, sign)
            except ExpiredError as error:
                self._is_broken = False
                logger.info("%s: %s", self._resource.plural, error)
                await self._back_off(error)
            except OperatorError as error:
                if isinstance(error, NoRightError):
                    self.answered.set()
                if self._resource.optional:
                    # Who has a child of this kind is told so by its condition; others need none.
                    self.listed.set()
                    if isinstance(error, NotFoundError):
                        # Soon noticed by whoever looks which kinds there are.
                        await asyncio.sleep(LONGEST_BACKOFF)
                        continue
                await self._back_off(error)

    async def _list(self, sign: Sign) -> str:
        """Take in all that is; the version that it is as of."""
        sign.beat()
        before = self._cache.snapshot(self._resource, self._namespace)
        listed: set[str] = set()
        version = ""
        async for page in self._cluster.list(self._resource, self._namespace):
            sign.beat()
            version = page["metadata"]["resourceVersion"]
            if (now := objects.version(version)) < self._reached:
                # As after a restore of etcd. What is known has newer versions, and is of no use.
                self._cache.forget_versions(self._resource, self._namespace)
            self._reached = now
            for obj in page.get("items") or ():
                self._seen(self._resource, None, self._resource.name_kind(obj))
                listed.add(obj["metadata"]["uid"])
        for entry in self._cache.prune(self._resource, before, listed):
            logger.info("%s %s was deleted unseen", self._resource.kind, entry.uid)
            self._gone(entry)
        self.listed.set()
        self.answered.set()
        return version

    async def _follow(self, version: str, sign: Sign) -> str:
        """Take in what changes until the watch ends; the version reached.

        Raises:
            ExpiredError: only a new listing helps.
        """
        sign.beat()
        loop = asyncio.get_running_loop()
        begin = loop.time()
        steady: list[asyncio.TimerHandle] = []

        def settle() -> None:
            steady.append(loop.call_later(STEADY_SECONDS, self._wait.worked))

        try:
            if self._is_broken:
                if await self._cluster.is_before(self._resource, self._namespace, version):
                    raise ExpiredError(
                        f"version {version} is yet to come, as after a restore; listing anew"
                    )
                self._is_broken = False
            async with aclosing(
                self._cluster.watch(self._resource, self._namespace, version, settle)
            ) as events:
                async for kind, obj in events:
                    sign.beat()
                    self._wait.worked()
                    version = obj["metadata"]["resourceVersion"]
                    self._reached = objects.version(version)
                    if kind != "BOOKMARK":
                        self._seen(self._resource, kind, obj)
            if loop.time() < begin + STEADY_SECONDS:
                # Or something that ends them all at once would be asked without a pause.
                raise ApiUnavailableError(f"the watch of {self._resource.plural} ended at once")
        except ExpiredError:
            raise
        except OperatorError as error:
            self._is_broken = True
            await self._back_off(error, "watch")
        finally:
            for timer in steady:
                timer.cancel()
        return version

    async def _back_off(self, error: OperatorError, verb: str = "list") -> None:
        longest = min(LONGEST_BACKOFF, FIRST_BACKOFF * 2.0 ** min(self._wait.failures, 16))
        self._wait.failed(error, verb=verb)
        wait = getattr(error, "retry_after", 0.0)
        await asyncio.sleep(max(wait, longest * random.uniform(0.5, 1.0)))  # noqa: S311
