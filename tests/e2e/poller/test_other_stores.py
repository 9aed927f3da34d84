"""The whole poller on S3 with SQS and on Azure Blob Storage; no cluster."""

from __future__ import annotations

import itertools
import json
import re
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from model_poller.status import SourceReason, VersionState
from tests.support.faults import Fault, FaultyServer
from tests.support.stores import (
    AWS_ACCOUNT,
    AZURE_ACCOUNT,
    AZURE_KEY,
    BlobContainer,
    S3Bucket,
)
from tests.support.waiting import eventually
from tests.unit.poller.doubles import below, model, tarred, zipped
from tests.unit.poller.program import Program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.stores import Aws

pytestmark = pytest.mark.e2e

NEVER = "--poll-interval=3600"
"""Only notifications make it look."""
OFTEN = "--poll-interval=0.3"


@dataclass
class Store:
    """A store, and how a poller reaches it."""

    bucket: S3Bucket | BlobContainer
    scheme: str
    endpoint: str
    secret: dict[str, str]

    @property
    def arguments(self) -> list[str]:
        return [f"--storage-uri={self.scheme}://{self.bucket.name}/imagenet", self.endpoint]


@pytest.fixture
def s3(aws: Aws, fresh_name: Callable[[str], str]) -> Store:
    return Store(aws.bucket(fresh_name("models")), "s3", f"--endpoint={aws.endpoint}", aws.keys)


@pytest.fixture
def azure(container: BlobContainer) -> Store:
    secret = {"AZURE_STORAGE_ACCOUNT_NAME": AZURE_ACCOUNT, "AZURE_STORAGE_ACCOUNT_KEY": AZURE_KEY}
    return Store(container, "az", f"--endpoint={container.endpoint}", secret)


@pytest.fixture(params=["s3", "azure"])
def store(request: pytest.FixtureRequest) -> Store:
    made: Store = request.getfixturevalue(request.param)
    return made


@dataclass
class Pods:
    """Pollers, each with a volume of its own."""

    root: Path
    started: list[Program] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def start(self, *arguments: str, **environment: str) -> Program:
        folder = self.root / f"pod-{next(self.numbers)}"
        folder.mkdir()
        program = Program(
            folder,
            f"--models-dir={folder}/models",
            "--model-name=imagenet",
            "--server-address=127.0.0.1:9",
            *arguments,
            AWS_EC2_METADATA_DISABLED="true",
            **environment,
        )
        self.started.append(program)
        return program

    def served(self, program: Program, version: int) -> dict[str, bytes]:
        folder = program.log.parent / f"models/imagenet/{version}"
        return {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file()
        }


@pytest.fixture
def pods(tmp_path: Path) -> Iterator[Pods]:
    made = Pods(tmp_path)
    yield made
    for program in made.started:
        program.kill()


def listens(program: Program) -> None:
    def connected() -> bool:
        told = program.status().source.notifications
        return told is not None and told.connected

    eventually(connected, what="the queue", within=30, every=0.05)


def count(program: Program, series: str) -> float:
    """A metric of the program; 0 while it is absent."""
    found = eventually(
        lambda: re.search(r"listening on port (\d+)", program.log.read_text()), what="the port"
    )
    with urllib.request.urlopen(f"http://127.0.0.1:{found[1]}/metrics", timeout=10) as answer:
        told = re.search(rf"^model_poller_{re.escape(series)} (.*)$", answer.read().decode(), re.M)
    return float(told[1]) if told else 0.0


def test_folders_and_archives_are_brought(store: Store, pods: Pods) -> None:
    files = model(b"y" * 40_000_000, shards=2)
    for name, content in below("imagenet/0001", files).items():
        store.bucket.upload(name, content)
    # Not before: moto gets the ETag of a large object wrong when it is listed while it comes in.
    program = pods.start(*store.arguments, OFTEN, **store.secret)
    program.wait_for(1, VersionState.PUBLISHED)
    assert pods.served(program, 1) == files
    store.bucket.upload("imagenet/2.zip", zipped(below("2", model(b"x" * 20_000_000))))
    program.wait_for(2, VersionState.PUBLISHED)
    assert pods.served(program, 2) == model(b"x" * 20_000_000)
    store.bucket.upload("imagenet/3.tar.gz", tarred(model(b"3")))
    program.wait_for(3, VersionState.PUBLISHED)
    assert pods.served(program, 3) == model(b"3")


