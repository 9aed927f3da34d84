"""Servers that send a byte now and then, and what else would never end."""

from __future__ import annotations

import os
import socket
import struct
import threading
import uuid
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from model_poller import fetch
from model_poller.archives import peek
from model_poller.errors import AccessDeniedError, UnreachableError
from model_poller.look import Looker
from model_poller.publishing.main import main as publish
from model_poller.retry import Deadline, RetryPolicy, Tries, check_deadline
from model_poller.status import SourceReason
from model_poller.stores import StoredObject, http_calls
from model_poller.stores.connections import Connections
from model_poller.stores.credentials import Credentials
from model_poller.stores.gcs import GcsSource
from model_poller.stores.http import HttpSource
from model_poller.stores.http_calls import HttpCalls
from model_poller.stores.s3 import S3Source
from model_poller.stores.uri import parse_uri
from tests.unit.poller.doubles import Clock, MemorySource, model

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from model_poller.errors import PollerError
    from model_poller.status import SourceStatus
    from model_poller.stores import Entry

BODY = b"x" * 40
HEAD = b"HTTP/1.1 206 Partial Content\r\nContent-Length: 40\r\nContent-Range: bytes 0-39/40\r\n\r\n"


@contextmanager
def trickling(pieces: int, whole: bytes = HEAD + BODY) -> Iterator[str]:
    """Answers every request, the last so many bytes of it one at a time, as slowly as can be."""
    ended = threading.Event()

    def answer(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            while connection.recv(65536):
                connection.sendall(whole[: len(whole) - pieces])
                for byte in whole[len(whole) - pieces :]:
                    if ended.wait(0.05):
                        return
                    connection.sendall(bytes([byte]))

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threads.append(threading.Thread(target=answer, args=(connection,)))
                threads[-1].start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threads = [threading.Thread(target=accept)]
        threads[0].start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        ended.set()
        listener.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()


@pytest.mark.parametrize("pieces", [30, 60, len(HEAD) + 40], ids=["body", "head", "first line"])
def test_an_answer_that_trickles_is_given_up(pieces: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_calls, "_DEADLINE_SECONDS", 0.3)
    monkeypatch.setattr(http_calls, "RETRIES", replace(http_calls.RETRIES, attempts=2))
    with trickling(pieces) as url:
        calls = HttpCalls(url, timeout=0.15)
        with pytest.raises(UnreachableError, match=r"timed out|too long"):
            calls.ask("GET", lambda: ("/", {}))
        calls.close()


def test_a_listing_of_googles_that_trickles_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_calls, "_DEADLINE_SECONDS", 0.3)
    hasty = partial(HttpCalls, timeout=0.15)
    monkeypatch.setattr("model_poller.stores.gcs.HttpCalls", hasty)
    monkeypatch.setattr(http_calls, "RETRIES", replace(http_calls.RETRIES, attempts=1))
    with trickling(60) as url:
        source = GcsSource(
            [parse_uri("gs://models")], endpoint=url, anonymous=True, credentials=Credentials()
        )
        with pytest.raises(UnreachableError, match=r"timed out|too long"):
            source.list()
        source.close()


def test_an_answer_in_time_is_taken_however_it_comes() -> None:
    with trickling(10) as url:
        calls = HttpCalls(url)
        assert calls.send("GET", "/", {}).body == BODY
        calls.close()


def test_a_part_that_trickles_is_asked_for_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "_PART_SECONDS", 0.3)
    monkeypatch.setattr("model_poller.stores.connections._SLICE_SECONDS", 0.1)
    monkeypatch.setattr(fetch, "RETRIES", replace(fetch.RETRIES, attempts=1))
    with trickling(39) as url:
        source = HttpSource(parse_uri(url), credentials=Credentials())
        bucket = MemorySource()
        bucket.checksums = False
        bucket.put("1.zip", BODY)
        stored = replace(bucket.list()[0], root=source.locations[0])
        with pytest.raises(UnreachableError, match=r"1\.zip: \d+ of 40 bytes came in"):
            fetch.download(
                source,
                {tmp_path / "1.zip": stored},
                stopped=threading.Event(),
                progress=lambda _: None,
            )
        source.close()


def test_an_archive_that_trickles_is_not_looked_into_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(peek, "_SECONDS", 0.3)
    monkeypatch.setattr("model_poller.stores.connections._SLICE_SECONDS", 0.1)
    with trickling(39) as url:
        source = HttpSource(parse_uri(url), credentials=Credentials())
        stored = StoredObject(source.locations[0], "1.tar", len(BODY), "")
        with pytest.raises(UnreachableError, match=r"looking into .* took longer"):
            peek.names(source, stored)
        source.close()


