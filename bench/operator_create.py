"""Many resources created at once: until all children exist, beside a bare script's time for it."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.operator_process import NAMESPACE
from demo.errors import OutcomeError
from inferencemodel_operator import names
from inferencemodel_operator.children import children
from inferencemodel_operator.record import VersionsRecord
from inferencemodel_operator.settings import Settings
from inferencemodel_operator.spec import decode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from bench.operator_process import OperatorProcess
    from bench.operator_writers import Object, Writers

FLOOR_NAMESPACE = "floor"
_CREATE_LIMIT = 600.0


@dataclass(frozen=True)
class Creation:
    """What it took to create resources and all their children.

    Attributes:
        resources: how many InferenceModels.
        children: of each.
        floor_seconds: a bare script's time to create the same objects with as many writers.
        writers_seconds: the writers' time, the operator working behind them.
        seconds: from the first write until all children existed.
        requests_each: what the operator asked of the API server, watches aside, a resource.
        cpu_seconds: of the operator, until it had nothing more to do.
        memory_mb: resident, then.
        peak_memory_mb: the most by then.
    """

    resources: int
    children: int
    floor_seconds: float
    writers_seconds: float
    seconds: float
    requests_each: float
    cpu_seconds: float
    memory_mb: float
    peak_memory_mb: float

    @property
    def ratio(self) -> float:
        """The operator's time over the floor's."""
        return self.seconds / self.floor_seconds


def model(number: int, namespace: str = NAMESPACE, **spec: Any) -> Object:
    """One of the InferenceModels that are created."""
    name = f"model-{number}"
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "model": {"storageUri": f"gs://models/{name}"},
            "replicas": 3,
            "ingress": {"host": f"{name}.example.com"},
            **spec,
        },
    }


def _labelled(made: Object, labels: dict[str, str]) -> Object:
    return {**made, "metadata": {**made["metadata"], "labels": labels}} if labels else made


def _children(number: int) -> list[Object]:
    made = model(number, FLOOR_NAMESPACE)
    made["metadata"] |= {"uid": f"00000000-0000-4000-8000-{number:012}"}
    return list(children(decode(made), VersionsRecord(), Settings()))


def _all(numbers: Iterable[int]) -> Iterator[Object]:
    for number in numbers:
        yield model(number, FLOOR_NAMESPACE)
        yield from _children(number)


async def floor(writers: Writers, numbers: Iterable[int]) -> float:
    """Seconds in which the bare script creates resources and children, made beforehand."""
    return await writers.post(list(_all(numbers)))


async def create(
    writers: Writers,
    operator: OperatorProcess,
    resources: int,
    *,
    within: float = _CREATE_LIMIT,
    labels: Callable[[int], dict[str, str]] = lambda _: {},
) -> Creation:
    """Create resources under a running operator and wait for their children; no floor yet.

    Args:
        writers: create them.
        operator: the one that is measured.
        resources: how many.
        within: seconds for it.
        labels: of each by its number.

    Raises:
        OutcomeError: some child never came.
    """
    kinds = Counter((child["kind"], child["apiVersion"]) for child in _children(0))
    cpu, requests = operator.cpu_seconds, requests_sent(operator)
    started = time.monotonic()
    wanted = (_labelled(model(number), labels(number)) for number in range(resources))
    writing = asyncio.create_task(writers.post(wanted))
    for (kind, api_version), each in kinds.items():
        while await writers.count(kind, api_version, NAMESPACE) < resources * each:
            if time.monotonic() - started > within:
                raise OutcomeError(f"after {within:.0f} s not all children exist: {kind}")
            await asyncio.sleep(0.05)
    seconds = time.monotonic() - started
    writers_seconds = await writing
    await asyncio.to_thread(operator.until_idle, within=within)
    return Creation(
        resources=resources,
        children=kinds.total(),
        floor_seconds=0.0,
        writers_seconds=round(writers_seconds, 2),
        seconds=round(seconds, 2),
        requests_each=round((requests_sent(operator) - requests) / resources, 2),
        cpu_seconds=round(operator.cpu_seconds - cpu, 2),
        memory_mb=operator.memory_mb,
        peak_memory_mb=operator.peak_memory_mb,
    )


def requests_sent(operator: OperatorProcess) -> float:
    """Of it to the API server since its start, lists and watches aside."""
    return sum(
        operator.metric("api_requests_total", f'verb="{verb}"')
        for verb in ("get", "create", "patch", "update", "delete")
    )