def test_what_is_replaced_before_it_is_served_is_brought_as_it_is_now(
    store: Store, pods: Pods
) -> None:
    store.bucket.upload("imagenet/1.zip", b"half an archive")
    program = pods.start(*store.arguments, OFTEN, **store.secret)
    program.wait_for(1, VersionState.QUARANTINED)
    store.bucket.upload("imagenet/1.zip", zipped(model(b"whole")))
    program.wait_for(1, VersionState.PUBLISHED)
    assert pods.served(program, 1) == model(b"whole")


FAULTS = {
    "cut": Fault(keep=0.5),
    "damaged": Fault(flip=True),
    "403": Fault(status=403),
    "404": Fault(status=404),
    "429": Fault(status=429, headers={"Retry-After": "1"}),
    "503": Fault(status=503),
}
SOMETIMES = 2
"""So many answers of each kind are faulty, then none."""


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_faults_of_the_store_heal_by_themselves(store: Store, pods: Pods, fault: Fault) -> None:
    files = model(b"y" * 3_000_000, shards=2)
    store.bucket.upload("imagenet/1.zip", zipped(below("1", files)))
    left = {"list": SOMETIMES, "HEAD": 1, "GET": SOMETIMES}

    def choose(method: str, target: str) -> Fault | None:
        kind = "list" if "list" in target else method
        # A damaged listing is no fault that anybody could notice.
        if not left[kind] or (kind == "list" and fault.flip):
            return None
        left[kind] -= 1
        return fault

    origin, _, path = store.endpoint.removeprefix("--endpoint=http://").partition("/")
    with FaultyServer(f"http://{origin}", choose) as proxy:
        program = pods.start(
            *store.arguments, f"--endpoint={proxy.url}/{path}", OFTEN, **store.secret
        )
        program.wait_for(1, VersionState.PUBLISHED)
        assert pods.served(program, 1) == files
        assert left["GET"] == 0
        reads = sum("list" not in target for _, target in proxy.calls)
    assert reads <= 10 * SOMETIMES, "calls are bounded"


def test_a_missing_bucket_is_told(store: Store, pods: Pods) -> None:
    nowhere = f"--storage-uri={store.scheme}://nowhere/imagenet"
    program = pods.start(nowhere, store.endpoint, OFTEN, **store.secret)
    eventually(
        lambda: program.status().source.reason is SourceReason.BUCKET_NOT_FOUND,
        what="the missing bucket",
    )
    assert "nowhere" in program.status().source.message


def test_missing_credentials_are_told_and_taken_up_when_they_come(
    store: Store, pods: Pods, tmp_path: Path
) -> None:
    store.bucket.upload("imagenet/1.zip", zipped(model()))
    secret = tmp_path / "secret"
    secret.mkdir()
    environment = {"AZURE_POD_IDENTITY_AUTHORITY_HOST": "http://127.0.0.1:9"}
    program = pods.start(
        *store.arguments,
        f"--azure-account={AZURE_ACCOUNT}",
        OFTEN,
        f"--credentials-dir={secret}",
        **environment,
    )
    eventually(
        lambda: program.status().source.reason is SourceReason.ACCESS_DENIED,
        what="the missing credentials",
    )
    assert "credentials found" in program.status().source.message
    for name, value in store.secret.items():
        (secret / name).write_text(value)
    program.wait_for(1, VersionState.PUBLISHED)
    log = program.log.read_text()
    assert not any(value in log for name, value in store.secret.items() if "KEY" in name[-4:])


@dataclass
class Notified:
    """A bucket whose changes go to a queue."""

    store: Store
    aws: Aws
    queue: str

    @property
    def arguments(self) -> list[str]:
        return [*self.store.arguments, f"--sqs-queue-url={self.queue}"]

    def send(self, body: object) -> None:
        told = body if isinstance(body, str) else json.dumps(body)
        self.aws.sqs("SendMessage", QueueUrl=self.queue, MessageBody=told)

    def left(self) -> int:
        """Messages that nobody has deleted."""
        wanted = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        told = self.aws.sqs("GetQueueAttributes", QueueUrl=self.queue, AttributeNames=wanted)
        return sum(int(value) for value in told["Attributes"].values())

    def event(self, name: str, kind: str = "ObjectCreated:Put") -> dict[str, Any]:
        changed = {
            "bucket": {"name": self.store.bucket.name},
            "object": {"key": urllib.parse.quote_plus(name)},
        }
        return {"Records": [{"eventSource": "aws:s3", "eventName": kind, "s3": changed}]}


