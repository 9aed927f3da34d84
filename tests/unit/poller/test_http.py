"""Versions on plain web servers: real ones, of the standard library."""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from model_poller.bring import Bringer
from model_poller.errors import (
    AccessDeniedError,
    BucketNotFoundError,
    InvalidSourceError,
    ObjectChangedError,
    UnreachableError,
)
from model_poller.stores.credentials import Credentials
from model_poller.stores.http import HttpSource
from model_poller.stores.uri import parse_uri
from model_poller.versions import discover
from model_poller.volume.store import Store
from tests.support.faults import Fault, FaultyServer
from tests.unit.poller.doubles import below, model, tarred, zipped
from tests.unit.poller.world import World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from model_poller.stores import StoredObject


class Handler(http.server.SimpleHTTPRequestHandler):
    """The standard library's index and files; with more of a server's habits where asked for."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_HEAD(self) -> None:
        if not self._answered():
            super().do_HEAD()

    def do_GET(self) -> None:
        if not self._answered():
            super().do_GET()

    def _answered(self) -> bool:
        self.server.seen.append((self.command, self.path, dict(self.headers)))
        custom = self.server.answers.get(self.path)
        if custom:
            custom(self)
            return True
        path = Path(self.translate_path(self.path))
        if not self.server.ranges or not path.is_file():
            return False
        content = path.read_bytes()
        tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
        if self.headers.get("If-Match") not in (None, tag):
            self.reply(412)
            return True
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        told = {"ETag": tag, "Accept-Ranges": "bytes"}
        if wanted:
            self.reply(206, content[int(wanted[1]) : int(wanted[2]) + 1], **told)
        else:
            self.reply(200, content, **told)
        return True

    def reply(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    """A web server of one folder."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        def handler(*arguments: object) -> Handler:
            return Handler(*arguments, directory=str(folder))  # type: ignore[arg-type]

        super().__init__(("127.0.0.1", 0), handler)
        self.folder = folder
        self.ranges = True
        self.answers: dict[str, Callable[[Handler], None]] = {}
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"

    def write(self, files: dict[str, bytes]) -> None:
        for name, content in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def serve(folder: Path) -> Iterator[Server]:
    folder.mkdir()
    with Server(folder) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    yield from serve(tmp_path / "served")


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Server]:
    yield from serve(tmp_path / "elsewhere")


_OPENED: list[HttpSource] = []


@pytest.fixture(autouse=True)
def _closed_at_the_end() -> Iterator[None]:
    yield
    while _OPENED:
        _OPENED.pop().close()


def source(server: Server, path: str = "/models", **credentials: str) -> HttpSource:
    location = parse_uri(f"{server.url}{path}")
    _OPENED.append(HttpSource(location, credentials=Credentials(credentials)))
    return _OPENED[-1]


def read(found: HttpSource, stored: StoredObject, start: int, length: int) -> bytes:
    buffer = memoryview(bytearray(length))
    done = 0
    with found.open_range(stored, start, length) as body:
        while done < length:
            done += body.readinto(buffer[done:])
    return bytes(buffer)


FILES = {f"models/0001/{name}": content for name, content in model().items()}


def test_the_index_of_a_folder_shows_its_versions(server: Server) -> None:
    server.write({**FILES, "models/2.zip": b"zip", "models/notes.txt": b"", "models/logs/a": b""})
    found = {stored.path: stored.size for stored in source(server).list()}
    assert found == {
        **{name.removeprefix("models/"): len(content) for name, content in FILES.items()},
        "2.zip": 3,
    }
    asked = [path for method, path, _ in server.seen if method == "GET"]
    assert asked == ["/models/", "/models/0001/", "/models/0001/variables/"]


def test_links_that_lead_elsewhere_are_not_followed(server: Server) -> None:
    server.write({"models/1.zip": b"zip"})
    page = (
        b'<a href="../">up</a><a href="?C=M;O=A">by time</a><a href="/secret/2.zip">x</a>'
        b'<a href="//elsewhere/3.zip">y</a><a href="1.zip">1</a><a href="1.zip">again</a>'
    )
    server.answers["/models/"] = lambda handler: handler.reply(200, page, Content_Type="text/html")
    assert [stored.path for stored in source(server).list()] == ["1.zip"]


