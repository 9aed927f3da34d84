"""Thousands of models whose pods report: what one operator needs, and what each of two shards.

On a real API server without a node, as `bench.operator_figures`; the pods' pollers answer from
processes of their own (`bench.operator_pods`).
"""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from bench import (
    operator_create,
    operator_figures,
    operator_fleet,
    operator_plots,
    operator_pods,
    record,
)
from bench.operator_process import AuditLog, OperatorProcess
from bench.operator_writers import writers
from demo.console import say, table
from demo.errors import OutcomeError
from devcluster import ApiServer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from bench.operator_create import Creation
    from bench.operator_figures import Delays
    from bench.operator_pods import Pods
    from bench.operator_writers import Writers
    from devcluster import Api

SHARD_LABEL = "inferencemodel.dev/shard"
SHARDS = ("blue", "green")
_SIZES = (1000, 3000)
_CHANGES = 100
_CHANGES_IN_TURNS = 10
MOST_MB = 1000.0
MOST_CORE_PERCENT = 50.0
SLOWEST_CHANGE = 1.0
"""Seconds, of 95 in 100 changes."""


@dataclass(frozen=True)
class Process:
    """One operator over settled models whose pods report.

    Attributes:
        models: that it serves.
        quiet_seconds: from its start until all are Ready and nothing is left to do.
        quiet_cpu_seconds: of it, by then.
        requests: of it to the API server by then, lists and watches among them.
        memory_mb: resident, at the end of the rest.
        proportional_mb: the same, where shared pages count in part (PSS).
        peak_mb: the most resident memory that it ever had.
        core_percent: of one core, at rest.
        rest_requests: of it to the API server in the time of rest.
        polls_a_second: answers of pods, at rest.
        polls_at_once: how many pods it can ask at the same time.
    """

    models: int
    quiet_seconds: float
    quiet_cpu_seconds: float
    requests: int
    memory_mb: float
    proportional_mb: float
    peak_mb: float
    core_percent: float
    rest_requests: int
    polls_a_second: float
    polls_at_once: int


@dataclass(frozen=True)
class Look:
    """Settled models, at rest and while versions change, under one operator or several.

    Attributes:
        operators: each of them.
        seconds: of rest.
        writes: of all operators from their start to the end of the rest.
        version_change: from a poller's report to the status.
    """

    operators: tuple[Process, ...]
    seconds: float
    writes: int
    version_change: Delays


@dataclass(frozen=True)
class Size:
    """All that was measured with so many models.

    Attributes:
        models: how many, with three pods each.
        creation: of the models, from nothing.
        ready_seconds: from the operator's start over pods that it has never seen until every
            status is written.
        one: one operator, started anew.
        shards: two operators, each with half of the models by their label.
    """

    models: int
    creation: Creation
    ready_seconds: float
    one: Look
    shards: Look


def run(models: int, steady_seconds: float, *, only: bool) -> None:
    """Measure with growing numbers of models, print, keep the figures and draw them.

    Args:
        models: the most.
        steady_seconds: for how long each is looked at while nothing changes.
        only: measure with so many alone, and keep nothing.

    Raises:
        OutcomeError: something never happened that has to, or a figure was missed.
    """
    sizes = [models] if only else [*(size for size in _SIZES if size < models), models]
    found: list[Size] = []
    for size in sizes:
        say(f"{size} models with {operator_fleet.PODS_EACH} pods each")
        with ApiServer() as api, operator_pods.pods(size) as fleet:
            found.append(asyncio.run(_measure(api, fleet, size, steady_seconds)))
        table(_rows(found))
        if not only:
            # A run that is cut short leaves what it has measured.
            figures = {"sizes": [asdict(one) for one in found]}
            path = record.write("scale", figures)
            say(f"written to bench/results/{path.name}, drawn in docs/plots/{draw(figures).name}")
    _check(found[-1])


