"""What one replica says that isn't so costs that replica, and holds up none of the others."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferencemodel_operator import bounds
from inferencemodel_operator.hearsay import FOLLOWED, LOOK_SECONDS, HearsayWatch
from inferencemodel_operator.record import QuarantinedVersion
from inferencemodel_operator.versions import MOST_OF_ONE
from model_poller.status import (
    CheckResult,
    GoldenStatus,
    Interface,
    PollerStatus,
    SignatureSpec,
    SourceReason,
    SourceState,
    SourceStatus,
    VersionReason,
    VersionState,
    VersionStatus,
)
from tests.support.fleets import Fleet
from tests.support.pods import told

A, D, F, INC, Q, R = (
    VersionState.AVAILABLE,
    VersionState.DISCOVERED,
    VersionState.FETCHED,
    VersionState.INCOMPLETE,
    VersionState.QUARANTINED,
    VersionState.RETIRED,
)
FACE = Interface(signatures={"serving_default": SignatureSpec()})
OTHER_FACE = Interface(signatures={"other": SignatureSpec()})
UNREACHABLE = SourceStatus(
    uri="gs://models/m", state=SourceState.FAILED, reason=SourceReason.UNREACHABLE
)
LIARS = pytest.mark.parametrize("liar", ["p1", "p2", "p3"])


def claim(number: int, state: VersionState = D, **fields: Any) -> VersionStatus:
    defaults: dict[str, Any] = {"fingerprint": f"f{number}", "in_source": True}
    return VersionStatus(version=number, state=state, **{**defaults, **fields})


def lied_to(liar: str, *claims: VersionStatus, answers: int | None = None) -> Fleet:
    """A fleet of three whose versions' interfaces are alike."""
    fleet = Fleet(server={"resources": {"limits": {"memory": "1Gi"}}})
    fleet.bucket[1].interface = FACE
    fleet.pods[liar].claims = claims
    fleet.pods[liar].claims_to_answer = answers
    return fleet


def upload(fleet: Fleet, version: int) -> None:
    fleet.upload(version, interface=FACE, weight=1000)


def until_progressing(fleet: Fleet) -> None:
    for _ in range(30):
        if fleet.phase == "Progressing":
            return
        assert fleet.phase != "Paused"
        fleet.step()
    raise AssertionError(fleet.phase)


def honest(fleet: Fleet, liar: str) -> list[str]:
    return sorted(fleet.pods.keys() - {liar})


NOWHERE = {
    "found": (claim(999), None),
    "fetched": (claim(999, F), None),
    "answering": (claim(999, A, proven=True), 999),
    "answering, and not in the bucket": (claim(999, A, proven=True, in_source=False), 999),
    "the highest number": (claim(bounds.LARGEST_NUMBER, A), bounds.LARGEST_NUMBER),
    "failing": (claim(999, D, failures=2, reason=VersionReason.FETCH_FAILED), None),
    "quarantined": (claim(999, Q, reason=VersionReason.LOAD_FAILED), None),
}


@LIARS
@pytest.mark.parametrize("what", NOWHERE)
def test_a_version_that_is_nowhere_holds_up_none_that_is_there(liar: str, what: str) -> None:
    claimed, answers = NOWHERE[what]
    fleet = lied_to(liar, claimed, answers=answers)
    fleet.run(100, seconds=2)
    assert fleet.record.target == 1
    assert fleet.record.candidate is None
    upload(fleet, 2)
    fleet.run(60, seconds=2)
    assert set(honest(fleet, liar)) <= set(fleet.on(2))
    fleet.kill(honest(fleet, liar)[0])
    fleet.run(10)
    assert set(honest(fleet, liar)) <= set(fleet.on(2))


@LIARS
def test_pods_that_start_serve_though_one_tells_of_a_version_that_is_nowhere(liar: str) -> None:
    fleet = lied_to(liar, claim(999, A, proven=True), answers=999)
    fleet.run(100, seconds=2)
    fleet.kill(honest(fleet, liar)[0])
    fleet.run(10)
    assert set(honest(fleet, liar)) <= set(fleet.on(1))


@LIARS
def test_the_first_target_of_all_gives_way_to_one_that_is_there(liar: str) -> None:
    fleet = Fleet(stable=None)
    fleet.pods[liar].claims = (claim(999),)
    fleet.run(3)
    upload(fleet, 2)
    fleet.run(100, seconds=2)
    assert fleet.record.target == 2
    assert fleet.on(2) == ["p1", "p2", "p3"]


