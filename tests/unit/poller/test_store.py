"""The volume's layout."""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from model_poller.errors import InsufficientDiskError
from model_poller.status import VersionReason
from model_poller.volume import places
from model_poller.volume import store as volume
from model_poller.volume.journal import Journal, Part
from model_poller.volume.store import Quarantined, Record, Store
from tests.support.waiting import eventually
from tests.unit.poller.doubles import model

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "imagenet", tmp_path)
    made.prepare()
    return made


def known(records: Mapping[int, Record]) -> dict[int, Record]:
    """Records without what a version takes on this machine's disk, which some have to tell."""
    assert all(record.size for record in records.values() if record.fingerprint)
    return {version: msgspec.structs.replace(r, size=0) for version, r in records.items()}


def adopt(store: Store, version: int, fingerprint: str = "f") -> None:
    staged = store.stage(version, fingerprint)
    tree = staged / "tree"
    for name, content in model().items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(content)
    store.adopt(tree, Record(version, fingerprint))
    store.discard(staged)


def test_a_version_moves_from_staging_to_served_to_retained(store: Store) -> None:
    adopt(store, 1)
    assert known(store.scan().retained) == {1: Record(1, "f")}
    store.publish(1)
    assert known(store.scan().published) == {1: Record(1, "f")}
    assert (store.base / "1" / "saved_model.pb").exists()
    store.retire(1)
    assert known(store.scan().retained) == {1: Record(1, "f")}
    store.remove(1)
    assert store.scan().complete == set()


def test_the_model_servers_user_may_read_what_was_adopted(store: Store) -> None:
    adopt(store, 1)
    store.publish(1)
    assert (store.base / "1").stat().st_mode & 0o755 == 0o755


def test_a_published_version_can_not_be_overwritten(store: Store) -> None:
    adopt(store, 1)
    store.publish(1)
    before = (store.base / "1" / "saved_model.pb").read_bytes()
    adopt(store, 1, "other")
    with pytest.raises(OSError, match="not empty"):
        store.publish(1)
    assert (store.base / "1" / "saved_model.pb").read_bytes() == before


