"""What one model costs its store and the API server; docs/cost.md tells it."""

from __future__ import annotations

from bench import cost_api, cost_store, record
from demo.console import say


def run(seconds: float, only: str | None) -> None:
    """Measure, print, and keep the figures when all were measured.

    Args:
        seconds: for how long each thing at rest is looked at.
        only: ``stores`` or ``api``, and keep nothing.

    Raises:
        OutcomeError: something never happened that has to.
        ClusterError: a part does not run.
    """
    figures: dict[str, object] = {}
    if only != "api":
        figures["stores"] = cost_store.run(seconds)
    if only != "stores":
        figures["api_server"] = cost_api.run(seconds)
    if only is None:
        say(f"written to bench/results/{record.write('cost', figures).name}")
