"""The models, built once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the SavedModels that build_models.py names."""
    directory = tmp_path_factory.mktemp("models")
    subprocess.run(
        [sys.executable, str(Path(__file__).with_name("build_models.py")), str(directory)],
        check=True,
        capture_output=True,
        timeout=180,
    )
    return directory
