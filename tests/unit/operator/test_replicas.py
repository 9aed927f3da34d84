"""Whose fault a crash is, and what all replicas serve, from the first round to the last."""

from __future__ import annotations

import copy

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inferencemodel_operator.record import VersionsRecord
from tests.unit.operator.replicas import Fate, Replica, Replicas


def serving(wanted: int, *uploads: int, num_versions: int = 1) -> Replicas:
    """Replicas that serve what was uploaded, one version after the other."""
    world = Replicas(wanted, num_versions=num_versions)
    for version in uploads:
        world.upload(version)
        world.settle(6)
    assert all(max(pod.serving) == uploads[-1] for pod in world.pods)
    return world


def answers(world: Replicas) -> list[int | None]:
    return [max(pod.serving, default=None) for pod in world.pods]


def bad(record: VersionsRecord) -> list[int]:
    return [entry.version for entry in record.quarantined]


def changes(targets: list[int | None]) -> list[int | None]:
    return [now for before, now in zip([None, *targets], targets, strict=False) if now != before]


def test_a_version_that_brings_down_two_of_three_is_taken_back_from_the_third() -> None:
    world = serving(3, 1)
    for pod in world.pods[1:]:
        pod.victims = frozenset({2})
    world.upload(2)
    world.settle()
    assert answers(world) == [1, 1, 1]
    assert bad(world.record) == [2]
    assert changes(world.targets) == [1, 2, 1]


def test_a_version_that_brings_down_one_of_three_stays() -> None:
    world = serving(3, 1)
    world.pods[0].victims = frozenset({2})
    world.upload(2)
    world.settle()
    assert bad(world.record) == []
    assert answers(world)[1:] == [2, 2]
    assert changes(world.targets) == [1, 2]


def test_a_tie_counts_against_the_version() -> None:
    world = serving(2, 1)
    world.pods[0].victims = frozenset({2})
    world.upload(2)
    world.settle()
    assert answers(world) == [1, 1]
    assert bad(world.record) == [2]


def test_a_template_that_can_not_start_speaks_against_no_version() -> None:
    world = serving(2, 1)
    world.roll("t2", works=False)
    world.settle(8)
    for version in (2, 3):
        world.upload(version)
        world.settle()
        assert bad(world.record) == []
        assert answers(world)[:2] == [version, version]
    assert changes(world.targets) == [1, 2, 3]
    assert not world.record.works("t2")
    assert world.record.works("t1")


def test_a_first_version_that_crashes_everywhere_is_told_without_going_anywhere() -> None:
    world = Replicas(2)
    world.upload(1, "crash")
    world.settle()
    assert (world.record.target, bad(world.record)) == (1, [])
    world.upload(2)
    world.settle()
    assert answers(world) == [2, 2]
    assert changes(world.targets) == [1, 2]


def test_a_template_that_never_starts_makes_nothing_go_back_and_forth() -> None:
    world = Replicas(2, works=False)
    for version in (1, 2):
        world.upload(version)
        world.settle()
    assert bad(world.record) == []
    assert changes(world.targets) == [1, 2]
    world.roll("t2", works=True)
    world.settle()
    assert set(answers(world)) == {2}


def test_that_a_template_works_is_remembered_when_all_its_pods_are_new() -> None:
    world = serving(2, 1)
    world.upload(2, "crash")
    world.turn()
    for _ in range(2):
        world.replace(0)
    world.restart_operator()
    world.settle()
    assert answers(world) == [1, 1]
    assert bad(world.record) == [2]


def test_a_reached_version_is_not_taken_back_when_its_pods_are_replaced_by_failing_ones() -> None:
    world = serving(2, 1, 2)
    world.replace(0, victims={2})
    world.replace(0, victims={2})
    world.active = None
    world.settle()
    assert bad(world.record) == []
    assert changes(world.targets) == [1, 2]


