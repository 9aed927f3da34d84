"""The watches that kopf keeps: what they bring, and whether they live."""

from __future__ import annotations

import asyncio
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import aiohttp
import kopf

from inferencemodel_operator.cluster import OPTIONAL, WATCHED, Resource, selector

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    from aiohttp import ClientRequest, ClientResponse
    from aiohttp.client_middlewares import ClientHandlerType
    from kopf._cogs.structs.references import Insights

SERVER_SECONDS: Final = 240
"""After so long the API server ends a watch and kopf opens the next: a regular sign of life."""
DEAD_SECONDS: Final = SERVER_SECONDS + 120.0
"""A watch without a sign of life for so long is dead. kopf itself ends one that is silent (no
bookmark either) for 70 s, and tries at least twice a minute to open it again."""
LONGEST_BACKOFF: Final = 20.0


class Watches:
    """Signs of life of all watches; an aiohttp client middleware on kopf's session."""

    def __init__(self, namespaces: Collection[str], server: str = "") -> None:
        """Expect one watch of each kind in each namespace, or in all when there are none.

        Args:
            namespaces: the namespaces that are served.
            server: the API server's URL, which may have a path of its own.
        """
        self._prefix = urlsplit(server).path.rstrip("/")
        self._namespaces = tuple(namespaces) or (None,)
        self._optional = set(self._paths_of(OPTIONAL))
        self._paths: dict[str, Resource] = {}
        self._alive: dict[str, float] = {}
        self._closed: set[str] = set()
        self.relist = asyncio.Event()
        """Set once all watches are open after one of them had to list anew: deletions in the gap
        are told by nobody, so a listing has to find them."""
        self.expect(())

    def expect(self, optional: Collection[Resource]) -> None:
        """Expect these watches beside those that there are always."""
        expected = self._paths_of((*WATCHED, *optional))
        new = expected.keys() - self._paths.keys()
        self._paths = expected
        self._alive = {path: self._alive.get(path, time.monotonic()) for path in expected}
        self._closed = (self._closed | new) & expected.keys()

    @property
    def most(self) -> int:
        """The most watches that there can be at once."""
        return (len(WATCHED) + len(OPTIONAL)) * len(self._namespaces)

    async def __call__(self, request: ClientRequest, send: ClientHandlerType) -> ClientResponse:
        """Send a request of kopf's and learn from it."""
        path = request.url.path
        optional = path in self._optional
        if request.method != "GET" or not (optional or path in self._paths):
            return await send(request)
        if path in self._paths:
            self._alive[path] = time.monotonic()
        watching = request.url.query.get("watch") == "true"
        if not watching and path in self._paths:
            self._closed.add(path)
        response = await send(request)
        refused = optional and response.status in (HTTPStatus.NOT_FOUND, HTTPStatus.FORBIDDEN)
        if refused or (watching and response.ok):
            self._opened(path)
        if refused:
            # For kopf that would be the end of the whole operator; of this it tries on.
            response.release()
            raise aiohttp.ClientConnectionError(f"{path} can't be watched: {response.status}")
        return response

    def _opened(self, path: str) -> None:
        if path in self._closed:
            self._closed.discard(path)
            if not self._closed:
                self.relist.set()

    def _paths_of(self, resources: Iterable[Resource]) -> dict[str, Resource]:
        return {
            self._prefix + resource.path(namespace): resource
            for resource in resources
            for namespace in self._namespaces
        }

    def ages(self) -> Iterator[tuple[Resource, float]]:
        """Seconds since each watch last gave a sign of life."""
        now = time.monotonic()
        for path, resource in self._paths.items():
            yield resource, now - self._alive[path]

    def dead(self) -> list[str]:
        """The kinds whose watch is dead."""
        return [resource.plural for resource, age in self.ages() if age > DEAD_SECONDS]


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


def settings() -> kopf.OperatorSettings:
    """kopf as a source of events alone: it writes nothing to the cluster."""
    chosen = kopf.OperatorSettings()
    chosen.persistence.diffbase_storage = _NoDiffs()
    chosen.persistence.progress_storage = _NoProgress()
    chosen.posting.enabled = False
    chosen.peering.standalone = True
    # Without rights to watch namespaces and CRDs; the operator checks for its CRD itself.
    chosen.scanning.disabled = True
    chosen.watching.server_timeout = SERVER_SECONDS
    chosen.watching.chunk_size = 100
    chosen.networking.error_backoffs = _Backoffs()
    chosen.networking.connect_timeout = 5
    chosen.networking.request_timeout = 30
    # A kopf worker for each object holds its last event for as long as it idles.
    chosen.queueing.idle_timeout = 0.1
    chosen.queueing.exit_timeout = 0.2
    for resource in (*WATCHED, *OPTIONAL):
        labels = selector(resource)
        if labels is not None:
            group, _, version = resource.api_version.rpartition("/")
            chosen.watching.label_selectors[group, version, resource.plural] = labels
    return chosen


def registry(
    seen: Callable[[Resource, str | None, Mapping[str, Any]], None],
) -> kopf.OperatorRegistry:
    """Handlers that hand every event on.

    Args:
        seen: gets the kind, the event's type (None while listing) and the object.
    """
    handlers = kopf.OperatorRegistry()
    for resource in (*WATCHED, *OPTIONAL):
        group, _, version = resource.api_version.rpartition("/")

        async def handle(
            event: kopf.RawEvent,
            _resource: Resource = resource,
            **_: Any,
        ) -> None:
            seen(_resource, event["type"], event["object"])

        kopf.on.event(
            group=group,
            version=version,
            plural=resource.plural,
            id=resource.plural,
            registry=handlers,
        )(handle)
    return handlers


async def follow(insights: Insights, optional: Collection[Resource]) -> None:
    """Have kopf watch just these of the optional kinds, from now on.

    kopf would follow the CRDs of a cluster itself, but needs the right to watch them all for it.
    """
    await insights.ready_resources.wait()
    async with insights.revised:
        insights.watched_resources.difference_update(map(_kopf_resource, OPTIONAL))
        insights.watched_resources.update(map(_kopf_resource, optional))
        insights.revised.notify_all()


def _kopf_resource(resource: Resource) -> kopf.Resource:
    group, _, version = resource.api_version.rpartition("/")
    return kopf.Resource(
        group=group,
        version=version,
        plural=resource.plural,
        kind=resource.kind,
        namespaced=True,
        preferred=True,
        verbs=frozenset({"list", "watch"}),
    )
