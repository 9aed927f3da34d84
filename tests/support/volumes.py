"""Claims that are bound to a folder of this machine, for pods that share one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


def claim(
    name: str, folder: Path, *, volume: str, namespace: str, size: str, node: str = ""
) -> list[dict[str, Any]]:
    """A PersistentVolume on a folder and the claim that is bound to it.

    Args:
        name: of the claim.
        folder: on this machine, which all nodes of the embedded cluster run on.
        volume: the PersistentVolume's name, which is the whole cluster's.
        namespace: the claim's.
        size: that both tell, such as ``1Gi``.
        node: the ``kubernetes.io/hostname`` of the only node that has the folder; all by default.
    """
    common = {"accessModes": ["ReadWriteMany"], "storageClassName": "", "volumeMode": "Filesystem"}
    place: dict[str, Any] = {"hostPath": {"path": str(folder)}}
    if node:
        hostname = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
        terms = [{"matchExpressions": [hostname]}]
        place = {
            "local": {"path": str(folder)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": terms}},
        }
    return [
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": volume},
            "spec": {
                **common,
                **place,
                "capacity": {"storage": size},
                "persistentVolumeReclaimPolicy": "Retain",
                "claimRef": {"namespace": namespace, "name": name},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {**common, "volumeName": volume, "resources": {"requests": {"storage": size}}},
        },
    ]
