"""Warm-up requests of a bucket, replayed by the development model server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from model_poller.status import VersionReason, VersionState
from tests.support import savedmodels
from tests.support.waiting import eventually
from tests.support.whole_pods import Pod
from tests.unit.poller.doubles import zipped
from tests.unit.poller.gcs_server import GcsServer
from tests.unit.poller.test_warmup import record

if TYPE_CHECKING:
    from pathlib import Path

    from model_poller.status import VersionStatus

pytestmark = pytest.mark.e2e


def request() -> bytes:
    from development_model_server.protos import PredictionLog

    log = PredictionLog()
    log.predict_log.request.model_spec.name = "linear"
    tensor = log.predict_log.request.inputs["x"]
    tensor.dtype = 1
    tensor.tensor_shape.dim.add().size = 1
    tensor.float_val.append(1.0)
    return record(log.SerializeToString())


def test_a_version_is_warmed_up_by_the_buckets_requests_and_waits_while_they_are_damaged(
    tmp_path: Path,
) -> None:
    folders = savedmodels.build(tmp_path / "exports", 1, 2)
    with GcsServer() as bucket:
        pod = Pod(tmp_path, bucket.url, "--warmup-requests=gs://models/warm/requests")
        try:
            bucket.put("warm/requests", request() * 3)
            bucket.put("linear/1.zip", zipped(savedmodels.files(folders[1])))
            pod.tell(1)
            pod.poller.wait_for(1, VersionState.PUBLISHED)
            pod.start_server()
            pod.serves(1)
            assert "Number of warmup records read: 3." in (tmp_path / "server.log").read_text()

            bucket.put("warm/requests", request()[:-1])
            bucket.put("linear/2.zip", zipped(savedmodels.files(folders[2])))
            pod.tell(2)

            def waiting() -> VersionStatus | None:
                return next(
                    (
                        version
                        for version in pod.poller.status().versions
                        if version.version == 2
                        and version.reason is VersionReason.WARMUP_UNAVAILABLE
                    ),
                    None,
                )

            version = eventually(waiting, what="version 2 to wait", within=30, every=0.1)
            assert version.state is VersionState.DISCOVERED
            assert "gs://models/warm/requests can't be used (record 1 is cut" in version.message
            assert pod.poller.status().active_version == 1

            bucket.put("warm/requests", request() * 2)
            pod.serves(2)
            assert "Number of warmup records read: 2." in (tmp_path / "server.log").read_text()
        finally:
            pod.poller.kill()
            pod.kill_server()
            print(pod.poller.log.read_text())
