"""Which version becomes the target, from what pods report and what is remembered."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from inferencemodel_operator import spec, versions
from inferencemodel_operator.record import QuarantinedVersion, VersionsRecord
from inferencemodel_operator.versions import PodVersions
from model_poller.status import PollerStatus, SourceReason, SourceState, SourceStatus, VersionState
from tests.support.pods import told

A, D, F, INC, P, Q, R = (
    VersionState.AVAILABLE,
    VersionState.DISCOVERED,
    VersionState.FETCHED,
    VersionState.INCOMPLETE,
    VersionState.PUBLISHED,
    VersionState.QUARANTINED,
    VersionState.RETIRED,
)
UNREADABLE = SourceStatus(
    uri="gs://models/m", state=SourceState.FAILED, reason=SourceReason.ACCESS_DENIED
)


def model(**fields: Any) -> spec.Model:
    return spec.Model(storage_uri="gs://models/m", **fields)


def pod(report: PollerStatus | None, **fields: Any) -> PodVersions:
    return PodVersions(report=report, **fields)


def decide(
    *pods: PodVersions,
    target: int | None = None,
    quarantined: tuple[QuarantinedVersion, ...] = (),
    active: int | None = None,
    **fields: Any,
) -> VersionsRecord:
    record = VersionsRecord(target=target, quarantined=quarantined)
    return versions.decide(model(**fields), record, pods, active=active)


def bad(version: int, fingerprint: str | None = None) -> QuarantinedVersion:
    return QuarantinedVersion(
        version=version, fingerprint=fingerprint or f"f{version}", reason="LoadFailed"
    )


def off_source(report: PollerStatus, *numbers: int) -> PollerStatus:
    """The same report, with some versions no longer in the bucket."""
    return msgspec.structs.replace(
        report,
        versions=tuple(
            msgspec.structs.replace(v, in_source=v.in_source and v.version not in numbers)
            for v in report.versions
        ),
    )


def test_without_a_report_there_is_no_target() -> None:
    assert decide(pod(None)).target is None
    assert decide().target is None


@pytest.mark.parametrize("state", [D, VersionState.FETCHING, F, P, A, R])
def test_the_newest_version_that_any_pod_has_whole_is_the_target(state: VersionState) -> None:
    assert decide(pod(told({3: A})), pod(told({3: A, 4: state})), pod(None), target=3).target == 4


def test_zero_is_a_version() -> None:
    assert decide(pod(told({0: D}))).target == 0


def test_an_incomplete_version_is_no_target() -> None:
    assert decide(pod(told({3: A, 4: INC})), target=3).target == 3


def test_a_pinned_version_is_the_target_whatever_is_known_of_it() -> None:
    assert decide(pod(told({3: A})), target=3, version=1).target == 1
    assert decide(pod(told({3: A, 9: Q})), target=3, version=9).target == 9
    assert decide(target=3, version=2).target == 2


def test_a_version_below_the_minimum_is_never_turned_to() -> None:
    assert decide(pod(told({3: D, 4: D})), min_version=5).target is None
    assert decide(pod(told({4: D, 5: D})), min_version=5).target == 5
    fallen = decide(pod(told({4: R, 5: Q})), target=5, min_version=5)
    assert fallen.target == 5


def test_a_minimum_above_the_target_waits_for_a_version_that_meets_it() -> None:
    assert decide(pod(told({3: A})), target=3, min_version=5).target == 3
    assert decide(pod(told({3: A, 5: D})), target=3, min_version=5).target == 5


def test_a_quarantined_target_falls_back_to_the_newest_good_one() -> None:
    decided = decide(pod(told({1: R, 2: A, 3: Q})), pod(told({2: A, 3: F})), target=3)
    assert decided.target == 2
    assert [(q.version, q.fingerprint) for q in decided.quarantined] == [(3, "f3")]


def test_with_nothing_good_the_target_stays() -> None:
    assert decide(pod(told({3: Q})), target=3).target == 3


def test_a_quarantine_is_remembered_for_pods_that_know_nothing_of_it() -> None:
    assert decide(pod(told({2: A, 3: D})), target=2, quarantined=(bad(3),)).target == 2
    assert decide(pod(None), target=2, quarantined=(bad(3),)).quarantined == (bad(3),)


def test_a_quarantine_ends_when_the_stored_objects_change_or_go() -> None:
    repaired = decide(
        pod(told({2: A, 3: D}, fingerprints={3: "new"})), target=2, quarantined=(bad(3),)
    )
    assert (repaired.target, repaired.quarantined) == (3, ())
    assert decide(pod(told({2: A})), target=2, quarantined=(bad(3),)).quarantined == ()


def test_a_quarantine_outlives_an_unreadable_bucket() -> None:
    report = told({2: A}, source=UNREADABLE)
    assert decide(pod(report), target=2, quarantined=(bad(3),)).quarantined == (bad(3),)


def test_a_version_that_every_replica_served_is_not_taken_back_for_one_pod() -> None:
    decided = decide(pod(told({2: R, 3: A})), pod(told({2: D, 3: Q})), target=3, active=3)
    assert (decided.target, decided.quarantined) == (3, ())


def test_a_version_on_its_way_is_given_up_for_all_when_one_pod_fails_with_it() -> None:
    decided = decide(pod(told({2: R, 3: A})), pod(told({2: A, 3: Q})), target=3, active=2)
    assert decided.target == 2


@pytest.mark.parametrize("target", [5, 3])
def test_a_wiped_bucket_takes_nothing_back(target: int) -> None:
    disk = off_source(told({3: R, 5: A}), 3, 5)
    assert decide(pod(disk), target=target).target == max(target, 5)
    assert decide(pod(told({})), target=target).target == target
    assert decide(pod(told({}, source=UNREADABLE)), target=target).target == target
    assert decide(pod(None), target=target).target == target
    assert decide(target=target).target == target


def test_a_target_that_only_its_pods_still_have_stays() -> None:
    assert decide(pod(off_source(told({4: R, 5: A}), 5)), target=5).target == 5


def test_a_target_that_is_nowhere_gives_way_to_one_that_is() -> None:
    assert decide(pod(told({4: D})), pod(told({4: D})), target=99).target == 4
    assert decide(pod(told({4: D})), pod(None), target=99).target == 99
    assert decide(pod(told({4: D}, source=UNREADABLE)), target=99).target == 99


def test_a_retired_version_that_left_the_bucket_is_not_turned_to() -> None:
    assert decide(pod(off_source(told({4: A, 5: R}), 5)), target=4).target == 4


def test_a_crash_during_the_load_counts_as_a_failure_of_that_pod_template() -> None:
    report = told({2: F, 3: P}, target=3)
    crashed = decide(pod(report, template="t1", crashed=3), target=3)
    assert crashed.target == 2
    assert crashed.quarantined[0].reason == "ServerCrashed"

    same = decide(pod(report, template="t1"), target=2, quarantined=crashed.quarantined)
    assert same.target == 2
    assert same.quarantined == crashed.quarantined
    other = decide(pod(report, template="t2"), target=2, quarantined=crashed.quarantined)
    assert (other.target, other.quarantined) == (3, ())
    nobody = decide(target=2, quarantined=crashed.quarantined)
    assert nobody.quarantined == crashed.quarantined


def test_deciding_again_changes_nothing() -> None:
    pods = [pod(told({1: R, 2: A, 3: Q})), pod(told({2: A, 4: D})), pod(None)]
    record = decide(*pods, target=2)
    assert versions.decide(model(), record, pods, active=2) == record


def test_the_latest_version_is_the_newest_whole_one_good_or_bad() -> None:
    assert versions.latest([told({3: A, 4: Q, 5: INC}), told({2: A})]) == 4
    assert versions.latest([]) is None
