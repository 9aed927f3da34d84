"""What a look asks for and keeps, whatever a store has kept of old."""

from __future__ import annotations

import json
import threading
import time
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from model_poller import look
from model_poller.errors import AccessDeniedError
from model_poller.look import Looker
from model_poller.planner import interest
from model_poller.status import VersionReason, VersionState
from model_poller.stores import Entry, StoredObject
from model_poller.stores.credentials import Credentials
from model_poller.stores.http import HttpSource
from model_poller.stores.uri import parse_uri
from model_poller.versions import MAX_FILES, MAX_OBJECTS, MAX_VERSIONS, Interest, discover
from tests.support.waiting import eventually
from tests.unit.poller.doubles import ROOT, MemorySource, below, model
from tests.unit.poller.test_http import Server, serve
from tests.unit.poller.world import ALONE, TOLD, World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from model_poller.status import SourceStatus
    from model_poller.versions import StoredVersion

ODD = {"my vocab.txt": b"a", "größe.txt": b"b", "a+b=c&d.txt": b"c", "50%.txt": b"d", "x;y#?": b"e"}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    yield from serve(tmp_path / "served")


@pytest.fixture
def web(server: Server) -> Iterator[HttpSource]:
    made = HttpSource(parse_uri(f"{server.url}/models"), credentials=Credentials({}))
    yield made
    made.close()


def stored(path: str) -> StoredObject:
    return StoredObject(ROOT, path, 1, "1")


# Names.


@pytest.mark.parametrize("form", ["index", "list"])
def test_file_names_that_a_url_quotes_are_names_like_others(
    server: Server, tmp_path: Path, form: str
) -> None:
    files = {**model(), **{f"assets.extra/{name}": content for name, content in ODD.items()}}
    server.write(below("models/7", files))
    uri = f"{server.url}/models"
    if form == "list":
        entries = [{"name": f"7/{n}", "size": len(c), "mtime": "now"} for n, c in files.items()]
        server.write({"models/list.json": json.dumps(entries).encode()})
        uri += "/list.json"
    source = HttpSource(parse_uri(uri), credentials=Credentials({}))
    world = World(tmp_path / "pod", source=source)
    world.settle(6, seconds=6)
    source.close()
    assert world.base() == {"7": files}


def test_an_index_may_quote_names_otherwise_than_others_do(server: Server, web: HttpSource) -> None:
    # As nginx and Apache write them, or with the whole path.
    page = '<a href="b(1).txt">x</a><a href="/models/7/%62%282%29.txt">x</a><a href="./c.txt">x</a>'
    server.answers["/models/7/"] = lambda handler: handler.reply(
        200, page.encode(), Content_Type="text/html"
    )
    server.write({f"models/7/{name}": b"x" for name in ("b(1).txt", "b(2).txt", "c.txt")})
    assert [found.path for found in web.list()] == ["7/b(1).txt", "7/b(2).txt", "7/c.txt"]


def test_an_index_that_is_elsewhere_is_read_there(server: Server, web: HttpSource) -> None:
    server.write(below("real/7", model()))
    server.answers["/models/7/"] = lambda handler: handler.reply(302, Location="/real/7/")
    server.answers["/models/7/variables/"] = server.answers["/models/7/"]
    server.answers["/models/"] = lambda handler: handler.reply(
        200, b'<a href="7/">7</a>', Content_Type="text/html"
    )
    page = b'<a href="/real/7/saved_model.pb">x</a>'
    server.answers["/real/7/"] = lambda handler: handler.reply(200, page, Content_Type="text/html")
    server.write({"models/7/saved_model.pb": b"graph"})
    assert [found.path for found in web.list()] == ["7/saved_model.pb"]


# What a look costs.


def look_calls(world: World, server: Server) -> list[tuple[str, str]]:
    before = len(server.seen)
    world.turn(30)
    return [(method, path) for method, path, _ in server.seen[before:]]


