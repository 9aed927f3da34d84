"""The whole poller on a plain web server, also one that fails in every way."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from model_poller.status import SourceReason, VersionReason, VersionState
from tests.support.faults import Fault, FaultyServer
from tests.support.store_servers import Server
from tests.support.waiting import eventually
from tests.unit.poller.doubles import below, model, tarred, zipped
from tests.unit.poller.program import Program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.e2e

FILES = model(os.urandom(3_000_000), shards=2)
MARKER = "--complete-marker=DONE"
SOMETIMES = 3
"""So many answers of each kind are faulty, then none."""

FAULTS = {
    "cut": Fault(keep=0.5),
    "cut before the first byte": Fault(keep=0.0),
    "late": Fault(delay=0.3),
    "403": Fault(status=403),
    "404": Fault(status=404),
    "429": Fault(status=429, headers={"Retry-After": "1"}),
    "500": Fault(status=500),
    "503": Fault(status=503),
}


@dataclass
class WebServer:
    """The standard library's, as a process of its own: it shows indexes, and reads no ranges."""

    folder: Path
    url: str

    def write(self, files: dict[str, bytes]) -> None:
        """Put files there in an order of which the last one is seen last."""
        for name, content in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            # Nobody sees it half: how a half one is met, others test.
            scratch = self.folder / "scratch"
            scratch.write_bytes(content)
            scratch.rename(path)


@pytest.fixture
def web(tmp_path: Path) -> Iterator[WebServer]:
    folder = tmp_path / "www"
    (folder / "models").mkdir(parents=True)
    server = Server(
        tmp_path / "www.log",
        lambda port: [
            *(sys.executable, "-m", "http.server", str(port)),
            *("--bind=127.0.0.1", "--protocol=HTTP/1.1", f"--directory={folder}"),
        ],
    )
    yield WebServer(folder, server.url)
    server.stop()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Program]]:
    started: list[Program] = []

    def begin(uri: str, *more: str) -> Program:
        started.append(
            Program(
                tmp_path,
                f"--storage-uri={uri}",
                f"--models-dir={tmp_path}/pod",
                "--model-name=imagenet",
                "--server-address=127.0.0.1:9",
                "--poll-interval=0.5",
                *more,
            )
        )
        return started[-1]

    yield begin
    for program in started:
        program.kill()


def served(tmp_path: Path, version: int) -> dict[str, bytes]:
    folder = tmp_path / f"pod/imagenet/{version}"
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_folders_and_archives_are_brought(
    web: WebServer, start: Callable[..., Program], tmp_path: Path
) -> None:
    web.write(below("models/0001", {**FILES, "DONE": b""}))
    program = start(f"{web.url}/models/", MARKER)
    program.wait_for(1, VersionState.PUBLISHED)
    assert served(tmp_path, 1) == {**FILES, "DONE": b""}
    web.write({"models/2.tar.gz": tarred(FILES)})
    program.wait_for(2, VersionState.PUBLISHED)
    assert served(tmp_path, 2) == FILES


def test_an_archive_that_is_replaced_in_place_becomes_the_next_version(
    web: WebServer, start: Callable[..., Program], tmp_path: Path
) -> None:
    first, second = model(b"first"), model(b"second")
    web.write({"model.zip": zipped(first)})
    os.utime(web.folder / "model.zip", (1_000_000, 1_000_000))
    program = start(f"{web.url}/model.zip")
    program.wait_for(1_000_000, VersionState.PUBLISHED)
    assert served(tmp_path, 1_000_000) == first

    web.write({"model.zip": zipped(second)})
    os.utime(web.folder / "model.zip", (2_000_000, 2_000_000))
    program.wait_for(2_000_000, VersionState.PUBLISHED)
    assert served(tmp_path, 2_000_000) == second


@pytest.mark.parametrize(
    ("fault", "form"),
    # An archive has to settle before it is taken, so only what reads it in another way is tried.
    [*((fault, "folder") for fault in FAULTS), ("cut", "archive"), ("503", "archive")],
)
def test_faults_heal_by_themselves(
    web: WebServer,
    start: Callable[..., Program],
    tmp_path: Path,
    fault: str,
    form: str,
) -> None:
    whole = {**FILES, "DONE": b""} if form == "folder" else FILES
    if form == "folder":
        web.write(below("models/1", whole))
    else:
        web.write({"models/1.zip": zipped(whole)})
    left = {"index": SOMETIMES, "HEAD": SOMETIMES, "GET": SOMETIMES}

    def choose(method: str, path: str) -> Fault | None:
        kind = "index" if path.endswith("/") else method
        if not left[kind]:
            return None
        left[kind] -= 1
        return FAULTS[fault]

    with FaultyServer(web.url, choose) as proxy:
        program = start(f"{proxy.url}/models/", MARKER)
        program.wait_for(1, VersionState.PUBLISHED)
        assert served(tmp_path, 1) == whole
        assert left["index"] == 0
        assert left["GET"] < SOMETIMES
        reads = sum(method == "GET" and path[-1] != "/" for method, path in proxy.calls)
    assert reads <= (SOMETIMES + 1) * len(whole), "calls are bounded"


def test_damage_on_the_way_is_noticed_by_what_an_archive_says_of_itself(
    web: WebServer, start: Callable[..., Program], tmp_path: Path
) -> None:
    web.write({"models/1.zip": zipped(FILES)})
    left = [1]

    def choose(method: str, path: str) -> Fault | None:
        if method == "GET" and path.endswith(".zip") and left[0]:
            left[0] -= 1
            return Fault(flip=True)
        return None

    with FaultyServer(web.url, choose) as proxy:
        program = start(f"{proxy.url}/models/")
        program.wait_for(1, VersionState.PUBLISHED)
    assert left == [0]
    assert served(tmp_path, 1) == FILES


def test_a_broken_archive_is_fetched_twice_and_no_more(
    web: WebServer, start: Callable[..., Program]
) -> None:
    web.write({"models/1.zip": zipped(FILES)[:-100]})
    with FaultyServer(web.url, lambda *_: None) as proxy:
        program = start(f"{proxy.url}/models/")
        status = program.wait_for(1, VersionState.QUARANTINED)
        assert status.versions[0].reason is VersionReason.BAD_ARCHIVE
        lists = sum(path == "/models/" for _, path in proxy.calls)
        eventually(
            lambda: sum(path == "/models/" for _, path in proxy.calls) > lists + 2,
            what="further looks",
            within=20,
        )
        assert proxy.calls.count(("GET", "/models/1.zip")) == 2


def test_a_folder_that_is_not_there_is_told_until_it_comes(
    web: WebServer, start: Callable[..., Program], tmp_path: Path
) -> None:
    program = start(f"{web.url}/later/")
    eventually(
        lambda: program.status().source.reason is SourceReason.BUCKET_NOT_FOUND,
        what="the missing folder",
        within=20,
        every=0.05,
    )
    web.write({"later/1.zip": zipped(FILES)})
    program.wait_for(1, VersionState.PUBLISHED)
    assert served(tmp_path, 1) == FILES
