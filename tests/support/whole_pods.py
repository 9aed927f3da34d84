"""Pods without a cluster: a poller beside the development model server, on one volume."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

from devcluster.ports import free_port
from model_poller.status import RolloutTask, VersionState, encode_task
from tests.support.waiting import eventually
from tests.unit.poller.program import Program

if TYPE_CHECKING:
    from pathlib import Path

    from model_poller.status import PollerStatus


class Pod:
    """A poller and a model server on one volume, as in a pod."""

    def __init__(self, root: Path, endpoint: str, *more: str) -> None:
        self.root = root
        self.models = root / "models"
        self.target = root / "target"
        self._ports = free_port(), free_port()
        self._server: subprocess.Popen[bytes] | None = None
        self._arguments = [
            "--model-name=linear",
            "--storage-uri=gs://models/linear",
            f"--endpoint={endpoint}",
            "--anonymous",
            "--poll-interval=0.3",
            f"--models-dir={self.models}",
            f"--server-config-dir={self.models}/.server",
            f"--server-address=127.0.0.1:{self._ports[0]}",
            f"--server-rest-address=127.0.0.1:{self._ports[1]}",
            f"--target-file={self.target}",
            *more,
        ]
        self.start_poller()

    def start_poller(self) -> None:
        self.poller = Program(self.root, *self._arguments)

    def start_server(self) -> None:
        """The operator's command line."""
        with (self.root / "server.log").open("ab") as log:
            self._server = subprocess.Popen(
                [
                    *(sys.executable, "-m", "development_model_server"),
                    *(f"--port={self._ports[0]}", f"--rest_api_port={self._ports[1]}"),
                    f"--model_config_file={self.models}/.server/models.config",
                    f"--monitoring_config_file={self.models}/.server/monitoring.config",
                    *("--num_load_threads=2", "--num_unload_threads=1", "--max_num_load_retries=1"),
                    *("--load_retry_interval_micros=100000", "--enable_profiler=false"),
                ],
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
            )

    def kill_server(self) -> None:
        if self._server:
            self._server.kill()
            self._server.wait()

    def tell(self, version: int) -> None:
        self.target.write_text(str(version))

    def ask(self, task: RolloutTask) -> None:
        (self.root / "rollout").write_text(encode_task(task))

    def rest(self, path: str, body: bytes | None = None) -> int:
        url = f"http://127.0.0.1:{self._ports[1]}/v1/models/linear{path}"
        try:
            with urllib.request.urlopen(url, body, timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    def begin(self, version: int) -> None:
        """Serve a version of the bucket, the first one."""
        self.tell(version)
        self.poller.wait_for(version, VersionState.PUBLISHED)
        self.start_server()
        self.serves(version)

    def serves(self, version: int) -> PollerStatus:
        def probe() -> PollerStatus | None:
            status = self.poller.status()
            return status if status.active_version == version else None

        return eventually(probe, what=f"version {version} to be served", within=60, every=0.1)

    def loads(self) -> list[str]:
        """What the model server has said of versions that it loaded."""
        log = (self.root / "server.log").read_text()
        return [line for line in log.splitlines() if "Successfully loaded" in line]

    def end(self) -> None:
        """Leave nothing running, and show the logs where a test fails."""
        self.poller.kill()
        self.kill_server()
        for log in (self.poller.log, self.root / "server.log"):
            if log.exists():
                print(log.read_text())
