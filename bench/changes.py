"""How long it takes to go back to the version before, and what requests notice of a change.

A pin moves between two versions that lie on every pod's disk, under steady requests. Forward it
goes by the resource's steps, back at once.
"""

from __future__ import annotations

import time
from statistics import median, quantiles
from typing import TYPE_CHECKING

from bench import demo_model, record
from bench.available import Arrival
from bench.demo_model import REPLICAS
from demo.console import say, table
from demo.errors import OutcomeError
from demo.load import Traffic
from demo.served import NAME, SELECTOR, Served
from demo.traffic import check, loads, report, tell

if TYPE_CHECKING:
    from collections.abc import Sequence

    from demo.load import Load

_REST_SECONDS = 4.0
"""Between two changes, for the requests that notice none."""
_MEDIAN_SECONDS, _WORST_SECONDS = 3.0, 5.0
"""To reach: from the patch until each replica answers with the version before, alone."""
_P99_RATIO = 1.1
"""To reach with drain: the p99 of requests during changes, of that between them."""


def run(rounds: int, rate: float, *, drain: bool) -> None:
    """Go forward and back ``rounds`` times, under ``rate`` requests/s of each load.

    Raises:
        OutcomeError: a request failed, a change did not come to its end, or a figure was not
            reached.
        ClusterError: a part does not run.
    """
    model = demo_model.begin(rate, {"drain": True} if drain else None)
    served, image, first = model.served, model.image, model.first
    model.upload(2, model.made.archive(2).read_bytes())
    back: list[float] = []
    during: list[float] = []
    between: list[float] = []
    with Traffic(*loads(served, image, first, rate)) as traffic:
        tell(traffic, image)
        for number in range(rounds):
            for version in (1, 2):
                marks = _marks(traffic.loads)
                time.sleep(_REST_SECONDS)
                between += _since(traffic.loads, marks)
                marks = _marks(traffic.loads)
                seconds = _change(served, version)
                during += _since(traffic.loads, marks)
                if version == 1:
                    back.append(seconds)
            say(f"{number + 1}: back in {back[-1]:.2f} s; {len(traffic.failures)} failed so far")
    report(traffic)
    ratio = _p99(during) / _p99(between)
    table(
        [
            ("PIN TO THE VERSION BEFORE", "MEDIAN (RANGE)"),
            ("patched to alone on each replica", record.summary(back)),
            ("requests during changes, p99", f"{_p99(during) * 1e3:.0f} ms"),
            ("requests between them, p99", f"{_p99(between) * 1e3:.0f} ms ({ratio:.2f} times)"),
        ]
    )
    path = record.write(
        "changes-drained" if drain else "changes",
        {
            "replicas": REPLICAS,
            "requests_per_second": rate,
            "back_seconds": [round(value, 3) for value in back],
            "p99_ms": {
                "during": round(_p99(during) * 1e3, 1),
                "between": round(_p99(between) * 1e3, 1),
            },
            "sent": traffic.sent,
            "failed": len(traffic.failures),
        },
    )
    say(f"written to bench/results/{path.name}")
    served.remove()
    check(traffic)
    if median(back) > _MEDIAN_SECONDS or max(back) > _WORST_SECONDS:
        raise OutcomeError("going back takes too long")
    if drain and ratio > _P99_RATIO:
        raise OutcomeError("requests notice changes although replicas leave their Services")


def _change(served: Served, version: int) -> float:
    """Pin a version; seconds until each replica answers with it, and with no other one."""
    with Arrival(_addresses(served), NAME, version, alone=True, limit=300.0) as arrival:
        begin = time.monotonic()
        demo_model.patch(served, {"model": {"version": version}})
        arrived = arrival.wait()
    served.wait_for_version(version, replicas=REPLICAS)
    return arrived - begin


def _addresses(served: Served) -> list[str]:
    """``host:port`` of the gRPC of each replica."""
    wanted = f"--selector={SELECTOR}", "--output=jsonpath={.items[*].status.podIP}"
    return [f"{address}:8500" for address in served.kubectl("get", "pods", *wanted).split()]


def _marks(found: Sequence[Load]) -> list[int]:
    return [len(load.seconds) for load in found]


def _since(found: Sequence[Load], marks: Sequence[int]) -> list[float]:
    return [s for load, mark in zip(found, marks, strict=True) for s in load.seconds[mark:]]


def _p99(seconds: Sequence[float]) -> float:
    return quantiles(seconds, n=100)[98]
