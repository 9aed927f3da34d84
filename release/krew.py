"""The kubectl plugin as krew installs it: a small program that brings the rest on its first start.

Its packages are built for a platform and a version of Python each, so an archive that has them all
would be one for each of a dozen machines. This one has the wheel, the lock with the hashes, and
``launcher.py``, which installs both into a folder of the user's cache.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from release import archives

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = "kubectl-inferencemodel"
_COMPLETION = "kubectl_complete-inferencemodel"
"""What kubectl runs to complete a line; krew makes no link to it, so a user does."""
_CAVEATS = """\
It is written in Python: python3 3.11 or newer with pip has to be there. Its first start installs
what it needs from the package index that pip uses, checked by hashes, into
~/.cache/kubectl-inferencemodel.
"""


def archive(source: Path, wheel: bytes, wheel_name: str, epoch: int) -> bytes:
    """The archive.

    Args:
        source: a copy of the tree.
        wheel: the project's.
        wheel_name: its file name.
        epoch: when its files were changed, in seconds since 1970.
    """
    launcher = (source / "release" / "launcher.py").read_bytes()
    files = {
        PROGRAM: launcher,
        _COMPLETION: launcher,
        "requirements.lock": (source / "requirements" / "plugin.lock").read_bytes(),
        "LICENSE": (source / "LICENSE").read_bytes(),
        wheel_name: wheel,
    }
    return archives.compressed(archives.tar(files, epoch=epoch, programs=(PROGRAM, _COMPLETION)))


def manifest(version: str, repository: str, archive_name: str, digest: str) -> str:
    """The manifest, which krew's index would have.

    Args:
        version: of the release.
        repository: the address of the project's repository, whose release has the archive.
        archive_name: its file name.
        digest: its SHA-256.
    """
    systems = [{"key": "os", "operator": "In", "values": ["darwin", "linux"]}]
    content: dict[str, Any] = {
        "apiVersion": "krew.googlecontainertools.github.com/v1alpha2",
        "kind": "Plugin",
        "metadata": {"name": "inferencemodel"},
        "spec": {
            "version": f"v{version}",
            "homepage": repository,
            "shortDescription": "Show TensorFlow models, their versions and rollouts",
            "description": (
                "Lists InferenceModels with the versions that answer on every replica, says what\n"
                "one waits for, follows and steers rollouts, asks a model, and compares versions.\n"
            ),
            "caveats": _CAVEATS,
            "platforms": [
                {
                    "selector": {"matchExpressions": systems},
                    "uri": f"{repository}/releases/download/v{version}/{archive_name}",
                    "sha256": digest,
                    "bin": PROGRAM,
                }
            ],
        },
    }
    return yaml.safe_dump(content, sort_keys=False, width=100)
