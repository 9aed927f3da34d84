"""How a version reaches the replicas: what each hard case comes to, on a simulated fleet."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from inferencemodel_operator import names
from inferencemodel_operator.conditions import Reason
from inferencemodel_operator.observe.troubles import Trouble
from inferencemodel_operator.observed import Replica
from inferencemodel_operator.record import PlannedStep, QuarantinedVersion, VersionsRecord
from inferencemodel_operator.rollouts.checks import Finding, memory
from inferencemodel_operator.rollouts.clock import Clock, shifted
from inferencemodel_operator.rollouts.fleet import Fleet as Replicas
from inferencemodel_operator.rollouts.steps import count
from inferencemodel_operator.versions import MOST
from model_poller.status import (
    CheckResult,
    Interface,
    PollerStatus,
    SignatureSpec,
    SourceStatus,
    TensorSpec,
    VersionState,
    VersionStatus,
)
from tests.support.fleets import START, Fleet, Pod

ABORT, RETRY, APPROVE, PROMOTE, PROMOTE_FULL = names.ACTION_ANNOTATIONS
PAUSED: dict[str, Any] = {"rollout": {"steps": [{"replicas": 1, "pause": {}}]}}


def interface(**inputs: str) -> Interface:
    return Interface(
        signatures={
            "serving_default": SignatureSpec(
                method="tensorflow/serving/predict",
                inputs={
                    name: TensorSpec(dtype=dtype, shape=(-1,)) for name, dtype in inputs.items()
                },
                outputs={"y": TensorSpec(dtype="float32", shape=(-1,))},
            )
        }
    )


def ever_told(fleet: Fleet, version: int) -> set[str]:
    return {uid for uid, target in fleet.tellings if target == version}


def reason(fleet: Fleet, version: int) -> str:
    return next(entry.reason for entry in fleet.record.quarantined if entry.version == version)


def checks(fleet: Fleet) -> dict[str, str]:
    assert fleet.plan.status is not None
    return {check.name: check.result for check in fleet.plan.status.checks}


def message(fleet: Fleet) -> str:
    assert fleet.plan.status is not None
    return fleet.plan.status.message


# By default


def test_one_replica_has_it_first_and_then_all() -> None:
    fleet = Fleet(replicas=3)
    fleet.upload(2)
    most = 0
    while fleet.phase != "Completed":
        fleet.step()
        assert fleet.record.target == (2 if fleet.phase == "Completed" else 1)
        if len(fleet.on(2)) < 3:
            most = max(most, len(fleet.on(2)))
    assert most == 1
    assert fleet.on(2) == ["p1", "p2", "p3"]
    assert fleet.record.candidate is None
    assert fleet.plan.told == frozenset()


def test_once_it_is_over_nothing_is_written() -> None:
    fleet = Fleet()
    fleet.upload(2)
    fleet.run()
    writes = fleet.writes
    fleet.run()
    assert fleet.writes == writes


@pytest.mark.parametrize(
    ("load", "why"),
    [
        ("fails", Reason.LOAD_FAILED),
        ("crashes", Reason.CRASHED_SERVING),
        ("crashes-serving", Reason.CRASHED_SERVING),
    ],
)
def test_a_bad_one_costs_one_replica(load: str, why: Reason) -> None:
    fleet = Fleet()
    fleet.upload(2, load)
    for _ in range(20):
        fleet.step()
        assert len(fleet.on(1)) >= 2
        assert fleet.record.target == 1
    assert len(ever_told(fleet, 2)) == 1
    assert fleet.phase == "RolledBack"
    assert fleet.on(1) == ["p1", "p2", "p3"]
    assert reason(fleet, 2) == why


def test_one_that_hangs_is_taken_back_at_its_deadline() -> None:
    fleet = Fleet(rollout={"deadline": "60s"})
    fleet.upload(2, "hangs")
    fleet.run(20, seconds=1)
    assert fleet.phase == "Progressing"
    fleet.run(3, seconds=30)
    assert fleet.phase == "RolledBack"
    assert reason(fleet, 2) == Reason.DEADLINE_EXCEEDED
    assert "doesn't answer on p1 by spec.rollout.deadline of 1m;" in message(fleet)
    assert "until that pod is deleted" in message(fleet)
    assert len(ever_told(fleet, 2)) == 1


def test_the_deadline_begins_when_a_replica_is_given_the_version() -> None:
    fleet = Fleet()
    fleet.upload(2, "hangs")
    while not fleet.told(2):
        fleet.step()
    fleet.scale(0)
    fleet.run(2, seconds=3600)
    fleet.scale(3)
    fleet.run(5)
    assert len(fleet.told(2)) == 1
    fleet.bucket[2].load = "good"
    fleet.run(20)
    assert (fleet.phase, len(fleet.on(2))) == ("Completed", 3)


def test_a_moment_without_an_answer_late_in_a_pause_is_no_end_of_its_time() -> None:
    fleet = Fleet(rollout={"steps": [{"replicas": 1, "pause": {"duration": "2h"}}]})
    fleet.upload(2)
    fleet.run(6)
    fleet.wait(3600)
    fleet.pods[fleet.on(2)[0]].answers = None
    fleet.run(2)
    assert (fleet.phase, len(fleet.on(2))) == ("Progressing", 1)


def test_who_cannot_be_asked_for_a_moment_has_no_more_time() -> None:
    fleet = Fleet(rollout={"deadline": "60s"})
    fleet.upload(2, "hangs")
    fleet.run(4)
    for _ in range(4):
        fleet.pods["p1"].silent = not fleet.pods["p1"].silent
        fleet.run(1, seconds=20)
    fleet.run(2)
    assert reason(fleet, 2) == Reason.DEADLINE_EXCEEDED


def test_a_server_that_never_ends_loading_others_speaks_against_no_further_version() -> None:
    fleet = Fleet(replicas=1, rollout={"deadline": "60s"})
    for version in (2, 3):
        fleet.upload(version, "hangs")
        fleet.run(9, seconds=10)
        assert reason(fleet, version) == Reason.DEADLINE_EXCEEDED

    fleet.upload(4)
    fleet.run(8, seconds=10)

    assert fleet.phase == "Progressing"
    assert "p1 still loads versions that nobody wants any more" in message(fleet)
    assert "goes on with what it serves: delete the pod" in message(fleet)
    fleet.kill("p1")
    fleet.run(8)
    assert (fleet.phase, fleet.on(4)) == ("Completed", ["p2"])


def test_a_server_that_still_loads_another_version_is_chosen_last() -> None:
    fleet = Fleet(rollout={"deadline": "60s", "steps": [{"replicas": 1, "pause": {}}]})
    fleet.upload(2, "hangs")
    fleet.run(9, seconds=10)

    fleet.upload(3)
    fleet.run(4)

    assert fleet.told(3) == ["p2"]


@pytest.mark.parametrize(("state", "first"), [("Fetched", "p2"), ("Discovered", "p1")])
def test_a_server_that_still_loads_another_version_is_not_chosen_for_being_sooner(
    state: str, first: str
) -> None:
    fleet = Fleet(rollout={"deadline": "60s", "steps": [{"replicas": 1, "pause": {}}]})
    fleet.upload(2, "hangs")
    fleet.run(9, seconds=10)

    fleet.upload(3)
    told = VersionStatus(version=3, state=VersionState.FETCHING, in_source=True, fingerprint="f3")
    for uid in ("p2", "p3"):
        fleet.pods[uid].lies = (told,)
    fleet.run(4)
    assert fleet.told(3) == []

    # One that can't fetch it is waited for no more.
    for uid in ("p2", "p3"):
        fleet.pods[uid].lies = (msgspec.structs.replace(told, state=VersionState(state)),)
    fleet.run(4)
    assert fleet.told(3) == [first]


def test_one_that_answers_again_after_its_server_ended_is_given_to_no_other_soon() -> None:
    """It comes back before it gets requests again, and it is those that end it."""
    fleet = Fleet()
    fleet.upload(2)
    while not fleet.on(2):
        fleet.step()
    (uid,) = fleet.on(2)
    fleet.pods[uid].restarts += 1

    fleet.run(20, seconds=2)
    assert fleet.on(2) == [uid]
    fleet.pods[uid].restarts += 1
    fleet.run(4)
    assert reason(fleet, 2) == Reason.CRASHED_SERVING
    assert fleet.on(1) == ["p1", "p2", "p3"]

    fleet.upload(3)
    while not fleet.on(3):
        fleet.step()
    (uid,) = fleet.on(3)
    fleet.pods[uid].restarts += 1
    fleet.run(40, seconds=2)
    assert fleet.phase == "Completed", "one end alone is nobody's fault"


def test_the_only_replica_takes_back_what_ends_its_server_by_requests() -> None:
    fleet = Fleet(replicas=1)
    fleet.upload(2, "crashes-serving")
    fleet.run(20)
    assert reason(fleet, 2) == Reason.CRASHED_SERVING
    assert fleet.on(1) == ["p1"]


def test_all_at_once_where_that_is_asked_for() -> None:
    fleet = Fleet(rollout={"steps": []})
    fleet.upload(2)
    fleet.run(3)
    assert fleet.on(2) == ["p1", "p2", "p3"]


@pytest.mark.parametrize("replicas", [1, 3])
def test_all_at_once_it_is_taken_back_all_the_same_when_it_ends_its_servers(replicas: int) -> None:
    fleet = Fleet(replicas, rollout={"steps": []})
    fleet.upload(2, "crashes-serving")
    fleet.run(10)
    assert (fleet.phase, reason(fleet, 2)) == ("RolledBack", Reason.CRASHED_SERVING)
    assert len(fleet.on(1)) == replicas


def test_in_the_last_step_it_is_watched_a_minute_where_a_server_has_ended_in_it() -> None:
    fleet = Fleet()
    fleet.upload(2)
    while len(fleet.told(2)) < 3:
        fleet.step()
    fleet.pods["p3"].restarts += 1
    fleet.run(20, seconds=2)
    assert fleet.phase == "Progressing"
    fleet.pods["p3"].restarts += 1
    fleet.run(4)
    assert (fleet.phase, reason(fleet, 2)) == ("RolledBack", Reason.CRASHED_SERVING)


@pytest.mark.parametrize("bake", ["0s", "1h"])
def test_what_nodes_evict_again_and_again_goes_to_no_third_replica(bake: str) -> None:
    """A version without a memory limit, say, for which a node ends the whole pod."""
    fleet = Fleet(rollout={"bake": bake, "steps": [] if bake != "0s" else [{"replicas": 1}]})
    fleet.upload(2)
    for _ in range(2):
        while not fleet.on(2) or (bake != "0s" and fleet.phase != "Baking"):
            fleet.step()
        fleet.evict(fleet.on(2)[0])
        fleet.step()
    fleet.run(10)
    assert (fleet.phase, reason(fleet, 2)) == ("RolledBack", Reason.CRASHED_SERVING)
    assert message(fleet).startswith("2 pods were taken away by their nodes")
    assert len(fleet.on(1)) == 3
    if bake == "0s":
        assert len(ever_told(fleet, 2)) == 2


def test_one_pod_that_a_node_evicts_is_nobodys_fault() -> None:
    fleet = Fleet()
    fleet.upload(2)
    while not fleet.on(2):
        fleet.step()
    fleet.evict(fleet.on(2)[0])
    fleet.run(20)
    assert (fleet.phase, len(fleet.on(2))) == ("Completed", 3)


def test_what_ends_a_server_that_serves_nothing_is_not_the_version() -> None:
    fleet = Fleet(rollout={"steps": []})
    fleet.pods["p3"].broken, fleet.pods["p3"].answers = True, None
    fleet.upload(2)
    fleet.run(20, seconds=10)
    assert not fleet.record.quarantined
    assert fleet.on(2) == ["p1", "p2"]


def test_a_first_version_goes_to_all() -> None:
    fleet = Fleet(stable=None)
    fleet.upload(1)
    fleet.run(3)
    assert fleet.record.target == 1
    assert fleet.on(1) == ["p1", "p2", "p3"]
    assert fleet.record.rollout is None


def test_before_a_first_version_was_reached_there_is_nobody_to_protect() -> None:
    fleet = Fleet(stable=None)
    fleet.upload(1, "hangs")
    fleet.run(3)
    fleet.upload(2)
    fleet.run(3)
    assert fleet.on(2) == ["p1", "p2", "p3"]


# Steps


def test_steps_are_cumulative_and_rounded_up() -> None:
    fleet = Fleet(
        replicas=5,
        rollout={"steps": [{"replicas": 1}, {"replicas": "50%"}, {"replicas": 4}]},
    )
    fleet.upload(2)
    sizes: list[int] = []
    while fleet.phase != "Completed":
        fleet.step()
        if not sizes or len(fleet.told(2)) != sizes[-1]:
            sizes.append(len(fleet.told(2)))
    assert sizes == [0, 1, 3, 4, 5]


@pytest.mark.parametrize(
    ("replicas", "wanted", "last", "expected"),
    [
        ("1", 3, False, 1),
        ("50%", 3, False, 2),
        ("100%", 3, False, 2),
        ("9", 3, False, 2),
        ("9", 1, False, 1),
        ("1%", 200, False, 2),
        ("50%", 1, False, 1),
        ("1", 0, False, 0),
        ("100%", 3, True, 3),
    ],
)
def test_before_the_last_step_one_is_left_with_the_version_before(
    replicas: str, wanted: int, last: bool, expected: int
) -> None:
    assert count(PlannedStep(replicas), wanted, last=last) == expected


def test_a_pause_is_counted_from_when_the_step_is_reached() -> None:
    fleet = Fleet(rollout={"steps": [{"replicas": 1, "pause": {"duration": "10m"}}]})
    fleet.upload(2)
    fleet.run(10)
    writes, until = fleet.writes, message(fleet)
    fleet.run(10, seconds=50)
    assert len(fleet.on(2)) == 1
    assert fleet.writes == writes
    assert message(fleet) == until == "the rollout goes on at 00:10:01Z"
    assert fleet.plan.after is not None
    fleet.run(4, seconds=60)
    assert fleet.phase == "Completed"


def test_who_was_asked_stays_asked_while_a_replica_is_late_with_its_answer() -> None:
    fleet = Fleet(**PAUSED)
    fleet.upload(2)
    fleet.run()
    before, writes = message(fleet), fleet.writes
    assert fleet.phase == "Paused"
    (uid,) = fleet.told(2)
    fleet.pods[uid].silent = True
    for _ in range(4):
        fleet.step()
        assert (fleet.phase, message(fleet)) == ("Paused", before)
    fleet.pods[uid].silent = False
    fleet.run()
    assert (fleet.writes, message(fleet)) == (writes, before)


def test_a_restart_of_the_operator_begins_no_pause_anew() -> None:
    fleet = Fleet(rollout={"steps": [{"replicas": 1, "pause": {"duration": "10m"}}]})
    fleet.upload(2)
    fleet.run(10)
    writes, until = fleet.writes, message(fleet)
    for pod in fleet.pods.values():
        pod.silent = True
    fleet.run(3, seconds=10)
    for pod in fleet.pods.values():
        pod.silent = False
    fleet.run(3, seconds=10)
    assert (fleet.writes, message(fleet)) == (writes, until)


def test_the_steps_are_those_of_the_start() -> None:
    fleet = Fleet(**PAUSED)
    fleet.upload(2)
    fleet.run(10)
    fleet.fields = {"rollout": {"steps": []}}
    fleet.run(10)
    assert len(fleet.on(2)) == 1


def test_replicas_are_spread_over_nodes_and_keep_what_they_have() -> None:
    fleet = Fleet(replicas=4, rollout={"steps": [{"replicas": 2, "pause": {}}]})
    fleet.upload(2)
    fleet.run(10)
    first = fleet.on(2)
    assert {fleet.pods[uid].node for uid in first} == {"n0", "n1"}
    fleet.run(10)
    assert fleet.on(2) == first


# What somebody does


def test_it_waits_until_somebody_promotes_it() -> None:
    fleet = Fleet(**PAUSED)
    fleet.upload(2)
    fleet.run(20)
    assert (fleet.phase, len(fleet.on(2))) == ("Paused", 1)
    assert "promote" in message(fleet)
    fleet.actions[PROMOTE] = "2"
    fleet.run(10)
    assert fleet.phase == "Completed"
    assert not fleet.actions


def test_a_promotion_that_is_still_to_be_taken_away_counts_once() -> None:
    steps = [{"replicas": 1, "pause": {}}, {"replicas": 2, "pause": {}}]
    fleet = Fleet(rollout={"steps": steps})
    fleet.upload(2)
    fleet.run(10)
    for _ in range(10):
        # The operator ends each time before it takes the annotation away.
        fleet.actions[PROMOTE] = "2"
        fleet.step()
    assert len(fleet.on(2)) == 2
    assert fleet.phase == "Paused"
    fleet.actions.clear()
    fleet.run(2)
    fleet.actions[PROMOTE] = "2"
    fleet.run(10)
    assert fleet.phase == "Completed"


def test_a_full_promotion_skips_all_steps() -> None:
    steps = [{"replicas": 1, "pause": {}}, {"replicas": 2, "pause": {}}]
    fleet = Fleet(rollout={"steps": steps})
    fleet.upload(2)
    fleet.run(10)
    fleet.actions[PROMOTE_FULL] = "2"
    fleet.run(10)
    assert fleet.phase == "Completed"


@pytest.mark.parametrize("text", ["1", "3", "two", ""])
@pytest.mark.parametrize("action", names.ACTION_ANNOTATIONS)
def test_what_is_not_about_the_rollout_is_dropped(action: str, text: str) -> None:
    fleet = Fleet(**PAUSED)
    fleet.upload(2)
    fleet.run(10)
    before = fleet.record
    fleet.actions[action] = text
    fleet.step()
    assert [dropped.annotation for dropped in fleet.plan.dropped] == [action]
    assert not fleet.actions
    fleet.run(10)
    assert (fleet.record, fleet.phase) == (before, "Paused")


@pytest.mark.parametrize("load", ["good", "fails"])
@pytest.mark.parametrize("action", [ABORT, RETRY])
def test_what_was_done_is_not_called_dropped_where_it_is_still_to_be_taken_away(
    action: str, load: str
) -> None:
    fleet = Fleet(**PAUSED)
    fleet.upload(2, load)
    fleet.run(10)
    if action == RETRY and load == "good":
        fleet.actions[ABORT] = "2"
        fleet.run(10)
    elif action == ABORT and load == "fails":
        fleet.upload(2, fingerprint="other")
        fleet.run(10)
    fleet.bucket[2].load = "good"
    for _ in range(6):
        # The operator ends each time before it takes the annotation away.
        fleet.actions[action] = "2"
        fleet.step()
        assert (fleet.plan.dropped, fleet.actions) == ((), {})
    assert fleet.phase == ("RolledBack" if action == ABORT else "Paused")


PHASES: dict[str, dict[str, Any]] = {
    "Checking": {"steps": []},
    "Paused in Checking": {"steps": []},
    "Rehearsing": {"rehearsal": {"enabled": True}},
    "Progressing": {"steps": [{"replicas": 2, "pause": {"duration": "1h"}}]},
    "Paused": {"steps": [{"replicas": 1, "pause": {}}]},
    "Baking": {"bake": "1h"},
}


def in_phase(phase: str) -> Fleet:
    fleet = Fleet(rollout=PHASES[phase])
    if phase == "Paused in Checking":
        fleet.bucket[1].interface = interface(x="float32")
        fleet.upload(2, interface=interface(image="float32"))
    else:
        fleet.upload(2)
    fleet.slow = phase == "Checking"
    fleet.run(12)
    assert fleet.phase == phase.partition(" ")[0]
    return fleet


@pytest.mark.parametrize("phase", PHASES)
def test_an_abort_works_in_every_phase(phase: str) -> None:
    fleet = in_phase(phase)
    fleet.actions[ABORT] = "2"
    fleet.step()
    assert not fleet.told(2)
    fleet.run(5)
    assert fleet.phase == "RolledBack"
    assert fleet.on(1) == ["p1", "p2", "p3"]
    assert fleet.record.target == 1
    assert reason(fleet, 2) == Reason.ABORTED
    fleet.run(20)
    assert not fleet.told(2)


@pytest.mark.parametrize("phase", PHASES)
def test_a_version_that_was_aborted_is_tried_again_once_somebody_says_so(phase: str) -> None:
    fleet = in_phase(phase)
    fleet.actions[ABORT] = "2"
    fleet.run(5)
    fleet.slow = False
    fleet.fields = {"rollout": {"steps": [], "checks": {"signature": "Ignore"}}}
    fleet.actions[RETRY] = "2"
    fleet.run(10)
    assert fleet.phase == "Completed"
    assert fleet.on(2) == ["p1", "p2", "p3"]


def test_a_version_that_did_not_load_is_tried_again_once_somebody_says_so() -> None:
    fleet = Fleet()
    fleet.upload(2, "fails")
    fleet.run(10)
    assert fleet.phase == "RolledBack"
    fleet.bucket[2].load = "good"
    fleet.run(10)
    assert not fleet.told(2)
    fleet.actions[RETRY] = "2"
    fleet.run(20)
    assert fleet.phase == "Completed"


def test_one_that_fails_again_is_taken_back_again() -> None:
    fleet = Fleet()
    fleet.upload(2, "fails")
    fleet.run(10)
    fleet.actions[RETRY] = "2"
    fleet.run(20)
    assert (fleet.phase, fleet.told(2)) == ("RolledBack", [])


def test_a_paused_one_stands_still_and_an_abort_works_all_the_same() -> None:
    fleet = Fleet(replicas=4, rollout={"steps": [{"replicas": 2}], "paused": True})
    fleet.upload(2)
    fleet.run(10)
    assert (fleet.phase, fleet.told(2)) == ("Paused", [])
    fleet.fields = {"rollout": {"steps": [{"replicas": 2}]}}
    fleet.run(2)
    had = fleet.told(2)
    assert len(had) == 2
    fleet.fields = {"rollout": {"steps": [{"replicas": 2}], "paused": True}}
    fleet.run(20)
    assert fleet.told(2) == had
    fleet.actions[ABORT] = "2"
    fleet.run(5)
    assert fleet.on(1) == ["p1", "p2", "p3", "p4"]


# Checks


def test_what_cannot_fit_into_memory_is_never_loaded() -> None:
    fleet = Fleet(server={"resources": {"limits": {"memory": "1Gi"}}})
    fleet.bucket[1].weight = 400 << 20
    fleet.upload(2, weight=700 << 20)
    fleet.run(10)
    assert not ever_told(fleet, 2)
    assert reason(fleet, 2) == Reason.INSUFFICIENT_MEMORY
    assert checks(fleet)["memory"] == "Failed"
    assert "700.0Mi" in message(fleet)
    assert "limits.memory" in message(fleet)


def test_what_just_fits_is_loaded() -> None:
    fleet = Fleet(server={"resources": {"limits": {"memory": "1Gi"}}})
    fleet.bucket[1].weight = 324 << 20
    fleet.upload(2, weight=700 << 20)
    fleet.run(10)
    assert fleet.phase == "Completed"


@pytest.mark.parametrize(
    "server",
    [
        {},
        {"resources": {"limits": {"memory": "1Gi", "nvidia.com/gpu": "1"}}},
    ],
)
def test_nothing_is_said_of_memory_that_has_no_limit_or_is_another_one(
    server: dict[str, Any],
) -> None:
    fleet = Fleet(server=server)
    fleet.upload(2, weight=700 << 30)
    fleet.run(10)
    assert (fleet.phase, checks(fleet)["memory"]) == ("Completed", "Skipped")


def test_a_broken_interface_waits_for_somebody_who_means_it() -> None:
    fleet = Fleet()
    fleet.bucket[1].interface = interface(x="float32")
    fleet.upload(2, interface=interface(image="float32"))
    fleet.run(10)
    assert (fleet.phase, ever_told(fleet, 2)) == ("Paused", set())
    assert "image" in message(fleet)
    fleet.actions[APPROVE] = "2"
    fleet.run(10)
    assert fleet.phase == "Completed"
    assert checks(fleet)["signature"] == "Failed"


def test_a_pinned_one_is_meant() -> None:
    fleet = Fleet()
    fleet.bucket[1].interface = interface(x="float32")
    fleet.upload(2, interface=interface(image="float32"))
    fleet.model_fields = {"version": 2}
    fleet.run(10)
    assert (fleet.phase, checks(fleet)["signature"]) == ("Completed", "Failed")


def test_the_next_version_takes_the_place_of_one_that_waits() -> None:
    fleet = Fleet()
    fleet.bucket[1].interface = interface(x="float32")
    fleet.upload(2, interface=interface(image="float32"))
    fleet.run(5)
    fleet.upload(3, interface=interface(x="float32"))
    fleet.run(10)
    assert (fleet.phase, fleet.on(3)) == ("Completed", ["p1", "p2", "p3"])


def test_wrong_golden_answers_cost_one_replica() -> None:
    fleet = Fleet()
    fleet.upload(2, golden=CheckResult.FAILED)
    fleet.run(10)
    assert len(ever_told(fleet, 2)) == 1
    assert (fleet.phase, reason(fleet, 2)) == ("RolledBack", Reason.GOLDEN_MISMATCH)
    assert message(fleet) == "record 1 differs"


def test_right_golden_answers_are_told() -> None:
    fleet = Fleet()
    fleet.upload(2, golden=CheckResult.PASSED)
    fleet.run(10)
    assert (fleet.phase, checks(fleet)["golden"]) == ("Completed", "Passed")


@pytest.mark.parametrize("result", list(CheckResult))
@pytest.mark.parametrize("pause", [{}, {"duration": "1h"}])
def test_what_is_found_late_is_told_once_while_the_step_waits(
    result: CheckResult, pause: dict[str, str]
) -> None:
    fleet = Fleet(rollout={"steps": [{"replicas": 1, "pause": pause}], "onFailure": "Pause"})
    fleet.upload(2, golden=None)
    fleet.run(10)
    assert "golden" not in checks(fleet)
    fleet.bucket[2].golden = result
    fleet.run(3)
    status, writes = fleet.plan.status, fleet.writes
    assert checks(fleet)["golden"] == result
    fleet.run(5, seconds=10)
    assert (fleet.plan.status, fleet.writes) == (status, writes)


def test_a_failed_check_can_wait_for_somebody_instead() -> None:
    fleet = Fleet(rollout={"onFailure": "Pause"})
    fleet.upload(2, golden=CheckResult.FAILED)
    fleet.run(10)
    assert (fleet.phase, len(fleet.on(2))) == ("Paused", 1)
    fleet.actions[PROMOTE] = "2"
    fleet.run(10)
    assert len(ever_told(fleet, 2)) == 3


LIVE: dict[str, Any] = {
    "steps": [{"replicas": 1, "pause": {"duration": "60s"}}],
    "checks": {"live": {"mode": "Enforce", "minRequests": 50}},
}


@pytest.mark.parametrize(
    ("fields", "why"), [({"errors": 10}, Reason.ERROR_RATE), ({"latency": 0.1}, Reason.LATENCY)]
)
def test_errors_and_slowness_under_requests_cost_one_replica(
    fields: dict[str, Any], why: Reason
) -> None:
    fleet = Fleet(rollout=LIVE)
    fleet.requests = 400
    fleet.upload(2, **fields)
    fleet.run(20, seconds=10)
    assert (fleet.phase, reason(fleet, 2)) == ("RolledBack", why)
    assert len(ever_told(fleet, 2)) == 1
    assert checks(fleet)["live"] == "Failed"


def test_good_figures_let_it_go_on() -> None:
    fleet = Fleet(rollout=LIVE)
    fleet.requests = 400
    fleet.upload(2, errors=0, latency=0.012)
    fleet.run(20, seconds=10)
    assert (fleet.phase, checks(fleet)["live"]) == ("Completed", "Passed")


def test_no_requests_at_all_stop_nothing() -> None:
    fleet = Fleet(rollout=LIVE)
    fleet.upload(2)
    fleet.run(20, seconds=10)
    assert (fleet.phase, checks(fleet)["live"]) == ("Completed", "Skipped")


def test_too_few_requests_wait_for_somebody() -> None:
    fleet = Fleet(rollout={**LIVE, "deadline": "120s"})
    fleet.requests = 10
    fleet.upload(2)
    fleet.run(30, seconds=10)
    assert (fleet.phase, checks(fleet)["live"]) == ("Paused", "Inconclusive")
    fleet.actions[PROMOTE] = "2"
    fleet.run(5)
    assert fleet.phase == "Completed"


def test_several_versions_have_no_live_figures_of_their_own() -> None:
    fleet = Fleet(rollout=LIVE)
    fleet.model_fields = {"numVersions": 2}
    fleet.requests = 400
    fleet.upload(2, errors=50)
    fleet.run(20, seconds=10)
    assert fleet.phase == "Completed"


@pytest.mark.parametrize("mode", ["Report", "Enforce"])
@pytest.mark.parametrize("requests", [10, 400])
@pytest.mark.parametrize("fields", [{}, {"errors": 50}])
@pytest.mark.parametrize("failure", ["Rollback", "Pause"])
@pytest.mark.parametrize("pause", [{}, {"duration": "60s"}])
def test_figures_that_go_on_changing_are_not_written_while_it_waits(
    mode: str, requests: int, fields: dict[str, Any], failure: str, pause: dict[str, str]
) -> None:
    fleet = Fleet(
        rollout={
            "steps": [{"replicas": 1, "pause": pause}],
            "checks": {"live": {"mode": mode}},
            "onFailure": failure,
            "deadline": "120s",
        }
    )
    fleet.requests = requests
    fleet.upload(2, **fields)
    fleet.run(40, seconds=10)
    writes, told = fleet.writes, message(fleet)
    for _ in range(10):
        fleet.requests += 1
        fleet.step(seconds=10)
    assert (fleet.writes, message(fleet)) == (writes, told)


# Rehearsal


def test_nobody_is_told_before_it_is_rehearsed() -> None:
    fleet = Fleet(rollout={"rehearsal": {"enabled": True}})
    fleet.upload(2)
    fleet.run(10)
    assert (fleet.phase, fleet.plan.rehearse, ever_told(fleet, 2)) == ("Rehearsing", True, set())
    fleet.rehearsal = Finding(CheckResult.PASSED)
    fleet.run(10)
    assert (fleet.phase, fleet.plan.rehearse) == ("Completed", False)


def test_one_that_fails_there_costs_nobody_anything() -> None:
    fleet = Fleet(rollout={"rehearsal": {"enabled": True}})
    fleet.upload(2)
    fleet.rehearsal = Finding(CheckResult.FAILED, "it ended", Reason.REHEARSAL_FAILED)
    fleet.run(10)
    assert (fleet.phase, ever_told(fleet, 2)) == ("RolledBack", set())
    assert reason(fleet, 2) == Reason.REHEARSAL_FAILED


def test_one_that_finds_no_room_waits_and_can_be_promoted_without() -> None:
    fleet = Fleet(rollout={"rehearsal": {"enabled": True}})
    fleet.upload(2)
    fleet.rehearsal = Finding(CheckResult.INCONCLUSIVE, "no node has room")
    fleet.run(10)
    assert (fleet.phase, ever_told(fleet, 2), fleet.plan.rehearse) == ("Paused", set(), True)
    assert "no node has room" in message(fleet)
    fleet.actions[PROMOTE] = "2"
    fleet.run(10)
    assert fleet.phase == "Completed"


# Bake


def test_the_version_before_is_what_a_bake_goes_back_to() -> None:
    fleet = Fleet(rollout={"bake": "10m"})
    fleet.upload(2)
    fleet.run(10)
    assert (fleet.phase, fleet.record.target) == ("Baking", 2)
    for pod in fleet.pods.values():
        pod.restarts += 2
    fleet.run(5)
    assert (fleet.phase, fleet.record.target) == ("RolledBack", 1)
    assert fleet.on(1) == ["p1", "p2", "p3"]


def test_a_bake_ends() -> None:
    fleet = Fleet(rollout={"bake": "10m"})
    fleet.upload(2)
    fleet.run(10)
    assert fleet.plan.after is not None
    fleet.run(10, seconds=70)
    assert fleet.phase == "Completed"


def test_a_newer_version_ends_the_bake() -> None:
    fleet = Fleet(rollout={"bake": "10m"})
    fleet.upload(2)
    fleet.run(10)
    fleet.upload(3)
    fleet.run(10)
    assert (fleet.phase, fleet.record.target) == ("Baking", 3)


def test_in_a_bake_nobody_goes_on_with_the_version_whose_place_was_taken() -> None:
    fleet = Fleet(rollout={**PAUSED["rollout"], "bake": "10m"})
    fleet.upload(2)
    fleet.run(10)
    assert len(fleet.on(2)) == 1
    fleet.upload(3)
    fleet.run(10)
    fleet.actions[PROMOTE] = "3"
    fleet.tellings.clear()
    fleet.run(10)
    assert fleet.phase == "Baking"
    assert not ever_told(fleet, 2)
    assert fleet.on(3) == ["p1", "p2", "p3"]


# The hard cases


@pytest.mark.parametrize("phase", PHASES)
def test_an_operator_that_was_killed_goes_on_where_it_was(phase: str) -> None:
    fleet = in_phase(phase)
    before = (fleet.record, fleet.told(2))
    for pod in fleet.pods.values():
        pod.silent = True
    fleet.run(5)
    for pod in fleet.pods.values():
        pod.silent = False
    fleet.run(5)
    assert fleet.told(2) == before[1]
    assert fleet.phase in (phase, "Paused")


def test_nobody_is_told_while_one_that_has_it_cannot_be_asked() -> None:
    fleet = Fleet()
    fleet.upload(2)
    while not fleet.told(2):
        fleet.step()
    fleet.pods[fleet.told(2)[0]].silent = True
    fleet.run(20)
    assert len(fleet.told(2)) == 1


def test_who_was_told_before_the_memory_was_lost_is_chosen_again() -> None:
    fleet = Fleet(**PAUSED)
    fleet.upload(2)
    fleet.run(3)
    told = fleet.told(2)
    assert told
    assert fleet.record.rollout is not None
    # As if the operator had ended between the pod's annotation and the next one's memory.
    fleet.pods = dict(reversed(fleet.pods.items()))
    fleet.record = fleet.record.__class__.from_config_map(
        {k: v for k, v in fleet.record.to_data().items() if k != "rollout.json"}
    )
    fleet.run(10)
    assert fleet.told(2) == told


def test_an_autoscaler_that_moves_takes_nothing_back() -> None:
    fleet = Fleet(replicas=4, rollout={"steps": [{"replicas": "50%", "pause": {}}]})
    fleet.upload(2)
    fleet.run(10)
    assert len(fleet.on(2)) == 2
    fleet.scale(8)
    fleet.step()
    assert all(pod.answers == 1 for uid, pod in fleet.pods.items() if int(uid[1:]) > 4)
    fleet.run(10)
    assert len(fleet.on(2)) == 4
    on = fleet.on(2)
    fleet.scale(6)
    fleet.run(10)
    assert set(fleet.on(2)) == {uid for uid in on if uid in fleet.pods}


def test_replicas_that_are_still_to_come_count_for_no_share() -> None:
    """An autoscaler asks for many while few serve: one of these stays with the version before."""
    fleet = Fleet(3, rollout={"steps": [{"replicas": "50%", "pause": {}}]})
    fleet.upload(2)
    fleet.scale(10)
    late = [pod for uid, pod in fleet.pods.items() if uid not in ("p1", "p2", "p3")]
    fleet.slow_starts = {pod.uid for pod in late}
    fleet.run(10)
    assert len(fleet.told(2)) == 2
    assert message(fleet).endswith(
        "2 of 5 replicas of this step; the others get it once more replicas serve"
    )
    fleet.slow_starts = set()
    fleet.run(10)
    assert (fleet.phase, len(fleet.on(2))) == ("Paused", 5)


def test_the_only_one_that_serves_waits_for_another_one_that_comes() -> None:
    fleet = Fleet(replicas=2)
    fleet.kill("p2")
    fleet.slow_starts.add("p3")
    fleet.upload(2)
    fleet.run(20)
    assert not fleet.told(2)
    assert "once another one does" in message(fleet)
    writes = fleet.writes
    fleet.run(20)
    assert fleet.writes == writes
    fleet.slow_starts.clear()
    fleet.run(20)
    assert (fleet.phase, fleet.on(2)) == ("Completed", ["p1", "p3"])


def test_the_only_one_that_serves_does_not_wait_for_ever_for_another_one() -> None:
    fleet = Fleet(replicas=2)
    fleet.kill("p2")
    fleet.slow_starts.add("p3")
    fleet.upload(2)
    fleet.run(4, seconds=200)
    assert fleet.on(2) == ["p1"]


def test_the_only_one_that_serves_does_not_wait_for_one_that_ends_with_the_version_before() -> None:
    fleet = Fleet(replicas=2)
    fleet.kill("p2")
    fleet.pods["p3"].broken = True
    fleet.upload(2)
    fleet.run(10)
    assert fleet.on(2) == ["p1"]


def test_servers_that_a_bad_version_has_ended_leave_nobody_without_protection() -> None:
    fleet = Fleet(replicas=2)
    fleet.upload(2, "crashes")
    fleet.run(6)
    assert reason(fleet, 2) == Reason.CRASHED_SERVING
    # Their containers are started again in a while; they have what they served before.
    for uid, pod in fleet.pods.items():
        pod.answers, pod.restarts = None, 3
        fleet.slow_starts.add(uid)
    fleet.run(4)
    fleet.upload(3)
    fleet.run(10)
    assert (fleet.record.target, fleet.record.candidate) == (1, 3)
    fleet.slow_starts.clear()
    fleet.run(20)
    assert (fleet.phase, fleet.on(3)) == ("Completed", ["p1", "p2"])


def test_one_that_is_lost_is_replaced_also_where_new_ones_cannot_have_the_version_before() -> None:
    fleet = Fleet(replicas=4, rollout={"steps": [{"replicas": 2, "pause": {}}]})
    fleet.upload(2)
    fleet.run(10)
    had = fleet.on(2)
    assert len(had) == 2
    del fleet.bucket[1]
    fleet.kill(had[0], fleet.on(1)[0])
    fleet.run(10)
    assert (fleet.phase, len(fleet.on(1))) == ("Paused", 1)
    # One of the new ones, so that the other old one goes on with the version before.
    assert set(fleet.on(2)) & {"p5", "p6"}
    assert len(fleet.on(2)) == 2


def test_a_replica_that_is_lost_is_replaced() -> None:
    fleet = Fleet(**PAUSED)
    fleet.upload(2)
    fleet.run(10)
    had = fleet.on(2)
    fleet.kill(*had)
    fleet.run(10)
    assert len(fleet.on(2)) == 1
    assert fleet.on(2) != had


def test_a_newer_version_begins_with_the_same_stable_one() -> None:
    fleet = Fleet(**PAUSED)
    fleet.upload(2)
    fleet.run(10)
    had = fleet.on(2)
    fleet.upload(3)
    fleet.run(10)
    assert fleet.on(3) == had
    assert fleet.record.target == 1
    assert fleet.record.rollout is not None
    assert fleet.record.rollout.from_version == 1
    assert not fleet.record.quarantined
    fleet.actions[ABORT] = "3"
    fleet.run(8)
    # Version 2 is not bad: it is next.
    assert fleet.record.wanted == 2


@pytest.mark.parametrize("load", ["good", "fails"])
def test_one_that_is_taken_back_is_seen_so_before_an_older_one_has_its_turn(load: str) -> None:
    fleet = Fleet(**PAUSED)
    fleet.upload(2)
    fleet.run(10)
    fleet.upload(3, load)
    fleet.run(2)
    assert fleet.record.wanted == 3
    if load == "good":
        fleet.run(5)
        fleet.actions[ABORT] = "3"
    seen = []
    for _ in range(20):
        fleet.step()
        assert fleet.plan.status is not None
        seen.append((fleet.plan.status.version, fleet.phase))
    assert (3, "RolledBack") in seen
    assert seen[-1] == (2, "Paused")


def test_an_older_one_does_not_wait_for_ever_for_one_that_does_not_go_back() -> None:
    fleet = Fleet(**PAUSED)
    fleet.upload(2)
    fleet.run(10)
    fleet.upload(3)
    fleet.run(10)
    (uid,) = fleet.on(3)
    fleet.actions[ABORT] = "3"
    fleet.pods[uid].disk = {entry for entry in fleet.pods[uid].disk if entry[0] == 3}
    del fleet.bucket[1]
    for _ in range(40):
        fleet.step()
        fleet.pods[uid].answers = 3
    assert fleet.record.wanted == 2


def test_one_whose_place_was_taken_is_taken_back_where_it_ends_its_server() -> None:
    """The newer one may wait for somebody for long."""
    fleet = Fleet(**PAUSED)
    fleet.bucket[1].interface = interface(x="float32")
    fleet.upload(2, interface=interface(x="float32"))
    while not fleet.on(2):
        fleet.step()
    fleet.upload(3, interface=interface(image="float32"))
    fleet.run(2)
    assert (fleet.phase, len(fleet.on(2))) == ("Paused", 1)
    fleet.bucket[2].load = "crashes-serving"
    fleet.run(8)
    assert (fleet.phase, reason(fleet, 2)) == ("Paused", Reason.CRASHED_SERVING)
    assert fleet.on(1) == ["p1", "p2", "p3"]


def test_in_the_last_step_only_one_gets_the_newer_version() -> None:
    fleet = Fleet(replicas=3)
    fleet.upload(2)
    while fleet.plan.told is not None:
        fleet.step()
    fleet.pods["p3"].draining = False
    fleet.upload(3, "hangs")
    for _ in range(10):
        fleet.step()
        assert len(fleet.told(3)) <= 1
    assert len(fleet.on(2)) >= 2


def test_objects_that_change_in_the_middle_begin_anew() -> None:
    fleet = Fleet(**PAUSED)
    fleet.upload(2)
    fleet.run(10)
    fleet.upload(2, fingerprint="other")
    fleet.run(20)
    assert fleet.phase == "Paused"
    assert fleet.record.rollout is not None
    assert fleet.record.rollout.fingerprint == "other"
    for uid in fleet.on(2):
        assert (2, "other") in fleet.pods[uid].disk
    assert len(fleet.on(2)) == 1


def test_one_that_is_deleted_from_the_bucket_in_the_middle_is_called_off() -> None:
    fleet = Fleet(**PAUSED)
    fleet.upload(2)
    fleet.run(10)
    assert len(fleet.on(2)) == 1
    del fleet.bucket[2]
    fleet.run(10)
    # The others couldn't get it any more.
    assert (fleet.phase, fleet.on(1)) == ("Superseded", ["p1", "p2", "p3"])
    assert not fleet.record.quarantined
    writes = fleet.writes
    fleet.run(10)
    assert fleet.writes == writes
    fleet.upload(2)
    fleet.run(10)
    assert len(fleet.on(2)) == 1


def test_one_that_all_have_goes_on_though_it_is_deleted_from_the_bucket() -> None:
    fleet = Fleet(rollout={"steps": [{"replicas": "100%", "pause": {}}]})
    fleet.upload(2)
    fleet.run(10)
    del fleet.bucket[2]
    fleet.run(10)
    assert (fleet.phase, fleet.on(2)) == ("Paused", ["p1", "p2", "p3"])


def test_a_bucket_that_is_emptied_in_the_middle_takes_nothing_back() -> None:
    fleet = Fleet(**PAUSED)
    fleet.upload(2)
    fleet.run(10)
    fleet.bucket.clear()
    fleet.scale(4)
    fleet.run(10)
    assert (fleet.phase, len(fleet.on(2))) == ("Paused", 1)


def test_a_broken_stable_version_does_not_hold_up_the_fix() -> None:
    fleet = Fleet()
    fleet.bucket[1].load = "crashes"
    for pod in fleet.pods.values():
        pod.answers = None
    del fleet.bucket[1]
    for pod in fleet.pods.values():
        pod.disk.clear()
    fleet.upload(2)
    fleet.run(3)
    assert fleet.on(2) == ["p1", "p2", "p3"]


def test_with_one_replica_the_steps_are_one() -> None:
    fleet = Fleet(replicas=1)
    fleet.upload(2)
    fleet.run(8)
    assert (fleet.phase, fleet.on(2)) == ("Completed", ["p1"])
    assert "all requests" in message(fleet)


def test_with_one_replica_a_bad_version_goes_back() -> None:
    fleet = Fleet(replicas=1)
    fleet.upload(2, "fails")
    fleet.run(8)
    assert (fleet.phase, fleet.on(1)) == ("RolledBack", ["p1"])


def test_a_pod_template_that_changes_halts_it() -> None:
    fleet = Fleet(**PAUSED)
    fleet.is_replacing = True
    fleet.upload(2)
    fleet.run(10)
    assert not fleet.told(2)
    assert "Deployment" in message(fleet)
    fleet.is_replacing = False
    fleet.run(10)
    assert len(fleet.on(2)) == 1


def test_a_pod_template_that_does_not_start_holds_up_no_good_version() -> None:
    fleet = Fleet(replicas=2, rollout={"deadline": "60s"})
    fleet.scale(3)
    fleet.pods["p3"].broken = True
    fleet.replicas = 2
    fleet.upload(2)
    fleet.run(40, seconds=5)
    assert (fleet.phase, fleet.on(2)) == ("Completed", ["p1", "p2"])
    assert not fleet.record.quarantined


@pytest.mark.parametrize("why", ["deleted", "unreadable", "doesn't load"])
def test_a_pod_of_a_new_template_without_the_version_before_holds_up_no_good_one(why: str) -> None:
    fleet = Fleet()
    if why == "deleted":
        # Somebody keeps the newest versions alone.
        del fleet.bucket[1]
    elif why == "unreadable":
        fleet.lost.add(1)
    fleet.is_replacing = True
    fleet.scale(4)
    fleet.replicas = 3
    if why == "doesn't load":
        fleet.pods["p4"].quarantined.add((1, "f1"))
        fleet.pods["p4"].template = "new"
    fleet.upload(2)
    fleet.run(20)
    assert (fleet.phase, len(fleet.on(2))) == ("Completed", 4)


def test_scaled_to_zero_it_waits_for_replicas() -> None:
    fleet = Fleet(**PAUSED)
    fleet.upload(2)
    fleet.run(10)
    fleet.scale(0)
    fleet.run(10)
    assert fleet.record.target == 1
    fleet.scale(3)
    fleet.step()
    assert fleet.on(1) == sorted(fleet.pods)
    fleet.run(10)
    assert len(fleet.on(2)) == 1


def test_a_pin_downwards_goes_to_all_at_once() -> None:
    fleet = Fleet()
    fleet.upload(2)
    fleet.run(10)
    fleet.model_fields = {"version": 1}
    fleet.run(2)
    assert fleet.on(1) == ["p1", "p2", "p3"]


def test_a_pin_to_a_version_that_has_served_goes_to_all_at_once() -> None:
    fleet = Fleet()
    fleet.upload(2)
    fleet.run(10)
    fleet.model_fields = {"version": 1}
    fleet.run(5)
    fleet.model_fields = {"version": 2}
    fleet.run(2)
    assert fleet.on(2) == ["p1", "p2", "p3"]


def test_a_pin_to_a_version_that_one_replica_has_tried_goes_step_by_step() -> None:
    fleet = Fleet(**PAUSED)
    fleet.upload(2)
    fleet.run(6)
    assert len(fleet.on(2)) == 1
    fleet.upload(3)
    fleet.run(6)
    fleet.model_fields = {"version": 2}
    fleet.run(10)
    assert (fleet.phase, len(fleet.told(2))) == ("Paused", 1)


@pytest.mark.parametrize("wanted", [{"version": 1}, {"minVersion": 3}])
def test_what_replicas_serve_is_protected_where_nothing_that_is_wanted_is_there(
    wanted: dict[str, int],
) -> None:
    fleet = Fleet(stable=2)
    fleet.model_fields = wanted
    fleet.run(3)
    assert len(fleet.on(2)) == 3
    fleet.model_fields.pop("version", None)
    fleet.upload(3, "crashes-serving")
    fleet.run(20)
    assert len(ever_told(fleet, 3)) == 1
    assert (fleet.phase, len(fleet.on(2))) == ("RolledBack", 3)


def test_what_replicas_serve_is_protected_where_the_memory_is_lost() -> None:
    fleet = Fleet()
    fleet.record = VersionsRecord()
    fleet.upload(2, "crashes-serving")
    fleet.run(20)
    assert len(ever_told(fleet, 2)) == 1
    assert (fleet.phase, len(fleet.on(1))) == ("RolledBack", 3)


def test_one_that_crashes_says_nothing_of_those_that_cannot_be_asked() -> None:
    replicas = [
        Replica(name="a", ready=False, report=None, trouble=Trouble.SERVER_CRASHED),
        Replica(name="b", ready=True, report=None),
    ]
    assert Replicas(replicas).is_unserved(1) is False
    assert Replicas(replicas[:1]).is_unserved(1) is True


def test_to_retry_another_version_sends_nobody_back() -> None:
    fleet = Fleet(**PAUSED)
    fleet.upload(2, "crashes-serving")
    fleet.run(20)
    assert fleet.phase == "RolledBack"
    fleet.upload(3)
    fleet.run(10)
    told = fleet.told(3)
    fleet.tellings.clear()
    fleet.actions[RETRY] = "2"
    fleet.run(5)
    assert (fleet.phase, fleet.told(3), fleet.tellings) == ("Paused", told, [])
    assert not fleet.record.quarantined


def test_a_full_promotion_is_watched_all_the_same() -> None:
    fleet = Fleet(**with_bake("60s"))
    fleet.upload(2)
    fleet.run(10)
    fleet.actions[PROMOTE_FULL] = "2"
    fleet.run(10)
    assert (fleet.phase, len(fleet.on(2))) == ("Baking", 3)
    fleet.bucket[2].load = "crashes-serving"
    fleet.run(10)
    assert (fleet.phase, reason(fleet, 2)) == ("RolledBack", Reason.CRASHED_SERVING)


@pytest.mark.parametrize("action", [PROMOTE, PROMOTE_FULL])
def test_one_that_is_promoted_has_no_more_time_to_load(action: str) -> None:
    fleet = Fleet(rollout={"deadline": "60s"})
    fleet.upload(2, "hangs")
    fleet.run(6)
    fleet.actions[action] = "2"
    fleet.run(6, seconds=20)
    assert (fleet.phase, reason(fleet, 2)) == ("RolledBack", Reason.DEADLINE_EXCEEDED)
    assert len(ever_told(fleet, 2)) == 1


@pytest.mark.parametrize("action", [PROMOTE, PROMOTE_FULL])
def test_what_is_found_after_a_promotion_waits_for_another_one(action: str) -> None:
    fleet = Fleet(rollout={"deadline": "60s", "onFailure": "Pause", "bake": "60s"})
    fleet.upload(2, "hangs")
    fleet.run(6)
    fleet.actions[action] = "2"
    fleet.run(6, seconds=20)
    assert fleet.phase == "Paused"
    assert "by spec.rollout.deadline" in message(fleet)
    fleet.bucket[2].load = "good"
    fleet.actions[action] = "2"
    fleet.run(8)
    assert (fleet.phase, len(fleet.on(2))) == ("Baking", 3)


def test_golden_requests_that_never_end_are_promoted_over() -> None:
    fleet = Fleet(rollout={"deadline": "60s", "onFailure": "Pause"})
    fleet.upload(2, golden=None)
    fleet.run(10, seconds=20)
    assert fleet.phase == "Paused"
    assert "golden requests" in message(fleet)
    fleet.actions[PROMOTE_FULL] = "2"
    fleet.run(8)
    assert fleet.phase == "Completed"


@pytest.mark.parametrize("action", [PROMOTE, PROMOTE_FULL])
def test_who_promotes_a_version_waits_for_no_golden_requests(action: str) -> None:
    fleet = Fleet()
    fleet.upload(2, golden=None)
    while not fleet.on(2):
        fleet.step()
    fleet.actions[action] = "2"
    fleet.step()
    fleet.bucket[2].golden = CheckResult.PASSED
    fleet.run(10)
    assert fleet.phase == "Completed"


def test_a_bake_without_replicas_begins_anew_with_the_next_ones() -> None:
    fleet = Fleet(rollout={"bake": "60s"})
    fleet.upload(2)
    fleet.run(10)
    assert fleet.phase == "Baking"
    fleet.scale(0)
    fleet.run(10, seconds=60)
    writes = fleet.writes
    fleet.run(10, seconds=60)
    assert (fleet.phase, fleet.writes) == ("Baking", writes)
    fleet.scale(2)
    fleet.run(10)
    fleet.bucket[2].load = "crashes-serving"
    fleet.run(1, seconds=50)
    assert fleet.phase == "Baking"
    fleet.bucket[2].load = "good"
    fleet.run(10, seconds=10)
    assert fleet.phase == "Completed"


def with_bake(bake: str) -> dict[str, Any]:
    return {"rollout": {**PAUSED["rollout"], "bake": bake}}


def test_a_drain_that_is_asked_for_late_sends_nobody_back() -> None:
    fleet = Fleet(replicas=4)
    fleet.upload(2)
    while len(fleet.told(2)) < 4:
        fleet.plan = fleet.operate()
        fleet.remember()
        fleet.tell(fleet.pods)
        if len(fleet.told(2)) < 4:
            fleet.work()
        fleet.wait(0.5)
    fleet.fields = {"rollout": {"drain": True}}
    fleet.step()
    assert len(fleet.told(2)) == 4


def test_a_clock_that_is_put_back_holds_up_nothing() -> None:
    fleet = Fleet(rollout={"steps": [{"replicas": 1, "pause": {"duration": "5s"}}]})
    fleet.upload(2)
    fleet.run(6)
    assert fleet.phase == "Progressing"
    fleet.wait(-3600)
    fleet.run(20)
    assert fleet.phase == "Completed"


@pytest.mark.parametrize("seconds", [-86_400, 86_400])
def test_a_clock_that_is_set_ends_no_pause_and_nobodys_time(seconds: float) -> None:
    fleet = Fleet(
        rollout={"deadline": "60s", "steps": [{"replicas": 1, "pause": {"duration": "60s"}}]}
    )
    fleet.upload(2, "hangs")
    fleet.run(8, seconds=5)
    fleet.set_clock(seconds)
    fleet.run(2)
    assert (fleet.phase, len(fleet.told(2))) == ("Progressing", 1)
    fleet.bucket[2].load = "good"
    fleet.run(6, seconds=5)
    fleet.set_clock(seconds)
    fleet.run(4)
    assert (fleet.phase, len(fleet.told(2))) == ("Progressing", 1)
    fleet.run(12, seconds=5)
    assert fleet.phase == "Completed"


def test_a_clock_is_set_by_what_it_goes_without_the_other() -> None:
    clock = Clock()
    at = [
        clock.set_by(START + timedelta(seconds=wall), mono).total_seconds()
        for wall, mono in ((0, 5), (1, 6), (61.5, 66), (0, 67), (9, 68))
    ]
    assert at == [0, 0, 0, -62.5, 8]


def test_a_moment_that_no_clock_has_is_left_as_it_was() -> None:
    fleet = Fleet(**PAUSED)
    fleet.upload(2)
    fleet.run(8)
    before = fleet.record.rollout
    for days in (4_000_000, 2_900_000, -740_000):
        assert shifted(before, timedelta(days=days)) == before


def test_a_clock_that_is_put_back_holds_up_no_older_version() -> None:
    fleet = Fleet()
    fleet.upload(2)
    fleet.upload(3, "fails")
    while fleet.phase != "RolledBack":
        fleet.step()
    fleet.wait(-86_400)
    fleet.run(20)
    assert (fleet.phase, len(fleet.on(2))) == ("Completed", 3)


def test_no_number_that_a_pod_tells_makes_the_memory_unreadable() -> None:
    fleet = Fleet(
        rollout={"steps": [{"replicas": 1}], "bake": "60s", "checks": {"live": {"mode": "Enforce"}}}
    )
    fleet.requests = 400
    fleet.bucket[1].latency = 4e305
    fleet.upload(2)
    fleet.run(80)
    assert fleet.phase == "Baking"
    assert fleet.record.rollout is not None
    assert fleet.record.rollout.before is not None


def test_one_more_than_can_be_remembered_is_remembered_all_the_same() -> None:
    fleet = Fleet()
    for version in range(3, 3 + MOST):
        fleet.upload(version)
    entries = [
        QuarantinedVersion(version=v, fingerprint=f"f{v}", reason="Aborted")
        for v in range(3, 3 + MOST)
    ]
    fleet.record = msgspec.structs.replace(fleet.record, quarantined=tuple(entries))
    fleet.upload(2, "crashes-serving")
    fleet.run(20)
    assert reason(fleet, 2) == Reason.CRASHED_SERVING
    assert len(fleet.record.quarantined) == MOST


def test_an_old_version_is_tried_again_where_it_is_pinned() -> None:
    fleet = Fleet()
    fleet.upload(2, "fails")
    fleet.run(10)
    fleet.upload(3)
    fleet.run(10)
    fleet.bucket[2].load = "good"
    fleet.actions[RETRY] = "2"
    fleet.run(5)
    assert len(fleet.on(3)) == 3
    assert "version 3 goes on" in message(fleet)
    fleet.model_fields = {"version": 2}
    fleet.run(5)
    assert len(fleet.on(2)) == 3


def test_a_rehearsal_that_is_asked_for_no_more_is_not_waited_for() -> None:
    fleet = Fleet(rollout={"rehearsal": {"enabled": True}})
    fleet.upload(2)
    fleet.run(5)
    assert fleet.phase == "Rehearsing"
    fleet.fields = {}
    fleet.run(10)
    assert (fleet.phase, len(fleet.on(2))) == ("Completed", 3)
    assert checks(fleet)["rehearsal"] == "Skipped"


def test_one_that_is_promoted_goes_on_without_the_replica_that_had_it() -> None:
    fleet = Fleet(rollout={"onFailure": "Pause"})
    fleet.upload(2, golden=CheckResult.FAILED)
    fleet.run(8)
    assert fleet.phase == "Paused"
    fleet.kill(*fleet.on(2))
    fleet.run(4)
    assert not fleet.told(2)
    fleet.actions[PROMOTE] = "2"
    fleet.run(4)
    assert fleet.told(2)


class Early(Fleet):
    """One replica has seen already that the version's objects are others by now."""

    def _report(self, pod: Pod) -> PollerStatus:
        report = super()._report(pod)
        seen = tuple(
            msgspec.structs.replace(v, fingerprint="repaired", state=VersionState.DISCOVERED)
            if v.version == 2 and pod.uid == "p3"
            else v
            for v in report.versions
        )
        return msgspec.structs.replace(report, versions=seen)


