"""A whole poller: what it does and tells from upload to AVAILABLE, and when things fail."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

import pytest

from model_poller.errors import AccessDeniedError, BucketNotFoundError, UnreachableError
from model_poller.planner import Policy
from model_poller.status import (
    AssignmentStatus,
    SourceReason,
    SourceState,
    VersionReason,
    VersionState,
    decode,
    encode,
)
from model_poller.versions import MAX_VERSION, discover
from model_poller.volume.assignment import parse
from tests.unit.poller.doubles import below, graph, model, tarred, zipped
from tests.unit.poller.world import ALONE, TOLD, World

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def pod(tmp_path: Path) -> World:
    return World(tmp_path, TOLD)


def archive(version: int) -> bytes:
    return zipped(below(f"{version:04d}", model(b"%d" % version)))


def test_an_upload_is_served_and_the_next_one_replaces_it(world: World) -> None:
    world.source.put("0001.zip", archive(1))
    assert world.settle().active_version == 1
    world.source.put_all(below("2", model(b"2")))
    status = world.settle()
    assert status.active_version == 2
    assert [(v.version, v.state) for v in status.versions] == [
        (2, VersionState.AVAILABLE),
        (1, VersionState.RETIRED),
    ]
    assert all(v.in_source and v.bytes_done == v.bytes_total > 0 for v in status.versions)


@pytest.mark.parametrize("policy", [ALONE, TOLD], ids=["alone", "told"])
def test_a_load_of_ten_minutes_is_waited_for_and_the_way_back_takes_no_download(
    tmp_path: Path, policy: Policy
) -> None:
    world = World(tmp_path, policy)
    for number in (1, 2):
        world.source.put(f"{number}.zip", archive(number))
        world.server.slow = {number}
        world.tell(number)
        # The first comes up with its server, the second beside one that answers.
        status = world.settle(100, seconds=6.0)
        assert sorted(world.base()) == [str(known) for known in range(1, number + 1)]
        assert status.active_version == (number - 1 or None)
        loading = world.version(number)
        assert (loading.state, loading.reason) == (VersionState.PUBLISHED, None)
        world.server.slow = set()
        world.server.states[number] = ("AVAILABLE", "")
        assert world.settle().active_version == number
    assert world.retained() == ["1"]
    # The store has nothing any more.
    world.source.objects.clear()
    if policy is TOLD:
        world.tell(1)
        assert world.settle().active_version == 1


def test_a_pod_fetches_at_once_and_publishes_when_told(pod: World) -> None:
    pod.source.put("0001.zip", archive(1))
    status = pod.settle()
    assert pod.version(1).state is VersionState.FETCHED
    assert status.target is None
    assert pod.base() == {}
    assert not pod.poller.has_published()
    pod.tell(1)
    pod.step()
    assert pod.base().keys() == {"1"}
    assert pod.poller.has_published()
    assert pod.settle().target == 1
    assert pod.version(1).state is VersionState.AVAILABLE


def test_a_rollback_takes_no_download(pod: World) -> None:
    for version in (1, 2):
        pod.source.put(f"{version}.zip", archive(version))
        pod.tell(version)
        pod.settle()
    reads = len(pod.source.requests)
    pod.tell(1)
    assert pod.settle().active_version == 1
    assert pod.base().keys() == {"1"}
    assert len(pod.source.requests) == reads


def test_a_target_that_is_not_there_is_told(pod: World) -> None:
    pod.source.put("1.zip", archive(1))
    pod.tell(9)
    pod.settle()
    missing = pod.version(9)
    assert missing.state is VersionState.INCOMPLETE
    assert "version 9 is not in the source" in missing.message


def test_a_version_that_the_server_refuses_is_quarantined_until_it_changes(world: World) -> None:
    world.source.put("1.zip", archive(1))
    world.settle()
    world.server.bad = {2}
    world.source.put("2.zip", archive(2))
    status = world.settle()
    assert status.active_version == 1
    bad = world.version(2)
    assert bad.state is VersionState.QUARANTINED
    assert bad.reason is VersionReason.LOAD_FAILED
    assert "bad graph" in bad.message
    assert world.base().keys() == {"1"}

    world.server.bad = set()
    world.source.put("2.zip", archive(2))
    assert world.settle(turns=40).active_version == 2


class TestTheClockOfALoad:
    """Runs while the model server is there to load, and is nobody else's."""

    @pytest.fixture(params=[ALONE, TOLD], ids=["alone", "told"])
    def world(self, tmp_path: Path, request: pytest.FixtureRequest) -> World:
        return World(tmp_path, request.param)

    def test_does_not_run_before_the_server_is_there(self, world: World) -> None:
        world.server.up = False
        world.source.put("1.zip", archive(1))
        world.tell(1)
        world.settle(turns=10, seconds=600)
        assert world.version(1).state is VersionState.PUBLISHED
        world.server.up = True
        assert world.settle().active_version == 1

    def test_does_not_run_while_the_server_is_away(self, world: World) -> None:
        world.source.put("1.zip", archive(1))
        world.tell(1)
        world.settle()
        world.server.slow = {2}
        world.source.put("2.zip", archive(2))
        world.tell(2)
        world.settle()
        assert world.version(2).state is VersionState.PUBLISHED
        world.server.up = False
        world.settle(turns=10, seconds=600)
        world.server.up, world.server.slow = True, set()
        world.server.restart()
        assert world.settle().active_version == 2

    def test_does_not_run_while_a_restarted_poller_finds_no_server(self, world: World) -> None:
        world.source.put("1.zip", archive(1))
        world.tell(1)
        world.server.slow = {1}
        world.settle()
        world.server.up = False
        world.start()
        world.settle(turns=10, seconds=600)
        world.server.up, world.server.slow = True, set()
        world.server.restart()
        assert world.settle().active_version == 1

    def test_ends_a_load_that_does_not_end(self, world: World) -> None:
        world.source.put("1.zip", archive(1))
        world.tell(1)
        world.settle()
        world.server.slow = {2}
        world.source.put("2.zip", archive(2))
        world.tell(2)
        world.settle(turns=25, seconds=60)
        assert world.version(2).state is VersionState.PUBLISHED
        world.settle(turns=12, seconds=60)
        assert world.version(2).reason is VersionReason.LOAD_TIMEOUT
        assert world.status().active_version == 1


