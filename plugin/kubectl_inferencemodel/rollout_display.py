"""A rollout as people and programs see it: once, or for as long as it goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
from rich.console import Group
from rich.text import Text

from kubectl_inferencemodel import output
from kubectl_inferencemodel.arrival import Outcome
from kubectl_inferencemodel.display import add, number, styled, table
from kubectl_inferencemodel.output import NONE, moment
from kubectl_inferencemodel.picture import Picture, StepState, picture
from kubectl_inferencemodel.watching import Form, Screen, polled

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from kubectl_inferencemodel.cluster import Cluster
    from kubectl_inferencemodel.picture import Reports

_STYLES: Final = {Outcome.ARRIVED: "green", Outcome.WAITING: "yellow", Outcome.HOPELESS: "red"}
_MARKS: Final = {
    StepState.DONE: ("✔", "green"),
    StepState.NOW: ("▶", "yellow"),
    StepState.AHEAD: ("·", ""),
    StepState.LEFT: ("✖", "red"),
}


def show(found: Picture, *, as_json: bool) -> None:
    """Print one view."""
    if as_json:
        output.show_json(_for_programs(found))
    else:
        output.show(render(found))


def render(found: Picture) -> RenderableType:
    """One view for people."""
    parts: list[RenderableType] = [_head(found)]
    rollout = found.rollout
    if rollout is not None and rollout.message:
        parts.append(Text(output.plain(rollout.message), style=_STYLES[found.outcome]))
    if found.steps:
        parts += ["", _steps(found)]
    if rollout is not None and rollout.checks:
        parts += ["", _checks(found)]
    if found.replicas:
        parts += ["", _replicas(found)]
    return Group(*parts)


def _head(found: Picture) -> Text:
    rollout = found.rollout
    if rollout is None:
        return Text(output.plain(f"{found.name}: no rollout yet; {found.summary}"))
    came = "" if rollout.from_version is None else f" (from {rollout.from_version})"
    head = Text(output.plain(f"{found.name}: version {rollout.version}{came} "), style="bold")
    head.append(styled(rollout.phase))
    since = rollout.end_time or rollout.step_started_time or rollout.start_time
    return head.append(f" since {moment(since)}", style="")


def _steps(found: Picture) -> Table:
    shown = table("STEP", "REPLICAS", "THEN", "")
    rollout = found.rollout
    for step in found.steps:
        mark, style = _MARKS[step.state]
        replicas = "all" if step.replicas == "100%" else step.replicas or NONE
        then = "until promoted" if step.pause == "promote" else step.pause
        now = ""
        if step.state is StepState.NOW and rollout is not None:
            on, wanted = rollout.replicas_on or 0, rollout.replicas_wanted or 0
            now = f"{on} of {wanted} replicas answer with it"
        add(shown, Text(f"{mark} {step.step}", style=style), replicas, then, now)
    return shown


def _checks(found: Picture) -> Table:
    shown = table("CHECK", "RESULT", "AT", "")
    for check in found.rollout.checks if found.rollout else ():
        add(shown, check.name, styled(check.result), moment(check.time), check.message)
    return shown


def _replicas(found: Picture) -> Table:
    shown = table("REPLICA", "READY", "TOLD", "ANSWERS", "")
    for replica in found.replicas:
        is_on = found.rollout is not None and replica.answers == found.rollout.version
        answers = Text(number(replica.answers), style="cyan" if is_on else "")
        ready = "rehearses" if replica.rehearsal else styled(str(replica.ready))
        add(shown, replica.pod, ready, number(replica.told), answers, replica.note)
    return shown


def _for_programs(found: Picture) -> dict[str, object]:
    told: dict[str, object] = msgspec.to_builtins(found)
    return {**told, "outcome": found.outcome.name.capitalize()}


FORM: Final = Form[Picture](
    render=render,
    lines=lambda found: {found.name: found.summary},
    objects=lambda found: {found.name: _for_programs(found)},
)


class Watching:
    """Shows a rollout until it has ended; where none is in progress, the next one."""

    def __init__(self, cluster: Cluster, reports: Reports, name: str) -> None:
        self._cluster = cluster
        self._reports = reports
        self._name = name
        self._first: Picture | None = None
        self._is_running = False

    def run(self, *, as_json: bool) -> Picture:
        """Show it.

        Returns:
            The last view.
        """
        with Screen(FORM, as_json=as_json) as screen:
            return polled(self._look, screen, self._has_ended)

    def _look(self) -> Picture:
        model, pods = self._cluster.model(self._name), self._cluster.all_pods(self._name)
        self._is_running = model.running is not None
        return picture(model, pods, self._reports.of(pods, model.status.model.target_version))

    def _has_ended(self, found: Picture) -> bool:
        self._first = self._first or found
        return not self._is_running and _is_new(self._first, found)


def _is_new(first: Picture, last: Picture) -> bool:
    """Whether a rollout that has ended did so under our eyes."""
    before, now = first.rollout, last.rollout
    if now is None:
        return False
    return before is None or before.end_time is None or before.start_time != now.start_time
