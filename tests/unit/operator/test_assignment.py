"""What pods are told, and how it is known that they have read it."""

from __future__ import annotations

import msgspec

from inferencemodel_operator import assignment, names, spec, versions
from inferencemodel_operator.children import poller
from inferencemodel_operator.record import LISTED, QuarantinedVersion, VersionsRecord, tried_in
from inferencemodel_operator.status import Quarantine
from model_poller.status import (
    AssignmentStatus,
    GoldenTask,
    RolloutTask,
    VersionState,
    encode_task,
)
from model_poller.volume import assignment as reading
from tests.support.pods import told

RECORD = VersionsRecord(
    target=4,
    served=(4, 2),
    quarantined=(
        QuarantinedVersion(version=5, fingerprint="f5", reason="LoadFailed"),
        QuarantinedVersion(version=3, fingerprint=tried_in("t1", "f3"), reason="ServerCrashed"),
        QuarantinedVersion(version=3, fingerprint=tried_in("t2", "f3"), reason="ServerCrashed"),
    ),
)
MODEL = spec.decode(
    {
        "metadata": {"name": "m", "namespace": "vision"},
        "spec": {"model": {"storageUri": "gs://models/m"}},
    }
).spec.model
TARGET, SERVED, QUARANTINED, ROLLOUT = names.ASSIGNMENT_ANNOTATIONS


def bad(version: int, fingerprint: str) -> QuarantinedVersion:
    return QuarantinedVersion(version=version, fingerprint=fingerprint, reason="LoadFailed")


def test_the_annotations_are_the_texts_of_the_config_map() -> None:
    data = RECORD.to_data()
    assert assignment.assignment(RECORD) == {
        TARGET: data["target"],
        SERVED: data["served"],
        QUARANTINED: data["quarantined"],
    }
    assert (data["target"], data["served"], data["quarantined"]) == ("4", "4,2", "5@f5,3@f3")


def test_what_pods_were_told_is_recovered_from_them() -> None:
    known = [Quarantine(version=5, reason="LoadFailed", message="no graph in it")]
    stable, first = assignment.assignment(RECORD), assignment.assignment(replaced(6))
    found = assignment.recovered([first, stable, stable, {}], known)
    assert (found.target, found.candidate, found.rollout) == (4, None, None)
    assert [(e.version, e.fingerprint, e.reason, e.message) for e in found.quarantined] == [
        (5, "f5", "LoadFailed", "no graph in it"),
        (3, "f3", "QuarantinedElsewhere", ""),
    ]
    assert assignment.assignment(found)[QUARANTINED] == stable[QUARANTINED]
    assert assignment.recovered([first, stable], known).target == 4, "the version before"


def test_what_another_pod_template_may_mend_is_still_mended_by_one() -> None:
    known = [
        Quarantine(version=5, reason="ServerCrashed", message="give it more memory"),
        Quarantine(version=3, reason="LoadFailed"),
    ]
    found = assignment.recovered([assignment.assignment(RECORD)] * 2, known, ("t2", "t1", ""))
    assert [entry.fingerprint for entry in found.quarantined] == [
        *("f5+template:t1", "f5+template:t2", "f3"),
    ]
    report = told({5: VersionState.RETIRED, 4: VersionState.AVAILABLE}, target=4)

    def goal(template: str) -> int | None:
        pods = [versions.PodVersions(report=report, template=template)]
        return versions.decide(MODEL, found, pods, reached=None).target

    assert (goal("t1"), goal("t3")) == (4, 5)


def test_nothing_is_recovered_from_what_nobody_was_told() -> None:
    nonsense = {TARGET: "9" * 40, QUARANTINED: f"5,x@f,{'9' * 30}@f,7@{'f' * 65},@,8@f 8"}
    assert assignment.recovered([], []) == VersionsRecord()
    for texts in ({}, assignment.assignment(VersionsRecord()), nonsense):
        assert assignment.recovered([texts], []) == VersionsRecord()


