"""What the two containers of a pod share: paths, volumes and privileges."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from inferencemodel_operator import names

if TYPE_CHECKING:
    from inferencemodel_operator.children.manifest import Manifest

MODELS_DIR: Final = "/models"
SERVER_CONFIG_DIR: Final = f"{MODELS_DIR}/.server"
POD_INFO_DIR: Final = "/etc/podinfo"
TARGET_FILE: Final = f"{POD_INFO_DIR}/target-version"
CREDENTIALS_DIR: Final = "/etc/model-source"
CREDENTIALS_FILE: Final = f"{CREDENTIALS_DIR}/key.json"

USER: Final = 65532
"""The user and group of both containers; anything but root."""

POD_SECURITY: Final[Manifest] = {
    "runAsNonRoot": True,
    "runAsUser": USER,
    "runAsGroup": USER,
    "fsGroup": USER,
    "seccompProfile": {"type": "RuntimeDefault"},
}
CONTAINER_SECURITY: Final[Manifest] = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def mount(volume: str, path: str, *, read_only: bool = False) -> Manifest:
    """A mount of a volume; a false ``readOnly`` is what the API server leaves out."""
    wanted: Manifest = {"name": volume, "mountPath": path}
    return {**wanted, "readOnly": True} if read_only else wanted


def volumes(secret: str | None) -> list[Manifest]:
    """The volumes of the pod; ``secret`` holds the credentials for the bucket."""
    target = f"metadata.annotations['{names.TARGET_VERSION_ANNOTATION}']"
    wanted: list[Manifest] = [
        {"name": "models", "emptyDir": {}},
        {"name": "tmp", "emptyDir": {}},
        {
            "name": "podinfo",
            "downwardAPI": {
                "items": [
                    {
                        "path": "target-version",
                        "fieldRef": {"apiVersion": "v1", "fieldPath": target},
                    }
                ]
            },
        },
    ]
    if secret is not None:
        # Group-readable: the files belong to root, the poller reads them through fsGroup.
        wanted.append(
            {"name": "model-source", "secret": {"secretName": secret, "defaultMode": 0o440}}
        )
    return wanted
