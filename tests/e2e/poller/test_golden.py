"""Recorded requests of a version, answered by the development model server beside the poller."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from model_poller.model_server.records import FILE, FOLDER, framed
from model_poller.status import (
    CheckResult,
    GoldenStatus,
    GoldenTask,
    RolloutTask,
    SignatureSpec,
    TensorSpec,
    VersionState,
    VersionStatus,
    encode_task,
)
from tests.support import savedmodels
from tests.support.waiting import eventually
from tests.support.whole_pods import Pod
from tests.unit.poller.doubles import zipped
from tests.unit.poller.gcs_server import GcsServer
from tests.unit.poller.golden import predict_log

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from development_model_server.protos import PredictionLog

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, bytes]]:
    """``y = 0.5 x + version``."""
    return savedmodels.contents(tmp_path_factory.mktemp("exports"), 1, 2, 3)


@pytest.fixture
def bucket() -> Iterator[GcsServer]:
    with GcsServer() as running:
        yield running


@pytest.fixture
def pod(tmp_path: Path, bucket: GcsServer) -> Iterator[Pod]:
    made = Pod(tmp_path, bucket.url)
    yield made
    made.end()


def records(offset: float, *inputs: float) -> list[PredictionLog]:
    return [predict_log([x, x + 1], [0.5 * x + offset, 0.5 * x + 0.5 + offset]) for x in inputs]


def upload(
    bucket: GcsServer, version: int, files: dict[str, bytes], logs: list[PredictionLog]
) -> None:
    content = b"".join(framed(log.SerializeToString()) for log in logs)
    bucket.put(f"linear/{version}.zip", zipped({**files, f"{FOLDER}/{FILE}": content}))


def ask(pod: Pod, version: int, key: str) -> None:
    task = RolloutTask(version=version, key=key, golden=GoldenTask())
    (pod.target.parent / "rollout").write_text(encode_task(task))


def version(pod: Pod, number: int) -> VersionStatus:
    return next(v for v in pod.poller.status().versions if v.version == number)


def golden(pod: Pod, number: int, key: str) -> GoldenStatus:
    def probe() -> GoldenStatus | None:
        found = version(pod, number).golden
        return found if found and found.task == key else None

    return eventually(probe, what=f"the check of version {number}", within=60, every=0.1)


def test_a_version_is_checked_by_its_own_records_where_it_answers(
    pod: Pod, bucket: GcsServer, exports: dict[int, dict[str, bytes]]
) -> None:
    upload(bucket, 1, exports[1], records(1.0, 1.0, 2.0))
    pod.tell(1)
    pod.poller.wait_for(1, VersionState.PUBLISHED)
    pod.start_server()
    pod.serves(1)
    ask(pod, 1, "first")
    assert golden(pod, 1, "first") == GoldenStatus(
        task="first",
        result=CheckResult.PASSED,
        records=2,
        message="2 of 2 recorded answers agree",
    )

    # Version 2 answers 2 more than was recorded once, as badly exported weights do.
    upload(bucket, 2, exports[2], [*records(2.0, 1.0, 2.0), *records(0.0, 3.0)])
    pod.poller.wait_for(2, VersionState.FETCHED)
    status = pod.poller.status()
    assert status.active_version == 1
    told = version(pod, 2)
    assert told.weight_bytes > 8
    assert told.interface
    assert told.interface.signatures == {
        "serving_default": SignatureSpec(
            method="tensorflow/serving/predict",
            inputs={"x": TensorSpec(dtype="float32", shape=(-1,))},
            outputs={"y": TensorSpec(dtype="float32", shape=(-1,))},
        )
    }
    ask(pod, 2, "second")
    pod.tell(2)
    pod.serves(2)
    found = golden(pod, 2, "second")
    assert found.result is CheckResult.FAILED
    assert found.message == 'record 3 of 3: the output "y"[0] is 3.5, and 1.5 was recorded'

    # Without answers the same file is warm-up alone.
    upload(bucket, 3, exports[3], [predict_log([1.0], None)])
    ask(pod, 3, "third")
    pod.tell(3)
    pod.serves(3)
    assert golden(pod, 3, "third").result is CheckResult.SKIPPED


def test_a_check_survives_one_restart_of_the_model_server(
    tmp_path: Path, bucket: GcsServer, exports: dict[int, dict[str, bytes]], pod: Pod
) -> None:
    """Sent are the records that a server which was killed over one has not answered."""
    upload(bucket, 1, exports[1], records(1.0, *map(float, range(900))))
    pod.tell(1)
    pod.poller.wait_for(1, VersionState.PUBLISHED)
    pod.start_server()
    pod.serves(1)
    ask(pod, 1, "k")
    eventually(
        lambda: "its recorded requests" in pod.poller.log.read_text(),
        what="the check to begin",
        within=30,
        every=0.01,
    )
    pod.kill_server()
    assert version(pod, 1).golden is None
    eventually(lambda: not pod.poller.status().server_reachable, what="the silence", within=30)
    pod.start_server()
    pod.serves(1)
    found = golden(pod, 1, "k")
    assert (found.result, found.records) == (CheckResult.PASSED, 900)
