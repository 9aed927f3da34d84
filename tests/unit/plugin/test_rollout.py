"""A rollout as it is shown: recorded consoles, and what programs get."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

import pytest
from rich.console import Console

from inferencemodel_operator.names import REHEARSAL_LABEL
from kubectl_inferencemodel.arrival import Outcome
from kubectl_inferencemodel.picture import Picture, Reports, StepState, picture
from kubectl_inferencemodel.rollout_display import render, show
from model_poller.status import (
    PollerStatus,
    ServedVersion,
    SourceStatus,
    VersionState,
    VersionStatus,
)
from tests.unit.plugin.views import arriving, model, pod, rollout

if TYPE_CHECKING:
    from kubectl_inferencemodel.cluster import Cluster
    from kubectl_inferencemodel.resource import InferenceModel, Pod

STEPS = {
    "rollout": {
        "steps": [{"replicas": 1, "pause": {"duration": "5m"}}, {"replicas": "50%", "pause": {}}]
    }
}
CHECKS = [
    {"name": name, "result": result, "message": message, "time": "2026-01-01T14:31:02Z"}
    for name, result, message in (
        ("memory", "Passed", "1.2 GB of 4 GB"),
        ("golden", "Inconclusive", "no record carries an answer"),
    )
]


def lines(found: Picture) -> list[str]:
    console = Console(width=120, color_system=None)
    with console.capture() as captured:
        console.print(render(found))
    return [line.rstrip() for line in captured.get().splitlines()]


def report(answers: int | None = None, **loading: str) -> PollerStatus:
    served = () if answers is None else (ServedVersion(version=answers, state="AVAILABLE"),)
    versions = tuple(
        VersionStatus(version=int(number.removeprefix("v")), state=VersionState(state))
        for number, state in loading.items()
    )
    source = SourceStatus(uri="gs://models/imagenet")
    return PollerStatus(
        revision="1", model="imagenet", source=source, served=served, versions=versions
    )


def seen(
    phase: str,
    pods: tuple[Pod, ...] = (),
    reports: dict[str, PollerStatus] | None = None,
    **differences: Any,
) -> Picture:
    told: dict[str, Any] = {"steps": 3, **differences}
    going: InferenceModel = model(
        spec=dict(STEPS), **arriving(3, "Available", 1), rollout=rollout(phase, **told)
    )
    return picture(going, pods, reports or {})


def test_a_rollout_in_the_middle_shows_steps_checks_and_replicas() -> None:
    pods = (
        pod("imagenet-1", ready=True, told=3),
        pod("imagenet-2", ready=True, told=2),
        pod("imagenet-3", told=3, server={"state": {"waiting": {"reason": "CrashLoopBackOff"}}}),
    )
    reports = {"imagenet-1": report(3), "imagenet-2": report(2, v3="Fetched")}
    found = seen(
        "Paused",
        pods,
        reports,
        step=2,
        replicasWanted=2,
        message="step 2 of 3: promote or abort it",
        checks=CHECKS,
    )
    assert lines(found) == [
        "imagenet: version 3 (from 2) Paused since 2026-01-01 14:31:00Z",
        "step 2 of 3: promote or abort it",
        "",
        "STEP   REPLICAS   THEN",
        "✔ 1    1          5m",
        "▶ 2    50%        until promoted   1 of 2 replicas answer with it",
        "· 3    all",
        "",
        "CHECK    RESULT         AT",
        "memory   Passed         2026-01-01 14:31:02Z   1.2 GB of 4 GB",
        "golden   Inconclusive   2026-01-01 14:31:02Z   no record carries an answer",
        "",
        "REPLICA      READY   TOLD   ANSWERS",
        "imagenet-1   True    3      3",
        "imagenet-2   True    2      2",
        "imagenet-3   False   3      -         CrashLoopBackOff: container model-server",
    ]


def test_where_pollers_may_not_be_asked_it_shows_what_replicas_are_told() -> None:
    found = seen("Progressing", (pod("imagenet-1", ready=True, told=3),))
    assert lines(found)[-1] == "imagenet-1   True    3      -"


def test_a_replica_that_does_not_answer_yet_says_how_far_it_is() -> None:
    found = seen(
        "Progressing",
        (pod("imagenet-1", ready=True, told=3),),
        {"imagenet-1": report(2, v3="Published")},
    )
    assert "2         version 3 is about to be loaded by the model server" in lines(found)[-1]


def test_a_pod_that_rehearses_is_no_replica() -> None:
    rehearsing = pod("imagenet-rehearsal-3-1a", told=3, labels={REHEARSAL_LABEL: "imagenet"})
    found = seen("Rehearsing", (rehearsing,), step=0, replicasWanted=0)
    assert lines(found)[-1].split() == ["imagenet-rehearsal-3-1a", "rehearses", "3", "-"]
    assert [step.state for step in found.steps] == [StepState.AHEAD] * 3


@pytest.mark.parametrize(
    ("phase", "states", "outcome"),
    [
        ("Completed", "Done Done Done", Outcome.ARRIVED),
        ("Baking", "Done Done Done", Outcome.WAITING),
        ("Progressing", "Done Now Ahead", Outcome.WAITING),
        ("RollingBack", "Done Left Left", Outcome.HOPELESS),
        ("RolledBack", "Done Left Left", Outcome.HOPELESS),
        ("Superseded", "Done Left Left", Outcome.HOPELESS),
        ("OfANewerRelease", "Done Now Ahead", Outcome.WAITING),
    ],
)
def test_steps_and_the_exit_code_follow_the_phase(
    phase: str, states: str, outcome: Outcome
) -> None:
    found = seen(phase, step=2)
    assert [step.state.value for step in found.steps] == states.split()
    assert found.outcome is outcome


def test_steps_that_the_spec_no_longer_has_are_shown_by_their_number() -> None:
    found = seen("Progressing", steps=5)
    assert [step.replicas for step in found.steps] == [""] * 5
    assert lines(found)[3].split() == [
        "▶",
        "1",
        "-",
        "1",
        "of",
        "1",
        *["replicas", "answer", "with", "it"],
    ]


def test_a_resource_without_any_rollout_says_so() -> None:
    found = picture(model(), (), {})
    assert lines(found) == ["imagenet: no rollout yet; version 2 answers"]
    assert found.outcome is Outcome.ARRIVED


def test_texts_of_others_are_no_markup_and_no_control_sequences() -> None:
    found = seen("Paused", message="[red]\x1b[2J", checks=[{**CHECKS[0], "message": "[/]\x07"}])
    shown = "\n".join(lines(found))
    assert "[red]�[2J" in shown
    assert "[/]�" in shown


def test_programs_get_the_status_of_the_rollout_and_each_replica(
    capsys: pytest.CaptureFixture[str],
) -> None:
    pods = (pod("imagenet-1", ready=True, told=3),)
    show(seen("Paused", pods, {"imagenet-1": report(3)}, checks=CHECKS), as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert told["outcome"] == "Waiting"
    assert (told["activeVersion"], told["targetVersion"]) == (2, 3)
    assert told["rollout"]["replicasWanted"] == 1
    assert told["rollout"]["checks"][0]["name"] == "memory"
    assert told["steps"][0] == {"step": 1, "state": "Now", "replicas": "1", "pause": "5m"}
    assert told["replicas"] == [
        {
            "pod": "imagenet-1",
            "ready": True,
            "rehearsal": False,
            "told": 3,
            "answers": 3,
            "note": "",
        }
    ]


class Pollers:
    """A cluster all of whose pollers answer."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def report(self, pod: str) -> PollerStatus:
        self.asked.append(pod)
        return report(2)


def test_of_many_pods_those_that_have_the_new_version_are_asked() -> None:
    pods = [pod(f"imagenet-{n:03}", told=3 if n in (50, 99) else 2) for n in range(100)]
    cluster = Pollers()
    found = Reports(cast("Cluster", cluster)).of(pods, first=3)
    assert len(cluster.asked) == len(found) == 30
    assert {"imagenet-050", "imagenet-099"} < set(found)
