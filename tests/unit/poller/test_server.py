"""The model server next door, over real gRPC."""

from __future__ import annotations

import threading
from concurrent import futures
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from model_poller.model_server import _tfs
from model_poller.model_server.server import ModelServer, Served, ServerWatch, write_configuration
from model_poller.status import ServedVersion

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Fake:
    """Answers GetModelStatus with what it is given."""

    def __init__(self) -> None:
        self.answer = _tfs.GetModelStatusResponse()
        self.error: grpc.StatusCode | None = None
        self.failures = 0
        self.asked: list[str] = []
        handler = grpc.method_handlers_generic_handler(
            "tensorflow.serving.ModelService",
            {
                "GetModelStatus": grpc.unary_unary_rpc_method_handler(
                    self._get,
                    request_deserializer=_tfs.GetModelStatusRequest.FromString,
                    response_serializer=self._serialized,
                )
            },
        )
        self.server = grpc.server(futures.ThreadPoolExecutor(2))
        self.server.add_generic_rpc_handlers((handler,))
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()

    def _serialized(self, answer: Any) -> bytes:
        content: bytes = answer.SerializeToString()
        return content.replace(b"<bytes>", b"\xff\xfe\0(\xc3(!")

    def _get(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.asked.append(request.model_spec.name)
        if self.failures:
            self.failures -= 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "going away")
        if self.error:
            context.abort(self.error, "no")
        return self.answer


@pytest.fixture
def fake() -> Iterator[Fake]:
    made = Fake()
    yield made
    made.server.stop(0).wait()


def test_the_servers_words_are_passed_on_newest_first(fake: Fake) -> None:
    state = _tfs.ModelVersionStatus.State
    fake.answer.model_version_status.add(version=1, state=state.AVAILABLE)
    bad = fake.answer.model_version_status.add(version=2, state=state.END)
    bad.status.error_code, bad.status.error_message = 3, "bad graph"
    assert ModelServer(f"127.0.0.1:{fake.port}", "imagenet").status() == (
        ServedVersion(
            version=2, state="END", error_code="INVALID_ARGUMENT", error_message="bad graph"
        ),
        ServedVersion(version=1, state="AVAILABLE"),
    )
    assert fake.asked == ["imagenet"]


def test_a_server_whose_words_are_no_utf_8_is_heard_all_the_same(fake: Fake) -> None:
    state = _tfs.ModelVersionStatus.State
    fake.answer.model_version_status.add(version=1, state=state.AVAILABLE)
    bad = fake.answer.model_version_status.add(version=2**63 - 1, state=state.END)
    bad.status.error_code, bad.status.error_message = 3, "no node <bytes> in größe"
    assert ModelServer(f"127.0.0.1:{fake.port}", "imagenet").status() == (
        ServedVersion(
            version=2**63 - 1,
            state="END",
            error_code="INVALID_ARGUMENT",
            error_message="no node \\xff\\xfe\0(\\xc3(! in größe",
        ),
        ServedVersion(version=1, state="AVAILABLE"),
    )


def test_a_state_that_only_a_newer_server_knows_is_passed_on_by_its_number(fake: Fake) -> None:
    fake.answer.model_version_status.add(version=1, state=60)
    assert ModelServer(f"127.0.0.1:{fake.port}", "imagenet").status() == (
        ServedVersion(version=1, state="60"),
    )


def test_a_model_that_the_server_does_not_know_has_no_versions(fake: Fake) -> None:
    fake.error = grpc.StatusCode.NOT_FOUND
    assert ModelServer(f"127.0.0.1:{fake.port}", "imagenet").status() == ()


def test_a_connection_that_the_server_closes_is_no_absence(fake: Fake) -> None:
    fake.failures = 1
    assert ModelServer(f"127.0.0.1:{fake.port}", "imagenet").status() == ()


def test_a_server_that_is_not_there_gives_no_answer() -> None:
    assert ModelServer("127.0.0.1:9", "imagenet").status() is None


def test_a_server_that_refuses_calls_for_want_of_threads_is_no_absence(fake: Fake) -> None:
    now = 100.0
    server = ModelServer(f"127.0.0.1:{fake.port}", "imagenet", lambda: now)
    busy = grpc.StatusCode.RESOURCE_EXHAUSTED
    fake.error = busy
    assert server.status() is None, "nothing was heard yet"
    fake.error = None
    fake.answer.model_version_status.add(version=1, state=_tfs.ModelVersionStatus.State.AVAILABLE)
    words = server.status()
    assert words
    fake.error = busy
    now = 120.0
    assert server.status() == words
    # They don't become younger by being told again.
    now = 131.0
    assert server.status() is None
    fake.error = None
    assert server.status() == words
    fake.error = grpc.StatusCode.UNAVAILABLE
    assert server.status() is None


def test_a_hurried_watch_asks_at_once() -> None:
    answers: list[Served | None] = []
    asked = threading.Semaphore(0)

    def report(served: Served | None) -> None:
        answers.append(served)
        asked.release()

    watch = ServerWatch(lambda: (), report)
    watch.SLOW_SECONDS = 3600.0
    watch.start()
    assert asked.acquire(timeout=10)
    watch.hurry(True)
    for _ in range(3):
        assert asked.acquire(timeout=10)
    watch.stop()


def test_the_configuration_serves_whatever_lies_in_the_base_path(tmp_path: Path) -> None:
    write_configuration(tmp_path / "c", 'a"b', tmp_path / "a", "max_batch_size { value: 8 }")
    text = (tmp_path / "c/models.config").read_text()
    assert 'name: "a\\"b"' in text
    assert f'base_path: "{tmp_path}/a"' in text
    assert "model_version_policy { all {} }" in text
    assert "enable: true" in (tmp_path / "c/monitoring.config").read_text()
    assert (tmp_path / "c/batching.config").read_text() == "max_batch_size { value: 8 }"
    assert len(list((tmp_path / "c").iterdir())) == 3


def test_without_batching_no_batching_file_is_written(tmp_path: Path) -> None:
    write_configuration(tmp_path, "m", tmp_path / "m", None)
    assert not (tmp_path / "batching.config").exists()
