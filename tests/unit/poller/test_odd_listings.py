"""Whatever is odd about one version, or about how a store tells of it, the others are taken."""

from __future__ import annotations

import gzip
import json
import os
import time
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, TypeAlias

import pytest

from model_poller.errors import InvalidSourceError, ObjectChangedError, UnreachableError
from model_poller.look import _PATIENCE, Looker
from model_poller.status import VersionReason, VersionState
from model_poller.stores.credentials import Credentials
from model_poller.stores.http import HttpSource
from model_poller.stores.local import LocalSource
from model_poller.stores.uri import parse_uri
from model_poller.stores.xml_answers import parse_xml
from tests.unit.poller.doubles import model, zipped
from tests.unit.poller.test_http import Handler, Server, serve
from tests.unit.poller.world import World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from model_poller.status import SourceStatus
    from model_poller.stores import Source
    from model_poller.versions import StoredVersion


Web: TypeAlias = "Callable[..., HttpSource]"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    yield from serve(tmp_path / "served")


def look(source: Source, times: int = _PATIENCE + 1) -> Mapping[int, StoredVersion]:
    """What the last of some looks gave, where it succeeded."""
    seen: list[tuple[SourceStatus, Mapping[int, StoredVersion] | None]] = []
    looker = Looker(source, 30.0, lambda status, found: seen.append((status, found)))
    for _ in range(times):
        looker.look()
    status, found = seen[-1]
    assert found is not None, status.message
    return found


