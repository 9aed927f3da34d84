"""Which version becomes the target, from what pods report and what is remembered."""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec
import pytest

from inferencemodel_operator import spec, versions
from inferencemodel_operator.record import (
    TEMPLATES,
    ActiveVersion,
    QuarantinedVersion,
    VersionsRecord,
    WorkingTemplate,
)
from inferencemodel_operator.versions import PodVersions
from model_poller.status import (
    PollerStatus,
    SourceReason,
    SourceState,
    SourceStatus,
    VersionReason,
    VersionState,
)
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
    reached: int | None = None,
    **fields: Any,
) -> VersionsRecord:
    record = VersionsRecord(target=target, quarantined=quarantined)
    return versions.decide(model(**fields), record, pods, reached=reached)


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
    assert decide(pod(told({3: A})), target=3, min_version=5).target is None
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


def test_a_quarantine_outlives_the_stored_objects_while_a_pod_answers_with_them() -> None:
    """Or it would be the newest version that anybody has, and be turned to again."""
    deleted = pod(off_source(told({2: R, 3: A}), 3))
    decided = decide(deleted, pod(told({2: A})), target=2, quarantined=(bad(3),))
    assert (decided.target, decided.quarantined) == (2, (bad(3),))


def test_a_quarantine_outlives_an_unreadable_bucket() -> None:
    report = told({2: A}, source=UNREADABLE)
    assert decide(pod(report), target=2, quarantined=(bad(3),)).quarantined == (bad(3),)


def test_a_version_that_every_replica_served_is_not_taken_back_for_one_pod() -> None:
    decided = decide(pod(told({2: R, 3: A})), pod(told({2: D, 3: Q})), target=3, reached=3)
    assert (decided.target, decided.quarantined) == (3, ())


def test_a_version_on_its_way_is_given_up_for_all_when_one_pod_fails_with_it() -> None:
    decided = decide(pod(told({2: R, 3: A})), pod(told({2: A, 3: Q})), target=3, reached=2)
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


class TestAVersionThatCanNotBeFetched:
    REFUSED: ClassVar = {3: (VersionReason.FETCH_FAILED, "403")}

    def failing(self, others: dict[int, VersionState], **fields: Any) -> PodVersions:
        return pod(told({**others, 3: D}, reasons=self.REFUSED, **fields))

    @pytest.mark.parametrize("target", [None, 2, 3])
    def test_holds_up_no_other(self, target: int | None) -> None:
        assert decide(self.failing({2: F}), self.failing({2: D}), target=target).target == 2

    def test_is_the_target_again_once_a_pod_has_it(self) -> None:
        assert decide(self.failing({2: A}), pod(told({2: A, 3: F})), target=2).target == 3

    def test_stays_the_target_while_a_pod_may_still_get_it(self) -> None:
        assert decide(self.failing({2: A}), pod(told({2: A, 3: D})), target=3).target == 3
        assert decide(self.failing({2: A}), pod(None), target=3).target == 3
        assert decide(self.failing({2: A}, failures=1), target=3).target == 3
        fetching = told({2: A, 3: VersionState.FETCHING})
        assert decide(self.failing({2: A}), pod(fetching), target=3).target == 3

    def test_does_not_become_the_target_for_each_new_pod(self) -> None:
        assert decide(self.failing({2: A}), pod(told({2: D, 3: D})), target=2).target == 2

    def test_is_one_of_which_a_pod_knows_that_a_part_is_missing(self) -> None:
        """Which only the graph tells, so that each new pod takes it for whole at first."""
        missing = {3: (VersionReason.MISSING_VARIABLES, "variables/variables.index is missing")}
        known = pod(told({2: A, 3: INC}, reasons=missing))
        assert decide(known, pod(told({2: D, 3: D})), target=2).target == 2
        assert decide(known, pod(told({2: A, 3: F})), target=2).target == 3
        looking = {3: (VersionReason.UNSTABLE_LISTING, "")}
        assert decide(pod(told({2: A, 3: INC}, reasons=looking)), pod(told({3: D}))).target == 3

    def test_is_the_target_where_there_is_no_other(self) -> None:
        assert decide(self.failing({})).target == 3
        assert decide(self.failing({2: A}), target=3, min_version=3).target == 3

    def test_is_one_that_is_too_large_and_none_that_waits_for_warm_up_requests(self) -> None:
        def held(reason: VersionReason) -> PodVersions:
            return pod(told({2: A, 3: D}, reasons={3: (reason, "")}, failures=2))

        assert decide(held(VersionReason.INSUFFICIENT_DISK), target=3).target == 2
        assert decide(held(VersionReason.WARMUP_UNAVAILABLE), target=3).target == 3
        assert decide(held(VersionReason.QUARANTINED_ELSEWHERE), target=3).target == 3


