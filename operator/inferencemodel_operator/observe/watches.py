"""kopf's watches of the InferenceModels: what they bring, and whether they live."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from inferencemodel_operator import names
from inferencemodel_operator.cluster import MODELS, WATCH_SECONDS, Resource
from inferencemodel_operator.lean import kopf

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from aiohttp import ClientRequest, ClientResponse
    from aiohttp.client_middlewares import ClientHandlerType

    from inferencemodel_operator.observe.signs import Signs

LONGEST_BACKOFF: Final = 20.0


class ModelWatches:
    """kopf's watches of the InferenceModels; an aiohttp client middleware on its session."""

    def __init__(self, namespaces: Collection[str], signs: Signs, server: str = "") -> None:
        """Expect one watch in each namespace, or one of all when there are none.

        Args:
            namespaces: the namespaces that are served.
            signs: of life of all watches.
            server: the API server's URL, which may have a path of its own.
        """
        prefix = urlsplit(server).path.rstrip("/")
        self._signs = {
            prefix + MODELS.path(namespace): signs.expect(MODELS)
            for namespace in (namespaces or (None,))
        }
        self._closed = set(self._signs)
        self.relist = asyncio.Event()
        """Set once all watches are open after one of them had to list anew: kopf doesn't tell of
        deletions in the gap, so a listing has to find them."""

    async def __call__(self, request: ClientRequest, send: ClientHandlerType) -> ClientResponse:
        """Send a request of kopf's and learn from it."""
        path = request.url.path
        if path not in self._signs or request.method != "GET":
            return await send(request)
        self._signs[path].beat()
        watching = request.url.query.get("watch") == "true"
        if not watching:
            self._closed.add(path)
        response = await send(request)
        if watching and response.ok and path in self._closed:
            self._closed.discard(path)
            if not self._closed:
                self.relist.set()
        return response


class _Backoffs:
    """kopf's delays between attempts of a request: without an end, it must never give up."""

    def __iter__(self) -> Iterator[float]:
        delay = 0.5
        while True:
            yield delay
            delay = min(LONGEST_BACKOFF, delay * 2)


class _NoDiffs(kopf.DiffBaseStorage):
    """Remembers nothing on the objects; the operator looks at what is, not at what changed."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        return kopf.BodyEssence()

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        return None


class _NoProgress(kopf.ProgressStorage):
    """Remembers nothing on the objects; `kopf.on.event` handlers have no progress."""

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        return None

    def purge(self, **_: Any) -> None:
        return None

    def touch(self, **_: Any) -> None:
        return None

    def clear(self, *, essence: kopf.BodyEssence) -> kopf.BodyEssence:
        return essence


def settings(selector: str | None) -> kopf.OperatorSettings:
    """kopf as a source of events alone: it writes nothing to the cluster.

    Args:
        selector: the label selector of the InferenceModels to watch; None for all.
    """
    chosen = kopf.OperatorSettings()
    chosen.persistence.diffbase_storage = _NoDiffs()
    chosen.persistence.progress_storage = _NoProgress()
    chosen.posting.enabled = False
    chosen.peering.standalone = True
    # Without rights to watch namespaces and CRDs; the operator checks for its CRD itself.
    chosen.scanning.disabled = True
    chosen.watching.server_timeout = WATCH_SECONDS
    chosen.watching.chunk_size = 100
    chosen.networking.error_backoffs = _Backoffs()
    chosen.networking.connect_timeout = 5
    chosen.networking.request_timeout = 30
    # A kopf worker for each object holds its last event for as long as it idles.
    chosen.queueing.idle_timeout = 0.1
    chosen.queueing.exit_timeout = 0.2
    if selector is not None:
        chosen.watching.label_selectors[names.GROUP, names.VERSION, names.PLURAL] = selector
    return chosen


def registry(
    seen: Callable[[Resource, str | None, Mapping[str, Any]], None],
) -> kopf.OperatorRegistry:
    """A handler that hands every event on.

    Args:
        seen: gets the kind, the event's type (None while listing) and the object.
    """
    handlers = kopf.OperatorRegistry()

    async def handle(event: kopf.RawEvent, **_: Any) -> None:
        seen(MODELS, event["type"], event["object"])

    kopf.on.event(
        group=names.GROUP,
        version=names.VERSION,
        plural=names.PLURAL,
        id=names.PLURAL,
        registry=handlers,
    )(handle)
    return handlers
