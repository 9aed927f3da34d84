"""What the pages show, as HTML; everything is escaped where it is put in."""

from __future__ import annotations

import functools
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import jinja2

from inferencemodel_operator.durations import text as lasting
from kubectl_inferencemodel import comparison, display
from kubectl_inferencemodel.console import fleet, offers, timeline
from kubectl_inferencemodel.console.fleet import bounded
from kubectl_inferencemodel.explanation import explain
from kubectl_inferencemodel.picture import picture

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from kubectl_inferencemodel.comparison import Comparison
    from kubectl_inferencemodel.console.feed import Passed
    from kubectl_inferencemodel.console.fleet import Row
    from kubectl_inferencemodel.resource import Event, InferenceModel, Pod
    from model_poller.status import PollerStatus

STATIC: Final = Path(__file__).parent / "static"
_TEMPLATES: Final = Path(__file__).parent / "templates"
_EVENTS: Final = 50
_PODS: Final = 200
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
SECTIONS: Final = ("summary", "rollout", "actions", "timeline", "pods", "events")
"""What of a model's page is kept up to date, by the elements' ids."""


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
    made.filters["moment"] = display.moment
    made.filters["tone"] = lambda word: _TONES.get(str(word), "plain")
    made.filters["lasting"] = lasting
    return made


def render(template: str, **values: Any) -> str:
    """One page, or a part of one."""
    return _templates().get_template(template).render(**values)


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


def sections(
    model: InferenceModel,
    pods: Sequence[Pod],
    reports: Mapping[str, PollerStatus],
    events: Sequence[Event] | None,
    passed: Iterable[Passed],
    *,
    base: str,
) -> dict[str, str]:
    """The parts of a model's page that change, by their ids; ``events`` None where one may not."""
    shown = pods[:_PODS]
    view = picture(model, shown, reports)
    values = {
        "model": model,
        "row": fleet.row(model),
        "explanation": explain(model, shown, reports),
        "picture": view,
        "offers": offers.offers(model),
        "entries": timeline.entries(model, passed),
        "known": timeline.known(model),
        "pods": _pods(shown, view.replicas),
        "more_pods": len(pods) - len(shown),
        "events": None if events is None else _newest(events),
        "base": base,
        "at": f"{base}/models/{model.metadata.namespace}/{model.metadata.name}",
    }
    return {name: render(f"model/{name}.html", **values) for name in SECTIONS}


def _pods(pods: Sequence[Pod], replicas: Iterable[Any]) -> list[tuple[Pod, Any, int]]:
    """Each pod with what it answers, and how often its containers were restarted."""
    return [
        (pod, replica, sum(container.restart_count for container in pod.containers))
        for pod, replica in zip(pods, replicas, strict=True)
    ]


def _newest(events: Sequence[Event]) -> list[Event]:
    never = datetime.min.replace(tzinfo=UTC)
    return sorted(events, key=lambda event: event.time or never, reverse=True)[:_EVENTS]


def comparison_html(found: Comparison) -> str:
    """Two versions side by side."""
    return render("compared.html", found=found, rows=list(comparison.rows(found)))
