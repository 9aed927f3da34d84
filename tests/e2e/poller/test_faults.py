"""A poller whose storage server fails in every way: it converges, and asks no more than it must."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest

from model_poller.status import SourceReason, VersionState
from tests.support.faults import Fault, FaultyServer
from tests.support.waiting import eventually
from tests.unit.poller.doubles import below, model, zipped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from demo.storage import Storage
    from tests.support.pollers import Pods
    from tests.unit.poller.program import Program

pytestmark = pytest.mark.e2e

FILES = model(os.urandom(3_000_000), shards=2)
MARKER = "--complete-marker=DONE"
SOMETIMES = 3
"""So many answers of each kind are faulty, then none."""

FAULTS = {
    "cut": Fault(keep=0.5),
    "cut before the first byte": Fault(keep=0.0),
    "damaged": Fault(flip=True),
    "late": Fault(delay=0.3),
    "404": Fault(status=404),
    "403": Fault(status=403),
    "429": Fault(status=429, headers={"Retry-After": "1"}),
    "500": Fault(status=500),
    "503": Fault(status=503),
}


def is_range(path: str) -> bool:
    return "alt=media" in path


def is_list(path: str) -> bool:
    return path.startswith("/storage/v1/b/models/o?")


class Observer:
    """Watches the base path for a version that is not whole."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self._done = threading.Event()
        self.wrong: list[str] = []
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._done.wait(0.005):
            for version in self._base.glob("[0-9]*"):
                for name, content in FILES.items():
                    path = version / name
                    if not path.exists() or path.stat().st_size != len(content):
                        self.wrong.append(str(path))

    def stop(self) -> None:
        self._done.set()
        self._thread.join()


@pytest.fixture
def faulty(storage: Storage) -> Iterator[Callable[[Callable[[str], bool], Fault], FaultyServer]]:
    made: list[FaultyServer] = []

    def start(which: Callable[[str], bool], fault: Fault) -> FaultyServer:
        # Damaged as often as that, it is the store that holds no more than this.
        left = [SOMETIMES - 1 if fault.flip else SOMETIMES]

        def choose(_: str, path: str) -> Fault | None:
            if not which(path) or not left[0]:
                return None
            left[0] -= 1
            return fault

        made.append(FaultyServer(storage.url, choose).__enter__())
        return made[-1]

    yield start
    for server in made:
        server.__exit__()


def published(program: Program, base: Path, version: int) -> None:
    program.wait_for(version, VersionState.PUBLISHED)
    found = base / str(version)
    for name, content in FILES.items():
        assert (found / name).read_bytes() == content


@pytest.mark.parametrize("form", ["folder", "archive"])
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_reading_heals_by_itself(
    storage: Storage,
    pods: Pods,
    faulty: Callable[[Callable[[str], bool], Fault], FaultyServer],
    fault: Fault,
    form: str,
) -> None:
    if form == "archive":
        storage.bucket.upload("imagenet/1.zip", zipped(below("1", FILES)))
    else:
        for name, content in {**FILES, "DONE": b""}.items():
            storage.bucket.upload(f"imagenet/1/{name}", content)
    proxy = faulty(is_range, fault)
    base = pods.base()
    observer = Observer(base)
    program = pods.start(MARKER, "--poll-interval=1", f"--endpoint={proxy.url}")

    published(program, base, 1)

    observer.stop()
    assert observer.wrong == []
    assert proxy.faults
    ranges = sum(is_range(path) for _, path in proxy.calls)
    assert ranges <= (SOMETIMES + 1) * (len(FILES) + 1), "calls are bounded"


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_listing_heals_by_itself_and_what_is_served_stays(
    storage: Storage,
    pods: Pods,
    faulty: Callable[[Callable[[str], bool], Fault], FaultyServer],
    fault: Fault,
) -> None:
    storage.bucket.upload("imagenet/1.zip", zipped(below("1", FILES)))
    first = pods.start("--poll-interval=1")
    published(first, pods.base(), 1)
    first.end()
    storage.bucket.upload("imagenet/2.zip", zipped(below("2", FILES)))
    proxy = faulty(is_list, fault)
    observer = Observer(pods.base())
    program = pods.start("--poll-interval=1", f"--endpoint={proxy.url}")

    assert (pods.base() / "1").exists()
    published(program, pods.base(), 2)

    observer.stop()
    assert observer.wrong == []
    lists = sum(is_list(path) for _, path in proxy.calls)
    assert lists <= SOMETIMES * 5 + 20, "calls are bounded"


def test_a_refusal_that_lasts_is_told_and_asked_about_seldom(storage: Storage, pods: Pods) -> None:
    with FaultyServer(storage.url, lambda *_: Fault(status=403)) as proxy:
        program = pods.start("--poll-interval=1", f"--endpoint={proxy.url}")
        eventually(
            lambda: program.status().source.reason is SourceReason.ACCESS_DENIED,
            what="AccessDenied",
            within=20,
            every=0.05,
        )
        before = len(proxy.calls)
        eventually(lambda: len(proxy.calls) >= before + 2, what="two more looks", within=20)
        assert len(proxy.calls) <= before + 4
