"""An earlier state of this project, to upgrade from and to go back to."""

from __future__ import annotations

import subprocess
import tarfile
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

from release import version
from tests.support.crd import ROOT

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class State:
    """The sources of a state of the project."""

    root: Path

    @property
    def version(self) -> str:
        """What its images are tagged with."""
        return version.current(self.root)

    @property
    def chart(self) -> Path:
        """Its Helm chart."""
        return self.root / "charts" / "inferencemodel-operator"

    def image(self, name: str) -> str:
        """One of its images."""
        return f"inferencemodel/{name}:{self.version}"


TODAY = State(ROOT)


def state(tag: str, folder: Path, *, called: str) -> State:
    """What was tagged, in a folder that is there and empty.

    Args:
        tag: of the repository, such as ``v1.2.3``.
        folder: where to.
        called: the version that it says of itself there, X.Y.Z: between two releases the tree still
            has that of the former one, and a node has one image of a name.

    Raises:
        CalledProcessError: the checkout has no such tag (``git fetch --tags``).
    """
    packed = subprocess.run(
        ["git", "-C", str(ROOT), "archive", tag], check=True, stdout=subprocess.PIPE
    ).stdout
    with tarfile.open(fileobj=BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")
    version.write(called, folder)
    return State(folder)
