"""The status, from observations alone: always true, and still while nothing changes."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
import pytest

from inferencemodel_operator import assessment, disk, events, status
from inferencemodel_operator.conditions import ConditionType, Reason, reason_of
from inferencemodel_operator.errors import (
    AddressConflictError,
    ApiUnavailableError,
    InvalidModelError,
    InvalidRecordError,
    NameConflictError,
    NotOfferedError,
    RefusedError,
)
from inferencemodel_operator.observe.troubles import Trouble
from inferencemodel_operator.observe.wire import DeploymentStatus
from inferencemodel_operator.observed import Observed, Replica
from inferencemodel_operator.record import QuarantinedVersion, VersionsRecord
from inferencemodel_operator.spec import InferenceModel, decode
from inferencemodel_operator.status import RolloutStatus
from model_poller.status import (
    CacheState,
    CacheStatus,
    NotificationsStatus,
    PollerStatus,
    ServedVersion,
    SourceReason,
    SourceState,
    SourceStatus,
    VersionReason,
    VersionState,
    VersionStatus,
)
from model_poller.volume.store import RESERVE_BYTES
from tests.support.pods import told

A, D, P, Q, R = (
    VersionState.AVAILABLE,
    VersionState.DISCOVERED,
    VersionState.PUBLISHED,
    VersionState.QUARANTINED,
    VersionState.RETIRED,
)
NOW, LATER = "2026-01-01T00:00:00Z", "2026-01-01T00:05:00Z"
ROLLED_OUT = DeploymentStatus(observed_generation=1, replicas=2, updated_replicas=2)


def model(**fields: Any) -> InferenceModel:
    return decode(
        {
            "metadata": {"name": "m", "namespace": "vision", "uid": "u", "generation": 4},
            "spec": {"model": {"storageUri": "gs://models/m"}, "replicas": 2, **fields},
        }
    )


def pod(number: int, report: PollerStatus | None, *, ready: bool = True, **more: Any) -> Replica:
    return Replica(name=f"pod-{number}", ready=ready, report=report, **more)


def observed(*pods: Replica, target: int | None = 1, **more: Any) -> Observed:
    quarantined = more.pop("quarantined", ())
    return Observed(
        pods=pods,
        wanted=more.pop("wanted", 2),
        record=VersionsRecord(target=target, quarantined=quarantined),
        deployment=more.pop("deployment", ROLLED_OUT),
        **more,
    )


def compute(seen: Observed, previous: Any = None, now: str = NOW, **spec: Any) -> Any:
    before, moment = status.decode(previous or {}), datetime.fromisoformat(now)
    return assessment.assess(model(**spec), seen, before, moment).to_object()


def condition(found: Any, kind: str) -> tuple[str, str]:
    (one,) = [c for c in found["conditions"] if c["type"] == kind]
    return one["status"], one["reason"]


def message(found: Any, kind: str) -> str:
    (one,) = [c for c in found["conditions"] if c["type"] == kind]
    text: str = one["message"]
    return text


ONE, TWO = told({1: A}, target=1), told({1: R, 2: A}, target=2)


def test_all_is_well() -> None:
    found = compute(observed(pod(1, ONE), pod(2, ONE)))

    assert {c["type"]: (c["status"], c["reason"]) for c in found["conditions"]} == {
        "Ready": ("True", "Serving"),
        "SourceReady": ("True", "Listed"),
        "ModelLoaded": ("True", "Loaded"),
        "VersionSkew": ("False", "SameVersion"),
        "Reconciling": ("False", "Settled"),
        "Stalled": ("False", "NotStalled"),
        "RolloutPaused": ("False", "NotPaused"),
    }
    assert {c["observedGeneration"] for c in found["conditions"]} == {4}
    assert found["observedGeneration"] == 4
    assert (found["replicas"], found["readyReplicas"]) == (2, 2)
    assert found["replicaSummary"] == "2/2"
    assert found["selector"] == "inferencemodel.dev/name=m"
    assert found["url"] == "http://m.vision.svc:8501/v1/models/m"
    assert found["model"] == {
        "name": "m",
        "storageUri": "gs://models/m",
        "store": "default",
        "activeVersion": 1,
        "targetVersion": 1,
        "latestVersion": 1,
        "transitionStatus": "UpToDate",
        "versions": [{"version": 1, "state": "Available", "replicas": 2}],
        "history": [
            {
                "version": 1,
                "startTime": NOW,
                "activeTime": NOW,
                "duration": "0.0s",
                "result": "Active",
            }
        ],
    }


def test_the_same_observation_later_is_the_same_status() -> None:
    seen = observed(pod(1, ONE), pod(2, None))
    first = compute(seen)

    assert compute(seen, first, LATER) == first


def test_only_a_flip_of_its_status_moves_a_conditions_time() -> None:
    before = compute(observed(pod(1, ONE), pod(2, ONE)))

    after = compute(observed(pod(1, ONE), pod(2, TWO), target=2), before, LATER)

    times = {c["type"]: c["lastTransitionTime"] for c in after["conditions"]}
    assert times == {
        "Ready": NOW,
        "SourceReady": NOW,
        "ModelLoaded": LATER,
        "VersionSkew": LATER,
        "Reconciling": LATER,
        "Stalled": NOW,
        "RolloutPaused": NOW,
    }


@pytest.mark.parametrize(
    ("served", "target", "previous", "active"),
    [
        ([1, 1, 1], 2, None, 1),
        ([2, 1, 1], 2, 1, 1),
        ([2, 2, 1], 2, 1, 1),
        ([2, 2, 2], 2, 1, 2),
        ([3, 2, 2, 1], 3, 1, 1),
        ([3, 2, 1], 3, 2, 2),
        ([3, 2], 3, 1, None),
        ([2, None], 2, 1, None),
        ([2], 2, 1, None),
        ([None, None], 2, 1, None),
        ([], 2, 1, None),
    ],
)
def test_the_active_version_is_the_one_reached_last_as_long_as_clients_get_it(
    served: list[int | None], target: int, previous: int | None, active: int | None
) -> None:
    pods = [
        pod(n, told({} if version is None else {version: A})) for n, version in enumerate(served)
    ]
    pods.append(pod(99, told({9: P}), ready=False))

    assert assessment.active_version(observed(*pods, target=target), previous) == active


def test_a_replica_that_gets_no_requests_answers_nobody() -> None:
    slow = pod(1, told({1: A, 2: P}, target=2), ready=False)
    before = {"model": {"activeVersion": 1}}

    found = compute(observed(slow, pod(2, TWO), target=2), before)
    assert "activeVersion" not in found["model"], "1 answers nobody, and 2 is not reached"
    assert found["model"]["transitionStatus"] == "InProgress"

    found = compute(observed(slow, pod(2, TWO), pod(3, TWO), target=2), before)
    assert found["model"]["activeVersion"] == 2
    assert condition(found, "ModelLoaded") == ("True", "Loaded")


def test_a_pod_that_cannot_be_asked_never_lets_the_active_version_advance() -> None:
    seen = observed(pod(1, TWO), pod(2, None), target=2)

    found = compute(seen, {"model": {"activeVersion": 1}})

    assert found["model"]["activeVersion"] == 1
    assert found["model"]["transitionStatus"] == "Unknown"
    assert condition(found, "Ready") == ("Unknown", "PollerUnreachable")
    assert "pod-2" in message(found, "Ready")
    assert condition(found, "ModelLoaded")[0] == "Unknown"
    assert "activeVersion" not in compute(seen)["model"]


def test_a_poller_that_cannot_ask_its_server_leaves_its_pod_unknown() -> None:
    silent = told({1: P}, target=1, reachable=False)
    assert condition(compute(observed(pod(1, ONE), pod(2, silent))), "Ready") == (
        "Unknown",
        "PollerUnreachable",
    )


def test_an_unknown_pod_that_gets_no_requests_yet_changes_nothing() -> None:
    found = compute(observed(pod(1, ONE), pod(2, None, ready=False), wanted=1))
    assert condition(found, "Ready") == ("True", "Serving")
    assert found["model"]["activeVersion"] == 1


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [(trouble, trouble.value) for trouble in Trouble],
)
def test_what_keeps_a_pod_from_coming_up_is_told(trouble: Trouble, reason: str) -> None:
    stuck = pod(2, None, ready=False, trouble=trouble, message="words about it")
    found = compute(observed(pod(1, ONE), stuck))
    assert condition(found, "Ready") == ("False", reason)
    assert "1 of 2 replicas are ready: words about it" in message(found, "Ready")


def test_refused_pods_are_told_without_the_names_that_change_with_each_attempt() -> None:
    words = 'pods "m-5d4-{}" is forbidden: exceeded quota: pods, requested: pods=1'

    def refused(name: str) -> Any:
        failure = {
            "type": "ReplicaFailure",
            "status": "True",
            "reason": "FailedCreate",
            "message": words.format(name),
        }
        deployment = msgspec.convert({"conditions": [failure]}, DeploymentStatus)
        return compute(observed(target=None, deployment=deployment))

    assert condition(refused("x7k2p"), "Ready") == ("False", "PodsRefused")
    assert "exceeded quota" in message(refused("x7k2p"), "Ready")
    assert refused("x7k2p") == refused("q9w8e")


def test_a_rollout_whose_pods_are_refused_says_so_while_the_old_ones_serve() -> None:
    failure = {
        "type": "ReplicaFailure",
        "status": "True",
        "reason": "FailedCreate",
        "message": 'pods "m-5d4-x" is forbidden: exceeded quota: q, requested: pods=1',
    }
    deployment = msgspec.convert({"replicas": 2, "conditions": [failure]}, DeploymentStatus)
    found = compute(observed(pod(1, ONE), pod(2, ONE), deployment=deployment))
    assert condition(found, "Ready") == ("True", "Serving")
    assert condition(found, "Reconciling") == ("True", "RollingOut")
    assert "exceeded quota: q" in message(found, "Reconciling")
    assert "raise the namespace's ResourceQuota" in message(found, "Reconciling")


def test_what_to_do_is_told_behind_the_longest_words_of_others() -> None:
    long = "word " * 1000
    pods = [pod(n, None) for n in range(40)]
    found = compute(observed(*pods, wanted=40))
    assert "pod-0, pod-1, pod-2, pod-3, pod-4 and 35 more; look at" in message(found, "Ready")
    doubtful = [pod(n, None, doubt=long) for n in range(2)]
    found = compute(observed(*doubtful))
    assert message(found, "Ready").endswith("look at what changed their containers")
    failed = QuarantinedVersion(
        version=2, fingerprint="f", reason="LoadFailed", message=long[:1000]
    )
    found = compute(observed(pod(1, ONE), pod(2, ONE), quarantined=(failed,)))
    assert message(found, "ModelLoaded").endswith("upload a repaired version")


def test_a_version_that_is_rolled_out_anew_is_no_failed_one() -> None:
    former = QuarantinedVersion(
        version=2, fingerprint="f", reason="ObjectsChanged", message="it is rolled out anew"
    )
    seen = observed(pod(1, ONE), pod(2, ONE), quarantined=(former,))
    assert condition(compute(seen), "ModelLoaded") == ("False", "ObjectsChanged")
    going = msgspec.structs.replace(seen, record=msgspec.structs.replace(seen.record, candidate=2))
    found = compute(going)
    assert condition(found, "ModelLoaded")[1] != "ObjectsChanged"
    assert found["model"]["transitionStatus"] == "InProgress"


@pytest.mark.parametrize(
    ("wanted", "told"), [(2, ("Unknown", "NoReport")), (0, ("False", "ScaledToZero"))]
)
def test_nothing_is_said_of_versions_before_a_pod_has_reported(
    wanted: int, told: tuple[str, str]
) -> None:
    found = compute(observed(target=None, wanted=wanted))
    assert condition(found, "ModelLoaded") == told


def test_a_record_that_cannot_be_read_does_not_say_that_there_is_no_version() -> None:
    problem = InvalidRecordError("vision/m-versions", "target", "'x' is no version number")
    found = compute(observed(pod(1, ONE), pod(2, ONE), target=None, problems=(problem,)))
    assert condition(found, "Stalled") == ("True", "InvalidRecord")
    assert condition(found, "ModelLoaded") == ("Unknown", "InvalidRecord")


def test_a_record_that_cannot_be_read_wipes_nothing_of_what_was_known() -> None:
    known = compute(quarantined(2))
    problem = InvalidRecordError("vision/m-versions", "target", "'x' is no version number")
    pods = (pod(1, ONE), pod(2, ONE))
    unread = compute(observed(*pods, target=None, problems=(problem,)), known, LATER)
    for field in ("quarantined", "targetVersion", "history", "lastFailureInfo"):
        assert unread["model"][field] == known["model"][field]
    read = compute(quarantined(2), unread, LATER)
    assert read["model"] == known["model"]
    assert events.changes(status.decode(unread), status.decode(read)) == []


def test_before_a_first_version_the_pods_wait_for_it() -> None:
    found = compute(observed(pod(1, told({}), ready=False), target=None))
    assert condition(found, "Ready") == ("False", "WaitingForVersion")
    assert condition(found, "ModelLoaded") == ("False", "NoTarget")
    assert found["model"]["transitionStatus"] == "Pending"


def test_pods_that_have_not_begun_are_told_with_where_to_look() -> None:
    found = compute(observed(pod(1, None, ready=False), target=None))
    assert condition(found, "Ready") == ("False", "ReplicasNotReady")
    assert "kubectl describe pod" in message(found, "Ready")


def test_what_no_pod_has_told_is_not_known() -> None:
    found = compute(observed(pod(1, None, ready=False), target=1))
    assert condition(found, "ModelLoaded") == ("Unknown", "NoReport")


BY_REQUESTS: dict[str, Any] = {
    "autoscaling": {"minReplicas": 0, "maxReplicas": 3, "keda": {"http": {"concurrency": 1}}}
}


def test_what_wakes_a_model_is_asked_by_its_url() -> None:
    plain = compute(observed(wanted=0))["url"]
    scaled = assessment.assess(
        model(**BY_REQUESTS),
        observed(wanted=0),
        status.decode({}),
        datetime.fromisoformat(NOW),
        interceptor_port=80,
    )
    _, _, path = scaled.url.partition("svc:80")
    assert scaled.url.startswith("http://keda-http-")
    assert plain.endswith(path)
    outside = {**BY_REQUESTS, "ingress": {"host": "m.example.com"}}
    assert compute(observed(wanted=0), **outside)["url"] == f"http://m.example.com{path}"


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({"replicas": 0}, "spec.replicas is 0"),
        ({"autoscaling": {"minReplicas": 0, "maxReplicas": 3}}, "the autoscaler wants no replica"),
        (BY_REQUESTS, "a request to status.url waits until there is one"),
    ],
)
def test_scaled_to_zero_is_as_it_was_asked_for(spec: dict[str, Any], why: str) -> None:
    found = compute(observed(wanted=0), **spec)
    assert condition(found, "Ready") == ("True", "ScaledToZero")
    assert why in message(found, "Ready")
    assert condition(found, "ModelLoaded") == ("False", "ScaledToZero")
    assert condition(found, "Reconciling") == ("False", "Settled")
    assert found["replicaSummary"] == "0/0"
    assert "activeVersion" not in found["model"]


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        (SourceReason.BUCKET_NOT_FOUND, "BucketNotFound"),
        (SourceReason.ACCESS_DENIED, "AccessDenied"),
        (SourceReason.UNREACHABLE, "Unreachable"),
        (SourceReason.INVALID_SOURCE, "InvalidSource"),
    ],
)
def test_a_source_that_fails_is_told_with_its_uri(reason: SourceReason, expected: str) -> None:
    failed = SourceStatus(
        uri="gs://models/m", state=SourceState.FAILED, reason=reason, message="the words"
    )
    found = compute(observed(pod(1, told({1: A}, source=failed)), pod(2, ONE)))
    assert condition(found, "SourceReady") == ("False", expected)
    assert message(found, "SourceReady").startswith("gs://models/m: the words")
    assert condition(found, "Ready")[0] == "True"


@pytest.mark.parametrize(
    ("reason", "named"),
    [
        (SourceReason.UNREACHABLE, True),
        (SourceReason.ACCESS_DENIED, True),
        (SourceReason.BUCKET_NOT_FOUND, False),
    ],
)
def test_a_container_that_waits_for_a_poller_without_a_network_is_named(
    reason: SourceReason, *, named: bool
) -> None:
    failed = SourceStatus(
        uri="gs://models/m", state=SourceState.FAILED, reason=reason, message="the words"
    )
    held = pod(1, told({}, source=failed), ready=False, behind_poller="mesh-proxy")
    found = compute(observed(held, target=None))
    assert ("the container mesh-proxy starts only" in message(found, "SourceReady")) is named


def test_a_source_without_a_report_or_a_listing_is_unknown() -> None:
    pending = SourceStatus(uri="gs://models/m")
    assert condition(compute(observed(pod(1, None))), "SourceReady") == ("Unknown", "NoReport")
    assert condition(
        compute(observed(pod(1, told({}, source=pending)), target=None)), "SourceReady"
    ) == ("Unknown", "NotListedYet")


def test_broken_notifications_are_told_and_the_source_stays_ready() -> None:
    down = SourceStatus(
        uri="gs://models/m",
        state=SourceState.READY,
        reason=SourceReason.LISTED,
        notifications=NotificationsStatus(connected=False, message="subscription s is gone"),
    )
    found = compute(observed(pod(1, told({1: A}, source=down)), pod(2, ONE)))
    assert condition(found, "SourceReady") == ("True", "NotificationsDown")
    assert "subscription s is gone" in message(found, "SourceReady")


@pytest.mark.parametrize(
    ("state", "fix"),
    [
        (CacheState.UNUSABLE, "look at the claim's volume"),
        (CacheState.READ_ONLY, "write access"),
        (CacheState.FULL, "raise spec.storage.cache.maxSize"),
    ],
)
def test_a_cache_that_is_of_no_use_is_told_and_the_source_stays_ready(
    state: CacheState, fix: str
) -> None:
    broken = CacheStatus(state=state, message="it has not answered for 10 s")
    well = CacheStatus(state=CacheState.READY)
    seen = observed(
        pod(1, msgspec.structs.replace(told({1: A}), cache=broken)),
        pod(2, msgspec.structs.replace(told({1: A}), cache=well)),
    )
    found = compute(seen, storage={"cache": {"claimName": "shared"}})
    assert condition(found, "SourceReady") == ("True", "CacheUnusable")
    text = message(found, "SourceReady")
    assert "claim shared (spec.storage.cache)" in text
    assert "(pod-1): it has not answered for 10 s" in text
    assert fix in text
    # A pod of before the change may still tell of it.
    assert condition(compute(seen), "SourceReady") == ("True", "Listed")


def test_the_room_that_versions_need_is_told_and_kept_while_nobody_reports() -> None:
    def sized(*sizes: int) -> PollerStatus:
        versions = tuple(
            VersionStatus(version=number, state=A, bytes_total=size)
            for number, size in enumerate(sizes, start=1)
        )
        return msgspec.structs.replace(told({1: A}), versions=versions)

    found = compute(observed(pod(1, sized(100 << 20, 300 << 20)), pod(2, sized(1))))
    # Two are kept; one comes, out of an archive; and the poller leaves a little free.
    assert disk.RESERVE_BYTES == RESERVE_BYTES
    assert found["model"]["diskNeeded"] == "1232Mi"
    later = compute(observed(wanted=0), {**found})
    assert later["model"]["diskNeeded"] == "1232Mi"
    large = compute(observed(pod(1, sized(20 << 30))), model={"storageUri": "gs://models/m"})
    assert large["model"]["diskNeeded"] == "81Gi"


def test_an_upload_that_is_not_whole_is_told_unless_it_is_still_moving() -> None:
    def upload(reason: VersionReason) -> Any:
        report = told(
            {1: A, 2: VersionState.INCOMPLETE},
            target=1,
            reasons={2: (reason, "a shard is missing")},
        )
        return compute(observed(pod(1, report), pod(2, report)))

    missing = upload(VersionReason.MISSING_VARIABLES)
    assert condition(missing, "SourceReady") == ("True", "IncompleteUpload")
    assert "version 2" in message(missing, "SourceReady")
    assert "a shard is missing" in message(missing, "SourceReady")
    assert condition(upload(VersionReason.UNSTABLE_LISTING), "SourceReady")[1] == "Listed"


def test_a_quarantined_newest_version_blocks_and_what_serves_is_named() -> None:
    failed = QuarantinedVersion(version=2, fingerprint="f", reason="LoadFailed", message="no graph")
    report = told({1: A, 2: Q}, target=1)
    found = compute(observed(pod(1, report), pod(2, ONE), quarantined=(failed,)))
    assert found["model"]["transitionStatus"] == "BlockedByFailedLoad"
    assert found["model"]["quarantined"] == [
        {"version": 2, "reason": "LoadFailed", "message": "no graph"}
    ]
    assert found["model"]["latestVersion"] == 2
    assert condition(found, "ModelLoaded") == ("False", "LoadFailed")
    assert message(found, "ModelLoaded") == (
        "version 2 is quarantined, version 1 goes on serving: no graph; upload a repaired version"
    )
    assert condition(found, "Ready") == ("True", "Serving")
    assert condition(found, "Reconciling") == ("False", "Settled")


def test_a_newest_version_that_can_not_be_fetched_is_told_beside_the_one_that_serves() -> None:
    refused = {2: (VersionReason.FETCH_FAILED, "gs://m/2.zip: 403")}
    report = told({1: A, 2: VersionState.DISCOVERED}, target=1, reasons=refused)
    found = compute(observed(pod(1, report), pod(2, report)))
    assert found["model"]["transitionStatus"] == "InProgress"
    assert condition(found, "ModelLoaded") == ("False", "FetchFailed")
    assert message(found, "ModelLoaded") == (
        "version 2 can't be fetched and is tried again, version 1 goes on serving: "
        "gs://m/2.zip: 403"
    )
    assert condition(found, "Ready") == ("True", "Serving")
    assert condition(found, "Reconciling")[0] == "True"


def test_a_quarantined_version_that_has_a_good_successor_blocks_nothing() -> None:
    failed = QuarantinedVersion(version=1, fingerprint="f", reason="LoadFailed")
    found = compute(observed(pod(1, TWO), pod(2, TWO), target=2, quarantined=(failed,)))
    assert found["model"]["transitionStatus"] == "UpToDate"
    assert condition(found, "ModelLoaded") == ("True", "Loaded")


def test_the_last_failure_is_told_with_its_pod_and_stays_when_it_is_overcome() -> None:
    failed = QuarantinedVersion(version=2, fingerprint="f", reason="LoadFailed", message="no graph")
    seen = observed(pod(1, ONE), pod(2, told({1: A, 2: Q}, target=1)), quarantined=(failed,))

    first = compute(seen)
    later = compute(seen, first, LATER)
    healed = compute(observed(pod(1, TWO), pod(2, TWO), target=2), later, LATER)

    info = {"version": 2, "reason": "LoadFailed", "message": "no graph", "time": NOW}
    assert first["model"]["lastFailureInfo"] == {**info, "pod": "pod-2"}
    assert later["model"]["lastFailureInfo"] == first["model"]["lastFailureInfo"]
    assert healed["model"]["lastFailureInfo"] == first["model"]["lastFailureInfo"]


def quarantined(*numbers: int, target: int = 1) -> Observed:
    failed = tuple(
        QuarantinedVersion(version=number, fingerprint="f", reason="LoadFailed")
        for number in numbers
    )
    return observed(pod(1, ONE), pod(2, ONE), quarantined=failed, target=target)


def test_a_version_that_was_quarantined_before_is_no_new_failure_when_it_is_listed_again() -> None:
    oldest = compute(quarantined(2))
    all_of_them = compute(quarantined(*range(13, 1, -1)), oldest)
    assert all_of_them["model"]["lastFailureInfo"]["version"] == 13
    # The objects of the newest are taken out of the bucket, so an older one is listed again.
    fewer = compute(quarantined(*range(12, 1, -1)), all_of_them, LATER)
    assert fewer["model"]["quarantined"][-1]["version"] == 3
    assert fewer["model"]["lastFailureInfo"] == all_of_them["model"]["lastFailureInfo"]
    assert events.changes(status.decode(all_of_them), status.decode(fewer)) == []
    newer = compute(quarantined(*range(14, 1, -1)), all_of_them, LATER)
    assert newer["model"]["lastFailureInfo"]["version"] == 14
    assert len(events.changes(status.decode(all_of_them), status.decode(newer))) == 1


def test_a_pinned_version_that_fails_is_told_however_many_newer_ones_have_failed() -> None:
    before = compute(quarantined(*range(15, 4, -1)))
    pinned = compute(quarantined(*range(15, 4, -1), target=2), before, LATER)
    failed = compute(quarantined(*range(15, 4, -1), 2, target=2), pinned, LATER)
    assert [entry["version"] for entry in failed["model"]["quarantined"]] == [*range(15, 6, -1), 2]
    assert failed["model"]["lastFailureInfo"]["version"] == 2
    assert failed["model"]["history"][0]["result"] == "Failed"
    told = events.changes(status.decode(pinned), status.decode(failed))
    assert [change.note for change in told] == ["version 2 is quarantined: "]
    unpinned = compute(quarantined(*range(15, 4, -1), 2), failed, LATER)
    assert unpinned["model"]["lastFailureInfo"] == failed["model"]["lastFailureInfo"]


def test_replicas_that_answer_with_different_versions_are_told_with_how_many() -> None:
    mixed = compute(observed(pod(1, ONE), pod(2, TWO), pod(3, TWO), target=2))
    assert condition(mixed, "VersionSkew") == ("True", "VersionsDiffer")
    assert "1 with version 1, 2 with version 2" in message(mixed, "VersionSkew")

    unknown = compute(observed(pod(1, ONE), pod(2, None)))
    assert condition(unknown, "VersionSkew") == ("Unknown", "PollerUnreachable")
    assert condition(compute(observed()), "VersionSkew") == ("False", "NotServing")


def test_two_failed_uploads_of_one_number_are_told_once() -> None:
    failed = tuple(
        QuarantinedVersion(version=2, fingerprint=f, reason="LoadFailed") for f in ("a", "b")
    )
    found = compute(observed(pod(1, ONE), pod(2, ONE), quarantined=failed))
    assert [entry["version"] for entry in found["model"]["quarantined"]] == [2]


@pytest.mark.parametrize(
    ("state", "reason", "expected"),
    [
        (D, None, "Fetching"),
        (VersionState.FETCHING, None, "Fetching"),
        (VersionState.FETCHED, None, "Loading"),
        (P, None, "Loading"),
        (D, VersionReason.INSUFFICIENT_DISK, "InsufficientDisk"),
        (D, VersionReason.FETCH_FAILED, "FetchFailed"),
        (VersionState.INCOMPLETE, VersionReason.MISSING_SAVED_MODEL, "MissingSavedModel"),
    ],
)
def test_a_version_on_its_way_is_told_with_how_far_it_is(
    state: VersionState, reason: VersionReason | None, expected: str
) -> None:
    reasons = {2: (reason, "words")} if reason else {}
    report = told({1: A, 2: state}, target=2, reasons=reasons)
    found = compute(observed(pod(1, report), pod(2, report), target=2))
    assert condition(found, "ModelLoaded") == ("False", expected)
    assert condition(found, "Reconciling") == ("True", "ChangingVersion")
    assert "from version 1 to version 2" in message(found, "Reconciling")
    assert found["model"]["transitionStatus"] == "InProgress"


def test_a_version_that_is_nowhere_is_told() -> None:
    nowhere = told({1: A, 9: VersionState.INCOMPLETE}, target=9)
    nowhere = msgspec.structs.replace(
        nowhere,
        versions=tuple(
            msgspec.structs.replace(v, in_source=v.version != 9) for v in nowhere.versions
        ),
    )
    found = compute(
        observed(pod(1, nowhere), pod(2, nowhere), target=9), model={**URI, "version": 9}
    )
    assert condition(found, "ModelLoaded") == ("False", "VersionNotFound")


URI = {"storageUri": "gs://models/m"}


def test_a_served_version_that_changed_in_the_bucket_is_told_and_stays_loaded() -> None:
    changed = told({1: A}, target=1, reasons={1: (VersionReason.CHANGED_AFTER_PUBLISH, "x")})
    found = compute(observed(pod(1, changed), pod(2, changed)))
    assert condition(found, "ModelLoaded") == ("True", "ChangedAfterPublish")


@pytest.mark.parametrize(
    ("problem", "reason"),
    [
        (NameConflictError("Service", "vision/m"), "NameConflict"),
        (InvalidRecordError("vision/m-versions", "target", "no number"), "InvalidRecord"),
        (
            NotOfferedError(
                "ScaledObject", "m", "crd", "keda.sh/v1alpha1", "spec.autoscaling.keda"
            ),
            "KindMissing",
        ),
        (RefusedError("Deployment", "m", "no", "change it"), "Refused"),
    ],
)
def test_what_only_a_person_can_change_stalls(problem: Any, reason: str) -> None:
    found = compute(observed(pod(1, ONE), pod(2, ONE), problems=(problem,)))
    assert condition(found, "Stalled") == ("True", reason)
    assert message(found, "Stalled") == str(problem)
    assert condition(found, "Reconciling") == ("False", "Blocked")


def test_what_heals_by_waiting_is_still_reconciling() -> None:
    found = compute(observed(pod(1, ONE), pod(2, ONE), problems=(ApiUnavailableError("away"),)))
    assert condition(found, "Stalled")[0] == "False"
    assert condition(found, "Reconciling") == ("True", "Applying")


def test_a_deployment_past_its_deadline_stalls() -> None:
    failure = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}
    deployment = msgspec.convert({"conditions": [failure]}, DeploymentStatus)
    found = compute(observed(deployment=deployment))
    assert condition(found, "Stalled") == ("True", "ProgressDeadlineExceeded")


@pytest.mark.parametrize(
    ("state", "reason", "stalls"),
    [
        (VersionState.FETCHING, None, False),
        (VersionState.FETCHED, None, False),
        (P, None, False),
        (VersionState.FETCHING, VersionReason.FETCH_FAILED, True),
        (D, VersionReason.INSUFFICIENT_DISK, True),
        (D, None, True),
    ],
)
def test_a_large_version_that_is_still_fetched_or_loaded_is_not_stalled_by_the_deadline(
    state: VersionState, reason: VersionReason | None, *, stalls: bool
) -> None:
    failure = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}
    deployment = msgspec.convert({"conditions": [failure]}, DeploymentStatus)
    report = told({1: state}, target=1, reasons={1: (reason, "words")} if reason else {})
    found = compute(observed(pod(1, report, ready=False), wanted=1, deployment=deployment))
    expected = ("True", "ProgressDeadlineExceeded") if stalls else ("False", "NotStalled")
    assert condition(found, "Stalled") == expected
    before = compute(
        observed(pod(1, report, ready=False, current=False), wanted=1, deployment=deployment)
    )
    assert condition(before, "Stalled")[0] == "True"


def test_a_version_without_room_names_the_field() -> None:
    words = "7 bytes are needed and 5 are free on the model volume"
    full = {2: (VersionReason.INSUFFICIENT_DISK, words)}
    report = told({1: A, 2: D}, target=2, reasons=full)
    of = {"storageUri": "gs://models/m", "retainVersions": 3}
    waiting = compute(observed(pod(1, report), target=2, wanted=1), model=of)
    assert message(waiting, "ModelLoaded") == (
        f"version 2: {words} (the volume is on the node's disk; spec.model.retainVersions is 3)"
    )
    claimed: dict[str, Any] = {"spec": {"resources": {"requests": {"storage": "20Gi"}}}}
    for storage, field in (
        ({"emptyDir": {"sizeLimit": "9Gi"}}, "spec.storage.emptyDir.sizeLimit is 9Gi"),
        ({"volumeClaimTemplate": claimed}, "spec.storage.volumeClaimTemplate asks for 20Gi"),
    ):
        told_so = compute(observed(pod(1, report), target=2, wanted=1), model=of, storage=storage)
        assert f"{words} ({field}; " in message(told_so, "ModelLoaded")
    missed = told({1: A, 2: D}, target=1, reasons=full)
    assert "spec.model.retainVersions is 2" in message(
        compute(observed(pod(1, missed), wanted=1)), "ModelLoaded"
    )


def test_suspension_is_told_and_the_rest_stays_true() -> None:
    found = compute(observed(pod(1, ONE), pod(2, ONE)), suspend=True)
    assert found["model"]["transitionStatus"] == "Suspended"
    assert condition(found, "Reconciling") == ("False", "Suspended")
    assert condition(found, "Ready") == ("True", "Serving")


def test_a_suspended_resource_is_where_it_was_before_its_host_was_changed() -> None:
    before = compute(observed(pod(1, ONE), pod(2, ONE)), ingress={"host": "a.example.com"})
    found = compute(observed(), before, ingress={"host": "b.example.com"}, suspend=True)
    assert found["url"] == before["url"]
    found = compute(observed(), found, ingress={"host": "b.example.com"})
    assert "b.example.com" in found["url"]


def test_pods_of_the_source_before_are_replaced_once_the_resource_is_resumed() -> None:
    old = Replica(name="pod-1", ready=True, report=None, other_source=True)
    found = compute(observed(old, target=None), suspend=True)
    assert "once spec.suspend is false" in message(found, "Ready")


def test_a_resource_that_cannot_be_understood_keeps_what_was_known() -> None:
    before = compute(observed(pod(1, ONE), pod(2, ONE)))
    problem = InvalidModelError("vision/m", "spec.replicas", "expected int", "correct it")

    moment = datetime.fromisoformat(LATER)
    after = assessment.assess_invalid(problem, 5, status.decode(before), moment).to_object()

    assert condition(after, "Stalled") == ("True", "InvalidSpec")
    assert condition(after, "Ready") == ("True", "Serving")
    assert after["model"] == before["model"]
    assert after["observedGeneration"] == 5


def test_at_most_ten_versions_are_listed_and_target_and_active_are_among_them() -> None:
    report = told({**dict.fromkeys(range(2, 20), D), 1: A}, target=3)
    listed = compute(observed(pod(1, report), target=3, wanted=1))["model"]["versions"]
    assert [v["version"] for v in listed] == [19, 18, 17, 16, 15, 14, 13, 12, 3, 1]


def test_the_most_advanced_state_over_the_pods_is_told() -> None:
    loading = told({5: A, 6: P}, target=6)
    loading = msgspec.structs.replace(
        loading, served=(ServedVersion(version=6, state="LOADING"), *loading.served)
    )
    other = told({4: Q, 5: R, 6: D, 7: D}, target=6)
    third = told({4: A, 5: Q, 7: VersionState.FETCHED}, target=6)

    listed = compute(observed(pod(1, loading), pod(2, other), pod(3, third), target=6))

    assert {v["version"]: v["state"] for v in listed["model"]["versions"]} == {
        4: "Available",
        5: "Available",
        6: "Loading",
        7: "Fetched",
    }


def test_every_reason_of_a_poller_is_one_of_a_condition() -> None:
    for reason in (*VersionReason, *SourceReason):
        assert reason_of(reason).value == reason.value
    assert reason_of("FromTheFuture") is Reason.OTHER


def test_conditions_come_in_one_order() -> None:
    found = compute(observed())
    assert [c["type"] for c in found["conditions"]] == [kind.value for kind in ConditionType]


def test_who_has_lost_its_address_is_not_ready_though_its_replicas_are() -> None:
    lost = AddressConflictError("x.example.com/", "Ingress", "other", "spec.ingress.host")
    found = compute(observed(pod(1, ONE), pod(2, ONE), problems=(lost,)))
    for kind, state in (("Ready", "False"), ("Stalled", "True")):
        assert condition(found, kind) == (state, "AddressConflict")
        assert "InferenceModel other" in message(found, kind)
    assert condition(found, "ModelLoaded") == ("True", "Loaded")


def test_a_bucket_below_the_minimum_is_explained_and_what_serves_goes_on() -> None:
    spec: dict[str, Any] = {"model": {**URI, "minVersion": 5}}
    found = compute(observed(pod(1, ONE), pod(2, ONE), target=None), **spec)
    assert condition(found, "ModelLoaded") == ("False", "BelowMinVersion")
    assert "minVersion 5, the newest is 1; pods that serve version 1 go on" in message(
        found, "ModelLoaded"
    )
    assert found["model"]["activeVersion"] == 1
    assert found["model"]["transitionStatus"] == "InProgress"
    waiting = compute(observed(pod(1, told({1: D}), ready=False), target=None), **spec)
    assert condition(waiting, "ModelLoaded") == ("False", "BelowMinVersion")


def test_an_emptied_bucket_has_no_latest_version_and_one_that_fails_keeps_it() -> None:
    before = compute(observed(pod(1, ONE), pod(2, ONE)))
    gone = msgspec.structs.replace(
        ONE, versions=(msgspec.structs.replace(ONE.versions[0], in_source=False),)
    )
    assert "latestVersion" not in compute(observed(pod(1, gone), pod(2, gone)), before)["model"]
    failed = SourceStatus(uri="gs://models/m", state=SourceState.FAILED)
    away = msgspec.structs.replace(gone, source=failed)
    assert compute(observed(pod(1, away), pod(2, away)), before)["model"]["latestVersion"] == 1


def test_another_source_begins_with_nothing_known() -> None:
    before = compute(observed(pod(1, ONE), pod(2, ONE)))
    old = [Replica(name=f"pod-{n}", ready=True, report=None, other_source=True) for n in (1, 2)]

    found = compute(observed(*old, target=None), before, model={"storageUri": "gs://models/new"})

    assert found["model"].keys() == {"name", "storageUri", "store", "transitionStatus"}
    assert found["model"]["transitionStatus"] == "Pending"
    assert condition(found, "Ready") == ("False", "ReplicasNotReady")
    assert "gs://models/new" in message(found, "Ready")
    assert condition(found, "SourceReady") == ("Unknown", "NoReport")
    assert condition(found, "ModelLoaded") == ("Unknown", "NoReport")


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({"model": {"storageUri": "gs://models/new"}}, "spec.model.storageUri is gs://models/new"),
        ({"source": {"endpoint": "http://minio:9000"}}, "endpoint=http://minio:9000"),
    ],
)
def test_a_rollout_that_runs_while_the_source_changes_ends_as_superseded(
    spec: dict[str, Any], why: str
) -> None:
    running = RolloutStatus(
        version=2, phase="Progressing", start_time=datetime.fromisoformat(NOW), step=1, steps=2
    )
    before = compute(observed(pod(1, ONE), pod(2, ONE), rollout=running))
    assert before["model"]["rollout"]["phase"] == "Progressing"
    old = [Replica(name=f"pod-{n}", ready=True, report=None, other_source=True) for n in (1, 2)]
    seen = observed(*old, target=None)

    found = compute(seen, before, LATER, **spec)

    ended = found["model"]["rollout"]
    assert (ended["phase"], ended["endTime"]) == ("Superseded", "2026-01-01T00:05:00Z")
    assert why in ended["message"]
    assert compute(seen, found, "2026-01-01T00:06:00Z", **spec) == found


def test_one_replica_of_three_is_no_version_reached() -> None:
    down = [pod(n, told({1: R, 2: P}, target=2, reachable=False), ready=False) for n in (2, 3)]
    before = {"model": {"activeVersion": 1}}
    found = compute(observed(pod(1, TWO), *down, target=2, wanted=3), before)
    assert found["model"]["transitionStatus"] == "InProgress"
    assert "activeVersion" not in found["model"]
    assert condition(found, "ModelLoaded") == ("False", "Loading")
    assert "version 2 answers on 1 of 3 replicas" in message(found, "ModelLoaded")


def test_a_pod_that_drains_and_answers_with_another_version_still_counts() -> None:
    draining = pod(3, ONE, ready=False, draining=True)
    found = compute(observed(pod(1, TWO), pod(2, TWO), draining, target=2))
    assert condition(found, "ModelLoaded") == ("False", "Loading")
    assert condition(found, "VersionSkew")[0] == "True"
    assert found["model"]["transitionStatus"] == "InProgress"
    assert found["replicas"] == 2
    silent = pod(3, None, ready=False, draining=True)
    assert compute(observed(pod(1, TWO), pod(2, TWO), silent, target=2))["model"][
        "transitionStatus"
    ] == ("UpToDate")


def test_pods_of_a_template_that_cannot_start_stall_at_once_beside_those_that_serve() -> None:
    serving = [pod(n, ONE, current=False) for n in (1, 2)]
    crashed = pod(3, None, ready=False, trouble=Trouble.SERVER_CRASHED, message="unknown flag")
    surge = DeploymentStatus(observed_generation=1, replicas=3, updated_replicas=1)
    found = compute(observed(*serving, crashed, deployment=surge))
    assert condition(found, "Stalled") == ("True", "ServerCrashed")
    assert "unknown flag" in message(found, "Stalled")
    assert condition(found, "Ready") == ("True", "Serving")
    assert found["model"]["transitionStatus"] == "InProgress"


def test_an_older_generations_account_judges_nothing() -> None:
    stuck = pod(2, None, ready=False, trouble=Trouble.IMAGE_PULL_FAILED, message="no image")
    found = compute(observed(pod(1, ONE), stuck, deployment=None))
    assert condition(found, "Stalled") == ("False", "NotStalled")
    assert condition(found, "Ready") == ("False", "ReplicasNotReady")
    assert condition(found, "Reconciling") == ("True", "RollingOut")


def test_a_deleted_resource_that_a_finalizer_holds_is_not_ready() -> None:
    moment = datetime.fromisoformat(NOW)
    seen = observed(pod(1, ONE), pod(2, ONE))
    found = assessment.assess(
        model(), seen, status.Status(), moment, finalizers="example.com/backup"
    ).to_object()
    assert condition(found, "Ready") == ("False", "Terminating")
    assert "example.com/backup" in message(found, "Ready")
    assert condition(found, "Reconciling") == ("True", "Terminating")
