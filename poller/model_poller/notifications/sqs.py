"""Amazon SQS by long polling: event notifications of a bucket, however they came into the queue.

Straight from S3, by way of an SNS topic, or by way of EventBridge. Formats:
https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html,
https://docs.aws.amazon.com/AmazonS3/latest/userguide/ev-events.html,
https://docs.aws.amazon.com/sns/latest/dg/sns-message-and-json-formats.html
"""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_plus, urlsplit

import msgspec

from model_poller.errors import (
    AccessDeniedError,
    InvalidSettingsError,
    PollerError,
    UnreachableError,
)
from model_poller.metrics import METRICS
from model_poller.notifications.telling import TURN_SECONDS, Teller, pause
from model_poller.process.threads import Worker
from model_poller.stores.aws import AwsIdentity, told_permission, told_principal
from model_poller.stores.connections import origin
from model_poller.stores.credentials import shown_uri
from model_poller.stores.http_calls import HttpCalls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from model_poller.status import NotificationsStatus
    from model_poller.stores.credentials import Credentials
    from model_poller.stores.http_calls import Answer

_WAIT_SECONDS = 20
"""The longest that SQS offers."""
_BATCH = 10
"""The most that SQS hands out at once."""
_TIMEOUT_SECONDS = _WAIT_SECONDS + 10.0
_DIGITS = 16
"""Of a time in milliseconds; a longer one is none."""
_GAP_SECONDS = 1.0
"""Between two questions to a server that does not wait with its answer, as some stand-ins."""


_REGION = re.compile(
    # sqs.REGION.amazonaws.com, sqs-fips.REGION.…, VPCE.sqs.REGION.vpce.…, the older REGION.queue.…
    r"(?:^|\.)sqs(?:-fips)?\.([a-z]{2,}(?:-[a-z]+)+-\d+)\.|^([a-z]{2,}(?:-[a-z]+)+-\d+)\.queue\."
)


class _Message(msgspec.Struct, rename="pascal"):
    receipt_handle: str
    body: str = ""
    attributes: dict[str, str] = {}


class _Received(msgspec.Struct, rename="pascal"):
    messages: list[_Message] | None = None


class _Refusal(msgspec.Struct):
    kind: str = msgspec.field(default="", name="__type")
    message: str = ""


