"""A rollout as people and programs see it: once, or for as long as it goes on."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Final

import msgspec
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from kubectl_inferencemodel import output
from kubectl_inferencemodel.arrival import Outcome
from kubectl_inferencemodel.display import NONE, add, moment, number, styled, table
from kubectl_inferencemodel.errors import UnavailableError
from kubectl_inferencemodel.picture import Picture, StepState, picture

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import RenderableType
    from rich.table import Table

    from kubectl_inferencemodel.cluster import Cluster
    from kubectl_inferencemodel.picture import Reports

LOOK_SECONDS: Final = 1.0
"""The pause between two looks."""
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


class Watching:
    """Shows a rollout until it has ended; where none is in progress, the next one."""

    def __init__(self, cluster: Cluster, reports: Reports, name: str) -> None:
        self._cluster = cluster
        self._reports = reports
        self._name = name
        self._told: object = None

    def run(self, *, as_json: bool) -> Picture:
        """Show it.

        Returns:
            The last view.
        """
        console = Console(highlight=False)
        if as_json or not console.is_terminal:
            return self._follow(self._tell_json if as_json else self._tell)
        with Live(console=console, auto_refresh=False) as live:
            return self._follow(lambda found: live.update(render(found), refresh=True))

    def _follow(self, tell: Callable[[Picture], None]) -> Picture:
        first: Picture | None = None
        failures = 0
        while True:
            try:
                model, pods = self._cluster.model(self._name), self._cluster.all_pods(self._name)
                failures = 0
            except UnavailableError as error:
                if first is None:
                    raise
                failures += 1
                output.tell(str(error))
                time.sleep(LOOK_SECONDS * 2 ** min(failures, 4))
                continue
            found = picture(model, pods, self._reports.of(pods, model.status.model.target_version))
            first = first or found
            tell(found)
            if model.running is None and _is_new(first, found):
                return found
            time.sleep(LOOK_SECONDS)

    def _tell(self, found: Picture) -> None:
        if found.summary != self._told:
            self._told = found.summary
            output.write(output.line(found.summary) + "\n")

    def _tell_json(self, found: Picture) -> None:
        if found != self._told:
            self._told = found
            output.write(json.dumps(_for_programs(found), ensure_ascii=False) + "\n")


def _is_new(first: Picture, last: Picture) -> bool:
    """Whether a rollout that has ended did so under our eyes."""
    before, now = first.rollout, last.rollout
    if now is None:
        return False
    return before is None or before.end_time is None or before.start_time != now.start_time
