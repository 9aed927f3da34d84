"""What the commands print: tables for people. Pure: values in, rich's renderables out."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from rich.console import Group
from rich.table import Table
from rich.text import Text

from kubectl_inferencemodel.output import NONE, moment, plain

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import RenderableType

    from kubectl_inferencemodel.explanation import Explanation
    from kubectl_inferencemodel.predictions import Label
    from kubectl_inferencemodel.resource import InferenceModel

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
_SPACE: Final = "   "


def models(found: Sequence[InferenceModel], now: datetime, *, namespaces: bool) -> Table:
    """One line an InferenceModel: its versions, each with the replicas that answer with it."""
    shown = table(*_columns(namespaces=namespaces), "AGE")
    for model in found:
        age_ = age(model.metadata.creation_timestamp, now)
        add(shown, *_cells(model, namespaces=namespaces), age_)
    return shown


def fitting(
    found: Sequence[InferenceModel], now: datetime, room: int | None, *, namespaces: bool
) -> RenderableType:
    """As many of them as fit into so many lines, and how many there are beside those."""
    # The header, the line about the rest, one of reserve, and two about what is in the way.
    many = len(found) if room is None else max(room - 5, 1)
    shown = models(found[:many], now, namespaces=namespaces)
    if len(found) <= many:
        return shown
    return Group(shown, Text(f"and {len(found) - many} more", style="dim"))


def lines(found: Sequence[InferenceModel], *, namespaces: bool) -> dict[str, str]:
    """The same in a line each, by what it is about; the first one says what is in which place."""
    told = {"": _SPACE.join(_columns(namespaces=namespaces))}
    for model in found:
        cells = _cells(model, namespaces=namespaces)
        told[f"{model.metadata.namespace}/{model.metadata.name}"] = _SPACE.join(map(str, cells))
    return told


def _columns(*, namespaces: bool) -> list[str]:
    return [
        *(["NAMESPACE"] if namespaces else []),
        *("NAME", "VERSION", "TARGET", "READY", "REPLICAS", "STATUS", "ROLLOUT", "ANSWERING"),
    ]


def _cells(model: InferenceModel, *, namespaces: bool) -> list[str | Text]:
    of, ready = model.status.model, model.condition("Ready")
    return [
        *([model.metadata.namespace] if namespaces else []),
        model.metadata.name,
        number(of.active_version),
        number(of.target_version),
        styled(ready.status if ready else NONE),
        model.status.replica_summary or NONE,
        styled(of.transition_status or NONE),
        _rollout(model),
        answering(model),
    ]


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
    for version, state, replicas, note in _versions(model):
        add(shown, version, styled(state), replicas, note)
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


def version_lines(model: InferenceModel) -> dict[str, str]:
    """Each version in a line, by its number."""
    return {
        version: f"version {version}: {state}, {replicas} replicas" + (f": {note}" if note else "")
        for version, state, replicas, note in _versions(model)
    }


def _versions(model: InferenceModel) -> Iterator[tuple[str, str, str, str]]:
    """Each version with its state, its replicas, and what else is to be said of it."""
    of = model.status.model
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
        yield str(known.version), known.state, str(known.replicas), note
    listed = {known.version for known in of.versions}
    for failed in of.quarantined:
        if failed.version not in listed:
            yield str(failed.version), "Quarantined", "0", f"{failed.reason}: {failed.message}"


def explanation(found: Explanation) -> RenderableType:
    """The summary, and below it what is in the way."""
    summary = Text(plain(found.summary), style="green" if found.settled else "yellow")
    if not found.findings:
        return summary
    shown = table("ABOUT", "REASON", "IN WORDS")
    for finding in found.findings:
        add(shown, finding.about, finding.reason or NONE, finding.message)
    return Group(summary, "", shown)


def explanation_lines(found: Explanation) -> dict[str, str]:
    """The summary, and each thing that is in the way."""
    told = {"": found.summary}
    for finding in found.findings:
        line = ": ".join(filter(None, (finding.about, finding.reason, finding.message)))
        told[line] = line
    return told


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