def test_alone_a_version_that_ends_the_server_again_and_again_makes_room_for_the_one_before(
    world: World,
) -> None:
    world.source.put("1.zip", archive(1))
    world.settle()
    world.server.deadly = {2}
    world.source.put("2.zip", archive(2))
    world.settle(turns=10, seconds=20)
    assert world.status().active_version is None
    world.settle(turns=100, seconds=20)
    assert world.status().active_version == 1
    assert world.version(2).state is VersionState.QUARANTINED
    assert world.version(2).reason is VersionReason.LOAD_TIMEOUT
    assert "went away" in world.version(2).message


def test_alone_the_only_version_stays_whatever_it_does_to_the_server(world: World) -> None:
    world.source.put("1.zip", archive(1))
    world.server.slow = {1}
    world.settle()
    world.server.up = False
    world.settle(turns=50, seconds=600)
    assert world.base().keys() == {"1"}


def test_a_disk_that_takes_no_notes_stops_nothing_that_acts(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(5, "Input/output error")

    world.source.put("1.zip", archive(1))
    with monkeypatch.context() as patch, caplog.at_level(logging.ERROR):
        patch.setattr(world.store, "prove", refuse)
        assert world.settle().active_version == 1
        world.source.put("2.zip", archive(2))
        assert world.settle().active_version == 2
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == ["prove failed"]
    world.settle()
    assert world.store.scan().published[2].proven


def test_a_quarantine_outlives_a_restart(world: World) -> None:
    world.source.put("1.zip", archive(1))
    world.source.put("2.zip", b"no archive")
    world.settle()
    reads = len(world.source.requests)
    world.start()
    world.settle()
    assert world.version(2).state is VersionState.QUARANTINED
    assert len(world.source.requests) == reads


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"no archive", VersionReason.BAD_ARCHIVE),
        (archive(2)[:-30], VersionReason.BAD_ARCHIVE),
        (zipped({"../2/saved_model.pb": b"x"}), VersionReason.UNSAFE_ARCHIVE),
        (zipped({"2/readme": b"x"}), VersionReason.MISSING_SAVED_MODEL),
        (zipped({"2/saved_model.pb": graph()}), VersionReason.MISSING_VARIABLES),
        (archive(1), VersionReason.BAD_ARCHIVE),
        (zipped({**model(), "saved_model.pb": graph()[:-9]}), VersionReason.MISSING_SAVED_MODEL),
        (
            zipped({**model(), "variables/variables.index": b"x"}),
            VersionReason.MISSING_VARIABLES,
        ),
    ],
)
def test_a_broken_archive_is_told_and_the_version_before_goes_on(
    world: World, content: bytes, reason: VersionReason
) -> None:
    world.source.put("1.zip", archive(1))
    world.settle()
    world.source.put("2.zip", content)
    assert world.settle().active_version == 1
    assert world.version(2).reason is reason
    assert "2.zip" in world.version(2).message
    assert world.staged() == [] or all(name.startswith("trash") for name in world.staged())


