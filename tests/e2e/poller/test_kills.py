"""A poller that is killed again and again, at any moment, while versions are uploaded."""

from __future__ import annotations

import hashlib
import random
import time
from typing import TYPE_CHECKING

import pytest

from model_poller.status import VersionState
from tests.unit.poller.doubles import below, model, tarred, zipped

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.gcs import Pods, Servers

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


@pytest.mark.timeout(600)
def test_two_hundred_kills_lose_nothing_and_leave_nothing(servers: Servers, pods: Pods) -> None:
    dice = random.Random(4)
    uploaded: dict[int, dict[str, str]] = {}
    root = pods.base().parent

    def upload(version: int) -> None:
        files = {**model(dice.randbytes(VERSION_BYTES // 8), shards=8), "DONE": b""}
        uploaded[version] = {
            name: hashlib.sha256(content).hexdigest() for name, content in files.items()
        }
        match version % 3:
            case 0:
                servers.bucket.upload(f"imagenet/{version}.zip", zipped(below(str(version), files)))
            case 1:
                for name, content in files.items():
                    servers.bucket.upload(f"imagenet/{version}/{name}", content)
            case _:
                servers.bucket.upload(f"imagenet/{version}.tar.gz", tarred(files))

    def check() -> set[int]:
        found = {int(path.name): digests(path) for path in pods.base().glob("[0-9]*")}
        for version, content in found.items():
            assert content == uploaded[version], f"version {version} is not whole"
        return set(found)

    served: set[int] = set()
    for round_ in range(ROUNDS):
        if round_ % 10 == 0:
            upload(round_ // 10 + 1)
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

    newest = max(uploaded)
    program = pods.start("--complete-marker=DONE", "--poll-interval=0.5")
    program.wait_for(newest, VersionState.PUBLISHED)
    assert newest in check()
    assert [path.name for path in (root / ".staging").iterdir() if path.name[0].isdigit()] == []
    kept = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
    assert kept < 4 * VERSION_BYTES, "leftovers grow"
