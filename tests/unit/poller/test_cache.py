"""A cache that pods share: what they save by it, and that it harms nobody."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import tarfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import google_crc32c
import pytest

from model_poller.bring import Bringer, Demands
from model_poller.cache import beats, copying, key, session, shared
from model_poller.cache.folder import Folder
from model_poller.cache.housekeeping import Keeper
from model_poller.checks import version_files
from model_poller.errors import InsufficientDiskError, StoppedError, UnreachableError
from model_poller.status import CacheState
from model_poller.stores.credentials import Credentials
from model_poller.stores.opening import SourceSettings
from model_poller.stores.uri import parse_uri
from tests.support.waiting import eventually
from tests.unit.poller.cache_pod import FILES, SHARD, CountedStore, bring, hurry, pod, version
from tests.unit.poller.doubles import model
from tests.unit.poller.test_bring import content

if TYPE_CHECKING:
    from collections.abc import Callable

    from model_poller.cache.shared import Cache


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch.setattr)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    made = tmp_path / "cache"
    made.mkdir()
    return made


@pytest.fixture
def source() -> CountedStore:
    return CountedStore(None)


@pytest.fixture
def new_pod(tmp_path: Path, cache: Path, source: CountedStore) -> Callable[..., Bringer]:
    def make(name: str, at: CountedStore | None = None, **settings: Any) -> Bringer:
        return pod(cache, tmp_path / name, at or source, **settings)

    return make


def retained(kit: Bringer, number: int = 1) -> dict[str, bytes]:
    return content(kit.store.folder(number))


def entry(cache: Path) -> Path:
    (found,) = [p for p in (cache / "v1" / "entries").iterdir() if not p.name.startswith(".")]
    return found


def held(cache: Path) -> list[str]:
    return Folder(cache).keys()


def state(kit: Bringer) -> CacheState:
    assert kit.cache is not None
    return kit.cache.status.state


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def until(kit: Bringer, wanted: CacheState) -> str:
    """What is said of the cache in that state, which it is in by looking after it."""
    cache = kit.cache
    assert cache is not None

    def is_there() -> bool:
        cache.tend()
        return cache.status.state is wanted

    eventually(is_there, what=f"a cache that is {wanted}", within=20, every=0.02)
    return cache.status.message


def until_leased(cache: Path) -> None:
    leases = Folder(cache).leases
    eventually(lambda: list(leases.glob("1-*")), what="who fetches", within=10, every=0.02)


def test_what_one_pod_has_fetched_others_have_without_the_store(
    new_pod: Callable[..., Bringer], source: CountedStore
) -> None:
    bring(new_pod("one"))
    source.requests.clear()

    other = new_pod("other")
    bring(other)

    assert retained(other) == FILES
    assert source.requests == []
    assert state(other) is CacheState.READY
    assert list((other.store.base.parent / ".staging").iterdir()) == []


def test_progress_is_told_of_a_copy_too(
    new_pod: Callable[..., Bringer], source: CountedStore
) -> None:
    bring(new_pod("one"))
    told: list[int] = []
    stored = version(source)

    new_pod("other").bring(stored, stopped=threading.Event(), progress=told.append)

    assert sum(told) == stored.size


def test_of_an_archive_the_part_is_told_that_is_there(
    new_pod: Callable[..., Bringer], monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = CountedStore(None)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, data in FILES.items():
            entry = tarfile.TarInfo(f"1/{name}")
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
            archive.delete(f"1/{name}")
    archive.put("1.tar.gz", packed.getvalue())
    stored = version(archive)
    assert stored.size < sum(map(len, FILES.values())) / 10
    said: list[int] = []
    say = session.Session._say

    def told(self: session.Session, path: Path, phase: str) -> None:
        said.append(self.done)
        say(self, path, phase)

    monkeypatch.setattr(session.Session, "_say", told)

    bring(new_pod("one", archive))
    other = new_pod("other", archive)
    bring(other)

    assert retained(other) == FILES
    assert max(said) <= stored.size
    assert any(0 < done < stored.size for done in said)


def damage(kind: str, folder: Path) -> None:
    largest = max(folder.iterdir(), key=lambda path: path.stat().st_size)
    if kind == "a bit":
        with largest.open("r+b") as file:
            file.seek(1_234_567)
            file.write(b"!")
    elif kind == "the end":
        os.truncate(largest, 1000)
    elif kind == "a file":
        largest.unlink()
    elif kind == "a fifo":
        largest.unlink()
        os.mkfifo(largest)
    elif kind == "a link":
        largest.rename(folder.parent / ".elsewhere")
        largest.symlink_to(folder.parent / ".elsewhere")
    elif kind == "the description":
        (folder / "entry.json").write_bytes(b"{")
    elif kind == "no description":
        (folder / "entry.json").unlink()
    elif kind == "a name":
        text = (folder / "entry.json").read_text()
        (folder / "entry.json").write_text(text.replace("saved_model.pb", "../../../../evil.pb"))
    elif kind == "a size":
        described = json.loads((folder / "entry.json").read_text())
        described["files"][0][1] = 10**17
        (folder / "entry.json").write_text(json.dumps(described))


@pytest.mark.parametrize(
    "kind",
    [
        "a bit",
        "the end",
        "a file",
        "a fifo",
        "a link",
        "the description",
        "no description",
        "a name",
        "a size",
    ],
)
def test_a_damaged_entry_is_found_set_aside_and_fetched_anew(
    new_pod: Callable[..., Bringer], source: CountedStore, cache: Path, tmp_path: Path, kind: str
) -> None:
    bring(new_pod("one"))
    damage(kind, entry(cache))
    source.requests.clear()

    other = new_pod("other")
    bring(other)

    assert retained(other) == FILES
    assert source.requests
    assert len(list((cache / "v1" / "damaged").iterdir())) == 1
    assert not list(tmp_path.rglob("evil.pb"))
    source.requests.clear()
    third = new_pod("third")
    bring(third)
    assert retained(third) == FILES
    assert source.requests == []


def test_a_damaged_entry_that_a_machine_sees_late_is_no_fault_of_the_cache(
    new_pod: Callable[..., Bringer], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a network file system, whose client remembers for a while that nothing was there."""
    bring(new_pod("one"))
    damage("the description", entry(cache))
    looks: list[str] = []
    opened = Folder.open

    def open_(self: Folder, key: str) -> Any:
        looks.append(key)
        return opened(self, key) if len(looks) > 1 else None

    monkeypatch.setattr(Folder, "open", open_)
    other = new_pod("other")
    bring(other)

    assert retained(other) == FILES
    assert state(other) is CacheState.READY
    assert len(list((cache / "v1" / "damaged").iterdir())) == 1


