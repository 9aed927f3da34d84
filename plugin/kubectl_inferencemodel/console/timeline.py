"""The versions of a model one after the other: how long each took, and why one failed. Pure."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003  # msgspec reads the annotations
from typing import TYPE_CHECKING

import msgspec

from inferencemodel_operator import durations

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kubectl_inferencemodel.console.feed import Passed
    from kubectl_inferencemodel.resource import InferenceModel


class Moment(msgspec.Struct, frozen=True):
    """Something that happened in a rollout."""

    time: datetime
    what: str
    result: str = ""
    """A word of a closed set, such as a check's result; empty where it has none."""
    message: str = ""
    took: str = ""
    """Until the next moment, such as ``1m30s``; empty for the last one."""


class Entry(msgspec.Struct, frozen=True):
    """A version that was the target, or was tried."""

    version: int
    result: str
    start: datetime | None
    took: str
    """From the decision to the last replica; empty while it isn't everywhere."""
    served: str = ""
    """How long it was the one that answers; empty where that isn't over."""
    why: str = ""
    moments: tuple[Moment, ...] = ()


class Known(msgspec.Struct, frozen=True):
    """A version that is somewhere."""

    version: int
    state: str
    replicas: int
    roles: tuple[str, ...]
    why: str = ""


def entries(model: InferenceModel, passed: Iterable[Passed] = ()) -> list[Entry]:
    """What became of each version, newest first; the rollout that runs at the top.

    Args:
        model: what the API server says.
        passed: the steps that were seen to begin.
    """
    of = model.status.model
    found = []
    rollout = of.rollout
    told = tuple(moments(model, passed))
    if rollout is not None and all(
        change.version != rollout.version or change.start_time < rollout.start_time
        for change in of.history
    ):
        end = rollout.end_time
        took = "" if end is None else _span(rollout.start_time, end)
        why = rollout.message if rollout.phase in ("RollingBack", "RolledBack") else ""
        found.append(Entry(rollout.version, rollout.phase, rollout.start_time, took, "", why, told))
        told = ()
    for change in of.history:
        over = change.active_time is not None and change.end_time is not None
        failed = model.quarantine_of(change.version)
        message = failed.message if failed is not None and change.reason else ""
        is_it = rollout is not None and change.version == rollout.version
        found.append(
            Entry(
                version=change.version,
                result=change.result or "Pending",
                start=change.start_time,
                took=change.duration,
                served=_span(change.active_time, change.end_time) if over else "",
                why=": ".join(part for part in (change.reason, message) if part),
                moments=told if is_it else (),
            )
        )
        if is_it:
            told = ()
    return found


def moments(model: InferenceModel, passed: Iterable[Passed] = ()) -> Iterator[Moment]:
    """What happened in the last rollout, in the order of time, each with how long it lasted."""
    rollout = model.status.model.rollout
    if rollout is None:
        return
    found = [Moment(rollout.start_time, "begun")]
    found += [
        Moment(check.time, f"check {check.name}", check.result, check.message)
        for check in rollout.checks
    ]
    seen = {
        step.step: step.since
        for step in passed
        if step.version == rollout.version and step.since >= rollout.start_time and step.step
    }
    if rollout.step and rollout.step_started_time is not None:
        seen[rollout.step] = rollout.step_started_time
    found += [Moment(since, f"step {step} of {rollout.steps}") for step, since in seen.items()]
    if rollout.end_time is not None:
        found.append(Moment(rollout.end_time, "ended", rollout.phase, rollout.message))
    found.sort(key=lambda moment: (moment.time, moment.what != "begun"))
    for moment, after in zip(found, [*found[1:], None], strict=True):
        took = "" if after is None else _span(moment.time, after.time)
        yield msgspec.structs.replace(moment, took=took)


def known(model: InferenceModel) -> list[Known]:
    """Every version that is known, and where it is."""
    of = model.status.model
    found = []
    for version in of.versions:
        roles = (
            ("active", of.active_version),
            ("target", of.target_version),
            ("pinned", model.spec.model.version),
            ("newest", of.latest_version),
        )
        failed = model.quarantine_of(version.version)
        found.append(
            Known(
                version.version,
                version.state,
                version.replicas,
                tuple(role for role, number in roles if number == version.version),
                f"{failed.reason}: {failed.message}" if failed is not None else "",
            )
        )
    listed = {version.version for version in of.versions}
    return found + [
        Known(failed.version, "Quarantined", 0, (), f"{failed.reason}: {failed.message}")
        for failed in of.quarantined
        if failed.version not in listed
    ]


def _span(begin: datetime | None, end: datetime | None) -> str:
    if begin is None or end is None:
        return ""
    return durations.text(max(round((end - begin).total_seconds()), 0))
