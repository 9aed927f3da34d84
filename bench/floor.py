"""The least that a version change can take: curl, unzip, a rename, and the server's own load.

The same model server with the same flags, as plain processes on this machine, fed by hand.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from bench.available import Arrival
from demo.errors import ClusterError, OutcomeError
from devcluster.ports import free_port

if TYPE_CHECKING:
    from typing import Self

_TREE = Path(__file__).parent.parent
_MODEL = "floor"
_CONFIG = """\
model_config_list {{ config {{
  name: "{name}"
  base_path: "{path}"
  model_platform: "tensorflow"
  model_version_policy {{ all {{}} }}
}} }}
"""
_FLAGS = (
    "--file_system_poll_wait_seconds=1",
    "--num_load_threads=2",
    "--num_unload_threads=1",
    "--enable_profiler=false",
)


class Floor:
    """Model servers in processes of this machine, inside a ``with`` block."""

    def __init__(self, count: int) -> None:
        for program in ("curl", "unzip"):
            if shutil.which(program) is None:
                raise ClusterError(
                    f"the floor is measured with {program}: apt-get install {program}"
                )
        self._scratch = tempfile.TemporaryDirectory()
        self._bases = [Path(self._scratch.name, str(number)) for number in range(count)]
        self._servers: list[subprocess.Popen[bytes]] = []
        self._addresses: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers:
            server.kill()
            server.wait()
        self._scratch.cleanup()

    def start(self, url: str, version: int) -> None:
        """Start all servers on a first version."""
        for base in self._bases:
            base.mkdir()
            _place(url, base, version)
            self._servers.append(self._start(base))
        with Arrival(self._addresses, _MODEL, version) as arrival:
            arrival.wait()

    def bring(self, url: str, version: int) -> float:
        """Bring a version to all servers at once; the seconds until it is AVAILABLE on all."""
        started = time.monotonic()
        with Arrival(self._addresses, _MODEL, version) as arrival:
            hands = [threading.Thread(target=_place, args=(url, b, version)) for b in self._bases]
            for hand in hands:
                hand.start()
            for hand in hands:
                hand.join()
            try:
                took = arrival.wait() - started
            except OutcomeError as error:
                logs = (base.with_suffix(".log").read_text()[-2000:] for base in self._bases)
                raise OutcomeError("\n".join([str(error), *logs])) from None
        for base in self._bases:
            for old in base.glob("[0-9]*"):
                if int(old.name) < version:
                    old.rename(base / f".gone-{old.name}")
                    shutil.rmtree(base / f".gone-{old.name}")
        return took

    def _start(self, base: Path) -> subprocess.Popen[bytes]:
        config = base.with_suffix(".config")
        config.write_text(_CONFIG.format(name=_MODEL, path=base))
        port, rest_port = free_port(), free_port()
        self._addresses.append(f"127.0.0.1:{port}")
        with base.with_suffix(".log").open("w") as log:
            return subprocess.Popen(
                [
                    *(sys.executable, "-m", "development_model_server", *_FLAGS),
                    *(f"--port={port}", f"--rest_api_port={rest_port}"),
                    f"--model_config_file={config}",
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": str(_TREE / "devserver")},
            )


def _place(url: str, base: Path, version: int) -> None:
    with tempfile.TemporaryDirectory(dir=base, prefix=".") as scratch:
        archive = Path(scratch, "archive.zip")
        _run("curl", "--silent", "--show-error", "--fail", "--output", str(archive), url)
        _run("unzip", "-q", str(archive), "-d", scratch)
        Path(scratch, f"{version:04}").rename(base / str(version))


def _run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode != 0:
        raise ClusterError(f"{' '.join(argv)}: {done.stderr.strip()}")
