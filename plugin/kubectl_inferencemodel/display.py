"""What the commands print: tables for people. Pure: values in, rich's renderables out."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from rich.console import Group
from rich.table import Table
from rich.text import Text

from kubectl_inferencemodel.output import plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from kubectl_inferencemodel.explanation import Explanation
    from kubectl_inferencemodel.predictions import Label
    from kubectl_inferencemodel.resource import InferenceModel

NONE: Final = "-"
"""What isn't known, or isn't there."""
_STYLES: Final = {
    "True": "green",
    "False": "red",
    "UpToDate": "green",
    "InProgress": "yellow",
    "Pending": "yellow",
    "BlockedByFailedLoad": "red",
    "Unknown": "red",
    "Available": "green",
    "Quarantined": "red",
    "Active": "green",
    "Failed": "red",
    "Passed": "green",
    "Inconclusive": "yellow",
    "Checking": "yellow",
    "Rehearsing": "yellow",
    "Progressing": "yellow",
    "Paused": "yellow",
    "Baking": "yellow",
    "RollingBack": "red",
    "RolledBack": "red",
    "Completed": "green",
}
_BAR: Final = 20


def models(found: Sequence[InferenceModel], now: datetime, *, namespaces: bool) -> Table:
    """One line an InferenceModel: its versions, each with the replicas that answer with it."""
    shown = table(
        *("NAME", "VERSION", "TARGET", "READY", "REPLICAS", "STATUS", "ROLLOUT", "ANSWERING", "AGE")
    )
    if namespaces:
        shown = table("NAMESPACE", *(column.header for column in shown.columns))
    for model in found:
        of = model.status.model
        ready = model.condition("Ready")
        add(
            shown,
            *([model.metadata.namespace] if namespaces else []),
            model.metadata.name,
            number(of.active_version),
            number(of.target_version),
            styled(ready.status if ready else NONE),
            model.status.replica_summary or NONE,
            styled(of.transition_status or NONE),
            _rollout(model),
            answering(model),
            age(model.metadata.creation_timestamp, now),
        )
    return shown


def _rollout(model: InferenceModel) -> Text:
    """The phase of the rollout that runs, or how the last one ended: ``Paused 1/3``."""
    found = model.status.model.rollout
    if found is None:
        return Text(NONE)
    shown = styled(found.phase)
    if model.running is not None and found.step:
        shown.append(f" {found.step}/{found.steps}")
    return shown


def answering(model: InferenceModel) -> str:
    """Which version answers on how many replicas: ``v3 x2, v2 x1``."""
    served = [f"v{v.version} x{v.replicas}" for v in model.status.model.versions if v.replicas]
    return ", ".join(served) or NONE


def versions(model: InferenceModel) -> RenderableType:
    """Every version that is known, and how the last changes went."""
    of = model.status.model
    shown = table("VERSION", "STATE", "REPLICAS", "")
    for known in of.versions:
        roles = [
            role
            for role, version in (
                ("active", of.active_version),
                ("target", of.target_version),
                ("pinned", model.spec.model.version),
                ("newest", of.latest_version),
            )
            if version == known.version
        ]
        failed = model.quarantine_of(known.version)
        note = ", ".join(roles)
        if failed is not None:
            note = f"{failed.reason}: {failed.message}"
        add(shown, str(known.version), styled(known.state), str(known.replicas), note)
    listed = {known.version for known in of.versions}
    for failed in of.quarantined:
        if failed.version not in listed:
            note = f"{failed.reason}: {failed.message}"
            add(shown, str(failed.version), styled("Quarantined"), "0", note)
    if not of.history:
        return shown
    past = table("VERSION", "RESULT", "FROM", "TOOK", "")
    for change in of.history:
        add(
            past,
            str(change.version),
            styled(change.result or NONE),
            moment(change.start_time),
            change.duration or NONE,
            change.reason,
        )
    parts: list[RenderableType] = [shown, "", "The last changes:", past]
    last = of.last_failure
    if last is not None:
        where = f" on {last.pod}" if last.pod else ""
        words = f"version {last.version}{where}, {moment(last.time)}: {last.reason}"
        parts += ["", Text(plain(f"The last failure: {words}: {last.message}"))]
    return Group(*parts)


def explanation(found: Explanation) -> RenderableType:
    """The summary, and below it what is in the way."""
    summary = Text(plain(found.summary), style="green" if found.settled else "yellow")
    if not found.findings:
        return summary
    shown = table("ABOUT", "REASON", "IN WORDS")
    for finding in found.findings:
        add(shown, finding.about, finding.reason or NONE, finding.message)
    return Group(summary, "", shown)


def labels(found: Sequence[Label]) -> Table:
    """Labels with their probabilities, each with a bar."""
    shown = table("PROBABILITY", "LABEL", "")
    for label in found:
        bar = "█" * round(max(0.0, min(label.probability, 1.0)) * _BAR)
        add(shown, f"{label.probability:.3f}", label.label, Text(bar, style="cyan"))
    return shown


def age(since: datetime | None, now: datetime) -> str:
    """A time span as kubectl shows it: the largest unit only."""
    if since is None:
        return NONE
    span = max(now - since, timedelta())
    for unit, seconds in (("d", 86400), ("h", 3600), ("m", 60)):
        if span.total_seconds() >= seconds:
            return f"{int(span.total_seconds() // seconds)}{unit}"
    return f"{int(span.total_seconds())}s"


def moment(time: datetime | None) -> str:
    """A point in time, in UTC."""
    return NONE if time is None else f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}"


def number(version: int | None) -> str:
    """A version."""
    return NONE if version is None else str(version)


def styled(word: str) -> Text:
    """A word of a closed set, in its colour."""
    return Text(plain(word), style=_STYLES.get(word, ""))


def add(table: Table, *cells: str | Text) -> None:
    """Add a row."""
    # As texts, for a message may hold what rich would take for its markup.
    table.add_row(*(Text(plain(cell)) if isinstance(cell, str) else cell for cell in cells))


def table(*headers: object) -> Table:
    """A table without rows, and without lines."""
    made = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for header in headers:
        made.add_column(str(header), overflow="fold")
    return made
