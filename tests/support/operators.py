"""The operator as a process of its own, against any API server."""

from __future__ import annotations

import http.client
import os
import re
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from devcluster.ports import free_port
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from types import TracebackType

ROOT = Path(__file__).parents[2]
WRITES = ("create", "patch", "update", "delete")
_REQUESTS = re.compile(
    r'^inferencemodel_operator_api_requests_total\{outcome="(\d*|\w+)",'
    r'resource="([^"]*)",verb="(\w+)"\} (\S+)$',
    re.MULTILINE,
)


@dataclass
class Operator:
    """``python -m inferencemodel_operator run`` for some namespaces, while the block runs."""

    kubeconfig: Path
    namespaces: tuple[str, ...]
    arguments: tuple[str, ...] = ("--poller-access=direct",)
    port: int = field(default_factory=free_port)
    _process: subprocess.Popen[bytes] | None = None
    _log: Path = field(
        default_factory=lambda: Path(tempfile.mkstemp(prefix="operator-", suffix=".log")[1])
    )

    def __enter__(self) -> Operator:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
        if error is not None:
            sys.stderr.write(self.log())
        self._log.unlink(missing_ok=True)

    def start(self) -> None:
        """Start it, and wait until it has listed everything."""
        self.launch()
        eventually(self._ready, what="the operator to be ready", within=30, every=0.05)

    def launch(self) -> None:
        """Start it, whatever becomes of it."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "inferencemodel_operator", "run"),
                    f"--kubeconfig={self.kubeconfig}",
                    *(f"--namespace={namespace}" for namespace in self.namespaces),
                    f"--http-port={self.port}",
                    "--log-format=text",
                    *self.arguments,
                ],
                env={**os.environ, "PYTHONPATH": f"{ROOT}/operator:{ROOT}/poller"},
                stderr=log,
            )

    def stop(self) -> int:
        """End it by SIGTERM; its exit code."""
        if self._process is None:
            return 0
        self._process.send_signal(signal.SIGTERM)
        code = self._process.wait(timeout=60)
        self._process = None
        return code

    def kill(self) -> None:
        """End it by SIGKILL, as a node that dies would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(timeout=60)
        self._process = None

    def ended(self) -> int | None:
        """Its exit code if it has ended by itself."""
        assert self._process is not None
        return self._process.poll()

    def restart(self) -> None:
        """End it and start another one."""
        self.stop()
        self.start()

    def log(self) -> str:
        """All that it has logged."""
        return self._log.read_text()

    def get(self, path: str) -> str:
        """One answer of its HTTP interface."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", path)
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    def requests(self, *verbs: str, outcome: str | None = None) -> dict[str, int]:
        """How many requests of some verbs it has sent since its start, as ``verb resource``.

        With an outcome, such as an HTTP status, just those that ended so.
        """
        counts: dict[str, int] = {}
        for ended, resource, verb, count in _REQUESTS.findall(self.get("/metrics")):
            if verb in verbs and outcome in (None, ended):
                name = f"{verb} {resource}"
                counts[name] = counts.get(name, 0) + int(float(count))
        return counts

    def until_quiet(self, *, until_later: bool = False) -> None:
        """Wait until it has nothing to do, three times in a row.

        What has just been written, it hears of a moment later.

        Args:
            until_later: whether it may have something to do at some later time, as a deadline.
        """
        gauges = ("depth", "working") if until_later else ("depth", "waiting", "working")
        calm = 0

        def quiet() -> bool:
            nonlocal calm
            metrics = self.get("/metrics")
            idle = all(f"inferencemodel_operator_queue_{gauge} 0.0" in metrics for gauge in gauges)
            calm = calm + 1 if idle else 0
            return calm >= 3

        eventually(quiet, what="the operator to be quiet", within=30, every=0.1)

    def _ready(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError(f"the operator ended:\n{self.log()}")
        try:
            return self.get("/readyz") == "ok\n"
        except OSError as error:
            raise AssertionError(str(error)) from error