def test_what_came_under_the_number_of_one_that_failed_is_another_attempt() -> None:
    fleet = Early()
    fleet.upload(2, "crashes-serving")
    fleet.run(10)
    assert {entry.stored for entry in fleet.record.quarantined} == {"f2"}
    assert fleet.record.rollout is not None
    assert (fleet.record.candidate, fleet.record.rollout.fingerprint) == (2, "repaired")
    assert len(ever_told(fleet, 2)) == 1


def test_the_weights_are_those_of_the_objects_that_are_rolled_out() -> None:
    fleet = Fleet(server={"resources": {"limits": {"memory": "1Gi"}}})
    replicas = [
        weighing("a", fingerprint="old", weight=2**31),
        weighing("b", fingerprint="new", weight=2**20),
    ]
    found = memory(fleet.model.spec, 2, (1,), replicas, "new")
    assert found.result is CheckResult.PASSED
    assert memory(fleet.model.spec, 2, (1,), replicas, "old").result is CheckResult.FAILED


def weighing(name: str, *, fingerprint: str, weight: int) -> Replica:
    version = VersionStatus(
        version=2, state=VersionState.FETCHED, fingerprint=fingerprint, weight_bytes=weight
    )
    report = PollerStatus(revision="", model="m", source=SourceStatus(uri="u"), versions=(version,))
    return Replica(name=name, ready=True, report=report)


