"""Two releases made from nothing, images and all; minutes each, so they are made once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support import trial

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def releases(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """One as this machine makes it, and one with another clock's zone, language and umask."""
    return (
        trial.make(tmp_path_factory.mktemp("one") / "dist"),
        trial.make(
            tmp_path_factory.mktemp("two") / "dist",
            umask=0o077,
            TZ="Asia/Kathmandu",
            LC_ALL="C",
            PYTHONHASHSEED="7",
        ),
    )


@pytest.fixture(scope="session")
def release(releases: tuple[Path, Path]) -> Path:
    """One of them."""
    return releases[0]