class Queue:
    """Listens to one queue until it is stopped, through every failure."""

    def __init__(
        self,
        url: str,
        *,
        credentials: Credentials,
        region: str | None,
        on_object: Callable[[str, str], None],
        on_connect: Callable[[], None],
        report: Callable[[NotificationsStatus], None],
    ) -> None:
        """``url`` names the queue; ``region`` counts where the URL does not tell one.

        ``on_object`` gets bucket and name of an object that changed, before the message is
        deleted; ``on_connect`` is called when messages may have been missed. All callbacks come
        on this queue's own thread.

        Raises:
            InvalidSettingsError: this is not a queue's URL.
        """
        parts = urlsplit(url)
        is_queue = parts.scheme in ("http", "https") and parts.hostname and "/" in parts.path[1:]
        if not is_queue or parts.username is not None or parts.query or parts.fragment:
            raise InvalidSettingsError(
                f"{shown_uri(url)} is no queue; write https://sqs.REGION.amazonaws.com/ACCOUNT/NAME"
            )
        self._url = url
        self._origin = origin(f"{parts.scheme}://{parts.netloc}")
        if told := _REGION.search(parts.hostname or ""):
            region = told[1] or told[2]
        self._identity = AwsIdentity(credentials, region, anonymous=False)
        self._calls = HttpCalls(self._origin, _TIMEOUT_SECONDS)
        self._on_object = on_object
        self._on_connect = on_connect
        self._teller = Teller(url, report)
        self._failures = 0
        self.worker = Worker(
            "queue",
            self._turn,
            limit=TURN_SECONDS,
            failed=self._failed,
            ended=self._calls.close,
        )

    @property
    def region(self) -> str:
        """Where the queue is asked."""
        return self._identity.region

    def start(self) -> None:
        """Begin to listen."""
        self.worker.start()

    def stop(self) -> None:
        """Listen no more; what is under way ends by itself."""
        self.worker.stop()

    def _turn(self) -> None:
        begin = time.monotonic()
        try:
            # The first question is answered at once, and so tells whether there is a queue.
            found = self._poll(_WAIT_SECONDS if self._teller.connected else 0)
        except (PollerError, OSError) as error:
            self._teller.wrong(str(error))
            self._failures += 1
            self.worker.pause(pause(self._failures))
            return
        self._failures = 0
        if self._teller.well():
            self._on_connect()
        elif not found and time.monotonic() - begin < _GAP_SECONDS:
            self.worker.pause(_GAP_SECONDS)

    def _failed(self, error: Exception) -> None:
        self._teller.wrong(f"listening to the queue {self._url} failed: {error!r}")

    def _poll(self, wait: int) -> int:
        answer = self._call(
            "ReceiveMessage",
            MaxNumberOfMessages=_BATCH,
            WaitTimeSeconds=wait,
            MessageSystemAttributeNames=["SentTimestamp"],
        )
        try:
            messages = msgspec.json.decode(answer, type=_Received).messages or ()
        except msgspec.MsgspecError as error:
            raise UnreachableError(
                f"what was answered about the queue {self._url} is not in the documented form"
                f" ({error})"
            ) from error
        for message in messages:
            self._take(message)
        if messages:
            self._call(
                "DeleteMessageBatch",
                Entries=[
                    {"Id": str(i), "ReceiptHandle": message.receipt_handle}
                    for i, message in enumerate(messages)
                ],
            )
        return len(messages)

    def _take(self, message: _Message) -> None:
        sent = message.attributes.get("SentTimestamp", "")
        if sent.isdecimal() and len(sent) < _DIGITS:
            METRICS.notification_lag.observe(max(0.0, time.time() - int(sent) / 1000))
        changed = list(changed_objects(message.body))
        METRICS.notifications.labels("object" if changed else "unknown").inc()
        for bucket, name in changed:
            self._on_object(bucket, name)

    def _call(self, action: str, **arguments: Any) -> bytes:
        body = json.dumps({"QueueUrl": self._url, **arguments}).encode()
        headers = {
            "Content-Type": "application/x-amz-json-1.0",
            "X-Amz-Target": f"AmazonSQS.{action}",
        }
        answer = self._calls.send(
            "POST",
            "/",
            self._identity.sign("sqs", "POST", f"{self._origin}/", headers, payload=body),
            body,
            kept=True,
        )
        if answer.status != 200:
            raise self._refused(action, answer)
        return answer.body

    def _refused(self, action: str, answer: Answer) -> PollerError:
        try:
            told = msgspec.json.decode(answer.body, type=_Refusal)
        except msgspec.MsgspecError:
            told = _Refusal()
        # The older of the two names of each fault is in the header.
        code = answer.header("x-amzn-query-error").partition(";")[0]
        code = code or told.kind.rpartition("#")[2]
        if code.endswith(("QueueDoesNotExist", "NonExistentQueue")):
            return UnreachableError(
                f"the queue {self._url} does not exist; create it or correct its URL"
            )
        if answer.status in (400, 401, 403):
            who = told_principal(told.message) or self._identity.principal
            lacks = told_permission(told.message) or f"sqs:{action}"
            self._identity.forget()
            return AccessDeniedError(
                f"{who} lacks {lacks} on the queue {self._url} ({code}: {told.message}); allow"
                " sqs:ReceiveMessage and sqs:DeleteMessage"
            )
        return UnreachableError(f"the queue {self._url} answered {answer.status} {code}".rstrip())


def changed_objects(body: str) -> Iterator[tuple[str, str]]:
    """Bucket and name of each object that a message tells of; none in a message of other things."""
    try:
        event = json.loads(body)
        if isinstance(event.get("Message"), str) and event.get("Type") == "Notification":
            event = json.loads(event["Message"])
        if "detail" in event:
            detail = event["detail"]
            changed = [(detail["bucket"]["name"], detail["object"]["key"])]
        else:
            changed = [
                # S3 encodes names as in a form, EventBridge leaves them as they are.
                (record["s3"]["bucket"]["name"], unquote_plus(record["s3"]["object"]["key"]))
                for record in event["Records"]
            ]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return
    for bucket, name in changed:
        if isinstance(bucket, str) and isinstance(name, str):
            yield bucket, name
