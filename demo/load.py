"""Steady requests against a served model, and an honest count of those that failed.

Open loop: a request leaves when its time has come, whether or not earlier ones have been answered,
so a gap in the service shows as failures or waiting and not as fewer requests. Nothing is sent
twice: a failed request is counted, with its time and reason. Rate, time and the number of requests
under way are bounded.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
import time
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import aiohttp
import grpc.aio

from demo.errors import DemoError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType
    from typing import Self

    Send = Callable[[], Awaitable[str]]
    """Sends one request and returns what is to be counted of its answer; raises RequestError."""

TIMEOUT = 10.0
"""Seconds after which an unanswered request counts as failed."""
CONNECT_TIMEOUT = 30.0
MAX_RATE = 200.0
MAX_SECONDS = 1800.0
MAX_UNDER_WAY = 200


class LoadError(DemoError):
    """Requests can't be sent at all; the message says which and why."""


class RequestError(Exception):
    """A request was not answered as it should have been; the message says how."""


@dataclass(frozen=True)
class Failure:
    """A failed request: when it was sent (seconds since the epoch), by whom, and why it failed."""

    at: float
    load: str
    reason: str
    waited: float = 0.0
    """Seconds until it failed."""


@dataclass
class Load:
    """Requests of one kind at a steady rate, and what became of them.

    Attributes:
        name: for the report.
        client: opens the connections and yields what sends one request over them.
        rate: requests a second, at most MAX_RATE.
        longest: seconds after which it ends by itself.
    """

    name: str
    client: Callable[[], AbstractAsyncContextManager[Send]]
    rate: float
    longest: float = MAX_SECONDS
    sent: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    """The time that each answered request took."""

    def __post_init__(self) -> None:
        if not 0 < self.rate <= MAX_RATE:
            raise ValueError(f"a load of {self.rate} requests/s is not within 0 to {MAX_RATE:.0f}")

    async def run(self, stop: asyncio.Event) -> None:
        """Send until ``stop`` or for as long as it may, then wait for the last answers."""
        async with self.client() as send, asyncio.TaskGroup() as requests:
            under_way: set[asyncio.Task[None]] = set()
            started = time.monotonic()
            while not stop.is_set() and time.monotonic() - started < self.longest:
                self.sent += 1
                if len(under_way) < MAX_UNDER_WAY:
                    request = requests.create_task(self._one(send))
                    under_way.add(request)
                    request.add_done_callback(under_way.discard)
                else:
                    self._failed(time.time(), f"{MAX_UNDER_WAY} requests are waiting for answers")
                due = started + self.sent / self.rate
                try:
                    await asyncio.wait_for(stop.wait(), max(0.0, due - time.monotonic()))
                except TimeoutError:
                    continue

    async def _one(self, send: Send) -> None:
        at, started = time.time(), time.monotonic()
        try:
            answer = await asyncio.wait_for(send(), TIMEOUT)
        except TimeoutError:
            self._failed(at, f"no answer within {TIMEOUT:.0f} s", TIMEOUT)
        except RequestError as error:
            self._failed(at, str(error), time.monotonic() - started)
        else:
            self.answers[answer] += 1
            self.seconds.append(time.monotonic() - started)

    def _failed(self, at: float, reason: str, waited: float = 0.0) -> None:
        self.failures.append(Failure(at, self.name, reason, waited))

    def quantile(self, part: float) -> float:
        """The time in seconds within which ``part`` (0 to 1) of the answers came."""
        ordered = sorted(self.seconds)
        return ordered[min(int(part * len(ordered)), len(ordered) - 1)] if ordered else 0.0


class Traffic:
    """Loads that run in a thread of their own inside a ``with`` block."""

    def __init__(self, *loads: Load) -> None:
        self.loads = loads
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._error: LoadError | None = None
        self._thread = threading.Thread(target=self._run, name="traffic", daemon=True)

    @property
    def running(self) -> bool:
        """Whether requests are still being sent."""
        return self._thread.is_alive()

    @property
    def sent(self) -> int:
        """How many requests were due so far; each was sent or counts as failed."""
        return sum(load.sent for load in self.loads)

    @property
    def failures(self) -> tuple[Failure, ...]:
        """What failed so far, in the order of sending."""
        found = (failure for load in self.loads for failure in load.failures)
        return tuple(sorted(found, key=lambda failure: failure.at))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.running:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(CONNECT_TIMEOUT + TIMEOUT + 5.0)
        if kind is None:
            self.check()

    def check(self) -> None:
        """Make sure that requests are, or were, really sent.

        Raises:
            LoadError: a load ended by itself.
        """
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._all())
        finally:
            self._loop.close()

    async def _all(self) -> None:
        async with asyncio.TaskGroup() as loads:
            for load in self.loads:
                loads.create_task(self._one(load))

    async def _one(self, load: Load) -> None:
        try:
            await load.run(self._stop)
        except Exception as error:  # noqa: BLE001  raised again by check
            self._error = LoadError(f"{load.name}: {error or type(error).__name__}")
            self._stop.set()
        else:
            if not self._stop.is_set():
                # What goes on in the block is tried by nobody any more.
                self._error = LoadError(f"{load.name}: it was to end after {load.longest:.0f} s")
                self._stop.set()


