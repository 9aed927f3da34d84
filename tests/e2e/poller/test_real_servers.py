"""The poller on a real storage server and Google's own in-memory Pub/Sub; no cluster."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import urllib.request
from typing import TYPE_CHECKING

import pytest

from devcluster import build
from model_poller.status import SourceReason, VersionReason, VersionState
from tests.support.bucket import Bucket
from tests.support.waiting import eventually
from tests.unit.poller.doubles import below, graph, model, tarred, zipped
from tests.unit.poller.program import Program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.e2e

SUBSCRIPTION = "projects/development/subscriptions/imagenet"
NEVER = "--poll-interval=3600"
"""Only notifications make it look."""


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


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    made = Servers(tmp_path)
    yield made
    made.stop()


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


@pytest.fixture
def pods(servers: Servers, tmp_path: Path) -> Iterator[Pods]:
    made = Pods(servers, tmp_path)
    yield made
    made.stop()


def listens(program: Program) -> None:
    def connected() -> bool:
        told = program.status().source.notifications
        return told is not None and told.connected

    eventually(connected, what="the subscription", within=30, every=0.05)


def test_a_notified_poller_brings_an_upload_without_waiting_for_its_next_look(
    servers: Servers, pods: Pods
) -> None:
    program = pods.start(NEVER, f"--pubsub-subscription={SUBSCRIPTION}")
    listens(program)
    servers.bucket.upload("imagenet/0001.zip", zipped(below("0001", model(b"x" * 40_000_000))))
    program.wait_for(1, VersionState.PUBLISHED)
    assert (pods.base() / "1/saved_model.pb").exists()
    servers.bucket.upload("other/9.zip", b"not ours")
    servers.bucket.upload("imagenet/2.tar.gz", tarred(below("2", model(b"2"))))
    program.wait_for(2, VersionState.PUBLISHED)
    assert [v.version for v in program.status().versions] == [2, 1]


def test_of_several_pollers_on_one_subscription_one_at_least_hears_of_an_upload(
    servers: Servers, pods: Pods
) -> None:
    programs = [
        pods.start(NEVER, f"--pubsub-subscription={SUBSCRIPTION}", name=f"pod-{i}")
        for i in range(3)
    ]
    for program in programs:
        listens(program)
    servers.bucket.upload("imagenet/1.zip", zipped(model()))
    eventually(
        lambda: any(v.version == 1 for p in programs for v in p.status().versions),
        what="one of them to know",
        within=30,
    )


def test_a_folder_is_taken_only_when_its_last_file_is_there(servers: Servers, pods: Pods) -> None:
    program = pods.start("--poll-interval=0.3")
    files = model(b"y" * 1000, shards=2)
    for name, reason in [
        ("variables/variables.data-00000-of-00002", VersionReason.MISSING_SAVED_MODEL),
        ("saved_model.pb", VersionReason.MISSING_VARIABLES),
        ("variables/variables.index", VersionReason.MISSING_VARIABLES),
    ]:
        servers.bucket.upload(f"imagenet/0001/{name}", files[name])

        def told(reason: VersionReason = reason) -> bool:
            return any(v.reason is reason for v in program.status().versions)

        eventually(told, what=f"{reason} after {name}", within=30, every=0.05)
        assert list(pods.base().iterdir()) == []
    last = "variables/variables.data-00001-of-00002"
    servers.bucket.upload(f"imagenet/0001/{last}", files[last])
    program.wait_for(1, VersionState.PUBLISHED)
    assert {
        p.relative_to(pods.base() / "1").as_posix(): p.read_bytes()
        for p in (pods.base() / "1").rglob("*")
        if p.is_file()
    } == files


def test_a_graph_without_its_variables_is_never_shown(servers: Servers, pods: Pods) -> None:
    program = pods.start("--poll-interval=0.3")
    servers.bucket.upload("imagenet/1/saved_model.pb", graph())
    eventually(
        lambda: any(v.reason is VersionReason.MISSING_VARIABLES for v in program.status().versions),
        what="the missing variables",
        within=30,
    )
    assert list(pods.base().iterdir()) == []


def test_deletion_is_mirrored_but_never_that_of_the_served_version(
    servers: Servers, pods: Pods
) -> None:
    program = pods.start("--poll-interval=0.3", "--retain-versions=3")
    for version in (1, 2, 3):
        servers.bucket.upload(f"imagenet/{version}.zip", zipped(model(b"%d" % version)))
        program.wait_for(version, VersionState.PUBLISHED)
    program.wait_for(1, VersionState.FETCHED)
    servers.bucket.delete("imagenet/1.zip")
    eventually(
        lambda: [v.version for v in program.status().versions] == [3, 2],
        what="version 1 to go",
        within=30,
    )
    for version in (2, 3):
        servers.bucket.delete(f"imagenet/{version}.zip")
    eventually(
        lambda: program.status().source.reason is SourceReason.NO_VERSION_FOUND,
        what="the empty bucket to be seen",
        within=30,
    )
    assert sorted(p.name for p in pods.base().iterdir()) == ["2", "3"]


def test_a_missing_subscription_is_told_and_versions_are_found_by_looking(
    servers: Servers, pods: Pods
) -> None:
    gone = "projects/development/subscriptions/gone"
    program = pods.start("--poll-interval=0.3", f"--pubsub-subscription={gone}")

    def told() -> bool:
        notifications = program.status().source.notifications
        return notifications is not None and "does not exist" in notifications.message

    eventually(told, what="the missing subscription", within=30)
    servers.bucket.upload("imagenet/1.zip", zipped(model()))
    program.wait_for(1, VersionState.PUBLISHED)


def test_a_missing_bucket_is_told(servers: Servers, pods: Pods) -> None:
    program = pods.start("--poll-interval=0.3", "--storage-uri=gs://nowhere/imagenet")
    eventually(
        lambda: program.status().source.reason is SourceReason.BUCKET_NOT_FOUND,
        what="the missing bucket",
        within=30,
    )
    assert "nowhere" in program.status().source.message


def test_without_a_storage_uri_folders_are_learnt_and_remembered(
    servers: Servers, tmp_path: Path
) -> None:
    save_dir = tmp_path / "resnet"

    def start() -> Program:
        return Program(
            tmp_path,
            f"--endpoint={servers.url}",
            "--anonymous",
            "--server-address=127.0.0.1:9",
            PROJECT_ID="development",
            SUBSCRIPTION="imagenet",
            SAVE_DIR=str(save_dir),
            PUBSUB_EMULATOR_HOST=f"127.0.0.1:{servers.pubsub_port}",
        )

    first = start()
    try:
        listens(first)
        servers.bucket.upload("resnet/0001.zip", zipped(below("0001", model())))
        first.wait_for(1, VersionState.PUBLISHED)
    finally:
        first.kill()
    servers.bucket.upload("resnet/0002.zip", zipped(below("0002", model(b"2"))))
    servers.pubsub.kill()
    second = start()
    try:
        second.wait_for(2, VersionState.PUBLISHED)
    finally:
        second.kill()
