"""Makes a Pub/Sub subscription, so that each test has one of its own."""

from __future__ import annotations

import grpc


def _field(number: int, text: str) -> bytes:
    """One short string field in protobuf's wire format."""
    content = text.encode()
    assert len(content) < 128
    return bytes([number << 3 | 2, len(content)]) + content


def create(endpoint: str, *, topic: str, subscription: str) -> None:
    """Create a pull subscription; ``name`` and ``topic`` are fields 1 and 2 of the request.

    Raises:
        grpc.RpcError: the server refused, such as for a topic that is not there.
    """
    with grpc.insecure_channel(endpoint) as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
            "/google.pubsub.v1.Subscriber/CreateSubscription"
        )
        call(_field(1, subscription) + _field(2, topic), timeout=30, wait_for_ready=True)
