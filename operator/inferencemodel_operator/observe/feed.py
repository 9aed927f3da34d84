"""Brings watches, listings and pollers together in the cache, and says what is to be reconciled."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import time
from typing import TYPE_CHECKING, Any, Final

import msgspec

from inferencemodel_operator import names
from inferencemodel_operator.cluster import DEPLOYMENTS, MODELS, PODS, WATCHED
from inferencemodel_operator.errors import NoRightError, NotFoundError, OperatorError
from inferencemodel_operator.logs import about
from inferencemodel_operator.observe import objects
from inferencemodel_operator.observe.informer import QUIET_FAILURES, RELIST_SECONDS, Informer
from inferencemodel_operator.observe.objects import Child, Model, Pod
from inferencemodel_operator.observe.rivals import Rivals
from inferencemodel_operator.shards import Scope
from inferencemodel_operator.waits import Wait

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from inferencemodel_operator.cache import Cache, Entry
    from inferencemodel_operator.cluster import Cluster, Resource
    from inferencemodel_operator.observe.objects import Key
    from inferencemodel_operator.observe.offers import Offers
    from inferencemodel_operator.observe.pollers import Pollers
    from inferencemodel_operator.observe.signs import Signs
    from inferencemodel_operator.observe.watches import ModelWatches
    from inferencemodel_operator.queue import WorkQueue

logger = logging.getLogger(__name__)

_Task = asyncio.Task[None]

RETRY_SECONDS: Final = 5.0
OFFER_SECONDS: Final = 10.0
"""How soon a CRD that is installed, or taken away, is noticed."""
FIRST_OFFER_SECONDS: Final = 1.0
"""The same at the start, while there are kinds that can't be asked for yet."""