def test_another_template_is_another_attempt() -> None:
    world = serving(2, 1)
    world.upload(2, "crash")
    world.settle()
    assert answers(world) == [1, 1]
    world.bucket[2].fate = "good"  # it gets more memory, say
    world.roll("t2", works=True)
    world.settle()
    assert answers(world) == [2, 2]
    assert bad(world.record) == []


def test_a_version_that_fails_to_load_is_taken_back_by_the_first_word() -> None:
    world = serving(3, 1)
    world.upload(2, "fail")
    world.settle()
    assert answers(world) == [1, 1, 1]
    assert bad(world.record) == [2]


class TestServedVersions:
    def test_are_the_same_on_every_replica_and_on_later_ones(self) -> None:
        world = serving(2, 1, 2, num_versions=2)
        world.upload(3, "crash")
        world.settle()
        assert bad(world.record) == [3]
        world.replace(0)
        newest = world.pods[-1]
        for _ in range(3):
            world.turn(operator=False)
            assert 3 not in newest.disk
        assert newest.serving == {1, 2}
        world.upload(4)
        world.settle()
        assert [pod.serving for pod in world.pods] == [{2, 4}, {2, 4}]
        assert world.record.served == (4, 2)

    def test_stay_when_one_between_them_is_repaired(self) -> None:
        world = serving(2, 1, 2, num_versions=2)
        world.upload(3, "fail")
        world.upload(4)
        world.settle()
        assert world.record.served == (4, 2)
        world.upload(3)
        world.settle()
        assert world.record.served == (4, 2)

    def test_are_filled_up_with_what_was_served_before(self) -> None:
        world = serving(2, 1, 2, 3)
        assert world.record.served == (3,)
        world.num_versions = 2
        world.settle()
        assert [pod.serving for pod in world.pods] == [{3, 2}, {3, 2}]

    def test_are_never_filled_up_with_what_was_not_tried(self) -> None:
        world = Replicas(1, num_versions=3)
        world.upload(1, "crash")
        world.upload(2)
        world.settle()
        assert world.record.served == (2,)
        assert answers(world) == [2]

    def test_go_on_where_a_pin_asks_for_one_that_failed(self) -> None:
        world = serving(2, 1)
        world.upload(2, "crash")
        world.settle()
        world.pin = 2
        world.settle()
        assert (world.record.target, world.record.served) == (2, (1,))
        assert answers(world) == [1, 1]


FATES: st.SearchStrategy[Fate] = st.sampled_from(("good", "good", "crash", "fail", "corrupt"))
EVENTS = st.sampled_from(
    ["turn", "turn", "turn", "upload", "delete", "replace", "roll", "restart", "mute", "down"]
)


def act(world: Replicas, data: st.DataObject) -> None:
    """One thing that happens."""
    match data.draw(EVENTS):
        case "upload":
            world.upload(data.draw(st.integers(1, 6)), data.draw(FATES))
        case "delete" if world.bucket:
            del world.bucket[data.draw(st.sampled_from(sorted(world.bucket)))]
        case "replace":
            victims = data.draw(st.sets(st.integers(1, 6), max_size=2))
            world.replace(data.draw(st.integers(0, 5)), victims)
        case "roll":
            name = f"t{int(world.template[1:]) + 1}"
            world.roll(name, works=data.draw(st.booleans()))
        case "restart":
            world.restart_operator()
        case "mute":
            pod = data.draw(st.sampled_from(world.pods))
            pod.reachable = not pod.reachable
        case "down":
            world.turn(operator=False)
        case _:
            world.turn()
            check(world)


def heard(world: Replicas) -> bool:
    return any(pod.reachable for pod in world.pods)


