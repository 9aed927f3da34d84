"""A Grafana board as matplotlib draws it from what Prometheus tells."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FuncFormatter, MaxNLocator

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from tests.support.prometheus import Prometheus

Object = dict[str, Any]

COLUMNS = 24
_COLUMN, _ROW = 0.58, 0.34
"""Inches of a unit of the board's grid."""
_DPI = 80
_LEGEND = 6
"""Series that a panel names; of more it draws the rest without a name."""
_LONG = 16
"""Characters of a name of which two fill a panel's width, not three."""
_SIZES = {"s": (1.0, "s"), "µs": (1e-6, "s"), "bytes": (1.0, "B"), "Bps": (1.0, "B/s")}
"""Grafana's units that take prefixes: what one is of the unit that is shown."""
_RATES = {"reqps": "/s", "ops": "/s"}


@dataclass(frozen=True)
class Look:
    """Colours of a theme."""

    page: str
    panel: str
    text: str
    grid: str


THEMES = {
    "light": Look("#f4f5f5", "#ffffff", "#24292e", "#d8d9da"),
    "dark": Look("#111217", "#181b1f", "#ccccdc", "#33363c"),
}


@dataclass(frozen=True)
class Line:
    """One series of a panel."""

    name: str
    points: list[tuple[float, float]]


@dataclass(frozen=True)
class Panel:
    """A panel with its data."""

    title: str
    kind: str
    """``row``, ``stat`` or ``timeseries``"""
    unit: str
    place: tuple[int, int, int, int]
    """Left, top, width and height, in units of the grid."""
    lines: list[Line] = field(default_factory=list)


def read(
    board: Object, prometheus: Prometheus, begin: float, end: float, *, rate: str, step: float
) -> list[Panel]:
    """Every panel of a board, with what its queries had within a time.

    Args:
        board: as Grafana takes it.
        prometheus: who is asked.
        begin: seconds since 1970.
        end: the same.
        rate: what Grafana would put in for ``$__rate_interval``.
        step: seconds between two points.
    """
    return [
        Panel(
            panel["title"],
            panel["type"],
            panel.get("fieldConfig", {}).get("defaults", {}).get("unit", ""),
            tuple(panel["gridPos"][key] for key in "xywh"),
            [
                Line(_named(target["legendFormat"], labels), points)
                for target in panel.get("targets", [])
                for labels, points in prometheus.over_time(
                    filled(target["expr"], rate), begin, end, step=step
                )
            ],
        )
        for panel in board["panels"]
    ]


def filled(query: str, rate: str) -> str:
    """A query with the board's variables at All."""
    chosen = {"$__rate_interval": rate, "$namespace": ".*", "$inferencemodel": ".*"}
    for name, value in chosen.items():
        query = query.replace(name, value)
    return query


def _named(form: str, labels: dict[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), form)


def draw(panels: Sequence[Panel], look: Look, path: Path) -> None:
    """Draw a board."""
    rows = max(panel.place[1] + panel.place[3] for panel in panels)
    width, height = COLUMNS * _COLUMN, rows * _ROW
    with mpl.rc_context({"font.size": 8, "text.color": look.text}):
        figure = Figure(figsize=(width, height), dpi=_DPI, facecolor=look.page)
        for panel in panels:
            x, y, w, h = panel.place
            if panel.kind == "row":
                figure.text(
                    (x + 0.3) / COLUMNS, 1 - (y + 0.75) / rows, panel.title, weight="bold", size=10
                )
                continue
            # A margin for the title, the numbers at the left and the legend below.
            left, right = (x + 1.3) / COLUMNS, (x + w - 0.3) / COLUMNS
            bottom, top = 1 - (y + h - 2.1) / rows, 1 - (y + 0.9) / rows
            axes = figure.add_axes((left, bottom, right - left, top - bottom), facecolor=look.panel)
            axes.set_title(panel.title, loc="left", size=9, weight="bold", color=look.text)
            if panel.kind == "stat":
                _stat(axes, panel)
            else:
                _over_time(axes, panel, look)
        figure.savefig(path, metadata={"Software": None})


def _stat(axes: Axes, panel: Panel) -> None:
    axes.set_axis_off()
    for number, line in enumerate(panel.lines):
        at = (number + 0.5) / len(panel.lines)
        axes.text(at, 0.5, f"{line.points[-1][1]:g}", size=26, ha="center", va="center")
        axes.text(at, 0.15, line.name, size=9, ha="center", va="center")


def _over_time(axes: Axes, panel: Panel, look: Look) -> None:
    begin = min((line.points[0][0] for line in panel.lines), default=0.0)
    scale, unit = _SIZES.get(panel.unit, (1.0, ""))
    for number, line in enumerate(panel.lines):
        axes.plot(
            [(at - begin) / 60 for at, _ in line.points],
            [value * scale for _, value in line.points],
            linewidth=1.2,
            label=line.name if number < _LEGEND else f"_{line.name}",
        )
    axes.grid(visible=True, color=look.grid, linewidth=0.6)
    axes.tick_params(colors=look.text, labelsize=7, length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_ylim(bottom=min(0.0, *axes.get_ylim()))
    rate = _RATES.get(panel.unit, "")
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=not panel.unit))
    axes.yaxis.set_major_formatter(
        EngFormatter(unit=unit, sep="\N{THIN SPACE}")
        if unit
        else FuncFormatter(lambda value, _: f"{value:g}{rate}")
    )
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} min"))
    if panel.lines:
        columns = 2 if max(len(line.name) for line in panel.lines) > _LONG else 3
        axes.legend(
            *axes.get_legend_handles_labels(),
            loc="upper left",
            bbox_to_anchor=(0, -0.16),
            ncols=columns,
            fontsize=6.5,
            frameon=False,
            labelcolor=look.text,
            borderaxespad=0,
            handlelength=1,
        )
