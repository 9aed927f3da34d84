"""What is told of each version on the disk: its interface and how large its weights are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from model_poller import descriptions, report
from model_poller.descriptions import Description, Descriptions, describe, key, weight_bytes
from model_poller.status import Interface, SignatureSpec, TensorSpec, VersionState
from model_poller.volume.store import Disk, Record
from tests.unit.poller.doubles import below, graph, model, zipped
from tests.unit.poller.test_planner import TOLD, records, reported, seen
from tests.unit.poller.world import World

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest


def put(world: World, version: int, *signatures: str, content: bytes = b"weights") -> None:
    files = {**model(content), "saved_model.pb": graph(signatures=signatures)}
    world.source.put(f"{version}.zip", zipped(below(str(version), files)))


def test_every_version_on_the_disk_is_described_before_and_after_a_restart(tmp_path: Path) -> None:
    world = World(tmp_path)
    put(world, 1, "serving_default", content=b"12345")
    world.settle()
    put(world, 2, "serving_default", "other", content=b"123456789")
    world.settle()
    for _ in range(2):
        one, two = world.version(1), world.version(2)
        assert (one.state, two.state) == (VersionState.RETIRED, VersionState.AVAILABLE)
        assert (one.weight_bytes, two.weight_bytes) == (6, 10)
        assert one.interface
        assert list(one.interface.signatures) == ["serving_default"]
        assert two.interface
        assert list(two.interface.signatures) == ["other", "serving_default"]
        world.start()
        world.settle()


def test_a_version_is_read_once_for_its_fingerprint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def counted(folder: Path) -> Description:
        read.append(folder.name)
        return describe(folder)

    monkeypatch.setattr(descriptions, "describe", counted)
    world = World(tmp_path)
    put(world, 1, "a")
    world.settle()
    put(world, 2, "b")
    world.settle()
    assert read == ["1", "2"]


def test_what_is_not_on_the_disk_is_not_described(tmp_path: Path) -> None:
    world = World(tmp_path)
    put(world, 1, "a")
    put(world, 2, "b")
    world.settle()
    assert world.version(2).interface
    assert (world.version(1).interface, world.version(1).weight_bytes) == (None, 0)


def test_what_failed_is_told_when_its_files_are_gone(tmp_path: Path) -> None:
    """Whoever asks how it differs asks after it was taken back."""
    world = World(tmp_path)
    put(world, 1, "a")
    world.settle()
    world.server.bad.add(2)
    put(world, 2, "b", content=b"123456789")
    world.settle()
    two = world.version(2)
    assert (two.state, world.retained()) == (VersionState.QUARANTINED, [])
    assert two.interface
    assert (list(two.interface.signatures), two.weight_bytes) == (["b"], 10)

    world.source.put("2.zip", zipped(below("2", {**model(), "saved_model.pb": graph()})))
    world.look()
    world.step()
    others = world.version(2).interface
    assert others is None or list(others.signatures) != ["b"]


class Readings:
    """`Descriptions` of versions in folders, read when the test says so."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.now = 100.0
        self.woken = 0
        self.works: list[Callable[[], None]] = []
        self.descriptions = Descriptions(
            lambda version: root / str(version), self._wake, lambda: self.now, self.works.append
        )

    def _wake(self) -> None:
        self.woken += 1

    def put(self, version: int, content: bytes = b"weights") -> None:
        for name, data in model(content).items():
            path = self.root / str(version) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    def look(self, *wanted: Record) -> dict[int, Description]:
        known = self.descriptions.look(wanted)
        return {record.version: known[key(record)] for record in wanted if key(record) in known}

    def read(self) -> None:
        works, self.works[:] = self.works[:], []
        for work in works:
            work()


def test_reading_happens_beside_the_loop_which_is_woken(tmp_path: Path) -> None:
    here = Readings(tmp_path)
    here.put(1)
    assert here.look(Record(1, "f")) == {}
    assert here.look(Record(1, "f")) == {}
    assert (len(here.works), here.woken) == (1, 0)
    here.read()
    assert here.woken == 1
    assert here.look(Record(1, "f"))[1].weight_bytes == 8


def test_other_objects_and_another_source_are_read_anew(tmp_path: Path) -> None:
    here = Readings(tmp_path)
    here.put(1)
    for number, record in enumerate((Record(1, "f"), Record(1, "g"), Record(1, "g", "gs://b/x"))):
        assert here.look(record) == {}
        here.put(1, b"x" * number)
        here.read()
        assert here.look(record)[1].weight_bytes == number + 1


def test_the_last_that_left_are_remembered_and_not_read_again(tmp_path: Path) -> None:
    here = Readings(tmp_path)
    records = [Record(number, "f") for number in range(1, 8)]
    for record in records:
        here.put(record.version)
        here.look(record)
        here.read()
        here.look(record)
    known = here.descriptions.look(records[-1:])
    assert [number for number, _, _ in known] == [3, 4, 5, 6, 7]
    assert here.look(*records[-2:]).keys() == {6, 7}
    assert not here.works


