"""Which version is held to account for a model server that ends again and again."""

from __future__ import annotations

from inferencemodel_operator.crashes import CrashWatch
from inferencemodel_operator.observe.objects import Pod
from inferencemodel_operator.record import QuarantinedVersion, VersionsRecord
from model_poller.status import VersionState
from tests.support.pods import told

NOTHING = VersionsRecord()
A, F, P, Q, R = (
    VersionState.AVAILABLE,
    VersionState.FETCHED,
    VersionState.PUBLISHED,
    VersionState.QUARANTINED,
    VersionState.RETIRED,
)


def pod(restarts: int) -> Pod:
    return Pod(
        key=("vision", "m"),
        namespace="vision",
        name="p",
        uid="u",
        resource_version=1,
        ip="10.0.0.1",
        ready=False,
        terminating=False,
        poller_port=8502,
        poller_running=True,
        server_restarts=restarts,
        assignment={},
        template="t",
        storage_uri=None,
        trouble=None,
        message="",
    )


def test_three_restarts_of_a_pod_that_never_served_are_enough() -> None:
    watch, report = CrashWatch(), told({1: F, 2: P}, target=2)
    assert watch.crashed(pod(2), report, NOTHING) is None
    assert watch.crashed(pod(3), report, NOTHING) == 2
    assert CrashWatch().crashed(pod(3), report, NOTHING) == 2


def test_only_restarts_since_the_publish_count_on_a_pod_that_served() -> None:
    watch, report = CrashWatch(), told({1: P, 2: P}, target=2)
    assert watch.crashed(pod(5), report, NOTHING) is None
    assert watch.crashed(pod(7), report, NOTHING) is None
    assert watch.crashed(pod(8), report, NOTHING) == 2


def test_the_next_version_is_not_held_to_account_for_the_one_before() -> None:
    watch = CrashWatch()
    assert watch.crashed(pod(3), told({1: F, 2: P}, target=2), NOTHING) == 2
    assert watch.crashed(pod(4), told({1: P, 2: F}, target=1), NOTHING) is None
    assert watch.crashed(pod(7), told({1: P, 2: F}, target=1), NOTHING) == 1

    crashed = QuarantinedVersion(version=2, fingerprint="f", reason="ServerCrashed")
    remembered = VersionsRecord(quarantined=(crashed,))
    assert CrashWatch().crashed(pod(4), told({1: P}, target=1), remembered) is None


def test_the_fix_is_not_held_to_account_for_what_it_takes_the_place_of() -> None:
    watch = CrashWatch()
    for restarts in range(20):
        watch.crashed(pod(restarts), told({1: P}, target=1, reachable=False), NOTHING)
    # It is told before it is in the base path, and then the other one leaves, which never answered.
    told_only = told({1: P, 2: F}, target=2, reachable=False)
    assert watch.crashed(pod(19), told_only, NOTHING) is None
    given = told({1: F, 2: P}, target=2, reachable=False)
    assert watch.crashed(pod(19), given, NOTHING) is None
    assert watch.crashed(pod(21), given, NOTHING) is None
    assert watch.crashed(pod(22), given, NOTHING) == 2


def test_restarts_before_the_next_look_count_on_a_pod_that_never_served() -> None:
    watch = CrashWatch()
    assert watch.crashed(pod(0), told({2: F}, target=2), NOTHING) is None
    assert watch.crashed(pod(3), told({2: P}, target=2, reachable=False), NOTHING) == 2


def test_a_version_that_answers_starts_anew() -> None:
    watch, loading = CrashWatch(), told({2: P}, target=2)
    assert watch.crashed(pod(0), loading, NOTHING) is None
    assert watch.crashed(pod(2), told({2: A}, target=2), NOTHING) is None
    assert watch.crashed(pod(9), told({2: A}, target=2), NOTHING) is None


def test_the_version_before_may_answer_between_two_ends_of_the_server() -> None:
    watch = CrashWatch()
    loading, down = told({1: A, 2: P}, target=2), told({1: P, 2: P}, target=2, reachable=False)
    assert watch.crashed(pod(0), loading, NOTHING) is None
    for restarts in (1, 2):
        assert watch.crashed(pod(restarts), down, NOTHING) is None
        assert watch.crashed(pod(restarts), loading, NOTHING) is None
    assert watch.crashed(pod(3), down, NOTHING) == 2


def test_a_version_that_the_pod_has_served_is_not_to_blame() -> None:
    served = told({1: R, 2: P}, target=2, reachable=False, proven=[1, 2])
    assert CrashWatch().crashed(pod(9), served, NOTHING) is None


def test_an_upload_under_the_same_number_starts_anew() -> None:
    watch = CrashWatch()
    old = told({1: R, 2: P}, target=2, fingerprints={2: "old"})
    new = told({1: R, 2: P}, target=2, fingerprints={2: "new"})
    assert watch.crashed(pod(1), old, NOTHING) is None
    assert watch.crashed(pod(4), old, NOTHING) == 2
    assert watch.crashed(pod(4), new, NOTHING) is None
    assert watch.crashed(pod(7), new, NOTHING) == 2


def test_a_version_that_is_not_published_yet_is_not_to_blame() -> None:
    assert CrashWatch().crashed(pod(9), told({1: R, 2: F}, target=2), NOTHING) is None
    assert CrashWatch().crashed(pod(9), told({2: F}), NOTHING) is None
