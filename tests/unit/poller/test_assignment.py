"""What a pod is assigned, as the kubelet writes it."""

from __future__ import annotations

import logging
import shutil
from typing import TYPE_CHECKING

import pytest

from model_poller.status import AssignmentStatus, GoldenTask, RolloutTask, encode_task
from model_poller.volume import assignment
from model_poller.volume.assignment import Assignment, AssignmentWatch
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path


class Volume:
    """A downward API volume: a link to a folder of data that is swapped as a whole."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.file = root / "target-version"
        self._count = 0

    def write(self, text: str, **others: str) -> None:
        """The target, and other texts by their names."""
        self._count += 1
        folder = self.root / f"..{self._count}"
        folder.mkdir()
        (folder / "target-version").write_text(text)
        for name, other in others.items():
            (folder / (name if name == "rollout" else f"{name}-versions")).write_text(other)
        link = self.root / "..data_tmp"
        link.symlink_to(folder.name)
        link.rename(self.root / "..data")
        if not self.file.is_symlink():
            self.file.symlink_to("..data/target-version")


def watching(
    volume: Volume, targets: list[int | None], fallback: AssignmentStatus = assignment.NOTHING
) -> AssignmentWatch:
    return AssignmentWatch(volume.file, fallback, lambda given: targets.append(given.target))


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    return Volume(tmp_path)


def test_every_new_target_is_reported_once(volume: Volume) -> None:
    targets: list[int | None] = []
    watch = watching(volume, targets)
    for text in ("", "1", "1", "0002\n", "3"):
        volume.write(text)
        watch.look()
        watch.look()
    assert targets == [None, 1, 2, 3]


def test_the_environment_counts_while_the_file_is_empty_or_missing(volume: Volume) -> None:
    targets: list[int | None] = []
    watch = watching(volume, targets, AssignmentStatus(target="7"))
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
    watch = watching(volume, targets)
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
    watch = watching(volume, targets)
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
    monkeypatch.setattr(assignment, "RELOOK_SECONDS", 60.0)
    if not notices:

        def used_up(_: Path) -> None:
            raise OSError(24, "Too many open files")

        monkeypatch.setattr(assignment, "FolderNotices", used_up)
    targets: list[int | None] = []
    volume.write("1")
    watch = watching(volume, targets)
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


def test_the_lists_beside_the_target_are_read_with_it(volume: Volume) -> None:
    given: list[Assignment] = []
    watch = AssignmentWatch(volume.file, assignment.NOTHING, given.append)
    volume.write("4", served="4,2\n", quarantined="3@f3,5@f5")
    watch.look()
    volume.write("4", served="4,2", quarantined="")
    watch.look()
    assert [(g.target, g.served, g.quarantined) for g in given] == [
        (4, (4, 2), {(3, "f3"), (5, "f5")}),
        (4, (4, 2), frozenset()),
    ]
    assert given[0].texts == AssignmentStatus(target="4", served="4,2", quarantined="3@f3,5@f5")


def test_what_a_rollout_asks_comes_with_the_target_and_ends_with_its_text(volume: Volume) -> None:
    given: list[Assignment] = []
    watch = AssignmentWatch(volume.file, assignment.NOTHING, given.append)
    task = RolloutTask(version=5, key="k1", golden=GoldenTask(absolute=0.5), retry="5@f5#t")
    volume.write("4", rollout=f"{encode_task(task)}\n")
    watch.look()
    volume.write("4", rollout="")
    watch.look()
    assert [(g.target, g.rollout) for g in given] == [(4, task), (4, None)]
    assert given[0].texts == AssignmentStatus(target="4", rollout=encode_task(task))


def test_a_rollout_asks_before_the_files_have_told_what_to_serve(volume: Volume) -> None:
    """A pod that just started serves what its environment says, which knows of no rollout."""
    given: list[Assignment] = []
    watch = AssignmentWatch(volume.file, AssignmentStatus(target="7", served="7,6"), given.append)
    task = RolloutTask(version=8)
    volume.write("", rollout=encode_task(task))
    watch.look()
    volume.write("")
    watch.look()
    assert [(g.target, g.served, g.rollout) for g in given] == [
        (7, (7, 6), task),
        (7, (7, 6), None),
    ]


@pytest.mark.parametrize("text", ["{", "5", '{"key":"k"}', '{"version":-1}', "[" * 60_000])
def test_a_rollouts_text_that_can_not_be_read_is_told_and_asks_nothing(
    volume: Volume, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    given: list[Assignment] = []
    watch = AssignmentWatch(volume.file, assignment.NOTHING, given.append)
    volume.write("4", rollout=text)
    watch.look()
    watch.look()
    assert [(g.target, g.rollout) for g in given] == [(4, None)]
    assert [r.getMessage() for r in caplog.records] == [
        f"what {volume.root / 'rollout'} asks can't be read; ignored"
    ]


def test_an_older_operators_target_comes_without_lists_whatever_the_environment_has(
    volume: Volume,
) -> None:
    fallback = AssignmentStatus(target="3", served="3,2", quarantined="1@f1")
    assert assignment.read(volume.file, fallback) == fallback
    volume.write("4")
    assert assignment.read(volume.file, fallback) == AssignmentStatus(target="4")


def test_what_failed_elsewhere_is_known_before_there_is_a_target(volume: Volume) -> None:
    volume.write("", quarantined="1@f1")
    given = assignment.parse(assignment.read(volume.file, AssignmentStatus(target="9")))
    assert (given.target, given.quarantined) == (None, frozenset({(1, "f1")}))


@pytest.mark.parametrize("text", [",", "x", "4;2", "-1", "9" * 5000, "\N{SUPERSCRIPT TWO}"])
def test_of_the_lists_what_can_not_be_understood_is_left_out(text: str) -> None:
    given = assignment.parse(
        AssignmentStatus(target="4", served=f"4,{text}", quarantined=f"{text}@f,3@f3")
    )
    assert (given.served, given.quarantined) == ((4,), frozenset({(3, "f3")}))


def test_all_texts_are_of_one_moment_although_the_link_is_swapped_between_them(
    volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume.write("2", served="2", quarantined="3@f3")
    whole = assignment._text
    swaps = [lambda: volume.write("4", served="4,2", quarantined="")]

    def swapped(file: Path) -> str:
        text = whole(file)
        if swaps:
            swaps.pop()()
        return text

    monkeypatch.setattr(assignment, "_text", swapped)
    assert assignment.read(volume.file, assignment.NOTHING) == AssignmentStatus(
        target="4", served="4,2"
    )


@pytest.mark.parametrize(
    ("target", "quarantined", "served"),
    [("4", "", (4, 2)), ("5", "", ()), ("5", "5@f5", (4, 2)), ("2", "", (4, 2)), ("", "", ())],
)
def test_a_list_without_the_target_counts_only_where_the_target_failed(
    target: str, quarantined: str, served: tuple[int, ...]
) -> None:
    texts = AssignmentStatus(target=target, served="4,2", quarantined=quarantined)
    assert assignment.parse(texts).served == served


def test_the_last_word_counts_while_the_file_is_empty_gone_or_unreadable(
    volume: Volume, caplog: pytest.LogCaptureFixture
) -> None:
    """A pod that was started to serve version 7 is not told so again."""
    targets: list[int | None] = []
    watch = watching(volume, targets, AssignmentStatus(target="7", served="7"))
    watch.look()
    volume.write("8")
    watch.look()
    volume.write("")
    watch.look()
    (volume.root / "..data").unlink()
    watch.look()
    (volume.root / "..data").mkdir()
    (volume.root / "..data" / "target-version").mkdir()
    watch.look()
    watch.look()
    (volume.root / "..data" / "target-version").rmdir()
    (volume.root / "..data" / "target-version").write_bytes(b"\xff")
    watch.look()
    (volume.root / "..data" / "target-version").write_bytes(b"9" * (assignment.MAX_TEXT + 1))
    watch.look()
    assert targets == [7, 8]
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [text.partition(";")[0].partition("target-version ")[2] for text in told] == [
        "can't be read: Is a directory",
        "is no text",
        f"is longer than {assignment.MAX_TEXT} bytes",
    ]


def test_a_file_that_can_not_be_read_at_the_start_is_not_replaced_by_the_environment(
    volume: Volume,
) -> None:
    targets: list[int | None] = []
    volume.write("7")
    (volume.root / "..data" / "target-version").unlink()
    (volume.root / "..data" / "target-version").mkdir()
    watch = watching(volume, targets, AssignmentStatus(target="7"))
    watch.start()
    assert targets == []
    volume.write("8")
    eventually(lambda: targets == [8], what="the target", within=10, every=0.01)
    watch.stop()


def test_a_folder_that_is_replaced_while_it_is_read_is_read_anew(
    volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kubelet swaps its link, and deletes the folder that this led to before."""
    volume.write("2", served="2")
    whole = assignment._text
    count = [2]

    def late(file: Path) -> str:
        if count[0] < 6:
            count[0] += 1
            volume.write(str(count[0]), served=str(count[0]))
            shutil.rmtree(file.parent, ignore_errors=True)
        return whole(file)

    monkeypatch.setattr(assignment, "_text", late)
    targets: list[int | None] = []
    watching(volume, targets, AssignmentStatus(target="1")).look()
    assert targets == [6]


