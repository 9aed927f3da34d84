"""A rollout of every resource at once: what it costs beside changing all replicas at once.

On a real API server without a node: what a kubelet and a poller would do is done here, at once. So
it is the operator's own time that is measured, with a fleet beside it on the same processors.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from bench import operator_create, operator_figures, operator_fleet, record
from bench.operator_fleet import PODS_EACH, address, report
from bench.operator_process import NAMESPACE, AuditLog, OperatorProcess
from bench.operator_writers import writers
from demo.console import say, table
from demo.errors import OutcomeError
from devcluster import ApiServer
from inferencemodel_operator import names
from model_poller.status import AssignmentStatus

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Mapping

    from bench.operator_fleet import Fleet
    from bench.operator_writers import Object, Writers
    from devcluster import Api

_PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
_MORE_WRITES = 5
"""The figure to reach: so many writes a resource more than all at once."""
_WAITING = {"steps": [{"replicas": 1, "pause": {}}]}


@dataclass(frozen=True)
class Run:
    """A version that all resources get.

    Attributes:
        name: how.
        seconds: from the first pod that has it on its disk until all rollouts have ended.
        writes_each: of the operator, a resource.
        writes: by verb and resource.
        cpu_seconds: of the operator.
        peak_memory_mb: of the operator, the most so far.
    """

    name: str
    seconds: float
    writes_each: float
    writes: Mapping[str, int]
    cpu_seconds: float
    peak_memory_mb: float


class Kubelets:
    """Carry what pods are told to their pollers, which serve it from then on."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._stored: dict[int, str] = {1: "1"}
        self._told: dict[tuple[int, int], AssignmentStatus] = {}

    def upload(self, version: int, resources: int) -> None:
        """A version is on the disk of all pods."""
        self._stored[version] = str(version)
        for number in range(resources):
            for index in range(PODS_EACH):
                self._say(number, index)

    async def run(self, hands: Writers) -> None:
        """Follow the pods."""
        async with hands.watch(_PODS) as events:
            async for event in events:
                self._hear(event["object"])

    def _hear(self, pod: Object) -> None:
        _, number, index = pod["metadata"].get("name", "--").split("-")
        texts = pod["metadata"].get("annotations", {})
        told = AssignmentStatus(
            target=texts.get(names.TARGET_VERSION_ANNOTATION, ""),
            served=texts.get(names.SERVED_VERSIONS_ANNOTATION, ""),
            quarantined=texts.get(names.QUARANTINED_VERSIONS_ANNOTATION, ""),
            rollout=texts.get(names.ROLLOUT_ANNOTATION, ""),
        )
        if number and told != self._told.get((int(number), int(index))):
            self._told[int(number), int(index)] = told
            self._say(int(number), int(index))

    def _say(self, number: int, index: int) -> None:
        told = self._told.get((number, index))
        serves = int(told.target) if told is not None and told.target else 1
        self._fleet.say(address(number, index), report(number, self._stored, serves, told))


def run(resources: int, waiting_seconds: float) -> None:
    """Measure, print tables, keep the figures.

    Args:
        resources: how many have a rollout at once.
        waiting_seconds: for how long rollouts that wait for somebody are looked at.

    Raises:
        OutcomeError: a figure was missed, or something never happened that has to.
    """
    say(f"{resources} resources with {PODS_EACH} pods each have a rollout at once")
    with ApiServer() as api:
        runs, waiting = asyncio.run(_measure(api, resources, waiting_seconds))
    table(_rows(runs))
    say(f"{waiting.total()} writes in {waiting_seconds:.0f} s while all wait for a promotion")
    at_once = runs[0].writes_each
    figures = {
        "resources": resources,
        "waiting_seconds": waiting_seconds,
        "waiting_writes": dict(waiting),
        "runs": [asdict(one) for one in runs],
    }
    say(f"written to {record.write('rollouts', figures)}")
    if waiting.total():
        raise OutcomeError(f"rollouts that only wait were written: {dict(waiting)}")
    for one in runs[1:]:
        if one.writes_each > at_once + _MORE_WRITES:
            raise OutcomeError(f"{one.name}: {one.writes_each} writes, and {at_once} at once")


