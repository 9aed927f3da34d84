"""The library of KServe's storage initializer, in an environment of its own."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

from demo.console import say
from demo.errors import ClusterError
from devcluster import locks, paths

if TYPE_CHECKING:
    from pathlib import Path

_PINS = paths.REPOSITORY / "requirements/kserve-storage.lock"
_INSTALL_SECONDS = 600
PROGRAM = """
import sys
from kserve_storage import Storage
Storage.download(sys.argv[1], sys.argv[2])
"""


def python() -> Path:
    """The interpreter that has it; installed at the first use.

    Raises:
        ClusterError: it can't be installed.
    """
    digest = hashlib.sha256(_PINS.read_bytes()).hexdigest()[:12]
    folder = paths.cache() / f"kserve-storage-{digest}"
    done, program = folder / ".installed", folder / "bin/python"
    with locks.exclusive("kserve-storage"):
        if done.exists():
            return program
        say("installing kserve-storage into an environment of its own (about a minute)")
        shutil.rmtree(folder, ignore_errors=True)
        install = [
            *(str(program), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
            *("--no-deps", "--require-hashes", "--requirement", str(_PINS)),
        ]
        for argv in ([sys.executable, "-m", "venv", str(folder)], install):
            ran = subprocess.run(
                argv, capture_output=True, text=True, check=False, timeout=_INSTALL_SECONDS
            )
            if ran.returncode:
                raise ClusterError(f"kserve-storage can't be installed:\n{ran.stderr[-2000:]}")
        done.touch()
    return program
