"""Google Cloud Pub/Sub by StreamingPull, straight on gRPC.

The official library costs 55 MB of memory for what is one call with four small messages; these
are declared here by the field numbers of google/pubsub/v1/pubsub.proto.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from model_poller.errors import PollerError
from model_poller.metrics import METRICS
from model_poller.notifications import telling
from model_poller.process.threads import Worker
from model_poller.stores import connections, trust
from model_poller.stores.google import Anonymous, GoogleIdentity

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from model_poller.status import NotificationsStatus
    from model_poller.stores.credentials import Credentials
    from model_poller.stores.google import Identity

HOST = "pubsub.googleapis.com:443"
SCOPE = "https://www.googleapis.com/auth/pubsub"
_METHOD = "/google.pubsub.v1.Subscriber/StreamingPull"
_ACK_DEADLINE_SECONDS = 60
_HEARTBEAT_SECONDS = 30.0
_HEALTHY_SECONDS = 1.0
"""A refused stream ends sooner; the server says nothing on an accepted one before a message."""
_MASKED = "Internal error from Core"
"""What grpc.aio says in place of the server's status where a write fails as the stream ends
(github.com/grpc/grpc/issues/36066)."""
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
        credentials: Credentials,
        on_object: Callable[[str, str], None],
        on_connect: Callable[[], None],
        report: Callable[[NotificationsStatus], None],
    ) -> None:
        """``name`` is projects/P/subscriptions/S; ``endpoint`` an emulator's HOST:PORT, plain text.

        ``on_object`` gets bucket and name of an object that changed, before the message is
        acknowledged; ``on_connect`` is called when messages may have been missed. All callbacks
        come on this subscription's own thread.
        """
        self._name = name
        self._endpoint = endpoint
        # An emulator asks nobody who it is.
        self._identity: Identity = Anonymous() if endpoint else GoogleIdentity(credentials, SCOPE)
        self._on_object = on_object
        self._on_connect = on_connect
        self._teller = telling.Teller(name, report)
        self._loop: asyncio.AbstractEventLoop | None = None
        self.worker = Worker(
            "subscription", self._turn, limit=telling.TURN_SECONDS, failed=self._failed
        )

    def start(self) -> None:
        """Begin to listen."""
        self.worker.start()

    def stop(self) -> None:
        """Listen no more."""
        self.worker.stop()
        # The loop is closed where it was stopped before.
        with suppress(RuntimeError):
            if loop := self._loop:
                loop.call_soon_threadsafe(_cancel_all, loop)

    def _turn(self) -> None:
        with suppress(asyncio.CancelledError), asyncio.Runner() as runner:
            self._loop = runner.get_loop()
            runner.run(self._listen_through_failures())

    def _failed(self, error: Exception) -> None:
        self._teller.wrong(f"listening to {self._name} failed: {error!r}")

    async def _beat(self) -> None:
        while True:
            self.worker.beat()
            await asyncio.sleep(_HEARTBEAT_SECONDS)

    async def _listen_through_failures(self) -> None:
        beating = asyncio.create_task(self._beat())
        failures = 0
        while not self.worker.stopped:
            begin = time.monotonic()
            message: str | None = "the server ended the stream"
            try:
                await self._listen()
            except grpc.RpcError as error:
                masked = error.details() == _MASKED
                message = None if masked and failures else self._explain(error)
            except PollerError as error:
                message = f"no credentials for {self._name}: {error}"
            except OSError as error:
                message = f"a message of {self._name} could not be taken in: {error}"
            # Servers end a healthy stream now and then; that is worth no word.
            if time.monotonic() - begin > telling.LAST_RETRY_SECONDS:
                failures = 0
                continue
            if message:
                self._teller.wrong(message)
            failures += 1
            await asyncio.sleep(telling.pause(failures))
        beating.cancel()

    async def _listen(self) -> None:
        # gRPC's blocking streams look ten times a second whether something came; these are woken.
        outgoing: asyncio.Queue[Any] = asyncio.Queue()
        outgoing.put_nowait(
            StreamingPullRequest(
                subscription=self._name, stream_ack_deadline_seconds=_ACK_DEADLINE_SECONDS
            )
        )
        # On a thread, so that this one's heart goes on beating.
        proof = await asyncio.to_thread(self._identity.prove)

        async def requests() -> AsyncIterator[Any]:
            while True:
                try:
                    yield await asyncio.wait_for(outgoing.get(), _HEARTBEAT_SECONDS)
                except TimeoutError:
                    # Keeps the stream from being taken for abandoned.
                    yield StreamingPullRequest()

        def connected() -> None:
            self._teller.well()
            self._on_connect()

        async with self._open_channel() as channel:
            healthy = asyncio.get_running_loop().call_later(_HEALTHY_SECONDS, connected)
            try:
                call = channel.stream_stream(
                    _METHOD,
                    request_serializer=StreamingPullRequest.SerializeToString,
                    response_deserializer=StreamingPullResponse.FromString,
                )(
                    requests(),
                    metadata=[(name.lower(), value) for name, value in proof.items()],
                )
                async for response in call:
                    for received in response.received_messages:
                        self._take(received.message)
                    outgoing.put_nowait(
                        StreamingPullRequest(ack_ids=[r.ack_id for r in response.received_messages])
                    )
            finally:
                healthy.cancel()

    def _open_channel(self) -> grpc.aio.Channel:
        if self._endpoint:
            return grpc.aio.insecure_channel(
                self._endpoint, options=[*_OPTIONS, ("grpc.enable_http_proxy", 0)]
            )
        credentials = grpc.ssl_channel_credentials(trust.roots())
        proxy = connections.proxy(HOST.partition(":")[0])
        through = [("grpc.http_proxy", proxy)] if proxy else []
        return grpc.aio.secure_channel(HOST, credentials, options=[*_OPTIONS, *through])

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
        if code == grpc.StatusCode.UNAUTHENTICATED:
            self._identity.forget()
        if code in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED):
            return f"{self._name} may not be read ({details}); grant roles/pubsub.subscriber on it"
        return f"{self._name} is out of reach ({code.name}: {details})"


def _cancel_all(loop: asyncio.AbstractEventLoop) -> None:
    for task in asyncio.all_tasks(loop):
        task.cancel()
