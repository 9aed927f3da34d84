"""The HTTP interface, over real sockets."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from model_poller.api import MAX_CONNECTIONS, Api, Health
from model_poller.board import Board
from model_poller.metrics import Metrics
from model_poller.status import (
    DiskStatus,
    PollerStatus,
    SourceReason,
    SourceStatus,
    VersionReason,
    VersionState,
    VersionStatus,
    decode,
)
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

SCHEMA = Path(__file__).parents[3] / "docs" / "poller-status.schema.json"
FIRST = PollerStatus(revision="", model="imagenet", source=SourceStatus(uri="gs://models/imagenet"))


def status(target: int, free: int = 1) -> PollerStatus:
    return PollerStatus(
        revision="",
        model="imagenet",
        source=FIRST.source,
        target=target,
        disk=DiskStatus(free_bytes=free, total_bytes=10),
    )


class Pod:
    def __init__(self) -> None:
        self.board = Board(FIRST)
        self.healthy = True
        self.draining = False
        probe = lambda: self.healthy  # noqa: E731
        self.api = Api(
            0,
            self.board,
            Health(
                silent=lambda: [] if self.healthy else ["looker", "queue"],
                started=probe,
                ready=probe,
                draining=lambda: self.draining,
            ),
        )
        self.api.start()

    def get(self, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.api.port, timeout=20)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def status(self, query: str = "") -> PollerStatus:
        code, body = self.get(f"/status{query}")
        assert code == 200
        return decode(body)


@pytest.fixture
def pod() -> Iterator[Pod]:
    made = Pod()
    yield made
    made.board.close()
    made.api.stop()


def test_status_answers_at_once_to_who_knows_nothing(pod: Pod) -> None:
    answer = pod.status()
    assert (answer.model, answer.source.uri) == ("imagenet", "gs://models/imagenet")
    assert answer.revision


def test_an_old_revision_is_answered_at_once(pod: Pod) -> None:
    old = pod.status().revision
    pod.board.post(status(1))
    assert pod.status(f"?after={old}&timeout=60").target == 1


def test_a_revision_of_another_process_is_answered_at_once(pod: Pod) -> None:
    assert pod.status("?after=deadbeef-7&timeout=60").model == "imagenet"


def test_many_wait_at_once_and_all_hear_of_a_change(pod: Pod) -> None:
    known = pod.status().revision
    answers: list[int | None] = []
    threads = [
        threading.Thread(
            target=lambda: answers.append(pod.status(f"?after={known}&timeout=20").target)
        )
        for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    pod.board.post(status(5))
    for thread in threads:
        thread.join(20)
    assert answers == [5] * 20


def test_an_unchanged_status_is_answered_when_the_time_is_up(pod: Pod) -> None:
    known = pod.status().revision
    assert pod.status(f"?after={known}&timeout=0.05").revision == known


def test_the_same_status_again_is_no_new_revision(pod: Pod) -> None:
    assert pod.board.post(status(1))
    before = pod.status().revision
    assert not pod.board.post(status(1, free=9))
    after = pod.status()
    assert after.revision == before
    assert after.disk == DiskStatus(free_bytes=9, total_bytes=10)


def test_how_far_a_fetch_is_can_be_read_and_is_no_news(pod: Pod) -> None:
    def fetching(done: int, state: VersionState = VersionState.FETCHING) -> PollerStatus:
        version = VersionStatus(version=2, state=state, bytes_done=done, seconds_left=100 - done)
        return msgspec.structs.replace(status(1), versions=(version,))

    assert pod.board.post(fetching(1))
    before = pod.status().revision
    assert not pod.board.post(fetching(50))
    after = pod.status()
    assert after.revision == before
    assert (after.versions[0].bytes_done, after.versions[0].seconds_left) == (50, 50)
    assert pod.board.post(fetching(50, VersionState.FETCHED))


def test_an_ending_poller_answers_those_who_wait(pod: Pod) -> None:
    known = pod.status().revision
    answers: list[str] = []
    thread = threading.Thread(
        target=lambda: answers.append(pod.status(f"?after={known}&timeout=60").revision)
    )
    thread.start()
    pod.board.close()
    thread.join(20)
    assert answers == [known]


@pytest.mark.parametrize("timeout", ["61", "-1", "soon", "nan", "inf"])
def test_a_wait_that_can_not_be_is_refused(pod: Pod, timeout: str) -> None:
    code, body = pod.get(f"/status?timeout={timeout}")
    assert (code, b"from 0 to 60" in body) == (400, True)


@pytest.mark.parametrize("probe", ["/livez", "/startupz", "/readyz"])
def test_probes_tell_health(pod: Pod, probe: str) -> None:
    assert pod.get(probe) == (200, b"ok\n")
    pod.healthy = False
    assert pod.get(probe)[0] == 503


def test_a_pod_that_is_to_leave_its_services_says_so(pod: Pod) -> None:
    assert pod.get("/drainz") == (200, b"ok\n")
    pod.draining = True
    assert pod.get("/drainz")[0] == 503
    assert pod.get("/readyz") == (200, b"ok\n")


def test_liveness_names_the_threads_that_stand_still(pod: Pod) -> None:
    pod.healthy = False
    assert pod.get("/livez") == (503, b"standing still: looker, queue; see the log\n")


def test_idle_clients_by_the_hundred_keep_no_probe_from_its_answer(pod: Pod) -> None:
    threads = threading.active_count()
    with ExitStack() as idle:
        for number in range(3 * MAX_CONNECTIONS):
            made = socket.create_connection(("127.0.0.1", pod.api.port), timeout=20)
            idle.enter_context(closing(made))
            if number % 2:
                made.sendall(b"GET /livez HTTP/1.1\r\nX-Slow: ")
            if number % 64 == 0:
                assert pod.get("/livez") == (200, b"ok\n")
        assert pod.get("/livez") == (200, b"ok\n")
        eventually(
            lambda: threading.active_count() - threads <= MAX_CONNECTIONS,
            what="few threads",
            within=20,
            every=0.01,
        )


def test_who_waits_for_an_answer_is_not_ended_for_who_asks_nothing(pod: Pod) -> None:
    revision = pod.status().revision
    answers: list[PollerStatus] = []
    waiting = threading.Thread(
        target=lambda: answers.append(pod.status(f"?after={revision}&timeout=60")), daemon=True
    )
    waiting.start()
    eventually(lambda: busy(pod) == 1, what="the long poll", every=0.001)
    with ExitStack() as idle:
        for _ in range(3 * MAX_CONNECTIONS):
            made = socket.create_connection(("127.0.0.1", pod.api.port), timeout=20)
            idle.enter_context(closing(made))
        eventually(lambda: pod.get("/livez")[0] == 200, what="a probe", every=0.001)
        pod.board.post(status(7))
        waiting.join(20)
    assert [answer.target for answer in answers] == [7]


def test_clients_that_never_read_keep_no_probe_from_its_answer(pod: Pod) -> None:
    with ExitStack() as deaf:
        for _ in range(MAX_CONNECTIONS):
            made = socket.socket()
            deaf.enter_context(closing(made))
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            made.settimeout(20)
            made.connect(("127.0.0.1", pod.api.port))
            # More than fits between the two, so that the answers stop.
            made.sendall(b"GET /metrics HTTP/1.1\r\n\r\n" * 2000)
        eventually(lambda: busy(pod) == MAX_CONNECTIONS, what="all that are open", every=0.01)
        for _ in range(10):
            assert pod.get("/livez") == (200, b"ok\n")


def busy(pod: Pod) -> int:
    return sum(pod.api._server.connections._busy.values())


def test_metrics_are_readable_by_prometheus(pod: Pod) -> None:
    code, body = pod.get("/metrics")
    assert code == 200
    assert b"# TYPE model_poller_fetched_bytes_total counter" in body


def test_the_first_failure_of_a_kind_is_seen_as_an_increase() -> None:
    before = Metrics().render()
    for reason in ("LoadFailed", "FetchFailed", "Unreachable", "AccessDenied"):
        assert f'model_poller_failures_total{{reason="{reason}"}} 0.0' in before.decode()


def test_other_paths_are_not_found(pod: Pod) -> None:
    assert pod.get("/")[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_nothing_can_be_changed(pod: Pod, method: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", pod.api.port, timeout=20)
    connection.request(method, "/status")
    assert connection.getresponse().status == 501
    connection.close()


def test_a_connection_can_be_used_again(pod: Pod) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", pod.api.port, timeout=20)
    for _ in range(3):
        connection.request("GET", "/livez")
        assert connection.getresponse().read() == b"ok\n"
    connection.close()


def test_a_port_that_is_taken_is_an_error(pod: Pod) -> None:
    with pytest.raises(OSError, match="in use"):
        Api(pod.api.port, pod.board, Health(list, bool, bool))


def test_the_schema_in_the_docs_is_that_of_the_types() -> None:
    schema = json.loads(json.dumps(msgspec.json.schema(PollerStatus)))
    assert json.loads(SCHEMA.read_text()) == schema, "run make schema"


def test_what_only_a_newer_release_knows_is_read_as_nothing_to_build_on() -> None:
    body = {
        "schemaVersion": 1,
        "revision": "r",
        "model": "m",
        "source": {"uri": "gs://b", "state": "Ready", "reason": "FromTheFuture"},
        "versions": [{"version": 1, "state": "Teleported", "reason": "Novel", "extra": 1}],
        "more": {},
    }
    found = decode(json.dumps(body).encode())
    assert found.source.reason is SourceReason.OTHER
    assert found.versions[0].state is VersionState.INCOMPLETE
    assert found.versions[0].reason is VersionReason.OTHER