def test_a_retired_version_that_left_the_bucket_is_not_turned_to() -> None:
    assert decide(pod(off_source(told({4: A, 5: R}), 5)), target=4).target == 4


def test_a_crash_during_the_load_counts_as_a_failure_of_that_pod_template() -> None:
    report = told({2: R, 3: P}, target=3)
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


def test_a_crash_in_a_template_that_nobody_knows_counts_for_all() -> None:
    (entry,) = decide(crashing("", proven=(2,)), target=3).quarantined
    assert (entry.fingerprint, entry.template) == ("f3", "")
    (entry,) = decide(crashing("t1", proven=(2,)), target=3).quarantined
    assert (entry.stored, entry.template) == ("f3", "t1")


def crashing(template: str = "t1", *, proven: tuple[int, ...] = ()) -> PodVersions:
    """A pod whose model server ends while it loads version 3."""
    report = told({2: F, 3: P}, target=3, reachable=False, proven=proven)
    return pod(report, template=template, crashed=3)


def answering(version: int, template: str = "t1") -> PodVersions:
    return pod(told({version: A, 3: D} if version != 3 else {3: A}), template=template)


@pytest.mark.parametrize(
    ("pods", "guilty"),
    [
        ([crashing()], False),
        ([crashing(proven=(2,))], True),
        ([crashing(proven=(3,))], False),
        ([crashing(proven=(2, 3))], False),
        ([crashing(), answering(2)], True),
        ([crashing("t2"), answering(2, "t1")], False),
        ([crashing(), answering(3)], False),
        ([crashing(proven=(2,)), answering(3)], True),
        ([crashing(proven=(2,)), answering(3), answering(3)], False),
        ([crashing(proven=(2,)), crashing(proven=(2,)), answering(3)], True),
        ([crashing("t2"), crashing("t2"), answering(2, "t1")], False),
    ],
)
def test_a_crash_speaks_against_a_version_where_the_template_has_served_another_one(
    pods: list[PodVersions], guilty: bool
) -> None:
    decided = decide(*pods, target=3)
    assert [entry.version for entry in decided.quarantined] == [3] * guilty
    assert decided.target == (2 if guilty else 3)


def test_what_a_template_has_served_is_remembered_when_its_pods_are_gone() -> None:
    before = decide(answering(2), target=2)
    assert before.templates == (WorkingTemplate("t1", (2,)),)
    after = versions.decide(model(), before, [crashing()], reached=None)
    assert [entry.version for entry in after.quarantined] == [3]


def test_of_the_templates_those_of_live_pods_are_remembered() -> None:
    record = VersionsRecord(templates=tuple(WorkingTemplate(f"old{n}", (1,)) for n in range(20)))
    decided = versions.decide(model(), record, [answering(2)], reached=None)
    assert decided.templates[0] == WorkingTemplate("t1", (2,))
    assert len(decided.templates) == TEMPLATES
    assert versions.decide(model(), decided, [answering(2)], reached=None) == decided