def test_a_folder_that_lacks_its_variables_waits_for_them(world: World) -> None:
    """The graph says that it restores variables, whose upload has not begun."""
    world.source.put("1/saved_model.pb", graph())
    world.settle()
    waiting = world.version(1)
    assert waiting.state is VersionState.INCOMPLETE
    assert waiting.reason is VersionReason.MISSING_VARIABLES
    assert world.base() == {}
    reads = len(world.source.requests)
    world.settle()
    assert len(world.source.requests) == reads
    world.source.put_all(below("1", model()))
    assert world.settle().active_version == 1


@pytest.mark.parametrize("checksums", [True, False])
@pytest.mark.parametrize(
    "files",
    [
        {"saved_model.pb": b"<html>"},
        {"saved_model.pb": graph()[:-20]},
        {"saved_model.pb": bytes(2000)},
        {"variables/variables.index": b"junk"},
        {"variables/variables.data-00000-of-00001": b"w"},
    ],
)
def test_a_folder_with_a_file_that_can_not_be_read_is_judged_once(
    world: World, files: dict[str, bytes], checksums: bool
) -> None:
    world.source.checksums = checksums
    world.source.put_all(below("1", model()))
    world.settle()
    world.source.put_all(below("2", {**model(b"other"), **files}))
    states = []
    for _ in range(20):
        world.turn()
        states += [v.state for v in world.status().versions if v.version == 2]
        assert "2" not in world.base()
    first = states.index(VersionState.QUARANTINED)
    assert set(states[first:]) == {VersionState.QUARANTINED}
    assert world.status().active_version == 1
    assert next(iter(files)) in world.version(2).message
    world.start()
    world.settle()
    assert world.version(2).state is VersionState.QUARANTINED
    world.source.put_all(below("2", {name: model(b"other")[name] for name in files}))
    assert world.settle().active_version == 2


@pytest.mark.parametrize("name", ["saved_model.pb", "variables/variables.index"])
def test_a_folder_with_a_file_that_is_still_empty_is_not_fetched(world: World, name: str) -> None:
    world.source.put_all(below("1", {**model(), name: b""}))
    world.settle()
    assert world.version(1).state is VersionState.INCOMPLETE
    assert f"{name} is empty" in world.version(1).message
    assert world.source.requests == []
    world.source.put(f"1/{name}", model()[name])
    assert world.settle().active_version == 1


def test_a_text_graph_that_is_cut_does_not_take_the_place_of_a_good_version(world: World) -> None:
    whole = {name: body for name, body in model().items() if name != "saved_model.pb"}
    text = b"meta_graphs {\n  saver_def {\n  }\n}\n"
    world.source.put_all(below("1", {**whole, "saved_model.pbtxt": text}))
    assert world.settle().active_version == 1
    world.source.put_all(below("2", {**whole, "saved_model.pbtxt": text[:-2]}))
    assert world.settle().active_version == 1
    assert world.version(2).state is VersionState.QUARANTINED


def test_a_folder_with_a_name_that_leads_out_of_it_is_quarantined(world: World) -> None:
    world.source.put_all(below("1", {**model(), "assets/../../../evil": b"x"}))
    world.settle()
    assert world.version(1).reason is VersionReason.UNSAFE_ARCHIVE


