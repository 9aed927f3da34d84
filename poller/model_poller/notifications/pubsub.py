"""Google Cloud Pub/Sub by StreamingPull, straight on gRPC.

The official library costs 55 MB of memory for what is one call with four small messages; these
are declared here by the field numbers of google/pubsub/v1/pubsub.proto.
"""

from __future__ import annotations

import queue
import threading
import time
from typing import TYPE_CHECKING, Any

import google.auth
import google.auth.transport.requests
import grpc
from google.auth.exceptions import GoogleAuthError
from google.auth.transport.grpc import secure_authorized_channel
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from model_poller.metrics import METRICS
from model_poller.notifications import telling

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from model_poller.status import NotificationsStatus

HOST = "pubsub.googleapis.com:443"
SCOPE = "https://www.googleapis.com/auth/pubsub"
_METHOD = "/google.pubsub.v1.Subscriber/StreamingPull"
_ACK_DEADLINE_SECONDS = 60
_HEARTBEAT_SECONDS = 30.0
_HEALTHY_SECONDS = 1.0
"""A refused stream ends sooner; the server says nothing on an accepted one before a message."""
_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    # gRPC servers end a connection that pings more often than every 5 minutes, unless told other.
    ("grpc.keepalive_time_ms", 330_000),
]


def _declare() -> descriptor_pool.DescriptorPool:
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="model_poller/pubsub.proto", package="model_poller.pubsub", syntax="proto3"
    )

    def message(name: str, **fields: tuple[int, Any, bool]) -> descriptor_pb2.DescriptorProto:
        declared = file.message_type.add(name=name)
        for field_name, (number, kind, repeated) in fields.items():
            one = declared.field.add(name=field_name, number=number)
            one.label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
            if isinstance(kind, str):
                one.type, one.type_name = field.TYPE_MESSAGE, f".model_poller.pubsub.{kind}"
            else:
                one.type = kind
        return declared

    message(
        "StreamingPullRequest",
        subscription=(1, field.TYPE_STRING, False),
        ack_ids=(2, field.TYPE_STRING, True),
        stream_ack_deadline_seconds=(5, field.TYPE_INT32, False),
    )
    message("StreamingPullResponse", received_messages=(1, "ReceivedMessage", True))
    message("ReceivedMessage", ack_id=(1, field.TYPE_STRING, False), message=(2, "Message", False))
    message(
        "Message", attributes=(2, "Message.Attribute", True), publish_time=(4, "Timestamp", False)
    )
    entry = message(
        "Attribute", key=(1, field.TYPE_STRING, False), value=(2, field.TYPE_STRING, False)
    )
    entry.options.map_entry = True
    holder = next(m for m in file.message_type if m.name == "Message")
    holder.nested_type.add().CopyFrom(entry)
    file.message_type.remove(entry)
    message("Timestamp", seconds=(1, field.TYPE_INT64, False), nanos=(2, field.TYPE_INT32, False))
    # A pool of its own: the official library may live in the same process.
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return pool


_POOL = _declare()


def _message_class(name: str) -> Any:
    return message_factory.GetMessageClass(
        _POOL.FindMessageTypeByName(f"model_poller.pubsub.{name}")
    )


StreamingPullRequest = _message_class("StreamingPullRequest")
StreamingPullResponse = _message_class("StreamingPullResponse")