def test_a_pin_upwards_goes_step_by_step() -> None:
    fleet = Fleet(**PAUSED)
    fleet.model_fields = {"version": 2}
    fleet.upload(2)
    fleet.run(20)
    assert len(fleet.on(2)) == 1


@pytest.mark.parametrize("mode", ["Enforce", "Ignore"])
def test_who_gets_a_version_is_told_what_to_go_back_to(mode: str) -> None:
    fleet = Fleet(rollout={**PAUSED["rollout"], "checks": {"golden": {"mode": mode}}})
    fleet.upload(2, golden=None)
    fleet.run(2)
    # Whoever keeps the newest versions alone deletes the one before by then.
    del fleet.bucket[1]
    fleet.run(10)
    (uid,) = fleet.on(2)
    task = fleet.pods[uid].task
    assert task is not None
    assert task.stable == 1
    fleet.actions[ABORT] = "2"
    fleet.run(10)
    assert (fleet.phase, fleet.on(1)) == ("RolledBack", ["p1", "p2", "p3"])


def test_no_replica_leaves_its_services_where_no_other_one_serves() -> None:
    fleet = Fleet(replicas=2, rollout={"drain": True})
    fleet.kill("p2")
    fleet.slow_starts.add("p3")
    fleet.upload(2)
    fleet.run(10)
    assert not fleet.told(2)
    fleet.run(4, seconds=200)
    assert fleet.on(2) == ["p1"]
    assert fleet.pods["p1"].task is not None
    assert not fleet.pods["p1"].task.drain


