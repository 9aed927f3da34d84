"""Who leads: one replica at a time, and none that can't be sure of it."""

from __future__ import annotations

import asyncio
import copy
from typing import TYPE_CHECKING, Any

import pytest

from inferencemodel_operator import leadership
from inferencemodel_operator.cluster import Cluster, Resource
from inferencemodel_operator.errors import (
    ApiUnavailableError,
    ConflictError,
    LostLeadershipError,
    NotFoundError,
)
from inferencemodel_operator.leadership import Leadership

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


class Leases(Cluster):
    """An API server with one Lease."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.away = False
        self.writes = 0

    async def get(self, resource: Resource, namespace: str, name: str) -> Any:
        self._reachable()
        return copy.deepcopy(self.lease)

    async def create(self, resource: Resource, wanted: Any) -> Any:
        self._reachable()
        if self.lease is not None:
            raise ConflictError("there is one")
        return self._store(wanted, 1)

    async def replace(self, resource: Resource, wanted: Any) -> Any:
        self._reachable()
        if self.lease is None:
            raise NotFoundError("there is none")
        version = self.lease["metadata"]["resourceVersion"]
        if wanted["metadata"]["resourceVersion"] != version:
            raise ConflictError("it was changed")
        return self._store(wanted, int(version) + 1)

    def _store(self, wanted: Any, version: int) -> Any:
        self.writes += 1
        self.lease = copy.deepcopy(wanted)
        self.lease["metadata"]["resourceVersion"] = str(version)
        return copy.deepcopy(self.lease)

    def _reachable(self) -> None:
        if self.away:
            raise ApiUnavailableError("away")

    @property
    def holder(self) -> str:
        assert self.lease is not None
        found: str = self.lease["spec"]["holderIdentity"]
        return found


class Election:
    def __init__(self) -> None:
        self.api = Leases()
        self.tasks: list[asyncio.Task[None]] = []

    def candidate(self, name: str) -> tuple[Leadership, asyncio.Task[None]]:
        made = Leadership(self.api, "system", "operator", name)
        task = asyncio.create_task(made.run())
        self.tasks.append(task)
        return made, task


@pytest.fixture
async def election(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Election]:
    monkeypatch.setattr(leadership, "LEASE_SECONDS", 0.6)
    monkeypatch.setattr(leadership, "RENEW_SECONDS", 0.3)
    monkeypatch.setattr(leadership, "RETRY_SECONDS", 0.03)
    made = Election()
    yield made
    for task in made.tasks:
        task.cancel()
    await asyncio.gather(*made.tasks, return_exceptions=True)


async def within(event: asyncio.Event) -> None:
    async with asyncio.timeout(10):
        await event.wait()


async def test_the_first_leads_and_the_second_stands_by(election: Election) -> None:
    first, _ = election.candidate("a")
    await within(first.acquired)
    second, _ = election.candidate("b")
    writes = election.api.writes

    async with asyncio.timeout(10):
        while election.api.writes < writes + 5:  # noqa: ASYNC110  renewals
            await asyncio.sleep(0.01)
    assert first.holds()
    assert not second.holds()
    assert not second.acquired.is_set()
    assert election.api.holder == "a"


async def test_a_lease_that_somebody_made_by_hand_is_free(election: Election) -> None:
    election.api.lease = {"metadata": {"name": "operator", "resourceVersion": "1"}}
    first, running = election.candidate("a")
    await within(first.acquired)
    assert not running.done()
    assert election.api.holder == "a"


async def test_a_leader_that_is_gone_is_replaced(election: Election) -> None:
    first, running = election.candidate("a")
    await within(first.acquired)
    second, _ = election.candidate("b")
    running.cancel()

    await within(second.acquired)
    assert not first.holds(), "it knew that before anybody else could lead"
    assert election.api.lease is not None
    assert election.api.lease["spec"]["leaseTransitions"] == 1


async def test_a_leader_that_ends_leaves_its_place_at_once(election: Election) -> None:
    first, running = election.candidate("a")
    await within(first.acquired)
    running.cancel()
    await first.release()
    assert election.api.holder == ""
    assert not first.holds()
    second, _ = election.candidate("b")
    await within(second.acquired)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110  the clock has no event
            await asyncio.sleep(0.01)


async def test_a_leader_that_can_not_renew_writes_nothing_until_it_has(
    election: Election, caplog: pytest.LogCaptureFixture
) -> None:
    first, running = election.candidate("a")
    await within(first.acquired)
    election.api.away = True
    await until(lambda: not first.holds())
    confirmation = asyncio.create_task(first.confirmation())
    await until(lambda: "waiting: taking part in the election" in caplog.text)
    assert not confirmation.done()

    election.api.away = False
    async with asyncio.timeout(10):
        await confirmation
    assert first.holds()
    assert not running.done()
    assert caplog.text.count("away") == 1, "said once"


async def test_a_leader_that_finds_its_lease_taken_after_an_outage_ends(election: Election) -> None:
    first, running = election.candidate("a")
    await within(first.acquired)
    election.api.away = True
    await until(lambda: not first.holds())
    assert election.api.lease is not None
    election.api.lease["spec"]["holderIdentity"] = "b"
    election.api.lease["metadata"]["resourceVersion"] = "99"
    election.api.away = False

    with pytest.raises(LostLeadershipError, match="b holds it"):
        await asyncio.wait_for(running, 10)


async def test_a_lease_that_is_deleted_is_written_anew(election: Election) -> None:
    first, running = election.candidate("a")
    await within(first.acquired)
    election.api.lease = None
    await until(lambda: election.api.lease is not None and first.holds())
    assert not running.done()


async def test_a_leader_whose_lease_is_somebody_elses_ends(election: Election) -> None:
    first, running = election.candidate("a")
    await within(first.acquired)
    assert election.api.lease is not None
    election.api.lease["spec"]["holderIdentity"] = "thief"
    election.api.lease["metadata"]["resourceVersion"] = "99"

    with pytest.raises(LostLeadershipError, match="thief holds it"):
        await asyncio.wait_for(running, 10)
    assert not first.holds(), "nothing is written any more"
    await first.release()
    assert election.api.holder == "thief"


async def test_a_standby_waits_for_an_api_server_that_is_away(election: Election) -> None:
    election.api.away = True
    only, running = election.candidate("a")
    await asyncio.sleep(0.1)
    assert not running.done()
    election.api.away = False
    await within(only.acquired)
