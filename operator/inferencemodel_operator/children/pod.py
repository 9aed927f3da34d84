"""What the two containers of a pod share: paths, volumes and privileges."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from inferencemodel_operator import names
from inferencemodel_operator.children.manifest import present

if TYPE_CHECKING:
    from inferencemodel_operator.children.manifest import Manifest
    from inferencemodel_operator.spec import InferenceModel, Storage

MODELS_DIR: Final = "/models"
SERVER_CONFIG_DIR: Final = f"{MODELS_DIR}/.server"
POD_INFO_DIR: Final = "/etc/podinfo"
TARGET_FILE: Final = f"{POD_INFO_DIR}/target-version"
ASSIGNMENT_FILES: Final[dict[str, str]] = {
    "target-version": names.TARGET_VERSION_ANNOTATION,
    "served-versions": names.SERVED_VERSIONS_ANNOTATION,
    "quarantined-versions": names.QUARANTINED_VERSIONS_ANNOTATION,
    "rollout": names.ROLLOUT_ANNOTATION,
}
"""Files in POD_INFO_DIR, and the annotations that the kubelet shows there."""
CREDENTIALS_DIR: Final = "/etc/model-source"
CREDENTIALS_FILE: Final = f"{CREDENTIALS_DIR}/key.json"
CLAIM_DIR: Final = "/mnt/model-source"
"""Where the claim of ``pvc://`` is, in both containers: versions are links that lead there."""
CACHE_DIR: Final = "/mnt/model-cache"
"""Where the claim that pods share is, in the poller's container alone."""
WARMUP_DIR: Final = "/etc/warmup"
AUTHORITIES_DIR: Final = "/etc/extra-cas"
AUTHORITIES_FILE: Final = f"{AUTHORITIES_DIR}/ca.crt"

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


def volumes(model: InferenceModel) -> list[Manifest]:
    """The volumes of the pod."""
    wanted: list[Manifest] = [
        {"name": "models", **_models(model.spec.storage)},
        {"name": "tmp", "emptyDir": {}},
        {
            "name": "podinfo",
            "downwardAPI": {
                "items": [
                    {
                        "path": file,
                        "fieldRef": {
                            "apiVersion": "v1",
                            "fieldPath": f"metadata.annotations['{annotation}']",
                        },
                    }
                    for file, annotation in ASSIGNMENT_FILES.items()
                ]
            },
        },
    ]
    source, claim, warmup = model.spec.source, model.spec.model.claim, model.spec.model.warmup
    if source.secret_ref is not None:
        # Group-readable: the files belong to root, the poller reads them through fsGroup.
        secret = {"secretName": source.secret_ref.name, "defaultMode": 0o440}
        wanted.append({"name": "model-source", "secret": secret})
    if claim is not None:
        mounted = {"claimName": claim, "readOnly": True}
        wanted.append({"name": "model-claim", "persistentVolumeClaim": mounted})
    if model.spec.storage.cache is not None:
        shared = {"claimName": model.spec.storage.cache.claim_name}
        wanted.append({"name": "model-cache", "persistentVolumeClaim": shared})
    if warmup is not None and warmup.config_map is not None:
        item = {"key": warmup.config_map.key, "path": warmup.config_map.key}
        files = {"name": warmup.config_map.name, "items": [item], "defaultMode": 0o440}
        wanted.append({"name": "warmup", "configMap": files})
    authorities = model.spec.poller.extra_authorities
    if authorities is not None:
        given = authorities.config_map
        item = {"key": given.key, "path": AUTHORITIES_FILE.rpartition("/")[2]}
        files = {"name": given.name, "items": [item], "defaultMode": 0o440}
        wanted.append({"name": "extra-cas", "configMap": files})
    return wanted


def _models(storage: Storage) -> Manifest:
    """The volume of the pod's own that versions are on."""
    if storage.volume_claim_template is not None:
        wanted = storage.volume_claim_template.spec
        claim = present(
            accessModes=list(wanted.access_modes),
            resources={"requests": {"storage": str(wanted.resources.requests.storage)}},
            storageClassName=wanted.storage_class_name,
            # What the API server fills in.
            volumeMode="Filesystem",
        )
        return {"ephemeral": {"volumeClaimTemplate": {"spec": claim}}}
    given = storage.empty_dir
    if given is None:
        return {"emptyDir": {}}
    limit = given.size_limit
    return {"emptyDir": present(sizeLimit=limit and str(limit), medium=given.medium)}


def security(model: InferenceModel) -> Manifest:
    """The pod's security context."""
    if model.spec.storage.cache is None:
        return POD_SECURITY
    # Else the kubelet goes through every file of the cache before each pod starts.
    return {**POD_SECURITY, "fsGroupChangePolicy": "OnRootMismatch"}


def claim_mount(model: InferenceModel) -> list[Manifest]:
    """The mount of the claim that holds the versions, if one does."""
    claim = model.spec.model.claim
    return [] if claim is None else [mount("model-claim", CLAIM_DIR, read_only=True)]
