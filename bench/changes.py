"""How long it takes to go back to the version before, and what requests notice of a change.

A pin moves between two versions that lie on every pod's disk, under steady requests. Both have
served, so neither way is a rollout: all replicas change at once.

With drain it is new versions that come, for nothing else is drained: replicas leave their Services
one at a time, load, and come back.
"""

from __future__ import annotations

import os
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING

from bench import demo_model, record
from bench.available import Arrival
from bench.demo_model import REPLICAS
from bench.namespace import renumbered
from demo.console import say, table
from demo.errors import OutcomeError
from demo.load import Traffic
from demo.served import NAME, SELECTOR, Served
from demo.traffic import check, loads, report, tell

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bench.demo_model import DemoModel

_REST_SECONDS = 4.0
"""Between two changes, for the requests that notice none."""
_EVERY = 0.1
"""Seconds between two questions to one server: more of them would take a sixth of two cores from
what is measured, and the figure is late by half of it."""
_DRAINED_REST_SECONDS = 10.0
"""The same where a change takes three quarters of a minute."""
_MEDIAN_SECONDS, _WORST_SECONDS = 3.0, 5.0
"""To reach: from the patch until each replica answers with the version before, alone."""
_CHANGE_SECONDS = 120.0
"""Within which a change is made, with the rest before it, or it is useless to go on."""
_TOLD = 20
"""Of the requests that failed, so many are kept."""
_P99_RATIO = 1.1
"""To reach with drain: the p99 of requests during changes, of that between them."""


def run(rounds: int, rate: float, *, drain: bool) -> None:
    """Go forward and back ``rounds`` times, under ``rate`` requests/s of each load; with ``drain``,
    to so many new versions.

    Raises:
        OutcomeError: a request failed, a change did not come to its end, or a figure was not
            reached.
        ClusterError: a part does not run.
    """
    model = demo_model.begin(rate, {"drain": True} if drain else None)
    longest = rounds * (1 if drain else 2) * _CHANGE_SECONDS
    found = loads(model.served, model.image, model.first, rate, longest=longest)
    with Traffic(*found) as traffic:
        tell(traffic, model.image)
        clock = _Clock(traffic)
        back = _roll_out(model, clock, rounds) if drain else _pin(model, clock, rounds)
    report(traffic)
    during, between = _p99(clock.during), _p99(clock.between)
    rows = [("", "MEDIAN (RANGE)" if back else "")]
    if back:
        rows.append(("version before pinned to alone on each replica", record.summary(back)))
    rows += [
        ("requests during changes, p99", f"{during * 1e3:.0f} ms"),
        ("requests between them, p99", f"{between * 1e3:.0f} ms ({during / between:.2f} times)"),
    ]
    table(rows)
    path = record.write(
        "changes-drained" if drain else "changes",
        {
            "replicas": REPLICAS,
            "requests_per_second": rate,
            "load_average": [round(value, 1) for value in os.getloadavg()],
            "changes": len(clock.changes),
            "change_seconds": [round(value, 3) for value in clock.changes],
            **({"back_seconds": [round(value, 3) for value in back]} if back else {}),
            "p99_ms": {"during": round(during * 1e3, 1), "between": round(between * 1e3, 1)},
            "sent": traffic.sent,
            "failed": len(traffic.failures),
            "failures": [
                f"{clock.moment(failure.at)}: {failure.load}: {failure.reason}"
                for failure in traffic.failures[:_TOLD]
            ],
        },
    )
    say(f"written to bench/results/{path.name}")
    model.served.remove()
    check(traffic)
    if back and (median(back) > _MEDIAN_SECONDS or max(back) > _WORST_SECONDS):
        raise OutcomeError("going back takes too long")
    if drain and during / between > _P99_RATIO:
        raise OutcomeError("requests notice changes although replicas leave their Services")


class _Clock:
    """Times changes, and the requests that were answered during them and between them."""

    def __init__(self, traffic: Traffic) -> None:
        self._traffic = traffic
        self.during: list[float] = []
        self.between: list[float] = []
        self.changes: list[float] = []
        self._spans: list[tuple[float, float]] = []

    def moment(self, at: float) -> str:
        """When a request was sent: during which change, or between two."""
        for number, (begin, end) in enumerate(self._spans, 1):
            if begin <= at <= end:
                return f"{at - begin:.1f} s after the begin of change {number}"
        return "between changes"

    def time(self, change: Callable[[], float], rest: float) -> float:
        """Rest, then make a change, which tells how many seconds it took.

        Raises:
            LoadError: there are no requests that could notice it.
        """
        marks = self._marks()
        time.sleep(rest)
        self.between += self._since(marks)
        marks, begin = self._marks(), time.time()
        seconds = change()
        self._spans.append((begin, time.time()))
        self.during += self._since(marks)
        self.changes.append(seconds)
        self._traffic.check()
        return seconds

    def _marks(self) -> list[int]:
        return [len(load.seconds) for load in self._traffic.loads]

    def _since(self, marks: Sequence[int]) -> list[float]:
        return [
            s
            for load, mark in zip(self._traffic.loads, marks, strict=True)
            for s in load.seconds[mark:]
        ]


def _pin(model: DemoModel, clock: _Clock, rounds: int) -> list[float]:
    """Seconds that each way back took."""
    model.upload(2, model.made.archive(2).read_bytes())
    back: list[float] = []
    for number in range(rounds):
        back.append(clock.time(lambda: _change(model.served, 1), _REST_SECONDS))
        forward = clock.time(lambda: _change(model.served, 2), _REST_SECONDS)
        say(f"{number + 1}: back in {back[-1]:.2f} s, forward in {forward:.2f} s")
    return back


def _roll_out(model: DemoModel, clock: _Clock, rounds: int) -> list[float]:
    """Nothing goes back here."""
    with tempfile.TemporaryDirectory() as scratch:
        for version in range(2, rounds + 2):
            made = renumbered(model.made.archive(2 - version % 2), version, Path(scratch))
            bring = partial(_bring, model, version, made)
            seconds = clock.time(bring, _DRAINED_REST_SECONDS)
            say(f"version {version}: everywhere in {seconds:.1f} s")
    return []


def _bring(model: DemoModel, version: int, archive: Path) -> float:
    """Upload a version; seconds until the resource says that all replicas answer with it."""
    begin = time.monotonic()
    model.upload(version, archive.read_bytes())
    return time.monotonic() - begin


def _change(served: Served, version: int) -> float:
    """Pin a version; seconds until each replica answers with it, and with no other one."""
    addresses = _addresses(served)
    with Arrival(addresses, NAME, version, alone=True, limit=300.0, every=_EVERY) as arrival:
        begin = time.monotonic()
        demo_model.patch(served, {"model": {"version": version}})
        arrived = arrival.wait()
    served.wait_for_version(version, replicas=REPLICAS)
    return arrived - begin


def _addresses(served: Served) -> list[str]:
    """``host:port`` of the gRPC of each replica."""
    wanted = f"--selector={SELECTOR}", "--output=jsonpath={.items[*].status.podIP}"
    return [f"{address}:8500" for address in served.kubectl("get", "pods", *wanted).split()]


def _p99(seconds: Sequence[float]) -> float:
    return quantiles(seconds, n=100)[98]
