"""Plots of how the operator grows with the number of resources."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.axes import Axes

_FOLDER = Path(__file__).parent.parent / "docs" / "plots"


def draw(figures: Mapping[str, Any]) -> list[Path]:
    """Draw time and memory over the number of resources; the files written."""
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
    figure, over_size = axes("InferenceModels", unit)
    for label, values in lines.items():
        over_size.plot(sizes, values, marker="o", label=label)
    over_size.legend()
    return written(figure, name)


def axes(what: str, unit: str) -> tuple[Figure, Axes]:
    """A new figure of something over so many of something."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    found = figure.add_subplot()
    found.set_xlabel(what)
    found.set_ylabel(unit)
    found.grid(visible=True, alpha=0.3)
    return figure, found


def written(figure: Figure, name: str) -> Path:
    """Write a figure to the docs, its axes from 0 on; the same figures give the same file."""
    for drawn in figure.axes:
        drawn.set_xlim(left=0)
        drawn.set_ylim(bottom=0)
    _FOLDER.mkdir(parents=True, exist_ok=True)
    path = _FOLDER / name
    with mpl.rc_context({"svg.hashsalt": "inferencemodel"}):
        figure.savefig(path, metadata={"Date": None})
    return path
