"""The operator as a process of its own, measured from outside."""

from __future__ import annotations

import base64
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
from urllib.parse import urlsplit

from bench import measured
from demo.errors import OutcomeError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from devcluster import Api

_TREE = Path(__file__).parent.parent
NAMESPACE = "bench"
USER_AGENT = "inferencemodel-operator"

_AS_IN_A_POD = """
import resource
import sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_NOFILE, (1024, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
from inferencemodel_operator import access
access.SERVICE_ACCOUNT = Path(sys.argv.pop(1))
from inferencemodel_operator.main import main
sys.exit(main())
"""
"""With a service account's token, from another folder than the kubelet's: a kubeconfig would cost
30 MB, for the library that reads it. And with as many open files as container runtimes allow by
default, whatever this shell's limit is."""


class OperatorProcess:
    """One run of the operator over the namespace of the measurements, inside a ``with`` block."""

    def __init__(self, api: Api, *arguments: str) -> None:
        self._api = api
        self._arguments = arguments
        folder = Path(api.kubeconfig).parent
        self._log = folder / f"operator{len(list(folder.glob('operator*.log')))}.log"
        self._account = folder / "operator-account"
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port: int = free.getsockname()[1]

    def __enter__(self) -> Self:
        server = urlsplit(self._log_in())
        with self._log.open("w") as output:
            self.started = time.monotonic()
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-c", _AS_IN_A_POD, str(self._account), "run"),
                    *("--poller-access=direct", f"--namespace={NAMESPACE}"),
                    f"--http-port={self._port}",
                    *self._arguments,
                ],
                stdout=output,
                stderr=subprocess.STDOUT,
                env={
                    **os.environ,
                    "PYTHONPATH": f"{_TREE / 'operator'}:{_TREE / 'poller'}",
                    "KUBERNETES_SERVICE_HOST": str(server.hostname),
                    "KUBERNETES_SERVICE_PORT": str(server.port),
                },
            )
        return self

    def _log_in(self) -> str:
        """Write what the kubelet gives to a pod; returns the API server's address."""
        config = json.loads(
            self._api.kubectl("config", "view", "--raw", "--flatten", "--minify", "-o", "json")
        )
        cluster = config["clusters"][0]["cluster"]
        if not self._account.exists():
            self._account.mkdir()
            self._api.kubectl("create", "serviceaccount", "operator", f"--namespace={NAMESPACE}")
            self._api.kubectl(
                *("create", "clusterrolebinding", "bench-operator", "--clusterrole=cluster-admin"),
                f"--serviceaccount={NAMESPACE}:operator",
            )
            token = self._api.kubectl(
                *("create", "token", "operator", f"--namespace={NAMESPACE}", "--duration=3h")
            )
            authority = base64.b64decode(cluster["certificate-authority-data"])
            (self._account / "token").write_text(token)
            (self._account / "ca.crt").write_bytes(authority)
        server: str = cluster["server"]
        return server

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
        started = time.monotonic()
        while not holds():
            waited = time.monotonic() - started
            if self._process.poll() is not None or waited > within:
                raise OutcomeError(f"waited in vain for {what}:\n{self._log.read_text()[-3000:]}")
            # What is looked at costs the operator time that grows with its resources.
            time.sleep(min(0.5, max(0.02, waited / 50)))

    def until_ready(self) -> None:
        """Wait until it has listed everything."""
        self.until(lambda: self._get("/readyz") == "ok\n", "the operator to be ready")

    def until_idle(self, *, within: float = 300.0) -> None:
        """Wait until it has nothing to do."""
        self.until(
            lambda: all(not self.metric(f"queue_{q}") for q in ("depth", "waiting", "working")),
            "the operator to have nothing to do",
            within=within,
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
        return measured.cpu_seconds(self._process.pid)

    @property
    def memory_mb(self) -> float:
        """Resident memory now, in millions of bytes."""
        pages = int(self._proc("statm").split()[1])
        return round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 1)

    @property
    def proportional_memory_mb(self) -> float:
        """The same, of which pages that other processes have, too, count in part (PSS)."""
        found = re.search(r"^Pss:\s+(\d+)", self._proc("smaps_rollup"), re.MULTILINE)
        assert found is not None
        return round(int(found[1]) * 1024 / 1e6, 1)

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