class Feed:
    """Everything that comes in goes through here."""

    def __init__(
        self,
        cluster: Cluster,
        cache: Cache,
        queue: WorkQueue[Key],
        pollers: Pollers,
        watches: ModelWatches,
        signs: Signs,
        offers: Offers,
        namespaces: Collection[str],
        *,
        rivals: Rivals | None = None,
    ) -> None:
        self._cluster = cluster
        self._cache = cache
        self._queue = queue
        cache.addresses.notify = queue.add
        cache.notify = self._follow
        self._pollers = pollers
        self._watches = watches
        self._signs = signs
        self._offers = offers
        self._namespaces = tuple(namespaces) or (None,)
        self._rivals = Rivals(cluster, None, Scope()) if rivals is None else rivals
        if rivals is not None:
            rivals.changed = watches.relist.set
        self._arrivals: dict[Key, tuple[Mapping[str, Any], _Task]] = {}
        """InferenceModels that came from another operator, while their children are listed."""
        self._hidden: set[str | None] = set()
        """Of several namespaces, those in which not everything could be listed yet."""
        self.complete = asyncio.Event()
        """Set once the cache holds all that there is, but for what `sees` says no to; nothing is
        judged before."""

    def sees(self, namespace: str) -> bool:
        """Whether the cache holds, or has held, all that there is in a namespace."""
        return namespace not in self._hidden

    def event(self, resource: Resource, kind: str | None, obj: Mapping[str, Any]) -> None:
        """Take in one event of a watch."""
        if kind == "DELETED":
            if resource is MODELS:
                self._rivals.forget(_key(obj))
                self._turn_away(_key(obj))
            gone = self._cache.remove(resource, obj)
            if gone is not None:
                self._gone(gone)
        else:
            self._put(resource, obj)

    async def run(self) -> None:
        """Take in all that comes; ends only by being cancelled."""
        started = time.monotonic()
        listed = [asyncio.Event(), asyncio.Event()]
        async with asyncio.TaskGroup() as group:
            self._group = group
            group.create_task(self._list_models(listed[0]), name="listing of models")
            if self._cache.is_part:
                # Of what belongs to others nothing is kept, so one's own have to be known first.
                await listed[0].wait()
            group.create_task(self._follow_offers(group, listed[1]), name="offers")
            informers = {
                namespace: [
                    self._inform(group, resource, namespace)[0]
                    for resource in WATCHED
                    if resource is not MODELS
                ]
                for namespace in self._namespaces
            }
            for part in listed:
                await part.wait()
            await self._settle(group, informers)
            logger.info(
                "watching %d InferenceModels after %.1f s",
                len(self._cache.snapshot(MODELS)),
                time.monotonic() - started,
            )
            self.complete.set()
            self._queue_all()

    async def _settle(
        self, group: asyncio.TaskGroup, informers: Mapping[str | None, Sequence[Informer]]
    ) -> None:
        """Return when all is listed that may be, and everything in one namespace at least.

        A namespace without the roles, as one that is gone, keeps nobody from the others. It is
        taken up when they are there.
        """
        for informer in itertools.chain(*informers.values()):
            await informer.answered.wait()
        lists = {space: group.create_task(_listed(own)) for space, own in informers.items()}
        await asyncio.wait(lists.values(), return_when=asyncio.FIRST_COMPLETED)
        self._hidden = {space for space, task in lists.items() if not task.done()}
        for space in self._hidden:
            logger.info("serving the others than namespace %s until the rights are there", space)
            group.create_task(self._reveal(space, lists[space]))

    async def _reveal(self, namespace: str | None, listed: _Task) -> None:
        await listed
        self._hidden.discard(namespace)
        for model in self._cache.models():
            if model.key[0] == namespace:
                self._queue.add(model.key)

    def _inform(
        self, group: asyncio.TaskGroup, resource: Resource, namespace: str | None
    ) -> tuple[Informer, _Task]:
        informer = Informer(
            self._cluster,
            self._cache,
            resource,
            namespace,
            self._signs,
            seen=self.event,
            gone=self._gone,
        )
        name = f"watch of {resource.plural} in {namespace or 'all namespaces'}"
        return informer, group.create_task(informer.run(), name=name)

    async def _follow_offers(self, group: asyncio.TaskGroup, listed: asyncio.Event) -> None:
        """Watch the optional kinds as their CRDs come and go."""
        watched: dict[Resource, dict[Informer, _Task]] = {}
        while True:
            changed = await self._offers.refresh()
            for resource in watched.keys() - self._offers.optional:
                for task in watched.pop(resource).values():
                    task.cancel()
                for entry in self._cache.prune(resource, self._cache.snapshot(resource), set()):
                    self._gone(entry)
            for resource in self._offers.optional - watched.keys():
                watched[resource] = dict(
                    self._inform(group, resource, space) for space in self._namespaces
                )
                for informer in watched[resource]:
                    await informer.listed.wait()
            if changed:
                crds = sorted(resource.crd for resource in self._offers.optional)
                logger.info("optional kinds: %s", ", ".join(crds) or "none")
                self._queue_all()
            if self._offers.are_known:
                # Who has a child of one that can't be asked for is told so; others need none.
                listed.set()
            pause = OFFER_SECONDS if listed.is_set() else FIRST_OFFER_SECONDS
            await asyncio.sleep(pause * random.uniform(0.9, 1.1))  # noqa: S311

    async def _list_models(self, listed: asyncio.Event) -> None:
        """List the InferenceModels when kopf's watches are open, after a gap, and now and then."""
        wait = Wait(f"listing {MODELS.plural}", quiet=QUIET_FAILURES)
        await self._watches.relist.wait()
        await self._rivals.looked.wait()
        while True:
            self._watches.relist.clear()
            before = self._cache.snapshot(MODELS)
            unseen: set[str | None] = set()
            try:
                uids = await self._take_in_models(unseen)
            except OperatorError as error:
                wait.failed(error)
                self._watches.relist.set()
                await asyncio.sleep(RETRY_SECONDS * random.uniform(0.5, 1.0))  # noqa: S311
                continue
            wait.worked()
            before = {name: uid for name, uid in before.items() if name[0] not in unseen}
            for gone in self._cache.prune(MODELS, before, uids or set()):
                logger.info("%s %s was deleted unseen", MODELS.kind, gone.uid)
                self._gone(gone)
            self._rivals.tell()
            if uids is not None:
                listed.set()
            try:
                async with asyncio.timeout(RELIST_SECONDS * random.uniform(0.9, 1.1)):  # noqa: S311
                    await self._watches.relist.wait()
            except TimeoutError:
                self._queue_all()

    async def _take_in_models(self, unseen: set[str | None]) -> set[str] | None:
        """The uids of all that there are; None when not even their kind is there.

        Args:
            unseen: gets those of several namespaces that may not be listed; `watches` says so.

        Raises:
            NoRightError: none may be.
        """
        uids: set[str] = set()
        for namespace in self._namespaces:
            try:
                async for page in self._cluster.list(MODELS, namespace):
                    for obj in page.get("items") or ():
                        self._put(MODELS, MODELS.name_kind(obj))
                        uids.add(obj["metadata"]["uid"])
            except NotFoundError:
                return None
            except NoRightError:
                unseen.add(namespace)
                if len(unseen) == len(self._namespaces):
                    raise
        return uids

    def _queue_all(self) -> None:
        for model in self._cache.models():
            self._queue.add(model.key)

    def _put(self, resource: Resource, obj: Mapping[str, Any]) -> None:
        if resource is MODELS:
            key = _key(obj)
            if not self._rivals.serves(key, obj["metadata"].get("labels") or {}):
                self._turn_away(key)
                gone = self._cache.give_up(key)
                if gone is not None:
                    self._gone(gone)
                return
            if self._arrives(obj):
                return
        self._take_in(resource, obj)

    def _arrives(self, obj: Mapping[str, Any]) -> bool:
        """Whether an InferenceModel comes from another operator: it is taken in with its children,
        or it would seem to have none."""
        key = _key(obj)
        if key in self._arrivals:
            before, task = self._arrivals[key]
            if _version(obj) > _version(before):
                self._arrivals[key] = obj, task
            return True
        if not self._cache.has_elsewhere(key):
            return False
        self._cache.expect(key)
        task = self._group.create_task(self._receive(key), name=f"arrival of {key[0]}/{key[1]}")
        self._arrivals[key] = obj, task
        return True

    async def _receive(self, key: Key) -> None:
        """Take in an InferenceModel after all that belongs to it."""
        wait = Wait(f"listing what belongs to {key[0]}/{key[1]}")
        kinds = [resource for resource in (*WATCHED, *self._offers.optional) if resource != MODELS]
        for resource, label in [
            *((resource, names.MODEL_LABEL) for resource in kinds),
            (PODS, names.REHEARSAL_LABEL),
        ]:
            while not await self._list_own(resource, key, label, wait):  # noqa: ASYNC110  a backoff
                await asyncio.sleep(RETRY_SECONDS * random.uniform(0.5, 1.0))  # noqa: S311
        obj, _ = self._arrivals.pop(key)
        logger.info("taken over from another operator", extra=about(key))
        self._take_in(MODELS, obj)

    async def _list_own(self, resource: Resource, key: Key, label: str, wait: Wait) -> bool:
        """Take in the objects of a kind that name an InferenceModel; whether it worked."""
        try:
            async for page in self._cluster.list(resource, key[0], label=(label, key[1])):
                for obj in page.get("items") or ():
                    self._take_in(resource, resource.name_kind(obj))
        except NotFoundError:
            # Its CRD was just taken away.
            return True
        except OperatorError as error:
            wait.failed(error)
            return False
        return True

    def _turn_away(self, key: Key) -> None:
        """Forget an InferenceModel that has gone again before it was taken in."""
        arrival = self._arrivals.pop(key, None)
        if arrival is not None:
            arrival[1].cancel()
            self._cache.leave(key)

    def _take_in(self, resource: Resource, obj: Mapping[str, Any]) -> None:
        try:
            news = self._cache.put(resource, obj)
        except msgspec.ValidationError as error:
            # One odd object must not stop the others.
            logger.error("%s %s: %s", resource.kind, obj["metadata"].get("name"), error)  # noqa: TRY400
            return
        except Exception:
            logger.exception("%s %s", resource.kind, obj["metadata"].get("name"))
            return
        if news is not None and news.key is not None:
            self._queue.add(news.key)

    def _follow(self, entry: Entry) -> None:
        """Ask those pods that are the InferenceModel's by what is known of their owners now."""
        if isinstance(entry, Child) and entry.kind != DEPLOYMENTS.kind:
            return
        if isinstance(entry, Pod):
            pods = [entry]
        else:
            pods = self._cache.labelled_pods(entry.key) if entry.key else []
        for pod in pods:
            if self._cache.owns(pod):
                self._pollers.sync(pod)
            else:
                self._pollers.drop(pod.uid)

    def _gone(self, entry: Entry) -> None:
        if isinstance(entry, Pod):
            self._pollers.drop(entry.uid)
        else:
            self._follow(entry)
        if isinstance(entry, Model):
            self._cache.leave(entry.key)
        if entry.key is not None:
            self._queue.add(entry.key)


def _key(obj: Mapping[str, Any]) -> Key:
    return obj["metadata"]["namespace"], obj["metadata"]["name"]


def _version(obj: Mapping[str, Any]) -> int:
    return objects.version(obj["metadata"]["resourceVersion"])


async def _listed(informers: Iterable[Informer]) -> None:
    for informer in informers:
        await informer.listed.wait()