def test_a_list_in_json_needs_no_further_calls(server: Server) -> None:
    server.write(FILES)
    listed = [
        {"name": name.removeprefix("models/"), "size": len(content), "mtime": "now"}
        for name, content in FILES.items()
    ]
    server.write({"models/index.json": json.dumps(listed).encode()})
    found = source(server, "/models/index.json")
    assert {stored.path for stored in found.list()} == {entry["name"] for entry in listed}
    assert len(server.seen) == 1
    (graph,) = [stored for stored in found.list() if stored.path.endswith("saved_model.pb")]
    assert read(found, graph, 3, 5) == FILES["models/0001/saved_model.pb"][3:8]


def test_the_json_of_nginx_is_read(server: Server) -> None:
    folder = [{"name": "1", "type": "directory", "mtime": "Mon, 23 Nov 2026 10:00:00 GMT"}]
    files = [{"name": "saved_model.pb", "type": "file", "mtime": "Mon", "size": 7}]
    for path, entries in (("/models/", folder), ("/models/1/", files)):
        body = json.dumps(entries).encode()
        server.answers[path] = lambda handler, body=body: handler.reply(  # type: ignore[misc]
            200, body, Content_Type="application/json"
        )
    (stored,) = source(server).list()
    assert (stored.path, stored.size, stored.generation) == ("1/saved_model.pb", 7, "Mon-7")


@pytest.mark.parametrize(
    ("etag", "pinned"), [("abc", '"abc"'), ('"abc"', '"abc"'), ('W/"abc"', None), ("", None)]
)
def test_a_listed_etag_pins_reads_unless_it_is_weak(
    server: Server, etag: str, pinned: str | None
) -> None:
    server.write({"models/1.zip": b"zip"})
    listed = [{"name": "1.zip", "size": 3, "etag": etag}]
    server.write({"models/index.json": json.dumps(listed).encode()})
    server.ranges = False
    found = source(server, "/models/index.json")
    (stored,) = found.list()
    assert read(found, stored, 0, 3) == b"zip"
    assert server.seen[-1][2].get("If-Match") == pinned


@pytest.mark.parametrize(
    "listed", [{"etag": '"x\r\nHost: other"'}, {"etag": '"€"'}, {"mtime": "x\ny GMT"}]
)
def test_a_listed_validator_that_can_not_be_sent_is_told_as_the_fault_of_the_list(
    server: Server, listed: dict[str, str]
) -> None:
    server.write({"models/1.zip": b"zip"})
    server.write(
        {"models/index.json": json.dumps([{"name": "1.zip", "size": 3, **listed}]).encode()}
    )
    found = source(server, "/models/index.json")
    (stored,) = found.list()
    with pytest.raises(InvalidSourceError, match=r"models/1\.zip on .* is listed with"):
        read(found, stored, 0, 3)


def test_an_endless_tree_of_folders_is_given_up(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model_poller.stores.http.MAX_CALLS", 20)
    page = b'<a href="1/">1</a><a href="2/">2</a>'

    class Everywhere(dict[str, object]):
        def get(self, path: str, _: object = None) -> object:
            return lambda handler: handler.reply(200, page, Content_Type="text/html")

    server.answers = Everywhere()  # type: ignore[assignment]
    with pytest.raises(InvalidSourceError, match="more than 20 folders"):
        source(server).list()
    assert len(server.seen) == 1 + 20


def test_one_archive_with_a_number_is_that_version(server: Server) -> None:
    server.write({"models/7.tar.gz": b"packed"})
    (stored,) = source(server, "/models/7.tar.gz").list()
    assert (stored.path, stored.size, stored.in_ranges) == ("7.tar.gz", 6, True)


def test_one_archive_that_is_replaced_in_place_is_numbered_by_its_time(server: Server) -> None:
    server.answers["/model.zip"] = lambda handler: handler.reply(
        200, b"zip", Last_Modified="Thu, 01 Jan 1970 00:02:03 GMT"
    )
    (stored,) = source(server, "/model.zip").list()
    assert (stored.path, stored.version) == ("model.zip", 123)
    assert stored.url == f"{server.url}/model.zip"

    zone = "+99999999999999999"
    for headers in ({}, {"Last-Modified": f"Thu, 01 Jan 1970 00:02:03 {zone}"}):
        server.answers["/model.zip"] = lambda handler, headers=headers: handler.reply(  # type: ignore[misc]
            200, b"zip", **headers
        )
        with pytest.raises(InvalidSourceError, match="no Last-Modified"):
            source(server, "/model.zip").list()


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model.zip", zipped(below("0002", model()))),
        ("model.tar", tarred(below("./0002", model()), "w")),
        ("model.tar.gz", tarred({"__MACOSX/._x": b"", **below("2", model())})),
    ],
)
def test_an_archive_without_a_number_is_the_version_whose_folder_it_holds(
    server: Server, tmp_path: Path, name: str, content: bytes, ranges: bool
) -> None:
    server.ranges = ranges
    server.write({name: content})
    found = source(server, f"/{name}")
    world = World(tmp_path / "pod", source=found)
    world.settle(6, seconds=6)
    assert world.base() == {"2": model()}
    # Looked into once.
    before = len(server.seen)
    world.turn(30)
    assert [method for method, _, _ in server.seen[before:]] == ["HEAD"]
    server.write({name: zipped(below("3", model())) if name.endswith(".zip") else content})
    assert {stored.version for stored in found.list()} == {3 if name.endswith(".zip") else 2}


