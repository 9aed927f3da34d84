"""What a user does with a release: cluster, chart, bundle, and the plugin by pip and by krew."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from devcluster import ApiServer, build
from tests.support import trial
from tests.support.crd import EXAMPLES, ROOT, until_served
from tests.support.kubectl import Kubectl
from tests.support.rendering import SYSTEM, run

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

# Packages are fetched, and krew is built where it isn't yet.
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def programs() -> Mapping[str, Path]:
    return build.ensure(["helm", "kubectl", "krew", "bundle-check"])


@pytest.fixture
def kubectl() -> Iterator[Kubectl]:
    """An API server on which nothing is installed."""
    with ApiServer() as api:
        yield Kubectl(api.program, api.kubeconfig)


def take_a_model(kubectl: Kubectl) -> None:
    until_served(kubectl.kubeconfig, "inferencemodels")
    kubectl("apply", "-f", str(EXAMPLES / "minimal.yaml"))
    assert len(kubectl.list("inferencemodels")) == 1


def test_one_file_installs_the_definition_and_the_operator(kubectl: Kubectl, release: Path) -> None:
    file = str(release / "install.yaml")
    kubectl("apply", "--server-side", "--force-conflicts", "-f", file)
    take_a_model(kubectl)
    there = kubectl.in_namespace(SYSTEM).get("deployment", "inferencemodel-operator")
    assert trial.images([there]) == trial.images(trial.manifest(release))


def test_an_administrator_installs_the_definition_alone(kubectl: Kubectl, release: Path) -> None:
    kubectl("apply", "--server-side", "-f", str(release / "inferencemodel-crd.yaml"))
    take_a_model(kubectl)


def test_helm_installs_the_chart(
    kubectl: Kubectl, release: Path, programs: Mapping[str, Path]
) -> None:
    run(
        *(programs["helm"], "install", "inferencemodel", release / trial.CHART),
        *(f"--namespace={SYSTEM}", "--create-namespace", f"--kubeconfig={kubectl.kubeconfig}"),
    )
    take_a_model(kubectl)
    (there,) = kubectl.in_namespace(SYSTEM).list("deployments")
    assert trial.images([there]) == trial.images(trial.manifest(release))


def test_olm_accepts_the_bundle(
    release: Path, programs: Mapping[str, Path], tmp_path: Path
) -> None:
    archive = release / f"inferencemodel-operator-bundle-{trial.VERSION}.tar.gz"
    folder = trial.unpacked(archive, tmp_path)
    # It takes the folder with the manifests, wherever the archive has it.
    (service,) = folder.rglob("*.clusterserviceversion.yaml")
    run(programs["bundle-check"], service.parent)


def plugin(programs: Mapping[str, Path], found: Path, home: Path, *words: str) -> str:
    """``kubectl inferencemodel …`` with a folder in which kubectl finds the plugin."""
    done = subprocess.run(
        [programs["kubectl"], "inferencemodel", *words],
        env={
            # No tree of the project: what is asked is what was installed.
            **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
            "PATH": f"{found}:{os.environ['PATH']}",
            "HOME": str(home),
            "XDG_CACHE_HOME": str(home / "cache"),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_pip_installs_the_wheel(
    kubectl: Kubectl, release: Path, programs: Mapping[str, Path], tmp_path: Path
) -> None:
    run(sys.executable, "-m", "venv", tmp_path / "venv")
    found = tmp_path / "venv" / "bin"
    pip = (found / "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check")
    run(*pip, "--require-hashes", f"--requirement={ROOT / 'requirements' / 'plugin.lock'}")
    run(*pip, release / trial.WHEEL)
    assert plugin(programs, found, tmp_path, "--version") == f"{trial.VERSION}\n"
    kubectl("apply", "--server-side", "-f", str(release / "inferencemodel-crd.yaml"))
    take_a_model(kubectl)
    name = kubectl.list("inferencemodels")[0]["metadata"]["name"]
    assert name in plugin(programs, found, tmp_path, "list", f"--kubeconfig={kubectl.kubeconfig}")


def test_krew_installs_the_plugin_which_brings_its_packages_once(
    release: Path, programs: Mapping[str, Path], tmp_path: Path
) -> None:
    manifest: dict[str, Any] = yaml.safe_load((release / "inferencemodel.yaml").read_text())
    (platform,) = manifest["spec"]["platforms"]
    packed = (release / trial.PLUGIN).read_bytes()
    assert platform["sha256"] == hashlib.sha256(packed).hexdigest()
    assert platform["uri"].endswith(f"/{trial.PLUGIN}")
    done = subprocess.run(
        [
            *(programs["krew"], "install", f"--manifest={release / 'inferencemodel.yaml'}"),
            f"--archive={release / trial.PLUGIN}",
        ],
        env={**os.environ, "KREW_ROOT": str(tmp_path / "krew"), "KREW_OS": "linux"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = tmp_path / "krew" / "bin"
    first = plugin(programs, found, tmp_path, "--version")
    assert "installing its packages, once" in first
    assert plugin(programs, found, tmp_path, "--version") == f"{trial.VERSION}\n"
