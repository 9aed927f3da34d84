"""The program: reads its settings, starts the threads, ends on SIGTERM."""

from __future__ import annotations

import logging
import os
import signal
import sys
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from model_poller import once, settings
from model_poller.api import Api, Health
from model_poller.bring import Bringer, Demands
from model_poller.checks.signature import PublicKey
from model_poller.errors import InsufficientDiskError, InvalidSettingsError, PollerError
from model_poller.golden.sending import GoldenRequests
from model_poller.look import Looker
from model_poller.model_server.figures import FiguresWatch, fetch
from model_poller.model_server.server import ModelServer, ServerWatch, write_configuration
from model_poller.model_server.warmup import WarmupRequests, locate
from model_poller.once import ExitCode
from model_poller.poller import Poller
from model_poller.process import logs, memory, output, threads
from model_poller.process.arguments import shown
from model_poller.stores.opening import open_source
from model_poller.volume import assignment, places
from model_poller.volume.assignment import AssignmentWatch, InvalidTargetError, UnreadableError
from model_poller.volume.store import FULL, Store

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from model_poller.process.threads import Worker
    from model_poller.settings import Settings
    from model_poller.stores import Source
    from model_poller.stores.learnt import LearntSource
    from model_poller.volume.assignment import Assignment

_log = logging.getLogger(__name__)


class _Part(Protocol):
    """Something with a thread of its own."""

    worker: Worker

    def start(self) -> None: ...

    def stop(self) -> None: ...