def test_ranges_are_those_of_the_listed_file(server: Server) -> None:
    server.write({"models/1.zip": b"0123456789"})
    found = source(server)
    (stored,) = found.list()
    assert read(found, stored, 3, 4) == b"3456"
    server.write({"models/1.zip": b"9876543210"})
    with pytest.raises(ObjectChangedError):
        read(found, stored, 3, 4)


def test_without_an_etag_ranges_are_those_of_the_listed_time(server: Server) -> None:
    server.ranges = False
    server.write({"models/1.zip": b"0123456789"})
    found = source(server)
    (stored,) = found.list()
    assert read(found, stored, 0, 10) == b"0123456789"
    method, _, headers = server.seen[-1]
    assert method == "GET"
    assert headers["If-Unmodified-Since"] == stored.generation.removesuffix("-10")
    server.answers["/models/1.zip"] = lambda handler: handler.reply(412)
    with pytest.raises(ObjectChangedError):
        read(found, stored, 0, 10)


def test_a_server_without_ranges_is_asked_for_the_whole(server: Server, tmp_path: Path) -> None:
    server.ranges = False
    files = {"1/" + name: content for name, content in model(b"w" * 20_000_000).items()}
    server.write({"models/1.zip": zipped(files)})
    found = source(server)
    (stored,) = found.list()
    assert not stored.in_ranges

    store = Store(tmp_path / "base" / "m", tmp_path / "base")
    store.prepare()
    (version,) = discover(found.list(), {}).values()
    Bringer(found, store).bring(version, stopped=threading.Event(), progress=lambda _: None)
    assert store.scan().complete == {1}


