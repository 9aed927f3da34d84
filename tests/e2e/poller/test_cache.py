"""Pollers that share a cache, beside a real storage server and on file systems that fail."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from model_poller.cache.housekeeping import RESERVE_BYTES
from model_poller.status import CacheState, VersionState
from tests.support.waiting import eventually
from tests.unit.poller.doubles import below, model, zipped

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from demo.storage import Storage
    from tests.support.pollers import Pods
    from tests.unit.poller.program import Program

pytestmark = pytest.mark.e2e

MB = 1_000_000


@pytest.fixture
def mounted(tmp_path: Path, pods: Pods) -> Iterator[Path]:
    """A place for a file system; whatever is mounted there goes."""
    place = tmp_path / "cache"
    place.mkdir()
    yield place
    pods.stop()
    while os.path.ismount(place):
        subprocess.run(["umount", "--lazy", place], check=True)


def mount(place: Path, size: int) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], check=True)


def state(program: Program, wanted: CacheState, within: float = 30) -> str:
    """What a poller says of its cache, once it says that."""

    def told() -> str | None:
        cache = program.status().cache
        return f" {cache.message}" if cache and cache.state is wanted else None

    return eventually(told, what=f"a cache that is {wanted}", within=within, every=0.1)


def until_kept(cache: Path, version: int) -> None:
    """Wait until the cache has this version, and no other."""

    def is_alone() -> bool:
        return [path.name.partition("-")[0] for path in (cache / "v1/entries").iterdir()] == [
            str(version)
        ]

    eventually(is_alone, what=f"version {version} alone in the cache", within=30, every=0.1)


def uploaded(storage: Storage, version: int, size: int = 8 * MB) -> bytes:
    archive = zipped(below(str(version), model(os.urandom(size))))
    storage.bucket.upload(f"imagenet/{version}.zip", archive)
    return archive


def test_pollers_that_start_at_once_fetch_once_and_new_ones_not_at_all(
    storage: Storage, pods: Pods, tmp_path: Path
) -> None:
    archive = uploaded(storage, 1)
    (tmp_path / "cache").mkdir()
    option = f"--cache-dir={tmp_path / 'cache'}"

    together = [pods.start(option, "--poll-interval=1", name=f"pod-{i}") for i in range(4)]
    for program in together:
        program.wait_for(1, VersionState.PUBLISHED)
    late = pods.start(option, name="late")
    late.wait_for(1, VersionState.PUBLISHED)

    assert sorted(each.fetched() for each in together) == [0, 0, 0, len(archive)]
    assert late.fetched() == 0
    state(late, CacheState.READY)
    uploaded(storage, 2)
    for program in together:
        program.wait_for(2, VersionState.PUBLISHED)
    assert sum(program.fetched() > len(archive) for program in together) <= 1


@pytest.mark.runbook("a-lost-node-with-a-pvc-cache")
def test_who_waits_takes_over_from_a_poller_that_is_killed(
    storage: Storage, pods: Pods, tmp_path: Path
) -> None:
    archive = uploaded(storage, 1)
    cache = tmp_path / "cache"
    cache.mkdir()
    first = pods.start(f"--cache-dir={cache}", f"--max-bandwidth={MB}", name="first")
    eventually(lambda: first.fetched() > 0, what="the first bytes", within=30, every=0.05)
    second = pods.start(f"--cache-dir={cache}", name="second")

    def waits() -> bool:
        return any("for the cache" in v.message for v in second.status().versions)

    eventually(waits, what="who waits to say so", within=30, every=0.1)
    assert second.fetched() == 0
    first.kill()

    eventually(
        lambda: any(v.state is VersionState.PUBLISHED for v in second.status().versions),
        what="the version at the second",
        within=90,
        every=0.2,
    )
    assert second.fetched() == len(archive)


def test_a_full_cache_makes_room_and_what_is_too_large_for_it_is_fetched(
    storage: Storage, pods: Pods, mounted: Path
) -> None:
    mount(mounted, RESERVE_BYTES + 12 * MB)
    option = f"--cache-dir={mounted}"
    for version in (1, 2):
        uploaded(storage, version)
        pods.start(option, name=f"pod-{version}").wait_for(version, VersionState.PUBLISHED)
        until_kept(mounted, version)

    archive = uploaded(storage, 3, 20 * MB)
    large = pods.start(option, name="large")
    large.wait_for(3, VersionState.PUBLISHED)
    assert large.fetched() == len(archive)
    assert "no room for" in state(large, CacheState.FULL)


def test_a_read_only_cache_is_read(storage: Storage, pods: Pods, mounted: Path) -> None:
    mount(mounted, 200 * MB)
    uploaded(storage, 1)
    pods.start(f"--cache-dir={mounted}", name="first").wait_for(1, VersionState.PUBLISHED)
    entries = mounted / "v1" / "entries"
    eventually(lambda: list(entries.glob("1-*")), what="the entry", within=30, every=0.1)
    pods.stop()
    subprocess.run(["mount", "-o", "remount,ro", mounted], check=True)

    second = pods.start(f"--cache-dir={mounted}", "--poll-interval=1", name="second")
    second.wait_for(1, VersionState.PUBLISHED)
    assert second.fetched() == 0
    assert "Read-only file system" in state(second, CacheState.READ_ONLY)
    uploaded(storage, 2)
    second.wait_for(2, VersionState.PUBLISHED)
    assert second.fetched() > 0


@pytest.mark.skipif(not shutil.which("fsfreeze"), reason="needs util-linux")
def test_a_file_system_that_does_not_answer_holds_up_no_version_and_is_used_again(
    storage: Storage, pods: Pods, mounted: Path, tmp_path: Path
) -> None:
    """A frozen one: whoever writes to it sleeps where nothing wakes it, as with a dead server."""
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(300 * MB)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, mounted], check=True)
    option = f"--cache-dir={mounted}"
    first = pods.start(option, "--poll-interval=1", name="first")
    state(first, CacheState.READY)
    subprocess.run(["fsfreeze", "--freeze", mounted], check=True)
    try:
        archive = uploaded(storage, 1)
        first.wait_for(1, VersionState.PUBLISHED)
        assert first.fetched() == len(archive)
        assert "has not answered" in state(first, CacheState.UNUSABLE)
        assert first.get("/livez")[0] == 200
    finally:
        subprocess.run(["fsfreeze", "--unfreeze", mounted], check=True)
    state(first, CacheState.READY, within=120)
    uploaded(storage, 2)
    first.wait_for(2, VersionState.PUBLISHED)
    eventually(
        lambda: list((mounted / "v1" / "entries").glob("2-*")),
        what="version 2 in the cache",
        within=30,
        every=0.1,
    )
    assert first.end() == 0


def test_a_cache_that_vanishes_is_done_without(
    storage: Storage, pods: Pods, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    program = pods.start(f"--cache-dir={cache}", "--poll-interval=1")
    state(program, CacheState.READY)
    shutil.rmtree(cache)
    uploaded(storage, 1)
    program.wait_for(1, VersionState.PUBLISHED)
    assert "No such file" in state(program, CacheState.UNUSABLE)


def test_once_waits_until_others_have_what_it_fetched(
    storage: Storage, pods: Pods, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    uploaded(storage, 1)
    assert pods.start(f"--cache-dir={cache}", "--once", name="init").process.wait(60) == 0
    assert list((cache / "v1" / "entries").glob("1-*"))
