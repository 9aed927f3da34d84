"""Operators that share a cluster: each InferenceModel is served by one of them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from inferencemodel_operator import main, selectors, shards
from inferencemodel_operator.cluster import Cluster, Resource
from inferencemodel_operator.errors import ApiUnavailableError, NoRightError
from inferencemodel_operator.observe import rivals as module
from inferencemodel_operator.observe.rivals import Rivals
from inferencemodel_operator.shards import Lease, Scope

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

BLUE, GREEN = Scope(selector="shard=blue"), Scope(selector="shard in (green,blue)")


@pytest.mark.parametrize(
    ("selector", "labels", "holds"),
    [
        ("", {}, True),
        ("team=vision", {"team": "vision"}, True),
        ("team=vision", {"team": "speech"}, False),
        ("team=vision", {}, False),
        ("team!=vision", {}, True),
        ("team!=vision", {"team": "vision"}, False),
        ("team in (a, b)", {"team": "b"}, True),
        ("team in (a, b)", {}, False),
        ("team notin (a, b)", {"team": "b"}, False),
        ("team notin (a, b)", {}, True),
        ("team=", {"team": ""}, True),
        ("team=", {}, False),
        ("team", {"team": ""}, True),
        ("!team", {"team": ""}, False),
        ("!team", {}, True),
        ("size>5", {"size": "6"}, True),
        ("size>5", {"size": "5"}, False),
        ("size<5", {"size": "large"}, False),
        ("size<5", {}, False),
        ("team=vision,!old", {"team": "vision"}, True),
        ("team=vision,!old", {"team": "vision", "old": "yes"}, False),
    ],
)
def test_labels_are_matched_as_the_api_server_matches_them(
    selector: str, labels: dict[str, str], holds: bool
) -> None:
    assert all(r.holds(labels) for r in selectors.parse(selector)) is holds


def test_operators_with_different_selectors_do_not_share_a_lease(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("POD_NAMESPACE", "system")

    def lease(*arguments: str) -> str:
        options, _, _ = main.parse(["run", *arguments])
        assert options.lease is not None
        return options.lease[1]

    assert lease() == lease("--selector=") == "inferencemodel-operator"
    names = [lease(f"--selector=shard={shard}") for shard in ("blue", "green")]
    assert len({*names, lease()}) == 3
    assert names == [lease(f"--selector=shard={shard}") for shard in ("blue", "green")]
    assert lease("--selector=shard=blue", "--lease-name=own") == "own"


def test_a_lease_says_what_its_operator_serves() -> None:
    scope = Scope(("vision", "speech"), "shard=blue")
    metadata: dict[str, Any] = {"name": "a", "resourceVersion": "1", **shards.metadata(scope)}
    found = shards.lease({"metadata": metadata, "spec": {"holderIdentity": "x"}})
    assert found is not None
    assert (found.scope, found.holder) == (scope, "x")
    everything = {"name": "a", "resourceVersion": "1", **shards.metadata(Scope())}
    found = shards.lease({"metadata": everything})
    assert found is not None
    assert found.scope.has("any", {})
    assert shards.lease({"metadata": {"name": "a", "resourceVersion": "1"}}) is None
    metadata["annotations"][shards.SELECTOR_ANNOTATION] = "shard in ("
    assert shards.lease({"metadata": metadata}) is None


def lease(name: str, created: str, version: str = "2", holder: str = "x") -> Lease:
    return Lease(name, created, version, holder, BLUE)


def test_the_older_lease_comes_first_and_of_two_of_one_second_that_of_the_smaller_name() -> None:
    leases = [lease("a", "2"), lease("b", "1"), lease("c", "2"), lease("d", "3")]
    first, after = shards.others("c", {}, leases)
    assert [one.name for one in first] == ["b", "a"]
    assert [one.name for one in after] == ["d"]
    # One that has no Lease yet is the youngest.
    first, after = shards.others("e", {}, leases)
    assert [one.name for one in first] == ["b", "a", "c", "d"]
    assert after == ()


def test_who_does_not_renew_a_lease_or_has_left_it_serves_nothing() -> None:
    before = {one.name: one for one in (lease("a", "1"), lease("b", "1"), lease("c", "9"))}
    now = [lease("a", "1"), lease("b", "1", "3"), lease("c", "9", "3", holder="")]
    first, after = shards.others("x", before, now)
    assert [one.name for one in first] == ["b"]
    assert after == ()


class Leases(Cluster):
    """An API server with Leases."""

    def __init__(self) -> None:
        self.items: list[dict[str, Any]] = []
        self.forbidden = self.away = False
        self.looks = 0
        self.dead: set[str] = set()
        """Those whose Leases aren't renewed."""

    async def list(
        self, resource: Resource, namespace: str | None, *, label: tuple[str, str] | None = None
    ) -> AsyncIterator[dict[str, Any]]:
        self.looks += 1
        if self.away:
            raise ApiUnavailableError("away")
        if self.forbidden:
            raise NoRightError("no right to list Leases")
        for item in self.items:
            metadata = item["metadata"]
            if metadata["name"] not in self.dead:
                metadata["resourceVersion"] = str(int(metadata["resourceVersion"]) + 1)
        yield {"metadata": {"resourceVersion": "1"}, "items": self.items}

    def put(self, name: str, created: str, scope: Scope, holder: str = "x") -> None:
        about = {"name": name, "creationTimestamp": created, "resourceVersion": "1"}
        metadata = {**about, **shards.metadata(scope)}
        self.items = [i for i in self.items if i["metadata"]["name"] != name]
        self.items.append({"metadata": metadata, "spec": {"holderIdentity": holder}})


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110  what is waited for has no event of its own
            await asyncio.sleep(0.01)