def test_a_read_gives_what_there_is_and_the_rest_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model_poller.stores.connections._SLICE_SECONDS", 0.1)
    with trickling(39) as url:
        connections = Connections(url, 10.0)
        connection = connections.new()
        response = connections.request(connection, "GET", "/", {}, seconds=10.0)
        buffer = memoryview(bytearray(40))
        done = counts = 0
        while done < 40:
            done += response.receive(buffer[done:], 10.0)
            counts += 1
        assert bytes(buffer) == BODY
        assert counts > 1
        connection.close()


LARGE = bytes(range(256)) * 1200
LARGE_HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(LARGE)


@pytest.fixture
def _short_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model_poller.stores.connections._SLICE_SECONDS", 0.1)
    monkeypatch.setattr("model_poller.stores.connections._SLICE", struct.pack("ll", 0, 100_000))


@pytest.mark.usefixtures("_short_slices")
def test_what_the_system_waits_for_comes_whole_or_a_piece_at_a_time() -> None:
    for pieces, most in ((0, 2), (20, 20)):
        with trickling(pieces, LARGE_HEAD + LARGE) as url:
            connections = Connections(url, 10.0)
            connection = connections.new()
            response = connections.request(connection, "GET", "/", {}, seconds=10.0)
            buffer = memoryview(bytearray(len(LARGE)))
            counts: list[int] = []
            while sum(counts) < len(LARGE):
                counts.append(response.receive(buffer[sum(counts) :], 10.0))
            assert bytes(buffer) == LARGE
            assert len(counts) <= most
            # The same connection serves the next request, which waits by itself again.
            connections.request(connection, "GET", "/", {}, seconds=10.0)
            connection.close()


@pytest.mark.usefixtures("_short_slices")
def test_what_the_system_waits_for_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_calls, "_DEADLINE_SECONDS", 0.3)
    for pieces in (100, 200_000):
        with trickling(pieces, LARGE_HEAD + LARGE) as url:
            calls = HttpCalls(url, timeout=0.15)
            with pytest.raises(UnreachableError, match=r"timed out|too long"):
                calls.send("GET", "/", {})
            calls.close()


@pytest.mark.usefixtures("_short_slices")
def test_a_large_body_that_stops_is_given_up() -> None:
    with trickling(0, LARGE_HEAD + LARGE[:-1]) as url:
        connections = Connections(url, 10.0)
        connection = connections.new()
        response = connections.request(connection, "GET", "/", {}, seconds=10.0)
        buffer = memoryview(bytearray(len(LARGE)))
        assert response.receive(buffer, 10.0) == len(LARGE) - 1
        with pytest.raises(TimeoutError):
            response.receive(buffer, 0.3)
        connection.close()


POLICY = RetryPolicy(attempts=4, first_seconds=1.0, longest_seconds=3.0, deadline_seconds=100.0)
NO_ANSWER = UnreachableError("no answer")


