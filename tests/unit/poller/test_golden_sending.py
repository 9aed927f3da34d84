"""Recorded requests, sent to a gRPC server that answers well, wrongly, late or not at all."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import grpc
import pytest

from development_model_server.protos import (
    ClassificationResponse,
    PredictionLog,
    PredictResponse,
    RegressionResponse,
)
from model_poller.golden import sending
from model_poller.golden.sending import (
    GoldenRequests,
    InterruptedSendingError,
    Result,
    ServerWentAwayError,
    Stop,
)
from model_poller.model_server.records import FILE, FOLDER, framed
from model_poller.status import CheckResult, GoldenTask
from tests.unit.poller.golden import PredictionService, predict_log, predicting, put, tensor

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.unit.poller.golden import Answer

TASK = GoldenTask()


def check(
    address: str,
    folder: Path,
    *,
    version: int = 7,
    task: GoldenTask = TASK,
    stop: Stop | None = None,
    went_away: bool = False,
    clock: Callable[[], float] = time.monotonic,
) -> Result:
    requests = GoldenRequests(address, "linear", clock)
    return requests.check(folder, version, task, stop or Stop(), went_away=went_away)


def refusing(code: grpc.StatusCode, details: str, times: int) -> Callable[[str, bytes], Answer]:
    """Refuse so often, then answer well."""
    left = [times]
    good = predicting(lambda x: 2 * x)

    def answer(method: str, request: bytes) -> Answer:
        if left[0]:
            left[0] -= 1
            return code, details
        return good(method, request)

    return answer


@pytest.fixture
def doubled(tmp_path: Path) -> Path:
    """A version whose recorded answers are twice what was asked."""
    return put(tmp_path, *(predict_log([x, -x], [2 * x, -2 * x]) for x in (1.0, 2.0, 3.0)))


def test_a_version_that_answers_as_recorded_passes(doubled: Path) -> None:
    with PredictionService(predicting(lambda x: 2 * x + 1e-5)) as server:
        assert check(server.address, doubled) == Result(
            CheckResult.PASSED, 3, "3 of 3 recorded answers agree"
        )
        asked = server.predictions()
    assert [(a.model_spec.name, a.model_spec.version.value) for a in asked] == [("linear", 7)] * 3
    assert [list(a.inputs["x"].float_val) for a in asked] == [[1, -1], [2, -2], [3, -3]]


def test_the_worst_answer_is_named(doubled: Path) -> None:
    with PredictionService(predicting(lambda x: 2 * x if x < 2 else x * x)) as server:
        assert check(server.address, doubled) == Result(
            CheckResult.FAILED,
            3,
            'record 3 of 3: the output "y"[0] is 9, and 6 was recorded',
        )


def test_the_tolerance_is_the_tasks(doubled: Path) -> None:
    with PredictionService(predicting(lambda x: 2.5 * x)) as server:
        loose = GoldenTask(absolute=0.0, relative=0.3)
        assert check(server.address, doubled, task=loose).result is CheckResult.PASSED


def test_without_answers_nothing_is_sent(tmp_path: Path) -> None:
    with PredictionService(predicting(lambda x: x)) as server:
        none = check(server.address, tmp_path)
        put(tmp_path, predict_log([1.0], None))
        assert check(server.address, tmp_path) == none
        assert none == Result(CheckResult.SKIPPED, 0, "the version comes with no recorded answers")
        other = PredictionLog()
        other.session_run_log.request.model_spec.name = "m"
        other.session_run_log.response.tensor.add(name="y")
        put(tmp_path, other)
        assert check(server.address, tmp_path).result is CheckResult.SKIPPED
        assert server.requests == []


def test_other_kinds_of_requests_are_sent_to_their_methods(tmp_path: Path) -> None:
    logs = [PredictionLog(), PredictionLog(), PredictionLog()]
    classes, value = ClassificationResponse(), RegressionResponse()
    classes.result.classifications.add().classes.add(label="cat", score=0.5)
    value.result.regressions.add(value=3.0)
    for log in logs:
        log.classify_log.request.input.example_list.examples.add()
    logs[0].classify_log.response.CopyFrom(classes)
    logs[1].regress_log.request.input.example_list.examples.add()
    logs[1].regress_log.response.CopyFrom(value)
    logs[2].multi_inference_log.request.tasks.add().model_spec.name = "m"
    result = logs[2].multi_inference_log.response.results.add()
    result.regression_result.CopyFrom(value.result)
    several = logs[2].multi_inference_log.response.SerializeToString()
    good = {
        "Classify": classes.SerializeToString(),
        "Regress": value.SerializeToString(),
        "MultiInference": several,
    }
    put(tmp_path, *logs)
    with PredictionService(lambda method, _: good[method]) as server:
        assert check(server.address, tmp_path).message == "3 of 3 recorded answers agree"
        classes.result.classifications[0].classes[0].label = "dog"
        good["Classify"] = classes.SerializeToString()
        assert check(server.address, tmp_path).message == (
            'record 1 of 3: the output "classes"[0, 0] is "dog", and "cat" was recorded'
        )


def test_an_error_fails_and_the_others_are_still_counted(doubled: Path) -> None:
    refused = refusing(grpc.StatusCode.INVALID_ARGUMENT, "no\n input", 2)
    with PredictionService(refused) as server:
        assert check(server.address, doubled) == Result(
            CheckResult.FAILED, 3, "record 1 of 3: INVALID_ARGUMENT: no input; 2 of 3 differ"
        )


def test_an_answer_that_is_none_fails(doubled: Path) -> None:
    with PredictionService(lambda *_: b"\xff") as server:
        found = check(server.address, doubled)
    assert found.result is CheckResult.FAILED
    assert "record 1 of 3: the answer can't be read" in found.message


def test_an_answer_that_is_larger_than_any_that_was_recorded_fails(tmp_path: Path) -> None:
    huge = PredictResponse()
    huge.outputs["y"].CopyFrom(tensor([1.0]))
    huge.outputs["y"].tensor_content = bytes(40 << 20)
    content = huge.SerializeToString()
    put(tmp_path, predict_log([1.0], [1.0]))
    with PredictionService(lambda *_: content) as server:
        found = check(server.address, tmp_path)
    assert found.result is CheckResult.FAILED
    assert "RESOURCE_EXHAUSTED" in found.message


@pytest.mark.parametrize(
    ("code", "details", "times"),
    [
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "Server Threadpool Exhausted", 4),
        (grpc.StatusCode.UNAVAILABLE, "Socket closed", 2),
        (grpc.StatusCode.NOT_FOUND, "Servable not found for request: Specific(linear, 7)", 3),
    ],
)
def test_what_was_not_taken_is_sent_again(
    doubled: Path, code: grpc.StatusCode, details: str, times: int
) -> None:
    with PredictionService(refusing(code, details, times)) as server:
        assert check(server.address, doubled).result is CheckResult.PASSED
        assert len(server.requests) == 3 + times


def test_a_graphs_own_not_found_is_an_error(doubled: Path) -> None:
    refused = refusing(grpc.StatusCode.NOT_FOUND, "Table not found", 1)
    with PredictionService(refused) as server:
        found = check(server.address, doubled)
    assert found.message == "record 1 of 3: NOT_FOUND: Table not found"


def test_a_version_that_the_server_does_not_know_is_not_judged(
    doubled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "NO_SERVABLE_SECONDS", 0.3)
    refused = refusing(grpc.StatusCode.NOT_FOUND, "Servable not found for request: x", 10**6)
    with PredictionService(refused) as server:
        found = check(server.address, doubled)
    assert found.result is CheckResult.INCONCLUSIVE
    assert "0 of 3 recorded answers agree; the model server doesn't know" in found.message


def test_a_server_that_goes_away_once_is_asked_again_and_twice_has_failed(doubled: Path) -> None:
    gone = refusing(grpc.StatusCode.UNAVAILABLE, "Connection reset by peer", 10**6)
    with PredictionService(gone) as server:
        with pytest.raises(ServerWentAwayError, match="Connection reset"):
            check(server.address, doubled)
        assert check(server.address, doubled, went_away=True) == Result(
            CheckResult.FAILED,
            3,
            "record 1 of 3: the model server went away twice over it: Connection reset by peer",
        )


def test_a_server_that_is_not_there_went_away(doubled: Path) -> None:
    with PredictionService(predicting(lambda x: x)) as server:
        address = server.address
    with pytest.raises(ServerWentAwayError):
        check(address, doubled)


def hanging(released: threading.Event) -> Callable[[str, bytes], Answer]:
    def answer(*_: object) -> Answer:
        released.wait(30)
        return grpc.StatusCode.INTERNAL, "late"

    return answer


def test_a_request_without_an_answer_fails_at_its_deadline_and_ends_the_rest(
    doubled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "REQUEST_SECONDS", 0.5)
    released = threading.Event()
    with PredictionService(hanging(released)) as server:
        found = check(server.address, doubled)
        released.set()
        assert len(server.requests) == 1
    assert found.result is CheckResult.FAILED
    assert found.message.startswith("record 1 of 3: no answer within ")


def test_a_server_that_is_always_busy_is_said_to_be(
    doubled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "REQUEST_SECONDS", 1.0)
    busy = refusing(grpc.StatusCode.RESOURCE_EXHAUSTED, "OOM when allocating", 10**6)
    with PredictionService(busy) as server:
        found = check(server.address, doubled)
    assert found.message == "record 1 of 3: no answer within 1 s (OOM when allocating)"


class Clock:
    """Seconds that pass with each request."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_all_of_them_have_a_deadline_too(doubled: Path) -> None:
    clock = Clock()
    good = predicting(lambda x: 2 * x)

    def slow(method: str, request: bytes) -> Answer:
        clock.now += sending.ALL_SECONDS / 2
        return good(method, request)

    with PredictionService(slow) as server:
        found = check(server.address, doubled, clock=clock)
        assert len(server.requests) == 2
    assert found == Result(
        CheckResult.INCONCLUSIVE,
        3,
        "2 of 3 recorded answers agree; the rest was not answered within 300 s",
    )


