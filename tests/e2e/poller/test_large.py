"""Versions that are larger than the poller's memory, and than what is left of its disk.

In short with some megabytes; with LONG=1 with 6 GB in a container's own limit.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from bench import confined
from bench.patterned import Patterned, version
from bench.poller_s3 import KEYS
from model_poller.status import VersionReason, VersionState
from model_poller.volume.store import RESERVE_BYTES
from tests.support.waiting import eventually
from tests.unit.poller.program import Program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from model_poller.status import VersionStatus

pytestmark = pytest.mark.e2e

MB = 1_000_000
IS_LONG = "LONG" in os.environ
SHARDS = [2000 * MB] * 3 if IS_LONG else [90 * MB] * 3
LIMIT = 512 << 20 if IS_LONG else 160 << 20
PATIENCE = 600 if IS_LONG else 120


def stored(number: int, shards: list[int]) -> dict[str, bytes | int]:
    return {f"large/{number}/{name}": content for name, content in version(shards).items()}


def arguments(store: Patterned, folder: Path) -> list[str]:
    return [
        *(f"--models-dir={folder}", "--model-name=large", "--storage-uri=s3://models/large"),
        *(f"--endpoint={store.url}", "--path-style", "--server-address=127.0.0.1:9"),
    ]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Program]]:
    running: list[Program] = []

    def start(*given: str) -> Program:
        running.append(Program(tmp_path, *given, **KEYS))
        return running[-1]

    yield start
    for program in running:
        program.kill()


def of(program: Program, number: int) -> VersionStatus | None:
    return next((v for v in program.status().versions if v.version == number), None)


def test_a_version_that_is_larger_than_the_memory_is_published(tmp_path: Path) -> None:
    with Patterned(stored(1, SHARDS)) as store, confined.limited(LIMIT) as cell:
        if cell is None:
            pytest.skip("this user can't have a cgroup of its own")
        ended = subprocess.run(
            [
                *cell.prefix,
                *(sys.executable, "-m", "model_poller", "--once", "--http-port=0"),
                *arguments(store, tmp_path / "pod"),
            ],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": ":".join(sys.path), **KEYS},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        # Nothing of it came twice, and the system counted no more than it may.
        assert sum(SHARDS) <= store.sent < sum(SHARDS) + MB
        assert cell.peak_mb * MB <= LIMIT
    shards = sorted((tmp_path / "pod/large/1/variables").glob("*.data-*"))
    assert [path.stat().st_size for path in shards] == SHARDS


def test_how_far_it_is_and_how_long_it_takes_is_told(
    tmp_path: Path, run: Callable[..., Program]
) -> None:
    with Patterned(stored(1, [30 * MB] * 2)) as store:
        program = run(*arguments(store, tmp_path / "pod"), f"--max-bandwidth={10 * MB}")

        def halfway() -> VersionStatus | None:
            found = of(program, 1)
            if found is None or found.seconds_left is None:
                return None
            return found if found.bytes_done > 15 * MB else None

        seen = eventually(halfway, what="half of it", within=60, every=0.05)
        assert seen.state is VersionState.FETCHING
        assert 60 * MB <= seen.bytes_total < 61 * MB
        assert 0 < (seen.seconds_left or 0) <= 12
        program.wait_for(1, VersionState.PUBLISHED)


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Path]:
    """Room for one and a half versions of 60 MB, as a mount of its own."""
    folder = tmp_path / "pod"
    folder.mkdir()
    size = RESERVE_BYTES + 90 * MB
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_disk_for_one_and_a_half_says_so_before_the_first_byte(
    volume: Path, run: Callable[..., Program]
) -> None:
    with Patterned(stored(1, [60 * MB])) as store:
        program = run(*arguments(store, volume), "--poll-interval=1")
        program.wait_for(1, VersionState.PUBLISHED)
        before = store.sent
        store.put(stored(2, [60 * MB]))

        def refused() -> VersionStatus | None:
            found = of(program, 2)
            is_short = found is not None and found.reason is VersionReason.INSUFFICIENT_DISK
            return found if is_short else None

        seen = eventually(refused, what="InsufficientDisk", within=30, every=0.05)
        assert store.sent == before
        assert (seen.state, seen.bytes_done) == (VersionState.DISCOVERED, 0)
        assert seen.message.startswith(f"{seen.bytes_total + RESERVE_BYTES} bytes are needed and ")
        # What serves has to stay until the next one does, so retaining less is of no use.
        assert "enlarge the volume by" in seen.message
        assert "retain" not in seen.message
        assert (volume / "large/1/saved_model.pb").exists()


def test_the_way_back_takes_no_download(tmp_path: Path, run: Callable[..., Program]) -> None:
    target = tmp_path / "target"
    target.write_text("1")
    with Patterned({**stored(1, [20 * MB]), **stored(2, [20 * MB])}) as store:
        program = run(*arguments(store, tmp_path / "pod"), f"--target-file={target}")
        program.wait_for(1, VersionState.PUBLISHED)
        target.write_text("2")
        program.wait_for(2, VersionState.PUBLISHED)
        before = store.sent
        target.write_text("1")
        program.wait_for(1, VersionState.PUBLISHED)
        assert store.sent == before
