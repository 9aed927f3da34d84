"""One line of the Fleet page."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from kubectl_inferencemodel.console.fleet import Level, bounded, counts, level, row, shares
from tests.unit.plugin.views import arriving, model, rollout

BAD = {"Ready": ("False", "ImagePullFailed", "no image")}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (model(), Level.FINE),
        (model(conditions={"Stalled": ("True", "LoadFailed", "it fails")}), Level.TROUBLE),
        (model(conditions={"SourceReady": ("False", "AccessDenied", "no")}), Level.TROUBLE),
        (model(conditions=BAD), Level.TROUBLE),
        (model(conditions={**BAD, "Reconciling": ("True", "Some", "")}), Level.CHANGING),
        (model(transitionStatus="BlockedByFailedLoad"), Level.TROUBLE),
        (model(rollout=rollout("RollingBack")), Level.TROUBLE),
        (model(rollout=rollout("Paused")), Level.ASKS),
        (model(conditions={"RolloutPaused": ("True", "RolloutPaused", "")}), Level.ASKS),
        (model(rollout=rollout("Progressing"), **arriving(3, "Loading")), Level.CHANGING),
        (model(rollout=rollout("Baking")), Level.CHANGING),
        (model(rollout=rollout("Completed")), Level.FINE),
        (model(observed=1), Level.CHANGING),
        (model(spec={"suspend": True}, conditions=BAD), Level.SUSPENDED),
        (model(status={"conditions": []}), Level.UNKNOWN),
    ],
)
def test_what_somebody_has_to_look_at_comes_first(found: Any, expected: Level) -> None:
    assert level(found) is expected


def test_rows_stand_with_errors_first_and_then_by_name() -> None:
    rows = [
        msgspec.structs.replace(row(model()), namespace=namespace, name=name, level=of)
        for namespace, name, of in (
            ("b", "x", Level.FINE),
            ("a", "z", Level.FINE),
            ("z", "z", Level.TROUBLE),
            ("a", "y", Level.FINE),
        )
    ]
    found = sorted(rows, key=lambda each: each.order)
    assert [each.key for each in found] == [("z", "z"), ("a", "y"), ("a", "z"), ("b", "x")]
    assert counts(rows) == {Level.TROUBLE: 1, Level.FINE: 3}


def test_the_bar_has_a_part_for_each_version_and_for_those_without() -> None:
    found = shares(model(status={"replicaSummary": "3/4"}, **arriving(3, "Loading", replicas=1)))
    assert [(s.version, s.replicas, s.role) for s in found] == [
        (3, 1, "target"),
        (2, 2, "active"),
        (None, 1, "missing"),
    ]
    assert [s.width for s in found] == [25, 50, 25]
    assert [s.start for s in found] == [0, 25, 75]


def test_a_model_without_replicas_has_an_empty_bar() -> None:
    found = row(model(status={"replicaSummary": "0/0"}, versions=[]))
    assert found.shares == ()
    assert found.bar == "no replicas"


def test_a_row_names_the_target_only_on_the_way_to_it() -> None:
    assert row(model()).target is None
    on = row(model(rollout=rollout("Progressing"), **arriving(3, "Loading", 1)))
    assert (on.version, on.target, on.phase, on.step, on.steps) == (2, 3, "Progressing", 1, 2)


def test_a_row_says_what_is_wrong_or_what_is_waited_for() -> None:
    assert row(model()).says == ""
    stalled = model(conditions={"Stalled": ("True", "LoadFailed", "version 3 can't be loaded")})
    assert row(stalled).says == "version 3 can't be loaded"
    going = {"Reconciling": ("True", "ChangingVersion", "version 3 is on its way")}
    on_its_way = row(model(conditions=going, **arriving(3, "Fetching")))
    assert on_its_way.says == "version 3, which is being fetched"
    assert row(model(spec={"suspend": True})).says.startswith("it is suspended")


def test_texts_are_one_line_of_a_bounded_length() -> None:
    assert bounded("a\nb\x1b[31m") == "a b�[31m"
    assert len(bounded("x" * 10_000)) == 300
    says = row(model(conditions={"Stalled": ("True", "X", "y" * 50_000)})).says
    assert len(says) == 300
