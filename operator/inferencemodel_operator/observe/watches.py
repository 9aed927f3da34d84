"""kopf's watches of the InferenceModels: what they bring, whether they live, and that they go on.

kopf tries again for ever after a broken connection, and ends after most other answers: a CRD that
is deleted, a watch that fails, a list that expired. Here those are broken connections to it, and
what ends it all the same starts it anew.
"""

from __future__ import annotations

import asyncio
import logging
import random
import signal
import threading
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import aiohttp

from inferencemodel_operator import answers, bodies, names, nesting
from inferencemodel_operator.cluster import (
    LARGEST_ERROR,
    LARGEST_OBJECT,
    MODELS,
    WATCH_SECONDS,
    Resource,
)
from inferencemodel_operator.errors import (
    ApiUnavailableError,
    NoRightError,
    NotFoundError,
    OperatorError,
    TransientError,
)
from inferencemodel_operator.lean import kopf
from inferencemodel_operator.waits import Wait

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping

    from aiohttp import ClientRequest, ClientResponse
    from aiohttp.client_middlewares import ClientHandlerType

    from inferencemodel_operator.observe.signs import Signs

logger = logging.getLogger(__name__)

LONGEST_BACKOFF: Final = 5.0
LONGEST_PAUSE: Final = 20.0
"""The most seconds that are waited because the API server asks to; a list ends after 30."""
STEADY_SECONDS: Final = 30.0
"""kopf works when it has run for so long."""
QUIET_FAILURES: Final = 2
"""Broken connections in a row that nobody needs to hear of."""
NO_CRD: Final = (
    "the CRD of InferenceModel is not installed; install it with `kubectl apply -f crds/`"
)


class _TryAgain(aiohttp.ClientConnectionError):
    """What kopf doesn't end by."""


class _Shallow:
    """What an answer brings, without what is nested too deeply for kopf's reader of JSON."""

    def __init__(
        self, response: ClientResponse, *, heard: Callable[[], object], ended: Callable[[], object]
    ) -> None:
        """``heard`` is called with each event, ``ended`` when a watch ends as it should."""
        self._response, self._content = response, response.content
        self._heard, self._ended = heard, ended

    def __getattr__(self, name: str) -> Any:
        return getattr(self._content, name)

    async def read(self) -> bytes:
        """All of it: a list."""
        return nesting.shallow(await self._content.read())

    async def iter_chunked(self, _: int) -> AsyncIterator[bytes]:
        """The events of a watch, line by line."""
        async for line in bodies.lines(self._response, LARGEST_OBJECT):
            self._heard()
            yield nesting.shallow(line) + b"\n"
        self._ended()


class _Expired:
    """A watch that tells kopf to list anew."""

    async def iter_chunked(self, _: int) -> AsyncIterator[bytes]:
        """The only event."""
        yield b'{"type": "ERROR", "object": {"kind": "Status", "code": 410}}\n'


async def _never(_namespace: str | None, _version: str) -> bool:
    return False


