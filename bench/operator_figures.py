"""What the operator costs: many resources at once, growth, restarts, changes, a reporting fleet.

On a real API server without a node. What a node and the controllers would do is left out, or done
by `bench.operator_fleet`; writes are counted by the API server's own audit log.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any

from bench import operator_create, operator_fleet, operator_plots, record
from bench.operator_process import NAMESPACE, AuditLog, OperatorProcess
from bench.operator_writers import writers
from demo.console import say, table
from demo.errors import OutcomeError
from devcluster import ApiServer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bench.operator_create import Creation
    from bench.operator_fleet import Teller
    from bench.operator_writers import Object, Writers
    from devcluster import Api

_TREE = Path(__file__).parent.parent
_CHANGES = 100
_WARM_UP = 50
_QUIET_SECONDS = 5.0
_CHANGE_LIMIT = 150.0
MODELS = f"/apis/inferencemodel.dev/v1alpha1/namespaces/{NAMESPACE}/inferencemodels"
_DEPLOYMENTS = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments"


@dataclass(frozen=True)
class Restart:
    """A start over resources that are settled.

    Attributes:
        seconds: until the operator had nothing more to do.
        writes: of it, from the start on.
        cpu_seconds: by then.
        memory_mb: by then.
    """

    seconds: float
    writes: int
    cpu_seconds: float
    memory_mb: float


@dataclass(frozen=True)
class Delays:
    """Seconds between something and what follows from it."""

    count: int
    median: float
    p95: float
    worst: float


@dataclass(frozen=True)
class Steady:
    """Settled resources whose pods report.

    Attributes:
        resources: how many, with three pods each.
        seconds: of looking on.
        writes: of the operator in that time.
        core_percent: of one core.
        memory_mb: resident.
        version_change: from a poller's report to the status.
    """

    resources: int
    seconds: float
    writes: int
    core_percent: float
    memory_mb: float
    version_change: Delays


def run(sizes: Sequence[int], fleet: int, steady_seconds: float) -> None:
    """Measure all, print tables, write figures and plots.

    Args:
        sizes: how many resources are created, each on an API server of its own.
        fleet: how many of them get pods that report; 0 for none.
        steady_seconds: for how long the settled fleet is looked at.

    Raises:
        OutcomeError: something never happened that has to.
    """
    creations, restarts, changes = [], [], []
    for size in sizes:
        say(f"{size} resources, by 20 writers at once")
        with ApiServer() as api:
            creation, restart, change = asyncio.run(_grow(api, size))
        creations.append(creation)
        restarts.append(restart)
        changes.append(change)
    table(_creation_rows(creations))
    table(_restart_rows(sizes, restarts))
    table(_change_rows(sizes, changes))
    figures: dict[str, Any] = {
        "creation": [asdict(c) | {"ratio": round(c.ratio, 2)} for c in creations],
        "restart": [asdict(r) for r in restarts],
        "spec_change": [asdict(c) for c in changes],
    }
    if fleet:
        say(f"{fleet} resources with {operator_fleet.PODS_EACH} pods each that report")
        with ApiServer() as api:
            steady = asyncio.run(_report(api, fleet, steady_seconds))
        table(_steady_rows(steady))
        figures["fleet"] = asdict(steady)
    path = record.write("operator", figures)
    say(f"written to {path.relative_to(_TREE)}")
    for plot in operator_plots.draw(figures):
        say(f"written to {plot.relative_to(_TREE)}")
    _check(creations, restarts)


async def _grow(api: Api, size: int) -> tuple[Creation, Restart, Delays]:
    prepare(api)
    async with writers(api) as hands:
        # A new API server is slow at first, and a machine has its moods: half of the floor is
        # measured before, and half after.
        await operator_create.floor(hands, range(size, size + _WARM_UP))
        floor = await operator_create.floor(hands, range(size // 2))
        with OperatorProcess(api) as operator:
            await asyncio.to_thread(operator.until_ready)
            creation = await operator_create.create(hands, operator, size)
            change = await _change_specs(hands, operator, size)
            await asyncio.to_thread(operator.until_idle)
        floor += await operator_create.floor(hands, range(size // 2, size))
        creation = replace(creation, floor_seconds=round(floor, 2))
        say(f"children exist after {creation.seconds} s, the floor is {creation.floor_seconds} s")
        restart = await asyncio.to_thread(_restart, api, size)
    return creation, restart, change


def prepare(api: Api) -> None:
    """The definition, and the namespaces."""
    api.kubectl("apply", "--server-side", "-k", str(_TREE / "crds"))
    for namespace in (NAMESPACE, operator_create.FLOOR_NAMESPACE):
        api.kubectl("create", "namespace", namespace)
    api.kubectl(
        *("wait", "crd/inferencemodels.inferencemodel.dev", "--timeout=30s"),
        "--for=condition=Established",
    )


def _restart(api: Api, size: int) -> Restart:
    log = AuditLog(api)
    with OperatorProcess(api) as operator:
        operator.until(
            lambda: operator.metric("reconciles_total", 'outcome="done"') >= size,
            f"{size} resources to be reconciled",
        )
        operator.until_idle()
        seconds, cpu, memory = operator.age, operator.cpu_seconds, operator.memory_mb
        time.sleep(_QUIET_SECONDS)
        writes = log.writes().total()
    return Restart(round(seconds, 2), writes, round(cpu, 2), memory)


async def _change_specs(hands: Writers, operator: OperatorProcess, size: int) -> Delays:
    """From the change of a spec to the change of the Deployment, as a watcher sees it."""
    await asyncio.to_thread(operator.until_idle)

    async def change(number: int) -> None:
        spec = {"server": {"args": [f"--flush_filesystem_caches={number % 2 == 0}"]}}
        await hands.call(
            "PATCH", f"{MODELS}/model-{number}", {"spec": spec}, "application/merge-patch+json"
        )

    def arrived(deployment: Object) -> bool:
        (server,) = deployment["spec"]["template"]["spec"]["containers"]
        return any("--flush_filesystem_caches" in argument for argument in server["args"])

    return await _delays(hands, _DEPLOYMENTS, size, change, arrived)


async def _delays(
    hands: Writers,
    path: str,
    size: int,
    cause: Callable[[int], Any],
    arrived: Callable[[Object], bool],
    most: int = _CHANGES,
) -> Delays:
    """How long after a cause its effect is seen, for models spread over all, one after another."""
    seconds = []
    count = min(size, most)
    async with hands.watch(path) as events:
        for turn in range(count):
            number = turn * size // count
            started = time.monotonic()
            await cause(number)
            async with asyncio.timeout(_CHANGE_LIMIT):
                async for event in events:
                    obj = event["object"]
                    if obj["metadata"]["name"] == f"model-{number}" and arrived(obj):
                        break
            seconds.append(time.monotonic() - started)
    return Delays(
        count=count,
        median=round(median(seconds), 4),
        p95=round(quantiles(seconds, n=20)[-1], 4),
        worst=round(max(seconds), 4),
    )


async def _report(api: Api, resources: int, steady_seconds: float) -> Steady:
    prepare(api)
    async with writers(api) as hands, operator_fleet.pollers() as fleet:
        with OperatorProcess(api) as operator:
            await asyncio.to_thread(operator.until_ready)
            await operator_create.create(hands, operator, resources)
        await operator_fleet.populate(hands, fleet, resources)
        with OperatorProcess(api) as operator:
            await asyncio.to_thread(until_served, operator, resources)
            log, cpu = AuditLog(api), operator.cpu_seconds
            await asyncio.sleep(steady_seconds)
            used, writes = operator.cpu_seconds - cpu, log.writes().total()
            change = await change_versions(hands, fleet, resources)
            return Steady(
                resources=resources,
                seconds=steady_seconds,
                writes=writes,
                core_percent=round(100 * used / steady_seconds, 2),
                memory_mb=operator.memory_mb,
                version_change=change,
            )


def until_served(operator: OperatorProcess, resources: int, *, within: float = 300.0) -> None:
    """Wait until so many resources serve."""
    operator.until(
        lambda: operator.metric("inferencemodels", 'ready="True"') >= resources,
        f"{resources} resources to be Ready",
        within=within,
    )
    operator.until_idle(within=within)


async def change_versions(
    hands: Writers, fleet: Teller, resources: int, version: int = 2, changes: int = _CHANGES
) -> Delays:
    """From the answer of the pollers to the status, as a watcher sees it.

    Args:
        hands: watch the models.
        fleet: the pods.
        resources: how many models there are.
        version: which version their pods come to serve.
        changes: of how many of them.
    """

    async def change(number: int) -> None:
        fleet.tell(number, version)

    return await _delays(
        hands,
        MODELS,
        resources,
        change,
        lambda model: model["status"].get("model", {}).get("activeVersion") == version,
        changes,
    )


def _creation_rows(creations: Sequence[Creation]) -> list[tuple[str, ...]]:
    header = ("RESOURCES", "CHILDREN", "FLOOR", "OPERATOR", "RATIO", "REQUESTS", "CPU", "MEMORY")
    return [
        header,
        *(
            (
                str(c.resources),
                f"{c.children} each",
                f"{c.floor_seconds:.2f} s",
                f"{c.seconds:.2f} s",
                f"{c.ratio:.2f}",
                f"{c.requests_each:.2f} each",
                f"{c.cpu_seconds:.2f} s",
                f"{c.memory_mb:.0f} MB, at most {c.peak_memory_mb:.0f}",
            )
            for c in creations
        ),
    ]


def _restart_rows(sizes: Sequence[int], restarts: Sequence[Restart]) -> list[tuple[str, ...]]:
    return [
        ("RESTART OVER", "QUIET AFTER", "WRITES", "CPU", "MEMORY"),
        *(
            (
                str(size),
                f"{r.seconds:.2f} s",
                str(r.writes),
                f"{r.cpu_seconds:.2f} s",
                f"{r.memory_mb:.0f} MB",
            )
            for size, r in zip(sizes, restarts, strict=True)
        ),
    ]


def _change_rows(sizes: Sequence[int], changes: Sequence[Delays]) -> list[tuple[str, ...]]:
    return [
        ("SPEC CHANGE AMONG", "MEDIAN", "P95", "WORST"),
        *((str(size), *_milliseconds(c)) for size, c in zip(sizes, changes, strict=True)),
    ]


def _steady_rows(steady: Steady) -> list[tuple[str, ...]]:
    middle, p95, worst = _milliseconds(steady.version_change)
    return [
        ("FLEET OF", "WRITES", "CORE", "MEMORY", "VERSION CHANGE", "P95", "WORST"),
        (
            f"{steady.resources} x {operator_fleet.PODS_EACH} pods",
            f"{steady.writes} in {steady.seconds:.0f} s",
            f"{steady.core_percent:.2f} %",
            f"{steady.memory_mb:.0f} MB",
            middle,
            p95,
            worst,
        ),
    ]


def _milliseconds(delays: Delays) -> tuple[str, str, str]:
    middle, p95, worst = (
        f"{seconds * 1000:.0f} ms" for seconds in (delays.median, delays.p95, delays.worst)
    )
    return middle, p95, worst


def _check(creations: Sequence[Creation], restarts: Sequence[Restart]) -> None:
    for creation in creations:
        if creation.requests_each > creation.children + 2:
            raise OutcomeError(f"{creation.requests_each} requests a resource are too many")
    if any(restart.writes for restart in restarts):
        raise OutcomeError("a restart wrote something")
