"""What somebody asks of a rollout, by annotations of the InferenceModel; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from inferencemodel_operator import bounds, names
from inferencemodel_operator.conditions import Reason
from inferencemodel_operator.record import Phase
from inferencemodel_operator.rollouts.situation import Dropped

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from inferencemodel_operator.record import RolloutRecord


def asked(actions: Mapping[str, str], annotation: str) -> int | None:
    """The version that an annotation names; None for none."""
    return bounds.number(actions.get(annotation, ""))


def act(
    actions: Mapping[str, str],
    run: RolloutRecord | None,
    done: Collection[str],
    last: RolloutRecord | None,
) -> tuple[RolloutRecord | None, list[str], list[Dropped]]:
    """Do what is asked of the rollout that runs.

    Args:
        actions: the annotations and their texts.
        run: the rollout; None when none runs.
        done: annotations that somebody else has seen to.
        last: the rollout that runs or ran last.

    Returns:
        The rollout as it is then, the annotations that have been read, and those that meant
        nothing.
    """
    read: list[str] = []
    dropped: list[Dropped] = []
    for annotation in names.ACTION_ANNOTATIONS:
        text = actions.get(annotation)
        if text is None or annotation in done:
            continue
        read.append(annotation)
        is_live = run is not None and run.phase is not Phase.ROLLING_BACK
        if run is None or not is_live or bounds.number(text) != run.version:
            if not _is_done(annotation, text, last):
                dropped.append(Dropped(annotation, _why_dropped(annotation, text)))
            continue
        match annotation:
            case names.APPROVE_ANNOTATION:
                run = replace(run, approved=True)
            case names.PROMOTE_ANNOTATION if not run.promotion_read:
                run = replace(run, promoted=True, promotion_read=True)
            case names.PROMOTE_FULL_ANNOTATION:
                run = replace(run, full=True)
    if run is not None and names.PROMOTE_ANNOTATION not in actions:
        run = replace(run, promotion_read=False)
    return run, read, dropped


def _is_done(annotation: str, text: str, last: RolloutRecord | None) -> bool:
    """Whether it was done before, and the annotation is still to be taken away: the operator was
    ended in between, say, or somebody else changed the InferenceModel."""
    if last is None or bounds.number(text) != last.version:
        return False
    if annotation == names.ABORT_ANNOTATION:
        return last.phase is Phase.ROLLED_BACK and last.reason == Reason.ABORTED
    return annotation == names.RETRY_ANNOTATION and bool(last.retry)


def _why_dropped(annotation: str, text: str) -> str:
    value = bounds.text(text, 50)
    if bounds.number(text) is None:
        return f"{annotation}: {value!r} is no version number"
    if annotation == names.RETRY_ANNOTATION:
        return f"{annotation}: version {value} is not quarantined"
    return f"{annotation}: no rollout of version {value} is in progress"
