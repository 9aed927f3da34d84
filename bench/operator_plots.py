"""Plots of how the operator grows with the number of resources."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from collections.abc import Mapping

_FOLDER = Path(__file__).parent.parent / "docs" / "plots"


def draw(figures: Mapping[str, Any]) -> list[Path]:
    """Draw time and memory over the number of resources; the files written."""
    _FOLDER.mkdir(parents=True, exist_ok=True)
    # The same figures give the same file.
    mpl.rcParams["svg.hashsalt"] = "inferencemodel"
    creations, restarts = figures["creation"], figures["restart"]
    sizes = [creation["resources"] for creation in creations]
    return [
        _plot(
            "operator-time.svg",
            sizes,
            "seconds",
            {
                "all children created": [c["seconds"] for c in creations],
                "bare script (floor)": [c["floor_seconds"] for c in creations],
                "restart until quiet": [r["seconds"] for r in restarts],
            },
        ),
        _plot(
            "operator-memory.svg",
            sizes,
            "resident memory, MB",
            {
                "after the creation": [c["memory_mb"] for c in creations],
                "after a restart": [r["memory_mb"] for r in restarts],
            },
        ),
    ]


def _plot(name: str, sizes: list[int], unit: str, lines: Mapping[str, list[float]]) -> Path:
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    for label, values in lines.items():
        axes.plot(sizes, values, marker="o", label=label)
    axes.set_xlabel("InferenceModels")
    axes.set_ylabel(unit)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    path = _FOLDER / name
    figure.savefig(path, metadata={"Date": None})
    return path
