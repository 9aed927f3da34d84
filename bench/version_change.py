"""How long a new version takes from the end of its upload to AVAILABLE on all replicas.

Side by side in each round with the floor: the same archive downloaded by curl, unpacked by unzip,
renamed into the base path, and loaded by the same model server - one alone, and as many at once as
there are replicas, for they share this machine.
"""

from __future__ import annotations

import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from bench import record
from bench.available import Arrival
from bench.floor import Floor
from bench.namespace import Namespace, namespace, renumbered
from demo import artifacts, setup
from demo.cluster import reachable
from demo.console import say, table
from demo.errors import ClusterError, OutcomeError

if TYPE_CHECKING:
    from demo.setup import Options

_REPLICAS = 3
_POLL_SECONDS = 10
_RATIO = 2.0
"""The figure to reach: at most so many times the floor."""

_ONE = "floor: 1 server"
_ALL = f"floor: {_REPLICAS} servers at once"
_NOTIFIED = f"{_REPLICAS} replicas, notified"
_TOLD = "  until the resource says so"
_LOST = f"{_REPLICAS} replicas, notification lost"


def run(rounds: int, options: Options) -> None:
    """Measure, print, and keep the figures.

    Raises:
        OutcomeError: a version did not arrive, or the figure was not reached.
        ClusterError: a part does not run.
    """
    cluster = setup.prepare(options)
    made = artifacts.ensure(say)
    times: dict[str, list[float]] = {name: [] for name in (_ONE, _ALL, _NOTIFIED, _TOLD, _LOST)}
    with ExitStack() as stack:
        space = stack.enter_context(namespace(cluster, setup.bucket(cluster)))
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        one = stack.enter_context(Floor(1))
        all_ = stack.enter_context(Floor(_REPLICAS))
        _begin(space, made.archive(1), (one, all_))
        for number in range(2, rounds + 2):
            archive = renumbered(made.archive(2), number, scratch)
            space.bucket.upload(space.path("floor", number), archive.read_bytes())
            times[_ONE].append(one.bring(space.url("floor", number), number))
            times[_ALL].append(all_.bring(space.url("floor", number), number))
            served, told = _change(space, "notified", archive, number)
            times[_NOTIFIED].append(served)
            times[_TOLD].append(told)
            served, _ = _change(space, "lost", archive, number)
            times[_LOST].append(served)
            say(", ".join(f"{name.strip()} {values[-1]:.2f} s" for name, values in times.items()))
    _report(times, made.archive(2).stat().st_size)


def _begin(space: Namespace, archive: Path, floors: tuple[Floor, ...]) -> None:
    for model, subscription in (("notified", "bench"), ("lost", "silent")):
        space.bucket.upload(space.path(model, 1), archive.read_bytes())
        space.apply(
            model,
            subscription=subscription,
            poll_interval=f"{_POLL_SECONDS}s" if model == "lost" else "10m",
            replicas=_REPLICAS,
        )
    for floor in floors:
        floor.start(space.url("notified", 1), 1)
    for model in ("notified", "lost"):
        space.wait(model, 1)
        space.kubectl("rollout", "status", f"deployment/{model}", "--timeout=180s", timeout=200)
        if not all(reachable(a.rpartition(":")[0], 8500) for a in space.addresses(model)):
            raise ClusterError("this machine doesn't reach the pods' network, which is measured")


def _change(space: Namespace, model: str, archive: Path, version: int) -> tuple[float, float]:
    """Seconds from the end of the upload until all servers have it, and until the status has."""
    told: list[float] = []

    def wait() -> None:
        space.wait(model, version)
        told.append(time.monotonic())

    waiting = threading.Thread(target=wait)
    waiting.start()
    with Arrival(space.addresses(model), model, version) as arrival:
        space.bucket.upload(space.path(model, version), archive.read_bytes())
        uploaded = time.monotonic()
        served = arrival.wait()
    waiting.join()
    if not told:
        raise OutcomeError(f"{model}: the resource never said that version {version} answers")
    return served - uploaded, told[0] - uploaded


def _report(times: dict[str, list[float]], size: int) -> None:
    floor, one = median(times[_ALL]), median(times[_ONE])
    rows = [("UPLOADED TO AVAILABLE", "MEDIAN (RANGE)", "OF FLOOR", "OF 1 SERVER'S")]
    for name, values in times.items():
        middle = median(values)
        rows.append((name, record.summary(values), f"{middle / floor:.2f}", f"{middle / one:.2f}"))
    table(rows)
    ratio = median(times[_NOTIFIED]) / floor
    allowed = _POLL_SECONDS * 1.1 + _RATIO * floor
    say(f"notified: {ratio:.2f} of the floor of {_REPLICAS} servers (to reach: {_RATIO:.0f})")
    say(
        f"lost: at most {max(times[_LOST]):.2f} s with a poll every {_POLL_SECONDS} s (10 % of"
        f" jitter); to reach: {allowed:.2f} s"
    )
    path = record.write(
        "version-change",
        {
            "archive_bytes": size,
            "replicas": _REPLICAS,
            "poll_interval_seconds": _POLL_SECONDS,
            "seconds": {
                name.strip(): [round(value, 3) for value in values]
                for name, values in times.items()
            },
            "notified_to_floor": round(ratio, 3),
            "notified_to_floor_of_one_server": round(median(times[_NOTIFIED]) / one, 3),
        },
    )
    say(f"written to bench/results/{path.name}")
    if ratio > _RATIO or max(times[_LOST]) > allowed:
        raise OutcomeError("the figure was not reached")
