"""Pub/Sub's StreamingPull, against a server that speaks it."""

from __future__ import annotations

import queue
import threading
import time
from concurrent import futures
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import pytest

from model_poller.look import Looker
from model_poller.metrics import METRICS
from model_poller.notifications import pubsub, telling
from model_poller.notifications.pubsub import (
    StreamingPullRequest,
    StreamingPullResponse,
    Subscription,
)
from model_poller.stores.credentials import Credentials
from tests.support.waiting import eventually
from tests.unit.poller.doubles import MemorySource, below, model

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from model_poller.status import NotificationsStatus, SourceStatus
    from model_poller.stores import StoredObject
    from model_poller.versions import StoredVersion

NAME = "projects/p/subscriptions/s"


class Broker:
    """One subscription; what is put into ``outgoing`` is delivered."""

    def __init__(self) -> None:
        self.outgoing: queue.Queue[Any] = queue.Queue()
        self.requests: list[Any] = []
        self.acked: list[str] = []
        self.proofs: list[Any] = []
        self.refuse: tuple[grpc.StatusCode, str] | None = None
        self.streams = self.active = 0
        handler = grpc.method_handlers_generic_handler(
            "google.pubsub.v1.Subscriber",
            {
                "StreamingPull": grpc.stream_stream_rpc_method_handler(
                    self._pull,
                    request_deserializer=StreamingPullRequest.FromString,
                    response_serializer=StreamingPullResponse.SerializeToString,
                )
            },
        )
        self._ended = threading.Event()
        self.server = grpc.server(futures.ThreadPoolExecutor(8))
        self.server.add_generic_rpc_handlers((handler,))
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()

    def send(self, *messages: dict[str, str]) -> None:
        response = StreamingPullResponse()
        for attributes in messages:
            received = response.received_messages.add(
                ack_id=f"ack-{len(self.requests)}-{id(response)}"
            )
            received.message.attributes.update(attributes)
            received.message.publish_time.seconds = int(time.time())
        self.outgoing.put(response)

    def end_stream(self) -> None:
        self.outgoing.put(None)

    def _pull(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        self.streams += 1
        self.proofs.append(dict(context.invocation_metadata()).get("authorization"))
        if self.refuse:
            context.abort(*self.refuse)

        def read() -> None:
            try:
                for request in requests:
                    self.requests.append(request)
                    self.acked += request.ack_ids
            except grpc.RpcError:
                pass

        threading.Thread(target=read, daemon=True).start()
        self.active += 1
        context.add_callback(self._leave)
        while context.is_active() and not self._ended.is_set():
            try:
                response = self.outgoing.get(timeout=0.05)
            except queue.Empty:
                continue
            if response is None:
                context.abort(grpc.StatusCode.UNAVAILABLE, "reassigned")
            yield response

    def _leave(self) -> None:
        self.active -= 1

    def stop(self) -> None:
        self._ended.set()
        self.server.stop(0).wait()


class Heard:
    def __init__(self) -> None:
        self.objects: list[tuple[str, str]] = []
        self.connects = 0
        self.statuses: list[NotificationsStatus] = []

    def on_object(self, bucket: str, name: str) -> None:
        self.objects.append((bucket, name))

    def on_connect(self) -> None:
        self.connects += 1


@pytest.fixture
def broker() -> Iterator[Broker]:
    made = Broker()
    yield made
    made.stop()


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture(autouse=True)
def _little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pubsub, "_HEALTHY_SECONDS", 0.1)
    monkeypatch.setattr(telling, "LAST_RETRY_SECONDS", 0.2)


@pytest.fixture
def subscription(broker: Broker, heard: Heard) -> Iterator[Subscription]:
    made = Subscription(
        NAME,
        f"127.0.0.1:{broker.port}",
        credentials=Credentials(),
        on_object=heard.on_object,
        on_connect=heard.on_connect,
        report=heard.statuses.append,
    )
    made.start()
    yield made
    made.stop()


def wait(probe: Any, what: str) -> None:
    eventually(probe, what=what, within=20, every=0.01)


def count(kind: str) -> float:
    return (
        METRICS.registry.get_sample_value("model_poller_notifications_total", {"kind": kind}) or 0
    )


@pytest.mark.usefixtures("subscription")
def test_a_message_of_an_upload_is_heard_and_acknowledged(broker: Broker, heard: Heard) -> None:
    broker.send(
        {"bucketId": "models", "objectId": "imagenet/1.zip", "eventType": "OBJECT_FINALIZE"}
    )
    wait(lambda: heard.objects == [("models", "imagenet/1.zip")], "the object")
    wait(lambda: len(broker.acked) == 1, "the acknowledgement")
    assert broker.requests[0].subscription == NAME
    assert broker.requests[0].stream_ack_deadline_seconds >= 10
    assert all(not later.subscription for later in broker.requests[1:])


@pytest.mark.usefixtures("subscription")
def test_an_unknown_message_is_acknowledged_and_counted(broker: Broker, heard: Heard) -> None:
    before = count("unknown")
    broker.send({"hello": "world"}, {}, {"bucketId": "models"})
    wait(lambda: len(broker.acked) == 3, "the acknowledgements")
    assert heard.objects == []
    assert count("unknown") == before + 3


