"""What the pages of one model show, as HTML."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from kubectl_inferencemodel import comparison
from kubectl_inferencemodel.console import fleet, offers, timeline
from kubectl_inferencemodel.console.pages import render
from kubectl_inferencemodel.explanation import explain
from kubectl_inferencemodel.picture import picture

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from kubectl_inferencemodel.comparison import Comparison
    from kubectl_inferencemodel.console.feed import Passed
    from kubectl_inferencemodel.resource import Event, InferenceModel, Pod
    from model_poller.status import PollerStatus

_EVENTS: Final = 50
_PODS: Final = 200
SECTIONS: Final = ("summary", "rollout", "actions", "timeline", "pods", "events")
"""What of a model's page is kept up to date, by the elements' ids."""


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
