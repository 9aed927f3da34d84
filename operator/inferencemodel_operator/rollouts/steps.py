"""How many replicas have a version in which step, and which of them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from inferencemodel_operator.record import PlannedStep, ToldPod
from inferencemodel_operator.rollouts.fleet import is_fetching, loads_others

if TYPE_CHECKING:
    from collections.abc import Collection

    from inferencemodel_operator.record import RolloutRecord
    from inferencemodel_operator.rollouts.fleet import Fleet
    from inferencemodel_operator.spec import Rollout


def steps_of(rollout: Rollout) -> tuple[PlannedStep, ...]:
    """The steps of the spec, with the one that it implies at the end."""
    asked = tuple(
        PlannedStep(
            str(step.replicas),
            float(step.pause.duration or 0) if step.pause else 0.0,
            until_promoted=step.pause is not None and step.pause.duration is None,
        )
        for step in rollout.steps
    )
    return asked if asked and asked[-1].replicas == "100%" else (*asked, PlannedStep("100%"))


def count(step: PlannedStep, wanted: int, *, last: bool) -> int:
    """How many replicas have the version in a step.

    All in the last one; before it, one is left with the version before where there are two.
    """
    if last:
        return wanted
    text = step.replicas
    part = math.ceil(wanted * int(text[:-1]) / 100) if text.endswith("%") else int(text)
    return max(0, min(part, max(wanted - 1, 1), wanted))


def choice(
    fleet: Fleet,
    current: RolloutRecord,
    told: Collection[str],
    room: int,
    *,
    among: Collection[str] | None = None,
) -> list[ToldPod]:
    """Who is told of the version next.

    Who was told before an operator's end comes first; then those that would have it soonest, spread
    over nodes.

    Args:
        fleet: the replicas.
        current: the rollout.
        told: the uids of those that are told already.
        room: how many more there may be.
        among: the uids of those that it may be; None for those that serve.
    """
    nodes = [r.node for r in fleet.replicas if r.uid in told]
    expected = (current.version, current.from_version, current.carried)
    whole = {r.uid for r in fleet.replicas if fleet.has(r, current)}
    free = [r for r in fleet.replicas if r.uid and r.uid not in told and r.report is not None]
    if not current.is_last_step:
        # One that can't fetch the version, or doesn't serve, tells nothing soon.
        anybody = any(r.ready for r in fleet.replicas)
        ready = [r for r in free if (r.ready or not anybody if among is None else r.uid in among)]
        free = [r for r in ready if r.uid in whole]
        if all(loads_others(r, current.version) for r in free) and any(
            is_fetching(r, current.version) and not loads_others(r, current.version) for r in ready
        ):
            # Soon one has it that has a thread to load it, too. A fetch has deadlines of its own.
            return []
    chosen: list[ToldPod] = []
    while free and len(chosen) < room:
        best = min(
            free,
            key=lambda r: (
                r.report is None or r.report.target != current.version,
                r.uid not in current.carrying,
                # One that answers with what nobody has told it tells nothing of this version.
                r.answer not in expected,
                loads_others(r, current.version),
                r.uid not in whole,
                not r.current,
                nodes.count(r.node),
                r.name,
            ),
        )
        free.remove(best)
        nodes.append(best.node)
        chosen.append(ToldPod(best.uid, best.restarts))
    return chosen