class Subscription:
    """Listens to one subscription until it is stopped, through every failure."""

    def __init__(
        self,
        name: str,
        endpoint: str | None,
        *,
        on_object: Callable[[str, str], None],
        on_connect: Callable[[], None],
        report: Callable[[NotificationsStatus], None],
    ) -> None:
        """``name`` is projects/P/subscriptions/S; ``endpoint`` an emulator's HOST:PORT, plain text.

        ``on_object`` gets bucket and name of an object that changed, before the message is
        acknowledged; ``on_connect`` is called when messages may have been missed. All callbacks
        come on this subscription's own threads.
        """
        self._name = name
        self._endpoint = endpoint
        self._on_object = on_object
        self._on_connect = on_connect
        self._teller = telling.Teller(name, report)
        self._stopped = threading.Event()
        self._call: Any = None
        self._thread = threading.Thread(target=self._run, name="pubsub", daemon=True)

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()

    def stop(self) -> None:
        """Listen no more."""
        self._stopped.set()
        if call := self._call:
            call.cancel()

    def _run(self) -> None:
        failures = 0
        while not self._stopped.is_set():
            begin = time.monotonic()
            try:
                self._listen()
                message = "the server ended the stream"
            except grpc.RpcError as error:
                message = self._explain(error)
            except GoogleAuthError as error:
                message = f"no credentials for {self._name}: {error}"
            except OSError as error:
                message = f"a message of {self._name} could not be taken in: {error}"
            if self._stopped.is_set():
                return
            # Servers end a healthy stream now and then; that is worth no word.
            if time.monotonic() - begin > telling.LAST_RETRY_SECONDS:
                failures = 0
                continue
            self._teller.wrong(message)
            failures += 1
            self._stopped.wait(telling.pause(failures))

    def _listen(self) -> None:
        outgoing: queue.SimpleQueue[Any] = queue.SimpleQueue()
        ended = threading.Event()
        outgoing.put(
            StreamingPullRequest(
                subscription=self._name, stream_ack_deadline_seconds=_ACK_DEADLINE_SECONDS
            )
        )

        def requests() -> Iterator[Any]:
            while not ended.is_set():
                try:
                    yield outgoing.get(timeout=_HEARTBEAT_SECONDS)
                except queue.Empty:
                    # Keeps the stream from being taken for abandoned.
                    yield StreamingPullRequest()

        def connected() -> None:
            if not ended.is_set():
                self._teller.well()
                self._on_connect()

        channel = self._open_channel()
        timer = threading.Timer(_HEALTHY_SECONDS, connected)
        timer.daemon = True
        try:
            call = channel.stream_stream(
                _METHOD,
                request_serializer=StreamingPullRequest.SerializeToString,
                response_deserializer=StreamingPullResponse.FromString,
            )(requests())
            self._call = call
            timer.start()
            for response in call:
                for received in response.received_messages:
                    self._take(received.message)
                outgoing.put(
                    StreamingPullRequest(ack_ids=[r.ack_id for r in response.received_messages])
                )
        finally:
            ended.set()
            timer.cancel()
            # Lets the generator above end, and with it gRPC's thread.
            outgoing.put(StreamingPullRequest())
            channel.close()

    def _open_channel(self) -> grpc.Channel:
        if self._endpoint:
            return grpc.insecure_channel(
                self._endpoint, options=[*_OPTIONS, ("grpc.enable_http_proxy", 0)]
            )
        credentials, _ = google.auth.default(scopes=[SCOPE])
        refresher = google.auth.transport.requests.Request()
        channel: grpc.Channel = secure_authorized_channel(
            credentials, refresher, HOST, options=_OPTIONS
        )
        return channel

    def _take(self, message: Any) -> None:
        sent = message.publish_time.seconds + message.publish_time.nanos / 1e9
        if sent:
            METRICS.notification_lag.observe(max(0.0, time.time() - sent))
        bucket, name = message.attributes["bucketId"], message.attributes["objectId"]
        if bucket and name:
            METRICS.notifications.labels("object").inc()
            self._on_object(bucket, name)
        else:
            METRICS.notifications.labels("unknown").inc()

    def _explain(self, error: grpc.RpcError) -> str:
        code, details = error.code(), error.details()
        if code == grpc.StatusCode.NOT_FOUND:
            return f"{self._name} does not exist; create it or correct its name"
        if code in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED):
            return f"{self._name} may not be read ({details}); grant roles/pubsub.subscriber on it"
        return f"{self._name} is out of reach ({code.name}: {details})"
