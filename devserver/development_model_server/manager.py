"""The manager: keeps what is loaded in line with the versions that are wanted.

A loop looks every 100 ms and takes at most one action, as TensorFlow Serving's
``AspiredVersionsManager`` and ``BasicManager`` do. With these it shares that

- a version that failed stays failed for as long as it is wanted;
- a request that wants a version again which was dropped before waits until nothing of that
  version is left, so a failed number can stay burnt while an older version serves;
- without load threads, a load and its retries hold up the loop and thereby all models.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from development_model_server.errors import CancelledLoadError, Code, ServingError, not_found
from development_model_server.policy import Kind, Snapshot, Stage, next_action
from development_model_server.servable import ServableId, ServableRequest, ServableState, State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from development_model_server.monitor import EventBus
    from development_model_server.policy import Action

_logger = logging.getLogger(__name__)
_TICK_SECONDS = 0.1
_REMINDER_SECONDS = 30.0


class Closable(Protocol):
    """Something in memory that can be freed."""

    def close(self) -> None:
        """Free it; it is in nobody's use."""


ServableT = TypeVar("ServableT", bound=Closable)
LoadedT = TypeVar("LoadedT", bound=Closable, covariant=True)
ResultT = TypeVar("ResultT")


class Loader(Protocol[LoadedT]):
    """Brings a version from its folder into memory."""

    def probe(self, path: str) -> None:
        """Look how large the version is; raises ServingError if that can't be seen."""

    def load(self, servable: ServableId, path: str) -> LoadedT:
        """Load the version, warm-up included; raises ServingError."""
        ...


@dataclass(frozen=True)
class ManagerOptions:
    """How loads and unloads are run; see the flags of the same names."""

    num_load_threads: int = 0
    num_unload_threads: int = 0
    max_num_load_retries: int = 5
    load_retry_interval_micros: int = 60_000_000


@dataclass
class _Harness(Generic[ServableT]):
    id: ServableId
    path: str
    aspired: bool = True
    stage: Stage = Stage.NEW
    retry: bool = True
    servable: ServableT | None = None
    users: int = 0


