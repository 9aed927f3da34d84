"""The operator as a process of its own, measured from outside."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from demo.errors import OutcomeError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from devcluster import Api

_TREE = Path(__file__).parent.parent
NAMESPACE = "bench"
USER_AGENT = "inferencemodel-operator"


class OperatorProcess:
    """One run of the operator over the namespace of the measurements, inside a ``with`` block."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._log = Path(api.kubeconfig).parent / "operator.log"
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port: int = free.getsockname()[1]

    def __enter__(self) -> Self:
        with self._log.open("w") as output:
            self.started = time.monotonic()
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "inferencemodel_operator", "run"),
                    *(f"--kubeconfig={self._api.kubeconfig}", f"--http-port={self._port}"),
                    *("--poller-access=direct", f"--namespace={NAMESPACE}"),
                ],
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": f"{_TREE / 'operator'}:{_TREE / 'poller'}"},
            )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(timeout=30)

    @property
    def age(self) -> float:
        """Seconds since its start."""
        return time.monotonic() - self.started

    def until(self, holds: Callable[[], bool], what: str, *, within: float = 300.0) -> None:
        """Wait until something is true.

        Raises:
            OutcomeError: it never was, or the operator ended; with the end of its log.
        """
        deadline = time.monotonic() + within
        while not holds():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise OutcomeError(f"waited in vain for {what}:\n{self._log.read_text()[-3000:]}")
            time.sleep(0.02)

    def until_ready(self) -> None:
        """Wait until it has listed everything."""
        self.until(lambda: self._get("/readyz") == "ok\n", "the operator to be ready")

    def until_idle(self) -> None:
        """Wait until it has nothing to do."""
        self.until(
            lambda: all(not self.metric(f"queue_{q}") for q in ("depth", "waiting", "working")),
            "the operator to have nothing to do",
        )

    def metric(self, name: str, *labels: str) -> float:
        """The sum of its samples of that name with all these labels; 0 while it doesn't answer."""
        pattern = rf"^inferencemodel_operator_{name}(\{{[^}}]*\}})? (\S+)$"
        return sum(
            float(value)
            for found, value in re.findall(pattern, self._get("/metrics"), re.MULTILINE)
            if all(label in found for label in labels)
        )

    @property
    def cpu_seconds(self) -> float:
        """Processor time that it has used."""
        fields = self._proc("stat").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def memory_mb(self) -> float:
        """Resident memory now, in millions of bytes."""
        pages = int(self._proc("statm").split()[1])
        return round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 1)

    @property
    def peak_memory_mb(self) -> float:
        """The most resident memory that it ever had, in millions of bytes."""
        return round(int(re.search(r"VmHWM:\s+(\d+)", self._proc("status"))[1]) * 1024 / 1e6, 1)  # type: ignore[index]

    def _proc(self, name: str) -> str:
        return Path(f"/proc/{self._process.pid}/{name}").read_text()

    def _get(self, path: str) -> str:
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self._port}{path}", timeout=5
            ) as response:
                text: str = response.read().decode()
                return text
        except (urllib.error.URLError, OSError):
            return ""


class AuditLog:
    """What the operator wrote from now on, as the API server's own log tells."""

    def __init__(self, api: Api) -> None:
        assert api.audit_log
        self._path = api.audit_log
        self._offset = self._path.stat().st_size

    def writes(self) -> Counter[str]:
        """The operator's writes by verb and resource."""
        writes: Counter[str] = Counter()
        with self._path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if USER_AGENT.encode() not in line or not line.endswith(b"\n"):
                    continue
                event = json.loads(line)
                if event.get("userAgent", "").startswith(USER_AGENT):
                    about = event["objectRef"]
                    names = (about["resource"], about.get("subresource"))
                    writes[f"{event['verb']} {'/'.join(filter(None, names))}"] += 1
        return writes
