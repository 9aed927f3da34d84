"""The work queue: once each, in order, later when it failed."""

from __future__ import annotations

import asyncio

import pytest

from inferencemodel_operator.queue import FIRST_BACKOFF, LONGEST_BACKOFF, WorkQueue


async def test_a_key_is_queued_once_however_often_it_is_added() -> None:
    queue: WorkQueue[str] = WorkQueue()
    for key in ("a", "b", "a", "b"):
        queue.add(key)

    assert [await queue.get(), await queue.get()] == ["a", "b"]
    assert len(queue) == 0


async def test_a_key_is_never_with_two_workers_and_comes_round_again() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    key = await queue.get()
    queue.add("a")
    queue.add("a")

    assert len(queue) == 0
    assert queue.working == 1
    queue.done(key)
    assert await queue.get() == "a"
    queue.done("a")
    assert (len(queue), queue.working) == (0, 0)


async def test_a_worker_that_waits_gets_what_is_added() -> None:
    queue: WorkQueue[str] = WorkQueue()
    waiting = [asyncio.create_task(queue.get()) for _ in range(2)]
    await asyncio.sleep(0)

    queue.add("a")
    queue.add("b")

    assert sorted(await asyncio.gather(*waiting)) == ["a", "b"]


async def test_a_key_is_not_lost_with_a_worker_that_is_cancelled() -> None:
    queue: WorkQueue[str] = WorkQueue()
    first, second = asyncio.create_task(queue.get()), asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add("a")
    first.cancel()

    async with asyncio.timeout(5):
        assert await second == "a"


async def test_an_earlier_time_wins_and_now_wins_over_later() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add_after("a", 3600)
    queue.add_after("a", 0.001)
    async with asyncio.timeout(5):
        assert await queue.get() == "a"
    queue.done("a")

    queue.add_after("b", 3600)
    queue.add("b")
    assert await queue.get() == "b"
    assert queue.waiting == 0


async def test_failures_in_a_row_wait_longer_each_up_to_a_bound() -> None:
    queue: WorkQueue[str] = WorkQueue()
    delays = []
    for _ in range(14):
        delays.append(queue.retry("a"))
        queue.close()

    for number, delay in enumerate(delays):
        longest = min(LONGEST_BACKOFF, FIRST_BACKOFF * 2**number)
        assert longest / 2 <= delay <= longest
    assert queue.failures("a") == 14
    queue.forget("a")
    assert queue.failures("a") == 0
    assert queue.retry("a") < 2 * FIRST_BACKOFF
    queue.close()


async def test_many_failing_keys_are_retried_at_a_bounded_rate() -> None:
    queue: WorkQueue[int] = WorkQueue()

    delays = [queue.retry(key) for key in range(1000)]

    assert max(delays) == pytest.approx(1000 / 50, rel=0.1)
    assert queue.waiting == 1000
    queue.close()
    assert queue.waiting == 0
