"""Every pod hears what it is to serve, however busy its node is.

`make bad-versions` runs it with a hundred changes; of a hundred, a kubelet misses a few.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.support.kubectl import KubectlError
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.models import Served

pytestmark = pytest.mark.e2e

CHANGES = int(os.environ.get("CHANGES", "15"))
DEADLINE = float(os.environ.get("DEADLINE", "10"))
"""Seconds; a kubelet that missed a change looks by itself after 60 to 90."""


@contextmanager
def busy_machine() -> Iterator[None]:
    """All of its CPUs have something else to do."""
    spin = [sys.executable, "-c", "while True: pass"]
    loads = [subprocess.Popen(spin) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for load in loads:
            load.kill()
            load.wait(timeout=10)


def heard(served: Served, pod: str) -> int | None:
    """The version that a pod's poller says it was told to serve."""
    path = f"/api/v1/namespaces/{served.namespace}/pods/{pod}:8502/proxy/status"
    try:
        found: int | None = served.kubectl.raw(path)["target"]
    except KubectlError:
        return None
    return found


def all_heard(served: Served, pods: list[str], version: int) -> bool:
    return all(heard(served, pod) == version for pod in pods)


@pytest.mark.timeout(1800)
def test_every_change_of_the_target_is_heard_on_every_replica_of_a_busy_machine(
    served: Served,
) -> None:
    served.upload(1, offset=2)
    served.upload(2, offset=3)
    served.apply(replicas=3)
    served.until_active(2, replicas=3)
    pods = [pod["metadata"]["name"] for pod in served.pods()]
    luck = random.Random(CHANGES)
    seconds: list[float] = []

    with busy_machine():
        for change in range(CHANGES):
            version = 1 + change % 2
            started = time.monotonic()
            served.patch({"model": {"version": version}})
            eventually(
                partial(all_heard, served, pods, version),
                what=f"version {version} to be heard of, change {change}, after {seconds}",
                within=DEADLINE,
                exact=True,
            )
            seconds.append(round(time.monotonic() - started, 1))
            time.sleep(luck.uniform(1, 2))

    print(f"heard after {sorted(seconds)} s")
