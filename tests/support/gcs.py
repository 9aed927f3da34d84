"""Google on 127.0.0.1: a storage server with notifications, and pollers that use it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import urllib.request
from typing import TYPE_CHECKING

from devcluster import build
from tests.support.bucket import Bucket
from tests.support.waiting import eventually
from tests.unit.poller.program import Program

if TYPE_CHECKING:
    from pathlib import Path

SUBSCRIPTION = "projects/development/subscriptions/imagenet"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Servers:
    """A bucket ``models`` whose changes are published to a topic with a subscription."""

    def __init__(self, folder: Path) -> None:
        programs = build.ensure(["fake-gcs-server", "pubsub-server"])
        self.pubsub_port, port = free_port(), free_port()
        self._log = (folder / "servers.log").open("wb")
        self.pubsub = self._start(
            str(programs["pubsub-server"]),
            f"-address=127.0.0.1:{self.pubsub_port}",
            "-topic=projects/development/topics/models",
            f"-subscription={SUBSCRIPTION}",
        )
        eventually(lambda: answers(self.pubsub_port), what="Pub/Sub", within=20, every=0.02)
        self.url = f"http://127.0.0.1:{port}"
        self.storage = self._start(
            str(programs["fake-gcs-server"]),
            "-scheme=http",
            "-host=127.0.0.1",
            f"-port={port}",
            f"-public-host=127.0.0.1:{port}",
            "-backend=memory",
            "-event.pubsub-project-id=development",
            "-event.pubsub-topic=models",
            "-event.bucket=models",
            "-event.list=finalize,delete",
            PUBSUB_EMULATOR_HOST=f"127.0.0.1:{self.pubsub_port}",
        )
        eventually(lambda: answers(port), what="the storage server", within=20, every=0.02)
        request = urllib.request.Request(
            f"{self.url}/storage/v1/b", data=json.dumps({"name": "models"}).encode(), method="POST"
        )
        request.add_header("Content-Type", "application/json")
        urllib.request.urlopen(request, timeout=20).close()
        self.bucket = Bucket(self.url, "models")

    def _start(self, *command: str, **environment: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            stdout=self._log,
            stderr=self._log,
            env={"PATH": os.environ["PATH"], **environment},
        )

    def stop(self) -> None:
        for process in (self.storage, self.pubsub):
            process.kill()
            process.wait()
        self._log.close()


class Pods:
    """Pollers, each with a volume of its own."""

    def __init__(self, servers: Servers, root: Path) -> None:
        self._servers = servers
        self._root = root
        self._all: list[Program] = []

    def start(self, *more: str, name: str = "pod") -> Program:
        folder = self._root / name
        folder.mkdir(exist_ok=True)
        program = Program(
            folder,
            f"--models-dir={folder}/models",
            "--model-name=imagenet",
            "--storage-uri=gs://models/imagenet",
            f"--endpoint={self._servers.url}",
            "--anonymous",
            "--server-address=127.0.0.1:9",
            f"--pubsub-endpoint=127.0.0.1:{self._servers.pubsub_port}",
            *more,
        )
        self._all.append(program)
        return program

    def base(self, name: str = "pod") -> Path:
        return self._root / name / "models/imagenet"

    def stop(self) -> None:
        for program in self._all:
            program.kill()
