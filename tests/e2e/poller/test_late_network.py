"""A pod whose network, or whose identity, comes later than the poller, as behind a mesh's proxy."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from demo.storage import SUBSCRIPTION, Storage
from model_poller.status import SourceReason, VersionState
from tests.support.cable import Cable
from tests.support.waiting import eventually
from tests.unit.poller.answering import Answering, Reply, Request
from tests.unit.poller.doubles import model, zipped
from tests.unit.poller.program import Supervised

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.e2e

TRIES = 3
"""So often the poller has to have failed before what it lacks comes up."""


def until_it_has_tried(program: Supervised, reason: SourceReason) -> None:
    """Wait until it has looked in vain several times, and tells why."""
    sample = f'failures_total{{reason="{reason.value}"}} {TRIES}.0'

    def tried() -> bool:
        return sample in program.get("/metrics")[1].decode()

    eventually(tried, what=f"{TRIES} tries that end with {reason}", within=60)
    assert program.status().source.reason is reason


def until_it_serves(program: Supervised) -> None:
    """Wait for the first version, which the very first run of the poller has to bring."""
    program.wait_for(1, VersionState.PUBLISHED)
    assert program.get("/startupz")[0] == 200
    assert "starting it again" not in program.log.read_text()
    assert program.process.poll() is None


def test_a_network_that_comes_up_after_the_pod_is_waited_for(tmp_path: Path) -> None:
    # Its ports are known before anybody listens there: until then all connections are refused.
    storage = Storage(tmp_path, in_memory=True)
    program = Supervised(
        tmp_path,
        *("--storage-uri=gs://models/imagenet", f"--endpoint={storage.url}", "--anonymous"),
        *(f"--pubsub-subscription={SUBSCRIPTION}", f"--pubsub-endpoint={storage.pubsub}"),
        *(f"--models-dir={tmp_path}/models", "--model-name=imagenet"),
        "--server-address=127.0.0.1:9",
    )
    try:
        until_it_has_tried(program, SourceReason.UNREACHABLE)
        assert program.get("/startupz")[0] == 503
        assert program.get("/livez")[0] == 200
        with storage:
            storage.bucket.upload("imagenet/1.zip", zipped(model()))
            until_it_serves(program)
    finally:
        program.kill()


def metadata(request: Request) -> Reply:
    """What Google's metadata server answers for a pod that has an identity."""
    google = {"Metadata-Flavor": "Google"}
    what = request.target.partition("?")[0].rpartition("/v1/")[2]
    account = {"email": "pod@example.iam.gserviceaccount.com", "scopes": [], "aliases": []}
    answers: dict[str, object] = {
        "project/project-id": "development",
        "universe/universe-domain": "googleapis.com",
        "instance/service-accounts/default/": account,
        f"instance/service-accounts/{account['email']}/": account,
    }
    if what.endswith("/token"):
        token = {"access_token": "late", "expires_in": 3600, "token_type": "Bearer"}
        return Reply(200, json.dumps(token), google | {"Content-Type": "application/json"})
    answer = answers.get(what, "")
    if isinstance(answer, str):
        return Reply(200, answer, google | {"Content-Type": "application/text"})
    return Reply(200, json.dumps(answer), google | {"Content-Type": "application/json"})


def test_an_identity_that_comes_up_after_the_pod_is_waited_for(
    storage: Storage, tmp_path: Path
) -> None:
    storage.bucket.upload("imagenet/1.zip", zipped(model()))
    with Answering(metadata) as server, Cable(int(server.url.rpartition(":")[2])) as cable:
        cable.cut()
        address = f"127.0.0.1:{cable.port}"
        program = Supervised(
            tmp_path,
            *("--storage-uri=gs://models/imagenet", f"--endpoint={storage.url}"),
            *(f"--models-dir={tmp_path}/models", "--model-name=imagenet"),
            *("--server-address=127.0.0.1:9", "--poll-interval=2"),
            GCE_METADATA_HOST=address,
            GCE_METADATA_IP=address,
            CLOUDSDK_CONFIG=str(tmp_path),
            # What the kubelet gives to every container.
            KUBERNETES_SERVICE_HOST="10.96.0.1",
        )
        try:
            until_it_has_tried(program, SourceReason.ACCESS_DENIED)
            cable.mend()
            until_it_serves(program)
        finally:
            program.kill()