@pytest.mark.usefixtures("subscription")
def test_a_stream_that_the_server_ends_is_opened_again(broker: Broker, heard: Heard) -> None:
    wait(lambda: heard.connects == 1, "the first connection")
    broker.end_stream()
    wait(lambda: heard.connects == 2, "the second connection")
    broker.send({"bucketId": "models", "objectId": "2.zip"})
    wait(lambda: heard.objects == [("models", "2.zip")], "the object")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (grpc.StatusCode.NOT_FOUND, "does not exist; create it or correct its name"),
        (grpc.StatusCode.PERMISSION_DENIED, "grant roles/pubsub.subscriber on it"),
        (grpc.StatusCode.UNAVAILABLE, "out of reach (UNAVAILABLE: said the server)"),
    ],
)
def test_a_subscription_that_can_not_be_read_is_told_once_and_tried_again(
    broker: Broker,
    heard: Heard,
    subscription: Subscription,
    caplog: pytest.LogCaptureFixture,
    code: grpc.StatusCode,
    message: str,
) -> None:
    broker.refuse = code, "said the server"
    broker.end_stream()
    wait(lambda: broker.streams >= 4, "further tries")
    told = [status for status in heard.statuses if message in status.message]
    assert [status.connected for status in told] == [False]
    assert NAME in told[0].message
    assert sum(message in record.getMessage() for record in caplog.records) == 1
    broker.refuse = None
    wait(lambda: heard.statuses[-1].connected, "the connection")
    broker.send({"bucketId": "models", "objectId": "3.zip"})
    wait(lambda: heard.objects, "the object")


def test_a_stopped_subscription_opens_no_further_stream(
    broker: Broker, heard: Heard, subscription: Subscription
) -> None:
    wait(lambda: heard.connects == 1, "the connection")
    subscription.stop()
    wait(lambda: broker.active == 0, "the end of the stream")
    assert (broker.streams, heard.connects) == (1, 1)


class Watched(MemorySource):
    """A bucket that notes when it was listed."""

    def __init__(self) -> None:
        super().__init__()
        self.listed: list[float] = []

    def list(self) -> list[StoredObject]:
        self.listed.append(time.monotonic())
        return super().list()


def test_late_doubled_and_reordered_messages_bring_looks_and_nothing_else(broker: Broker) -> None:
    source = Watched()
    looks: list[list[int]] = []

    def report(_: SourceStatus, found: Mapping[int, StoredVersion] | None) -> None:
        looks.append(sorted(found or ()))

    looker = Looker(source, 3600.0, report, marker="DONE")
    subscription = Subscription(
        NAME,
        f"127.0.0.1:{broker.port}",
        credentials=Credentials(),
        on_object=lambda *_: looker.look_now(),
        on_connect=looker.look_now,
        report=lambda _: None,
    )
    looker.start()
    subscription.start()
    try:
        source.put_all(below("2", {**model(), "DONE": b""}))
        told = [
            {"bucketId": "models", "objectId": f"imagenet/{name}", "eventType": f"OBJECT_{event}"}
            for name, event in [
                # Of a version that came and went before anybody heard of it.
                ("1.zip", "DELETE"),
                ("1.zip", "FINALIZE"),
                ("2/DONE", "FINALIZE"),
                ("2/saved_model.pb", "FINALIZE"),
            ]
        ]
        for _ in range(50):
            broker.send(*told, *told[::-1])
        wait(lambda: len(broker.acked) == 400, "the acknowledgements")
        last = len(looks)
        broker.send(told[0])
        wait(lambda: len(looks) > last, "the look after the last message")
    finally:
        subscription.stop()
        looker.stop()
    assert looks[-1] == [2]
    assert not any(1 in found for found in looks)
    gaps = [later - earlier for earlier, later in pairwise(source.listed)]
    assert min(gaps) > 0.1, "a burst of messages became a burst of calls"


def test_a_key_of_the_credentials_folder_proves_who_listens(
    broker: Broker, heard: Heard, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "key.json").write_text("{}")
    asked: list[tuple[Any, str]] = []

    class Tokens:
        principal = "poller@example.com"

        def __init__(self, credentials: Credentials, scope: str) -> None:
            asked.append((credentials.file("key.json"), scope))
            self.number = 1

        def prove(self) -> dict[str, str]:
            return {"Authorization": f"Bearer {self.number}"}

        def forget(self) -> None:
            self.number += 1

    monkeypatch.setattr(pubsub, "GoogleIdentity", Tokens)
    monkeypatch.setattr(
        Subscription,
        "_open_channel",
        lambda _: grpc.aio.insecure_channel(f"127.0.0.1:{broker.port}"),
    )
    broker.refuse = (grpc.StatusCode.UNAUTHENTICATED, "expired")
    made = Subscription(
        NAME,
        None,
        credentials=Credentials(folder=tmp_path),
        on_object=heard.on_object,
        on_connect=heard.on_connect,
        report=heard.statuses.append,
    )
    made.start()
    # One that was refused is replaced.
    wait(lambda: broker.proofs[:2] == ["Bearer 1", "Bearer 2"], "two streams")
    broker.refuse = None
    wait(lambda: heard.connects, "a stream")
    made.stop()
    assert asked == [(tmp_path / "key.json", pubsub.SCOPE)]
