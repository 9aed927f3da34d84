"""Releases of the tree as it is, made by the command that ``make release`` runs."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tarfile
from typing import TYPE_CHECKING, Any

import yaml

from release import version as versions
from tests.support.rendering import run

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

REGISTRY = "registry.example.com/inferencemodel"
REPOSITORY = "https://example.com/inferencemodel"
VERSION = versions.current()
CHART = f"inferencemodel-operator-{VERSION}.tgz"
WHEEL = f"inferencemodel-{VERSION}-py3-none-any.whl"
PLUGIN = f"kubectl-inferencemodel-{VERSION}.tar.gz"


def make(output: Path, *options: str, umask: int = 0o022, **environment: str) -> Path:
    """Make a release in a folder, as somebody with some umask and environment; the folder."""
    subprocess.run(
        [
            *(sys.executable, "-m", "release", "build", VERSION, "--trial", f"--output={output}"),
            *(f"--registry={REGISTRY}", f"--repository={REPOSITORY}", *options),
        ],
        cwd=versions.ROOT,
        env={**os.environ, **environment},
        umask=umask,
        check=True,
    )
    return output


def digests(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def check_sums(folder: Path) -> None:
    """Have the release's own sums checked by the program that a user takes, and miss no file."""
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=folder, check=True)
    listed = {line.split()[1] for line in (folder / "SHA256SUMS").read_text().splitlines()}
    assert listed == {path.name for path in folder.iterdir()} - {"SHA256SUMS"}


def unpacked(archive: Path, target: Path) -> Path:
    """What is in an archive, in a new folder."""
    with tarfile.open(archive) as opened:
        opened.extractall(target, filter="data")
    return target


def images(objects: Sequence[dict[str, Any]]) -> set[str]:
    """The images that some objects name, as the operator's container and in its arguments."""
    (deployment,) = (each for each in objects if each["kind"] == "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    told = [word for word in container["args"] if word.startswith("--poller-image=")]
    return {container["image"], *(word.partition("=")[2] for word in told)}


def rendered(helm: Path, chart: Path) -> list[dict[str, Any]]:
    """What a packed chart installs."""
    text = run(helm, "template", "inferencemodel", chart, "--namespace=inferencemodel-system")
    return [each for each in yaml.safe_load_all(text) if each]


def manifest(folder: Path) -> list[dict[str, Any]]:
    """What a release's one-file manifest installs."""
    return [each for each in yaml.safe_load_all((folder / "install.yaml").read_text()) if each]