def test_a_changed_object_under_a_served_number_is_told_and_not_loaded(world: World) -> None:
    world.source.put("1.zip", archive(1))
    world.settle()
    before, loads = world.base(), len(world.server.seen)
    world.source.put("1.zip", archive(1) + b"")
    world.settle()
    changed = world.version(1)
    assert changed.state is VersionState.AVAILABLE
    assert changed.reason is VersionReason.CHANGED_AFTER_PUBLISH
    assert (world.base(), len(world.server.seen)) == (before, loads)


def test_damaged_bytes_are_fetched_again_and_after_three_times_the_version_is_quarantined(
    world: World,
) -> None:
    world.source.put("1.zip", archive(1))
    world.source.corrupt = 2
    assert world.settle().active_version == 1
    world.source.put("2.zip", archive(2))
    world.source.corrupt = 1000
    reads = len(world.source.requests)
    world.settle(turns=40, seconds=10)
    assert world.version(2).reason is VersionReason.CHECKSUM_MISMATCH
    assert world.version(2).state is VersionState.QUARANTINED
    assert len(world.source.requests) == reads + 3
    world.source.corrupt = 0
    world.source.put("2.zip", archive(2))
    assert world.settle(turns=15, seconds=10).active_version == 2


def _half_an_upload(world: World) -> Callable[[], None]:
    world.source.put("2/saved_model.pb", graph())
    return lambda: world.source.put_all(below("2", model()))


def _a_forbidden_object(world: World) -> Callable[[], None]:
    world.source.put("2.zip", archive(2))
    world.source.refused["2.zip"] = AccessDeniedError("p lacks storage.objects.get")
    return world.source.refused.clear


def _an_object_that_can_not_be_read(world: World) -> Callable[[], None]:
    world.source.put("2.zip", archive(2))
    world.source.refused["2.zip"] = UnreachableError("503")
    return world.source.refused.clear


def _a_damaged_object(world: World) -> Callable[[], None]:
    world.source.put("2.zip", archive(2)[:-9])
    return lambda: world.source.put("2.zip", archive(2))


def _an_absurd_size(world: World) -> Callable[[], None]:
    world.source.put("2.zip", archive(2))
    world.source.sizes["2.zip"] = 10**30
    return world.source.sizes.clear


@pytest.mark.parametrize("checksums", [True, False])
@pytest.mark.parametrize("policy", [ALONE, TOLD], ids=["alone", "told"])
@pytest.mark.parametrize(
    "spoil",
    [
        _half_an_upload,
        _a_forbidden_object,
        _an_object_that_can_not_be_read,
        _a_damaged_object,
        _an_absurd_size,
    ],
)
def test_a_newest_version_that_can_not_be_had_holds_up_no_other_and_is_tried_again(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[World], Callable[[], None]],
    policy: Policy,
    checksums: bool,
) -> None:
    world = World(tmp_path, policy)
    world.source.checksums = checksums
    for version in (0, 1):
        world.source.put_all(below(str(version), model(b"%d" % version)))
    heal = spoil(world)
    world.settle(turns=20)
    assert world.version(1).state == ("Fetched" if policy is TOLD else "Available")
    assert world.version(2).reason is not None
    assert decode(encode(world.status())) == world.status()
    heal()
    world.settle(turns=20, seconds=30)
    assert world.version(2).state == ("Fetched" if policy is TOLD else "Available")
    assert not [path for path, _, _ in world.source.requests if path.startswith("0/")]