def test_a_pin_to_a_version_that_no_pod_fetches_by_itself_brings_it() -> None:
    fleet = Fleet()
    fleet.model_fields = {"version": 1}
    fleet.upload(2)
    fleet.upload(3)
    fleet.run(5)
    assert {number for pod in fleet.pods.values() for number, _ in pod.disk} == {1, 3}
    fleet.model_fields = {"version": 2}
    fleet.run(1)
    fleet.scale(4)
    fleet.run(20)
    assert (fleet.phase, fleet.on(2)) == ("Completed", ["p1", "p2", "p3", "p4"])
    assert not ever_told(fleet, 3)


def test_what_a_pod_goes_back_to_is_kept_where_there_are_more_versions_than_two() -> None:
    fleet = Fleet(rollout={**PAUSED["rollout"], "bake": "10m"})
    fleet.upload(2)
    fleet.run(10)
    assert all(pod.task is None or pod.task.keep is None for pod in fleet.pods.values())
    fleet.upload(3)
    fleet.run(10)
    assert [pod.task.keep for pod in fleet.pods.values() if pod.task] == [1, 1, 1]
    fleet.actions[PROMOTE] = "3"
    fleet.run(10)
    assert fleet.phase == "Baking"
    assert [pod.task.keep for pod in fleet.pods.values() if pod.task] == [1, 1, 1]
    fleet.run(10, seconds=100)
    assert fleet.phase == "Completed"
    assert all(pod.task is None for pod in fleet.pods.values())


def test_one_replica_at_a_time_leaves_its_services() -> None:
    fleet = Fleet(replicas=3, rollout={"drain": True})
    fleet.upload(2)
    most = 0
    for _ in range(40):
        fleet.plan = fleet.operate()
        fleet.remember()
        fleet.tell(fleet.pods)
        moving = [p for p in fleet.pods.values() if p.assigned.target != p.answers]
        most = max(most, len(moving))
        assert all(pod.task is not None and pod.task.drain for pod in moving)
        fleet.work()
        fleet.wait(0.5)
    assert (most, fleet.phase) == (1, "Completed")
