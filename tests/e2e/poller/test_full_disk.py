"""A model volume that becomes full: a small file system in memory."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest

from model_poller.bring import Bringer
from model_poller.errors import InsufficientDiskError
from model_poller.status import VersionReason, VersionState
from model_poller.versions import discover
from model_poller.volume.store import RESERVE_BYTES, Store
from tests.support.waiting import eventually
from tests.unit.poller.doubles import MemorySource, below, model, tarred, zipped
from tests.unit.poller.program import Supervised

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from demo.storage import Storage
    from model_poller.status import VersionStatus
    from tests.support.pollers import Pods
    from tests.unit.poller.program import Program

pytestmark = pytest.mark.e2e

MB = 1_000_000
VOLUME_BYTES = RESERVE_BYTES + 60 * MB


@contextmanager
def mounted(pods: Pods, name: str = "pod") -> Iterator[Path]:
    """The volume of a pod, as a mount of its own."""
    folder = pods.base(name).parent
    folder.mkdir(parents=True)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={VOLUME_BYTES}", "tmpfs", folder], check=True
    )
    yield folder
    pods.stop()
    subprocess.run(["umount", folder], check=True)


@pytest.fixture
def volume(pods: Pods) -> Iterator[Path]:
    with mounted(pods) as folder:
        yield folder


@pytest.fixture
def three(pods: Pods) -> Iterator[tuple[str, ...]]:
    """The names of three pods, each with a volume of its own."""
    names = ("first", "second", "third")
    with ExitStack() as stack:
        for name in names:
            stack.enter_context(mounted(pods, name))
        yield names


def fill(volume: Path, size: int) -> Path:
    ballast = volume / "ballast"
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size)
    return ballast


def version(program: Program, number: int) -> VersionStatus | None:
    return next((v for v in program.status().versions if v.version == number), None)


def wait_until_short_of_disk(program: Program, number: int) -> None:
    def short() -> bool:
        found = version(program, number)
        return found is not None and found.reason is VersionReason.INSUFFICIENT_DISK

    eventually(short, what="InsufficientDisk", within=30, every=0.05)


@pytest.mark.runbook("disk-full-everywhere")
def test_a_version_without_room_waits_and_the_one_before_is_untouched(
    storage: Storage, pods: Pods, volume: Path
) -> None:
    storage.bucket.upload("imagenet/1.zip", zipped(below("1", model(os.urandom(5 * MB)))))
    program = pods.start("--poll-interval=1")
    program.wait_for(1, VersionState.PUBLISHED)
    ballast = fill(volume, 40 * MB)
    second = model(os.urandom(15 * MB))

    storage.bucket.upload("imagenet/2.zip", zipped(below("2", second)))
    wait_until_short_of_disk(program, 2)

    told = version(program, 2)
    assert told is not None
    assert "bytes are needed" in told.message
    assert (pods.base() / "1" / "saved_model.pb").exists()
    ballast.unlink()
    program.wait_for(2, VersionState.PUBLISHED)
    assert (pods.base() / "2" / "saved_model.pb").read_bytes() == second["saved_model.pb"]


@pytest.mark.runbook("disk-full-everywhere")
def test_where_no_replica_has_room_all_serve_on_and_retaining_fewer_versions_makes_it(
    storage: Storage, pods: Pods, three: tuple[str, ...]
) -> None:
    def start(name: str, retain: int) -> Program:
        (pods.base(name).parent.parent / "target").write_text("2")
        target = f"--target-file={pods.base(name).parent.parent / 'target'}"
        options = (f"--retain-versions={retain}", target, "--poll-interval=1")
        return pods.start(*options, name=name)

    def tell(name: str, number: int) -> None:
        (pods.base(name).parent.parent / "target").write_text(str(number))

    for number in (1, 2):
        files = model(os.urandom(20 * MB))
        for part, content in below(f"imagenet/{number}", files).items():
            storage.bucket.upload(part, content)
    programs = [start(name, 3) for name in three]
    for program, name in zip(programs, three, strict=True):
        program.wait_for(2, VersionState.PUBLISHED)
        tell(name, 1)
        program.wait_for(1, VersionState.PUBLISHED)
        tell(name, 2)
        program.wait_for(2, VersionState.PUBLISHED)
    third = model(os.urandom(25 * MB))
    for part, content in below("imagenet/3", third).items():
        storage.bucket.upload(part, content)

    for program in programs:
        wait_until_short_of_disk(program, 3)
        told = version(program, 3)
        assert told is not None
        assert "retain fewer versions" in told.message
    assert all((pods.base(name) / "2" / "saved_model.pb").exists() for name in three)

    # One after the other, as the Deployment replaces them.
    for program, name in zip(programs, three, strict=True):
        assert program.end() == 0
        fewer = start(name, 1)
        fewer.wait_for(3, VersionState.FETCHED)
        assert (pods.base(name) / "2" / "saved_model.pb").exists(), "until the other one serves"
        tell(name, 3)
        fewer.wait_for(3, VersionState.PUBLISHED)
        assert (pods.base(name) / "3" / "saved_model.pb").read_bytes() == third["saved_model.pb"]


def test_a_volume_that_others_fill_in_the_middle_of_a_fetch_is_waited_for(
    storage: Storage, pods: Pods, volume: Path
) -> None:
    first = model(os.urandom(5 * MB))
    storage.bucket.upload("imagenet/1.zip", zipped(below("1", first)))
    program = pods.start("--poll-interval=1", "--max-bandwidth=8000000")
    program.wait_for(1, VersionState.PUBLISHED)

    storage.bucket.upload("imagenet/2.tar.gz", tarred(model(os.urandom(20 * MB))))
    program.wait_for(2, VersionState.FETCHING)
    free = os.statvfs(volume)
    ballast = fill(volume, free.f_bavail * free.f_frsize - 2 * MB)
    wait_until_short_of_disk(program, 2)

    assert (pods.base() / "1" / "saved_model.pb").read_bytes() == first["saved_model.pb"]
    assert not (pods.base() / "2").exists()
    ballast.unlink()
    program.wait_for(2, VersionState.PUBLISHED)


def test_a_volume_without_a_free_byte_stops_neither_a_start_nor_what_makes_room(
    storage: Storage, pods: Pods, volume: Path
) -> None:
    for number in (1, 2):
        storage.bucket.upload(f"imagenet/{number}.zip", zipped(below(str(number), model())))
    options = ("--poll-interval=1", f"--server-config-dir={volume}/.server")
    target = volume.parent / "target"
    target.write_text("2")
    told = (*options, f"--target-file={target}", "--retain-versions=3")
    program = pods.start(*told)
    program.wait_for(2, VersionState.PUBLISHED)
    target.write_text("1")
    program.wait_for(1, VersionState.PUBLISHED)
    assert program.end() == 0
    free = os.statvfs(volume)
    fill(volume, free.f_bavail * free.f_frsize)
    with pytest.raises(OSError, match="No space left"):
        (volume / "more").write_bytes(b"x")
    (volume / "more").unlink()

    program = pods.start(*told)
    program.wait_for(1, VersionState.PUBLISHED)
    storage.bucket.delete("imagenet/2.zip")
    eventually(lambda: version(program, 2) is None, what="version 2 to go", within=30, every=0.05)
    assert not list((volume / ".retained").iterdir())
    assert program.end() == 0


@pytest.fixture
def few_inodes(tmp_path: Path) -> Iterator[Store]:
    """A volume with much room, and inodes for 200 files."""
    folder = tmp_path / "volume"
    folder.mkdir()
    options = f"size={VOLUME_BYTES},nr_inodes=200"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)
    store = Store(folder / "imagenet", folder)
    store.prepare()
    yield store
    subprocess.run(["umount", "-l", folder], check=True)


def fill_inodes(volume: Path, left: int) -> Path:
    ballast = volume / "ballast"
    ballast.mkdir()
    for number in range(os.statvfs(volume).f_favail - left):
        (ballast / str(number)).touch()
    return ballast


@pytest.mark.parametrize("left", [0, 1, 5])
def test_a_new_volume_without_room_for_what_a_start_writes_is_waited_for(
    few_inodes: Store, tmp_path: Path, left: int
) -> None:
    volume = few_inodes.base.parent
    for folder in volume.iterdir():
        folder.rmdir()
    (tmp_path / "bucket").mkdir()
    (tmp_path / "bucket/1.zip").write_bytes(zipped(below("1", model())))
    ballast = fill_inodes(volume, left)
    program = Supervised(
        tmp_path,
        *(f"--storage-uri=file://{tmp_path}/bucket", "--server-address=127.0.0.1:9"),
        *(f"--models-dir={volume}", "--model-name=imagenet", "--poll-interval=1"),
    )
    try:

        def told() -> bool:
            log = program.log.read_text()
            return "full" in log if "listening" in log else "No space left on device" in log

        eventually(told, what="a word of the lack of room", within=30, every=0.05)
        if "listening" in program.log.read_text():
            eventually(lambda: program.status().source.state == "Ready", what="a look", within=30)
            assert program.get("/livez")[0] == 200
        shutil.rmtree(ballast)
        program.wait_for(1, VersionState.PUBLISHED)
        assert program.process.poll() is None
    finally:
        program.kill()


def test_a_fetch_that_finds_no_inode_at_all_is_told_so(few_inodes: Store) -> None:
    source = MemorySource()
    source.put("1.zip", zipped(model()))
    stored = discover(source.survey(), {}, files=source.files)[1]
    fill_inodes(few_inodes.base.parent, 0)
    with pytest.raises(InsufficientDiskError, match="17 inodes are needed and 0 of 200 are free"):
        Bringer(source, few_inodes).bring(
            stored, stopped=threading.Event(), progress=lambda _: None
        )


@pytest.mark.parametrize("form", ["folder", "zip", "tar"])
def test_what_lacks_inodes_is_told_so_and_not_fetched_again_and_again(
    few_inodes: Store, form: str
) -> None:
    files = {**model(), **{f"assets/{number}": b"x" for number in range(400)}}
    source = MemorySource()
    if form == "folder":
        source.put_all(below("1", files))
    else:
        source.put(f"1.{form}", zipped(files) if form == "zip" else tarred(files, "w"))
    found = discover(source.survey(), {}, files=source.files)
    stored = discover(
        source.survey(), {n: v.fingerprint for n, v in found.items()}, files=source.files
    )[1]
    bringer = Bringer(source, few_inodes)

    def bring() -> str:
        with pytest.raises(InsufficientDiskError, match="inodes are needed and") as told:
            bringer.bring(stored, stopped=threading.Event(), progress=lambda _: None)
        return str(told.value)

    bring()
    read = len(source.requests)
    for _ in range(3):
        assert "200 are free" in bring()
    assert len(source.requests) == read
    subprocess.run(
        ["mount", "-o", f"remount,size={VOLUME_BYTES},nr_inodes=2000", few_inodes.base.parent],
        check=True,
    )
    bringer.bring(stored, stopped=threading.Event(), progress=lambda _: None)
    assert few_inodes.scan().complete == {1}
    if form != "folder":
        assert len(source.requests) == read
