"""What the Fleet page says of one InferenceModel. Pure: from what the API server says."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Final

import msgspec

from kubectl_inferencemodel import output
from kubectl_inferencemodel.explanation import explain, settled, waits_for

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kubectl_inferencemodel.following import Key
    from kubectl_inferencemodel.resource import InferenceModel

_TEXT: Final = 300
"""Characters of what is said of one model."""
_SHARES: Final = 6
"""So many versions have a part of a bar."""


class Level(IntEnum):
    """How urgent it is to look at a model; the most urgent first."""

    TROUBLE = 0
    """It doesn't heal by waiting, or is being taken back."""
    ASKS = 1
    """Somebody has to decide."""
    CHANGING = 2
    """It is on its way."""
    UNKNOWN = 3
    """The operator has told nothing yet."""
    SUSPENDED = 4
    FINE = 5


WORDS: Final = {
    Level.TROUBLE: "Trouble",
    Level.ASKS: "Waits for you",
    Level.CHANGING: "Changing",
    Level.UNKNOWN: "No word yet",
    Level.SUSPENDED: "Suspended",
    Level.FINE: "Serving",
}


class Share(msgspec.Struct, frozen=True):
    """So many replicas answer with a version."""

    version: int | None
    """None for those that answer with none."""
    replicas: int
    role: str
    """``active``, ``target``, ``other`` or ``missing``."""
    start: float
    """Where its part of the bar begins, in percent."""
    width: float
    """In percent."""


class Row(msgspec.Struct, frozen=True):
    """One InferenceModel in one line."""

    namespace: str
    name: str
    level: Level
    version: int | None
    """The one that answers."""
    target: int | None
    """The one that is wanted, where it is another."""
    shares: tuple[Share, ...]
    replicas: str
    """Ready ones of all, such as ``2/3``."""
    phase: str
    """Of the rollout that runs; empty where none does."""
    step: int
    steps: int
    says: str
    """What it waits for, or why it is in trouble, in words."""

    @property
    def key(self) -> Key:
        """Namespace and name."""
        return self.namespace, self.name

    @property
    def word(self) -> str:
        """The level, in words."""
        return WORDS[self.level]

    @property
    def bar(self) -> str:
        """The bar's parts, in words."""
        told = [
            f"version {share.version} on {share.replicas}"
            if share.version is not None
            else f"{share.replicas} without a version"
            for share in self.shares
        ]
        return ", ".join(told) or "no replicas"

    @property
    def order(self) -> tuple[int, str, str]:
        """Where it stands in the list: errors first."""
        return int(self.level), self.namespace, self.name


def row(model: InferenceModel) -> Row:
    """One InferenceModel in one line."""
    of, running, found = model.status.model, model.running, level(model)
    return Row(
        namespace=model.metadata.namespace,
        name=model.metadata.name,
        level=found,
        version=of.active_version,
        target=of.target_version if of.target_version != of.active_version else None,
        shares=shares(model),
        replicas=model.status.replica_summary,
        phase="" if running is None else running.phase,
        step=0 if running is None else running.step,
        steps=0 if running is None else running.steps,
        says=bounded(_says(model, found)),
    )


def level(model: InferenceModel) -> Level:
    """How urgent it is to look at a model."""
    of, running = model.status.model, model.running
    if not model.status.conditions:
        return Level.UNKNOWN
    if model.spec.suspend:
        return Level.SUSPENDED
    ready, source = model.condition("Ready"), model.condition("SourceReady")
    in_trouble = (
        model.is_true("Stalled")
        or of.transition_status in ("BlockedByFailedLoad", "Unknown")
        or (running is not None and running.phase == "RollingBack")
        or (source is not None and source.status == "False")
        or (ready is not None and ready.status == "False" and not model.is_true("Reconciling"))
    )
    if in_trouble:
        return Level.TROUBLE
    if model.is_true("RolloutPaused") or (running is not None and running.phase == "Paused"):
        return Level.ASKS
    if running is None and settled(model):
        return Level.FINE
    return Level.CHANGING


def shares(model: InferenceModel) -> tuple[Share, ...]:
    """How many replicas answer with which version, as parts of a bar."""
    of = model.status.model
    served = [(v.version, v.replicas) for v in of.versions if v.replicas > 0][:_SHARES]
    there = sum(count for _, count in served)
    missing = max(_wanted(model) - there, 0)
    parts = [
        (version, count, _role(version, of.active_version, of.target_version))
        for version, count in sorted(served, reverse=True)
    ]
    whole = there + missing
    found, start = [], 0.0
    for version, count, role in [*parts, *([(None, missing, "missing")] if missing else [])]:
        width = 100 * count / whole
        found.append(Share(version, count, role, round(start, 2), round(width, 2)))
        start += width
    return tuple(found)


def counts(rows: Iterable[Row]) -> dict[Level, int]:
    """How many models there are of each level, those that are there."""
    found: dict[Level, int] = {}
    for each in rows:
        found[each.level] = found.get(each.level, 0) + 1
    return dict(sorted(found.items()))


def bounded(text: str, limit: int = _TEXT) -> str:
    """A text as one line of at most so many characters."""
    line = output.line(text[: 4 * limit])
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def _wanted(model: InferenceModel) -> int:
    text = model.status.replica_summary.partition("/")[2]
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 7 else 0


def _role(version: int, active: int | None, target: int | None) -> str:
    if version == active:
        return "active"
    return "target" if version == target else "other"


def _says(model: InferenceModel, found: Level) -> str:
    if found is Level.UNKNOWN:
        return "the operator has told nothing yet"
    if found is Level.FINE:
        return ""
    if found is Level.TROUBLE:
        findings = explain(model, ()).findings
        if findings:
            return findings[0].message
    return waits_for(model).removeprefix("it waits for ")
