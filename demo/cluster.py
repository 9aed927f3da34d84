"""The cluster that the demo runs on: the embedded one, or that of KUBECONFIG."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo.console import command
from demo.errors import ClusterError
from release import version

TREE = Path(__file__).parent.parent
VERSION = version.current()
"""The project's, which its images are tagged with."""
MANIFESTS = "manifests/overlays/development"
IMAGES = (
    "operator",
    "poller",
    "development-model-server",
    "fake-gcs-server",
    "pubsub-server",
)


def devcluster(*arguments: str, capture: bool = False) -> str:
    """Run a command of the embedded cluster; it shows its own progress.

    Raises:
        ClusterError: it failed, and has said why.
    """
    done = subprocess.run(
        [sys.executable, "-m", "devcluster", *arguments],
        cwd=TREE,
        env={**os.environ, "PYTHONPATH": str(TREE / "devcluster")},
        stdout=subprocess.PIPE if capture else None,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise ClusterError(f"devcluster {' '.join(arguments)} failed; see above")
    return done.stdout.strip() if capture else ""


def exported() -> Path | None:
    """The kubeconfig that KUBECONFIG names, None for the embedded cluster."""
    named = os.environ.get("KUBECONFIG")
    return Path(named) if named else None


@dataclass(frozen=True)
class Cluster:
    """A cluster and where it is reached from here.

    Attributes:
        kubeconfig: whose current context is the cluster.
        kubectl_program: the kubectl to use.
        ingress: ``host:port`` of the ingress controller.
        node: an address on which NodePorts answer.
    """

    kubeconfig: Path
    kubectl_program: Path
    ingress: str
    node: str

    def kubectl(
        self, *arguments: str, stdin: str | None = None, show: bool = False, timeout: float = 120.0
    ) -> str:
        """Run kubectl from the root of the tree and return what it printed.

        Args:
            arguments: of kubectl.
            stdin: what it reads.
            show: whether to show the command.
            timeout: seconds.

        Raises:
            ClusterError: it failed or took too long; the message is its own.
        """
        if show:
            command("kubectl", *arguments)
        try:
            done = subprocess.run(
                self._command(*arguments),
                input=stdin,
                cwd=TREE,
                capture_output=True,
                text=True,
                check=False,
                timeout=timeout,
            )
        except subprocess.TimeoutExpired:
            raise ClusterError(
                f"kubectl {' '.join(arguments)}: no end within {timeout:.0f} s"
            ) from None
        if done.returncode != 0:
            raise ClusterError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def read(self, *arguments: str) -> Any:
        """What ``kubectl get`` knows of an object or a list, as JSON says it."""
        return json.loads(self.kubectl("get", *arguments, "--output=json"))

    def watch(self, *arguments: str) -> subprocess.Popen[str]:
        """Start ``kubectl get --watch``; the caller reads its lines and ends it."""
        return subprocess.Popen(
            self._command("get", *arguments, "--watch"),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            bufsize=1,
        )

    def _command(self, *arguments: str) -> list[str]:
        return [str(self.kubectl_program), f"--kubeconfig={self.kubeconfig}", *arguments]


def reachable(host: str, port: int) -> bool:
    """Whether an address accepts connections from here."""
    try:
        socket.create_connection((host, port), timeout=3).close()
    except OSError:
        return False
    return True


def kubectl_program() -> Path:
    """The kubectl on the path, else the embedded cluster's."""
    installed = shutil.which("kubectl")
    if installed:
        return Path(installed)
    return Path(devcluster("build", "kubectl", capture=True).split()[-1])


def registry_overlay(registry: str, directory: Path) -> Path:
    """A kustomization of the development overlay with its images in a registry.

    Args:
        registry: replaces ``inferencemodel`` in the images' names.
        directory: an empty one to write into.
    """
    resource = os.path.relpath(TREE / MANIFESTS, directory)
    images = [
        {"name": f"inferencemodel/{image}", "newName": f"{registry}/{image}"} for image in IMAGES
    ]
    patch = [
        {
            "op": "add",
            "path": "/spec/template/spec/containers/0/args/-",
            "value": f"--poller-image={registry}/poller:{VERSION}",
        }
    ]
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [resource],
        "images": images,
        "patches": [
            {
                "target": {"kind": "Deployment", "name": "inferencemodel-operator"},
                "patch": json.dumps(patch),
            }
        ],
    }
    (directory / "kustomization.yaml").write_text(json.dumps(kustomization))
    return directory
