"""Where measured figures go."""

from __future__ import annotations

import datetime
import json
import os
import platform
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

RESULTS = Path(__file__).parent / "results"


def write(name: str, figures: Mapping[str, object]) -> Path:
    """Keep a run's figures as ``results/NAME.json``, with when and on what they were measured."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    about = {
        "measured": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "cpus": os.cpu_count(),
        "machine": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
    }
    path.write_text(json.dumps(about | dict(figures), indent=2) + "\n")
    return path


def summary(values: Sequence[float]) -> str:
    """Median and range of measured seconds."""
    return f"{median(values):.2f} s ({min(values):.2f} to {max(values):.2f})"
