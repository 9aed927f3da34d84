"""``why``: what is waited for, in words."""

from __future__ import annotations

import pytest

from kubectl_inferencemodel.explanation import explain
from kubectl_inferencemodel.fetches import how_far
from model_poller.status import PollerStatus, SourceStatus, VersionState, VersionStatus
from tests.unit.plugin.views import FINE, arriving, model, pod, rollout


def test_a_settled_resource_says_so_and_finds_nothing() -> None:
    found = explain(model(), [pod("a", ready=True)])
    assert found.settled
    assert found.summary == "Version 2 answers on 3/3 replicas, and that is all that is wanted."
    assert found.findings == ()


def test_beside_a_newest_version_that_failed_what_serves_is_not_all_that_is_wanted() -> None:
    failed = (
        "False",
        "LoadFailed",
        "version 3 is quarantined, version 2 goes on serving: no graph",
    )
    found = explain(
        model(conditions={"ModelLoaded": failed}, transitionStatus="BlockedByFailedLoad"), []
    )
    assert found.summary == (
        "Version 2 answers on 3/3 replicas, but version 3 is quarantined, version 2 goes on "
        "serving: no graph."
    )


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("Incomplete", "version 3, which is not complete in the bucket"),
        ("Fetching", "version 3, which is being fetched"),
        ("Loading", "version 3, which is being loaded by the model server"),
        ("Available", "version 3, which answers on 1 of 3 replicas"),
        ("Melting", "version 3, which is Melting"),
    ],
)
def test_it_waits_for_a_version_and_says_how_far_it_is(state: str, words: str) -> None:
    replicas = 1 if state == "Available" else 0
    found = explain(
        model(
            conditions={"Reconciling": ("True", "ChangingVersion", "0 of 3 replicas have it")},
            **arriving(3, state, replicas),
        ),
        [],
    )
    assert not found.settled
    assert found.summary == f"Version 2 answers on 3/3 replicas; it waits for {words}."
    assert [(f.about, f.message) for f in found.findings] == [
        ("Reconciling", "0 of 3 replicas have it")
    ]


def test_a_version_that_no_replica_knows_is_said_to_be_unknown() -> None:
    found = explain(model(targetVersion=9), [])
    assert "it waits for" not in found.summary  # every condition says that it is settled
    waiting = model(
        conditions={"Reconciling": ("True", "ChangingVersion", "waits")}, targetVersion=9
    )
    assert "version 9, which no replica knows yet" in explain(waiting, []).summary


def test_the_condition_that_a_person_must_act_on_comes_first_and_nothing_is_said_twice() -> None:
    found = explain(
        model(
            conditions={
                "Ready": ("False", "PodsRefused", "quota pods is used up; raise it"),
                "Stalled": ("True", "Refused", "the Deployment is refused"),
                "ModelLoaded": ("Unknown", "NoTarget", "quota pods is used up; raise it"),
                "Reconciling": ("True", "Applying", "the Deployment is refused"),
            }
        ),
        [],
    )
    assert [(f.about, f.reason) for f in found.findings] == [
        ("Stalled", "Refused"),
        ("Ready", "PodsRefused"),
    ]


def test_a_source_that_works_but_has_no_notifications_is_told_although_it_is_settled() -> None:
    found = explain(
        model(conditions={"SourceReady": ("True", "NotificationsDown", "no subscription s")}), []
    )
    assert found.settled
    assert [(f.about, f.reason) for f in found.findings] == [("SourceReady", "NotificationsDown")]


def test_skew_between_replicas_is_told_while_it_lasts() -> None:
    skewed = explain(model(conditions={"VersionSkew": ("True", "Skewed", "1 of 3 serve 1")}), [])
    even = explain(model(conditions={"VersionSkew": ("False", "NoSkew", "all the same")}), [])
    assert [f.about for f in skewed.findings] == ["VersionSkew"]
    assert even.findings == ()


def test_a_newer_version_that_is_not_wanted_is_explained_by_the_pin_or_the_minimum() -> None:
    pinned = explain(model(spec={"model": {"version": 2}}, latestVersion=5), [])
    too_low = explain(
        model(
            spec={"model": {"minVersion": 9}},
            activeVersion=None,
            targetVersion=None,
            latestVersion=5,
        ),
        [],
    )
    assert "spec.model.version is 2" in pinned.findings[0].message
    assert "below spec.model.minVersion, 9" in too_low.findings[0].message


def test_a_quarantined_version_is_told_with_its_reason() -> None:
    failed = {"version": 3, "reason": "LoadFailed", "message": "no such op: Foo"}
    found = explain(model(quarantined=[failed], latestVersion=3), [])
    assert [(f.about, f.reason, f.message) for f in found.findings] == [
        ("version 3", "LoadFailed", "no such op: Foo")
    ]


def test_a_resource_that_nobody_has_looked_at_points_to_the_operator() -> None:
    found = explain(model(status={"conditions": []}), [])
    assert not found.settled
    assert "app.kubernetes.io/part-of=inferencemodel" in found.summary


def test_a_change_that_the_operator_has_not_seen_is_no_settled_state() -> None:
    found = explain(model(generation=3), [])
    assert not found.settled
    assert "has not yet looked at the last change" in found.summary


def test_a_suspended_resource_says_so() -> None:
    assert "suspended" in explain(model(spec={"suspend": True}), []).summary