def test_what_came_of_a_version_is_not_thrown_away_for_another_while_the_source_is_away(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.source.put_all({"1.zip": archive(1), "2.zip": archive(2)})
    world.look()
    away = UnreachableError("down")
    world.source.refused = {"1.zip": away, "2.zip": away}
    world.source.error = away
    world.step()
    world.settle(turns=20, seconds=30)
    assert {path for path, _, _ in world.source.requests} == {"2.zip"}


class TestWithoutChecksumsOfTheStore:
    @pytest.fixture(autouse=True)
    def _without_checksums(self, world: World) -> None:
        world.source.checksums = False

    @pytest.mark.parametrize(
        "upload",
        [{"1.zip": archive(1)}, below("1", model())],
        ids=["archive", "folder"],
    )
    def test_damage_on_the_way_is_not_held_against_a_version(
        self, world: World, upload: dict[str, bytes]
    ) -> None:
        world.source.put_all(upload)
        # Each file of the first fetch, the graph and the index of the variables among them.
        world.source.corrupt = len(upload)
        assert world.settle().active_version == 1
        assert world.source.corrupt == 0

    def test_what_is_broken_twice_is_quarantined(self, world: World) -> None:
        world.source.put("1.zip", b"no archive")
        world.turn(seconds=0.1)
        doubted = world.version(1)
        assert doubted.state is VersionState.DISCOVERED
        assert doubted.reason is VersionReason.BAD_ARCHIVE
        assert "once more" in doubted.message
        world.settle()
        assert world.version(1).state is VersionState.QUARANTINED
        assert "once more" not in world.version(1).message
        reads = len(world.source.requests)
        world.settle()
        assert len(world.source.requests) == reads

    def test_what_is_incomplete_twice_waits_for_another_upload(self, world: World) -> None:
        world.source.put("1/saved_model.pb", graph())
        world.settle()
        assert world.version(1).state is VersionState.INCOMPLETE
        reads = len(world.source.requests)
        world.settle()
        assert len(world.source.requests) == reads


def test_a_fetch_that_fails_is_told_and_tried_again_ever_more_slowly(world: World) -> None:
    world.source.put("1.zip", archive(1))
    world.source.range_errors = [AccessDeniedError("p lacks storage.objects.get")] * 6
    world.turn()
    failing = world.version(1)
    assert failing.state is VersionState.DISCOVERED
    assert failing.reason is VersionReason.ACCESS_DENIED
    assert "storage.objects.get" in failing.message
    for _ in range(100):
        world.turn(seconds=0.1)
    assert 2 <= len(world.source.requests) <= 6
    assert world.settle(turns=20, seconds=30).active_version == 1
    assert world.version(1).reason is None


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (BucketNotFoundError("the bucket models does not exist"), SourceReason.BUCKET_NOT_FOUND),
        (AccessDeniedError("lacks storage.objects.list"), SourceReason.ACCESS_DENIED),
        (UnreachableError("listing failed"), SourceReason.UNREACHABLE),
    ],
)
def test_a_source_that_fails_is_told_and_what_is_served_goes_on(
    world: World, error: Exception, reason: SourceReason, caplog: pytest.LogCaptureFixture
) -> None:
    world.source.put("1.zip", archive(1))
    world.settle()
    world.source.error = error  # type: ignore[assignment]
    with caplog.at_level(logging.WARNING):
        status = world.settle()
    assert status.source.state is SourceState.FAILED
    assert status.source.reason is reason
    assert status.source.message == str(error)
    assert status.active_version == 1
    assert world.version(1).in_source
    assert [r.getMessage() for r in caplog.records] == [str(error)]
    world.source.error = None
    assert world.settle().source.state is SourceState.READY


def test_a_wiped_bucket_changes_nothing_that_is_served(world: World) -> None:
    for version in (1, 2):
        world.source.put(f"{version}.zip", archive(version))
        world.settle()
    world.source.objects.clear()
    status = world.settle()
    assert status.active_version == 2
    assert status.source.reason is SourceReason.NO_VERSION_FOUND
    assert [(v.version, v.in_source) for v in status.versions] == [(2, False), (1, False)]