@dataclass(frozen=True)
class Exchange:
    """A request and how its answer is read.

    Attributes:
        body: what is sent.
        read: takes from the answer what is to be counted; a ValueError of it means that the
            answer was wrong, and the request failed.
    """

    body: Any
    read: Callable[[Any], str]


def rest(
    url: str, exchanges: Sequence[Exchange], *, host: str | None = None
) -> Callable[[], AbstractAsyncContextManager[Send]]:
    """POST requests over kept-alive connections.

    Args:
        url: whole, with the address that is connected to.
        exchanges: taken in turn; bodies and answers are bytes.
        host: the Host header, where the address is not the name.
    """
    headers = {"Content-Type": "application/json"} | ({"Host": host} if host else {})
    turns = itertools.cycle(exchanges)

    @asynccontextmanager
    async def client() -> AsyncIterator[Send]:
        # aiohttp sends only idempotent requests a second time, which a POST is not.
        async with aiohttp.ClientSession(headers=headers) as session:

            async def send() -> str:
                exchange = next(turns)
                try:
                    async with session.post(url, data=exchange.body) as response:
                        content = await response.read()
                except (aiohttp.ClientError, OSError) as error:
                    raise RequestError(f"{type(error).__name__}: {error}") from error
                if response.status != HTTPStatus.OK:
                    raise RequestError(f"HTTP {response.status}: {content[:200]!r}")
                return _read(exchange, content)

            yield send

    return client


def grpc_predict(
    target: str,
    exchanges: Sequence[Exchange],
    response_type: Any,
    *,
    more_options: Sequence[tuple[str, Any]] = (),
) -> Callable[[], AbstractAsyncContextManager[Send]]:
    """Predict calls over one channel that is balanced over all addresses of its target.

    Args:
        target: as gRPC names it: ``dns://10.96.0.10:53/imagenet-headless.vision.svc…:8500``.
        exchanges: taken in turn; bodies are PredictRequests, answers PredictResponses.
        response_type: the PredictResponse type.
        more_options: of the channel.
    """
    options: list[tuple[str, Any]] = [
        ("grpc.service_config", json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})),
        # A failed call is to be seen, not repeated.
        ("grpc.enable_retries", 0),
        # How soon a client that was told to reconnect may ask for the addresses again. By default
        # 30 s: too long to hear of a pod that leaves before its 35 s of draining are over.
        ("grpc.dns_min_time_between_resolutions_ms", 5000),
        *more_options,
    ]
    turns = itertools.cycle(exchanges)

    @asynccontextmanager
    async def client() -> AsyncIterator[Send]:
        async with grpc.aio.insecure_channel(target, options=options) as channel:
            predict: Any = channel.unary_unary(
                "/tensorflow.serving.PredictionService/Predict",
                request_serializer=lambda request: request.SerializeToString(),
                response_deserializer=response_type.FromString,
            )
            try:
                await asyncio.wait_for(channel.channel_ready(), CONNECT_TIMEOUT)
            except TimeoutError:
                raise LoadError(f"no connection within {CONNECT_TIMEOUT:.0f} s: {target}") from None

            async def send() -> str:
                exchange = next(turns)
                try:
                    response = await predict(exchange.body, timeout=TIMEOUT)
                except grpc.aio.AioRpcError as error:
                    raise RequestError(f"{error.code().name}: {error.details()}") from error
                return _read(exchange, response)

            yield send

    return client


def _read(exchange: Exchange, answer: Any) -> str:
    try:
        return exchange.read(answer)
    except ValueError as error:
        raise RequestError(f"unexpected answer: {str(answer)[:200]}") from error