def test_each_pod_that_is_not_ready_says_why() -> None:
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}
    killed = {"terminated": {"reason": "OOMKilled", "exitCode": 137}}
    pods = [
        pod("served", ready=True),
        pod("leaving", ready=True, leaving=True),
        pod("pulling", poller={"state": waiting}),
        pod("killed", server={"restartCount": 4, "lastState": killed}),
        pod(
            "homeless",
            conditions=[
                {
                    "type": "PodScheduled",
                    "status": "False",
                    "reason": "Unschedulable",
                    "message": "0/3 nodes: insufficient memory",
                }
            ],
        ),
        pod("held", server={"state": {"waiting": {"reason": "PodInitializing"}}}),
        pod("starting", poller={"state": {"waiting": {"reason": "ContainerCreating"}}}),
        pod("loading"),
    ]
    conditions = {**FINE, "Ready": ("False", "ReplicasNotReady", "1/3 are ready")}
    found = explain(model(conditions=conditions), pods)
    told = {f.about: (f.reason, f.message) for f in found.findings}
    assert told.pop("Ready") == ("ReplicasNotReady", "1/3 are ready")
    assert told == {
        "pod leaving": ("Terminating", "finishes the requests that it has, and goes"),
        "pod pulling": ("ImagePullBackOff", "container poller: no such image"),
        "pod killed": (
            "OOMKilled",
            "container model-server ended with 137 and was restarted 4 times; "
            "see kubectl logs killed -c model-server --previous",
        ),
        "pod homeless": ("Unschedulable", "0/3 nodes: insufficient memory"),
        "pod held": (
            "NotReady",
            "its model server starts as soon as a version is on its disk",
        ),
        "pod starting": ("NotReady", "is being started"),
        "pod loading": ("NotReady", "its model server does not yet serve imagenet"),
    }


def test_a_rollout_that_waits_for_somebody_is_told_once() -> None:
    message = "step 1 of 2: 1 replicas answer with version 3; promote or abort it"
    found = explain(
        model(
            conditions={
                "RolloutPaused": ("True", "RolloutPaused", message),
                "ModelLoaded": ("False", "RolloutPaused", message),
                "Reconciling": ("True", "ChangingVersion", "replicas move to version 3"),
            },
            **arriving(3, "Available", 1),
            rollout=rollout("Paused", message=message),
        ),
        [],
    )
    assert message in found.summary
    assert [(f.about, f.message) for f in found.findings if f.message == message] == [
        ("RolloutPaused", message)
    ]
    settled = explain(model(conditions={"RolloutPaused": ("False", "NotPaused", "no")}), [])
    assert not settled.findings


GB = 10**9


def fetching(done: int, left: int | None, total: int = 20 * GB, message: str = "") -> VersionStatus:
    return VersionStatus(
        version=3,
        state=VersionState.FETCHING,
        bytes_done=done,
        bytes_total=total,
        seconds_left=left,
        message=message,
    )


@pytest.mark.parametrize(
    ("fetch", "words"),
    [
        (fetching(0, None), "0.0 of 20.0 GB"),
        (fetching(8_200_000_000, 236), "8.2 of 20.0 GB, about 4 min left"),
        (fetching(10 * GB, 119), "10.0 of 20.0 GB, about 119 s left"),
        (fetching(10 * GB, 9000), "10.0 of 20.0 GB, about 2 h 30 min left"),
        (fetching(20 * GB, 0), "all of 20.0 GB are there, and are checked"),
        (fetching(5_000_000, 3, 12_000_000), "5.0 of 12.0 MB, about 3 s left"),
        (fetching(7, 1, 900), "7 of 900 bytes, about 1 s left"),
        # Nobody knows yet how much it is.
        (fetching(7, None, 0), ""),
    ],
)
def test_how_far_a_fetch_has_come_is_told_in_words(fetch: VersionStatus, words: str) -> None:
    assert how_far(fetch) == words


def test_how_far_each_pod_is_and_when_the_last_of_them_has_it_is_told() -> None:
    def report(version: VersionStatus) -> PollerStatus:
        source = SourceStatus(uri="gs://models/imagenet")
        return PollerStatus(revision="r", model="imagenet", source=source, versions=(version,))

    reports = {
        "a": report(fetching(15 * GB, 60)),
        "b": report(fetching(8_200_000_000, 236, message="the store answered 503")),
        "c": report(VersionStatus(version=3, state=VersionState.FETCHED, bytes_done=20 * GB)),
    }
    going = {"Reconciling": ("True", "ChangingVersion", "0 of 3 replicas have it")}
    changing = model(conditions=going, **arriving(3, "Fetching"))
    found = explain(changing, [], reports)
    assert found.summary == (
        "Version 2 answers on 3/3 replicas; it waits for version 3, which is being fetched "
        "(8.2 of 20.0 GB, about 4 min left)."
    )
    assert [(f.about, f.reason, f.message) for f in found.findings[1:]] == [
        ("pod a", "Fetching", "version 3: 15.0 of 20.0 GB, about 60 s left"),
        (
            "pod b",
            "Fetching",
            "version 3: 8.2 of 20.0 GB, about 4 min left: the store answered 503",
        ),
    ]
    # Who may not ask pods is told the rest.
    assert explain(changing, []).summary.endswith("which is being fetched.")
