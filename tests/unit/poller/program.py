"""A poller process, and what it says."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

from model_poller.status import PollerStatus, VersionState, decode
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path


class Program:
    """A poller process."""

    module = "model_poller"

    def __init__(self, tmp_path: Path, *arguments: str, **environment: str) -> None:
        self.log = tmp_path / "log"
        kept = {"PATH": os.environ["PATH"], "PYTHONPATH": ":".join(sys.path)}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    # Ends with the tests, however these end.
                    *("setpriv", "--pdeathsig=KILL", "--"),
                    *(sys.executable, "-m", self.module, "--http-port=0", *arguments),
                ],
                stderr=log,
                env={**kept, **environment},
            )

    def status(self) -> PollerStatus:
        return decode(self.get("/status")[1])

    def get(self, path: str) -> tuple[int, bytes]:
        """The status and the body of an answer."""
        found = eventually(
            lambda: re.search(r"listening on port (\d+)", self.log.read_text()),
            what="the port",
            within=30,
            every=0.02,
        )
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{found[1]}{path}", timeout=10) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def fetched(self) -> int:
        """Bytes that it has read from the store."""
        return fetched_bytes(self.get("/metrics")[1].decode())

    def wait_for(self, version: int, state: VersionState) -> PollerStatus:
        def probe() -> PollerStatus | None:
            status = self.status()
            states = {v.version: v.state for v in status.versions}
            return status if states.get(version) is state else None

        return eventually(probe, what=f"version {version} {state}", within=30, every=0.05)

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(10)

    def kill(self) -> None:
        """Leave nothing running, whatever the test did."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def fetched_bytes(metrics: str) -> int:
    """Bytes that a poller has read from the store, as its metrics tell."""
    found = re.search(r"^model_poller_fetched_bytes_total (\S+)", metrics, re.MULTILINE)
    return int(float(found[1])) if found else 0


class Supervised(Program):
    """A poller as a container runs it, with the small parent that starts it again."""

    module = "model_poller.process.supervisor"