async def _measure(api: Api, fleet: Pods, models: int, steady_seconds: float) -> Size:
    operator_figures.prepare(api)
    progress = _progress()
    within = 300.0 + models * 0.2
    async with writers(api) as hands:
        with OperatorProcess(api) as operator:
            await asyncio.to_thread(operator.until_ready)
            creation = await operator_create.create(
                hands, operator, models, within=within, labels=_labels
            )
        progress(f"all children exist after {creation.seconds} s; {creation.memory_mb} MB")
        await operator_fleet.populate(hands, fleet, models, progress)
        with OperatorProcess(api) as operator:
            await asyncio.to_thread(operator_figures.until_served, operator, models, within=within)
            ready = operator.age
        progress(f"all are Ready {ready:.1f} s after the operator's start")
        one = await _look(api, hands, fleet, ({"": models}, 2), steady_seconds, progress)
        shares = {
            f"--selector={SHARD_LABEL}={shard}": len(range(turn, models, len(SHARDS)))
            for turn, shard in enumerate(SHARDS)
        }
        shards = await _look(api, hands, fleet, (shares, 3), steady_seconds, progress)
    return Size(models, creation, round(ready, 2), one, shards)


def _labels(number: int) -> dict[str, str]:
    return {SHARD_LABEL: SHARDS[number % len(SHARDS)]}


def _progress() -> Callable[[str], None]:
    started = time.monotonic()
    return lambda text: say(f"{time.monotonic() - started:6.0f} s: {text}")


async def _look(
    api: Api,
    hands: Writers,
    fleet: Pods,
    work: tuple[dict[str, int], int],
    seconds: float,
    progress: Callable[[str], None],
) -> Look:
    """Start operators over settled models, look at them at rest, and change versions.

    Args:
        api: of the cluster.
        hands: watch the models.
        fleet: the pods.
        work: how many models each operator has by its argument, and the version to change to.
        seconds: of rest.
        progress: is told how far it is.
    """
    shares, version = work
    models = sum(shares.values())
    log = AuditLog(api)
    with ExitStack() as stack:
        operators = {}
        starts = {}
        for argument, share in shares.items():
            operator = stack.enter_context(OperatorProcess(api, *filter(None, [argument])))
            operators[argument] = operator
            within = 300.0 + share * 0.1
            # One after the other: they share the machine's cores as two shards seldom would.
            await asyncio.to_thread(operator_figures.until_served, operator, share, within=within)
            starts[argument] = operator.age, operator.cpu_seconds, _all_requests(operator)
            progress(f"quiet {operator.age:.1f} s after its start: {argument or 'one operator'}")
        before = {
            argument: (
                operator.cpu_seconds,
                _all_requests(operator),
                operator.metric("polls_total"),
            )
            for argument, operator in operators.items()
        }
        started, pods_cpu = time.monotonic(), fleet.cpu_seconds
        await asyncio.sleep(seconds)
        rest = time.monotonic() - started
        pods_share = 100 * (fleet.cpu_seconds - pods_cpu) / rest
        progress(f"at rest for {rest:.0f} s; the pods' own part is {pods_share:.0f} % of a core")
        found = tuple(
            _process(operator, shares[argument], starts[argument], before[argument], rest)
            for argument, operator in operators.items()
        )
        for one in found:
            progress(
                f"an operator of {one.models}: {one.memory_mb} MB,"
                f" {one.core_percent} % of a core, {one.polls_a_second} polls a second"
            )
        writes = log.writes().total()
        # In turns, a change takes a good part of a minute.
        count = _CHANGES if all(map(_asks_all, found)) else _CHANGES_IN_TURNS
        change = await operator_figures.change_versions(hands, fleet, models, version, count)
        progress(f"versions changed: {change.median} s at the median, {change.p95} s for 95 in 100")
    return Look(found, round(rest, 1), writes, change)