async def _measure(
    api: Api, resources: int, waiting_seconds: float
) -> tuple[list[Run], Counter[str]]:
    operator_figures.prepare(api)
    async with writers(api) as hands, operator_fleet.pollers() as fleet:
        with OperatorProcess(api) as operator:
            await asyncio.to_thread(operator.until_ready)
            await operator_create.create(hands, operator, resources)
        await operator_fleet.populate(hands, fleet, resources)
        kubelets = Kubelets(fleet)
        carrying = asyncio.create_task(kubelets.run(hands))
        bench = _Bench(api, hands, kubelets, resources)
        try:
            at_once = await bench.change("all at once (steps: [])", 2, {"steps": []})
            in_steps = await bench.change("one, then all (the default)", 3, {})
            with bench.operator() as operator:
                await bench.settle(operator, _WAITING)
                kubelets.upload(4, resources)
                await bench.until(operator, "Paused")
                await asyncio.to_thread(operator.until_idle)
                log = AuditLog(api)
                await asyncio.sleep(waiting_seconds)
                waiting = log.writes()
                # What is taken away once it is read is a write, too.
                promoted = await bench.measure(
                    operator, "from one to all, promoted", lambda: bench.annotate("promote", "4")
                )
            return [at_once, in_steps, promoted], waiting
        finally:
            carrying.cancel()
            with suppress(asyncio.CancelledError):
                await carrying


class _Bench:
    """Changes all resources."""

    def __init__(self, api: Api, hands: Writers, kubelets: Kubelets, resources: int) -> None:
        self._api = api
        self._hands = hands
        self._kubelets = kubelets
        self._resources = resources

    def operator(self) -> OperatorProcess:
        """One that counts from zero."""
        return OperatorProcess(self._api)

    async def change(self, name: str, version: int, rollout: Object) -> Run:
        """Bring a version to all resources."""

        async def upload() -> None:
            self._kubelets.upload(version, self._resources)

        with self.operator() as operator:
            await self.settle(operator, rollout)
            return await self.measure(operator, name, upload)

    async def settle(self, operator: OperatorProcess, rollout: Object) -> None:
        """Have all of them Ready, with this ``spec.rollout``."""
        await asyncio.to_thread(operator_figures.until_served, operator, self._resources)
        patch = {"spec": {"rollout": None}}, {"spec": {"rollout": rollout}}
        for body in patch:
            await self._hands.merge((self._path(n), body) for n in range(self._resources))
        await asyncio.sleep(1)
        await asyncio.to_thread(operator.until_idle)

    async def annotate(self, action: str, text: str) -> None:
        """Ask something of all."""
        body = {"metadata": {"annotations": {f"{names.GROUP}/{action}": text}}}
        await self._hands.merge((self._path(n), body) for n in range(self._resources))

    async def measure(self, operator: OperatorProcess, name: str, begin: Callable[[], Any]) -> Run:
        """From the beginning until all rollouts are Completed."""
        log, cpu, started = AuditLog(self._api), operator.cpu_seconds, time.monotonic()
        await begin()
        await self.until(operator, "Completed")
        seconds = time.monotonic() - started
        await asyncio.to_thread(operator.until_idle)
        writes = log.writes()
        return Run(
            name=name,
            seconds=round(seconds, 2),
            writes_each=round(writes.total() / self._resources, 2),
            writes=dict(writes),
            cpu_seconds=round(operator.cpu_seconds - cpu, 2),
            peak_memory_mb=operator.peak_memory_mb,
        )

    async def until(self, operator: OperatorProcess, phase: str) -> None:
        """Wait until all rollouts are in a phase."""

        def arrived() -> bool:
            if phase == "Completed":
                found = operator.metric("rollouts_total", f'outcome="{phase}"')
            else:
                found = operator.metric("rollouts_running", f'phase="{phase}"')
            return found >= self._resources

        await asyncio.to_thread(operator.until, arrived, f"rollouts to be {phase}", within=900.0)

    def _path(self, number: int) -> str:
        return f"{operator_figures.MODELS}/model-{number}"


def _rows(runs: list[Run]) -> list[tuple[str, ...]]:
    return [
        ("A VERSION GOES TO", "TIME", "WRITES", "CPU", "MEMORY"),
        *(
            (
                one.name,
                f"{one.seconds:.1f} s",
                f"{one.writes_each:.2f} each",
                f"{one.cpu_seconds:.1f} s",
                f"at most {one.peak_memory_mb:.0f} MB",
            )
            for one in runs
        ),
    ]
