"""A bucket that is deleted while its versions are served, and comes back from a copy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from model_poller.status import SourceReason, VersionReason, VersionState
from tests.support import savedmodels
from tests.support.waiting import eventually
from tests.support.whole_pods import Pod
from tests.unit.poller.doubles import below, zipped

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from demo.storage import Storage

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, bytes]]:
    return savedmodels.contents(tmp_path_factory.mktemp("exports"), 1, 2, 3)


@pytest.fixture
def pod(tmp_path: Path, storage: Storage) -> Iterator[Pod]:
    made = Pod(tmp_path, storage.url)
    yield made
    made.end()


def upload(storage: Storage, version: int, files: dict[str, bytes]) -> None:
    storage.bucket.upload(f"linear/{version}.zip", zipped(below(str(version), files)))


def until_told(pod: Pod, reason: SourceReason) -> None:
    eventually(lambda: pod.poller.status().source.reason is reason, what=reason, within=30)


def answers(pod: Pod) -> bool:
    return pod.rest(":predict", b'{"instances": [1.0]}') == 200


@pytest.mark.runbook("bucket-deleted-and-restored")
def test_what_is_served_stays_and_what_is_restored_is_neither_fetched_nor_loaded_again(
    pod: Pod, storage: Storage, exports: dict[int, dict[str, bytes]]
) -> None:
    for version in (1, 2):
        upload(storage, version, exports[version])
    pod.poller.wait_for(2, VersionState.FETCHED)
    pod.begin(1)
    pod.tell(2)
    pod.serves(2)
    pod.poller.wait_for(1, VersionState.RETIRED)

    storage.bucket.remove()
    until_told(pod, SourceReason.BUCKET_NOT_FOUND)
    assert answers(pod)
    # Both containers may start anew, and the version before is there to go back to.
    pod.poller.kill()
    pod.start_poller()
    until_told(pod, SourceReason.BUCKET_NOT_FOUND)
    pod.kill_server()
    pod.start_server()
    pod.serves(2)
    pod.tell(1)
    pod.serves(1)
    pod.tell(2)
    pod.serves(2)
    loads = pod.loads()

    storage.bucket.make()
    until_told(pod, SourceReason.NO_VERSION_FOUND)
    upload(storage, 1, exports[1])
    until_told(pod, SourceReason.LISTED)
    upload(storage, 2, exports[2])
    changed = eventually(
        lambda: [
            v
            for v in pod.poller.status().versions
            if v.version == 2 and v.reason is VersionReason.CHANGED_AFTER_PUBLISH
        ],
        what="the restored objects to be seen",
        within=30,
    )
    assert changed[0].state is VersionState.AVAILABLE
    assert pod.poller.fetched() == 0, "since the poller's start"
    assert pod.loads() == loads
    assert answers(pod)

    upload(storage, 3, exports[3])
    pod.poller.wait_for(3, VersionState.FETCHED)
    pod.tell(3)
    pod.serves(3)
    assert len(pod.loads()) == len(loads) + 1