def test_after_one_that_failed_the_others_get_little_time(doubled: Path) -> None:
    clock = Clock()
    bad = predicting(lambda x: x)

    def slow(method: str, request: bytes) -> Answer:
        clock.now += sending.FAILED_SECONDS
        return bad(method, request)

    with PredictionService(slow) as server:
        found = check(server.address, doubled, clock=clock)
        assert len(server.requests) == 2
    assert found.result is CheckResult.FAILED
    assert found.message.endswith("; 2 of 2 differ")


@pytest.mark.parametrize("is_told_before", [True, False])
def test_it_ends_at_once_when_it_is_told_to(doubled: Path, is_told_before: bool) -> None:
    released, stop = threading.Event(), Stop()
    with PredictionService(hanging(released)) as server:
        timer = threading.Timer(0.0 if is_told_before else 0.5, stop.set)
        timer.start()
        if is_told_before:
            timer.join()
        begin = time.monotonic()
        with pytest.raises(InterruptedSendingError):
            check(server.address, doubled, stop=stop)
        assert time.monotonic() - begin < 20
        assert len(server.requests) == (0 if is_told_before else 1)
        released.set()


def test_a_file_that_can_not_be_read_is_not_judged(tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / FILE).write_bytes(b"no record")
    found = check("127.0.0.1:1", tmp_path)
    assert found.result is CheckResult.INCONCLUSIVE
    assert found.message == "assets.extra/tf_serving_warmup_requests can't be read: record 1 is cut"


def test_a_recorded_answer_that_can_not_be_read_is_passed_over(tmp_path: Path) -> None:
    broken = b"\x32\x0a" + b"\x0a\x02\x1a\x00" + b"\x12\x04\x0a\x02\x12\xff"
    put(tmp_path, predict_log([1.0], [1.0]))
    path = tmp_path / FOLDER / FILE
    path.write_bytes(path.read_bytes() + framed(broken))
    with PredictionService(predicting(lambda x: x)) as server:
        found = check(server.address, tmp_path)
        assert len(server.requests) == 1
    assert found.result is CheckResult.PASSED
    assert "1 of 2 recorded answers agree; 1 not compared: what was recorded can't" in found.message
