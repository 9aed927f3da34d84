"""Replicas that share a claim: one fetch for all of them, and nothing served that hangs on it."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.support import volumes
from tests.support.kubectl import condition
from tests.support.savedmodels import archive
from tests.support.waiting import eventually
from tests.unit.poller.program import fetched_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.e2e.models import Served
    from tests.support.kubectl import Object

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif("KUBECONFIG" in os.environ, reason="the volume is a folder of this node"),
]

CLAIM = "model-cache"


@pytest.fixture
def claim(served: Served, tmp_path: Path) -> Iterator[Path]:
    """A claim, and the folder of this node that it is bound to."""
    folder = tmp_path / "volume"
    folder.mkdir()
    # The pods' user gets to it by the kubelet, as its group.
    tmp_path.chmod(0o755)
    name = f"{served.namespace}-cache"
    (node,) = served.kubectl.list("nodes")
    hostname = node["metadata"]["labels"]["kubernetes.io/hostname"]
    for made in volumes.claim(
        CLAIM, folder, volume=name, namespace=served.namespace, size="1Gi", node=hostname
    ):
        served.kubectl.apply(made)
    yield folder
    served.kubectl("delete", "persistentvolume", name, "--wait=false")


def storage(claim: str = CLAIM) -> Object:
    return {"cache": {"claimName": claim, "maxSize": "500Mi"}}


def fetched(served: Served) -> dict[str, int]:
    """Bytes that each pod's poller has read from the store."""
    found = {}
    for pod in served.pods():
        name = pod["metadata"]["name"]
        path = f"/api/v1/namespaces/{served.namespace}/pods/{name}:8502/proxy/metrics"
        found[name] = fetched_bytes(served.kubectl("get", "--raw", path))
    return found


def test_new_replicas_a_new_pod_and_a_rehearsal_start_without_a_download(
    served: Served, claim: Path
) -> None:
    size = len(archive(served.files(offset=2), folder="0001"))
    served.upload(1, offset=2)
    served.apply(replicas=1, storage=storage())
    served.until_active(1, replicas=1)
    eventually(lambda: list(claim.glob("v1/entries/1-*")), what="the entry", within=60)

    served.kubectl("scale", f"inferencemodel/{served.name}", "--replicas=3")
    served.until_active(1, replicas=3)
    assert sorted(fetched(served).values()) == [0, 0, size]
    (first,) = [name for name, count in fetched(served).items() if count]
    served.kubectl("delete", "pod", first)
    eventually(
        lambda: first not in {pod["metadata"]["name"] for pod in served.pods()},
        what="the pod that had fetched to be gone",
        within=120,
    )
    served.until_active(1, replicas=3)
    assert list(fetched(served).values()) == [0, 0, 0]

    served.patch({"rollout": {"rehearsal": {"enabled": True}}})
    served.upload(2, offset=3)
    served.until_active(2, replicas=3)
    # One had fetched it, be it the rehearsal, which is gone.
    assert sorted(fetched(served).values())[:2] == [0, 0]
    assert condition(served.get(), "SourceReady")["reason"] == "Listed"
    assert served.predict(2.0) == pytest.approx(4.0)


def test_a_cache_that_breaks_is_told_and_what_is_served_goes_on(
    served: Served, claim: Path
) -> None:
    served.upload(1, offset=2)
    served.apply(replicas=1, storage=storage())
    served.until_active(1, replicas=1)
    eventually(lambda: list(claim.glob("v1/entries/1-*")), what="the entry", within=60)
    # A file where a folder has to be: whatever is asked of the cache ends with an error.
    shutil.rmtree(claim / "v1")
    (claim / "v1").write_bytes(b"")

    served.upload(2, offset=3)
    served.until_active(2, replicas=1)
    told = served.until(
        lambda o: condition(o, "SourceReady")["reason"] == "CacheUnusable",
        what="SourceReady told as CacheUnusable",
    )
    message = condition(told, "SourceReady")["message"]
    assert f"claim {CLAIM} (spec.storage.cache)" in message
    assert condition(told, "Ready")["status"] == "True"

    (claim / "v1").unlink()
    served.until(
        lambda o: condition(o, "SourceReady")["reason"] == "Listed",
        what="the cache to be of use again",
        within=180,
    )


@pytest.mark.runbook("a-lost-node-with-a-pvc-cache")
def test_a_cache_on_a_lost_node_is_told_and_done_without(served: Served, tmp_path: Path) -> None:
    """The node is one that Kubernetes knows and nobody is: what is left of one that was lost."""
    name = f"{served.namespace}-lost"
    labels = {"kubernetes.io/hostname": name}
    # Nothing is scheduled there: no kubelet says that it is ready.
    served.kubectl.apply(
        {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}
    )
    for made in volumes.claim(
        CLAIM, tmp_path, volume=name, namespace=served.namespace, size="1Gi", node=name
    ):
        served.kubectl.apply(made)
    try:
        served.upload(1, offset=2)
        served.apply(replicas=1)
        served.until_active(1, replicas=1)
        served.patch({"storage": storage()})
        served.kubectl("delete", "node", name)

        def is_told(found: Object) -> bool:
            words = condition(found, "Reconciling")["message"]
            return "node affinity" in words or "spec.storage.cache" in words

        served.until(is_told, what="what the pod waits for")
        assert served.predict(2.0) == pytest.approx(3.0)

        served.patch({"storage": {"cache": None}})
        served.until_active(1, replicas=1)
    finally:
        served.kubectl("delete", "node", name, "--ignore-not-found")
        served.kubectl("delete", "persistentvolume", name, "--wait=false")


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        (storage("no-such-claim"), "spec.storage.cache.claimName"),
        (
            {
                "volumeClaimTemplate": {
                    "spec": {
                        "storageClassName": "no-such-class",
                        "resources": {"requests": {"storage": "1Gi"}},
                    }
                }
            },
            "spec.storage.volumeClaimTemplate",
        ),
    ],
)
def test_a_volume_that_is_not_there_is_told_with_its_field_and_what_is_served_stays(
    served: Served, wanted: Object, field: str
) -> None:
    served.upload(1, offset=2)
    served.apply(replicas=1)
    served.until_active(1, replicas=1)

    served.patch({"storage": wanted})

    def is_told(found: Object) -> bool:
        return any(field in one["message"] for one in found["status"]["conditions"])

    served.until(is_told, what=f"a condition that names {field}")
    assert served.predict(2.0) == pytest.approx(3.0)
    served.patch({"storage": None})
    served.until_active(1, replicas=1)
