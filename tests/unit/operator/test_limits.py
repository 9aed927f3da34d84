"""The limit of open files, and the pods that can be asked within it."""

from __future__ import annotations

import asyncio
import resource
import subprocess
import sys
from typing import TYPE_CHECKING

import msgspec
import pytest
from aiohttp import web

from inferencemodel_operator import limits
from inferencemodel_operator.metrics import Metrics
from inferencemodel_operator.observe import objects, pollers
from inferencemodel_operator.observe.pollers import Pollers, Turns
from model_poller import status
from model_poller.status import PollerStatus, SourceStatus
from tests.support.channels import WAYS, reached

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from inferencemodel_operator.observe.channels import Channel
    from inferencemodel_operator.observe.reports import Report


@pytest.mark.parametrize(("soft", "hard", "becomes"), [(256, 1024, 1024), (256, 256, 256)])
def test_the_soft_limit_is_raised_to_the_hard_one(soft: int, hard: int, becomes: int) -> None:
    program = (
        "import resource; from inferencemodel_operator import limits; "
        f"resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard})); "
        "limits.raise_open_files(); print(limits.open_files())"
    )
    told = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert int(told.stdout) == becomes


def test_a_limit_beyond_all_need_is_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, resource.RLIM_INFINITY))
    monkeypatch.setattr(resource, "setrlimit", lambda _, wanted: asked.append(wanted))
    limits.raise_open_files()
    assert asked == [(limits.MOST_FILES, resource.RLIM_INFINITY)]


def test_a_limit_that_may_not_be_raised_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    limits.raise_open_files()
    assert limits.open_files() == 1024


def test_polls_leave_room_for_all_else() -> None:
    assert limits.polls(1024, 70) == 1024 - 70 - limits.OTHER_FILES
    assert limits.polls(64, 70) == 1


# -- more pods than sockets


class Fleet:
    """Pods that all answer at one address, and how many are connected to at a time."""

    def __init__(self) -> None:
        self.url = ""
        self.revision = "1"
        self.holding = self.most = 0
        self.connections: set[object] = set()
        self.changed = asyncio.Event()

    async def answer(self, request: web.Request) -> web.Response:
        self.connections.add(request.transport)
        self.holding += 1
        self.most = max(self.most, self.holding)
        try:
            if request.query.get("after") == self.revision:
                async with asyncio.timeout(float(request.query["timeout"])):
                    await self.changed.wait()
        except TimeoutError:
            pass
        finally:
            self.holding -= 1
        told = PollerStatus(revision=self.revision, model="m", source=SourceStatus(uri="gs://b/m"))
        told = msgspec.structs.replace(told, model=f"m{self.revision}")
        return web.Response(body=status.encode(told))


@pytest.fixture
async def fleet() -> AsyncIterator[Fleet]:
    made = Fleet()
    application = web.Application()
    application.router.add_get("/status", made.answer)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    await runner.cleanup()


def pods(count: int) -> list[objects.Pod]:
    return [
        pod
        for number in range(count)
        if (
            pod := objects.pod(
                {
                    "metadata": {
                        "name": f"p{number}",
                        "namespace": "vision",
                        "uid": f"uid-{number}",
                        "resourceVersion": "1",
                        "labels": {"inferencemodel.dev/name": "m"},
                    },
                    "status": {"phase": "Running", "podIP": "127.0.0.1"},
                }
            )
        )
    ]


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110  it has no event of its own
            await asyncio.sleep(0.01)


@pytest.fixture(params=WAYS)
async def channel(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[Callable[[str, asyncio.Semaphore], Channel]]:
    async with reached(request.param, tmp_path) as way:
        yield way


async def test_more_pods_than_sockets_are_asked_in_turns(
    channel: Callable[[str, asyncio.Semaphore], Channel],
    fleet: Fleet,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(pollers, "TURN_SECONDS", 0.5)
    caplog.set_level("INFO")
    reports: dict[str, Report] = {}

    def heard(model: str) -> bool:
        return {getattr(report, "model", "") for report in reports.values()} == {model}

    turns = Turns(4)
    asking = Pollers(channel, lambda _: fleet.url, reports, lambda _: None, Metrics(), turns)
    many = pods(40)
    asking.start(many)
    await until(lambda: len(reports) == 40 and heard("m1"))
    fleet.revision = "2"
    await until(lambda: heard("m2"))
    assert fleet.most <= 4
    assert caplog.text.count("asked in turns") == 1

    for pod in many[3:]:
        asking.drop(pod.uid)
    assert "can be asked all the time again" in caplog.text
    await until(lambda: fleet.holding == 3)
    before = len(fleet.connections)
    fleet.revision = "3"
    fleet.changed.set()
    await until(lambda: len(reports) == 3 and heard("m3"))
    assert len(fleet.connections) <= before + 3, "connections are kept again"
    await asking.close()


def test_turns_of_many_pods_take_longer_instead_of_all_of_a_core() -> None:
    def polls(most: int, pods: int) -> float:
        hold = Turns(most).hold(pods)
        assert hold is not None
        return most / hold

    assert polls(most=900, pods=1000) == 1000 / pollers.TURN_SECONDS
    for most, pods in ((1000, 30_000), (19_800, 30_000), (65_000, 100_000)):
        # A request that is held for its full time is asked again, as where there are no turns.
        limit = max(pollers.MOST_TURNS, most / pollers.POLL_SECONDS)
        assert polls(most, pods) == pytest.approx(limit)


async def test_where_there_are_enough_sockets_every_pod_holds_one(
    channel: Callable[[str, asyncio.Semaphore], Channel],
    fleet: Fleet,
    caplog: pytest.LogCaptureFixture,
) -> None:
    reports: dict[str, Report] = {}
    turns = Turns(10)
    asking = Pollers(channel, lambda _: fleet.url, reports, lambda _: None, Metrics(), turns)
    asking.start(pods(10))
    await until(lambda: fleet.holding == 10)
    await asking.close()
    assert "in turns" not in caplog.text