@pytest.mark.parametrize("as_archive", [False, True])
def test_a_look_at_rest_asks_for_the_index_and_what_is_served_however_much_is_older(
    server: Server, web: HttpSource, tmp_path: Path, as_archive: bool
) -> None:
    for number in range(1, 252):
        if as_archive:
            server.write({f"models/{number}.zip": b"no archive at all"})
        else:
            server.write(below(f"models/{number}", {"saved_model.pb": b"no graph"}))
    server.write(below("models/900", model()))
    world = World(tmp_path / "pod", source=web)
    world.settle(6, seconds=6)
    assert list(world.base()) == ["900"]
    files = [f"/models/900/{name}" for name in model()]
    folders = ["/models/", "/models/900/", "/models/900/variables/"]
    assert sorted(look_calls(world, server)) == sorted(
        [*(("GET", path) for path in folders), *(("HEAD", path) for path in files)]
    )
    # A newer one costs what it is.
    server.write(below("models/901", model()))
    calls = look_calls(world, server)
    assert not [path for _, path in calls if "/models/9" not in path and path != "/models/"]
    world.settle(6, seconds=6)
    assert "901" in world.base()


def test_a_new_volume_looks_for_the_newest_that_is_whole_and_no_further(
    server: Server, web: HttpSource, tmp_path: Path
) -> None:
    for number in range(1, 31):
        server.write(below(f"models/{number}", model()))
    for number in range(31, 36):
        server.write({f"models/{number}/variables/variables.index": b"half an upload"})
    world = World(tmp_path / "pod", source=web)
    world.settle(6, seconds=6)
    assert list(world.base()) == ["30"]
    asked = {path.split("/")[2] for _, path, _ in server.seen if path != "/models/"}
    assert asked == {str(number) for number in range(28, 36)}


def test_an_older_version_is_looked_into_once_it_is_told(
    server: Server, web: HttpSource, tmp_path: Path
) -> None:
    for number in range(1, 21):
        server.write(below(f"models/{number}", model(b"%d" % number)))
    world = World(tmp_path / "pod", TOLD, source=web)
    world.tell(20)
    world.settle(6, seconds=6)
    assert world.version(3).state is VersionState.DISCOVERED
    assert world.version(3).in_source
    asked: list[bool] = []
    world.poller._look_now = lambda: asked.append(True)
    world.tell(3)
    world.step()
    assert asked == [True]
    world.settle(6, seconds=6)
    assert world.version(3).state is VersionState.AVAILABLE
    assert world.version(20).in_source