def test_more_served_versions_than_are_remembered_change_nothing_a_second_time() -> None:
    pods = [pod(told(dict.fromkeys(range(9), R)), template=name) for name in ("t1", "t2")]
    pods += [pod(told(dict.fromkeys(range(100), R)), template=f"many{n}") for n in range(TEMPLATES)]
    decided = decide(*pods, target=99)
    assert len(decided.templates) == TEMPLATES
    assert versions.decide(model(), decided, pods, reached=None) == decided
    assert versions.decide(model(), decided, pods[::-1], reached=None) == decided


def test_a_reached_version_is_remembered_and_not_taken_back_later() -> None:
    reached = decide(answering(3), target=3, reached=3)
    assert reached.active == ActiveVersion(3, "f3")
    later = versions.decide(model(), reached, [crashing(proven=(2,))], reached=None)
    assert (later.target, later.quarantined, later.active) == (3, (), reached.active)
    failing = pod(told({2: R, 3: Q}), template="t1")
    assert versions.decide(model(), reached, [failing], reached=None).quarantined == ()


def test_a_reached_version_that_an_older_release_has_quarantined_is_released() -> None:
    decided = decide(answering(3), target=3, quarantined=(bad(3),), reached=3)
    assert (decided.target, decided.quarantined) == (3, ())


def test_other_objects_under_the_number_that_was_reached_have_to_prove_themselves() -> None:
    reached = decide(answering(3), target=3, reached=3)
    report = told({2: R, 3: P}, target=3, reachable=False, fingerprints={3: "new"}, proven=(2,))
    other = pod(report, template="t1", crashed=3)
    later = versions.decide(model(), reached, [other], reached=3)
    assert (later.target, [q.stored for q in later.quarantined]) == (2, ["new"])


def test_what_the_status_says_of_pods_that_are_gone_protects_nothing() -> None:
    assert decide(answering(2), target=2, reached=9).active is None


@pytest.mark.parametrize(
    ("template", "guilty"), [("t1", True), ("t2", False)], ids=["works", "never worked"]
)
def test_a_time_limit_of_a_load_is_judged_as_a_crash_is(template: str, guilty: bool) -> None:
    late = told({3: Q}, reasons={3: (VersionReason.LOAD_TIMEOUT, "not AVAILABLE after 600 s")})
    decided = decide(pod(late, template=template), answering(2), target=3)
    assert [(q.version, q.reason) for q in decided.quarantined] == [(3, "LoadTimeout")] * guilty
    beside = decide(pod(late, template="t1"), answering(3), answering(3), target=3)
    assert beside.quarantined == ()


def test_a_load_that_fails_where_nothing_ever_served_is_not_held_against_the_version() -> None:
    failed = told({3: Q}, reasons={3: (VersionReason.LOAD_FAILED, "no op named X")})
    new, old = pod(failed, template="t2"), answering(2, "t1")
    assert decide(new, old, target=3).quarantined == ()
    assert decide(new, target=3).quarantined != (), "there is no template that works"
    assert decide(pod(failed, template="t1"), old, target=3).quarantined != ()
    broken = told({3: Q}, reasons={3: (VersionReason.BAD_ARCHIVE, "cut")})
    assert decide(pod(broken, template="t2"), old, target=3).quarantined != ()


def test_an_upload_under_the_same_number_is_not_held_to_account_for_the_one_before() -> None:
    report = told({2: R, 3: P}, target=3, fingerprints={3: "new"})
    tried = tuple(
        msgspec.structs.replace(v, disk_fingerprint="old" if v.version == 3 else "")
        for v in report.versions
    )
    changed = msgspec.structs.replace(report, versions=tried)
    decided = decide(pod(changed, template="t1", crashed=3), target=3)
    assert decided.target == 3
    assert [q.stored for q in decided.quarantined] == ["old"]
    fetched = told({2: R, 3: P}, target=3, fingerprints={3: "new"})
    later = versions.decide(model(), decided, [pod(fetched, template="t1")], reached=None)
    assert (later.target, later.quarantined) == (3, ())