class ModelWatches:
    """kopf's watches of the InferenceModels; an aiohttp client middleware on its session."""

    def __init__(
        self,
        namespaces: Collection[str],
        signs: Signs,
        server: str = "",
        *,
        went_back: Callable[[str | None, str], Awaitable[bool]] = _never,
    ) -> None:
        """Expect one watch in each namespace, or one of all when there are none.

        Args:
            namespaces: the namespaces that are served.
            signs: of life of all watches.
            server: the API server's URL, which may have a path of its own.
            went_back: tells of a namespace whether the API server is at an older version than
                the given one; is asked when a watch was broken, and may raise OperatorError.
        """
        prefix = urlsplit(server).path.rstrip("/")
        version = MODELS.path(None).rpartition("/")[0]
        self._groups, self._kinds = f"{prefix}/apis", prefix + version
        self._discovery = Wait(f"looking for {MODELS.plural}", quiet=QUIET_FAILURES)
        self._signs = {
            prefix + MODELS.path(namespace): signs.expect(MODELS)
            for namespace in (namespaces or (None,))
        }
        self._waits = {
            prefix + MODELS.path(namespace): Wait(
                f"watching {MODELS.plural} in {namespace or 'all namespaces'}",
                quiet=QUIET_FAILURES,
            )
            for namespace in (namespaces or (None,))
        }
        self._went_back = went_back
        self._spaces = {
            prefix + MODELS.path(namespace): namespace for namespace in (namespaces or (None,))
        }
        self._broken: set[str] = set()
        """The paths of watches that did not end as they should, or have yet to."""
        self._closed = set(self._signs)
        self._refused: set[str] = set()
        """The paths of those of several namespaces in which the right to watch is missing."""
        self.relist = asyncio.Event()
        """Set once all watches are open (but those in `_refused`) after one of them had to list
        anew: kopf doesn't tell of deletions in the gap, so a listing has to find them. Set when the
        kind is gone, too."""

    async def __call__(self, request: ClientRequest, send: ClientHandlerType) -> ClientResponse:
        """Send a request of kopf's and learn from it.

        Raises:
            ClientConnectionError: it was not sent, or not answered as kopf can use it.
        """
        path = request.url.path
        if path not in self._signs or request.method != "GET":
            return await self._discover(request, send)
        self._signs[path].beat()
        watching = request.url.query.get("watch") == "true"
        if not watching:
            self._closed.add(path)
        wait = self._waits[path]
        with bodies.closed_by_failure(await self._send(path, request, send)) as response:
            if response.status == HTTPStatus.NOT_FOUND:
                self._closed.add(path)
                self.relist.set()
                wait.failed(NotFoundError(NO_CRD), quiet=0)
                raise _TryAgain(NO_CRD)
            if not response.ok:
                return response
            content: Any = _Shallow(
                response,
                heard=self._signs[path].beat,
                ended=lambda: self._broken.discard(path),
            )
            if watching:
                if await self._is_behind(path, request.url.query.get("resourceVersion", "")):
                    content = _Expired()
                self._broken.add(path)
                wait.worked()
                self._open(path)
            response.content = content
            return response

    async def _send(
        self, path: str, request: ClientRequest, send: ClientHandlerType
    ) -> ClientResponse:
        try:
            return await _send(request, send, self._waits[path])
        except BaseException as error:
            self._broken.add(path)
            if isinstance(error.__cause__, NoRightError):
                self._refuse(path)
            raise

    async def _is_behind(self, path: str, version: str) -> bool:
        """Whether a watch would be silent until the API server reaches a version anew."""
        if path not in self._broken or not version:
            return False
        try:
            return await self._went_back(self._spaces[path], version)
        except OperatorError as error:
            raise _TryAgain(str(error)) from error

    def _open(self, path: str) -> None:
        self._refused.discard(path)
        if path in self._closed:
            self._closed.discard(path)
            if self._closed <= self._refused:
                self.relist.set()

    def _refuse(self, path: str) -> None:
        """A namespace without the roles, as one that is gone, keeps nobody from the others."""
        before = self._closed <= self._refused
        self._refused.add(path)
        if not before and self._closed <= self._refused < self._signs.keys():
            self.relist.set()

    async def _discover(self, request: ClientRequest, send: ClientHandlerType) -> ClientResponse:
        """kopf asks just once which kinds there are: not before this one is among them."""
        path = request.url.path
        for sign in self._signs.values():
            # No watch is opened before an API server that is away is back.
            sign.beat()
        with bodies.closed_by_failure(await _send(request, send, self._discovery)) as response:
            if path == self._groups:
                offered = await _lists(response, "groups", names.GROUP)
            elif path == self._kinds:
                offered = await _lists(response, "resources", names.PLURAL)
            else:
                return response
            if not offered:
                self._discovery.failed(NotFoundError(NO_CRD), quiet=0)
                raise _TryAgain(NO_CRD)
            self._discovery.worked()
            return response


