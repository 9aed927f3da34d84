"""What an action is about, and what becomes of it."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from kubectl_inferencemodel import actions
from kubectl_inferencemodel.actions import ANNOTATIONS, Action, Asked
from kubectl_inferencemodel.arrival import Outcome
from kubectl_inferencemodel.errors import RefusedError
from kubectl_inferencemodel.resource import Event, InferenceModel, ManagedFields, Metadata
from tests.unit.plugin.views import arriving, model, rollout

RUNNING = ["Checking", "Rehearsing", "Progressing", "Paused", "Baking"]
ON_A_ROLLOUT = [Action.PROMOTE, Action.PROMOTE_FULL, Action.ABORT, Action.APPROVE]
FAILED = [
    {"version": 3, "reason": "GoldenMismatch", "message": "record 1"},
    {"version": 1, "reason": "LoadFailed", "message": "no op Foo"},
]
NOW = datetime(2026, 1, 1, 14, 32, tzinfo=UTC)


def rolling(phase: str, **differences: Any) -> InferenceModel:
    return model(**arriving(3, "Available", 1), rollout=rollout(phase, **differences))


def annotated(seen: InferenceModel, asked: Asked) -> InferenceModel:
    metadata = msgspec.structs.replace(
        seen.metadata, annotations={ANNOTATIONS[asked.action]: str(asked.version)}
    )
    return msgspec.structs.replace(seen, metadata=metadata)


@pytest.mark.parametrize("phase", RUNNING)
@pytest.mark.parametrize("action", ON_A_ROLLOUT)
def test_an_action_is_about_the_version_that_is_being_rolled_out(
    action: Action, phase: str
) -> None:
    seen = rolling(phase)
    assert actions.choose(seen, action, None) == Asked(action, 3)
    assert actions.choose(seen, action, 3).change == {
        "metadata": {"annotations": {f"inferencemodel.dev/{ANNOTATION_NAMES[action]}": "3"}}
    }


ANNOTATION_NAMES = {
    Action.PROMOTE: "promote",
    Action.PROMOTE_FULL: "promote-full",
    Action.ABORT: "abort",
    Action.APPROVE: "approve",
}


@pytest.mark.parametrize("action", ON_A_ROLLOUT)
@pytest.mark.parametrize(
    ("seen", "version", "words"),
    [
        (model(), None, "nothing of imagenet is being rolled out: version 2 answers"),
        (rolling("Completed"), None, "nothing of imagenet is being rolled out: version 3: step 1"),
        (rolling("RolledBack", message="wrong answers"), None, "RolledBack: wrong answers"),
        (rolling("Paused"), 4, "version 4 of imagenet is not being rolled out, version 3 is"),
        (rolling("RollingBack", message="no"), 3, "version 3 of imagenet is being taken back"),
        (model(spec={"suspend": True}), None, "imagenet is suspended"),
    ],
)
def test_where_there_is_nothing_to_act_on_it_says_what_there_is(
    action: Action, seen: InferenceModel, version: int | None, words: str
) -> None:
    with pytest.raises(RefusedError, match=words):
        actions.choose(seen, action, version)


def test_a_retry_is_about_the_newest_quarantined_version_or_the_one_that_is_named() -> None:
    seen = model(quarantined=FAILED)
    assert actions.choose(seen, Action.RETRY, None).version == 3
    assert actions.choose(seen, Action.RETRY, 1).version == 1
    with pytest.raises(RefusedError, match="version 2 of imagenet is not quarantined; those are"):
        actions.choose(seen, Action.RETRY, 2)
    with pytest.raises(RefusedError, match="no version of imagenet is quarantined"):
        actions.choose(model(), Action.RETRY, None)


@pytest.mark.parametrize("action", ON_A_ROLLOUT)
def test_an_action_is_waited_for_until_the_operator_has_taken_it(action: Action) -> None:
    before, asked = rolling("Paused"), Asked(action, 3)
    waiting = actions.became(asked, before, annotated(before, asked))
    assert waiting.outcome is Outcome.WAITING
    assert "not taken it yet" in waiting.message
    assert actions.became(asked, before, before).message == actions.TAKEN


def test_a_promotion_shows_in_the_next_step() -> None:
    then = rolling("Paused")
    seen = rolling("Progressing", step=2, replicasWanted=3)
    for action in (Action.PROMOTE, Action.PROMOTE_FULL, Action.APPROVE):
        became = actions.became(Asked(action, 3), then, seen)
        assert became.outcome is Outcome.ARRIVED
        assert became.message == (
            "version 3: step 2 of 2, 1 of 3 replicas answer with it, Progressing"
        )


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (rolling("RollingBack", message="NaN"), "version 3 is taken back: .* RollingBack: NaN"),
        (model(quarantined=FAILED), "version 3 is taken back"),
        (rolling("Superseded", message="another URI"), "version 3 is superseded: another URI"),
        (
            model(**arriving(4, "Fetched"), rollout=rollout("Checking", version=4)),
            "version 3 has been superseded: version 4",
        ),
    ],
)
def test_a_promotion_that_comes_too_late_says_so(seen: InferenceModel, words: str) -> None:
    became = actions.became(Asked(Action.PROMOTE, 3), rolling("Paused"), seen)
    assert became.outcome is Outcome.HOPELESS
    assert re.search(words, became.message)


@pytest.mark.parametrize(
    "seen",
    [rolling("RollingBack"), rolling("RolledBack"), model(quarantined=FAILED)],
    ids=["on its way", "done", "quarantined"],
)
def test_an_abort_shows_as_a_version_that_is_taken_back(seen: InferenceModel) -> None:
    became = actions.became(Asked(Action.ABORT, 3), rolling("Baking"), seen)
    assert became.outcome is Outcome.ARRIVED
    assert became.message.startswith("version 3 is taken back")


def test_a_retry_shows_when_the_version_is_quarantined_no_more() -> None:
    before = model(quarantined=FAILED, rollout=rollout("RolledBack"))
    asked = Asked(Action.RETRY, 3)
    assert actions.became(asked, before, before).outcome is Outcome.WAITING
    again = model(rollout=rollout("Superseded", message="it is tried again"))
    assert actions.became(asked, before, again).outcome is Outcome.ARRIVED


def test_an_action_that_the_operator_dropped_is_told_by_the_event_that_names_it() -> None:
    def event(message: str, time: datetime) -> Event:
        return Event(message=message, last_timestamp=time)

    asked = Asked(Action.PROMOTE, 3)
    why = "inferencemodel.dev/promote: no rollout of version 3 is in progress"
    others = [
        event(why.replace("3", "33"), NOW),
        event(why.replace("promote", "promote-full"), NOW),
        event(why, NOW - timedelta(hours=1)),
        Event(message=why),
    ]
    assert actions.dropped(asked, others, since=NOW - timedelta(seconds=30)) == ""
    assert actions.dropped(asked, [*others, event(why, NOW)], since=NOW) == why


def test_rollouts_that_stand_still_are_told_once_the_operator_has_looked() -> None:
    assert actions.pausing(paused=True) == {"spec": {"rollout": {"paused": True}}}
    # Nothing is left that a repository would not know of.
    assert actions.pausing(paused=False) == {"spec": {"rollout": {"paused": None}}}
    assert actions.stands(model(generation=3), paused=True).outcome is Outcome.WAITING
    assert actions.stands(model(), paused=True).message == (
        "rollouts stand still; none is in progress"
    )
    seen = actions.stands(rolling("Paused", message="spec.rollout.paused is true"), paused=True)
    assert seen.outcome is Outcome.ARRIVED
    assert "paused is true" in seen.message


@pytest.mark.parametrize(
    ("manager", "operation", "field", "told"),
    [
        ("argocd-controller", "Apply", "f:paused", "argocd-controller"),
        ("flux", "Apply", "f:paused", "flux"),
        ("kubectl-client-side-apply", "Update", "f:paused", "kubectl-client-side-apply"),
        ("kubectl-patch", "Update", "f:paused", None),
        ("argocd-controller", "Apply", "f:steps", None),
    ],
)
def test_who_declares_the_field_is_named(
    manager: str, operation: str, field: str, told: str | None
) -> None:
    fields: dict[str, Any] = {"f:spec": {"f:rollout": {field: {}}}}
    entries = (
        ManagedFields(manager, operation, fields),
        ManagedFields("other", "Apply", {"f:spec": []}),
    )
    seen = InferenceModel(Metadata("imagenet", managed_fields=entries))
    assert actions.declared_by(seen) == told