def write(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def nested(folder: Path, depth: int) -> None:
    here = os.getcwd()  # noqa: PTH109 - deeper than a path can tell
    os.chdir(folder)
    try:
        for _ in range(depth):
            os.mkdir("a")  # noqa: PTH102
            os.chdir("a")
    finally:
        os.chdir(here)


def flat(folder: Path) -> None:
    """Undo `nested`, as what clears away a test's folder can't."""
    while (folder / "a").exists():
        inner = [entry.rename(folder / "b") for entry in (folder / "a").iterdir()]
        (folder / "a").rmdir()
        for entry in inner:
            entry.rename(folder / "a")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    flat(tmp_path / "2")


# Folders.


def circle(folder: Path) -> None:
    (folder / "circle").symlink_to("circle")


def circle_of_a_version(folder: Path) -> None:
    (folder / "2").symlink_to("2")


def circle_in_a_version(folder: Path) -> None:
    write(folder / "2", model())
    (folder / "2/circle").symlink_to("circle")


def bottomless(folder: Path) -> None:
    write(folder / "2", model())
    nested(folder / "2", 1500)


@pytest.mark.parametrize("odd", [circle, circle_of_a_version, circle_in_a_version, bottomless])
def test_an_odd_entry_of_a_folder_keeps_no_version_away(
    place: Path, odd: Callable[[Path], None]
) -> None:
    write(place / "1", model())
    odd(place)
    found = look(LocalSource(parse_uri(f"file://{place}"), place), times=1)
    assert found[1].is_known


def test_folders_in_one_another_without_an_end_are_told(place: Path) -> None:
    write(place / "1", model())
    bottomless(place)
    found = look(LocalSource(parse_uri(f"file://{place}"), place))
    assert found[2].incomplete
    assert found[2].incomplete.reason is VersionReason.FETCH_FAILED
    assert "/2 has more than 32 folders in one another" in found[2].incomplete.message


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_a_link_into_a_folder_that_nobody_may_read_spoils_its_version_alone(
    tmp_path: Path,
) -> None:
    write(tmp_path / "models/1", model())
    write(tmp_path / "closed/2", model())
    (tmp_path / "models/2").symlink_to(tmp_path / "closed/2")
    (tmp_path / "closed").chmod(0)
    try:
        place = tmp_path / "models"
        found = look(LocalSource(parse_uri(f"file://{place}"), place), times=1)
        assert found[1].is_known
        assert found[2].incomplete
        assert found[2].incomplete.reason is VersionReason.ACCESS_DENIED
    finally:
        (tmp_path / "closed").chmod(0o755)


def test_a_file_that_became_a_named_pipe_is_not_waited_for(tmp_path: Path) -> None:
    write(tmp_path, {"2.zip": b"zip"})
    source = LocalSource(parse_uri(f"file://{tmp_path}"), tmp_path)
    (stored,) = source.list()
    (tmp_path / "2.zip").unlink()
    os.mkfifo(tmp_path / "2.zip")
    with pytest.raises(ObjectChangedError), source.open_range(stored, 0, 3):
        pass


# Web servers.


@pytest.fixture
def web(server: Server) -> Iterator[Web]:
    with ExitStack() as stack:

        def opened(path: str = "/models") -> HttpSource:
            source = HttpSource(parse_uri(f"{server.url}{path}"), credentials=Credentials({}))
            return stack.enter_context(closing(source))

        yield opened


@pytest.mark.parametrize(
    "elsewhere", ["http://127.0.0.1:99999/x", "http://a..b/x", "http://[::1/x", "http:///x"]
)
def test_a_redirect_to_nowhere_spoils_its_version_alone(
    web: Web, server: Server, elsewhere: str
) -> None:
    server.write({f"models/1/{name}": content for name, content in model().items()})
    server.write({"models/2/saved_model.pb": b"x"})
    server.answers["/models/2/"] = lambda handler: handler.reply(302, Location=elsewhere)
    found = look(web())
    assert found[1].is_known
    assert found[2].incomplete
    assert found[2].incomplete.reason is VersionReason.FETCH_FAILED


@pytest.mark.parametrize("digits", [20, 5000])
def test_a_length_beyond_all_numbers_is_no_fault_of_credentials(
    web: Web, server: Server, digits: int
) -> None:
    server.write({f"models/1/{name}": content for name, content in model().items()})
    server.write({"models/2/saved_model.pb": b"x"})

    def endless(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "9" * digits)
        handler.end_headers()

    server.answers["/models/2/saved_model.pb"] = endless
    found = look(web())
    assert found[1].is_known
    assert found[2].incomplete
    assert found[2].incomplete.reason is VersionReason.FETCH_FAILED
    assert f"a Content-Length of {digits} characters" in found[2].incomplete.message


def test_a_shard_count_beyond_all_numbers_spoils_its_version_alone(
    web: Web, server: Server
) -> None:
    files = [f"1/{name}" for name in model()]
    files += ["2/saved_model.pb", "2/variables/variables.index"]
    files += [f"2/variables/variables.data-00000-of-{'9' * 5000}"]
    content = json.dumps([{"name": name, "size": 9} for name in files])
    server.write({"models.json": content.encode()})
    found = look(web("/models.json"), times=1)
    assert found[1].is_known
    assert found[2].incomplete
    assert found[2].incomplete.reason is VersionReason.MISSING_VARIABLES


def test_an_index_that_is_packed_unasked_is_read(web: Web, server: Server) -> None:
    server.write({f"models/1/{name}": content for name, content in model().items()})
    page = gzip.compress(b'<a href="1/">1</a>')
    server.answers["/models/"] = lambda handler: handler.reply(200, page, Content_Encoding="gzip")
    assert look(web(), times=1)[1].is_known


def test_an_index_that_is_packed_as_nobody_can_read_is_told(web: Web, server: Server) -> None:
    server.answers["/models/"] = lambda handler: handler.reply(200, b"?", Content_Encoding="br")
    with pytest.raises(UnreachableError, match="packed by 'br', which nobody asked for"):
        list(web().survey())


def test_a_list_may_begin_with_a_mark_of_its_byte_order(web: Web, server: Server) -> None:
    content = json.dumps([{"name": f"1/{name}", "size": 9} for name in model()])
    server.write({"models.json": b"\xef\xbb\xbf" + content.encode()})
    assert look(web("/models.json"), times=1)[1].is_known


@pytest.mark.parametrize("odd", ["etag", "mtime", "type"])
def test_what_a_list_says_is_null_is_not_told(web: Web, server: Server, odd: str) -> None:
    shown = [{"name": f"1/{name}", "size": 9, odd: None} for name in model()]
    server.write({"models.json": json.dumps(shown).encode()})
    (found,) = look(web("/models.json"), times=1).values()
    assert found.is_known
    assert not any(stored.fault for stored in found.objects)
    # What a pod keeps of a version that it was listed without.
    shown = [{"name": f"1/{name}", "size": 9} for name in model()]
    server.write({"models.json": json.dumps(shown).encode()})
    assert look(web("/models.json"), times=1)[1].fingerprint == found.fingerprint


@pytest.mark.parametrize(
    "odd", [{"size": -1}, {"size": "9"}, {"etag": 5}, {"mtime": []}, {"type": {}}]
)
@pytest.mark.parametrize("name", ["2/saved_model.pb", "2.zip"])
def test_an_odd_entry_of_a_list_spoils_its_version_alone(
    web: Web, server: Server, name: str, odd: object
) -> None:
    shown: list[object] = [{"name": f"1/{name}", "size": 9} for name in model()]
    shown.insert(1, {"name": name, "size": 9} | odd)  # type: ignore[operator]
    server.write({"models.json": json.dumps(shown).encode()})
    found = look(web("/models.json"), times=1)
    assert found[1].is_known
    assert found[2].incomplete
    assert f"{name}: it is listed with what can't be (Expected" in found[2].incomplete.message


def test_an_odd_folder_of_a_list_is_looked_into_all_the_same(web: Web, server: Server) -> None:
    server.write({f"models/1/{name}": content for name, content in model().items()})
    page = b'[{"name": "1", "type": "directory", "mtime": 5}]'
    json_page = {"Content_Type": "application/json"}
    server.answers["/models/"] = lambda handler: handler.reply(200, page, **json_page)
    assert look(web(), times=1)[1].is_known


@pytest.mark.parametrize("status", [204, 300, 400, 405, 451])
@pytest.mark.parametrize("path", ["/models/2/variables/", "/models/2/saved_model.pb"])
def test_an_answer_about_one_object_holds_up_no_look(
    web: Web, server: Server, path: str, status: int
) -> None:
    for number in (1, 2):
        server.write({f"models/{number}/{name}": content for name, content in model().items()})
    server.answers[path] = lambda handler: handler.reply(status)
    found = look(web(), times=1)
    assert found[1].is_known
    assert found[2].incomplete
    assert found[2].incomplete.reason is VersionReason.FETCH_FAILED
    assert f"{path.strip('/')}" in found[2].incomplete.message
    assert f"was answered {status}" in found[2].incomplete.message


def test_a_file_that_redirects_to_itself_holds_up_no_look(web: Web, server: Server) -> None:
    for number in (1, 2):
        server.write({f"models/{number}/{name}": content for name, content in model().items()})
    path = "/models/2/saved_model.pb"
    server.answers[path] = lambda handler: handler.reply(302, Location=path)
    assert look(web(), times=1)[1].is_known


def test_a_busy_server_is_asked_again_before_an_older_version_is_taken(
    web: Web, server: Server
) -> None:
    for number in (1, 2):
        server.write({f"models/{number}/{name}": content for name, content in model().items()})
    server.answers["/models/2/saved_model.pb"] = lambda handler: handler.reply(408)
    with pytest.raises(AssertionError, match="was answered 408"):
        look(web(), times=1)


def test_a_list_of_lists_without_an_end_is_told(web: Web, server: Server) -> None:
    deep = b'[{"name": "1/a", "size": 1, "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}]"
    server.write({"models.json": deep})
    with pytest.raises(InvalidSourceError, match="JSON that is no list of files"):
        list(web("/models.json").survey())


@pytest.mark.parametrize(
    "page",
    [
        b"".join(b"<a href=%d>" % number for number in range(11)),
        b"[%s]" % b",".join(b'{"name":"%d"}' % number for number in range(11)),
        b"[%s1]" % (b"1," * 70),
    ],
)
def test_a_page_of_more_than_memory_holds_is_told(
    web: Web, server: Server, page: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model_poller.stores.web_index.MAX_SHOWN", 10)
    kind = "application/json" if page.startswith(b"[") else "text/html"
    server.answers["/models/"] = lambda handler: handler.reply(200, page, Content_Type=kind)
    with pytest.raises(InvalidSourceError, match="/models/ shows more than 10 files"):
        list(web().survey())


@pytest.mark.parametrize("digits", [19, 20, 4300])
def test_a_size_that_nobody_can_write_down_spoils_its_version_alone(
    web: Web, server: Server, tmp_path: Path, digits: int
) -> None:
    """Python ends at 4300 digits, and twice that number has one more."""
    server.write({"models/1.zip": zipped(model())})
    listed = b'{"name": "2.zip", "size": %s}, {"name": "1.zip"}' % (b"9" * digits)
    kind = "application/json"
    server.answers["/models/"] = lambda it: it.reply(200, b"[%s]" % listed, Content_Type=kind)
    (tmp_path / "pod").mkdir()
    world = World(tmp_path / "pod", source=web())
    world.settle()
    assert list(world.base()) == ["1"]
    assert world.version(2).state in (VersionState.INCOMPLETE, VersionState.DISCOVERED)
    assert "bytes" in world.version(2).message


@pytest.mark.parametrize("moment", ["Thu, 01 Jan 1960 00:00:00 GMT", "soon", ""])
def test_a_time_that_is_no_version_is_told(web: Web, server: Server, moment: str) -> None:
    server.answers["/a.zip"] = lambda handler: handler.reply(200, b"PK", Last_Modified=moment)
    with pytest.raises(InvalidSourceError, match="no Last-Modified that could number"):
        list(web("/a.zip").survey())


def test_a_time_without_a_zone_is_the_same_version_in_every_pod(
    web: Web, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = "Thu, 01 Jan 2015 00:00:00 -0000"
    server.answers["/a.zip"] = lambda handler: handler.reply(200, b"PK", Last_Modified=told)
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert look(web("/a.zip"), times=1).keys() == {1420070400}
    finally:
        monkeypatch.undo()
        time.tzset()


# Answers in XML.


@pytest.mark.parametrize("encoding", ["foo", "utf-7", "gb18030"])
def test_xml_in_an_encoding_that_nobody_reads_is_no_answer(encoding: str) -> None:
    assert parse_xml(f'<?xml version="1.0" encoding="{encoding}"?><a/>'.encode()) is None