async def _lists(response: ClientResponse, field: str, name: str) -> bool:
    if not response.ok:
        return False
    found = await response.json()
    return any(item.get("name") == name for item in found.get(field) or ())


async def _send(request: ClientRequest, send: ClientHandlerType, wait: Wait) -> ClientResponse:
    """Get an answer that kopf goes on with; what is unknown or expired is its own business."""
    try:
        response = await send(request)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        wait.failed(ApiUnavailableError(f"{error or type(error).__name__}; trying again"))
        raise
    if response.ok or response.status in _UNDERSTOOD:
        return response
    with bodies.closed_by_failure(response):
        found = answers.status(response.status, await bodies.start(response, LARGEST_ERROR))
    refusal = answers.error(
        MODELS.target("watch", None), found, response.headers.get("Retry-After", "")
    )
    passing = isinstance(refusal, TransientError)
    verb = "watch" if request.url.query.get("watch") == "true" else "list"
    wait.failed(refusal, quiet=None if passing else 0, verb=verb)
    await asyncio.sleep(min(LONGEST_PAUSE, getattr(refusal, "retry_after", 0.0)))
    raise _TryAgain(str(refusal)) from refusal


_UNDERSTOOD: Final = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.GONE})


async def follow(
    handlers: kopf.OperatorRegistry,
    settings: kopf.OperatorSettings,
    namespaces: Collection[str],
    over: asyncio.Event,
) -> None:
    """Run kopf until ``over`` is set, as often as it takes.

    Args:
        handlers: what gets the events, and logs in.
        settings: kopf's.
        namespaces: those that are served; none for all.
        over: is set by SIGTERM and SIGINT, too.
    """
    wait = Wait("running kopf")
    while not over.is_set():
        steady = asyncio.get_running_loop().call_later(STEADY_SECONDS, wait.worked)
        failure = await _run(handlers, settings, namespaces, over)
        steady.cancel()
        if failure is None:
            return
        wait.failed(failure)
        with suppress(TimeoutError):
            async with asyncio.timeout(LONGEST_BACKOFF * random.uniform(0.5, 1.0)):  # noqa: S311
                await over.wait()


async def _run(
    handlers: kopf.OperatorRegistry,
    settings: kopf.OperatorSettings,
    namespaces: Collection[str],
    over: asyncio.Event,
) -> Exception | None:
    """Run kopf once; what it failed with, None when ``over`` was set.

    Not by `kopf.operator`: in the end that cancels all tasks of the event loop that are younger
    than itself, whoever's they are.
    """
    tasks = [
        asyncio.create_task(over.wait(), name="end of the operator"),
        *await kopf.spawn_tasks(
            registry=handlers,
            settings=settings,
            clusterwide=not namespaces,
            namespaces=namespaces,
            # For peering, which is off; kopf's own guess fails for a user without a name.
            identity=names.FIELD_MANAGER,  # type: ignore[arg-type]  # a str by a private type
        ),
    ]
    _end_by_signals(over)
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    if over.is_set():
        return None
    failures = (task.exception() for task in tasks if not task.cancelled())
    return next((f for f in failures if isinstance(f, Exception)), RuntimeError("it ended"))


def _end_by_signals(over: asyncio.Event) -> None:
    """Take signals back from kopf, whose handlers know of its last run alone."""
    if threading.current_thread() is threading.main_thread():
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, over.set)


class _Backoffs:
    """kopf's delays between attempts of a request: without an end, it must never give up."""

    def __iter__(self) -> Iterator[float]:
        delay = 0.5
        while True:
            yield delay * random.uniform(0.5, 1.0)  # noqa: S311
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
    # kopf takes its finalizer away where no handler wants it: by default that of others', too.
    chosen.persistence.finalizer = f"{names.GROUP}/nobody"
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
    # Or it kills the process some minutes after its end.
    chosen.process.ultimate_exiting_timeout = None
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
