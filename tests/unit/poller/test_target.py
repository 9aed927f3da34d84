"""The target file, as the kubelet writes it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from model_poller import target
from model_poller.target import TargetWatch
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path


class Volume:
    """A downward API volume: a link to a folder of data that is swapped as a whole."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.file = root / "target-version"
        self._count = 0

    def write(self, text: str) -> None:
        self._count += 1
        folder = self.root / f"..{self._count}"
        folder.mkdir()
        (folder / "target-version").write_text(text)
        link = self.root / "..data_tmp"
        link.symlink_to(folder.name)
        link.rename(self.root / "..data")
        if not self.file.is_symlink():
            self.file.symlink_to("..data/target-version")


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    return Volume(tmp_path)


def test_every_new_target_is_reported_once(volume: Volume) -> None:
    targets: list[int | None] = []
    watch = TargetWatch(volume.file, "", targets.append)
    for text in ("", "1", "1", "0002\n", "3"):
        volume.write(text)
        watch.look()
        watch.look()
    assert targets == [None, 1, 2, 3]


def test_the_environment_counts_while_the_file_is_empty_or_missing(volume: Volume) -> None:
    targets: list[int | None] = []
    watch = TargetWatch(volume.file, "7", targets.append)
    watch.look()
    volume.write("")
    watch.look()
    volume.write("8")
    watch.look()
    assert targets == [7, 8]


def test_what_is_no_number_is_told_and_changes_nothing(
    volume: Volume, caplog: pytest.LogCaptureFixture
) -> None:
    targets: list[int | None] = []
    watch = TargetWatch(volume.file, "", targets.append)
    volume.write("5")
    watch.look()
    volume.write("latest")
    with caplog.at_level(logging.ERROR):
        watch.look()
        watch.look()
    assert targets == [5]
    assert [r.getMessage() for r in caplog.records] == [
        f"the target 'latest' in {volume.file} is no version number; ignored"
    ]


def test_a_swapped_link_is_noticed_by_itself(volume: Volume) -> None:
    targets: list[int | None] = []
    watch = TargetWatch(volume.file, "", targets.append)
    volume.write("1")
    watch.start()
    assert targets == [1]
    volume.write("2")
    eventually(lambda: targets == [1, 2], what="the new target", within=10, every=0.01)
    watch.stop()


@pytest.mark.parametrize("notices", [True, False])
def test_a_new_target_is_noticed_with_the_kernels_notices_and_without(
    volume: Volume, monkeypatch: pytest.MonkeyPatch, notices: bool
) -> None:
    # Longer than this test waits: what it sees came by a notice.
    monkeypatch.setattr(target, "RELOOK_SECONDS", 60.0)
    if not notices:

        def used_up(_: Path) -> None:
            raise OSError(24, "Too many open files")

        monkeypatch.setattr(target, "FolderNotices", used_up)
    targets: list[int | None] = []
    volume.write("1")
    watch = TargetWatch(volume.file, "", targets.append)
    watch.start()
    eventually(lambda: targets == [1], what="the first target", within=10, every=0.01)
    for number in (2, 3):
        volume.write(str(number))
        eventually(
            lambda number=number: targets[-1] == number,  # type: ignore[misc]
            what=f"target {number}",
            within=10,
            every=0.01,
        )
    watch.stop()
    volume.write("4")