async def looked(leases: Leases, rivals: Rivals) -> None:
    before = leases.looks
    await until(lambda: leases.looks > before + 1)
    assert rivals.looked.is_set()


@pytest.fixture
async def stage(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Leases, Rivals]]:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.02)
    leases = Leases()
    rivals = Rivals(leases, ("system", "blue"), BLUE, "me")
    running = asyncio.create_task(rivals.run())
    yield leases, rivals
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_what_an_older_operator_serves_is_left_to_it_and_said(
    stage: tuple[Leases, Rivals], caplog: pytest.LogCaptureFixture
) -> None:
    leases, rivals = stage
    changes: list[bool] = []
    rivals.changed = lambda: changes.append(True)
    leases.put("blue", "2", BLUE)
    await looked(leases, rivals)
    assert rivals.serves(("vision", "m"), {"shard": "blue"})
    assert (changes, rivals.left, rivals.shared) == ([], 0, 0)

    leases.put("green", "1", GREEN)
    await until(lambda: changes)
    assert not rivals.serves(("vision", "m"), {"shard": "blue"})
    assert (rivals.left, rivals.shared) == (1, 0)
    rivals.tell()
    rivals.tell()
    (line,) = [r.getMessage() for r in caplog.records if "InferenceModels" in r.getMessage()]
    assert "vision/m" in line
    assert "Lease green (shard in (green,blue) in all namespaces)" in line
    assert "serves them" in line

    leases.dead.add("green")
    await until(lambda: len(changes) > 1)
    assert rivals.serves(("vision", "m"), {"shard": "blue"})
    assert rivals.left == 0


async def test_what_a_younger_operator_would_serve_is_waited_for_and_said(
    stage: tuple[Leases, Rivals], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    leases, rivals = stage
    leases.put("blue", "1", BLUE)
    leases.put("green", "2", GREEN)
    changes: list[bool] = []
    rivals.changed = lambda: changes.append(True)
    await until(lambda: changes)
    assert rivals.serves(("vision", "m"), {"shard": "blue"})
    assert (rivals.left, rivals.shared) == (0, 1)
    await rivals.give_way()
    assert "waiting for green to let go" in caplog.text
    rivals.forget(("vision", "m"))
    assert rivals.shared == 0


async def test_an_api_server_that_is_away_at_the_start_is_asked_again_soon(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 3600.0)
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.01)
    leases = Leases()
    leases.away = True
    rivals = Rivals(leases, ("system", "blue"), BLUE, "me")
    running = asyncio.create_task(rivals.run())
    try:
        await until(lambda: leases.looks > 1)
        assert not rivals.looked.is_set()
        leases.away = False
        await until(rivals.looked.is_set)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_without_the_right_to_see_leases_it_serves_what_it_is_told_to(
    stage: tuple[Leases, Rivals],
) -> None:
    leases, rivals = stage
    leases.forbidden = True
    await looked(leases, rivals)
    assert rivals.serves(("vision", "m"), {"shard": "blue"})


async def test_a_replica_that_stands_by_for_an_operator_of_another_scope_says_so(
    stage: tuple[Leases, Rivals], caplog: pytest.LogCaptureFixture
) -> None:
    leases, rivals = stage
    leases.put("blue", "1", GREEN, holder="another")
    await looked(leases, rivals)
    assert "only one of them works at a time; give each a --lease-name of its own" in caplog.text
    caplog.clear()
    await looked(leases, rivals)
    assert not caplog.records
