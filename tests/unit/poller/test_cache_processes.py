"""Several pods with one cache, as processes that end at any moment."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.unit.poller import cache_pod
from tests.unit.poller.cache_pod import FILES
from tests.unit.poller.test_bring import content

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Fleet:
    """Pods that share a cache and a store."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.cache = root / "cache"
        self.cache.mkdir()
        self.log = root / "store.log"
        self.log.touch()
        self._running: list[subprocess.Popen[str]] = []

    def start(self, name: str, *phase: str) -> subprocess.Popen[str]:
        module = "tests.unit.poller.cache_pod"
        process = subprocess.Popen(
            [sys.executable, "-m", module, self.cache, self.root / name, self.log, *phase],
            stdout=subprocess.PIPE,
            text=True,
        )
        self._running.append(process)
        return process

    @property
    def fetches(self) -> int:
        """How often the store was asked for the graph, which is one range."""
        return sum("saved_model.pb" in line for line in self.log.read_text().splitlines())

    def has(self, name: str) -> bool:
        return content(self.root / name / "models" / ".retained" / "1") == FILES

    def end(self) -> None:
        for process in self._running:
            process.kill()
            process.communicate()


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    made = Fleet(tmp_path)
    yield made
    made.end()


@pytest.mark.parametrize("count", [2, 10])
def test_pods_that_start_at_once_fetch_once(fleet: Fleet, count: int) -> None:
    pods = [fleet.start(f"pod-{i}") for i in range(count)]

    assert [pod.wait(60) for pod in pods] == [0] * count
    assert all(fleet.has(f"pod-{i}") for i in range(count))
    assert fleet.fetches == 1


@pytest.mark.parametrize("phase", ["fetching", "storing", "describing", "published", "copying"])
def test_a_pod_that_is_killed_holds_up_nobody_and_leaves_nothing_half_done(
    fleet: Fleet, phase: str
) -> None:
    if phase == "copying":
        assert fleet.start("first").wait(30) == 0
    killed = fleet.start("killed", phase)
    assert killed.stdout is not None
    assert killed.stdout.readline() == "there\n"
    # While it lives, others wait for it.
    waiting = fleet.start("waiting")
    killed.kill()
    killed.wait()

    assert waiting.wait(30) == 0
    assert fleet.has("waiting")
    assert fleet.start("later").wait(30) == 0
    assert fleet.has("later")
    # The one that was killed had fetched it before it stored it; in this test, hardly begun to.
    assert fleet.fetches == {"fetching": 1, "published": 1, "copying": 1}.get(phase, 2)


def test_what_the_dead_have_left_is_cleared_away(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    for phase in ("storing", "copying"):
        killed = fleet.start(phase, phase)
        assert killed.stdout is not None
        assert killed.stdout.readline() == "there\n"
        killed.kill()
        killed.wait()
        if phase == "storing":
            assert fleet.start("first").wait(30) == 0
    top = fleet.cache / "v1"
    assert list((top / "incoming").iterdir())
    assert list((top / "users").iterdir())

    cache_pod.hurry(monkeypatch.setattr)
    (fleet.root / "last").mkdir()
    cache = cache_pod.pod(fleet.cache, fleet.root / "last", cache_pod.CountedStore(None)).cache
    assert cache is not None
    until = time.monotonic() + 20
    while any(list((top / folder).iterdir()) for folder in ("incoming", "users", "trash")):
        cache.tend()
        assert time.monotonic() < until
        time.sleep(0.05)
    assert len(list((top / "entries").iterdir())) == 1