def test_another_source_begins_with_nothing() -> None:
    before = decide(answering(3), target=3, reached=3, quarantined=(bad(4),))
    other = spec.Model(storage_uri="gs://models/other")
    assert versions.decide(other, before, [], reached=3) == VersionsRecord(
        source="gs://models/other"
    )


class TestServed:
    def serve(self, *pods: PodVersions, before: tuple[int, ...], **fields: Any) -> tuple[int, ...]:
        templates = (WorkingTemplate("", before),) if before else ()
        record = VersionsRecord(
            target=fields.pop("target", None), served=before, templates=templates
        )
        wanted = model(num_versions=fields.pop("num_versions", 2), **fields)
        return versions.decide(wanted, record, pods, reached=None).served

    def test_is_the_target_alone_by_default(self) -> None:
        report = pod(told({1: R, 2: A}))
        assert self.serve(report, before=(2,), num_versions=1) == (2,)

    def test_is_filled_up_with_the_next_lower_good_versions_that_were_served(self) -> None:
        report = pod(told({1: R, 2: Q, 3: R, 4: INC, 5: A, 6: A}))
        assert self.serve(report, before=()) == (6, 5)
        assert self.serve(report, before=(), num_versions=9) == (6, 5, 3, 1)

    def test_takes_nothing_that_was_never_tried(self) -> None:
        assert self.serve(pod(told({1: D, 2: F, 3: P, 4: A})), before=()) == (4,)

    def test_takes_what_was_served_by_pods_that_are_gone(self) -> None:
        record = VersionsRecord(target=4, served=(4,), templates=(WorkingTemplate("old", (4, 2)),))
        fresh = pod(told({1: D, 2: D, 3: D, 4: D}), template="new")
        wanted = model(num_versions=3)
        assert versions.decide(wanted, record, [fresh], reached=None).served == (4, 2)

    def test_keeps_what_is_served_already(self) -> None:
        report = pod(told({1: A, 2: A, 3: R, 4: D}))
        assert self.serve(report, before=(2, 1), target=2) == (4, 2)

    def test_goes_down_with_a_pin_and_stays_below_it(self) -> None:
        report = pod(told({1: R, 2: R, 3: A, 4: A}))
        assert self.serve(report, before=(4, 3), version=2) == (2, 1)

    def test_keeps_nothing_that_failed_or_is_gone_for_sure(self) -> None:
        assert self.serve(pod(told({1: R, 2: Q, 3: A})), before=(3, 2)) == (3, 1)
        assert self.serve(pod(told({1: R, 3: A})), before=(3, 2)) == (3, 1)
        assert self.serve(pod(told({1: R, 3: A})), pod(None), before=(3, 2)) == (3, 2)

    def test_keeps_what_only_a_pod_still_has(self) -> None:
        assert self.serve(pod(off_source(told({1: D, 2: A, 3: A}), 2)), before=(3, 2)) == (3, 2)

    def test_is_never_below_the_minimum(self) -> None:
        assert self.serve(pod(told({1: A, 2: A})), before=(2, 1), min_version=2) == (2,)

    def test_takes_no_target_that_never_answered_for_one_that_was_served(self) -> None:
        record = VersionsRecord(target=3, served=(3,))
        report = pod(told({3: P, 4: D}))
        assert versions.decide(model(num_versions=2), record, [report], reached=None).served == (4,)

    def test_is_known_without_any_pod(self) -> None:
        assert self.serve(before=(4, 2), target=4) == (4, 2)
        assert self.serve(before=(4, 2), target=4, num_versions=1) == (4,)


def test_deciding_again_changes_nothing() -> None:
    pods = [pod(told({1: R, 2: A, 3: Q})), pod(told({2: A, 4: D})), pod(None)]
    record = decide(*pods, target=2, reached=2)
    assert versions.decide(model(), record, pods, reached=2) == record


def test_the_latest_version_is_the_newest_whole_one_good_or_bad() -> None:
    assert versions.latest([told({3: A, 4: Q, 5: INC}), told({2: A})]) == 4
    assert versions.latest([]) is None