@contextmanager
def full_volume() -> Iterator[None]:
    """Whatever would need room fails; what exists can be renamed and deleted."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.MonkeyPatch.context() as patched:
        for owner, name in ((Path, "write_bytes"), (Path, "mkdir"), (os, "mkdir")):
            patched.setattr(owner, name, fail)
        yield


def test_what_a_full_volume_can_not_remember_counts_and_is_written_later(
    store: Store, tmp_path: Path
) -> None:
    for version in (1, 2):
        adopt(store, version)
        store.publish(version)
    entry = Quarantined(2, "f", VersionReason.LOAD_FAILED, "bad graph")
    with full_volume():
        store.prove(store.scan().published[1])
        store.quarantine(entry)
        disk = store.scan()
        assert known(disk.published) == {1: Record(1, "f", proven=True)}
        assert disk.quarantined == {2: entry}
    store.mend()
    after = Store(tmp_path / "imagenet", tmp_path)
    after.prepare()
    assert after.scan() == disk


def test_what_is_forgotten_is_not_written_later(store: Store, tmp_path: Path) -> None:
    adopt(store, 1)
    with full_volume():
        store.prove(store.scan().retained[1])
        store.quarantine(Quarantined(2, "f", VersionReason.LOAD_FAILED, "bad graph"))
        store.remove(1)
        store.release(2)
    store.mend()
    assert not list((tmp_path / ".records").iterdir())
    assert not list((tmp_path / ".quarantine").iterdir())


def test_a_full_volume_can_be_started_on_and_cleared(store: Store, tmp_path: Path) -> None:
    for version in (1, 2):
        adopt(store, version)
    store.publish(2)
    with full_volume():
        store.prepare()
        store.remove(1)
        store.retire(2)
        assert store.scan().complete == {2}
    eventually(lambda: not any((tmp_path / ".staging").iterdir()), what="empty trash", every=0.01)


def test_a_volume_that_somebody_cleared_is_filled_anew(store: Store, tmp_path: Path) -> None:
    adopt(store, 1)
    for folder in (".quarantine", ".records", ".retained", ".staging", "imagenet"):
        shutil.rmtree(tmp_path / folder)
    assert store.scan().complete == set()
    store.mend()
    adopt(store, 1)
    store.publish(1)
    assert known(store.scan().published) == {1: Record(1, "f")}


def test_books_that_can_not_be_read_are_books_that_are_not_there(
    store: Store, tmp_path: Path
) -> None:
    adopt(store, 1)
    (tmp_path / ".records" / "1.json").unlink()
    (tmp_path / ".records" / "1.json").mkdir()
    (tmp_path / ".quarantine" / "2.json").mkdir()
    (tmp_path / ".records" / "9.json").mkdir()
    assert store.scan().retained == {1: Record(1)}
    assert store.scan().quarantined == {}
    store.prepare()
    assert store.scan().retained == {1: Record(1)}


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO, errno.EACCES])
def test_a_version_on_a_volume_that_does_not_answer_stops_nothing(
    store: Store, tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in (1, 2):
        adopt(store, version)
        store.publish(version)
    (tmp_path / "claim").mkdir()
    link = store.base / "3"
    link.symlink_to(tmp_path / "claim")
    whole = os.stat

    def gone(path: Any, **options: Any) -> os.stat_result:
        if os.fspath(path) == str(link) and options.get("follow_symlinks", True):
            raise OSError(number, os.strerror(number))
        return whole(path, **options)

    monkeypatch.setattr(os, "stat", gone)
    assert store.scan().published.keys() == {1, 2, 3}
    store.prepare()
    assert store.scan().published.keys() == {1, 2, 3}


def test_a_start_clears_away_what_was_half_done(store: Store, tmp_path: Path) -> None:
    (tmp_path / ".staging" / "trash.abc").mkdir()
    (tmp_path / ".records" / "3.json").write_bytes(b"{}")
    adopt(store, 1)
    store.prepare()
    assert list((tmp_path / ".staging").iterdir()) == []
    assert [p.name for p in (tmp_path / ".records").iterdir()] == ["1.json"]
    assert store.scan().complete == {1}


def test_base_path_and_staging_have_to_be_one_mount(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def across(*_: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr("pathlib.Path.rename", across)
    with pytest.raises(OSError, match="cross-device"):
        store.prepare()


def test_a_quarantined_version_leaves_the_base_path_and_is_remembered(store: Store) -> None:
    adopt(store, 2)
    store.publish(2)
    entry = Quarantined(2, "f", VersionReason.LOAD_FAILED, "bad graph")
    store.quarantine(entry)
    disk = store.scan()
    assert (disk.complete, disk.quarantined) == (set(), {2: entry})
    store.release(2)
    assert store.scan().quarantined == {}


def test_folders_that_somebody_else_named_are_found_by_their_number(store: Store) -> None:
    (store.base / "0007").mkdir()
    assert store.scan().published == {7: Record(7)}
    store.retire(7)
    assert store.scan().retained == {7: Record(7)}


def test_other_things_in_the_base_path_are_left_alone(store: Store) -> None:
    (store.base / "lost+found").mkdir()
    (store.base / "5").write_text("a file")
    assert store.scan().complete == set()


def test_hidden_folders_may_lie_in_the_base_path_itself(tmp_path: Path) -> None:
    store = Store(tmp_path, tmp_path)
    store.prepare()
    adopt(store, 1)
    store.publish(1)
    assert store.scan().published.keys() == {1}
    assert all(p.name.startswith(".") or p.name == "1" for p in tmp_path.iterdir())


def test_that_a_version_was_served_outlives_a_restart(store: Store) -> None:
    adopt(store, 1)
    store.prove(store.scan().retained[1])
    assert known(store.scan().retained) == {1: Record(1, "f", proven=True)}


def test_a_damaged_note_counts_as_none(store: Store, tmp_path: Path) -> None:
    adopt(store, 1)
    (tmp_path / ".records" / "1.json").write_bytes(b"{cut")
    (tmp_path / ".quarantine" / "2.json").write_bytes(b"")
    assert store.scan().retained == {1: Record(1)}
    assert store.scan().quarantined == {}


def test_a_note_of_which_a_power_cut_has_left_other_bytes_counts_as_none(
    store: Store, tmp_path: Path
) -> None:
    adopt(store, 1)
    (tmp_path / ".records" / "1.json").write_bytes(b'{"version":1,"source":"\xff\xfe"}')
    note = b'{"version":2,"fingerprint":"f","reason":"LoadFailed","message":"\xff"}'
    (tmp_path / ".quarantine" / "2.json").write_bytes(note)
    assert store.scan().retained == {1: Record(1)}
    assert store.scan().quarantined == {}
    (tmp_path / "learnt").write_bytes(b'[{"bucket":"\xff","prefix":""}]')
    assert places.recall(tmp_path / "learnt") == []
    part = Part("archive", 0, 1, 2)
    lines = [b'["\xff",0,1,2]', b"[" * 100_000, b"\xff", msgspec.json.encode(part)]
    (tmp_path / Journal.NAME).write_bytes(b"\n".join(lines))
    with Journal(tmp_path) as journal:
        assert journal.recall(tmp_path / "archive", 0, 1) == part


def test_a_file_of_a_versions_name_among_the_retained_keeps_none_away(
    store: Store, tmp_path: Path
) -> None:
    (tmp_path / ".retained" / "1").write_text("what is this?")
    adopt(store, 1)
    assert store.scan().retained.keys() == {1}


def test_too_little_room_is_told_in_bytes(store: Store) -> None:
    free, _ = store.space()
    with pytest.raises(InsufficientDiskError, match=r"bytes are needed and \d+ of \d+ are free"):
        store.require(free)
    store.require(1)


def test_a_volume_that_may_take_less_than_its_disk_is_full_before_it(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(volume, "_COUNT_SECONDS", 0.0)
    adopt(store, 1)
    bounded = Store(tmp_path / "imagenet", tmp_path, 100 << 20)
    before, total = bounded.space()
    assert total == 100 << 20
    assert 99 << 20 < before < 100 << 20
    bounded.require(60 << 20)
    (tmp_path / ".retained" / "another").write_bytes(b"x" * (10 << 20))
    with pytest.raises(InsufficientDiskError, match=rf" of {total} are free"):
        bounded.require(60 << 20)
    # What is there already may be more.
    assert Store(tmp_path / "imagenet", tmp_path, 1 << 20).space() == (0, 1 << 20)
    # A disk that has less counts as it is.
    huge, disk = Store(tmp_path / "imagenet", tmp_path, 1 << 60), Store(tmp_path / "i", tmp_path)
    assert huge.space()[1] == disk.space()[1]


def test_a_link_takes_nothing_of_the_volume(store: Store, tmp_path: Path) -> None:
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "saved_model.pb").write_bytes(bytes(1 << 20))
    store.adopt_link(tmp_path / "export", Record(1, "f"))
    assert store.scan().retained == {1: Record(1, "f", size=0)}


def test_links_to_what_a_trainer_deleted_do_not_pile_up(store: Store, tmp_path: Path) -> None:
    for version in (1, 2):
        export = tmp_path / f"export-{version}"
        export.mkdir()
        store.adopt_link(export, Record(version, "f"))
        if version == 1:
            export.rmdir()
            assert store.scan().complete == set()
    assert [path.name for path in (tmp_path / ".retained").iterdir()] == ["2"]
    assert [path.name for path in (tmp_path / ".records").iterdir()] == ["2.json"]
