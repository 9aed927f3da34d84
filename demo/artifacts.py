"""The demo's model versions and photo, built once and kept outside the tree."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from demo.errors import ModelError
from demo.model.wheels import LOCK

if TYPE_CHECKING:
    from collections.abc import Callable

_SOURCES = Path(__file__).parent / "model"
_TREE = Path(__file__).parent.parent
_BUILD_LIMIT = 900.0  # seconds


@dataclass(frozen=True)
class Artifacts:
    """Files in one folder of the cache."""

    directory: Path

    def archive(self, version: int) -> Path:
        """The archive to upload for a version, named as it is in the bucket: ``0001.zip``."""
        return self.directory / f"{version:04}.zip"

    @property
    def photo(self) -> Path:
        """A photo of a cat, JPEG."""
        return self.directory / "chelsea.jpg"


def cache() -> Path:
    """Where the demo keeps what it built."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "inferencemodel-demo"


def key() -> str:
    """Names what the artifacts are made of and by: the pinned wheels and the builder's sources."""
    digest = hashlib.sha256()
    for path in (LOCK, *sorted(_SOURCES.glob("*.py"))):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def ensure(tell: Callable[[str], None]) -> Artifacts:
    """The artifacts, built when the cache has none that were made of the same inputs.

    Args:
        tell: is given a line for every step of a build, as it happens.

    Raises:
        ModelError: a download or a step of the build failed.
    """
    directory = cache() / key()
    if directory.is_dir():
        tell(f"found in {directory}")
        return Artifacts(directory)
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix=".building-") as scratch:
        made = Path(scratch, "made")
        made.mkdir()
        _build(made, tell)
        try:
            made.rename(directory)
        except OSError:
            # Another run has built the same in the meantime.
            if not directory.is_dir():
                raise
    tell(f"kept in {directory}")
    return Artifacts(directory)


def _build(directory: Path, tell: Callable[[str], None]) -> None:
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", "PYTHONUNBUFFERED": "1"}
    with (
        tempfile.TemporaryFile("w+") as log,
        subprocess.Popen(
            ["timeout", str(_BUILD_LIMIT), sys.executable, "-m", "demo.model", str(directory)],
            cwd=_TREE,
            env={**os.environ, **quiet},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as builder,
    ):
        assert builder.stdout
        for line in builder.stdout:
            tell(line.rstrip())
        if builder.wait() != 0:
            log.seek(0)
            raise ModelError(f"the model could not be built:\n{log.read().strip()}")