class Manager(Generic[ServableT]):
    """Loads, lends and unloads versions."""

    def __init__(self, loader: Loader[ServableT], bus: EventBus, options: ManagerOptions) -> None:
        self._loader = loader
        self._bus = bus
        self._options = options
        self._changed = threading.Condition(threading.RLock())
        self._managed: dict[str, dict[int, _Harness[ServableT]]] = {}
        self._serving: dict[str, dict[int, _Harness[ServableT]]] = {}
        self._pending_lock = threading.Lock()
        self._pending: dict[str, Sequence[tuple[ServableId, str]]] = {}
        self._load_executor_lock = threading.Lock()
        self._load_executor = _Executor(options.num_load_threads, "load")
        self._unload_executor = _Executor(options.num_unload_threads, "unload")
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="manager", daemon=True)

    def start(self) -> None:
        """Start the loop."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the loop after its present step; what is loaded stays."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def aspire(self, name: str, versions: Sequence[tuple[ServableId, str]]) -> None:
        """Say which versions of a model are wanted from now on, and where each one lies."""
        with self._pending_lock:
            self._pending[name] = versions

    @contextlib.contextmanager
    def lend(self, request: ServableRequest) -> Iterator[tuple[ServableId, ServableT]]:
        """Hold a version for the length of a request: it is not unloaded meanwhile.

        Raises:
            ServingError: NOT_FOUND, as no such version is available.
        """
        with self._changed:
            available = self._serving.get(request.name)
            version = request.version
            if version is None and available:
                version = max(available)
            harness = available.get(version) if available and version is not None else None
            if harness is None or harness.servable is None:
                raise not_found(f"Servable not found for request: {request}")
            harness.users += 1
            servable = harness.servable
        try:
            yield harness.id, servable
        finally:
            with self._changed:
                harness.users -= 1
                if not harness.users:
                    self._changed.notify_all()

    def set_num_load_threads(self, count: int) -> None:
        """Change the number of load threads; waits for the loads that are under way."""
        with self._load_executor_lock:
            self._load_executor.close()
            self._load_executor = _Executor(count, "load")

    def _loop(self) -> None:
        due = time.monotonic()
        while not self._stopping.is_set():
            try:
                self.step()
            except Exception:
                _logger.exception("The manager's step failed; it goes on with the next one")
            due = max(due + _TICK_SECONDS, time.monotonic())
            self._stopping.wait(due - time.monotonic())

    def step(self) -> None:
        """One turn of the loop: forget, take in what is wanted, act once."""
        with self._changed:
            self._forget_quiet()
            self._take_in_pending()
            action = next_action(
                [
                    Snapshot(harness.id, harness.stage, harness.aspired)
                    for harness in self._managed[name].values()
                ]
                for name in sorted(self._managed)
            )
        if action is not None:
            self._perform(action)

    def _forget_quiet(self) -> None:
        for name in list(self._managed):
            versions = self._managed[name]
            for harness in list(versions.values()):
                if harness.stage.quiet and not harness.aspired:
                    del versions[harness.id.version]
            if not versions:
                del self._managed[name]

    def _take_in_pending(self) -> None:
        with self._pending_lock:
            for name, wanted in list(self._pending.items()):
                managed = self._managed.get(name, {})
                numbers = {servable.version for servable, _ in wanted}
                if any(
                    harness.id.version in numbers and not harness.aspired
                    for harness in managed.values()
                ):
                    continue
                del self._pending[name]
                self._take_in(name, wanted, numbers)

    def _take_in(
        self, name: str, wanted: Sequence[tuple[ServableId, str]], numbers: set[int]
    ) -> None:
        managed = self._managed.get(name, {})
        for harness in managed.values():
            if harness.id.version not in numbers:
                harness.aspired = False
                if harness.stage is not Stage.ERROR:
                    harness.retry = False
        for servable, path in wanted:
            managed = self._managed.setdefault(name, {})
            if servable.version not in managed:
                managed[servable.version] = _Harness(servable, path)
                self._publish(servable, State.START)
        if not self._managed.get(name, True):
            del self._managed[name]

    def _perform(self, action: Action) -> None:
        with self._changed:
            harness = self._managed[action.id.name][action.id.version]
            harness.stage = Stage.LOADING if action.kind is Kind.LOAD else Stage.UNLOADING
        if action.kind is Kind.LOAD:
            with self._load_executor_lock:
                self._load_executor.submit(lambda: self._load(harness))
        else:
            self._unload_executor.submit(lambda: self._unload(harness))

    def _load(self, harness: _Harness[ServableT]) -> None:
        servable = harness.id
        try:
            self._reserve(harness)
            _logger.info("Approving load for servable version %s", servable)
            self._publish(servable, State.LOADING)
            _logger.info("Loading servable version %s", servable)
            loaded = self._retried(
                harness,
                f"Loading servable: {servable}",
                lambda: self._loader.load(servable, harness.path),
            )
            with self._changed:
                cancelled = not harness.retry
            if cancelled:
                _logger.info("Unloading just-loaded servable version %s", servable)
                loaded.close()
                raise CancelledLoadError
        except ServingError as error:
            self._fail(harness, error)
            return
        with self._changed:
            harness.servable = loaded
            self._serving.setdefault(servable.name, {})[servable.version] = harness
        _logger.info("Successfully loaded servable version %s", servable)
        self._publish(servable, State.AVAILABLE)
        # Last, as the policy may unload the previous version from here on.
        with self._changed:
            harness.stage = Stage.READY

    def _fail(self, harness: _Harness[ServableT], error: ServingError) -> None:
        self._bus.publish(ServableState(harness.id, State.END, error))
        with self._changed:
            harness.stage = Stage.DISABLED if isinstance(error, CancelledLoadError) else Stage.ERROR
        _logger.info("Encountered an error for servable version %s: %s", harness.id, error.text)
        _logger.error("Servable %s cannot be loaded: %s", harness.id, error.text)

    def _reserve(self, harness: _Harness[ServableT]) -> None:
        try:
            self._retried(
                harness,
                f"Reserving resources for servable: {harness.id}",
                lambda: self._loader.probe(harness.path),
            )
        except ServingError as error:
            raise ServingError(
                error.code,
                "Error while attempting to reserve resources to load servable"
                f" {harness.id}: {error.message}",
            ) from error
        _logger.info("Successfully reserved resources to load servable %s", harness.id)

    def _retried(
        self, harness: _Harness[ServableT], what: str, attempt: Callable[[], ResultT]
    ) -> ResultT:
        tries = 0
        while True:
            if tries:
                time.sleep(max(0, self._options.load_retry_interval_micros) / 1e6)
                _logger.info("Retrying of %s retry: %d", what, tries)
            failure: ServingError
            try:
                return attempt()
            except ServingError as error:
                failure = error
            except Exception as error:
                _logger.exception("%s failed unexpectedly", what)
                failure = ServingError(Code.INTERNAL, f"{type(error).__name__}: {error}")
            _logger.error("%s failed: %s", what, failure.text)
            tries += 1
            with self._changed:
                cancelled = not harness.retry
            if cancelled:
                _logger.info("Retrying of %s was cancelled.", what)
                raise failure
            if tries > self._options.max_num_load_retries:
                _logger.info(
                    "Retrying of %s exhausted max_num_retries: %d",
                    what,
                    self._options.max_num_load_retries,
                )
                raise failure

    def _unload(self, harness: _Harness[ServableT]) -> None:
        servable = harness.id
        _logger.info("Quiescing servable version %s", servable)
        self._publish(servable, State.UNLOADING)
        with self._changed:
            serving = self._serving[servable.name]
            del serving[servable.version]
            if not serving:
                del self._serving[servable.name]
            while harness.users:
                if not self._changed.wait(_REMINDER_SECONDS):
                    _logger.info(
                        "Unloading %s waits for %d requests that still run", servable, harness.users
                    )
            loaded, harness.servable = harness.servable, None
        _logger.info("Done quiescing servable version %s", servable)
        _logger.info("Unloading just-loaded servable version %s", servable)
        if loaded is not None:
            loaded.close()
        _logger.info("Done unloading servable version %s", servable)
        self._publish(servable, State.END)
        with self._changed:
            harness.stage = Stage.DISABLED

    def _publish(self, servable: ServableId, state: State) -> None:
        self._bus.publish(ServableState(servable, state))


@dataclass
class _Executor:
    """A pool of threads, or, with none, the caller's own thread."""

    threads: int
    name: str
    _pool: ThreadPoolExecutor | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        if self.threads > 0:
            self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix=self.name)

    def submit(self, work: Callable[[], None]) -> None:
        if self._pool is None:
            work()
        else:
            self._pool.submit(_logged, work)

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True)


def _logged(work: Callable[[], None]) -> None:
    try:
        work()
    except Exception:
        _logger.exception("A version's load or unload ended unexpectedly")
