"""What comes before an answer's body, as any server may write it."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_poller.errors import UnreachableError
from model_poller.stores.connections import Response, _Clock
from model_poller.stores.http_calls import Answer, HttpCalls

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@contextmanager
def answering(*answers: bytes) -> Iterator[str]:
    """A server that gives each connection the next answer, whatever is asked, and closes it."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        for answer in answers:
            taken, _ = listener.accept()
            with taken:
                taken.recv(65536)
                taken.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        thread.join(10)
        listener.close()


def ask(answer: bytes, method: str = "GET") -> Answer:
    with answering(answer) as url:
        calls = HttpCalls(url)
        try:
            return calls.send(method, "/", {})
        finally:
            calls.close()


@pytest.mark.parametrize(
    ("head", "name", "value"),
    [
        (b'HTTP/1.1 200 OK\r\nETag: "a"\r\nContent-Length: 4\r\n\r\n', "ETag", '"a"'),
        (b"HTTP/1.1 200 OK\r\netag:a\r\ncontent-length:4\r\n\r\n", "ETag", "a"),
        (b"HTTP/1.0 200 OK\nETag:\ta \nContent-Length: 4\n\n", "ETag", "a"),
        (b"HTTP/1.1 200\r\nX: a\r\n b\r\n\tc\r\nContent-Length: 4\r\n\r\n", "X", "a b c"),
        (b"HTTP/1.1 200 OK\r\nX: \xe9\r\n\r\n", "X", "\xe9"),
        (b"HTTP/1.1 200 OK\r\nX: a\r\nX: b\r\nContent-Length: 4\r\n\r\n", "X", "a"),
        (b"HTTP/1.1 100 Continue\r\nX: b\r\n\r\nHTTP/1.1 200 OK\r\nX: a\r\n\r\n", "X", "a"),
    ],
)
def test_headers_are_read_however_they_are_written(head: bytes, name: str, value: str) -> None:
    answer = ask(head + b"body")
    assert (answer.status, answer.header(name), answer.body) == (200, value, b"body")


@given(
    head=st.tuples(
        st.sampled_from(
            [b"HTTP/1.1 200 OK", b"HTTP/1.0 206 Some", b"HTTP/1.1 200", b"HTTP/1.1 404 "]
        ),
        st.lists(
            st.tuples(
                st.sampled_from([b"ETag", b"x-a", b"X-A", b" x", b"Content-Type", b""]),
                st.sampled_from([b":", b": ", b":\t", b" : ", b""]),
                st.sampled_from([b"", b"a", b"a: b", b"a \r\n b", b"\xe9", b'"q"', b"a\rb"]),
            ),
            max_size=5,
        ),
        st.sampled_from([b"\r\n", b"\n"]),
    ),
    cut=st.integers(1, 200),
)
def test_a_head_means_the_same_however_it_comes(
    head: tuple[bytes, list[tuple[bytes, bytes, bytes]], bytes], cut: int
) -> None:
    """In one piece it is taken at once, in several a line at a time."""
    status, fields, end = head
    lines = [status, *(b"".join(field) for field in fields), b"Content-Length: 4"]
    whole = end.join(lines) + 2 * end + b"body"
    assert answered(whole) == answered(whole[:cut], whole[cut:])


def answered(*pieces: bytes) -> object:
    """What is read of an answer whose pieces come one after the other."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        thread = threading.Thread(target=send, args=(theirs, pieces), daemon=True)
        thread.start()
        response = Response(ours, method="GET", clock=_Clock(5.0))
        try:
            response.begin()
            return (
                (response.status, response.reason, response.version, response.fields),
                response.will_close,
                response.read(),
            )
        except (ValueError, KeyError, http.client.HTTPException) as error:
            return type(error)
        finally:
            response.close()
            thread.join(5)


def send(to: socket.socket, pieces: Sequence[bytes]) -> None:
    for piece in pieces:
        to.sendall(piece)
        time.sleep(0.0005 if len(pieces) > 1 else 0)
    # Where a head ends early, the rest of it is a body of no told length.
    to.shutdown(socket.SHUT_WR)


def test_pieces_are_put_together() -> None:
    answer = ask(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n2\r\nbo\r\n2\r\ndy\r\n0\r\n\r\n"
    )
    assert answer.body == b"body"


@pytest.mark.parametrize("status", [204, 304])
def test_some_answers_have_no_body(status: int) -> None:
    assert ask(b"HTTP/1.1 %d No\r\nContent-Length: 4\r\n\r\n" % status).body == b""
    assert ask(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n", "HEAD").body == b""


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\nno header\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * 200 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbody",
    ],
)
def test_what_is_no_answer_is_told(answer: bytes) -> None:
    with pytest.raises(UnreachableError, match=r"127\.0\.0\.1 (does not answer|broke off)"):
        ask(answer)


def test_a_connection_is_used_again_only_where_its_server_keeps_it() -> None:
    kept = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody"
    for closes in (b"HTTP/1.1 200 OK\r\nConnection: close\r\n", b"HTTP/1.0 200 OK\r\n"):
        with answering(closes + b"Content-Length: 4\r\n\r\nbody", kept) as url:
            calls = HttpCalls(url)
            assert calls.send("GET", "/", {}).body == b"body"
            assert calls._connections.kept() is None
            assert calls.send("GET", "/", {}).body == b"body"
            kept_connection = calls._connections.kept()
            assert kept_connection is not None
            calls._connections.keep(kept_connection)
            calls.close()


def test_what_comes_behind_an_answer_is_nobodys_answer() -> None:
    """A server, or who speaks in its place, may not answer what is asked only later."""
    whole = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"
    with answering(whole + b"body" + whole + b"evil", whole + b"good") as url:
        calls = HttpCalls(url)
        assert calls.send("GET", "/", {}).body == b"body"
        assert calls._connections.kept() is None
        assert calls.send("GET", "/", {}).body == b"good"
        calls.close()


@pytest.mark.parametrize("size", [10, 5000, 9000, 200_000])
def test_one_connection_brings_answers_of_any_size_in_turn(size: int) -> None:
    bodies = [bytes([65 + number]) * (size + number) for number in range(5)]
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        taken, _ = listener.accept()
        with taken:
            for body in bodies:
                taken.recv(65536)
                taken.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
                taken.sendall(body)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    calls = HttpCalls(f"http://127.0.0.1:{listener.getsockname()[1]}")
    assert [calls.send("GET", "/", {}, kept=True).body for _ in bodies] == bodies
    calls.close()
    thread.join(10)
    listener.close()