def test_a_folder_that_never_rests_changes_nothing(
    volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume.write("2")
    targets: list[int | None] = []
    watch = watching(volume, targets, AssignmentStatus(target="1"))
    watch.look()
    whole = assignment._text

    def late(file: Path) -> str:
        volume.write("3")
        shutil.rmtree(file.parent, ignore_errors=True)
        return whole(file)

    monkeypatch.setattr(assignment, "_text", late)
    watch.look()
    assert targets == [2]


@pytest.mark.parametrize(
    ("texts", "variable"),
    [
        (AssignmentStatus(target="v2"), "TARGET_VERSION"),
        (AssignmentStatus(target="2.0"), "TARGET_VERSION"),
        (AssignmentStatus(target="latest"), "TARGET_VERSION"),
        (AssignmentStatus(target="2,1"), "TARGET_VERSION"),
        (AssignmentStatus(target="-1"), "TARGET_VERSION"),
        (AssignmentStatus(target="2", served="2;1"), "SERVED_VERSIONS"),
        (AssignmentStatus(target="2", quarantined="1"), "QUARANTINED_VERSIONS"),
        (AssignmentStatus(target="2", quarantined="v1@f"), "QUARANTINED_VERSIONS"),
        (AssignmentStatus(target="0002", served="2, 1,", quarantined="3@f3,4@f4"), None),
        (assignment.NOTHING, None),
    ],
)
def test_what_the_environment_assigns_is_understood_or_named(
    texts: AssignmentStatus, variable: str | None
) -> None:
    fault = assignment.fault(texts)
    assert (fault and fault[0]) == variable