def test_too_little_disk_is_told_and_heals_by_itself(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.source.put("1.zip", archive(1))
    world.settle()
    with monkeypatch.context() as full:
        full.setattr(world.store, "space", lambda: (1000, 10_000))
        world.source.put("2.zip", archive(2))
        assert world.settle().active_version == 1
        assert world.version(2).state is VersionState.DISCOVERED
        assert world.version(2).reason is VersionReason.INSUFFICIENT_DISK
    assert world.settle().active_version == 2


def test_a_disk_that_fills_up_under_a_download_leaves_nothing_behind(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.pwrite", full)
        world.source.put("1.zip", archive(1))
        world.turn()
    assert world.version(1).reason is VersionReason.INSUFFICIENT_DISK
    assert "became full" in world.version(1).message
    assert world.staged() == []
    assert world.settle(turns=20).active_version == 1


def test_a_volume_without_inodes_is_told_as_that(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    told = list(os.statvfs(world.root))
    with monkeypatch.context() as patch:
        patch.setattr("os.pwrite", full)
        patch.setattr("os.statvfs", lambda _: os.statvfs_result([*told[:5], 100, 0, 0, *told[8:]]))
        world.source.put("1.zip", archive(1))
        world.turn()
    assert "inodes are needed and 0 of 100 are free" in world.version(1).message
    assert world.settle(turns=20).active_version == 1


@pytest.mark.parametrize(
    ("number", "reason", "way_out"),
    [
        (28, VersionReason.INSUFFICIENT_DISK, "enlarge the volume or retain fewer versions"),
        (122, VersionReason.INSUFFICIENT_DISK, "enlarge the volume or retain fewer versions"),
        (30, VersionReason.FETCH_FAILED, "or give the pod another volume"),
    ],
)
def test_a_disk_that_can_not_be_written_is_told_once_and_tried_again(
    pod: World,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    number: int,
    reason: VersionReason,
    way_out: str,
) -> None:
    pod.source.put("1.zip", archive(1))
    pod.settle()
    with monkeypatch.context() as patch, caplog.at_level(logging.ERROR):

        def refuse(_: int) -> None:
            raise OSError(number, os.strerror(number))

        patch.setattr(pod.store, "publish", refuse)
        pod.tell(1)
        pod.settle()
    assert len(caplog.records) == 1
    assert "publish failed" in caplog.text
    told = pod.version(1)
    assert (told.state, told.reason) == (VersionState.FETCHED, reason)
    assert os.strerror(number) in told.message
    assert way_out in told.message
    assert pod.settle().active_version == 1
    assert pod.version(1).reason is None


def test_a_full_volume_stops_no_round(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the model server says is acted on and told, although it can't be written down."""
    for number in (1, 2, 3):
        world.source.put(f"{number}.zip", archive(number))
        world.settle()
    assert world.retained() == ["2"]
    world.source.put("4.zip", archive(4))
    world.server.bad = {4}
    world.look()
    world.step()
    assert 4 in world.store.scan().published

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("model_poller.volume.store.write_atomically", full)
        patched.setattr("pathlib.Path.mkdir", full)
        patched.setattr("os.mkdir", full)
        world.settle()
        assert world.version(4).reason is VersionReason.LOAD_FAILED
        assert world.base().keys() == {"3"}
        assert world.status().active_version == 3
        world.source.delete("2.zip")
        world.settle()
        assert world.retained() == []
    world.settle()
    world.start()
    world.settle()
    assert world.version(4).state is VersionState.QUARANTINED


def test_a_restart_comes_up_on_what_was_served_without_the_source(world: World) -> None:
    world.source.put("1.zip", archive(1))
    world.settle()
    world.source.error = UnreachableError("down")
    world.start()
    world.step()
    assert world.poller.has_published()
    assert world.settle().active_version == 1


def test_a_server_that_restarts_gets_back_what_it_served(world: World) -> None:
    world.source.put("1.zip", archive(1))
    world.settle()
    world.server.up = False
    status = world.settle(turns=10, seconds=600)
    assert not status.server_reachable
    assert world.version(1).state is VersionState.PUBLISHED
    world.server.up = True
    world.server.restart()
    assert world.settle().active_version == 1


def test_a_served_version_that_fails_after_a_restart_of_the_server_is_told_and_stays(
    world: World,
) -> None:
    world.source.put("1.zip", archive(1))
    world.settle()
    world.server.restart()
    world.server.bad = {1}
    world.settle(turns=40)
    failed = world.version(1)
    assert failed.state is VersionState.PUBLISHED
    assert failed.reason is VersionReason.LOAD_FAILED
    assert world.base().keys() == {"1"}


def test_several_versions_are_served_side_by_side(tmp_path: Path) -> None:
    world = World(tmp_path, Policy(follow_newest=True, num_versions=2, retain_versions=3))
    for version in (1, 2, 3):
        world.source.put(f"{version}.zip", archive(version))
        world.settle()
    assert world.base().keys() == {"2", "3"}
    assert world.version(1).state is VersionState.RETIRED


def test_only_the_newest_of_many_versions_are_told_beside_those_on_disk(world: World) -> None:
    for version in range(1, 81):
        world.source.put(f"{version}.zip", archive(version))
    status = world.settle()
    assert len(status.versions) == 51
    assert status.versions[0].version == 80


def test_numbers_up_to_the_servers_largest_are_served(world: World) -> None:
    for number in (9, MAX_VERSION):
        world.source.put(f"{number}.zip", zipped(model(b"%d" % number)))
    assert world.settle().active_version == MAX_VERSION
    assert list(world.base()) == [str(MAX_VERSION)]
    world.source.put(f"{MAX_VERSION + 1}.zip", archive(1))
    assert [v.version for v in world.settle().versions] == [MAX_VERSION, 9]


@pytest.mark.parametrize(
    "twin",
    [{"2.tar.gz": tarred(model())}, below("2", model()), {"0002.zip": archive(2)}],
    ids=["two archives", "a folder and an archive", "0002 and 2"],
)
def test_a_version_that_is_there_twice_is_told_and_taken_when_one_is_left(
    world: World, twin: dict[str, bytes]
) -> None:
    world.source.put("1.zip", archive(1))
    world.settle()
    world.source.put_all({"2.zip": archive(2), **twin})
    assert world.settle().active_version == 1
    doubled = world.version(2)
    assert doubled.state is VersionState.INCOMPLETE
    assert doubled.reason is VersionReason.DUPLICATE_VERSION
    assert all(path.partition("/")[0] in doubled.message for path in ("2.zip", *twin))
    for path in twin:
        world.source.delete(path)
    assert world.settle().active_version == 2


def test_so_many_versions_as_asked_for_stay_and_deletion_is_mirrored(tmp_path: Path) -> None:
    world = World(tmp_path, Policy(follow_newest=True, retain_versions=3))
    for version in range(1, 6):
        world.source.put(f"{version}.zip", archive(version))
        world.settle(turns=4)
    assert list(world.base()) == ["5"]
    assert world.retained() == ["3", "4"]
    world.source.delete("4.zip")
    world.settle(turns=2)
    assert world.retained() == ["3"]
    for version in (1, 2, 5):
        world.source.delete(f"{version}.zip")
    assert world.settle(turns=2).active_version == 5
    world.source.delete("3.zip")
    world.settle(turns=2)
    assert (list(world.base()), world.retained()) == (["5"], ["3"])


def test_what_nobody_expected_in_a_fetch_is_logged_and_tried_again(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("os.pwrite", lambda *_: 1 / 0)
        world.source.put("1.zip", archive(1))
        world.turn()
    assert world.version(1).reason is VersionReason.FETCH_FAILED
    assert "ZeroDivisionError" in caplog.text
    assert world.settle(turns=20).active_version == 1


class TestAPodThatIsMadeLater:
    """Versions 1 and 2 are good; 3 failed before there was this pod."""

    @pytest.fixture
    def pod(self, tmp_path: Path) -> World:
        made = World(tmp_path, Policy(follow_newest=False, num_versions=2))
        for version in (1, 2, 3):
            made.source.put(f"{version}.zip", archive(version))
        self.bad = (3, discover(made.source.list(), {})[3].fingerprint)
        return made

    def test_never_has_what_failed_and_serves_what_the_others_do(self, pod: World) -> None:
        pod.tell(2, 2, 1, quarantined=[self.bad])
        assert not pod.poller.has_published()
        pod.settle()
        assert pod.poller.has_published()
        assert sorted(pod.base()) == ["1", "2"]
        assert "3" not in pod.retained()

        pod.source.put("4.zip", archive(4))
        pod.settle()
        assert pod.version(4).state == "Fetched"
        pod.tell(4, 4, 2, quarantined=[self.bad])
        pod.settle()
        assert sorted(pod.base()) == ["2", "4"]
        assert "3" not in pod.retained()
        assert not [path for path, _, _ in pod.source.requests if path == "3.zip"]

    def test_goes_on_from_there_after_its_poller_was_killed(self, pod: World) -> None:
        pod.tell(2, 2, 1, quarantined=[self.bad])
        pod.settle()
        pod.start()
        pod.settle()
        assert sorted(pod.base()) == ["1", "2"]
        assert not [path for path, _, _ in pod.source.requests if path == "3.zip"]

    def test_tells_what_it_was_assigned_and_what_it_has_proven(self, pod: World) -> None:
        texts = AssignmentStatus(target="2", served="2,1", quarantined="3@x")
        pod.poller.on_assignment(parse(texts))
        pod.settle()
        status = pod.status()
        assert (status.target, status.assigned) == (2, texts)
        assert {v.version: v.proven for v in status.versions} == {3: False, 2: True, 1: True}