def test_a_version_that_goes_while_it_is_read_is_forgotten(tmp_path: Path) -> None:
    here = Readings(tmp_path)
    here.put(1)
    here.look(Record(1, "f"))
    assert here.look() == {}
    here.read()
    assert here.look() == {}
    assert here.look(Record(1, "f")) == {}
    assert len(here.works) == 1


def test_a_version_that_can_not_be_read_says_so_until_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Readings(tmp_path)
    here.put(1)

    def broken(_: Path) -> Description:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(descriptions, "describe", broken)
    here.look(Record(1, "f"))
    here.read()
    told = here.look(Record(1, "f"))[1]
    assert told.interface.message == "version 1 can't be read: Input/output error"
    monkeypatch.setattr(descriptions, "describe", describe)
    here.look(Record(1, "f"))
    assert not here.works
    here.now += descriptions.RETRY_SECONDS
    here.look(Record(1, "f"))
    here.read()
    assert here.look(Record(1, "f"))[1].interface.message == ""


def test_a_version_that_moves_between_two_places_is_found(tmp_path: Path) -> None:
    here = Readings(tmp_path)
    here.put(1)
    places = iter([tmp_path / "gone", tmp_path / "1"])
    here.descriptions = Descriptions(
        lambda _: next(places), lambda: None, lambda: 0.0, lambda work: work()
    )
    here.look(Record(1, "f"))
    assert here.look(Record(1, "f"))[1].interface.signatures


def test_without_a_thread_it_is_tried_at_the_next_look(tmp_path: Path) -> None:
    tries: list[int] = []

    def refuse(_: Callable[[], None]) -> None:
        tries.append(1)
        raise RuntimeError("can't start new thread")

    reader = Descriptions(lambda _: tmp_path, lambda: None, lambda: 0.0, refuse)
    assert reader.look([Record(1)]) == reader.look([Record(1)]) == {}
    assert len(tries) == 2


def test_weights_are_those_of_the_newest_export_into_a_folder(tmp_path: Path) -> None:
    assert weight_bytes(tmp_path) == 0
    (tmp_path / "variables").mkdir()
    assert weight_bytes(tmp_path) == 0
    sizes = {"data-00000-of-00001": 5, "data-00000-of-00002": 7, "data-00001-of-00002": 9}
    for name, size in {**sizes, "index": 100, "data-0-of-9": 50}.items():
        (tmp_path / "variables" / f"variables.{name}").write_bytes(bytes(size))
    assert weight_bytes(tmp_path) == 16


def test_a_version_is_fetched_once_it_was_read() -> None:
    """Else its interface would seem to be none for a moment, and pass for a fitting one."""
    what = seen(disk=Disk(records(1, proven=True), records(2), {}), found=None)
    for known, state in (({}, VersionState.FETCHING), (None, VersionState.FETCHED)):
        two, one = reported(what, TOLD, descriptions=known).versions
        assert (two.state, one.state) == (state, VersionState.AVAILABLE)
    (record,) = records(2).values()
    two, _ = reported(what, TOLD, descriptions={key(record): large(1)}).versions
    assert (two.state, two.weight_bytes) == (VersionState.FETCHED, 1)


def test_a_version_that_ends_the_reader_is_told_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Readings(tmp_path)

    def broken(_: Path) -> Description:
        raise ZeroDivisionError

    monkeypatch.setattr(descriptions, "describe", broken)
    here.look(Record(1, "f"))
    here.read()
    told = here.look(Record(1, "f"))[1]
    assert told.interface.message == "version 1 can't be read; see the poller's log"


def large(count: int) -> Description:
    names = {f"{'n' * 200}{i}": TensorSpec(dtype="float32") for i in range(count)}
    interface = Interface(signatures={"s": SignatureSpec(inputs=names)})
    return Description(1, interface, len(msgspec.json.encode(interface)))


def test_a_report_holds_the_interfaces_that_matter_and_no_more_than_a_reader_takes() -> None:
    here = records(*range(2, 40))
    what = seen(disk=Disk(records(1), here, {}), told=1)
    known = {key(record): large(250) for record in {**here, **records(1)}.values()}
    status = reported(what, TOLD, descriptions=known)
    told = {v.version: v.interface for v in status.versions if v.interface}
    whole = [version for version, interface in told.items() if interface.signatures]
    assert whole[0] == 39
    assert whole[-1] == 1, "the one that answers"
    assert len(told) == 39
    assert all(i.message.startswith("it is not told") for i in told.values() if not i.signatures)
    assert len(msgspec.json.encode(status)) < report.MAX_INTERFACE_BYTES + 30_000