def test_a_server_that_falls_silent_is_asked_again(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model_poller.stores.http_ranges.TIMEOUT_SECONDS", 0.3)
    server.write({"models/1.zip": zipped(model(b"w" * 100_000))})
    left = [2]

    def choose(method: str, path: str) -> Fault | None:
        if method != "GET" or path.endswith("/") or not left[0]:
            return None
        left[0] -= 1
        return Fault(keep=0.5, stall=True)

    store = Store(tmp_path / "base" / "m", tmp_path / "base")
    store.prepare()
    with FaultyServer(server.url, choose) as proxy:
        found = HttpSource(parse_uri(f"{proxy.url}/models"), credentials=Credentials({}))
        _OPENED.append(found)
        (version,) = discover(found.list(), {}).values()
        Bringer(found, store).bring(version, stopped=threading.Event(), progress=lambda _: None)
    assert store.scan().complete == {1}
    assert left == [0]


def test_redirects_are_followed_and_credentials_stay_at_home(
    server: Server, elsewhere: Server
) -> None:
    elsewhere.write({"real/1.zip": b"0123456789"})
    for path in ("/models/", "/models/1.zip"):
        target = f"{elsewhere.url}{path.replace('models', 'real')}"
        server.answers[path] = lambda handler, target=target: handler.reply(  # type: ignore[misc]
            302, Location=target
        )
    server.answers["/models/"] = lambda handler: handler.reply(
        200, b'<a href="1.zip">1</a>', Content_Type="text/html"
    )
    found = source(server, HTTP_BEARER_TOKEN="secret")
    (stored,) = found.list()
    assert read(found, stored, 2, 3) == b"234"
    assert all(headers["Authorization"] == "Bearer secret" for _, _, headers in server.seen)
    assert elsewhere.seen
    assert not any("Authorization" in headers for _, _, headers in elsewhere.seen)


@pytest.mark.parametrize("target", ["/größe x/1.zip", "/gr%C3%B6%C3%9Fe%20x/1.zip"])
def test_a_redirect_may_name_a_path_as_it_is(server: Server, target: str) -> None:
    server.write({"größe x/1.zip": b"0123456789"})

    def redirect(handler: Handler) -> None:
        handler.send_response_only(302)
        # As bytes, which is how most servers write what is no ASCII.
        handler._headers_buffer.append(f"Location: {target}\r\n".encode())  # type: ignore[attr-defined]
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    server.answers["/models/1.zip"] = redirect
    found = source(server, "/models/1.zip")
    (stored,) = found.list()
    assert read(found, stored, 2, 3) == b"234"


def test_endless_redirects_end(server: Server) -> None:
    server.answers["/models/"] = lambda handler: handler.reply(302, Location="/models/")
    with pytest.raises(UnreachableError, match="redirects more than"):
        source(server).list()


def test_a_name_and_a_password_are_sent(server: Server) -> None:
    server.write({"models/1.zip": b"zip"})
    source(server, HTTP_USERNAME="reader", HTTP_PASSWORD="pass").list()
    expected = base64.b64encode(b"reader:pass").decode()
    assert {headers["Authorization"] for _, _, headers in server.seen} == {f"Basic {expected}"}


def test_a_refusal_names_who_asked_and_no_secret(server: Server) -> None:
    server.answers["/models/"] = lambda handler: handler.reply(403)
    with pytest.raises(AccessDeniedError, match="reader may not read") as caught:
        source(server, HTTP_USERNAME="reader", HTTP_PASSWORD="pass").list()
    assert "pass" not in str(caught.value).replace("HTTP_PASSWORD", "")
    with pytest.raises(AccessDeniedError, match="an anonymous caller"):
        source(server).list()


def test_what_is_not_there_is_told(server: Server) -> None:
    with pytest.raises(BucketNotFoundError, match="there is nothing at"):
        source(server, "/nowhere").list()


def test_a_broken_list_is_told(server: Server) -> None:
    server.write({"models/index.json": b'{"versions": 1}'})
    with pytest.raises(InvalidSourceError, match="no list of files"):
        source(server, "/models/index.json").list()


def test_a_busy_server_is_asked_again_a_few_times(server: Server) -> None:
    server.answers["/models/"] = lambda handler: handler.reply(503)
    with pytest.raises(UnreachableError, match="answered 503"):
        source(server).list()
    assert len(server.seen) == 3


def test_secrets_in_a_uri_are_refused() -> None:
    from model_poller.errors import InvalidSettingsError

    with pytest.raises(InvalidSettingsError, match="takes no query"):
        parse_uri("https://host/models?token=secret")
    with pytest.raises(InvalidSettingsError, match="no storage URI"):
        parse_uri("https://user:secret@host/models")


def test_the_server_that_was_named_is_the_same_however_its_name_is_written(server: Server) -> None:
    port = server.server_port
    host = f"http://localhost:{port}"
    server.answers["/models/"] = lambda handler: handler.reply(302, Location=f"{host}/real/")
    server.answers["/real/"] = lambda handler: handler.reply(
        200, f'<a href="{host}/real/1.zip">1</a>'.encode(), Content_Type="text/html"
    )
    server.write({"models/1.zip": b"zip"})
    location = parse_uri(f"http://LocalHost:{port}/models")
    found = HttpSource(location, credentials=Credentials({"HTTP_BEARER_TOKEN": "secret"}))
    _OPENED.append(found)
    assert [stored.path for stored in found.list()] == ["1.zip"]
    assert all(headers["Authorization"] == "Bearer secret" for _, _, headers in server.seen)


def test_a_list_at_the_end_of_a_redirect_is_named_without_what_proves_who_asks(
    server: Server,
) -> None:
    server.answers["/models/index.json"] = lambda handler: handler.reply(
        302, Location="/kept/list.json?X-Amz-Signature=hidden"
    )
    server.answers["/kept/list.json?X-Amz-Signature=hidden"] = lambda handler: handler.reply(
        200, b"{}"
    )
    with pytest.raises(InvalidSourceError, match=r"kept/list\.json\?… shows JSON") as told:
        source(server, "/models/index.json").list()
    assert "hidden" not in str(told.value)
