"""How many requests fail while versions change and replicas come and go: it should be none."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from bench import demo_model, record
from bench.namespace import renumbered
from demo.console import say
from demo.load import Traffic
from demo.traffic import check, loads, report, tell

_LEAD_SECONDS = 2.0


def run(rounds: int, rate: float) -> None:
    """Change the version ``rounds`` times and scale to 5 and back, under steady requests.

    Raises:
        OutcomeError: a request failed, or a change did not come to its end.
        ClusterError: a part does not run.
    """
    model = demo_model.begin(rate)
    served, image, first = model.served, model.image, model.first
    started = time.monotonic()
    with (
        tempfile.TemporaryDirectory() as scratch,
        Traffic(*loads(served, image, first, rate)) as traffic,
    ):
        tell(traffic, image)
        time.sleep(_LEAD_SECONDS)
        newest = rounds + 1
        for version in range(2, newest + 1):
            archive = renumbered(model.made.archive(2 - version % 2), version, Path(scratch))
            model.upload(version, archive.read_bytes())
            say(f"version {version}: {len(traffic.failures)} of {traffic.sent} failed so far")
        for replicas in (5, 3):
            served.scale(replicas, version=newest)
            say(f"{replicas} replicas: {len(traffic.failures)} of {traffic.sent} failed so far")
    seconds = time.monotonic() - started
    report(traffic)
    path = record.write(
        "traffic",
        {
            "seconds": round(seconds, 1),
            "version_changes": rounds,
            "scaled": [5, 3],
            "loads": [
                {
                    "name": load.name,
                    "requests_per_second": load.rate,
                    "sent": load.sent,
                    "failed": len(load.failures),
                    "median_ms": round(load.quantile(0.5) * 1e3, 1),
                    "p99_ms": round(load.quantile(0.99) * 1e3, 1),
                }
                for load in traffic.loads
            ],
        },
    )
    say(f"written to bench/results/{path.name}")
    served.remove()
    check(traffic)
