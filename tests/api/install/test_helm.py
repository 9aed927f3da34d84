"""Helm installs, upgrades and uninstalls on a real API server."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.support import kinds
from tests.support.crd import until_served
from tests.support.kubectl import Kubectl, KubectlError
from tests.support.rendering import CHART, SYSTEM, run

if TYPE_CHECKING:
    from pathlib import Path

    from devcluster.client import Api
    from tests.support.rendering import Programs

pytestmark = pytest.mark.api

CRD = "inferencemodels.inferencemodel.dev"
MODEL = {
    "apiVersion": "inferencemodel.dev/v1alpha1",
    "kind": "InferenceModel",
    "metadata": {"name": "imagenet"},
    "spec": {"model": {"storageUri": "gs://models/imagenet"}},
}


@dataclass(frozen=True)
class Helm:
    programs: Programs
    kubectl: Kubectl

    def __call__(self, *arguments: str | Path, code: int = 0) -> str:
        return run(
            self.programs.helm,
            *arguments,
            f"--namespace={SYSTEM}",
            f"--kubeconfig={self.kubectl.kubeconfig}",
            code=code,
        )


@pytest.fixture
def helm(fresh_api: Api, programs: Programs) -> Helm:
    return Helm(programs, Kubectl(fresh_api.program, fresh_api.kubeconfig))


def next_release(directory: Path) -> Path:
    """The chart of a later release, whose CRD has one more field."""
    chart = directory / CHART.name
    shutil.copytree(CHART, chart)
    path = chart / "files" / "inferencemodel.yaml"
    crd = yaml.safe_load(path.read_text())
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    schema["properties"]["spec"]["properties"]["later"] = {"type": "string"}
    path.write_text(yaml.safe_dump(crd))
    return chart


def fields(kubectl: Kubectl) -> set[str]:
    """The fields of the spec, by the CRD as it is."""
    version = kubectl.get("crd", CRD)["spec"]["versions"][0]
    return set(version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"])


def test_a_release_is_installed_upgraded_with_its_crd_and_leaves_the_models_behind(
    helm: Helm, tmp_path: Path
) -> None:
    kubectl = helm.kubectl
    helm("install", "inferencemodel", CHART, "--create-namespace")
    until_served(kubectl.kubeconfig, "inferencemodels")
    kubectl("get", "deployment/inferencemodel-operator", f"--namespace={SYSTEM}")
    kubectl("get", f"clusterrole/{SYSTEM}:inferencemodel-operator")
    kubectl("create", "namespace", "vision")
    kubectl.in_namespace("vision").apply(MODEL)

    helm("upgrade", "inferencemodel", next_release(tmp_path))
    assert "later" in fields(kubectl)

    helm("uninstall", "inferencemodel")
    with pytest.raises(KubectlError, match="not found"):
        kubectl("get", "deployment/inferencemodel-operator", f"--namespace={SYSTEM}")
    with pytest.raises(KubectlError, match="not found"):
        kubectl("get", f"clusterrole/{SYSTEM}:inferencemodel-operator")
    assert kubectl.in_namespace("vision").get("inferencemodel", "imagenet")

    # And back again: what it left is its own, so it is taken up.
    helm("install", "inferencemodel", CHART)
    assert "later" not in fields(kubectl)


def test_a_crd_of_kubectl_is_left_alone_on_request(helm: Helm) -> None:
    helm("uninstall", "inferencemodel", "--ignore-not-found")
    if helm.kubectl("get", "crd", CRD, "--ignore-not-found"):
        kinds.remove(helm.kubectl, CRD)
    helm.kubectl("apply", "--server-side", "-k", str(CHART.parents[1] / "crds"))
    # The documented ways out of the first one.
    helm("install", "inferencemodel", CHART, "--create-namespace", code=1)
    helm("upgrade", "--install", "inferencemodel", CHART, "--set=crds.install=false")
    take = ("--set=crds.install=true", "--take-ownership", "--force-conflicts")
    helm("upgrade", "inferencemodel", CHART, *take)
    crd = helm.kubectl.get("crd", CRD)
    assert crd["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
