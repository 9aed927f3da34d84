"""What becomes of a key whose pass failed, and what is said of it."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import pytest

from inferencemodel_operator.errors import (
    NamespaceTerminatingError,
    NoRightError,
    OperatorError,
    StatusRefusedError,
)
from inferencemodel_operator.metrics import Metrics
from inferencemodel_operator.queue import WorkQueue
from inferencemodel_operator.workers import Workers

if TYPE_CHECKING:
    from inferencemodel_operator.observe.objects import Key


class Passes:
    """Passes that fail as the test says, and the workers that make them."""

    def __init__(self) -> None:
        self.queue: WorkQueue[Key] = WorkQueue()
        self.failures: dict[Key, OperatorError] = {}
        self.done: list[Key] = []
        self.permitted = asyncio.Event()
        self.permitted.set()

    async def reconcile(self, key: Key) -> None:
        self.done.append(key)
        if key in self.failures:
            raise self.failures[key]

    async def permission(self) -> None:
        await self.permitted.wait()

    async def run(self, *keys: Key, passes: int) -> None:
        workers = Workers(self.queue, self.reconcile, Metrics(), self.permission)
        running = asyncio.create_task(workers.run())
        for key in keys:
            self.queue.add(key)
        async with asyncio.timeout(10):
            while len(self.done) < passes:  # noqa: ASYNC110  a list has no event
                await asyncio.sleep(0.01)
            await asyncio.sleep(0)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        self.queue.close()


@pytest.fixture
async def passes() -> Passes:
    return Passes()


async def test_a_namespace_that_goes_away_is_said_once_and_left_alone(
    passes: Passes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    keys = [("going", f"m{n}") for n in range(3)]
    passes.failures = {key: NamespaceTerminatingError("it is being terminated") for key in keys}
    await passes.run(*keys, passes=3)
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert "namespace going is being deleted" in caplog.text
    assert passes.queue.waiting == 0, "nothing is tried again"


@pytest.mark.parametrize(
    "problem", [NoRightError("may not"), StatusRefusedError("n/m", "not declared in schema")]
)
async def test_what_is_said_where_it_arises_is_tried_again_without_a_word_here(
    passes: Passes, caplog: pytest.LogCaptureFixture, problem: OperatorError
) -> None:
    passes.failures = {("n", "m"): problem}
    await passes.run(("n", "m"), passes=3)
    assert caplog.text == ""


async def test_nothing_is_done_without_permission(passes: Passes) -> None:
    passes.permitted.clear()

    def permit() -> None:
        passes.done.append(("the", "permission"))
        passes.permitted.set()

    asyncio.get_running_loop().call_later(0.1, permit)
    await passes.run(("n", "m"), passes=2)
    assert passes.done == [("the", "permission"), ("n", "m")]