def _process(
    operator: OperatorProcess,
    models: int,
    start: tuple[float, float, int],
    before: tuple[float, int, float],
    seconds: float,
) -> Process:
    quiet, quiet_cpu, requests = start
    cpu, rest_requests, polls = before
    return Process(
        models=models,
        quiet_seconds=round(quiet, 2),
        quiet_cpu_seconds=round(quiet_cpu, 2),
        requests=requests,
        core_percent=round(100 * (operator.cpu_seconds - cpu) / seconds, 2),
        memory_mb=operator.memory_mb,
        proportional_mb=operator.proportional_memory_mb,
        peak_mb=operator.peak_memory_mb,
        rest_requests=_all_requests(operator) - rest_requests,
        polls_a_second=round((operator.metric("polls_total") - polls) / seconds, 1),
        polls_at_once=int(operator.metric("long_polls_limit")),
    )


def _all_requests(operator: OperatorProcess) -> int:
    return int(operator.metric("api_requests_total"))


def _asks_all(operator: Process) -> bool:
    """Whether every pod is asked all the time; the limit of open files decides."""
    return operator.polls_at_once >= operator.models * operator_fleet.PODS_EACH


def _rows(sizes: Sequence[Size]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [
        (
            *("MODELS", "CREATED", "OPERATOR OF", "RSS", "PSS", "CORE AT REST", "QUIET AFTER"),
            *("REQUESTS", "AT REST", "POLLS", "WRITES", "VERSION CHANGE", "P95"),
        )
    ]
    for size in sizes:
        for look in (size.one, size.shards):
            for operator in look.operators:
                change = look.version_change
                rows.append(
                    (
                        *(str(size.models), f"{size.creation.seconds:.0f} s"),
                        str(operator.models),
                        f"{operator.memory_mb:.0f} MB",
                        f"{operator.proportional_mb:.0f} MB",
                        f"{operator.core_percent:.1f} %",
                        f"{operator.quiet_seconds:.1f} s",
                        str(operator.requests),
                        str(operator.rest_requests),
                        f"{operator.polls_a_second:.0f}/s",
                        str(look.writes),
                        f"{change.median * 1000:.0f} ms",
                        f"{change.p95 * 1000:.0f} ms",
                    )
                )
    return rows


def draw(figures: Mapping[str, Any]) -> Path:
    """Draw memory and processor time over the number of models; the file written."""
    sizes = figures["sizes"]
    figure, memory = operator_plots.axes(
        "InferenceModels with three pods each", "resident memory, MB"
    )
    models = [size["models"] for size in sizes]
    ones = [size["one"]["operators"][0] for size in sizes]
    shards = [size["shards"]["operators"] for size in sizes]
    memory.plot(
        models,
        [one["memory_mb"] for one in ones],
        marker="o",
        label="one operator, MB",
    )
    memory.plot(
        models,
        [max(shard["memory_mb"] for shard in both) for both in shards],
        marker="o",
        label="each of two shards, MB",
    )
    cpu = memory.twinx()
    cpu.plot(
        models,
        [one["core_percent"] for one in ones],
        marker="s",
        linestyle="--",
        color="grey",
        label="one operator, % of a core at rest",
    )
    cpu.set_ylabel("% of a core at rest")
    handles = [*memory.get_legend_handles_labels()[0], *cpu.get_legend_handles_labels()[0]]
    memory.legend(handles=handles)
    return operator_plots.written(figure, "operator-scale.svg")


def _check(size: Size) -> None:
    """The figures to reach; by one operator where it can ask all pods at once, else by shards.

    Raises:
        OutcomeError: they were not.
    """
    look = size.one if all(map(_asks_all, size.one.operators)) else size.shards
    memory = sum(operator.memory_mb for operator in look.operators)
    core = sum(operator.core_percent for operator in look.operators)
    missed = [
        text
        for text, is_missed in (
            (f"{memory:.0f} MB", memory > MOST_MB),
            (f"{core:.0f} % of a core at rest", core > MOST_CORE_PERCENT),
            (f"{look.version_change.p95} s", look.version_change.p95 > SLOWEST_CHANGE),
        )
        if is_missed
    ]
    if missed:
        raise OutcomeError(f"{size.models} models need {', '.join(missed)}")
