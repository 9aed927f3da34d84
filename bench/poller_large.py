"""Whether 6 GB are fetched as fast as 1 GB, in a container's memory.

The store makes its bytes from one block, so that the disk has nothing to do but take what comes in.
The seconds are those until the disk has it all and every tensor is checked: of 6 GB no memory keeps
what is written until the end.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench import confined, measured, record
from bench.patterned import Patterned, version
from bench.poller_s3 import KEYS
from demo.console import say, table
from demo.errors import OutcomeError
from inferencemodel_operator.spec import PollerLimits

if TYPE_CHECKING:
    from collections.abc import Sequence

_TREE = Path(__file__).parent.parent
_MARKER = "COMPLETE"
_GB = 10**9
_SIZES = {"1 GB": [_GB // 2] * 2, "6 GB": [2 * _GB] * 3}
_GOAL_SPEED = 0.9
"""Of 6 GB, of the speed of 1 GB."""
_GOAL_MEMORY = 1.1
"""Of the poller's own memory with 6 GB, of that with 1 GB; they differ by chance, too."""


@dataclass(frozen=True)
class _Run:
    seconds: float
    memory_mb: float
    counted_mb: float | None
    """With what the system keeps of the files; None where it couldn't be confined."""


def run(rounds: int) -> None:
    """Measure, print and keep the figures.

    Raises:
        OutcomeError: a figure was not reached, or there is no room for 6 GB.
    """
    limit = _bytes(PollerLimits().memory)
    with tempfile.TemporaryDirectory() as scratch:
        if shutil.disk_usage(scratch).free < 8 * _GB:
            raise OutcomeError(f"{scratch} has less than 8 GB free; set TMPDIR")
        taken: dict[str, list[_Run]] = {name: [] for name in _SIZES}
        for _ in range(rounds):
            for name, shards in _SIZES.items():
                taken[name].append(_bring(shards, Path(scratch), limit))
    figures = _report(taken, limit)
    record.write("poller-large", figures)
    missed = _missed(taken)
    for line in missed:
        say(f"missed: {line}")
    if missed:
        raise OutcomeError(f"{len(missed)} figures were not reached")


def _bring(shards: Sequence[int], scratch: Path, limit: int) -> _Run:
    files = {f"m/1/{name}": content for name, content in version(shards).items()}
    target = scratch / "fetched"
    target.mkdir()
    try:
        with Patterned({**files, f"m/1/{_MARKER}": b""}) as store, confined.limited(limit) as cell:
            argv = [sys.executable, "-m", "bench.bring", store.url, "s3://models/m", str(target)]
            whole = measured.run(
                [*(cell.prefix if cell else ()), *argv, _MARKER],
                {"PYTHONPATH": f"{_TREE}:{_TREE / 'poller'}", **KEYS},
            )
            counted = cell.peak_mb if cell else None
        seconds, _ = map(float, whole.output.split())
        return _Run(seconds, whole.memory_mb, counted)
    finally:
        shutil.rmtree(target)
        # Freed blocks are written to the disk, too, and not by the next one to measure.
        os.sync()


def _bytes(quantity: str) -> int:
    return int(quantity.removesuffix("Mi")) << 20


def _speed(name: str, runs: Sequence[_Run]) -> float:
    return sum(_SIZES[name]) / 1e6 / min(run.seconds for run in runs)


def _report(taken: dict[str, list[_Run]], limit: int) -> dict[str, object]:
    rows = [("", "FASTEST", "MB/S", "ALL ROUNDS", "PEAK MEMORY", "COUNTED BY THE SYSTEM")]
    figures: dict[str, object] = {"memory_limit_mb": round(limit / 1e6)}
    for name, runs in taken.items():
        seconds = [run.seconds for run in runs]
        memory = max(run.memory_mb for run in runs)
        counted = max((run.counted_mb or 0 for run in runs), default=0)
        rows.append(
            (
                name,
                f"{min(seconds):.2f} s",
                f"{_speed(name, runs):.0f}",
                record.summary(seconds),
                f"{memory:.0f} MB",
                f"{counted:.0f} MB" if counted else "not confined",
            )
        )
        figures[name] = {
            "seconds": [round(value, 2) for value in seconds],
            "mb_per_second": round(_speed(name, runs)),
            "peak_memory_mb": round(memory, 1),
            "counted_memory_mb": round(counted, 1),
        }
    table(rows)
    return figures


def _missed(taken: dict[str, list[_Run]]) -> list[str]:
    small, large = (taken[name] for name in _SIZES)
    speed = _speed("6 GB", large) / _speed("1 GB", small)
    memory = max(r.memory_mb for r in large) / max(r.memory_mb for r in small)
    missed = []
    if speed < _GOAL_SPEED:
        missed.append(f"6 GB at {speed:.2f}x of the speed of 1 GB, not {_GOAL_SPEED}x")
    if memory > _GOAL_MEMORY:
        missed.append(f"6 GB with {memory:.2f}x of the memory of 1 GB, not {_GOAL_MEMORY}x")
    return missed
