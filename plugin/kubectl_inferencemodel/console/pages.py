"""What the pages show, as HTML; everything is escaped where it is put in."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import jinja2

from inferencemodel_operator.durations import text as lasting
from kubectl_inferencemodel.console import fleet
from kubectl_inferencemodel.console.fleet import bounded
from kubectl_inferencemodel.output import moment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from kubectl_inferencemodel.console.fleet import Row

STATIC: Final = Path(__file__).parent / "static"
_TEMPLATES: Final = Path(__file__).parent / "templates"
_TONES: Final = {
    **dict.fromkeys(
        ("Available", "Active", "Passed", "Completed", "UpToDate", "True", "Done"), "good"
    ),
    **dict.fromkeys(
        ("Quarantined", "Failed", "RolledBack", "RollingBack", "False", "Left", "Warning"), "bad"
    ),
    **dict.fromkeys(
        (
            *("Paused", "Progressing", "Checking", "Rehearsing", "Baking", "Pending"),
            *("Inconclusive", "InProgress", "Fetching", "Fetched", "Published", "Loading", "Now"),
        ),
        "busy",
    ),
}


@functools.cache
def _templates() -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["bounded"] = bounded
    made.filters["moment"] = moment
    made.filters["tone"] = lambda word: _TONES.get(str(word), "plain")
    made.filters["lasting"] = lasting
    return made


def render(template: str, **values: Any) -> str:
    """One page, or a part of one."""
    return _templates().get_template(template).render(**values)


def prepare(*templates: str) -> None:
    """Have templates ready: to read one takes longer than to fill in a hundred rows."""
    for template in templates:
        _templates().get_template(template)


@functools.cache
def _row_template() -> Callable[..., str]:
    macro: Callable[..., str] = _templates().get_template("rows.html").module.row  # type: ignore[attr-defined]
    return macro


def row_html(row: Row, base: str) -> str:
    """One line of the Fleet page."""
    return str(_row_template()(row, base))


def counts_html(rows: Iterable[Row]) -> str:
    """How many models there are of each level."""
    return render("counts.html", counts=fleet.counts(rows))