@LIARS
@pytest.mark.parametrize("state", [D, F])
@pytest.mark.parametrize("steps", [0, 3])
def test_other_objects_under_a_number_are_those_that_most_replicas_find(
    liar: str, state: VersionState, steps: int
) -> None:
    fleet = lied_to(liar, claim(2, state, fingerprint="0"))
    fleet.run(steps)
    upload(fleet, 2)
    fleet.run(60, seconds=2)
    assert fleet.record.target == 2
    assert set(honest(fleet, liar)) <= set(fleet.on(2))


@LIARS
def test_other_objects_under_the_number_of_a_bad_version_are_nowhere(liar: str) -> None:
    fleet = lied_to(liar)
    fleet.upload(2, "fails", interface=FACE)
    fleet.run(30)
    assert [(q.version, q.stored) for q in fleet.record.quarantined] == [(2, "f2")]
    fleet.pods[liar].claims = (claim(2, A, fingerprint="0"),)
    fleet.pods[liar].claims_to_answer = 2
    fleet.run(100, seconds=2)
    assert fleet.record.candidate is None
    assert set(fleet.told(1)) >= set(honest(fleet, liar))


@LIARS
def test_a_weight_beyond_what_others_tell_is_no_proof(liar: str) -> None:
    fleet = lied_to(liar, claim(2, D, weight_bytes=2**62))
    upload(fleet, 2)
    fleet.run(60, seconds=2)
    assert fleet.record.target == 2


@LIARS
def test_the_interface_that_most_replicas_tell_is_the_versions(liar: str) -> None:
    fleet = lied_to(liar, claim(1, A, interface=OTHER_FACE, proven=True), answers=1)
    upload(fleet, 2)
    until_progressing(fleet)
    fleet = lied_to(liar, claim(2, F, interface=OTHER_FACE))
    upload(fleet, 2)
    fleet.run(4)
    assert fleet.phase == "Progressing"


@LIARS
def test_golden_answers_are_of_replicas_that_have_the_version(liar: str) -> None:
    fleet = lied_to(liar)
    upload(fleet, 2)
    until_progressing(fleet)
    assert fleet.plan.record.rollout is not None
    task = f"2-{int(fleet.plan.record.rollout.started.timestamp())}.0"
    golden = GoldenStatus(task=task, result=CheckResult.FAILED)
    fleet.pods[liar].claims = (claim(2, D, golden=golden),)
    fleet.run(20)
    assert fleet.record.quarantined == ()


@LIARS
def test_who_answers_with_something_untold_is_not_the_first_to_have_a_version(liar: str) -> None:
    fleet = lied_to(liar, claim(999, A), answers=999)
    fleet.run(100, seconds=2)
    fleet.tellings.clear()
    upload(fleet, 2)
    fleet.run(10)
    assert fleet.tellings[0] in [(uid, 2) for uid in honest(fleet, liar)]


@LIARS
def test_failures_that_one_replica_makes_up_push_out_none_that_is_known(liar: str) -> None:
    many = (claim(900 + n, Q, reason=VersionReason.LOAD_FAILED) for n in range(bounds.VERSIONS))
    fleet = lied_to(liar)
    fleet.upload(2, "crashes-serving", interface=FACE)
    fleet.run(20)
    assert [q.version for q in fleet.record.quarantined] == [2]
    fleet.pods[liar].claims = tuple(many)
    fleet.tellings.clear()
    fleet.run(20)
    assert fleet.tellings == []
    assert [q.version for q in fleet.record.quarantined][MOST_OF_ONE:] == [2]


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(["p1", "p2", "p3"]),
    st.lists(
        st.builds(
            VersionStatus,
            version=st.sampled_from([0, 7, 19, 21, 999, 2**53, bounds.LARGEST_NUMBER]),
            state=st.sampled_from(VersionState),
            in_source=st.booleans(),
            fingerprint=st.sampled_from(["", "f1", "f20", "other"]),
            disk_fingerprint=st.sampled_from(["", "f20"]),
            proven=st.booleans(),
            failures=st.sampled_from([0, 9]),
            reason=st.none() | st.sampled_from(VersionReason),
            weight_bytes=st.sampled_from([0, 2**62]),
            interface=st.none() | st.just(OTHER_FACE),
        ),
        max_size=5,
        unique_by=lambda version: version.version,
    ),
    st.sampled_from([None, 0, 7, 19, 21, 999, bounds.LARGEST_NUMBER]),
)
def test_whatever_one_replica_makes_up_the_others_get_the_newest_version(
    liar: str, claims: list[VersionStatus], answers: int | None
) -> None:
    fleet = lied_to(liar, *claims, answers=answers)
    fleet.run(60, seconds=5)
    upload(fleet, 20)
    fleet.run(60, seconds=2)
    fleet.kill(honest(fleet, liar)[0])
    fleet.run(10)
    assert set(honest(fleet, liar)) <= set(fleet.on(20))