def test_what_is_recovered_can_be_read_back() -> None:
    known = [Quarantine(version=5, reason="no reason!", message="\ud800" + "m" * 9000)]
    found = assignment.recovered([assignment.assignment(RECORD)], known)
    assert VersionsRecord.from_config_map(found.to_data()) == found


def replaced(target: int) -> VersionsRecord:
    return msgspec.structs.replace(RECORD, target=target, served=(target,))


def test_the_poller_reads_what_the_operator_writes() -> None:
    data = RECORD.to_data()
    environment = {variable: data[key] for variable, key in poller.ASSIGNMENT.items()}
    read = reading.parse(reading.from_environment(environment))
    assert (read.target, read.served) == (4, (4, 2))
    assert read.quarantined == frozenset({(5, "f5"), (3, "f3")})


def test_with_nothing_to_say_nothing_is_written() -> None:
    wanted = assignment.assignment(VersionsRecord())
    assert set(wanted.values()) == {""}
    assert not assignment.missing(wanted, {})


def test_it_is_written_when_any_part_of_it_differs() -> None:
    wanted = assignment.assignment(RECORD, RolloutTask(version=4))
    assert not assignment.missing(wanted, wanted)
    for name in names.ASSIGNMENT_ANNOTATIONS:
        assert assignment.missing(wanted, {**wanted, name: "old"})
    assert assignment.missing(wanted, {})


def test_a_task_stays_unless_it_goes_on_costing_something() -> None:
    golden = {ROLLOUT: encode_task(RolloutTask(version=4, golden=GoldenTask()))}
    assert ROLLOUT not in assignment.assignment(RECORD, None, golden)
    for task in (
        RolloutTask(version=4, live=True),
        RolloutTask(version=4, drain=True),
        RolloutTask(version=4, fetch=True),
        RolloutTask(version=4, keep=0),
    ):
        before = {ROLLOUT: encode_task(task)}
        assert assignment.assignment(RECORD, None, before)[ROLLOUT] == ""
    assert ROLLOUT not in assignment.assignment(RECORD)


def test_a_quarantine_that_ends_is_taken_from_the_pod() -> None:
    before = assignment.assignment(RECORD)
    after = assignment.assignment(msgspec.structs.replace(RECORD, quarantined=()))
    assert after[QUARANTINED] == ""
    assert assignment.missing(after, before)


def test_the_text_is_bounded_to_the_newest_and_takes_no_strange_fingerprint() -> None:
    many = tuple(bad(number, f"f{number}") for number in range(LISTED + 7))
    text = assignment.assignment(VersionsRecord(quarantined=many))[QUARANTINED]
    assert text.split(",")[0] == f"{LISTED + 6}@f{LISTED + 6}"
    assert text.count("@") == LISTED
    odd = VersionsRecord(quarantined=(bad(1, "a,2@b"), bad(3, "x" * 65), bad(4, "ok")))
    assert assignment.assignment(odd)[QUARANTINED] == "4@ok"


def test_an_assignment_is_confirmed_when_the_poller_repeats_all_of_it() -> None:
    wanted = assignment.assignment(RECORD)
    report = told({4: VersionState.AVAILABLE}, target=4)
    whole = AssignmentStatus(target="4", served="4,2", quarantined="5@f5,3@f3")
    assert assignment.is_confirmed(wanted, msgspec.structs.replace(report, assigned=whole))
    part = msgspec.structs.replace(whole, quarantined="5@f5")
    assert not assignment.is_confirmed(wanted, msgspec.structs.replace(report, assigned=part))


def test_an_older_poller_confirms_by_the_target_alone() -> None:
    wanted = assignment.assignment(RECORD)
    assert assignment.is_confirmed(wanted, told({4: VersionState.AVAILABLE}, target=4))
    assert not assignment.is_confirmed(wanted, told({4: VersionState.AVAILABLE}, target=2))
