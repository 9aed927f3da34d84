"""What is planned, for what is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_poller import planner, report
from model_poller.actions import (
    Action,
    Fetch,
    Publish,
    Quarantine,
    Release,
    Remove,
    Retire,
    StopFetch,
)
from model_poller.books import Publication
from model_poller.failures import Retry
from model_poller.planner import Observed, Policy, plan
from model_poller.status import (
    PollerStatus,
    RolloutTask,
    ServedVersion,
    SourceStatus,
    VersionReason,
    VersionState,
    encode,
)
from model_poller.stores import StoredObject
from model_poller.stores.uri import Location
from model_poller.versions import StoredVersion, Verdict
from model_poller.volume.assignment import Assignment
from model_poller.volume.store import RESERVE_BYTES, Disk, Quarantined, Record

GB = 10**9
NUMBERS = st.integers(1, 6)
TOLD = Policy(follow_newest=False)
ALONE = Policy(follow_newest=True)


def stored(version: int, fingerprint: str = "f", *, incomplete: bool = False) -> StoredVersion:
    path = f"{version}.zip"
    member = StoredObject(Location("b", ""), path, 1000, "1")
    verdict = Verdict(VersionReason.MISSING_VARIABLES, "missing") if incomplete else None
    return StoredVersion(version, (member,), True, fingerprint, verdict)


def served(version: int, state: str = "AVAILABLE", error: str = "") -> ServedVersion:
    return ServedVersion(
        version=version,
        state=state,
        error_code="UNKNOWN" if error else "OK",
        error_message=error,
    )


def records(*versions: int, **changes: Any) -> dict[int, Record]:
    return {v: msgspec.structs.replace(Record(v, "f"), **changes) for v in versions}


def seen(**changes: Any) -> Observed:
    """A settled pod: version 1 served, 1 in the source, told to serve 1.

    ``told`` is short for an assignment of a target alone.
    """
    told = changes.pop("told", 1)
    values: dict[str, Any] = {
        "now": 100.0,
        "disk": Disk(records(1, proven=True), {}, {}),
        "free_bytes": 1 << 40,
        "found": {1: stored(1)},
        "listing_is_fresh": True,
        "served": (served(1),),
        "server_was_seen": True,
        "assignment": Assignment(told),
        "fetching": None,
        "publications": {1: Publication(0.0, end_is_stale=False, served=True)},
        "retries": {},
    }
    return Observed(**{**values, **changes})


def reported(what: Observed, policy: Policy, message: str = "", **more: Any) -> PollerStatus:
    """What ``/status`` tells of it, and of what else is known."""
    return report.build(
        what,
        policy,
        model="m",
        source=SourceStatus(uri="gs://b", message=message),
        notifications=None,
        bytes_done=0,
        seconds_left=None,
        total_bytes=0,
        **more,
    )


@pytest.mark.parametrize("policy", [TOLD, ALONE])
def test_a_settled_pod_has_nothing_to_do(policy: Policy) -> None:
    assert plan(seen(), policy) == []


def test_a_new_version_is_fetched_before_it_is_told() -> None:
    assert plan(seen(found={1: stored(1), 2: stored(2)}), TOLD) == [Fetch(stored(2))]


def test_a_fetched_version_waits_for_the_word() -> None:
    disk = Disk(records(1), records(2), {})
    assert plan(seen(disk=disk, found={1: stored(1), 2: stored(2)}), TOLD) == []
    assert plan(seen(disk=disk, found={1: stored(1), 2: stored(2)}, told=2), TOLD) == [Publish(2)]


def test_alone_the_newest_fetched_version_is_published() -> None:
    disk = Disk(records(1), records(2), {})
    assert plan(seen(disk=disk, found={1: stored(1), 2: stored(2)}), ALONE) == [Publish(2)]


def test_the_previous_version_stays_until_the_new_one_answers() -> None:
    changing = {
        "disk": Disk(records(1, 2), {}, {}),
        "found": {1: stored(1), 2: stored(2)},
        "told": 2,
        "publications": {
            1: Publication(0.0, end_is_stale=False, served=True),
            2: Publication(99.0, end_is_stale=False),
        },
    }
    loading = (served(2, "LOADING"), served(1))
    assert plan(seen(**changing, served=loading), TOLD) == []
    assert plan(seen(**changing, served=None), TOLD) == []
    assert plan(seen(**changing, served=(served(2), served(1))), TOLD) == [Retire(1)]


def test_a_version_that_ends_with_an_error_is_quarantined_and_the_previous_stays() -> None:
    what = seen(
        disk=Disk(records(1, 2), {}, {}),
        found={1: stored(1), 2: stored(2)},
        told=2,
        served=(served(2, "END", "no op named X"), served(1)),
        publications={2: Publication(99.0, end_is_stale=False)},
    )
    (action,) = plan(what, TOLD)
    assert isinstance(action, Quarantine)
    assert action.entry.version == 2
    assert action.entry.fingerprint == "f"
    assert action.entry.reason is VersionReason.LOAD_FAILED
    assert "no op named X" in action.entry.message


def test_the_servers_memory_of_an_earlier_failure_is_not_taken_for_a_new_one() -> None:
    what = {
        "disk": Disk(records(1, 2), {}, {}),
        "found": {1: stored(1), 2: stored(2)},
        "told": 2,
        "served": (served(2, "END", "old"), served(1)),
        "publications": {2: Publication(99.0, end_is_stale=True)},
    }
    assert plan(seen(**what), TOLD) == []
    later = 99.0 + planner.STALE_END_SECONDS + 1
    assert isinstance(plan(seen(**what, now=later), TOLD)[0], Quarantine)


def test_a_version_that_brings_the_server_down_leaves_when_another_one_is_told() -> None:
    crashing = {
        "disk": Disk(records(1, 2), {}, {}),
        "found": {1: stored(1), 2: stored(2)},
        "served": None,
        "publications": {
            1: Publication(0.0, end_is_stale=False, served=True),
            2: Publication(99.0, end_is_stale=False),
        },
    }
    assert plan(seen(**crashing, told=2), TOLD) == []
    assert plan(seen(**crashing, told=1), TOLD) == [Retire(2)]
    never_served = {**crashing, "publications": {2: Publication(99.0, end_is_stale=False)}}
    older = {**never_served, "disk": Disk(records(2), records(1), {})}
    assert plan(seen(**older, told=1), TOLD) == [Publish(1), Retire(2)]


def test_a_version_that_still_loads_is_not_cut_off_by_the_next_one() -> None:
    what = {
        "disk": Disk(records(1, 2, 3), {}, {}),
        "found": {v: stored(v) for v in (1, 2, 3)},
        "told": 3,
        "served": (served(3, "START"), served(2, "LOADING"), served(1)),
        "publications": {2: Publication(99.0, end_is_stale=False)},
    }
    assert plan(seen(**what), TOLD) == []


def test_a_number_that_failed_comes_back_only_after_the_server_could_see_it_gone() -> None:
    what = {
        "disk": Disk(records(1), records(2), {}),
        "found": {1: stored(1), 2: stored(2)},
        "told": 2,
        "served": (served(2, "END", "old"), served(1)),
    }
    assert plan(seen(**what, left={2: 98.0}), TOLD) == []
    assert plan(seen(**what, started=98.0), TOLD) == []
    assert plan(seen(**what, left={2: 96.0}), TOLD) == [Publish(2)]
    clean = {**what, "served": (served(2, "END"), served(1))}
    assert plan(seen(**clean, left={2: 98.0}), TOLD) == [Publish(2)]


def test_a_version_that_is_not_available_in_time_is_quarantined() -> None:
    what = {
        "disk": Disk(records(1, 2), {}, {}),
        "found": {1: stored(1), 2: stored(2)},
        "told": 2,
        "served": (served(2, "LOADING"), served(1)),
    }

    def loading(seconds: float) -> dict[str, Any]:
        return {"publications": {2: Publication(0.0, end_is_stale=False, loading=seconds)}}

    assert plan(seen(**what, **loading(1800.0), now=9000.0), TOLD) == []
    (action,) = plan(seen(**what, **loading(1801.0)), TOLD)
    assert isinstance(action, Quarantine)
    assert action.entry.reason is VersionReason.LOAD_TIMEOUT
    assert "1801 s" in action.entry.message


@pytest.mark.parametrize("policy", [TOLD, ALONE])
@pytest.mark.parametrize("was_seen", [True, False])
def test_no_version_is_judged_by_a_server_that_is_not_there(policy: Policy, was_seen: bool) -> None:
    for publication in (
        Publication(0.0, end_is_stale=True),
        Publication(0.0, end_is_stale=False, loading=500.0, silent_since=1.0),
    ):
        what = {"served": None, "server_was_seen": was_seen, "publications": {1: publication}}
        unproven = {"disk": Disk(records(1), {}, {}), "now": 99_999.0}
        assert plan(seen(**what, **unproven), policy) == []


def test_a_version_that_makes_room_for_the_one_before_is_told_as_that() -> None:
    what = seen(
        disk=Disk(records(1, proven=True), records(2), {}),
        found={1: stored(1), 2: stored(2)},
        served=None,
        suspects={2: 1},
    )
    assert plan(what, ALONE) == []
    told = reported(what, ALONE)
    assert told.versions[0].reason is VersionReason.LOAD_TIMEOUT
    assert "once more when it is back" in told.versions[0].message
    assert plan(replace(what, served=(served(1),)), ALONE) == [Publish(2)]


def test_a_restarting_server_is_no_failure_of_what_it_served() -> None:
    assert plan(seen(served=None, now=10_000.0), TOLD) == []
    assert plan(seen(served=(served(1, "LOADING"),), now=10_000.0), TOLD) == []
    assert plan(seen(served=(served(1, "END", "out of memory"),), now=10_000.0), TOLD) == []


def test_a_rollback_publishes_what_is_retained_and_then_retires_the_newer_one() -> None:
    disk = Disk(records(2), records(1, proven=True), {})
    found = {1: stored(1), 2: stored(2)}
    assert plan(seen(disk=disk, found=found, served=(served(2),)), TOLD) == [Publish(1)]
    both = Disk(records(1, 2), {}, {})
    assert plan(seen(disk=both, found=found, served=(served(2), served(1))), TOLD) == [Retire(2)]


def test_several_versions_are_served_when_asked_for() -> None:
    policy = Policy(follow_newest=False, num_versions=2, retain_versions=3)
    disk = Disk(records(3), records(1, 2, 4), {})
    found = {v: stored(v) for v in (1, 2, 3, 4)}
    what = seen(disk=disk, found=found, told=3, served=(served(3),))
    assert Publish(2) in plan(what, policy)
    assert Publish(1) not in plan(what, policy)
    assert Publish(4) not in plan(what, policy)


def test_no_more_versions_are_retained_than_asked_for_and_the_lowest_go_first() -> None:
    disk = Disk(records(5), records(1, 2, 3), {})
    found = {v: stored(v) for v in (1, 2, 3, 5)}
    what = seen(disk=disk, found=found, told=5, served=(served(5),))
    removed = [a.version for a in plan(what, TOLD) if isinstance(a, Remove)]
    assert removed == [1, 2]


def test_what_the_server_has_not_let_go_of_stays_on_disk() -> None:
    disk = Disk(records(5), records(1, 2, 3), {})
    found = {v: stored(v) for v in (1, 2, 3, 5)}
    unloading = (served(5), served(2, "UNLOADING"), served(1, "END"))
    what = seen(disk=disk, found=found, told=5, served=unloading)
    assert [a.version for a in plan(what, TOLD) if isinstance(a, Remove)] == [1, 3]


class TestDeletionInTheSource:
    disk = Disk(records(2), records(1), {})

    def test_is_mirrored(self) -> None:
        what = seen(disk=self.disk, found={2: stored(2)}, told=2, served=(served(2),))
        assert plan(what, TOLD) == [Remove(1, "it was deleted from the source")]

    @pytest.mark.parametrize("found", [{}, None, {3: stored(3, incomplete=True)}])
    def test_of_everything_deletes_nothing(self, found: dict[int, StoredVersion] | None) -> None:
        assert plan(seen(disk=self.disk, found=found, told=2, served=(served(2),)), TOLD) == []

    def test_is_not_believed_while_the_source_can_not_be_read(self) -> None:
        what = seen(disk=self.disk, found={2: stored(2)}, told=2, listing_is_fresh=False)
        assert plan(what, TOLD) == []

    def test_spares_the_version_in_use_and_the_told_one(self) -> None:
        newer = {3: stored(3, incomplete=True), 4: stored(4)}
        what = seen(disk=Disk(records(2), records(4), {}), found=newer, told=2)
        assert plan(what, TOLD) == []

    def test_spares_the_last_version(self) -> None:
        what = seen(disk=Disk({}, records(1), {}), found={2: stored(2)}, told=2, fetching=stored(2))
        assert plan(what, TOLD) == []

    def test_spares_what_somebody_else_put_there(self) -> None:
        disk = Disk(records(2), {1: Record(1)}, {})
        what = seen(disk=disk, found={2: stored(2)}, told=2, served=(served(2),))
        assert plan(what, TOLD) == []


class TestQuarantine:
    entry = Quarantined(2, "f", VersionReason.BAD_ARCHIVE, "cut")

    def test_keeps_the_same_objects_from_being_fetched(self) -> None:
        disk = Disk(records(1), {}, {2: self.entry})
        assert plan(seen(disk=disk, found={1: stored(1), 2: stored(2)}, told=2), TOLD) == []

    def test_ends_when_the_objects_change(self) -> None:
        disk = Disk(records(1), {}, {2: self.entry})
        actions = plan(seen(disk=disk, found={1: stored(1), 2: stored(2, "new")}), TOLD)
        assert actions == [Release(2), Fetch(stored(2, "new"))]

    def test_ends_when_the_objects_go(self) -> None:
        disk = Disk(records(1), {}, {2: self.entry})
        assert plan(seen(disk=disk), TOLD) == [Release(2)]

    def test_outlives_a_wiped_source(self) -> None:
        disk = Disk(records(1), {}, {2: self.entry})
        assert plan(seen(disk=disk, found={}), TOLD) == []


class TestFetching:
    def test_takes_the_told_version_first(self) -> None:
        found = {v: stored(v) for v in (1, 2, 3)}
        assert plan(seen(found=found, told=2), TOLD) == [Fetch(stored(2))]

    def test_gives_up_the_newest_for_the_told_version(self) -> None:
        found = {v: stored(v) for v in (1, 2, 3)}
        assert plan(seen(found=found, told=2, fetching=stored(3)), TOLD) == [StopFetch()]

    def test_is_not_given_up_for_a_still_newer_version(self) -> None:
        found = {v: stored(v) for v in (1, 2, 3)}
        assert plan(seen(found=found, fetching=stored(2)), TOLD) == []
        assert plan(seen(found=found, fetching=stored(2)), ALONE) == []

    @pytest.mark.parametrize("found", [{1: stored(1)}, {1: stored(1), 2: stored(2, "new")}])
    def test_is_given_up_when_its_objects_change_or_go(
        self, found: dict[int, StoredVersion]
    ) -> None:
        assert plan(seen(found=found, fetching=stored(2)), TOLD) == [StopFetch()]

    def test_takes_no_incomplete_version(self) -> None:
        assert plan(seen(found={1: stored(1), 2: stored(2, incomplete=True)}), TOLD) == []

    def test_waits_between_tries(self) -> None:
        found = {1: stored(1), 2: stored(2)}
        verdict = Verdict(VersionReason.FETCH_FAILED, "503")
        retries = {2: Retry("f", verdict, 1, not_before=105.0)}
        assert plan(seen(found=found, retries=retries), TOLD) == []
        assert plan(seen(found=found, retries=retries, now=105.0), TOLD) == [Fetch(stored(2))]

    FAILED: ClassVar = Verdict(VersionReason.FETCH_FAILED, "403")
    FRESH: ClassVar = {
        "disk": Disk({}, {}, {}),
        "found": {v: stored(v) for v in (1, 2, 3)},
        "served": None,
        "told": None,
    }

    @pytest.mark.parametrize("policy", [TOLD, ALONE])
    def test_goes_on_with_the_next_version_where_one_failed(self, policy: Policy) -> None:
        bad = Retry("f", self.FAILED, 2, not_before=105.0)
        assert plan(seen(**self.FRESH, retries={3: bad}), policy) == [Fetch(stored(2))]
        assert plan(seen(**self.FRESH, retries={3: bad, 2: bad}), policy) == [Fetch(stored(1))]
        assert plan(seen(**self.FRESH, retries={3: bad}, now=105.0), policy) == [Fetch(stored(3))]
        here = {**self.FRESH, "disk": Disk({}, records(2), {})}
        assert Fetch(stored(1)) not in plan(seen(**here, retries={3: bad}), policy)

    def test_tries_a_version_twice_before_another_one(self) -> None:
        once = {3: Retry("f", self.FAILED, 1, not_before=100.5)}
        assert plan(seen(**self.FRESH, retries=once), ALONE) == []
        hopeless = {3: Retry("f", self.FAILED, 1, not_before=float("inf"))}
        assert plan(seen(**self.FRESH, retries=hopeless), ALONE) == [Fetch(stored(2))]
        no_room = {3: Retry("f", self.FAILED, 1, not_before=100.5, needed=1 << 50)}
        assert plan(seen(**self.FRESH, retries=no_room), ALONE) == [Fetch(stored(2))]

    @pytest.mark.parametrize(
        "changes",
        [
            {"listing_is_fresh": False},
            {"retries": {3: Retry("f", Verdict(VersionReason.WARMUP_UNAVAILABLE, ""), 9, 200.0)}},
        ],
        ids=["the source", "the warm-up requests"],
    )
    def test_takes_no_other_version_where_what_failed_is_common_to_all(
        self, changes: dict[str, Any]
    ) -> None:
        failed = {"retries": {3: Retry("f", self.FAILED, 9, not_before=200.0)}, **changes}
        assert plan(seen(**self.FRESH, **failed), ALONE) == []

    def test_takes_no_version_that_would_be_removed_at_once(self) -> None:
        found = {v: stored(v) for v in (1, 2, 3)}
        failed = {3: Retry("f", self.FAILED, 9, not_before=200.0)}
        what = seen(found=found, retries=failed)
        assert plan(what, TOLD) == [Fetch(stored(2))]
        assert plan(what, Policy(follow_newest=False, retain_versions=1)) == []

    def test_does_not_wait_for_other_objects(self) -> None:
        found = {1: stored(1), 2: stored(2, "new")}
        verdict = Verdict(VersionReason.MISSING_VARIABLES, "missing")
        retries = {2: Retry("f", verdict, 1, not_before=float("inf"))}
        assert plan(seen(found=found, retries=retries), TOLD) == [Fetch(stored(2, "new"))]

    def test_waits_for_room(self) -> None:
        found = {1: stored(1), 2: stored(2)}
        assert plan(seen(found=found, free_bytes=1000), TOLD) == []

    def test_needs_no_room_for_a_folder_that_is_linked(self) -> None:
        folder = replace(stored(2), is_archive=False)
        large = replace(folder, objects=(replace(folder.objects[0], size=1 << 50),))
        assert plan(seen(found={1: stored(1), 2: large}), TOLD) == []
        assert plan(seen(found={1: stored(1), 2: large}, links=True), TOLD) == [Fetch(large)]
        packed = replace(large, is_archive=True)
        assert plan(seen(found={1: stored(1), 2: packed}, links=True), TOLD) == []

    def test_takes_no_version_below_those_on_disk_unless_told(self) -> None:
        what = {"disk": Disk(records(5), {}, {}), "found": {v: stored(v) for v in (3, 4)}}
        assert plan(seen(**what, told=5, served=(served(5),)), TOLD) == []
        assert plan(seen(**what, told=3, served=(served(5),)), TOLD) == [Fetch(stored(3))]


def test_a_version_that_changed_before_it_was_served_is_fetched_anew() -> None:
    disk = Disk(records(1), records(2), {})
    found = {1: stored(1), 2: stored(2, "new")}
    assert [type(a) for a in plan(seen(disk=disk, found=found, told=2), TOLD)] == [Remove]
    gone = Disk(records(1), {}, {})
    assert plan(seen(disk=gone, found=found, told=2), TOLD) == [Fetch(stored(2, "new"))]


@pytest.mark.parametrize("where", ["published", "retained"])
def test_a_version_that_changed_after_it_was_served_stays_as_it_is(where: str) -> None:
    old = records(1, proven=True)
    disk = (
        Disk({**old, **records(2)}, {}, {}) if where == "published" else Disk(records(2), old, {})
    )
    found = {1: stored(1, "new"), 2: stored(2)}
    told = 1 if where == "published" else 2
    what = seen(disk=disk, found=found, told=told, served=(served(2), served(1)))
    assert not [a for a in plan(what, TOLD) if isinstance(a, Remove | Fetch)]


def test_alone_without_a_server_the_version_before_stays_in_place() -> None:
    what = seen(
        disk=Disk(records(1, 2, 3), {}, {}),
        found={v: stored(v) for v in (1, 2, 3)},
        served=None,
        server_was_seen=False,
    )
    assert plan(what, ALONE) == [Retire(1)]


def test_without_a_target_nothing_is_published_or_retired() -> None:
    disk = Disk(records(1), records(2), {})
    found = {1: stored(1), 2: stored(2)}
    assert plan(seen(disk=disk, found=found, told=None), TOLD) == []


def test_the_server_is_asked_quickly_only_while_a_change_is_under_way() -> None:
    assert not planner.change_is_under_way(seen(), TOLD)
    loading = {
        "served": (served(1, "LOADING"),),
        "publications": {1: Publication(99.0, end_is_stale=False)},
    }
    assert planner.change_is_under_way(seen(**loading), TOLD)
    late = {1: Publication(99.0, end_is_stale=False, loading=1801.0)}
    assert not planner.change_is_under_way(seen(**{**loading, "publications": late}), TOLD)
    away = {**loading, "served": None}
    assert planner.change_is_under_way(seen(**away), TOLD)
    assert not planner.change_is_under_way(seen(**away, now=10_000.0), TOLD)
    assert not planner.change_is_under_way(seen(**loading, server_was_seen=False), ALONE)


def test_the_server_is_asked_quickly_until_it_has_let_go_of_what_left() -> None:
    left = {2: 95.0}
    both = (served(2), served(1))
    assert planner.change_is_under_way(seen(served=both, left=left), TOLD)
    unloading = (served(2, "UNLOADING"), served(1))
    assert planner.change_is_under_way(seen(served=unloading, left=left), TOLD)
    gone = (served(2, "END"), served(1))
    assert not planner.change_is_under_way(seen(served=gone, left=left), TOLD)
    for others in ({}, {2: 100.0 - planner.LEAVING_SECONDS}):
        assert not planner.change_is_under_way(seen(served=both, left=others), TOLD)
    back = Disk(records(1, 2, proven=True), {}, {})
    assert not planner.change_is_under_way(seen(served=both, left=left, disk=back), TOLD)


def assigned(
    target: int | None, *served: int, quarantined: tuple[tuple[int, str], ...] = ()
) -> dict[str, Any]:
    return {"assignment": Assignment(target, served, frozenset(quarantined))}


class TestWhatARolloutAsks:
    FOUND: ClassVar = {1: stored(1), 2: stored(2), 3: stored(3)}

    @staticmethod
    def asks(target: int = 1, **task: Any) -> dict[str, Any]:
        asked = RolloutTask(version=2, **task)
        return {"assignment": Assignment(target, (target,), rollout=asked)}

    def test_brings_a_version_that_is_not_the_newest(self) -> None:
        what: dict[str, Any] = {"found": self.FOUND, "disk": Disk(records(1), records(3), {})}
        assert plan(seen(**what, **self.asks()), TOLD) == []
        asked = seen(**what, **self.asks(fetch=True))
        assert plan(asked, TOLD) == [Fetch(stored(2))]
        assert 2 in planner.interest(asked, TOLD).wanted

    def test_is_more_urgent_than_the_newest(self) -> None:
        what = seen(found=self.FOUND, fetching=stored(3), **self.asks(fetch=True))
        assert plan(what, TOLD) == [StopFetch()]
        assert plan(seen(found=self.FOUND, **self.asks(fetch=True)), TOLD) == [Fetch(stored(2))]

    def test_keeps_it_until_it_is_served(self) -> None:
        what: dict[str, Any] = {"found": self.FOUND, "disk": Disk(records(1), records(2, 3), {})}
        assert plan(seen(**what, **self.asks()), TOLD) == [Remove(2, "2 versions are retained")]
        assert plan(seen(**what, **self.asks(fetch=True)), TOLD) == []

    def test_keeps_what_to_go_back_to(self) -> None:
        disk = Disk(records(2, proven=True), records(1, 3), {})
        what: dict[str, Any] = {"found": self.FOUND, "disk": disk, "served": (served(2),)}
        assert plan(seen(**what, **self.asks(2)), TOLD) == [Remove(1, "2 versions are retained")]
        assert plan(seen(**what, **self.asks(2, keep=1)), TOLD) == []

    def test_keeps_what_to_go_back_to_although_it_is_deleted_from_the_source(self) -> None:
        disk = Disk(records(2, proven=True), records(1), {})
        what: dict[str, Any] = {"found": {2: stored(2)}, "disk": disk, "served": (served(2),)}
        gone = Remove(1, "it was deleted from the source")
        assert plan(seen(**what, **self.asks(2)), TOLD) == [gone]
        assert plan(seen(**what, **self.asks(2, stable=1)), TOLD) == []
        # Of a rollout that is over, another one's version is served by now.
        older = RolloutTask(version=1, stable=0)
        told = Assignment(2, (2,), rollout=older)
        disk = Disk(records(2, proven=True), records(0), {})
        late = seen(found={2: stored(2)}, disk=disk, served=(served(2),), assignment=told)
        assert plan(late, TOLD) == [Remove(0, "it was deleted from the source")]

    def test_brings_nothing_that_failed(self) -> None:
        told = Assignment(1, (1,), frozenset({(2, "f")}), RolloutTask(version=2, fetch=True))
        what = seen(found=self.FOUND, disk=Disk(records(1), records(3), {}), assignment=told)
        assert plan(what, TOLD) == []


class TestWhatFailedElsewhere:
    BAD = assigned(1, 1, quarantined=((2, "f"),))

    def test_is_not_fetched(self) -> None:
        assert plan(seen(found={1: stored(1), 2: stored(2)}, **self.BAD), TOLD) == []
        told = assigned(2, quarantined=((2, "f"),))
        assert plan(seen(found={1: stored(1), 2: stored(2)}, **told), TOLD) == []

    def test_is_fetched_with_other_objects(self) -> None:
        found = {1: stored(1), 2: stored(2, "new")}
        assert plan(seen(found=found, **self.BAD), TOLD) == [Fetch(stored(2, "new"))]

    def test_is_given_up_while_it_is_fetched(self) -> None:
        what = seen(found={1: stored(1), 2: stored(2)}, fetching=stored(2), **self.BAD)
        assert plan(what, TOLD) == [StopFetch()]

    def test_is_not_published_and_makes_room_where_it_was_fetched_already(self) -> None:
        disk = Disk(records(1), records(2), {})
        found = {1: stored(1), 2: stored(2)}
        assert plan(seen(disk=disk, found=found, **self.BAD), TOLD) == [
            Remove(2, "it failed on another pod")
        ]
        told = assigned(2, quarantined=((2, "f"),))
        assert Publish(2) not in plan(seen(disk=disk, found=found, **told), TOLD)

    @pytest.mark.parametrize("answers", [None, (served(1), served(2, "LOADING"))])
    def test_leaves_at_once_where_it_never_served(
        self, answers: tuple[ServedVersion, ...] | None
    ) -> None:
        what = {
            "disk": Disk(records(1, 2), {}, {}),
            "found": {1: stored(1), 2: stored(2)},
            "served": answers,
            "publications": {2: Publication(99.0, end_is_stale=False)},
        }
        assert plan(seen(**what, **self.BAD), TOLD) == [Retire(2)]
        pinned = assigned(2, quarantined=((2, "f"),))
        assert plan(seen(**what, **pinned), TOLD) == [Retire(2)]

    def test_serves_until_the_other_one_does(self) -> None:
        what = {
            "disk": Disk(records(2, proven=True), records(1, proven=True), {}),
            "found": {1: stored(1), 2: stored(2)},
            "served": (served(2),),
            "publications": {2: Publication(0.0, end_is_stale=False, served=True)},
        }
        assert plan(seen(**what, **self.BAD), TOLD) == [Publish(1)]
        both = {
            **what,
            "disk": Disk(records(1, 2, proven=True), {}, {}),
            "served": (served(2), served(1)),
        }
        assert plan(seen(**both, **self.BAD), TOLD) == [Retire(2)]

    def test_that_has_served_leaves_a_silent_server_only_for_what_is_there(self) -> None:
        what = {
            "disk": Disk(records(2, proven=True), {}, {}),
            "found": {1: stored(1), 2: stored(2)},
            "served": None,
            "publications": {2: Publication(0.0, end_is_stale=False, served=True)},
        }
        assert plan(seen(**what, **self.BAD), TOLD) == [Fetch(stored(1))]
        there = {**what, "disk": Disk(records(2, proven=True), records(1), {})}
        assert plan(seen(**there, **self.BAD), TOLD) == [Retire(2), Publish(1)]

    def test_is_told_as_that_and_not_as_a_failure_of_this_pod(self) -> None:
        what = seen(found={1: stored(1), 2: stored(2)}, **self.BAD)
        told = reported(what, TOLD)
        assert (told.versions[0].state, told.versions[0].reason) == (
            VersionState.DISCOVERED,
            VersionReason.QUARANTINED_ELSEWHERE,
        )


class TestServedVersions:
    FOUND: ClassVar = {v: stored(v) for v in (1, 2, 3, 4)}

    def test_are_fetched_after_the_target_and_before_what_is_newer(self) -> None:
        empty = Disk({}, {}, {})
        found = {**self.FOUND, 5: stored(5)}
        told = assigned(4, 4, 2)
        assert plan(seen(disk=empty, found=found, served=None, **told), TOLD) == [Fetch(stored(4))]
        target = Disk(records(4), {}, {})
        assert plan(seen(disk=target, found=found, served=None, **told), TOLD) == [Fetch(stored(2))]

    def test_are_those_that_were_assigned_whatever_is_on_the_disk(self) -> None:
        disk = Disk(records(4), records(1, 2, 3), {})
        policy = Policy(follow_newest=False, num_versions=2, retain_versions=9)
        what = seen(disk=disk, found=self.FOUND, served=(served(4),), **assigned(4, 4, 2))
        assert plan(what, policy) == [Publish(2)]

    def test_without_an_assignment_are_those_on_the_disk(self) -> None:
        disk = Disk(records(4), records(1, 2, 3), {})
        policy = Policy(follow_newest=False, num_versions=2, retain_versions=9)
        what = seen(disk=disk, found=self.FOUND, served=(served(4),), told=4)
        assert plan(what, policy) == [Publish(3)]

    def test_leave_when_the_new_target_answers(self) -> None:
        disk = Disk(records(1, 2, 4), {}, {})
        policy = Policy(follow_newest=False, num_versions=2)
        told = assigned(4, 4, 2)
        loading = (served(4, "LOADING"), served(2), served(1))
        assert plan(seen(disk=disk, found=self.FOUND, served=loading, **told), policy) == []
        done = (served(4), served(2), served(1))
        assert plan(seen(disk=disk, found=self.FOUND, served=done, **told), policy) == [Retire(1)]

    def test_go_on_where_the_target_failed_elsewhere(self) -> None:
        disk = Disk({}, records(1), {})
        told = assigned(2, 1, quarantined=((2, "f"),))
        what = seen(disk=disk, found={1: stored(1), 2: stored(2)}, served=None, **told)
        assert plan(what, TOLD) == [Publish(1)]


class TestTheServersStart:
    FOUND: ClassVar = {v: stored(v) for v in (2, 4)}
    TARGET: ClassVar = {4: Publication(100.0, end_is_stale=False)}

    def is_complete(self, **changes: Any) -> bool:
        values: dict[str, Any] = {
            "disk": Disk(records(4), {}, {}),
            "found": self.FOUND,
            "served": None,
            "publications": self.TARGET,
            **assigned(4, 4, 2),
        }
        return planner.is_complete_at_start(seen(**{**values, **changes}), TOLD)

    def test_waits_for_the_versions_beside_the_target(self) -> None:
        assert not self.is_complete(disk=Disk({}, records(4), {}), publications={})
        assert not self.is_complete()
        assert not self.is_complete(disk=Disk(records(4), records(2), {}))
        assert self.is_complete(disk=Disk(records(2, 4), {}, {}))

    @pytest.mark.parametrize(
        "changes",
        [
            {"found": {4: stored(4)}},
            {"found": {4: stored(4), 2: stored(2, incomplete=True)}},
            {"disk": Disk(records(4), {}, {2: Quarantined(2, "f", VersionReason.BAD_ARCHIVE, "")})},
            {"free_bytes": 1000},
            assigned(4, 4, 2, quarantined=((2, "f"),)),
            assigned(4),
        ],
        ids=["gone", "incomplete", "failed", "no room", "failed elsewhere", "older operator"],
    )
    def test_does_not_wait_for_what_can_not_be_had(self, changes: dict[str, Any]) -> None:
        assert self.is_complete(**changes)

    def test_waits_while_it_is_fetched_although_that_takes_the_room(self) -> None:
        assert not self.is_complete(free_bytes=1000, fetching=stored(2))

    def test_waits_no_longer_than_its_patience(self) -> None:
        late = 100.0 + planner.COMPANION_SECONDS
        assert not self.is_complete(now=late - 1)
        assert self.is_complete(now=late)

    def test_is_not_held_up_by_a_new_target_where_there_is_something_from_before(self) -> None:
        before = Disk(records(2, proven=True), {}, {})
        assert self.is_complete(disk=before, publications={2: Publication(0.0, end_is_stale=True)})


def test_an_upload_over_a_version_that_keeps_the_server_down_takes_its_place() -> None:
    crashing = {
        "disk": Disk(records(1, 2), {}, {}),
        "found": {1: stored(1), 2: stored(2, "new")},
        "told": 2,
        "publications": {2: Publication(99.0, end_is_stale=False)},
    }
    assert plan(seen(**crashing, served=None), TOLD) == [Retire(2)]
    answering = (served(2, "LOADING"), served(1))
    assert plan(seen(**crashing, served=answering), TOLD) == []


def test_an_upload_over_a_version_is_not_taken_beside_a_server_that_was_never_asked() -> None:
    what = seen(
        disk=Disk(records(2), {}, {}),
        found={2: stored(2, "new")},
        publications={2: Publication(99.0, end_is_stale=False)},
        served=None,
        server_was_seen=False,
    )
    assert plan(what, ALONE) == []


def test_what_is_told_is_short_whatever_the_model_server_says_and_never_forgets() -> None:
    words = "\x00" * 40_000
    bad = {
        number: Quarantined(number, "f", VersionReason.LOAD_FAILED, words)
        for number in range(2, 300)
    }
    what = seen(
        disk=Disk(records(1, proven=True), {}, bad),
        found={number: stored(number) for number in range(1, 500)},
        served=(served(1), *(served(number, "END", words) for number in range(2, 300))),
    )
    told = reported(what, TOLD, message=words)
    assert len(encode(told)) < 1_300_000
    assert told.served[0].version == 1
    assert [version.version for version in told.versions][-1] == 1


class TestRest:
    """Whatever there is: carried out, the plans come to an end, and fetch nothing twice."""

    @staticmethod
    def after(what: Observed, action: Action) -> Observed:
        published, retained = dict(what.disk.published), dict(what.disk.retained)
        quarantined = dict(what.disk.quarantined)
        fetching = what.fetching
        match action:
            case Fetch(version):
                retained[version.version] = Record(version.version, version.fingerprint)
            case StopFetch():
                fetching = None
            case Publish(number):
                published[number] = retained.pop(number)
            case Retire(number):
                retained[number] = published.pop(number)
            case Remove(number):
                retained.pop(number, None)
            case Quarantine(entry):
                quarantined[entry.version] = entry
                published.pop(entry.version, None)
                retained.pop(entry.version, None)
            case Release(number):
                del quarantined[number]
        disk = Disk(published, retained, quarantined)
        return replace(what, disk=disk, fetching=fetching)

    @settings(max_examples=150, deadline=None)
    @given(data=st.data())
    def test_comes(self, data: st.DataObject) -> None:
        def some(of: st.SearchStrategy[Any], label: str, least: int = 0) -> dict[int, Any]:
            chosen = st.dictionaries(NUMBERS, of, min_size=least, max_size=5)
            drawn: dict[int, Any] = data.draw(chosen, label)
            return drawn

        record = st.builds(
            lambda fingerprint, proven: (fingerprint, proven), st.sampled_from("fg"), st.booleans()
        )
        published = {v: Record(v, *fields) for v, fields in some(record, "published").items()}
        retained = {
            v: Record(v, *fields)
            for v, fields in some(record, "retained").items()
            if v not in published
        }
        found = {v: stored(v, f) for v, f in some(st.sampled_from("ffg"), "found", 2).items()}
        failed = Verdict(VersionReason.FETCH_FAILED, "")
        tries = st.sampled_from([1, 2, 9])
        until = st.sampled_from([50.0, 200.0, float("inf")])
        retries = {
            v: Retry("f", failed, attempts, not_before)
            for v, (attempts, not_before) in some(st.tuples(tries, until), "retries", 1).items()
        }
        bad = some(st.sampled_from("fg"), "quarantined")
        alone = data.draw(st.booleans(), "alone")
        counts = data.draw(st.tuples(st.integers(1, 2), st.integers(0, 1)), "kept")
        policy = Policy(alone, counts[0], sum(counts))
        target = data.draw(st.none() | NUMBERS, "target")
        beside = data.draw(st.sets(NUMBERS, max_size=2), "beside")
        what = seen(
            disk=Disk(
                published,
                retained,
                {v: Quarantined(v, f, VersionReason.BAD_ARCHIVE, "") for v, f in bad.items()},
            ),
            found=found,
            retries=retries,
            assignment=Assignment(target, tuple({target, *beside}) if target in beside else ()),
            publications={
                v: Publication(0.0, end_is_stale=False, served=served)
                for v, served in some(st.booleans(), "publications").items()
            },
            server_was_seen=data.draw(st.booleans(), "server was seen"),
            listing_is_fresh=data.draw(st.booleans(), "listing is fresh"),
        )
        is_up = data.draw(st.booleans(), "server is up")
        fetched: list[int] = []
        for _ in range(30):
            what = replace(
                what,
                served=tuple(served(v) for v in what.disk.published) if is_up else None,
            )
            actions = plan(what, policy)
            if not actions:
                break
            for action in actions:
                what = self.after(what, action)
            fetched += [a.stored.version for a in actions if isinstance(a, Fetch)]
        assert actions == [], "no end"
        assert len(fetched) == len(set(fetched)), "fetched again"


def test_where_versions_are_links_fewer_of_them_are_no_way_to_room() -> None:
    packed = StoredObject(Location("b", ""), "3.zip", 20 * GB, "1")
    what = seen(
        disk=Disk(records(2), {1: Record(1)}, {}),
        found={3: StoredVersion(3, (packed,), is_archive=True, fingerprint="f")},
        served=(served(2),),
        free_bytes=10 * GB,
        links=True,
    )
    (version,) = [v for v in reported(what, ALONE).versions if v.version == 3]
    assert version.message.endswith(f"enlarge the volume by {30 * GB + RESERVE_BYTES} bytes")


@pytest.mark.parametrize(
    ("retained", "told"),
    [
        # 20 GB are served, and the volume has room for one and a half of them.
        ({}, f"enlarge the volume by {10 * GB + RESERVE_BYTES} bytes"),
        ({1: 8 * GB}, f"enlarge the volume by {10 * GB + RESERVE_BYTES} bytes"),
        (
            {1: 0},
            f"enlarge the volume by {10 * GB + RESERVE_BYTES} bytes, or retain fewer versions",
        ),
        (
            {0: 5 * GB, 1: 6 * GB},
            f"retain fewer versions, for those beside what is served take {11 * GB} bytes",
        ),
    ],
)
def test_a_version_that_finds_no_room_is_not_begun_and_says_what_makes_room(
    retained: dict[int, int], told: str
) -> None:
    kept = {version: Record(version, size=size) for version, size in retained.items()}
    weights = StoredObject(Location("b", ""), "3/weights", 20 * GB, "1")
    large = StoredVersion(3, (weights,), is_archive=False, fingerprint="f")
    what = seen(
        disk=Disk(records(2), kept, {}),
        found={3: large},
        told=2,
        served=(served(2),),
        free_bytes=10 * GB,
    )
    for policy in (TOLD, ALONE):
        assert not [action for action in plan(what, policy) if isinstance(action, Fetch)]
        (version,) = [v for v in reported(what, policy).versions if v.version == 3]
        assert (version.state, version.reason) == (
            VersionState.DISCOVERED,
            VersionReason.INSUFFICIENT_DISK,
        )
        needed = 20 * GB + RESERVE_BYTES
        assert version.message.startswith(f"{needed} bytes are needed and {10 * GB} are free on")
        assert version.message.endswith(told)
