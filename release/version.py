"""The project's version: where it is written, and how another one gets there.

``pyproject.toml`` has it; programs that run from a checkout read it there. What is read by people,
by Kubernetes or in an image can't, so ``make version VERSION=X.Y.Z`` writes it.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from release.errors import TreeError

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent

#: No pre-releases: Python and Helm write those in different ways.
_NUMBER = r"(?:0|[1-9]\d*)\.(?:0|[1-9]\d*)\.(?:0|[1-9]\d*)"
_VERSION = re.compile(_NUMBER)
_IMAGES = "operator|poller|development-model-server|fake-gcs-server|pubsub-server"


@dataclass(frozen=True)
class Place:
    """A form in which files say the version."""

    files: str
    """A pattern of paths below the root."""
    before: str
    """What stands just before it: a regular expression, multi-line."""
    after: str = ""

    def find(self, text: str) -> list[str]:
        """The versions that a text says in this form."""
        return [found["version"] for found in self._pattern().finditer(text)]

    def replace(self, text: str, version: str) -> str:
        """The text with another version."""
        return self._pattern().sub(lambda found: found["before"] + version, text)

    def _pattern(self) -> re.Pattern[str]:
        return re.compile(
            rf"(?P<before>{self.before})(?P<version>{_NUMBER})(?={self.after})(?![.\d]\d)",
            re.MULTILINE,
        )


_IMAGE = rf"(?:inferencemodel|REGISTRY)/(?:{_IMAGES}):"
PLACES = (
    Place("pyproject.toml", r'^version = "', '"'),
    Place("charts/*/Chart.yaml", r"^(?:version|appVersion): "),
    Place("charts/*/Chart.yaml", _IMAGE),
    Place("operator/inferencemodel_operator/settings.py", _IMAGE, '"'),
    Place("devserver/development_model_server/identity.py", r'^VERSION = "', '"'),
    Place("manifests/base/*.yaml", _IMAGE),
    Place("manifests/development/bucket/*.yaml", _IMAGE),
    Place("images/*/Dockerfile", _IMAGE),
    Place("examples/*.yaml", _IMAGE),
    Place("examples/ci/*.yaml", r"^ +ref: v"),
    Place("README.md", _IMAGE),
    Place("README.md", r"newTag: "),
    Place("README.md", r"make release VERSION="),
    Place("docs/*.md", _IMAGE),
    Place("docs/*.md", r"newTag: "),
    Place("docs/*.md", r"inferencemodel-", "-py3-none-any"),
)


def current(root: Path = ROOT) -> str:
    """The version of a tree, as its ``pyproject.toml`` says it."""
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    return str(project["version"])


def written(root: Path = ROOT) -> Iterator[tuple[Path, str]]:
    """Each file that says a version, with each version that it says."""
    for place in PLACES:
        for path in sorted(root.glob(place.files)):
            for found in place.find(path.read_text()):
                yield path, found


def write(version: str, root: Path = ROOT) -> list[Path]:
    """Write a version wherever it belongs, and return the files that changed.

    Raises:
        TreeError: it is not of the form X.Y.Z.
    """
    if not _VERSION.fullmatch(version):
        raise TreeError(f"{version!r} is no version: write X.Y.Z, such as 0.2.0")
    changed = set()
    for place in PLACES:
        for path in sorted(root.glob(place.files)):
            text = path.read_text()
            if (new := place.replace(text, version)) != text:
                path.write_text(new)
                changed.add(path)
    return sorted(changed)