def test_who_waits_says_for_whom_and_how_far_that_is(
    new_pod: Callable[..., Bringer], source: CountedStore
) -> None:
    going_on = threading.Event()
    asked = source.open_range

    def open_range(*given: Any) -> Any:
        if SHARD in given[0].path:
            going_on.wait(20)
        return asked(*given)

    source.open_range = open_range  # type: ignore[assignment,method-assign]
    first = threading.Thread(target=bring, args=(new_pod("first"),))
    first.start()
    eventually(lambda: source.requests, what="the first fetch", within=10)
    notes: list[str] = []
    told: list[int] = []
    other = new_pod("other")
    waiting = threading.Thread(
        target=lambda: other.bring(
            version(source),
            stopped=threading.Event(),
            progress=told.append,
            note=notes.append,
        )
    )
    waiting.start()
    eventually(lambda: any("first" in note for note in notes), what="a note", within=10)
    eventually(lambda: sum(told) > 0, what="progress of the other", within=10)
    going_on.set()
    first.join()
    waiting.join()

    assert "first fetches it for the cache" in notes
    assert retained(other) == FILES
    assert sum("saved_model.pb" in path for path, _, _ in source.requests) == 1


def test_who_fetches_for_all_and_fails_has_a_successor(
    new_pod: Callable[..., Bringer], source: CountedStore, cache: Path
) -> None:
    broken = CountedStore(None)
    broken.objects = source.objects
    failing = threading.Event()

    def open_range(*_: object) -> Any:
        failing.wait(20)
        raise OSError(errno.EIO, "this node's disk")

    broken.open_range = open_range  # type: ignore[assignment,method-assign]

    def fail() -> None:
        with pytest.raises(OSError, match="this node's disk"):
            bring(new_pod("failing", broken))

    first = threading.Thread(target=fail)
    first.start()
    until_leased(cache)
    notes: list[str] = []
    other = new_pod("other")
    waiting = threading.Thread(
        target=lambda: other.bring(
            version(source),
            stopped=threading.Event(),
            progress=lambda _: None,
            note=notes.append,
        )
    )
    waiting.start()
    eventually(lambda: any("failing" in note for note in notes), what="a note", within=10)
    failing.set()
    first.join()
    waiting.join()

    assert retained(other) == FILES