@pytest.fixture
def notified(aws: Aws, s3: Store, fresh_name: Callable[[str], str]) -> Notified:
    name = fresh_name("events")
    return Notified(s3, aws, aws.queue(name))


def test_an_upload_is_brought_without_waiting_for_the_next_look(
    notified: Notified, s3: Store, pods: Pods
) -> None:
    assert isinstance(s3.bucket, S3Bucket)
    s3.bucket.notify(notified.queue.rpartition("/")[2])
    program = pods.start(*notified.arguments, NEVER, **s3.secret)
    listens(program)
    s3.bucket.upload("imagenet/1.zip", zipped(model()))
    program.wait_for(1, VersionState.PUBLISHED)
    assert count(program, 'notifications_total{kind="object"}') >= 1
    eventually(lambda: notified.left() == 0, what="all messages to be deleted")


@pytest.mark.parametrize("way", ["topic", "bus"])
def test_an_event_is_understood_however_it_came(
    notified: Notified, s3: Store, pods: Pods, way: str
) -> None:
    program = pods.start(*notified.arguments, NEVER, **s3.secret)
    listens(program)
    s3.bucket.upload("imagenet/1.zip", zipped(model()))
    if way == "topic":
        inner = json.dumps(notified.event("imagenet/1.zip"))
        notified.send({"Type": "Notification", "TopicArn": "arn:…", "Message": inner})
    else:
        detail = {"bucket": {"name": s3.bucket.name}, "object": {"key": "imagenet/1.zip"}}
        notified.send({"source": "aws.s3", "detail-type": "Object Created", "detail": detail})
    program.wait_for(1, VersionState.PUBLISHED)


def test_lost_doubled_late_and_reordered_messages_change_nothing(
    notified: Notified, s3: Store, pods: Pods
) -> None:
    program = pods.start(*notified.arguments, NEVER, **s3.secret)
    listens(program)
    for version in (1, 2, 3):
        s3.bucket.upload(f"imagenet/{version}.zip", zipped(model(b"%d" % version)))
    # Of version 2 nothing is heard, of 3 before 1, of 1 twice, and of one that is no more.
    for name in ("imagenet/3.zip", "imagenet/1.zip", "imagenet/1.zip", "imagenet/0.zip"):
        notified.send(notified.event(name))
    notified.send(notified.event("imagenet/3.zip", "ObjectRemoved:Delete"))
    program.wait_for(3, VersionState.PUBLISHED)
    eventually(lambda: notified.left() == 0, what="all messages to be deleted")
    assert [v.version for v in program.status().versions] == [3, 2, 1]
    assert pods.served(program, 3) == model(b"3")


def test_other_messages_are_deleted_and_counted(notified: Notified, s3: Store, pods: Pods) -> None:
    strange: list[object] = [
        {"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": s3.bucket.name},
        "no JSON",
        [1, 2],
        {"Records": [{"s3": None}]},
        {"Type": "Notification", "Message": "plain text"},
    ]
    for body in strange:
        notified.send(body)
    program = pods.start(*notified.arguments, NEVER, **s3.secret)
    eventually(
        lambda: count(program, 'notifications_total{kind="unknown"}') == len(strange),
        what="all to be counted",
    )
    eventually(lambda: notified.left() == 0, what="all to be deleted")


def test_a_missing_queue_is_told_and_versions_are_found_by_looking(
    notified: Notified, s3: Store, pods: Pods
) -> None:
    gone = f"{notified.aws.endpoint}/{AWS_ACCOUNT}/gone"
    program = pods.start(*s3.arguments, f"--sqs-queue-url={gone}", OFTEN, **s3.secret)

    def told(words: str) -> bool:
        notifications = program.status().source.notifications
        return notifications is not None and words in notifications.message

    eventually(lambda: told("/gone does not exist; create it"), what="the missing queue")
    s3.bucket.upload("imagenet/1.zip", zipped(model()))
    program.wait_for(1, VersionState.PUBLISHED)
    notified.aws.queue("gone")
    listens(program)
