"""The whole poller on a mounted volume that a trainer writes to."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from model_poller.status import VersionReason, VersionState
from tests.support.waiting import eventually
from tests.unit.poller.doubles import below, model, tarred
from tests.unit.poller.program import Program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from model_poller.status import VersionStatus

pytestmark = pytest.mark.e2e

FILES = model(b"weights" * 10_000, shards=2)
MARKER = "--complete-marker=DONE"


@pytest.fixture
def claim(tmp_path: Path) -> Path:
    folder = tmp_path / "claim/imagenet"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def start(claim: Path, tmp_path: Path) -> Iterator[Callable[..., Program]]:
    started: list[Program] = []

    def begin(*more: str) -> Program:
        started.append(
            Program(
                tmp_path,
                "--storage-uri=pvc://models/imagenet",
                f"--source-dir={claim.parent}",
                f"--models-dir={tmp_path}/pod",
                "--model-name=imagenet",
                "--server-address=127.0.0.1:9",
                "--poll-interval=0.3",
                *more,
            )
        )
        return started[-1]

    yield begin
    for program in started:
        program.kill()


def write(claim: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        path = claim / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def version(program: Program, number: int) -> VersionStatus | None:
    return next((v for v in program.status().versions if v.version == number), None)


def test_a_folder_is_shown_by_a_link_and_nothing_is_copied(
    start: Callable[..., Program], claim: Path, tmp_path: Path
) -> None:
    program = start(MARKER)
    write(claim, below("0001", {**FILES, "DONE": b""}))
    program.wait_for(1, VersionState.PUBLISHED)
    shown = tmp_path / "pod/imagenet/1"
    assert shown.is_symlink()
    assert shown.resolve() == claim / "0001"
    write(claim, {"2.tar.gz": tarred(FILES)})
    program.wait_for(2, VersionState.PUBLISHED)
    unpacked = tmp_path / "pod/imagenet/2"
    assert not unpacked.is_symlink()
    assert (unpacked / "saved_model.pb").read_bytes() == FILES["saved_model.pb"]


def test_a_version_that_is_still_written_is_not_taken(
    start: Callable[..., Program], claim: Path, tmp_path: Path
) -> None:
    """A trainer appends to a file for longer than a listing takes to be called settled."""
    program = start()
    *others, last = FILES
    write(claim, below("1", {name: FILES[name] for name in others}))
    with (claim / "1" / last).open("wb", buffering=0) as growing:
        growing.write(FILES[last][:-1])

        def refused() -> bool:
            found = version(program, 1)
            return found is not None and found.reason is VersionReason.MISSING_VARIABLES

        eventually(refused, what="the file that is too short", within=30, every=0.05)
        assert list((tmp_path / "pod/imagenet").iterdir()) == []
        growing.write(FILES[last][-1:])
    program.wait_for(1, VersionState.PUBLISHED)
    assert (tmp_path / "pod/imagenet/1" / last).read_bytes() == FILES[last]


def test_a_deletion_is_mirrored_but_never_that_of_the_served_version(
    start: Callable[..., Program], claim: Path, tmp_path: Path
) -> None:
    program = start(MARKER, "--retain-versions=5")
    for number in (1, 2, 3):
        write(claim, below(str(number), {**FILES, "DONE": b""}))
        program.wait_for(number, VersionState.PUBLISHED)
    shutil.rmtree(claim / "1")
    eventually(lambda: version(program, 1) is None, what="version 1 to go", within=30, every=0.05)
    (claim / "3").rename(claim / "hidden")
    eventually(
        lambda: not program.status().versions[0].in_source,
        what="the deletion to be seen",
        within=30,
        every=0.05,
    )
    assert [v.version for v in program.status().versions] == [3, 2]
    assert (tmp_path / "pod/imagenet/3").is_symlink()