class TestTheWordOfOne:
    INTERVAL = 30.0

    def look(self, watch: HearsayWatch, now: float, **reports: PollerStatus) -> frozenset[int]:
        return watch.look(reports, (), self.INTERVAL, now).unfounded

    def test_counts_until_two_others_had_the_time_to_look(self) -> None:
        watch = HearsayWatch()
        pods = {"a": told({1: A, 2: D}), "b": told({1: A}), "c": told({1: A})}
        heard = watch.look(pods, (), self.INTERVAL, 100.0)
        assert heard.unfounded == frozenset()
        assert heard.after == self.INTERVAL + LOOK_SECONDS
        assert self.look(watch, 100.0 + heard.after - 1, **pods) == frozenset()
        assert self.look(watch, 100.0 + heard.after, **pods) == {2}
        assert watch.look(pods, (), self.INTERVAL, 1000.0).after is None

    def test_counts_no_longer_than_a_look_where_others_are_told_to_serve_it(self) -> None:
        watch = HearsayWatch()
        seeking = told({1: A}, target=2)
        pods = {"a": told({1: A, 2: D}), "b": seeking, "c": seeking}
        assert self.look(watch, 0.0, **pods) == frozenset()
        assert self.look(watch, LOOK_SECONDS, **pods) == {2}

    @pytest.mark.parametrize(
        "other",
        [
            told({1: A, 2: D}),
            told({1: A, 2: INC}),
            told({1: A, 2: R}),
            told({1: A}, source=UNREACHABLE),
            told(dict.fromkeys(range(3, 3 + bounds.VERSIONS), D)),
        ],
        ids=["found", "in part", "on its disk", "that can't look", "that tells no more"],
    )
    def test_is_not_spoken_against_by_a_pod(self, other: PollerStatus) -> None:
        watch = HearsayWatch()
        pods = {"a": told({1: A, 2: D}), "b": told({1: A}), "c": other}
        assert 2 not in self.look(watch, 0.0, **pods)
        assert 2 not in self.look(watch, 1000.0, **pods)

    def test_counts_against_one_other(self) -> None:
        watch = HearsayWatch()
        pods = {"a": told({1: A, 2: D}), "b": told({1: A})}
        assert self.look(watch, 0.0, **pods) == frozenset()
        assert self.look(watch, 1000.0, **pods) == frozenset()

    def test_is_not_believed_at_once_again(self) -> None:
        watch = HearsayWatch()
        others = {"b": told({1: A}), "c": told({1: A})}
        numbers = range(2, 2 + 2 * FOLLOWED)
        self.look(watch, 0.0, a=told({1: A, **dict.fromkeys(numbers, D)}), **others)
        assert self.look(
            watch, 1000.0, a=told({1: A, **dict.fromkeys(numbers, D)}), **others
        ) == set(numbers)
        assert self.look(watch, 1001.0, a=told({1: A, 99: D}), **others) == {99}
        found = {"a": told({99: D}), "b": told({99: D}), "c": told({1: A})}
        assert self.look(watch, 1002.0, **found) == frozenset()
        # Another pod is another one.
        assert self.look(watch, 1003.0, d=told({1: A, 99: D}), **others) == frozenset()

    def test_is_about_objects_that_are_not_known_to_be_bad(self) -> None:
        watch = HearsayWatch()
        bad = [QuarantinedVersion(version=2, fingerprint="f2", reason="LoadFailed")]
        pods = {
            "a": told({2: D}, fingerprints={2: "other"}),
            "b": told({2: D}),
            "c": told({2: D}),
        }
        assert watch.look(pods, bad, self.INTERVAL, 0.0).unfounded == frozenset()
        assert watch.look(pods, bad, self.INTERVAL, 1000.0).unfounded == {2}
