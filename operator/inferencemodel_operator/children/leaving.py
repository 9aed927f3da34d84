"""How long a pod that is going away still serves, and what follows from that; pure.

TensorFlow Serving ignores SIGTERM and never asks a client to leave, so the pod waits until every
gRPC connection has reached its age (10 % of jitter on it) and its grace, and until kube-proxies
and Ingress controllers have heard that the pod is gone:

    seconds = age * 1.1 + grace + 8.5

So grace is what a gRPC request can take, at any time: its connection may be about to reach its age
when it comes. A request by REST has all the time but what it takes until nobody sends one more.
"""

from __future__ import annotations

from typing import Final, NamedTuple

CONNECTION_AGE_SECONDS: Final = 15
"""Of a gRPC connection, where there is time for it: clients reach new replicas by it."""
_HEARD_TENTHS: Final = 85
"""Until kube-proxies and Ingress controllers have heard that the pod is gone, in 0.1 s."""
_SHORTEST_FOR_AGE: Final = 35
_KILL_SECONDS: Final = 10
"""From the end of the wait to the kill: what was late is answered still."""
_REST_SECONDS: Final = 30
"""TensorFlow Serving ends a REST request then, unless it is told otherwise."""


class Leaving(NamedTuple):
    """What follows from ``spec.drain.seconds``. All in seconds."""

    drain: int
    """How long the pod serves after it was deleted."""
    grace: int
    """The pod's termination grace period."""
    connection_age: int
    connection_grace: int
    """The longest gRPC request."""
    rest_timeout: int | None
    """The longest REST request; None for TensorFlow Serving's own limit, 30 s."""


def leaving(seconds: int) -> Leaving:
    """What follows from how long a pod drains (15 s at least)."""
    left = 10 * seconds - _HEARD_TENTHS
    age = CONNECTION_AGE_SECONDS
    if seconds < _SHORTEST_FOR_AGE:
        # Age and grace shrink alike.
        age = age * left // (10 * _SHORTEST_FOR_AGE - _HEARD_TENTHS)
    rest = seconds - -(-_HEARD_TENTHS // 10)
    return Leaving(
        drain=seconds,
        grace=seconds + _KILL_SECONDS,
        connection_age=age,
        connection_grace=(left - 11 * age) // 10,
        rest_timeout=rest if rest > _REST_SECONDS else None,
    )
