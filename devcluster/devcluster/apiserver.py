"""An API server without a node: real validation, defaulting, admission and watches in seconds.

No controllers run, so nothing is garbage-collected, no pod starts, and the service account of a
namespace is not created (its admission is off).
"""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from devcluster import build, files
from devcluster.client import Api, answers
from devcluster.controlplane import ADMIN, API_SERVER, STOP_SECONDS, ControlPlane
from devcluster.processes import Processes

if TYPE_CHECKING:
    from types import TracebackType

#: Seconds from the start of the API server to its readiness, at the most.
READY_SECONDS = 60.0


class ApiServer:
    """etcd and kube-apiserver in a directory of their own, on a free port of 127.0.0.1.

    As a context manager it lives in a temporary directory and ends with the block, or with the
    process that holds it; several run side by side. With a directory it goes on until ``stop``.
    """

    def __init__(self, state: Path | None = None) -> None:
        self._temporary = state is None
        self._state = state or Path(tempfile.mkdtemp(prefix="devcluster-api-"))
        self._processes = Processes(
            self._state / "processes", self._state / "logs", tied=self._temporary
        )

    @property
    def kubeconfig(self) -> Path:
        """The kubeconfig of an administrator."""
        return self._state / "kubeconfig"

    @property
    def running(self) -> bool:
        """Whether both programs run."""
        return all(self._processes.identity(name) for name in ("etcd", API_SERVER))

    def start(self) -> Api:
        """Start what does not run yet, wait until it is ready, and say how to reach it.

        Raises:
            PreconditionError: Go or openssl is missing.
            BuildError: a program does not build.
            StartError: a program ends early or is not ready in time.
        """
        programs = build.ensure(build.API_TOOLS)
        plane = ControlPlane(
            programs, state=self._state, sockets=self._state / "run", port=self._port()
        )
        plane.prepare()
        self._processes.ensure(plane.etcd())
        self._processes.ensure(plane.api_server())
        self._processes.wait(
            API_SERVER,
            lambda: answers(plane.port, plane.certificates.crt("ca"), "/readyz"),
            what="it was ready",
            within=READY_SECONDS,
        )
        files.write(self.kubeconfig, plane.certificates.kubeconfig(ADMIN, plane.url))
        return Api(self.kubeconfig, plane.url, programs["kubectl"], plane.audit_log)

    def stop(self) -> None:
        """End both programs and remove the directory."""
        self._processes.stop(API_SERVER, STOP_SECONDS)
        self._processes.stop("etcd")
        shutil.rmtree(self._state, ignore_errors=True)

    def _port(self) -> int:
        """The port that this directory's API server has, or gets."""
        kept = self._state / "port.json"
        with contextlib.suppress(FileNotFoundError):
            port: int = json.loads(kept.read_text())
            return port
        self._state.mkdir(mode=0o700, parents=True, exist_ok=True)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        kept.write_text(json.dumps(port))
        return port

    def __enter__(self) -> Api:
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
