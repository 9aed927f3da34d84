"""One replica of the operator: how the parts are wired, started and stopped."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import uuid
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING

from inferencemodel_operator import cluster, health, limits
from inferencemodel_operator.access import Access
from inferencemodel_operator.apply import Applier
from inferencemodel_operator.cache import Cache
from inferencemodel_operator.cluster import MODELS, OPTIONAL, WATCHED, Cluster
from inferencemodel_operator.leadership import Leadership
from inferencemodel_operator.lean import kopf
from inferencemodel_operator.metrics import Metrics
from inferencemodel_operator.observe import pollers, watches
from inferencemodel_operator.observe.channels import Direct, Proxied
from inferencemodel_operator.observe.feed import Feed
from inferencemodel_operator.observe.offers import Offers
from inferencemodel_operator.observe.pollers import Pollers, Turns
from inferencemodel_operator.observe.rivals import Rivals
from inferencemodel_operator.observe.signs import Signs
from inferencemodel_operator.observe.watches import ModelWatches
from inferencemodel_operator.queue import WorkQueue
from inferencemodel_operator.reconcile import Reconciler
from inferencemodel_operator.recorder import Recorder
from inferencemodel_operator.shards import Scope
from inferencemodel_operator.template_updates import TemplateUpdates
from inferencemodel_operator.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    import aiohttp

    from inferencemodel_operator.observe.channels import Channel
    from inferencemodel_operator.observe.objects import Key, Pod
    from inferencemodel_operator.settings import Options

logger = logging.getLogger(__name__)


class Operator:
    """`start` connects it and sets it to work, `wait` returns when it has ended, `stop` ends it.

    As an async context manager it is started at the beginning and stopped at the end.
    """

    def __init__(self, options: Options) -> None:
        """Do nothing yet; to be called where an event loop runs."""
        self._options = options
        self._metrics = Metrics()
        self._signs = Signs()
        self._cache = Cache(is_part=options.selector is not None)
        self._queue: WorkQueue[Key] = WorkQueue()
        self._resources = AsyncExitStack()
        """What is open: connections and the HTTP interface."""
        self._life: asyncio.Task[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._leadership: Leadership | None = None
        self._is_at_work = False
        self._kopf_session: aiohttp.ClientSession | None = None
        self._over = asyncio.Event()
        """Set to end it."""

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Connect, serve health and metrics, and begin to work in the background.

        Raises:
            PermanentError: there are no credentials for a cluster.
            OSError: the port for health and metrics is taken.
        """
        access = await asyncio.to_thread(Access, self._options.kubeconfig)
        async with AsyncExitStack() as resources:
            await self._wire(access, resources)
            self._resources = resources.pop_all()
        self._life = asyncio.create_task(self._live(), name="operator")

    async def wait(self) -> None:
        """Return when it was told to end, by `stop` or by a signal to the process.

        Raises:
            Exception: what a part of it failed with; LostLeadershipError among others.
        """
        if self._life is not None:
            await asyncio.shield(self._life)

    async def stop(self) -> None:
        """End all work, leave the Lease to the next replica, and close all connections."""
        self._over.set()
        if self._life is not None:
            await asyncio.wait([self._life])
        await self._resources.aclose()

    async def _wire(self, access: Access, resources: AsyncExitStack) -> None:
        options = self._options
        self._access = access
        self._watches = ModelWatches(
            options.namespaces, self._signs, access.server, went_back=self._went_back
        )
        count = (len(WATCHED) + len(OPTIONAL)) * max(1, len(options.namespaces))
        self._pool = await resources.enter_async_context(cluster.connect(access, watches=count))
        requests = cluster.session(self._pool, self._metrics, access)
        await resources.enter_async_context(requests)
        replica = os.environ.get("POD_NAME") or socket.gethostname()
        identity = f"{replica}_{uuid.uuid4().hex[:8]}"
        scope = Scope(options.namespaces, options.selector or "")
        # What is asked for the Lease's sake is asked by replicas that stand by, too.
        leases = Cluster(access, requests)
        if options.lease is not None:
            self._leadership = Leadership(leases, *options.lease, identity, scope)
        self._rivals = Rivals(leases, options.lease, scope, identity)
        self._api = Cluster(
            access,
            requests,
            models=options.selector,
            may_write=self._may_write,
        )
        self._pollers = await self._reach_pollers(access, resources, cluster.CONNECTIONS + count)
        offers = Offers(self._api)
        self._feed = Feed(
            self._api,
            self._cache,
            self._queue,
            self._pollers,
            self._watches,
            self._signs,
            offers,
            options.namespaces,
            rivals=self._rivals,
        )
        applier = Applier(self._api, self._cache, offers)
        self._recorder = Recorder(self._api)
        self._reconciler = Reconciler(
            self._api,
            self._cache,
            self._queue,
            applier,
            options.settings,
            self._metrics,
            self._recorder,
            TemplateUpdates(
                self._api, self._cache, self._queue, options.max_restarts, self._metrics
            ),
        )
        self._workers = Workers(self._queue, self._reconcile, self._metrics, self._permission)
        await resources.enter_async_context(
            health.serve(options.http_port, self._signs, self._feed, self._metrics, self._refresh)
        )

    async def _went_back(self, namespace: str | None, version: str) -> bool:
        if not await self._api.is_before(MODELS, namespace, version):
            return False
        logger.warning(
            "%s: version %s is yet to come, as after a restore; listing anew",
            MODELS.plural,
            version,
        )
        self._cache.forget_versions(MODELS, namespace)
        return True

    async def _reach_pollers(
        self, access: Access, resources: AsyncExitStack, connections: int
    ) -> Pollers:
        chosen = self._options.poller_access
        proxied = chosen == "proxy" or (chosen == "auto" and not access.in_cluster)
        address: Callable[[Pod], str] = pollers.direct
        channel: Callable[[str, asyncio.Semaphore], Channel] = Direct
        if proxied:
            address = lambda pod: pollers.proxied(access.server, pod)  # noqa: E731
            session = await resources.enter_async_context(pollers.session(access))
            single = await resources.enter_async_context(pollers.session(access, reuse=False))
            channel = partial(Proxied, session=session, single=single)
        most = limits.polls(limits.open_files(), connections + health.MOST_CONNECTIONS)
        self._metrics.poll_limit.set(most)
        return Pollers(
            channel,
            address,
            self._cache.reports,
            self._queue.add,
            self._metrics,
            Turns(most),
        )

    async def _live(self) -> None:
        options = self._options
        self._begin()
        try:
            await watches.follow(
                self._handlers(), watches.settings(options.selector), options.namespaces, self._over
            )
        finally:
            await self._end()
            # kopf closes only a session that it came to use.
            if self._kopf_session is not None:
                await self._kopf_session.close()
        for task in self._tasks:
            if not task.cancelled():
                task.result()

    def _handlers(self) -> kopf.OperatorRegistry:
        handlers = watches.registry(self._feed.event)

        async def log_in(**_: object) -> kopf.AiohttpSession:
            # kopf closes a session when it ends; the pool below it stays open.
            session = self._kopf_session
            if session is None or session.closed:
                session = cluster.session(self._pool, self._watches, self._metrics, self._access)
                self._kopf_session = session
            return kopf.AiohttpSession(server=self._access.server, aiohttp_session=session)

        kopf.on.login(registry=handlers)(log_in)
        return handlers

    def _begin(self) -> None:
        """Start the parts that never end by themselves; where one fails, all end."""
        parts = {
            "feed": self._feed.run(),
            "work": self._work(),
            "recorder": self._recorder.run(),
            "rivals": self._rivals.run(),
        }
        if self._leadership is not None:
            parts["leadership"] = self._leadership.run()
        self._tasks = [asyncio.create_task(part, name=name) for name, part in parts.items()]
        for task in self._tasks:
            task.add_done_callback(lambda _: self._over.set())

    async def _end(self) -> None:
        self._queue.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._pollers.close()
        if self._leadership is not None:
            await self._leadership.release()

    async def _work(self) -> None:
        """Reconcile from the moment that this replica leads and knows all that there is."""
        if self._leadership is not None:
            await self._leadership.acquired.wait()
        await self._feed.complete.wait()
        await self._rivals.give_way()
        self._pollers.start(self._cache.served_pods())
        self._is_at_work = True
        await self._workers.run()

    async def _reconcile(self, key: Key) -> None:
        # Where not all is known yet, the feed queues it once it is.
        if self._feed.sees(key[0]):
            await self._reconciler.reconcile(key)

    async def _permission(self) -> None:
        if self._leadership is not None:
            await self._leadership.confirmation()

    def _may_write(self) -> bool:
        return self._leadership is None or self._leadership.holds()

    def _refresh(self) -> None:
        """Bring the gauges up to date."""
        metrics = self._metrics
        metrics.leading.set(self._is_at_work and self._may_write())
        metrics.queue_depth.set(len(self._queue))
        metrics.queue_waiting.set(self._queue.waiting)
        metrics.queue_working.set(self._queue.working)
        for resource, age in self._signs.ages():
            metrics.watch_age.labels(resource.plural).set(age)
        metrics.overlapping.labels("left").set(self._rivals.left)
        metrics.overlapping.labels("served").set(self._rivals.shared)
        states = list(self._reconciler.ready_states())
        for state in ("True", "False", "Unknown"):
            metrics.models.labels(state).set(states.count(state))
