"""The bundle by which OLM, Operator Lifecycle Manager, installs the operator.

Everything in it comes from what kustomize renders of ``manifests/base``, and from the definition:
https://olm.operatorframework.io/docs/tasks/creating-operator-bundle.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import yaml

from release.errors import ReleaseError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from release.install import References

Object = dict[str, Any]

PACKAGE = "inferencemodel-operator"
CHANNEL = "alpha"
_DESCRIPTION = """\
One resource serves a TensorFlow model: every new version that appears in a bucket is fetched,
checked and loaded on every replica without an interruption, and the status tells which version
answers.

A version that is incomplete, damaged or does not load is set aside with the reason, while the one
before goes on answering. Versions come from Google Cloud Storage, S3, Azure Blob Storage, web
servers and mounted volumes. The model server is the public image of TensorFlow Serving.
"""
#: Of what is rendered, beside the definition, what OLM installs as it is.
_AS_IT_IS = ("Service", "PodDisruptionBudget", "ClusterRole")
#: What OLM makes itself from the ClusterServiceVersion, or chooses where it is installed.
_ITS_OWN = (
    *("Namespace", "ServiceAccount", "Role", "RoleBinding", "ClusterRoleBinding", "Deployment"),
)


def bundle(
    rendered: str, references: References, *, repository: str, epoch: int, example: str
) -> dict[str, bytes]:
    """The files of the bundle, by their paths.

    Args:
        rendered: ``install.yaml``, with the images of the release.
        references: where these are.
        repository: the address of the project's repository; empty where it has none.
        epoch: when it was made, in seconds since 1970.
        example: an InferenceModel to start from.

    Raises:
        ReleaseError: something is rendered that the bundle has no place for.
    """
    objects = [each for each in yaml.safe_load_all(rendered) if each]
    files = {}
    service = _service_version(objects, references, repository, epoch, example)
    files[f"manifests/{PACKAGE}.clusterserviceversion.yaml"] = _yaml(service)
    for each in objects:
        kind, name = each["kind"], each["metadata"]["name"]
        if kind == "CustomResourceDefinition":
            files[f"manifests/{name}.crd.yaml"] = _yaml(each)
        elif kind in _AS_IT_IS and not (kind == "ClusterRole" and name == PACKAGE):
            each["metadata"].pop("namespace", None)
            files[f"manifests/{name}.{kind.lower()}.yaml"] = _yaml(each)
        elif kind not in (*_ITS_OWN, "ClusterRole"):
            raise ReleaseError(f"{kind} {name} has no place in the bundle yet: see release/olm.py")
    prefix = "operators.operatorframework.io.bundle"
    annotations = {
        f"{prefix}.mediatype.v1": "registry+v1",
        f"{prefix}.manifests.v1": "manifests/",
        f"{prefix}.metadata.v1": "metadata/",
        f"{prefix}.package.v1": PACKAGE,
        f"{prefix}.channels.v1": CHANNEL,
        f"{prefix}.channel.default.v1": CHANNEL,
    }
    files["metadata/annotations.yaml"] = _yaml({"annotations": annotations})
    files["bundle.Dockerfile"] = _dockerfile(annotations)
    return files


def _service_version(
    objects: list[Object], references: References, repository: str, epoch: int, example: str
) -> Object:
    (deployment,) = _of(objects, "Deployment")
    (definition,) = _of(objects, "CustomResourceDefinition")
    account = deployment["spec"]["template"]["spec"]["serviceAccountName"]
    cluster = [role for role in _of(objects, "ClusterRole") if role["metadata"]["name"] == PACKAGE]
    version = definition["spec"]["versions"][0]
    links = [{"name": "Repository", "url": repository}] if repository else []
    provider = {"name": "InferenceModel", **({"url": repository} if repository else {})}
    return {
        "apiVersion": "operators.coreos.com/v1alpha1",
        "kind": "ClusterServiceVersion",
        "metadata": {
            "name": f"{PACKAGE}.v{references.version}",
            "annotations": {
                "alm-examples": json.dumps([yaml.safe_load(example)], indent=2),
                "capabilities": "Seamless Upgrades",
                "categories": "AI/Machine Learning",
                "containerImage": references.pinned("operator"),
                "createdAt": datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                "description": "Serves TensorFlow models, every new version on every replica.",
                "support": "InferenceModel",
                **({"repository": repository} if repository else {}),
            },
        },
        "spec": {
            "displayName": "InferenceModel",
            "description": _DESCRIPTION,
            "version": references.version,
            "maturity": "alpha",
            "minKubeVersion": "1.34.0",
            "keywords": ["tensorflow", "tensorflow-serving", "machine-learning"],
            "provider": provider,
            "links": links,
            "installModes": [
                {"type": mode, "supported": mode == "AllNamespaces"}
                for mode in ("OwnNamespace", "SingleNamespace", "MultiNamespace", "AllNamespaces")
            ],
            "customresourcedefinitions": {
                "owned": [
                    {
                        "name": definition["metadata"]["name"],
                        "version": version["name"],
                        "kind": definition["spec"]["names"]["kind"],
                        "displayName": "InferenceModel",
                        "description": "A TensorFlow model that is served.",
                    }
                ]
            },
            "relatedImages": [
                {"name": name, "image": references.pinned(name)}
                for name in sorted(references.digests)
            ],
            "install": {
                "strategy": "deployment",
                "spec": {
                    "deployments": [
                        {
                            "name": deployment["metadata"]["name"],
                            "label": deployment["metadata"].get("labels", {}),
                            "spec": deployment["spec"],
                        }
                    ],
                    "clusterPermissions": _permissions(account, cluster),
                    "permissions": _permissions(account, _of(objects, "Role")),
                },
            },
        },
    }


def _of(objects: Iterable[Object], kind: str) -> list[Object]:
    return [each for each in objects if each["kind"] == kind]


def _permissions(account: str, roles: Iterable[Object]) -> list[Object]:
    return [{"serviceAccountName": account, "rules": role["rules"]} for role in roles]


def _dockerfile(annotations: dict[str, str]) -> bytes:
    labels = "\n".join(f"LABEL {key}={value}" for key, value in annotations.items())
    return (
        f"FROM scratch\n{labels}\nCOPY manifests /manifests/\nCOPY metadata /metadata/\n".encode()
    )


def _yaml(content: Object) -> bytes:
    return yaml.safe_dump(content, sort_keys=False, width=100, allow_unicode=True).encode()