def check(world: Replicas) -> None:
    """What holds after every decision."""
    record = world.record
    assert world.decision() == record, "the same input twice gives the same record"
    assert VersionsRecord.from_config_map(record.to_data()) == record
    failed = {(entry.version, entry.stored) for entry in record.quarantined}
    if record.active is not None:
        assert (record.active.version, record.active.fingerprint) not in failed
    if world.active in {max(pod.serving) for pod in world.pods if pod.serving and pod.reachable}:
        assert world.active not in bad(record)
    stored = {(v, found.fingerprint) for v, found in world.bucket.items()}
    # Other objects may have been stored under the number of what is on the disks since.
    on_disk = {(v, found.fingerprint) for pod in world.pods for v, found in pod.disk.items()}
    good = {v for v, fingerprint in (stored | on_disk) - failed}
    assert not {v for v in record.served if v in bad(record)} - good, "what failed is served"
    if record.target in bad(record) and record.target not in good:
        assert record.target not in record.served[:1] or record.served == ()
        assert not {v for v in good if v in offered(world)}, "there was a good one to turn to"
    elif record.target is not None and not (
        # While no pod says so, nobody knows that it is good by now.
        record.served == () and record.target in bad(record) and not heard(world)
    ):
        assert record.served[0] == record.target
    assert len(record.served) <= world.num_versions
    assert list(record.served) == sorted(set(record.served), reverse=True)


def offered(world: Replicas) -> set[int]:
    """What pods that can be asked tell of as whole."""
    return {
        version.version
        for pod in world.pods
        if pod.reachable
        for version in pod.report(world.bucket).versions
        if version.in_source and version.state != "Quarantined"
    }


def whole(pod: Replica) -> bool:
    return pod.works and not pod.victims


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_whatever_happens_it_comes_to_rest_without_a_contradiction(data: st.DataObject) -> None:
    world = Replicas(
        data.draw(st.integers(1, 4), label="replicas"),
        num_versions=data.draw(st.integers(1, 3), label="numVersions"),
    )
    for _ in range(data.draw(st.integers(1, 25), label="events")):
        act(world, data)
    for pod in world.pods:
        pod.reachable = True
    world.settle(60)
    other = copy.deepcopy(world)

    before = len(world.targets)
    for _ in range(20):
        world.turn()
        check(world)
    assert len(set(world.targets[before:])) <= 1, "the target flaps"
    assert world.record == other.record

    other.restart_operator()
    other.settle(40)
    assert other.record == world.record, "a restart leads elsewhere"

    target = world.record.target
    for pod in world.pods:
        if whole(pod) and target is not None and target in world.bucket:
            fate = world.bucket[target].fate
            assert target in pod.serving or fate != "good" or bad(world.record)
            assert pod.serving <= set(world.record.served) or fate != "good" or bad(world.record)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_where_pods_and_templates_work_the_newest_good_version_is_on_all(
    data: st.DataObject,
) -> None:
    world = serving(data.draw(st.integers(1, 4)), 1, 2)
    for _ in range(data.draw(st.integers(1, 6))):
        world.upload(data.draw(st.integers(3, 6)), data.draw(FATES))
        for _ in range(data.draw(st.integers(0, 8))):
            world.turn()
            check(world)
        if data.draw(st.booleans()):
            world.replace(data.draw(st.integers(0, 5)))
        if data.draw(st.booleans()):
            world.restart_operator()
    world.settle(60)
    good = max(v for v, stored in world.bucket.items() if stored.fate == "good")
    bad_now = {v for v, stored in world.bucket.items() if stored.fate != "good"}
    if not any(v in bad_now for pod in world.pods for v in pod.serving):
        # Else one of these was good when it was served, and is there still.
        assert answers(world) == [good] * world.wanted


@pytest.mark.parametrize("when", range(12))
def test_a_restart_of_the_operator_at_any_round_reaches_the_same_end(when: int) -> None:
    world = serving(3, 1)
    for pod in world.pods[1:]:
        pod.victims = frozenset({2})
    world.upload(2)
    for _ in range(when):
        world.turn()
    world.restart_operator()
    world.settle()
    assert answers(world) == [1, 1, 1]
    assert bad(world.record) == [2]
