"""Builds the images of a release, in a store of their own that is empty before."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from devcluster import packages, recipes
from devcluster.errors import DevclusterError
from release import oci
from release.errors import ProgramError

if TYPE_CHECKING:
    from release.tree import Tree

#: What a release has: the model server is somebody else's, and the bucket is for development.
NAMES = ("operator", "poller")
_BASE = "localhost/inferencemodel-release/base:latest"
_TITLES = {
    "operator": "The operator of InferenceModels",
    "poller": "Brings versions of a model from a store to the pod beside TensorFlow Serving",
}


def build(source: Path, tree: Tree) -> dict[str, oci.Image]:
    """Build the images for this machine's architecture, from nothing.

    Args:
        source: a copy of the tree, without what git does not know.
        tree: which one it is.

    Raises:
        ProgramError: one does not build, or the machine can't build any.
    """
    try:
        packages.ensure(packages.IMAGES)
        # As root, for every file has the owner that it has in the image.
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
            place = Path(directory)
            store = recipes.Buildah(place / "root", place / "run")
            try:
                recipes.make_base(_BASE, store, epoch=tree.epoch)
                return {name: _build(name, source, tree, store, place) for name in NAMES}
            finally:
                _empty(store)
    except DevclusterError as error:
        raise ProgramError(str(error)) from error


def labels(name: str, tree: Tree) -> dict[str, str]:
    """What an image says of itself."""
    prefix = "org.opencontainers.image"
    return {
        f"{prefix}.title": f"inferencemodel-{name}",
        f"{prefix}.description": _TITLES[name],
        f"{prefix}.version": tree.version,
        f"{prefix}.revision": tree.commit,
        f"{prefix}.licenses": "Apache-2.0",
    }


def _build(name: str, source: Path, tree: Tree, store: recipes.Buildah, place: Path) -> oci.Image:
    layout = place / f"layout-{name}"
    with recipes.host_access() as volumes:
        store.run(
            *("build", "--isolation=chroot", "--layers=false", "--no-cache", "--pull-never"),
            *("--format=oci", f"--timestamp={tree.epoch}", f"--build-arg=BASE={_BASE}"),
            *(f"--volume={volume}" for volume in volumes),
            *(f"--label={label}={value}" for label, value in labels(name, tree).items()),
            *(f"--file={source / 'images' / name / 'Dockerfile'}", f"--tag=localhost/{name}"),
            str(source),
        )
    store.run("push", f"localhost/{name}", f"oci:{layout}:{name}")
    return oci.timeless(oci.read_layout(layout), tree.epoch)


def _empty(store: recipes.Buildah) -> None:
    """Take the store's mounts away, or the directory can't be removed."""
    for arguments in (("rm", "--all"), ("rmi", "--all", "--force")):
        subprocess.run(store.argv(*arguments), capture_output=True, check=False)
