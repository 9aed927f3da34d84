"""The manifest that installs everything, and the chart, with the images of a release in them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from release import archives
from release.errors import ReleaseError

if TYPE_CHECKING:
    from pathlib import Path

_HEADER = """\
# InferenceModel {version}: the definition, and the operator for a whole cluster.
#
#   kubectl apply --server-side --force-conflicts -f install.yaml
#
# Kubernetes 1.34 or newer. Its images: {images}
"""
_CHART = "inferencemodel-operator"
REPOSITORY = "https://github.com/OWNER/INFERENCEMODEL"
"""Stands for the address of the project's repository, which whoever makes a release names."""
FILES = f"{REPOSITORY}/blob/main"
"""Stands before the paths of the repository's files where an address is needed."""


@dataclass(frozen=True)
class References:
    """Where the images of a release are pulled from."""

    registry: str
    """What stands before an image's name, such as ``ghcr.io/x``."""
    version: str
    digests: dict[str, str]
    """By the image's name."""

    def repository(self, name: str) -> str:
        """An image's name without tag and digest."""
        return f"{self.registry}/{name}"

    def tagged(self, name: str) -> str:
        """An image's name with its tag."""
        return f"{self.repository(name)}:{self.version}"

    def pinned(self, name: str) -> str:
        """An image's name with its digest, by which it is always the same one."""
        return f"{self.repository(name)}@{self.digests[name]}"


def manifest(rendered: str, references: References) -> str:
    """What kustomize renders of ``manifests/base``, with the release's own images.

    Raises:
        ReleaseError: the images are not where they are expected.
    """
    text = rendered
    for name in references.digests:
        written = f"inferencemodel/{name}:{references.version}"
        text = _replaced(text, written, references.pinned(name), times=1)
    images = ", ".join(references.pinned(name) for name in sorted(references.digests))
    return _HEADER.format(version=references.version, images=images) + text


def chart(folder: Path, references: References, base: str, epoch: int) -> bytes:
    """The chart as an archive.

    Args:
        folder: the chart.
        references: its images.
        base: the address of the repository's files at that version, for the alerts' runbooks.
        epoch: when its files were changed, in seconds since 1970.

    Raises:
        ReleaseError: a value that names an image, or a page, is not where it is expected.
    """
    files = {
        f"{_CHART}/{path.relative_to(folder)}": path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
    values, description = f"{_CHART}/values.yaml", f"{_CHART}/Chart.yaml"
    files[values] = chart_values(files[values].decode(), references).encode()
    files[description] = chart_description(files[description].decode(), references).encode()
    alerts = f"{_CHART}/files/alerts.yaml"
    files[alerts] = chart_alerts(files[alerts].decode(), base).encode()
    return archives.compressed(archives.tar(files, epoch=epoch))


def chart_values(values: str, references: References) -> str:
    """The chart's values with the release's images, by their digests."""
    for name, digest in references.digests.items():
        repository = f"repository: inferencemodel/{name}\n"
        values = _replaced(
            values, repository, f"repository: {references.repository(name)}\n", times=1
        )
        start = values.index(f"repository: {references.repository(name)}\n")
        values = values[:start] + _replaced(
            values[start:], 'digest: ""', f'digest: "{digest}"', times=0
        )
    return values


def chart_description(description: str, references: References) -> str:
    """``Chart.yaml`` with the images for Artifact Hub."""
    for name in references.digests:
        description = _replaced(
            description,
            f"image: inferencemodel/{name}:{references.version}",
            f"image: {references.pinned(name)}",
            times=1,
        )
    return description


def chart_alerts(rules: str, base: str) -> str:
    """The alert rules, whose runbooks are those of the release."""
    if f"{FILES}/" not in rules:
        raise ReleaseError(f"no alert names a runbook below {FILES}")
    return rules.replace(f"{FILES}/", f"{base}/")


def _replaced(text: str, old: str, new: str, *, times: int) -> str:
    """Replace ``old``, which has to be there so many times; with 0, the first of any number."""
    found = len(re.findall(rf"{re.escape(old)}(?![\w.])", text))
    if found == 0 or (times and found != times):
        raise ReleaseError(f"{old!r} stands {found} times where a release writes its image")
    return text.replace(old, new, 1)
