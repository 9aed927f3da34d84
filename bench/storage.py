"""A storage server on this machine, for measurements without a cluster."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
import urllib.request
from typing import TYPE_CHECKING

from demo.bucket import Bucket
from demo.errors import ClusterError
from devcluster import build

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

_START_SECONDS = 20
PROJECT = "development"
TOPIC = "models"
SUBSCRIPTION = f"projects/{PROJECT}/subscriptions/bench"


class Storage:
    """fake-gcs-server with the bucket ``models``, and Google's Pub/Sub server, in a ``with`` block.

    Objects are files below ``folder``, sent by sendfile as they are read.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: list[subprocess.Popen[bytes]] = []
        self.pubsub = f"127.0.0.1:{_free_port()}"
        self.address = f"127.0.0.1:{_free_port()}"
        self.url = f"http://{self.address}"
        self.bucket = Bucket(self.address, "models")

    def __enter__(self) -> Self:
        programs = build.ensure(["fake-gcs-server", "pubsub-server"])
        try:
            self._start(
                self.pubsub,
                str(programs["pubsub-server"]),
                f"-address={self.pubsub}",
                f"-topic=projects/{PROJECT}/topics/{TOPIC}",
                f"-subscription={SUBSCRIPTION}",
            )
            self._start(
                self.address,
                str(programs["fake-gcs-server"]),
                "-scheme=http",
                "-host=127.0.0.1",
                f"-port={self.address.partition(':')[2]}",
                f"-public-host={self.address}",
                "-backend=filesystem",
                f"-filesystem-root={self._folder}",
                "-log-level=error",
                f"-event.pubsub-project-id={PROJECT}",
                f"-event.pubsub-topic={TOPIC}",
                f"-event.bucket={self.bucket.name}",
                "-event.list=finalize,delete",
            )
            body = json.dumps({"name": self.bucket.name}).encode()
            headers = {"Content-Type": "application/json"}
            target = f"http://{self.address}/storage/v1/b"
            request = urllib.request.Request(target, body, headers)
            urllib.request.urlopen(request, timeout=_START_SECONDS).close()  # noqa: S310
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._running:
            process.kill()
            process.wait()

    def _start(self, address: str, *argv: str) -> None:
        log = self._folder / "server.log"
        with log.open("ab") as written:
            process = subprocess.Popen(
                argv,
                stdout=written,
                stderr=written,
                env={"PATH": os.environ["PATH"], "PUBSUB_EMULATOR_HOST": self.pubsub},
            )
        self._running.append(process)
        host, _, port = address.partition(":")
        deadline = time.monotonic() + _START_SECONDS
        while True:
            with socket.socket() as probe:
                if probe.connect_ex((host, int(port))) == 0:
                    return
            if process.poll() is not None or time.monotonic() > deadline:
                raise ClusterError(f"{argv[0]} does not listen:\n{log.read_text()[-2000:]}")
            time.sleep(0.02)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
