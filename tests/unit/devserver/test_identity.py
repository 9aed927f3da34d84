"""What the server says of itself."""

from __future__ import annotations

import tomllib

from development_model_server import identity
from tests.unit.devserver.harness import REPOSITORY


def test_its_version_is_the_projects() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert project["version"] == identity.VERSION