CACHE_SECONDS = 600.0
"""So long the end is put off until others have what was fetched here; a pod's grace may be less."""
_ENDING = (signal.SIGTERM, signal.SIGINT)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the poller; returns the exit code, see `once.ExitCode`."""
    try:
        chosen = settings.parse(sys.argv[1:] if arguments is None else arguments, os.environ)
        logs.set_up(chosen.log_format, chosen.log_level)
        return run(chosen)
    except InvalidSettingsError as error:
        return _failed(error, ExitCode.USAGE)
    except InsufficientDiskError as error:
        # Other than bad settings it passes: whoever supervises starts it again.
        return _failed(error, ExitCode.NO_ROOM)
    finally:
        # How it ended is what whoever started it reads, whatever became of the log.
        output.settle(sys.stderr)


def _failed(error: PollerError, code: ExitCode) -> ExitCode:
    with suppress(OSError):
        output.write(sys.stderr, f"model_poller: {' '.join(str(error).splitlines())}")
    return code


def run(chosen: Settings) -> ExitCode:
    """Run the poller until SIGTERM or SIGINT, or until ``--once`` is done.

    Raises:
        InvalidSettingsError: no credentials, a port that is taken, a volume that can't be written.
        InsufficientDiskError: there is no room for the little that has to be written at the start.
        SystemExit: ``--once`` was told to end.
    """
    if chosen.once:
        # Whoever waits for it can end it at any point: what is half done is done again.
        with _ended_by_signals():
            return _run_once(chosen)
    # Blocked before the first thread starts, so that only sigwait gets them: a handler would run
    # in the middle of whatever its thread does, with that one's locks held.
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    memory.use_one_arena()
    # gRPC's core writes lines of its own to stderr; what matters of them comes as an error too.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    learnt = None if chosen.source.locations else _open_learnt(chosen)
    source = learnt or open_source(chosen.source)
    bringer = _bringer(chosen, source)
    poller = Poller(
        chosen.model,
        chosen.policy,
        bringer,
        look_now=lambda: looker.look_now(),
        hurry=lambda fast: watch.hurry(fast),
        golden=GoldenRequests(chosen.server_address, chosen.model).check,
        want_figures=lambda reason, seconds: figures.want(reason, seconds),
    )
    looker = Looker(
        source,
        chosen.poll_interval,
        poller.on_look,
        marker=chosen.complete_marker,
        interest=poller.interest,
    )
    server = ModelServer(chosen.server_address, chosen.model)
    watch = ServerWatch(server.status, poller.on_served)
    figures = FiguresWatch(
        lambda: fetch(chosen.server_rest_address), chosen.model, poller.on_figures
    )
    parts: list[_Part] = [poller, looker, watch, figures, memory.Thrift()]
    health = Health(
        silent=lambda: threads.silent([*(part.worker for part in parts), poller.fetching]),
        started=poller.has_published,
        ready=poller.is_ready,
        draining=poller.is_draining,
    )
    try:
        api = Api(chosen.http_port, poller.board, health)
    except OSError as error:
        raise InvalidSettingsError(f"port {chosen.http_port} can't be used: {error}") from error

    def on_object(bucket: str, name: str) -> None:
        may_learn = (
            learnt is not None
            and (place := places.learn(bucket, name)) is not None
            and learnt.hear(place, name)
        )
        if may_learn or any(place.holds(bucket, name) for place in source.locations):
            looker.look_now()

    parts.append(api)
    if chosen.target_file:
        parts.append(
            AssignmentWatch(chosen.target_file, chosen.first_assignment, poller.on_assignment)
        )
    elif chosen.first_assignment != assignment.NOTHING:
        poller.on_assignment(assignment.parse(chosen.first_assignment))
    parts += _hearers(
        chosen,
        {
            "on_object": on_object,
            "on_connect": looker.look_now,
            "report": poller.on_notifications,
        },
    )
    for part in parts:
        part.start()
    _log.info("bringing %s from %s to %s", chosen.model, source.uri or "…", chosen.base)
    _log.info("listening on port %d", api.port)
    _log.info("%s: ending", signal.Signals(signal.sigwait(_ENDING)).name)
    if bringer.cache:
        bringer.cache.finish(CACHE_SECONDS)
    # Threads that don't end at once are daemons, whose work is safe to lose at any point.
    for part in parts:
        part.stop()
    return ExitCode.PUBLISHED


def _hearers(chosen: Settings, hearing: Mapping[str, Any]) -> Iterator[_Part]:
    """What hears a bucket's messages.

    Imported only when asked for: a poller pays memory for what it uses.
    """
    if chosen.subscription:
        from model_poller.notifications.pubsub import Subscription

        yield Subscription(
            chosen.subscription,
            chosen.pubsub_endpoint,
            credentials=chosen.source.credentials,
            **hearing,
        )
    if chosen.sqs_queue_url:
        from model_poller.notifications.sqs import Queue

        yield Queue(
            chosen.sqs_queue_url,
            credentials=chosen.source.credentials,
            region=chosen.source.region,
            **hearing,
        )


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """End by SIGTERM or SIGINT also as process 1, for which the kernel ends nobody by default."""

    def end(number: int, _: object) -> NoReturn:
        # What a shell tells of a program that a signal ended.
        sys.exit(128 + number)

    before = {number: signal.signal(number, end) for number in _ENDING}
    # The supervisor blocks them until there is a handler.
    mask = signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in before.items():
            signal.signal(number, handler)


def _open_learnt(chosen: Settings) -> LearntSource:
    # Imported only when asked for: a poller pays memory for what it uses.
    from model_poller.stores.learnt import LearntSource

    memory = chosen.hidden / ".locations.json"
    return LearntSource(
        chosen.model,
        places.recall(memory),
        lambda place: places.remember(memory, [place]),
        endpoint=chosen.source.endpoint,
        anonymous=chosen.source.anonymous,
        credentials=chosen.source.credentials,
    )


def _run_once(chosen: Settings) -> ExitCode:
    source = open_source(chosen.source)
    assigned = _assignment(chosen)
    wanted = assigned.target
    bringer = _bringer(chosen, source)
    poller = Poller(
        chosen.model,
        replace(chosen.policy, follow_newest=wanted is None),
        bringer,
        look_now=lambda: looker.look_now(),
        hurry=lambda _: None,
    )
    looker = Looker(
        source,
        chosen.poll_interval,
        poller.on_look,
        marker=chosen.complete_marker,
        interest=poller.interest,
    )
    poller.on_assignment(assigned)
    poller.start()
    looker.start()
    try:
        ended = once.wait(poller.board, wanted, chosen.timeout)
        if bringer.cache:
            # Others wait for it.
            bringer.cache.join(CACHE_SECONDS)
        return ended
    finally:
        looker.stop()
        poller.stop()


def _bringer(chosen: Settings, source: Source) -> Bringer:
    store, demands = _prepare_volume(chosen), _demands(chosen)
    cache = None
    if chosen.cache:
        # Imported only when asked for: a poller pays memory for what it uses.
        from model_poller.cache import key
        from model_poller.cache.shared import Cache

        cache = Cache(replace(chosen.cache, server=key.server(chosen.source)))
    return Bringer(source, store, demands, chosen.fetch, cache=cache)


def _assignment(chosen: Settings) -> Assignment:
    """What is assigned now, for who doesn't wait for another word.

    Raises:
        InvalidSettingsError: there is a file for the target, and no target.
    """
    file, texts = chosen.target_file, chosen.first_assignment
    if file:
        try:
            texts = assignment.read(file, texts)
        except UnreadableError as error:
            raise InvalidSettingsError(f"--target-file: {error}") from None
        if not texts.target:
            raise InvalidSettingsError(
                f"--target-file={file} is empty or isn't there, and TARGET_VERSION isn't set; leave"
                " the option out for the newest version"
            )
    try:
        return assignment.parse(texts)
    except InvalidTargetError:
        raise InvalidSettingsError(
            f"the target {shown(texts.target)} in {file} is no version number"
        ) from None


def _prepare_volume(chosen: Settings) -> Store:
    # What is fetched has to be readable by the model server's user.
    os.umask(0o022)
    store = Store(chosen.base, chosen.hidden, chosen.most_bytes)
    try:
        store.lock()
        store.prepare()
    except BlockingIOError as error:
        raise InvalidSettingsError(
            f"another poller works on {chosen.hidden}; one volume takes one poller"
        ) from error
    except OSError as error:
        raise _unusable(f"the model volume can't be used: {error}", error) from error
    if folder := chosen.server_config_dir:
        try:
            write_configuration(folder, chosen.model, chosen.base, chosen.batching_parameters)
        except OSError as error:
            raise _unusable(
                f"--server-config-dir={folder} can't be written: {error}", error
            ) from error
    return store


def _unusable(message: str, error: OSError) -> PollerError:
    """The error for a volume without which nothing can begin."""
    if error.errno in FULL:
        return InsufficientDiskError(f"{message}; it is tried again: enlarge the volume", 0)
    return InvalidSettingsError(message)


def _demands(chosen: Settings) -> Demands:
    key, requests = chosen.manifest_public_key, chosen.warmup_requests
    return Demands(
        manifest=chosen.require_manifest,
        public_key=PublicKey.parse(key) if key else None,
        marker=chosen.complete_marker,
        warmup=WarmupRequests(locate(requests, chosen.source), chosen.source) if requests else None,
        model=chosen.model,
    )
