"""A new pod's steps, as its poller's log tells them."""

from __future__ import annotations

import json

from bench.cache import phases

BEGAN = 1_750_000_000.0


def line(second: float, message: str) -> str:
    stamp = f"2025-06-15T15:06:{40 + second:06.3f}+00:00"
    return json.dumps(
        {"time": stamp, "level": "info", "logger": "model_poller", "message": message}
    )


LOG = "\n".join(
    (
        "no JSON",
        line(1.25, "listening on port 8502"),
        line(1.5, "fetching version 3: 1000 bytes"),
        line(11.5, "fetching version 3: 900 of 1000 bytes, 1 s left"),
        line(12.0, "published version 3"),
        line(14.0, "version 3 is AVAILABLE, 2.00 s after it was published"),
        line(15.0, "published version 4"),
    )
)


def test_each_step_is_told_when_a_pod_first_came_to_it() -> None:
    assert phases(LOG, BEGAN) == {
        "the poller runs": 1.25,
        "the version is found": 1.5,
        "it is on the pod's disk": 12.0,
        "the model server answers": 14.0,
    }


def test_a_pod_that_ran_before_tells_nothing() -> None:
    assert phases(LOG, BEGAN + 5) == {}
