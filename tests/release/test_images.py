"""The images of a release start as the user that they name, and tell their licences."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from devcluster import recipes
from tests.support import trial

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MODULES = {"operator": "inferencemodel_operator", "poller": "model_poller"}


@pytest.fixture
def buildah(tmp_path: Path) -> Iterator[recipes.Buildah]:
    """A store of its own."""
    store = recipes.Buildah(tmp_path / "root", tmp_path / "run")
    yield store
    # Its mounts would keep the folder from being removed.
    store.run("rm", "--all")
    store.run("rmi", "--all", "--force")


@pytest.mark.parametrize("name", MODULES)
def test_an_image_runs_as_the_user_that_it_names(
    releases: tuple[Path, Path], buildah: recipes.Buildah, name: str
) -> None:
    # Of the one that was made with the stricter umask.
    archive = releases[1] / f"{name}-{trial.VERSION}.oci.tar"
    container = buildah.run("from", "--pull-never", f"oci-archive:{archive}").strip()

    def run(*words: str) -> str:
        return buildah.run("run", "--isolation=chroot", container, "--", *words)

    assert run("id", "-u").strip() == "65532"
    assert "usage" in run("python3", "-m", MODULES[name], "--help").lower()
    assert "Apache" in run("cat", "/app/licences/LICENCES.txt")