def test_who_brings_nothing_for_long_is_no_longer_waited_for(
    new_pod: Callable[..., Bringer], source: CountedStore, cache: Path
) -> None:
    cut_off = CountedStore(None)
    cut_off.objects = source.objects
    end = threading.Event()

    def open_range(*_: object) -> Any:
        end.wait(30)
        raise StoppedError("the test is over")

    cut_off.open_range = open_range  # type: ignore[assignment,method-assign]

    def hang() -> None:
        with pytest.raises(StoppedError):
            bring(new_pod("cut off", cut_off))

    first = threading.Thread(target=hang)
    first.start()
    until_leased(cache)

    other = new_pod("other")
    bring(other)

    assert retained(other) == FILES
    end.set()
    first.join()


def test_who_checks_for_long_what_came_is_still_waited_for(
    new_pod: Callable[..., Bringer],
    source: CountedStore,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checked, is_slow = version_files.check, threading.Event()

    def check(*given: Any, stopped: Callable[[], bool], **more: Any) -> None:
        if not is_slow.is_set():
            is_slow.set()
            until = time.monotonic() + beats.IDLE_SECONDS + 1
            while time.monotonic() < until and not stopped():
                time.sleep(0.05)
        checked(*given, stopped=stopped, **more)

    monkeypatch.setattr(version_files, "check", check)
    first = threading.Thread(target=bring, args=(new_pod("first"),))
    first.start()
    until_leased(cache)
    other = new_pod("other")
    bring(other)
    first.join()

    assert is_slow.is_set()
    assert retained(other) == FILES
    assert sum("saved_model.pb" in path for path, _, _ in source.requests) == 1


def test_who_is_no_longer_waited_for_blames_no_cache_for_it(
    new_pod: Callable[..., Bringer], source: CountedStore, cache: Path
) -> None:
    slow = CountedStore(None)
    slow.objects = source.objects
    going_on = threading.Event()
    asked = source.open_range

    def open_range(*given: Any) -> Any:
        going_on.wait(30)
        return asked(*given)

    slow.open_range = open_range  # type: ignore[assignment,method-assign]
    kit = new_pod("slow", slow)
    first = threading.Thread(target=bring, args=(kit,))
    first.start()
    until_leased(cache)
    (lease,) = Folder(cache).leases.iterdir()
    bring(new_pod("other"))
    eventually(lambda: not lease.exists(), what="another lease", within=10)
    assert kit.cache is not None
    (running,) = kit.cache._sessions
    before = running._beats
    eventually(lambda: running._beats > before + 1, what="more beats", within=10)
    going_on.set()
    first.join()

    assert retained(kit) == FILES
    eventually(lambda: state(kit) is CacheState.READY, what="the end of it", within=10)


def test_who_was_taken_for_dead_while_it_waited_waits_on(
    new_pod: Callable[..., Bringer], source: CountedStore, cache: Path
) -> None:
    folder = Folder(cache)
    folder.prepare()
    name = key.key(version(source), "")
    beats.write(folder.leases / f"{name}.0", beats.Beat("x", "pod-x", beats.FETCHING), new=True)
    kit = new_pod("waiting")
    waiting = threading.Thread(target=bring, args=(kit,))
    waiting.start()
    eventually(lambda: list(folder.users.glob("1-*")), what="a user", within=10, every=0.02)
    for user in folder.users.glob("1-*"):
        user.unlink()
    eventually(lambda: list(folder.users.glob("1-*")), what="the user again", within=10, every=0.02)
    waiting.join()

    assert retained(kit) == FILES
    assert state(kit) is CacheState.READY


def test_a_wait_ends_when_the_version_is_not_wanted_any_more(
    new_pod: Callable[..., Bringer], source: CountedStore, cache: Path
) -> None:
    folder = Folder(cache)
    folder.prepare()
    name = key.key(version(source), "")
    beats.write(folder.leases / f"{name}.0", beats.Beat("x", "pod-x", beats.FETCHING), new=True)
    stopped = threading.Event()
    threading.Timer(0.3, stopped.set).start()

    with pytest.raises(StoppedError):
        new_pod("one").bring(version(source), stopped=stopped, progress=lambda _: None)


def test_what_is_put_into_a_version_for_one_resource_stays_out_of_the_cache(
    new_pod: Callable[..., Bringer], source: CountedStore, tmp_path: Path, cache: Path
) -> None:
    class Warmup:
        def put(self, folder: Path, **_: object) -> None:
            (folder / "assets.extra").mkdir()
            (folder / "assets.extra" / "tf_serving_warmup_requests").write_bytes(b"mine")

    one = new_pod("one")
    warm = Bringer(one.source, one.store, Demands(warmup=Warmup()), cache=one.cache)  # type: ignore[arg-type]
    bring(warm)
    assert "assets.extra/tf_serving_warmup_requests" in retained(warm)

    other = new_pod("other")
    bring(other)
    assert retained(other) == FILES


def test_what_is_demanded_of_a_version_is_demanded_of_a_copy(
    new_pod: Callable[..., Bringer], source: CountedStore, cache: Path
) -> None:
    bring(new_pod("one"))
    other = new_pod("other")
    strict = Bringer(other.source, other.store, Demands(manifest=True), cache=other.cache)
    source.requests.clear()

    with pytest.raises(Exception, match="SHA256SUMS"):
        bring(strict)

    # The source was asked, and what others may take is still there.
    assert source.requests
    source.requests.clear()
    bring(new_pod("third"))
    assert source.requests == []


def test_an_entry_that_fails_where_the_source_does_not_is_replaced(
    new_pod: Callable[..., Bringer], source: CountedStore, cache: Path
) -> None:
    """Bytes that are as they were put in, and were wrong then: as of a pod with broken memory."""
    bad = CountedStore(None)
    bad.objects = {**source.objects}
    sums = "".join(
        f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in FILES.items()
    )
    source.put("1/SHA256SUMS", sums.encode())
    bad.objects = {**source.objects}
    kit = new_pod("one", bad)
    bring(kit)
    folder = entry(cache)
    shard = max(folder.iterdir(), key=lambda path: path.stat().st_size)
    wrong = bytes(len(shard.read_bytes()))
    description = (folder / "entry.json").read_text()
    shard.write_bytes(wrong)
    before = google_crc32c.value(FILES[SHARD])
    (folder / "entry.json").write_text(
        description.replace(str(before), str(google_crc32c.value(wrong)))
    )
    source.requests.clear()

    other = new_pod("other")
    bring(other)
    assert retained(other)[SHARD] == FILES[SHARD]
    assert source.requests
    source.requests.clear()
    third = new_pod("third")
    bring(third)
    assert retained(third)[SHARD] == FILES[SHARD]
    assert source.requests == []


def upload(source: CountedStore, number: int, size: int = 1_000_000) -> None:
    source.put_all(
        {f"{number}/{name}": data for name, data in model(bytes([number]) * size).items()}
    )


def test_the_least_used_versions_leave_for_new_ones(
    new_pod: Callable[..., Bringer], source: CountedStore, cache: Path
) -> None:
    for number in (2, 3, 4):
        upload(source, number)
    room = 2_500_000

    def cached() -> set[int]:
        return {int(name.partition("-")[0]) for name in held(cache)}

    one = new_pod("one", max_bytes=room)
    bring(one, 2)
    bring(one, 3)
    assert cached() == {2, 3}
    # A pod that uses version 2 makes 3 the least used.
    time.sleep(0.02)
    bring(new_pod("other", max_bytes=room), 2)
    bring(one, 4)

    assert cached() == {2, 4}
    assert list((cache / "v1" / "trash").iterdir()) == []


@pytest.mark.parametrize("size", [10**17, -(10**17)])
def test_an_entry_whose_size_can_not_be_takes_no_other_one_with_it(
    new_pod: Callable[..., Bringer], source: CountedStore, cache: Path, size: int
) -> None:
    for number in (2, 3, 4):
        upload(source, number)
    kit = new_pod("one", max_bytes=3_500_000)
    bring(kit, 2)
    bring(kit, 3)
    (damaged,) = (cache / "v1" / "entries").glob("3-*")
    described = json.loads((damaged / "entry.json").read_text())
    described["files"][0][1] = size
    (damaged / "entry.json").write_text(json.dumps(described))

    bring(kit, 4)

    assert {name.partition("-")[0] for name in held(cache)} == {"2", "4"}
    assert len(list((cache / "v1" / "damaged").iterdir())) == 1


def test_a_version_in_use_is_never_evicted(
    new_pod: Callable[..., Bringer],
    source: CountedStore,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for number in (2, 3):
        upload(source, number)
    bring(new_pod("one", max_bytes=1_500_000), 2)
    reading, go_on = threading.Event(), threading.Event()
    copied = copying.copy_out

    def copy_out(*given: Any, progress: Any, **more: Any) -> None:
        def slowly(count: int) -> None:
            reading.set()
            while not go_on.wait(0.05):
                progress(0)
            progress(count)

        copied(*given, progress=slowly, **more)

    monkeypatch.setattr(session, "copy_out", copy_out)
    slow = new_pod("slow", max_bytes=1_500_000)
    reader = threading.Thread(target=bring, args=(slow, 2))
    reader.start()
    assert reading.wait(10)

    other = new_pod("other", max_bytes=1_500_000)
    bring(other, 3)

    assert retained(other, 3)
    assert state(other) is CacheState.FULL
    go_on.set()
    reader.join()
    assert retained(slow, 2)
    assert state(slow) is CacheState.READY


def test_a_cache_that_was_full_is_told_so_until_there_is_room(
    new_pod: Callable[..., Bringer], source: CountedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = [100]
    monkeypatch.setattr(Folder, "free", lambda _: free[0])
    kit = new_pod("one")
    bring(kit)
    assert state(kit) is CacheState.FULL
    cache: Cache = kit.cache  # type: ignore[assignment]
    time.sleep(0.6)
    cache.tend()
    cache.join(0.5)
    assert state(kit) is CacheState.FULL

    free[0] = 10**12
    until(kit, CacheState.READY)


def test_a_version_that_can_not_be_kept_is_fetched_by_all_at_once(
    new_pod: Callable[..., Bringer], source: CountedStore
) -> None:
    pods = [new_pod(f"pod-{i}", max_bytes=1000) for i in range(3)]
    together = threading.Barrier(3)
    asked = source.open_range

    def open_range(*given: Any) -> Any:
        if SHARD in given[0].path and given[1] == 0:
            # One after the other would wait here for ever.
            together.wait(20)
        return asked(*given)

    source.open_range = open_range  # type: ignore[assignment,method-assign]
    running = [threading.Thread(target=bring, args=(kit,)) for kit in pods]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()

    for kit in pods:
        assert retained(kit) == FILES
        assert state(kit) is CacheState.FULL
        assert kit.cache is not None
        assert "1000" in kit.cache.status.message


def test_what_others_put_beside_entries_is_left_alone(
    new_pod: Callable[..., Bringer], cache: Path
) -> None:
    kit, folder = new_pod("one"), Folder(cache)
    bring(kit)
    for place in (folder.users, folder.incoming, folder.leases, folder.trash, folder.damaged):
        (place / "@eaDir").mkdir()
        (place / ".DS_Store").write_bytes(b"")
        (place / "elsewhere").symlink_to(place / "nowhere")

    for _ in range(5):
        time.sleep(0.5)
        assert until(kit, CacheState.READY) == ""

    assert (folder.users / "@eaDir").is_dir()
    other = new_pod("other")
    bring(other)
    assert retained(other) == FILES
    assert state(other) is CacheState.READY


@pytest.mark.parametrize("code", [errno.ENOENT, errno.ESTALE])
def test_what_another_pod_clears_up_at_the_same_time_is_no_fault_of_the_cache(
    code: int, new_pod: Callable[..., Bringer], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kit, folder = new_pod("one"), Folder(cache)
    bring(kit)
    name = f"{folder.keys()[0]}.{'0' * 8}"
    for place in (folder.users, folder.incoming, folder.leases, folder.damaged):
        (place / name).mkdir()

    def removed(*_: object, **__: object) -> Any:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(beats, "read", removed)
    for call in ("lstat", "rename", "unlink"):
        monkeypatch.setattr(f"pathlib.Path.{call}", removed)
    clear_up = Keeper(folder, beats.Watch(), None, copying.Pulse()).clear_up
    clear_up()
    monkeypatch.setattr(beats, "DEAD_SECONDS", 0.0)
    clear_up()


@pytest.mark.parametrize("what", ["file", "link"])
def test_what_is_no_entry_but_has_its_name_makes_room_for_it(
    what: str, new_pod: Callable[..., Bringer], source: CountedStore, cache: Path
) -> None:
    bring(new_pod("one"))
    found = entry(cache)
    found.rename(cache / "moved")
    if what == "file":
        found.write_bytes(b"mine")
    else:
        found.symlink_to(cache / "moved")
    source.requests.clear()

    bring(other := new_pod("other"))

    assert source.requests
    assert state(other) is CacheState.READY
    source.requests.clear()
    bring(last := new_pod("last"))
    assert retained(last) == FILES
    assert source.requests == []


def test_a_folder_that_is_gone_is_done_without_and_comes_back(
    new_pod: Callable[..., Bringer], source: CountedStore, cache: Path, tmp_path: Path
) -> None:
    cache.rename(tmp_path / "away")
    kit = new_pod("one")
    bring(kit)
    assert retained(kit) == FILES
    assert state(kit) is CacheState.UNUSABLE
    assert kit.cache is not None
    assert "No such file" in kit.cache.status.message

    (tmp_path / "away").rename(cache)
    until(kit, CacheState.READY)


def test_what_hangs_is_waited_for_only_so_long_and_costs_few_threads(
    new_pod: Callable[..., Bringer], source: CountedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call into a file system that doesn't answer can't be ended."""
    answer = threading.Event()
    prepared = Folder.prepare

    def prepare(self: Folder) -> None:
        answer.wait(60)
        prepared(self)

    monkeypatch.setattr(Folder, "prepare", prepare)
    kit = new_pod("one")

    def hanging() -> int:
        return sum(thread.name.startswith("cache") for thread in threading.enumerate())

    before = hanging()
    for number in (2, 3, 4, 5, 6):
        upload(source, number, 1000)
        bring(kit, number, seconds=0.1)
        assert retained(kit, number)
        assert state(kit) is CacheState.UNUSABLE
        time.sleep(0.6)
        assert kit.cache is not None
        kit.cache.tend()
    assert hanging() - before <= shared.LOST + 1
    assert kit.cache is not None
    assert "has not answered" in kit.cache.status.message

    answer.set()
    until(kit, CacheState.READY)
    bring(kit)
    source.requests.clear()
    bring(new_pod("other"))
    assert source.requests == []


def test_a_cache_that_is_slower_than_any_source_is_left(
    new_pod: Callable[..., Bringer], source: CountedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    bring(new_pod("one"))
    monkeypatch.setattr(copying, "SLOW_SECONDS", 0.3)
    read = os.preadv

    def preadv(file: int, buffers: Any, offset: int) -> int:
        if threading.current_thread().name == "cache":
            time.sleep(0.4)
            return read(file, [buffers[0][:1000]], offset)
        return read(file, buffers, offset)

    monkeypatch.setattr(os, "preadv", preadv)
    source.requests.clear()

    other = new_pod("other")
    bring(other)

    assert retained(other) == FILES
    assert source.requests
    assert state(other) is CacheState.UNUSABLE
    assert other.cache is not None
    assert "MB a second" in other.cache.status.message


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES])
def test_a_cache_that_can_only_be_read_is_read(
    new_pod: Callable[..., Bringer],
    source: CountedStore,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
) -> None:
    bring(new_pod("one"))
    source.requests.clear()

    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(beats, "write", refuse)
    monkeypatch.setattr(Folder, "probe", refuse)
    other = new_pod("other")
    bring(other)
    assert retained(other) == FILES
    assert source.requests == []
    assert state(other) is CacheState.READ_ONLY

    upload(source, 2)
    files = open_files()
    bring(other, 2)
    assert retained(other, 2)
    assert len(held(cache)) == 1
    assert other.cache is not None
    assert os.strerror(code) in other.cache.status.message
    assert open_files() == files


def test_a_pod_without_room_of_its_own_says_that_and_blames_no_cache(
    new_pod: Callable[..., Bringer],
    source: CountedStore,
    monkeypatch: pytest.MonkeyPatch,
    cache: Path,
) -> None:
    bring(new_pod("one"))
    other = new_pod("other")

    def refuse(*_: object) -> None:
        raise InsufficientDiskError("there is no room", 1)

    monkeypatch.setattr(type(other.store), "require", refuse)
    with pytest.raises(InsufficientDiskError):
        bring(other)
    assert other.cache is not None
    other.cache.join(5)
    assert state(other) is CacheState.READY
    assert list((cache / "v1" / "damaged").iterdir()) == []


def test_a_pod_that_ends_puts_what_it_has_fetched_into_the_cache_first(
    new_pod: Callable[..., Bringer],
    source: CountedStore,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As one that has rehearsed a version, which all replicas are to get then."""
    copied = copying.copy_in

    def copy_in(*given: Any, progress: Callable[[int], None], **more: Any) -> Any:
        time.sleep(0.3)
        return copied(*given, progress=progress, **more)

    monkeypatch.setattr(session, "copy_in", copy_in)
    kit = new_pod("one")
    kit.bring(version(source), stopped=threading.Event(), progress=lambda _: None)
    assert held(cache) == []
    assert kit.cache is not None
    assert kit.cache.status.storing
    kit.cache.finish(10)
    kit.cache.stop()

    assert len(held(cache)) == 1
    assert not kit.cache.status.storing


def test_a_fetch_that_broke_off_leaves_nothing_in_the_cache(
    new_pod: Callable[..., Bringer], source: CountedStore, cache: Path
) -> None:
    source.fail_after(0, UnreachableError("gone"))
    kit = new_pod("one")
    stopped = threading.Event()
    threading.Timer(0.3, stopped.set).start()
    with pytest.raises((UnreachableError, StoppedError)):
        kit.bring(version(source), stopped=stopped, progress=lambda _: None)
    assert kit.cache is not None
    kit.cache.join(5)

    assert held(cache) == []
    assert list((cache / "v1" / "incoming").iterdir()) == []
    assert list((cache / "v1" / "users").iterdir()) == []


# What a version is kept under.


def test_everything_that_tells_bytes_from_others_is_in_a_key(source: CountedStore) -> None:
    stored = version(source)
    here = key.key(stored, "")
    assert here is not None
    assert key.KEY.fullmatch(here)
    assert key.key(stored, "http://another.example") != here

    source.put("1/saved_model.pb", FILES["saved_model.pb"])
    assert key.key(version(source), "") != here


def _settings(uri: str, **more: Any) -> SourceSettings:
    return SourceSettings(locations=(parse_uri(uri),), **more)


def test_servers_are_told_apart_by_what_they_are_asked_by() -> None:
    uris = ("s3://models/x", "az://models/x")
    for uri in uris:
        one = key.server(_settings(uri, endpoint="http://a.example", azure_account="one"))
        assert one != key.server(_settings(uri, endpoint="http://b.example", azure_account="one"))
    one = key.server(_settings("az://models/x", azure_account="one"))
    assert one != key.server(_settings("az://models/x", azure_account="two"))
    signed = [
        key.server(
            _settings(
                "az://models/x",
                credentials=Credentials(
                    {
                        "AZURE_STORAGE_CONNECTION_STRING": f"BlobEndpoint=https://{host}/;"
                        "SharedAccessSignature=sv=1&sig=x"
                    }
                ),
            )
        )
        for host in ("one.blob.core.windows.net", "two.blob.core.windows.net")
    ]
    assert signed[0] != signed[1]


@pytest.mark.parametrize(
    ("uri", "generation", "is_kept"),
    [
        ("https://example.org/x", '"abc"', True),
        ("https://example.org/x", "Sat, 01 Jan 2000 00:00:00 GMT-5", True),
        ("https://example.org/x", "-5", False),
        ("https://example.org/x", 'W/"abc"', False),
        ("gs://models/x", "17", True),
        ("s3://models/x", "", False),
        ("file:///models/x", "17", False),
        ("pvc://models/x", "17", False),
    ],
)
def test_what_nothing_tells_from_other_bytes_is_not_kept(
    source: CountedStore, uri: str, generation: str, is_kept: bool
) -> None:
    stored = version(source)
    objects = tuple(
        replace(member, root=parse_uri(uri), generation=generation) for member in stored.objects
    )
    assert (key.key(replace(stored, objects=objects), "") is not None) == is_kept


def test_a_cache_is_not_looked_at_again_and_again_while_all_is_well(
    new_pod: Callable[..., Bringer],
) -> None:
    kit = new_pod("one")
    until(kit, CacheState.READY)
    cache: Cache = kit.cache  # type: ignore[assignment]
    time.sleep(0.7)
    before = {thread.ident for thread in threading.enumerate()}
    cache.tend()
    assert {thread.ident for thread in threading.enumerate()} <= before
