"""SQS: what messages mean, and what is told of a queue that can't be read."""

from __future__ import annotations

import json
import queue
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_poller.errors import InvalidSettingsError
from model_poller.notifications import telling
from model_poller.notifications.sqs import Queue, changed_objects
from model_poller.stores.credentials import Credentials
from tests.unit.poller.answering import Answering, Reply, Request

if TYPE_CHECKING:
    from collections.abc import Callable

    from model_poller.status import NotificationsStatus

KEYS = {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "hidden"}


def record(key: str) -> dict[str, object]:
    return {"s3": {"bucket": {"name": "models"}, "object": {"key": key}}}


def test_all_records_of_a_message_count_with_their_names_decoded() -> None:
    body = json.dumps({"Records": [record("a/1.zip"), record("a+b/%C3%BC%2B.pb")]})
    assert list(changed_objects(body)) == [("models", "a/1.zip"), ("models", "a b/ü+.pb")]


def test_what_came_by_a_topic_is_unwrapped() -> None:
    inner = json.dumps({"Records": [record("a/1.zip")]})
    body = json.dumps({"Type": "Notification", "Message": inner})
    assert list(changed_objects(body)) == [("models", "a/1.zip")]


def test_what_came_by_a_bus_has_its_name_as_it_is() -> None:
    detail = {"bucket": {"name": "models"}, "object": {"key": "a+b/%41.pb"}}
    body = json.dumps({"detail-type": "Object Created", "detail": detail})
    assert list(changed_objects(body)) == [("models", "a+b/%41.pb")]


@pytest.mark.parametrize(
    "body",
    [
        "",
        "no JSON",
        "[]",
        "null",
        "1",
        '{"Event": "s3:TestEvent"}',
        '{"Records": null}',
        '{"Records": [1]}',
        '{"Records": [{"s3": {"bucket": {"name": "b"}, "object": {"key": 1}}}]}',
        '{"detail": []}',
        '{"detail": {"bucket": {"name": "b"}, "object": {"key": 1}}}',
        "[" * 200_000,
        '{"Type": "Notification", "Message": "plain"}',
    ],
)
def test_other_messages_tell_of_nothing(body: str) -> None:
    assert list(changed_objects(body)) == []


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=2)
            | st.dictionaries(
                st.sampled_from(
                    ["Records", "s3", "bucket", "object", "name", "key", "detail", "Message"]
                ),
                inner,
                max_size=3,
            )
        ),
        max_leaves=12,
    )
)
def test_no_message_does_harm(event: object) -> None:
    for bucket, name in changed_objects(json.dumps(event)):
        assert isinstance(bucket, str)
        assert isinstance(name, str)


@pytest.mark.parametrize("url", ["", "models", "arn:aws:sqs:eu-west-1:1:models", "https://host/x"])
def test_what_is_no_queue_is_refused(url: str) -> None:
    with pytest.raises(InvalidSettingsError, match=r"write https://sqs\.REGION"):
        listener(url, queue.SimpleQueue())


def listener(url: str, told: queue.SimpleQueue[NotificationsStatus]) -> Queue:
    return Queue(
        url,
        credentials=Credentials(KEYS),
        region="eu-west-1",
        on_object=lambda *_: None,
        on_connect=lambda: None,
        report=told.put,
    )


def first_told(answer: Callable[[Request], Reply]) -> tuple[NotificationsStatus, list[Request]]:
    """What a listener reports first of a queue that answers so."""
    told: queue.SimpleQueue[NotificationsStatus] = queue.SimpleQueue()
    with Answering(answer) as server:
        listening = listener(f"{server.url}/123456789012/models", told)
        listening.start()
        status = told.get(timeout=20)
        listening.stop()
    return status, server.asked


def test_the_first_answer_comes_at_once_and_tells_that_there_is_a_queue() -> None:
    status, asked = first_told(lambda _: Reply(body="{}"))
    assert status.connected
    assert json.loads(asked[0].body)["WaitTimeSeconds"] == 0
    assert "/eu-west-1/sqs/aws4_request" in asked[0].headers["Authorization"]


def test_a_refusal_names_who_and_what_is_missing() -> None:
    message = (
        "User: arn:aws:iam::123456789012:user/ci is not authorized to perform: sqs:receivemessage"
        " on resource: arn:aws:sqs:eu-west-1:123456789012:models"
    )
    denied = json.dumps({"__type": "com.amazonaws.sqs#AccessDeniedException", "message": message})
    status, _ = first_told(lambda _: Reply(403, denied))
    assert not status.connected
    assert "arn:aws:iam::123456789012:user/ci lacks sqs:receivemessage" in status.message
    assert "allow sqs:ReceiveMessage and sqs:DeleteMessage" in status.message
    assert "hidden" not in status.message


def test_a_queue_that_fails_is_told_and_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telling, "LAST_RETRY_SECONDS", 0.001)
    replies = iter([Reply(503, "busy"), Reply(200, '{"Messages": [{"Body": 1}]}')])
    told: queue.SimpleQueue[NotificationsStatus] = queue.SimpleQueue()
    with Answering(lambda _: next(replies, Reply(body="{}"))) as server:
        listening = listener(f"{server.url}/123456789012/models", told)
        listening.start()
        statuses = [told.get(timeout=20) for _ in range(3)]
        listening.stop()
    assert [status.connected for status in statuses] == [False, False, True]
    assert "answered 503" in statuses[0].message
    assert "not in the documented form" in statuses[1].message
