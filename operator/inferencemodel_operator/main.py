"""The command line, and how the parts are wired to kopf."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
import uuid
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import aiohttp

from inferencemodel_operator import cluster, health, logs, names, sockets
from inferencemodel_operator.access import Access
from inferencemodel_operator.apply import Applier
from inferencemodel_operator.cache import Cache
from inferencemodel_operator.cluster import MODELS, OPTIONAL, WATCHED, Cluster
from inferencemodel_operator.errors import OperatorError, PermanentError, TransientError
from inferencemodel_operator.leadership import Leadership
from inferencemodel_operator.lean import kopf
from inferencemodel_operator.logs import about
from inferencemodel_operator.metrics import Metrics
from inferencemodel_operator.observe import pollers, watches
from inferencemodel_operator.observe.feed import Feed
from inferencemodel_operator.observe.offers import Offers
from inferencemodel_operator.observe.pollers import Pollers
from inferencemodel_operator.observe.signs import Signs
from inferencemodel_operator.observe.watches import ModelWatches
from inferencemodel_operator.queue import WorkQueue
from inferencemodel_operator.reconcile import Reconciler
from inferencemodel_operator.settings import (
    DEFAULT_NAMESPACE,
    DEFAULT_POLLER_IMAGE,
    Settings,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inferencemodel_operator.observe.objects import Key

logger = logging.getLogger(__name__)

WORKERS: Final = 16
QUIET_RETRIES: Final = 4
"""The failure in a row of one InferenceModel that is worth a warning."""
CRD_RETRY_SECONDS: Final = 5.0


@dataclass(frozen=True, kw_only=True)
class Options:
    """The command line, parsed."""

    kubeconfig: Path | None
    namespaces: tuple[str, ...]
    selector: str | None
    """Of the labels of the InferenceModels that are served; None for all."""
    poller_access: str
    http_port: int
    lease: tuple[str, str] | None
    """Namespace and name of the Lease that the replicas share; None for a single one."""
    settings: Settings


async def run(options: Options) -> None:
    """Run the operator until SIGTERM or SIGINT.

    Raises:
        PermanentError: there are no credentials for a cluster.
        OSError: the port for health and metrics is taken.
    """
    running = asyncio.current_task()
    if running is not None:
        # Until kopf takes signals over: the first process of a container has no default for them.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
    access = await asyncio.to_thread(Access, options.kubeconfig)
    metrics = Metrics()
    signs = Signs()
    watching = ModelWatches(options.namespaces, signs, access.server)
    watches_held = (len(WATCHED) + len(OPTIONAL)) * max(1, len(options.namespaces))
    cache = Cache()
    queue: WorkQueue[Key] = WorkQueue()
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(cluster.connect(access, watches=watches_held))
        requests = await stack.enter_async_context(cluster.session(pool, metrics, access))
        leadership = _leadership(options, Cluster(access, requests))
        api = Cluster(
            access,
            requests,
            models=options.selector,
            may_write=leadership.holds if leadership else lambda: True,
        )
        proxied = options.poller_access == "proxy" or (
            options.poller_access == "auto" and not access.in_cluster
        )
        asking = await stack.enter_async_context(_poll_session(access, proxied=proxied))
        polling = Pollers(
            asking,
            (lambda pod: pollers.proxied(access.server, pod)) if proxied else pollers.direct,
            cache.reports,
            queue.add,
            metrics,
        )
        offers = Offers(api)
        feed = Feed(api, cache, queue, polling, watching, signs, offers, options.namespaces)
        applier = Applier(api, cache, offers)
        reconciler = Reconciler(api, cache, queue, applier, options.settings)

        def refresh() -> None:
            metrics.queue_depth.set(len(queue))
            metrics.queue_waiting.set(queue.waiting)
            metrics.queue_working.set(queue.working)
            for resource, age in signs.ages():
                metrics.watch_age.labels(resource.plural).set(age)
            for state in ("True", "False", "Unknown"):
                metrics.models.labels(state).set(
                    sum(ready == state for ready in reconciler.ready_states())
                )

        await stack.enter_async_context(
            health.serve(options.http_port, signs, feed, metrics, refresh)
        )
        await _wait_for_crd(api)
        leading, ended = asyncio.Event(), asyncio.Event()

        async def lead() -> None:
            if leadership is not None:
                await leadership.acquired.wait()
            await feed.complete.wait()
            polling.start(cache.served_pods())
            metrics.leading.set(1)
            leading.set()
            await ended.wait()

        tasks = [
            asyncio.create_task(feed.run(), name="feed"),
            asyncio.create_task(lead(), name="lead"),
        ]
        if leadership is not None:
            tasks.append(asyncio.create_task(leadership.run(), name="leadership"))
        tasks += [
            asyncio.create_task(_work(queue, leading, reconciler, metrics), name=f"worker {n}")
            for n in range(WORKERS)
        ]

        async def login(**_: object) -> kopf.AiohttpSession:
            # kopf closes its session when it is refused; the pool below it stays open.
            return kopf.AiohttpSession(
                server=access.server,
                aiohttp_session=cluster.session(pool, watching, metrics, access),
            )

        async def stop(**_: object) -> None:
            queue.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await polling.close()
            if leadership is not None:
                await leadership.release()

        handlers = watches.registry(feed.event)
        kopf.on.login(registry=handlers)(login)
        kopf.on.cleanup(registry=handlers)(stop)
        for task in tasks:
            task.add_done_callback(lambda _: ended.set())
        await kopf.operator(
            registry=handlers,
            settings=watches.settings(options.selector),
            clusterwide=not options.namespaces,
            namespaces=options.namespaces,
            stop_flag=ended,
            # For peering, which is off; kopf's own guess fails for a user without a name.
            identity=names.FIELD_MANAGER,  # type: ignore[arg-type]  # a str by a private type
        )
        for task in tasks:
            if task.done() and not task.cancelled():
                task.result()


def _leadership(options: Options, api: Cluster) -> Leadership | None:
    if options.lease is None:
        return None
    namespace, name = options.lease
    replica = os.environ.get("POD_NAME") or socket.gethostname()
    return Leadership(api, namespace, name, f"{replica}_{uuid.uuid4().hex[:8]}")


def _poll_session(access: Access, *, proxied: bool) -> aiohttp.ClientSession:
    # One connection for each pod, held open by its long poll: a pool's limit would starve them.
    context = access.ssl_context() if proxied else True
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=context, socket_factory=sockets.open_watched),
        middlewares=(access,) if proxied else (),
        headers={"User-Agent": cluster.USER_AGENT},
    )


async def _wait_for_crd(api: Cluster) -> None:
    told = False
    while True:
        try:
            if await api.offers(MODELS):
                return
            problem = "the CRD of InferenceModel is not installed; kubectl apply -f crds/"
        except OperatorError as error:
            problem = str(error)
        if not told:
            logger.warning("waiting: %s", problem)
        told = True
        await asyncio.sleep(CRD_RETRY_SECONDS)


async def _work(
    queue: WorkQueue[Key], leading: asyncio.Event, reconciler: Reconciler, metrics: Metrics
) -> None:
    await leading.wait()
    while True:
        key = await queue.get()
        try:
            with metrics.reconcile_seconds.time():
                await reconciler.reconcile(key)
        except TransientError as error:
            metrics.reconciles.labels("retried").inc()
            queue.retry(key, at_least=getattr(error, "retry_after", 0.0))
            if queue.failures(key) == QUIET_RETRIES:
                logger.warning("still trying: %s", error, extra=about(key))
        except PermanentError as error:
            # Not even the status could be written: the CRD is of another release, say.
            metrics.reconciles.labels("failed").inc()
            delay = queue.retry(key)
            logger.error("%s; again in %.1f s", error, delay, extra=about(key))  # noqa: TRY400
        except Exception:
            # One InferenceModel's surprise must not stop the others.
            metrics.reconciles.labels("failed").inc()
            delay = queue.retry(key)
            logger.exception("unexpected; trying again in %.1f s", delay, extra=about(key))
        else:
            metrics.reconciles.labels("done").inc()
            queue.forget(key)
        finally:
            queue.done(key)


def parse(arguments: Sequence[str] | None = None) -> tuple[Options, str, str]:
    """Read the command line: options, log format, log level."""
    parser = argparse.ArgumentParser(prog="inferencemodel_operator", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("run", help="run the operator until it is told to end")
    command.add_argument(
        "--namespace",
        action="append",
        default=[],
        metavar="NS",
        help="serve this namespace; repeatable; default: all",
    )
    command.add_argument(
        "--selector",
        default=None,
        metavar="LABELS",
        help="serve only InferenceModels with these labels, such as team=vision; default: all. "
        "Operators that share a namespace for their Leases need a --lease-name each",
    )
    command.add_argument("--kubeconfig", type=Path, help="default: service account, or KUBECONFIG")
    command.add_argument(
        "--poller-image", default=os.environ.get("POLLER_IMAGE", DEFAULT_POLLER_IMAGE)
    )
    command.add_argument(
        "--poller-image-pull-policy", choices=("Always", "IfNotPresent", "Never"), default=None
    )
    command.add_argument(
        "--poller-access",
        choices=("auto", "direct", "proxy"),
        default="auto",
        help="reach pods by their address or through the API server; auto: by address in a cluster",
    )
    command.add_argument(
        "--lease-namespace",
        default=os.environ.get("POD_NAMESPACE", ""),
        metavar="NS",
        help="where the Lease is by which one of several replicas leads; default: POD_NAMESPACE; "
        "without either this is the only replica",
    )
    command.add_argument("--lease-name", default=names.FIELD_MANAGER, metavar="NAME")
    command.add_argument("--http-port", type=int, default=8080, help="0 for none")
    command.add_argument("--log-format", choices=("json", "text"), default="json")
    command.add_argument(
        "--log-level", choices=("debug", "info", "warning", "error"), default="info"
    )
    given = parser.parse_args(arguments)
    options = Options(
        kubeconfig=given.kubeconfig,
        namespaces=tuple(dict.fromkeys(given.namespace)),
        selector=given.selector or None,
        poller_access=given.poller_access,
        http_port=given.http_port,
        lease=(given.lease_namespace, given.lease_name) if given.lease_namespace else None,
        settings=Settings(
            poller_image=given.poller_image,
            poller_image_pull_policy=given.poller_image_pull_policy,
            namespace=os.environ.get("POD_NAMESPACE") or DEFAULT_NAMESPACE,
        ),
    )
    return options, given.log_format, given.log_level


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    options, log_format, log_level = parse(arguments)
    logs.configure(log_format, log_level)
    try:
        with suppress(asyncio.CancelledError):
            asyncio.run(run(options))
    except (OperatorError, OSError) as error:
        logger.error("%s", error)  # noqa: TRY400  the message says it all
        return 1
    except KeyboardInterrupt:
        return 130
    except Exception:
        logger.exception("ended unexpectedly")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
