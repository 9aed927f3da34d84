"""A poller that is killed again and again, at any moment, while versions are uploaded."""

from __future__ import annotations

import hashlib
import random
import threading
import time
from typing import TYPE_CHECKING

import pytest

from model_poller.status import VersionState
from tests.support.waiting import eventually
from tests.unit.poller.doubles import below, model, tarred, zipped

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from demo.storage import Storage
    from tests.support.pollers import Pods

pytestmark = pytest.mark.e2e

ROUNDS = 200
LONGEST_SECONDS = 0.9
"""From a poller's start to its end: it needs about half of it to start, and a third to fetch."""
VERSION_BYTES = 4_000_000
BANDWIDTH = 12_000_000
"""Bytes a second: slow enough to be hit in the middle."""


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def fetches(staging: Path) -> list[str]:
    return [path.name for path in staging.iterdir() if path.name[0].isdigit()]


class Observer:
    """Looks at a base path without pause, as a model server that is never late."""

    def __init__(self, base: Path, uploaded: Mapping[int, dict[str, str]]) -> None:
        self._base = base
        self._uploaded = uploaded
        self._seen: dict[int, int] = {}
        self._ended = threading.Event()
        self.sightings = 0
        self.wrong: list[str] = []
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Observer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(0.003):
            try:
                there = {int(path.name): path for path in self._base.glob("[0-9]*")}
                for version, folder in there.items():
                    self._judge(version, folder)
            except FileNotFoundError:
                # It was retired while it was looked at.
                continue

    def _judge(self, version: int, folder: Path) -> None:
        inode = folder.stat().st_ino
        if self._seen.get(version) == inode:
            return
        content = digests(folder)
        if folder.stat().st_ino != inode:
            return
        self._seen[version] = inode
        self.sightings += 1
        if content != self._uploaded[version]:
            self.wrong.append(f"version {version} is not whole: {sorted(content)}")


@pytest.mark.timeout(600)
def test_two_hundred_kills_lose_nothing_and_leave_nothing(storage: Storage, pods: Pods) -> None:
    dice = random.Random(4)
    uploaded: dict[int, dict[str, str]] = {}
    root = pods.base().parent

    def upload(version: int) -> threading.Thread:
        """Upload while pollers come and go."""
        files = {**model(dice.randbytes(VERSION_BYTES // 8), shards=8), "DONE": b""}
        uploaded[version] = {
            name: hashlib.sha256(content).hexdigest() for name, content in files.items()
        }
        stored = {
            0: lambda: {f"{version}.zip": zipped(below(str(version), files))},
            1: lambda: below(str(version), files),
            2: lambda: {f"{version}.tar.gz": tarred(files)},
        }[version % 3]()

        def put() -> None:
            for name, content in stored.items():
                storage.bucket.upload(f"imagenet/{name}", content)

        uploading = threading.Thread(target=put)
        uploading.start()
        return uploading

    def check() -> set[int]:
        found = {int(path.name): digests(path) for path in pods.base().glob("[0-9]*")}
        for version, content in found.items():
            assert content == uploaded[version], f"version {version} is not whole"
        return set(found)

    served: set[int] = set()
    uploads: list[threading.Thread] = []
    with Observer(pods.base(), uploaded) as observer:
        for round_ in range(ROUNDS):
            if round_ % 10 == 0:
                uploads.append(upload(round_ // 10 + 1))
            program = pods.start(
                "--complete-marker=DONE", "--poll-interval=0.5", f"--max-bandwidth={BANDWIDTH}"
            )
            time.sleep(dice.uniform(0.0, LONGEST_SECONDS))  # the moment of the kill is the test
            program.kill()
            now = check()
            assert now or not served, "what was served is gone"
            assert max(now, default=0) >= max(served, default=0), "it went back"
            served = now
            staging = root / ".staging"
            left = list(staging.iterdir()) if staging.exists() else []
            # A fetch, what it replaces, and what is on its way out.
            assert len(left) <= 4, left
        for uploading in uploads:
            uploading.join()
        newest = max(uploaded)
        program = pods.start("--complete-marker=DONE", "--poll-interval=0.5")
        program.wait_for(newest, VersionState.PUBLISHED)
        # What it was fetched into goes when it has been told.
        eventually(lambda: not fetches(root / ".staging"), what="no fetch left", within=30)
    assert observer.wrong == []
    assert observer.sightings > 1, "nothing was ever published"
    assert newest in check()
    kept = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
    assert kept < 4 * VERSION_BYTES, "leftovers grow"
