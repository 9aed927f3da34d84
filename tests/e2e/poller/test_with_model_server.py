"""The poller beside the development model server: real models, loaded and refused."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from model_poller import drain
from model_poller.drain import LEAST_SECONDS, MOST_SECONDS, QUIET_SECONDS
from model_poller.status import LiveStatus, RolloutTask, VersionReason, VersionState
from tests.support import savedmodels
from tests.support.waiting import eventually
from tests.support.whole_pods import Pod
from tests.unit.poller.doubles import below, graph, model, zipped
from tests.unit.poller.gcs_server import GcsServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from model_poller.status import PollerStatus

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, bytes]]:
    return savedmodels.contents(tmp_path_factory.mktemp("exports"), 1, 2)


@pytest.fixture
def bucket() -> Iterator[GcsServer]:
    with GcsServer() as running:
        yield running


@pytest.fixture
def pod(tmp_path: Path, bucket: GcsServer) -> Iterator[Pod]:
    made = Pod(tmp_path, bucket.url)
    yield made
    made.end()


def served(status: PollerStatus) -> dict[int, str]:
    return {entry.version: entry.state for entry in status.served}


def test_versions_are_served_one_after_the_other_and_back(
    pod: Pod, bucket: GcsServer, exports: dict[int, dict[str, bytes]]
) -> None:
    for version in (1, 2):
        bucket.put(f"linear/000{version}.zip", zipped(below(f"000{version}", exports[version])))
    pod.poller.wait_for(2, VersionState.FETCHED)
    pod.begin(1)
    for version in (2, 1, 2):
        pod.tell(version)
        status = pod.serves(version)
        assert status.target == version
        pod.poller.wait_for(version, VersionState.AVAILABLE)
        pod.poller.wait_for(3 - version, VersionState.RETIRED)


def test_a_version_that_can_not_be_loaded_is_taken_away_and_its_repair_is_served(
    pod: Pod, bucket: GcsServer, exports: dict[int, dict[str, bytes]]
) -> None:
    bucket.put("linear/1.zip", zipped(exports[1]))
    pod.begin(1)
    # Whole as far as files tell, but no graph that TensorFlow knows.
    bucket.put("linear/2.zip", zipped({**model(), "saved_model.pb": graph()}))
    pod.tell(2)
    status = pod.poller.wait_for(2, VersionState.QUARANTINED)
    (bad,) = (v for v in status.versions if v.version == 2)
    assert bad.reason is VersionReason.LOAD_FAILED
    assert "could not load it" in bad.message
    assert status.active_version == 1
    bucket.put("linear/2.zip", zipped(exports[2]))
    pod.serves(2)


def test_a_restarted_server_gets_back_what_it_served(
    pod: Pod, bucket: GcsServer, exports: dict[int, dict[str, bytes]]
) -> None:
    bucket.put("linear/1.zip", zipped(exports[1]))
    pod.begin(1)
    pod.kill_server()
    eventually(lambda: not pod.poller.status().server_reachable, what="the silence", within=30)
    pod.start_server()
    status = pod.serves(1)
    assert served(status) == {1: "AVAILABLE"}


def test_a_poller_killed_in_a_version_change_finishes_it_afterwards(
    pod: Pod, bucket: GcsServer, exports: dict[int, dict[str, bytes]]
) -> None:
    bucket.put("linear/1.zip", zipped(exports[1]))
    pod.begin(1)
    bucket.put("linear/2.zip", zipped(exports[2]))
    pod.poller.wait_for(2, VersionState.FETCHED)
    pod.tell(2)
    pod.poller.kill()
    pod.start_poller()
    pod.serves(2)
    pod.poller.wait_for(1, VersionState.RETIRED)
    assert sorted(p.name for p in (pod.models / "linear").iterdir()) == ["2"]


def test_a_rollback_to_what_can_not_be_loaded_any_more_interrupts_nothing(
    pod: Pod, bucket: GcsServer, exports: dict[int, dict[str, bytes]]
) -> None:
    for version in (1, 2):
        bucket.put(f"linear/{version}.zip", zipped(below(f"{version}", exports[version])))
    pod.poller.wait_for(2, VersionState.FETCHED)
    pod.begin(1)
    pod.tell(2)
    what = "version 1 to be unloaded"
    eventually(lambda: served(pod.poller.status()).get(1) == "END", what=what, within=30)
    (graph_file,) = pod.models.rglob("1/saved_model.pb")
    graph_file.write_bytes(b"no graph")
    pod.tell(1)
    status = pod.poller.wait_for(1, VersionState.QUARANTINED)
    assert served(status)[2] == "AVAILABLE"
    # What follows is taken in, although the server has let go of 2 without having unloaded it.
    bucket.put("linear/3.zip", zipped(below("3", exports[1])))
    pod.tell(3)
    told: set[int | None] = set()

    def probe() -> bool:
        told.add(pod.poller.status().active_version)
        return 3 in told

    eventually(probe, what="version 3 to be served", within=60, every=0.05)
    assert told == {2, 3}


def test_predictions_are_counted_while_a_rollout_asks_for_it(
    pod: Pod, bucket: GcsServer, exports: dict[int, dict[str, bytes]]
) -> None:
    bucket.put("linear/1.zip", zipped(exports[1]))
    pod.begin(1)

    def live(task: str, requests: int) -> LiveStatus:
        def probe() -> LiveStatus | None:
            told = pod.poller.status().live
            return told if told and (told.task, told.requests) == (task, requests) else None

        return eventually(probe, what=f"{requests} requests", within=30, every=0.1)

    assert pod.rest(":predict", b'{"instances": [1.0]}') == 200
    assert pod.poller.status().live is None
    pod.ask(RolloutTask(version=2, key="a", live=True))
    live("a", 0)
    for _ in range(5):
        assert pod.rest("/metadata") == 200
        assert pod.rest(":predict", b'{"instances": [1.0]}') == 200
    assert pod.rest(":predict", b'{"instances": ["x"]}') == 400
    told = live("a", 6)
    assert (told.version, told.errors) == (1, 1)
    assert 0 < told.ok_seconds < 60
    pod.ask(RolloutTask(version=2, key="b", live=True))
    live("b", 0)
    pod.kill_server()
    eventually(lambda: pod.poller.status().live is None, what="the end", within=30)
    pod.start_server()
    live("b", 0)
    (pod.root / "rollout").unlink()
    eventually(lambda: pod.poller.status().live is None, what="the end", within=30)


def test_a_pod_is_out_of_its_services_while_another_version_is_loaded(
    pod: Pod, bucket: GcsServer, exports: dict[int, dict[str, bytes]]
) -> None:
    for version in (1, 2):
        bucket.put(f"linear/{version}.zip", zipped(below(f"{version}", exports[version])))
    pod.begin(1)
    pod.poller.wait_for(2, VersionState.FETCHED)
    pod.ask(RolloutTask(version=2, key="a", drain=True))
    assert pod.poller.get("/drainz")[0] == 200
    pod.tell(2)
    eventually(lambda: pod.poller.get("/drainz")[0] == 503, what="the drain", within=10)
    assert pod.poller.status().draining
    begin = time.monotonic()
    while time.monotonic() < begin + LEAST_SECONDS + 3:
        assert pod.rest(":predict", b'{"instances": [1.0]}') == 200
        assert served(pod.poller.status()) == {1: "AVAILABLE"}
        time.sleep(0.3)
    last = time.monotonic()
    pod.poller.wait_for(2, VersionState.PUBLISHED)
    assert time.monotonic() - last > QUIET_SECONDS - drain.LOOK_SECONDS
    assert time.monotonic() - begin < MOST_SECONDS
    pod.serves(2)
    eventually(lambda: pod.poller.get("/drainz")[0] == 200, what="the return", within=10)
    assert not pod.poller.status().draining
