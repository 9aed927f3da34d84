"""A bucket with notifications on this machine, for measurements and tests without a cluster."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from typing import TYPE_CHECKING

from demo.bucket import Bucket
from demo.errors import ClusterError
from devcluster import build
from devcluster.ports import free_port

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

_START_SECONDS = 20
_TOPIC = "models"
PROJECT = "development"
SUBSCRIPTION_ID = "local"
SUBSCRIPTION = f"projects/{PROJECT}/subscriptions/{SUBSCRIPTION_ID}"


class Storage:
    """fake-gcs-server with the bucket ``models``, and Google's Pub/Sub server, in a ``with`` block.

    Objects are files below ``folder``, sent by sendfile as they are read, or in memory.
    """

    def __init__(self, folder: Path, *, in_memory: bool = False) -> None:
        """Choose the ports; ``folder`` gets the servers' log, too."""
        self._folder = folder
        self._backend = (
            ["-backend=memory"]
            if in_memory
            else ["-backend=filesystem", f"-filesystem-root={folder}"]
        )
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self.pubsub = f"127.0.0.1:{free_port()}"
        self.address = f"127.0.0.1:{free_port()}"
        self.url = f"http://{self.address}"
        self.bucket = Bucket(self.address, "models")

    def __enter__(self) -> Self:
        programs = build.ensure(build.BUCKET_TOOLS)
        try:
            self._start(
                self.pubsub,
                str(programs["pubsub-server"]),
                f"-address={self.pubsub}",
                f"-topic=projects/{PROJECT}/topics/{_TOPIC}",
                f"-subscription={SUBSCRIPTION}",
            )
            self._start(
                self.address,
                str(programs["fake-gcs-server"]),
                "-scheme=http",
                "-host=127.0.0.1",
                f"-port={self.address.partition(':')[2]}",
                f"-public-host={self.address}",
                *self._backend,
                "-log-level=error",
                f"-event.pubsub-project-id={PROJECT}",
                f"-event.pubsub-topic={_TOPIC}",
                f"-event.bucket={self.bucket.name}",
                "-event.list=finalize,delete",
            )
            self.bucket.make()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for address in list(self._running):
            self.end(address)

    def end(self, address: str) -> None:
        """End one of the two servers, known by its address, as a crash would."""
        process = self._running.pop(address)
        process.kill()
        process.wait()

    def _start(self, address: str, *argv: str) -> None:
        log = self._folder / "servers.log"
        with log.open("ab") as written:
            process = subprocess.Popen(
                # Ends with this process, however that ends.
                ["setpriv", "--pdeathsig=KILL", "--", *argv],
                stdout=written,
                stderr=written,
                env={"PATH": os.environ["PATH"], "PUBSUB_EMULATOR_HOST": self.pubsub},
            )
        self._running[address] = process
        host, _, port = address.partition(":")
        deadline = time.monotonic() + _START_SECONDS
        while True:
            with socket.socket() as probe:
                if probe.connect_ex((host, int(port))) == 0:
                    return
            if process.poll() is not None or time.monotonic() > deadline:
                raise ClusterError(f"{argv[0]} does not listen:\n{log.read_text()[-2000:]}")
            time.sleep(0.02)