class Waiting:
    """Counts the seconds that somebody wanted to wait."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.pauses: list[float] = []
        self.tries = Tries(POLICY, self, self.clock)

    def __call__(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.clock.now += seconds


def test_pauses_double_up_to_the_longest() -> None:
    waiting = Waiting()
    for _ in range(3):
        waiting.tries.failed(NO_ANSWER)
    with pytest.raises(UnreachableError):
        waiting.tries.failed(NO_ANSWER)
    first, second, third = waiting.pauses
    assert 0.5 <= first <= 1.5
    assert 1.0 <= second <= 3.0
    assert 2.0 <= third <= 3.0


@pytest.mark.parametrize(("asked", "least"), [(2.5, 2.5), (60.0, 3.0)])
def test_a_server_that_asks_for_patience_gets_it_up_to_the_longest(
    asked: float, least: float
) -> None:
    waiting = Waiting()
    waiting.tries.failed(UnreachableError("busy", asked))
    assert waiting.pauses[0] >= least
    assert waiting.pauses[0] <= POLICY.longest_seconds


def test_no_try_begins_after_the_deadline() -> None:
    waiting = Waiting()
    waiting.clock.now += 100.0
    with pytest.raises(UnreachableError):
        waiting.tries.failed(NO_ANSWER)
    assert waiting.pauses == []


def test_what_is_gained_counts_anew() -> None:
    waiting = Waiting()
    for _ in range(20):
        waiting.tries.progress()
        waiting.tries.failed(NO_ANSWER)
    assert max(waiting.pauses) <= 1.5


class Endless(MemorySource):
    """A bucket whose listing goes on and on."""

    def survey(self) -> Iterator[StoredObject | Entry]:
        while True:
            yield from super().survey()


def test_a_listing_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model_poller.look.LISTING_SECONDS", 0.1)
    source, told = Endless(), []
    source.put("1/saved_model.pb", b"x")
    Looker(source, 30.0, lambda status, _: told.append(status)).look()
    assert [status.reason for status in told] == [SourceReason.UNREACHABLE]
    assert "took longer than" in told[0].message


class Pages(BaseHTTPRequestHandler):
    """A bucket each of whose pages shows nothing, and tells of another one."""

    def do_GET(self) -> None:
        token = f"<NextContinuationToken>{uuid.uuid4()}</NextContinuationToken>"
        page = f"<ListBucketResult><IsTruncated>true</IsTruncated>{token}</ListBucketResult>"
        self.send_response(200)
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page.encode())

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


@pytest.fixture
def pages() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Pages) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_pages_without_end_that_show_nothing_are_given_up(
    pages: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model_poller.look.LISTING_SECONDS", 0.3)
    told: list[SourceStatus] = []
    source = S3Source(
        parse_uri("s3://models/resnet"),
        endpoint=pages,
        region=None,
        path_style=True,
        anonymous=True,
        credentials=Credentials(),
    )
    looker = Looker(source, 30.0, lambda status, _: told.append(status))
    looking = threading.Thread(target=looker.look, daemon=True)
    looking.start()
    looking.join(20)
    source.close()
    assert [status.reason for status in told] == [SourceReason.UNREACHABLE]
    assert "listing s3://models/resnet took longer than" in told[0].message


@pytest.mark.parametrize("where", ["main", "publish"])
def test_a_publisher_waits_for_no_listing_without_end(
    where: str,
    pages: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, content in model().items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    monkeypatch.setattr(f"model_poller.publishing.{where}.LISTING_SECONDS", 0.3)
    if where == "publish":
        monkeypatch.setattr("model_poller.publishing.main.check_place", lambda *_: None)
    arguments = [str(tmp_path), "s3://models/resnet", f"--endpoint={pages}", "--anonymous"]
    assert publish(arguments) == 5
    assert "listing s3://models/resnet took longer than" in capsys.readouterr().err


def test_a_deadline_is_its_own_threads_and_ends_with_its_context() -> None:
    passed: list[bool] = []

    def check() -> None:
        check_deadline()
        passed.append(True)

    with Deadline(-1.0, "listing"):
        elsewhere = threading.Thread(target=check)
        elsewhere.start()
        elsewhere.join()
        with pytest.raises(UnreachableError):
            check()
    check()
    assert len(passed) == 2


def test_a_look_that_ends_by_its_deadline_is_taken_for_no_standstill(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    silent: list[bool] = []

    class Slow(MemorySource):
        def survey(self) -> Iterator[StoredObject | Entry]:
            (root,) = self.locations
            while True:
                # The third try of a question whose first two took as long as they may.
                now[0] += 190.0
                silent.append(looker.worker.is_silent())
                yield StoredObject(root, "1/x", 1, "1")

    monkeypatch.setattr("model_poller.retry.time", SimpleNamespace(monotonic=lambda: now[0]))
    told: list[SourceReason | None] = []
    looker = Looker(Slow(), 30.0, lambda status, _: told.append(status.reason))
    looker.worker._clock = lambda: now[0]
    looker.worker.beat()
    looker.look(lambda: now[0])
    assert told == [SourceReason.UNREACHABLE]
    assert len(silent) == 4
    assert not any(silent)


@pytest.mark.parametrize("error", [AccessDeniedError("403"), UnreachableError("503")])
def test_one_refusal_in_the_middle_is_passed_by(tmp_path: Path, error: PollerError) -> None:
    source = MemorySource()
    source.put("a", os.urandom(3000))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fetch, "PART_BYTES", 1000)
        really, count = source.open_range, 0

        def open_range(*arguments: object) -> object:
            nonlocal count
            count += 1
            if count == 2:
                raise error
            return really(*arguments)  # type: ignore[arg-type]

        source.open_range = open_range  # type: ignore[assignment]
        fetch.download(
            source,
            {tmp_path / "a": source.list()[0]},
            stopped=threading.Event(),
            progress=lambda _: None,
            limits=fetch.FetchLimits(parallelism=1),
        )
    assert (tmp_path / "a").read_bytes() == source.objects["a"][0]
