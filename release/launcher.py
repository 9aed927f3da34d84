#!/usr/bin/env python3
"""Starts ``kubectl inferencemodel``, and before the first time installs what it needs.

It lies beside the project's wheel and a lock in the archive that krew unpacks, and imports nothing
but Python itself. What it installs goes into a folder of the user's cache, named after all that
decides what is in it, so that an update, another Python or another machine gets its own.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

OLDEST = (3, 11)


def main() -> None:
    """Have the packages, and become the plugin."""
    if sys.version_info < OLDEST:
        _end(f"python3 is {sys.version.split()[0]}, and has to be 3.11 or newer")
    name = Path(sys.argv[0]).name
    here = Path(__file__).resolve().parent
    (wheel,) = here.glob("inferencemodel-*.whl")
    packages = _place(wheel, here / "requirements.lock")
    if not packages.is_dir():
        if name.startswith("kubectl_complete-"):
            # Nobody waits for an installation in the middle of a word.
            return
        _bring(packages, wheel, here / "requirements.lock")
    sys.path.insert(0, str(packages))
    from kubectl_inferencemodel.cli import main as run

    sys.argv[0] = name
    sys.exit(run())


def _place(wheel: Path, lock: Path) -> Path:
    digest = hashlib.sha256(wheel.read_bytes() + lock.read_bytes()).hexdigest()[:16]
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "kubectl-inferencemodel"
    return folder / f"{sys.implementation.cache_tag}-{_machine()}-{digest}"


def _bring(packages: Path, wheel: Path, lock: Path) -> None:
    folder = packages.parent
    if _lacks_pip():
        _end("python3 has no pip: install python3-pip, or start it with a python3 that has it")
    folder.mkdir(parents=True, exist_ok=True)
    print("kubectl inferencemodel: installing its packages, once …", file=sys.stderr)
    unfinished = Path(tempfile.mkdtemp(dir=folder, prefix=".unfinished-"))
    try:
        _install(unfinished, lock)
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(unfinished)
        unfinished.chmod(0o755)
        # Whoever is first has it; another one that started at the same time uses that.
        try:
            unfinished.rename(packages)
        except OSError:
            if not packages.is_dir():
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _install(target: Path, lock: Path) -> None:
    options = ("--no-deps", "--require-hashes", "--only-binary=:all:", "--quiet")
    quiet = ("--disable-pip-version-check", "--root-user-action=ignore")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", *options, *quiet),
            *(f"--target={target}", f"--requirement={lock}"),
        ],
        check=False,
    )
    if done.returncode != 0:
        _end("pip could not install its packages; it says why above")


def _lacks_pip() -> bool:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--version"], capture_output=True, check=False
    )
    return done.returncode != 0


def _machine() -> str:
    return f"{sys.platform}-{os.uname().machine}"


def _end(reason: str) -> None:
    sys.exit(f"kubectl inferencemodel: {reason}")


if __name__ == "__main__":
    main()
