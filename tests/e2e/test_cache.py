"""Replicas that share a claim: one fetch for all of them, and nothing served that hangs on it."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import pytest

from tests.support.savedmodels import archive
from tests.support.waiting import eventually

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
    term = {"key": "kubernetes.io/hostname", "operator": "In"}
    hostname = node["metadata"]["labels"]["kubernetes.io/hostname"]
    common = {
        "accessModes": ["ReadWriteMany"],
        "storageClassName": "",
        "volumeMode": "Filesystem",
    }
    served.kubectl.apply(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": name},
            "spec": {
                **common,
                "capacity": {"storage": "1Gi"},
                "persistentVolumeReclaimPolicy": "Retain",
                "local": {"path": str(folder)},
                "nodeAffinity": {
                    "required": {
                        "nodeSelectorTerms": [
                            {"matchExpressions": [{**term, "values": [hostname]}]}
                        ]
                    }
                },
            },
        }
    )
    served.kubectl.apply(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": CLAIM},
            "spec": {**common, "volumeName": name, "resources": {"requests": {"storage": "1Gi"}}},
        }
    )
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
        page = served.kubectl("get", "--raw", path)
        told = re.search(r"^model_poller_fetched_bytes_total (\S+)", page, re.MULTILINE)
        found[name] = int(float(told[1])) if told else 0
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