def test_what_failed_before_is_not_tried_again_because_nobody_looks(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.source.put_all(below("1", model()))
    world.source.put("2.zip", b"no archive at all")
    world.settle()
    assert world.version(2).state is VersionState.QUARANTINED
    before = world.version(2).fingerprint
    world.source.put_all(below("3", model()))
    world.settle()
    seen = interest(world.poller._see(), ALONE)
    named: list[StoredObject | Entry] = [Entry(ROOT, "2.zip", is_folder=False)]
    named += world.source.list()[-3:]
    found = discover(named, {}, interest=seen)
    assert not found[2].is_known
    world.poller.on_look(world.status().source, found)
    world.step()
    assert world.version(2).state is VersionState.QUARANTINED
    assert world.version(2).fingerprint == before


def test_a_fetch_that_runs_is_not_given_up_for_newer_versions(
    server: Server, web: HttpSource, tmp_path: Path
) -> None:
    server.write(below("models/1", model()))
    world = World(tmp_path / "pod", source=web)
    jobs: list[Callable[[], None]] = []
    world.poller._fetcher._spawn = jobs.append
    world.settle(3, seconds=6)
    assert world.version(1).state is VersionState.FETCHING
    for number in range(2, 9):
        server.write(below(f"models/{number}", model()))
    world.settle(3, seconds=6)
    assert world.version(1).state is VersionState.FETCHING
    jobs.pop()()
    world.step()
    assert list(world.base()) == ["1"]


@pytest.mark.parametrize("status", [403, 404, 500])
@pytest.mark.parametrize("path", ["/models/2/variables/", "/models/2/saved_model.pb"])
def test_a_version_that_a_web_server_fails_on_leaves_those_before_it(
    server: Server,
    web: HttpSource,
    tmp_path: Path,
    status: int,
    path: str,
) -> None:
    for number in (1, 2):
        server.write(below(f"models/{number}", model()))
    server.answers[path] = lambda handler: handler.reply(status)
    world = World(tmp_path / "pod", source=web)
    world.settle(7, seconds=6)
    assert list(world.base()) == ["1"]
    version = world.version(2)
    reason = VersionReason.ACCESS_DENIED if status == 403 else VersionReason.FETCH_FAILED
    assert (version.state, version.reason) == (VersionState.INCOMPLETE, reason)
    assert path.strip("/") in version.message
    del server.answers[path]
    world.settle(6, seconds=6)
    assert "2" in world.base()


def test_a_version_that_may_not_be_read_leaves_the_others(tmp_path: Path) -> None:
    def files(entry: Entry) -> Iterable[StoredObject]:
        if entry.name == "3":
            raise AccessDeniedError("nobody may read 3")
        return [stored(f"{entry.name}/saved_model.pb")]

    entries = [Entry(ROOT, str(number), is_folder=True) for number in (2, 3)]
    found = discover(entries, {}, files=files)
    assert found[3].incomplete is not None
    assert found[3].incomplete.message == "nobody may read 3"
    assert found[2].is_known
    with pytest.raises(AccessDeniedError):
        discover(entries[1:], {}, files=files)


# What is kept.


def kept(found: Mapping[int, StoredVersion]) -> int:
    return sum(len(version.objects) for version in found.values())


@pytest.mark.parametrize("wanted", [frozenset[int](), frozenset({1})])
def test_of_a_listing_without_an_end_the_newest_and_the_wanted_are_kept(
    wanted: frozenset[int],
) -> None:
    # As stores list them: 1, 10, 100, 1000, 1001, …
    names = sorted(str(number) for number in range(1, 1501))
    listing = (stored(f"{name}/{i}") for name in names for i in range(200))
    found = discover(listing, {}, interest=Interest(wanted=wanted))
    assert len(found) == 1500
    assert kept(found) <= MAX_OBJECTS
    assert {len(found[number].objects) for number in (*range(1400, 1501), *wanted)} == {200}
    assert all(len(version.objects) in (0, 200) for version in found.values())


def test_a_folder_of_too_many_files_is_told_and_leaves_the_others() -> None:
    def listing() -> Iterator[StoredObject]:
        yield from (stored(f"1/{name}") for name in model())
        yield from (stored(f"2/{i}") for i in range(MAX_FILES + 1))

    found = discover(listing(), {})
    verdict = found[2].incomplete
    assert verdict is not None
    assert verdict.reason is VersionReason.TOO_MANY_FILES
    assert len(found[1].objects) == len(model())


def test_of_more_versions_than_a_look_tells_those_on_the_disk_are_among_them() -> None:
    count = 3 * MAX_VERSIONS
    here = Interest(newest=count, known={5: "abc"})
    found = discover((stored(f"{n}.zip") for n in range(1, count + 1)), {}, interest=here)
    assert {5, count} <= found.keys()
    assert MAX_VERSIONS <= len(found) <= 2 * MAX_VERSIONS + 1


# How often.


def test_notified_looks_are_at_most_one_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(look, "GAP_SECONDS", 0.3)
    looks: list[float] = []

    class Timed(MemorySource):
        def list(self) -> list[StoredObject]:
            looks.append(time.monotonic())
            return super().list()

    looker = Looker(Timed(), 60.0, lambda _status, _found: None)
    looker.start()
    over = threading.Event()

    def notify() -> None:
        while not over.wait(0.005):
            looker.look_now()

    notifier = threading.Thread(target=notify)
    notifier.start()
    try:
        eventually(lambda: len(looks) >= 5, what="five looks")
    finally:
        over.set()
        notifier.join()
        looker.stop()
    pauses = [after - before for before, after in pairwise(looks)]
    # Never shorter, however slow the machine is.
    assert min(pauses) >= 0.29


def test_one_listing_a_look(tmp_path: Path) -> None:
    class Counted(MemorySource):
        calls = 0

        def survey(self) -> Iterator[StoredObject | Entry]:
            self.calls += 1
            return super().survey()

    source = Counted()
    source.put_all(below("1", model()))
    source.put("2.zip", b"no archive at all")
    reports: list[SourceStatus] = []
    world = World(tmp_path, source=source)
    looker = Looker(
        source,
        30.0,
        lambda status, _: reports.append(status),
        interest=world.poller.interest,
    )
    for _ in range(3):
        looker.look()
    assert source.calls == len(reports) == 3
