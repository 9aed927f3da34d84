"""Small objects, of which several are asked for before anybody waits for the first."""

from __future__ import annotations

import socket
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import google_crc32c
import pytest

from model_poller import fetch
from model_poller.errors import AccessDeniedError, CorruptDownloadError, UnreachableError
from model_poller.fetch import FetchLimits
from model_poller.stores import StoredObject
from model_poller.stores.credentials import Credentials
from model_poller.stores.opening import SourceSettings, open_source
from model_poller.stores.uri import parse_uri
from tests.unit.poller.answering import Answering, Reply, Request, s3_checksum, shown

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from model_poller.stores import Source

NAMES = [f"1/{number:02}" for number in range(40)]
CONTENT = {name: f"{name} weighs much".encode() * 9 for name in NAMES}
WAIT_SECONDS = 20


class Store:
    """Speaks as much of S3 and of Google's API as a fetch asks."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.waiting = self.most_waiting = 0
        self.together = 0
        """So many requests have to be there before one is answered."""
        self.gathered = threading.Event()
        self.most_workers = 0
        self.refusals: dict[str, list[int]] = {}
        self.lies: dict[str, bytes] = {}

    def __call__(self, request: Request) -> Reply:
        name = request.target.partition("?")[0].replace("%2F", "/").partition("models/")[2]
        name = name.removeprefix("o/")
        with self.lock:
            self.waiting += 1
            self.most_waiting = max(self.most_waiting, self.waiting)
            if self.waiting >= self.together:
                self.gathered.set()
            refusals = self.refusals.get(name)
            refused = refusals.pop(0) if refusals else None
            running = [t for t in threading.enumerate() if t.name.startswith("download-")]
            self.most_workers = max(self.most_workers, len(running))
        assert self.gathered.wait(WAIT_SECONDS), "nothing more is asked for"
        with self.lock:
            self.waiting -= 1
        if refused:
            return Reply(refused)
        content = self.lies.get(name, CONTENT[name])
        if "/storage/v1/" in request.target:
            return shown(request, content, {"x-goog-generation": "7"})
        return shown(request, content, {"ETag": '"several-2"', **s3_checksum(CONTENT[name])})


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def server(store: Store) -> Iterator[Answering]:
    with Answering(store) as running:
        yield running


@pytest.fixture(params=["s3", "gs"])
def source(request: pytest.FixtureRequest, server: Answering) -> Iterator[Source]:
    made = opened(request.param, server.url)
    yield made
    made.close()


def opened(scheme: str, url: str) -> Source:
    return open_source(
        SourceSettings(
            locations=(parse_uri(f"{scheme}://models"),),
            endpoint=url,
            anonymous=True,
            path_style=True,
            credentials=Credentials(),
        )
    )


def listed(source: Source, name: str) -> StoredObject:
    (root,) = source.locations
    if root.scheme == "s3":
        return StoredObject(root, name, len(CONTENT[name]), "several-2")
    told = google_crc32c.value(CONTENT[name])
    return StoredObject(root, name, len(CONTENT[name]), "7", crc32c=told)


UNLIMITED = FetchLimits()


def download(source: Source, folder: Path, limits: FetchLimits = UNLIMITED) -> None:
    fetch.download(
        source,
        {folder / name: listed(source, name) for name in NAMES},
        stopped=threading.Event(),
        progress=lambda _: None,
        limits=limits,
    )


def found(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in NAMES}


def test_few_workers_have_as_many_requests_out_as_many_had(
    store: Store, server: Answering, source: Source, tmp_path: Path
) -> None:
    store.together = fetch.SMALL_WORKERS
    download(source, tmp_path)
    assert found(tmp_path) == CONTENT
    assert store.most_workers == fetch.SMALL_WORKERS // fetch._AHEAD
    assert len(server.asked) == len(NAMES), "each was asked for once"


@pytest.mark.parametrize("parallelism", [3, 8])
def test_no_more_requests_are_out_than_a_user_allows(
    store: Store, server: Answering, source: Source, tmp_path: Path, parallelism: int
) -> None:
    store.together = parallelism
    download(source, tmp_path, FetchLimits(parallelism))
    assert found(tmp_path) == CONTENT
    assert store.most_waiting == parallelism
    assert len(server.asked) == len(NAMES)


def test_what_a_server_hung_up_on_is_asked_for_anew(
    store: Store, server: Answering, source: Source, tmp_path: Path
) -> None:
    store.together = fetch.SMALL_WORKERS

    def hang_up() -> None:
        store.gathered.wait(WAIT_SECONDS)
        server.hang_up()

    cutter = threading.Thread(target=hang_up)
    cutter.start()
    download(source, tmp_path)
    cutter.join()
    assert found(tmp_path) == CONTENT


def test_nothing_waits_behind_an_object_that_is_refused(
    store: Store, source: Source, tmp_path: Path
) -> None:
    store.gathered.set()
    store.refusals = {NAMES[0]: [503], NAMES[9]: [503, 503]}
    download(source, tmp_path)
    assert found(tmp_path) == CONTENT


@pytest.mark.parametrize("bandwidth", [None, 1e9])
def test_bytes_of_another_object_are_found(
    store: Store, source: Source, tmp_path: Path, bandwidth: float | None
) -> None:
    """Answers that are taken from the wrong connection would be no better."""
    store.gathered.set()
    store.lies = {NAMES[5]: CONTENT[NAMES[6]]}
    with pytest.raises(CorruptDownloadError, match=NAMES[5]):
        download(source, tmp_path, FetchLimits(bandwidth=bandwidth))


def test_a_refusal_ends_all(store: Store, source: Source, tmp_path: Path) -> None:
    store.gathered.set()
    store.refusals = {name: [403] * 9 for name in NAMES}
    with pytest.raises(AccessDeniedError):
        download(source, tmp_path)


def test_what_takes_long_has_a_worker_of_its_own_and_nothing_waits_behind_it(
    store: Store, source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "SMALL_BYTES", len(CONTENT[NAMES[0]]))
    store.together = fetch.WORKERS
    download(source, tmp_path)
    assert found(tmp_path) == CONTENT
    assert store.most_workers == fetch.WORKERS


def test_a_server_that_is_not_there_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "RETRIES", replace(fetch.RETRIES, attempts=1))
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        source = opened("s3", f"http://127.0.0.1:{nobody.getsockname()[1]}")
        with pytest.raises(UnreachableError, match="does not answer"):
            download(source, tmp_path)
        source.close()
