"""The pod that rehearses a version, whose it is, and what it says about the version."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from inferencemodel_operator import names, rehearsal, spec
from inferencemodel_operator.cache import Cache
from inferencemodel_operator.children import children
from inferencemodel_operator.children import rehearsal as child
from inferencemodel_operator.cluster import DEPLOYMENTS, MODELS, PODS
from inferencemodel_operator.observe import objects
from inferencemodel_operator.observe.troubles import Trouble
from inferencemodel_operator.record import VersionsRecord
from inferencemodel_operator.rehearsal import PATIENCE, RESTARTS, RehearsalPod, Verdict, verdict
from inferencemodel_operator.settings import Settings
from inferencemodel_operator.spec import InferenceModel, Rehearsal, decode
from inferencemodel_operator.values import Duration
from model_poller.status import CheckResult, RolloutTask, VersionReason, VersionState, encode_task
from model_poller.volume import assignment
from tests.support.pods import told

if TYPE_CHECKING:
    from inferencemodel_operator.children.manifest import Manifest
    from inferencemodel_operator.observe.objects import Pod

KEY = ("vision", "imagenet")
TASK = encode_task(RolloutTask(version=15, key="k"))
SINCE = datetime.datetime(2026, 11, 28, 12, 0, tzinfo=datetime.UTC)


def model(**given: Any) -> InferenceModel:
    return decode(
        {
            "metadata": {"name": "imagenet", "namespace": "vision", "uid": "u-1"},
            "spec": {"model": {"storageUri": "gs://models/imagenet"}, **given},
        }
    )


def wanted(**given: Any) -> dict[str, list[Manifest]]:
    """All children by kind."""
    by_kind: dict[str, list[Manifest]] = {}
    for made in children(model(**given), VersionsRecord(target=14), Settings()):
        by_kind.setdefault(made["kind"], []).append(made)
    return by_kind


def template(**given: Any) -> Manifest:
    made: Manifest = wanted(**given)["Deployment"][0]["spec"]["template"]
    return made


def built(
    *, version: int = 15, fingerprint: str = "f15", quarantined: str = "13@f13", **given: Any
) -> Manifest:
    return child.build(
        model(**given),
        template(**given),
        version=version,
        fingerprint=fingerprint,
        served=(version,),
        quarantined=quarantined,
        rollout=TASK,
    )


# -- the manifest


EVERYTHING: dict[str, Any] = {
    "replicas": 3,
    "networkPolicy": {"enabled": True},
    "template": {
        "metadata": {"labels": {"app": "photos"}, "annotations": {"team": "vision"}},
        "topologySpreadConstraints": [{"topologyKey": "zone"}],
    },
}


def test_nothing_that_selects_replicas_selects_it() -> None:
    labels = built(**EVERYTHING)["metadata"]["labels"].items()
    kinds = wanted(**EVERYTHING)
    selectors = [
        *(service["spec"]["selector"] for service in kinds["Service"]),
        *(o["spec"]["selector"]["matchLabels"] for o in kinds["Deployment"]),
        *(o["spec"]["selector"]["matchLabels"] for o in kinds["PodDisruptionBudget"]),
        dict([names.selector_text("imagenet").split("=")]),
    ]
    assert len(selectors) == 5
    for selector in selectors:
        assert not selector.items() <= labels


def test_the_network_policy_and_the_watch_of_pods_select_both() -> None:
    policy = wanted(**EVERYTHING)["NetworkPolicy"][0]["spec"]["podSelector"]["matchLabels"]
    watched = dict([names.MANAGED_SELECTOR.split("=")])
    replica = template(**EVERYTHING)["metadata"]["labels"]
    for labels in (replica, built(**EVERYTHING)["metadata"]["labels"]):
        assert policy.items() <= labels.items()
        assert watched.items() <= labels.items()


def test_it_keeps_what_users_and_admission_look_at() -> None:
    made = built(**EVERYTHING)["metadata"]
    assert made["labels"]["app"] == "photos"
    assert made["annotations"]["team"] == "vision"
    assert made["annotations"][names.STORAGE_URI_ANNOTATION] == "gs://models/imagenet"


def test_no_service_of_a_users_own_sends_it_requests_for_it_is_never_ready() -> None:
    assert built()["spec"]["readinessGates"] == [{"conditionType": names.REHEARSAL_GATE}]


def test_it_is_the_deployments_own_pod_in_all_else() -> None:
    original, made = template()["spec"], built()["spec"]
    changed = {field for field in {*original, *made} if original.get(field) != made.get(field)}
    assert changed == {
        "containers",
        "initContainers",
        "readinessGates",
        "terminationGracePeriodSeconds",
        "topologySpreadConstraints",
    }
    (before,), (server,) = original["containers"], made["containers"]
    assert {**server, "lifecycle": before["lifecycle"]} == before
    (before,), (poller,) = original["initContainers"], made["initContainers"]
    assert {**poller, "env": before["env"]} == before


def test_it_has_the_cache_of_the_replicas_and_ends_at_once() -> None:
    assert built()["spec"]["terminationGracePeriodSeconds"] == child.GRACE_SECONDS
    cached = built(storage={"cache": {"claimName": "shared"}})["spec"]
    assert cached["terminationGracePeriodSeconds"] == child.GRACE_SECONDS
    (poller,) = cached["initContainers"]
    assert "model-cache" in {mount["name"] for mount in poller["volumeMounts"]}


def test_it_starts_with_its_version_and_never_with_that_of_the_replicas() -> None:
    made = built()
    assert child.assigned(made) == {
        names.TARGET_VERSION_ANNOTATION: "15",
        names.SERVED_VERSIONS_ANNOTATION: "15",
        names.QUARANTINED_VERSIONS_ANNOTATION: "13@f13",
        names.ROLLOUT_ANNOTATION: TASK,
    }
    (poller,) = made["spec"]["initContainers"]
    environment = {v["name"]: v.get("value", "") for v in poller["env"]}
    texts = assignment.from_environment(environment)
    assert (texts.target, texts.served, texts.quarantined) == ("15", "15", "13@f13")
    others = {v["name"] for v in template()["spec"]["initContainers"][0]["env"]}
    assert environment.keys() == others


@pytest.mark.parametrize(
    ("uri", "notifications"),
    [
        (
            "gs://models/imagenet",
            {"pubsub": {"subscription": "projects/p/subscriptions/s", "endpoint": "localhost:1"}},
        ),
        ("s3://models/imagenet", {"sqs": {"queueUrl": "https://sqs.example.com/1/q"}}),
    ],
)
def test_it_takes_no_message_from_the_replicas(uri: str, notifications: dict[str, Any]) -> None:
    given: dict[str, Any] = {
        "model": {"storageUri": uri},
        "source": {"notifications": notifications},
    }
    (replica,) = template(**given)["spec"]["initContainers"]
    (poller,) = built(**given)["spec"]["initContainers"]
    left_out = [argument for argument in replica["args"] if argument not in poller["args"]]
    assert left_out == [a for a in replica["args"] if a.startswith(("--pubsub-", "--sqs-"))]
    assert left_out
    assert set(poller["args"]) < set(replica["args"])


def test_the_inferencemodel_owns_it() -> None:
    (owner,) = built()["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"], owner["controller"]) == ("InferenceModel", "u-1", True)


def test_another_version_template_or_upload_is_rehearsed_in_a_pod_of_its_own() -> None:
    made = [
        built(),
        built(version=16),
        built(fingerprint="f15-again"),
        built(server={"resources": {"limits": {"memory": "1Gi"}}}),
    ]
    assert len({pod["metadata"]["name"] for pod in made}) == len(made)
    # What it is told can be told to the pod that is there.
    assert built()["metadata"]["name"] == built(quarantined="")["metadata"]["name"]


@pytest.mark.parametrize("name", ["m", "m" * 50, "m" * 15 + "-" * 10 + "m" * 200])
@pytest.mark.parametrize("version", [1, 2**63 - 1])
def test_its_name_is_a_host_name_whatever_it_is_made_of(name: str, version: int) -> None:
    made = names.rehearsal(name, version, "content")
    assert len(made) <= 63
    assert made.replace("-", "a").isalnum()
    assert f"-rehearsal-{version}-" in made
    assert "--rehearsal" not in made
    assert made != names.rehearsal(f"{name}m", version, "content")


# -- whose it is


def live(**changes: Any) -> dict[str, Any]:
    """As the API server shows it."""
    made = built()
    metadata = {
        **made["metadata"],
        "uid": "uid-r",
        "resourceVersion": "5",
        "creationTimestamp": "2026-11-28T12:00:00Z",
        **changes.pop("metadata", {}),
    }
    status = {
        "phase": "Running",
        "podIP": "10.0.0.9",
        "initContainerStatuses": [{"name": "poller", "state": {"running": {}}}],
        "conditions": [{"type": "Ready", "status": "False"}],
        **changes.pop("status", {}),
    }
    return {**made, "metadata": metadata, "status": status, **changes}


OWNER = {
    "metadata": {
        "name": "imagenet",
        "namespace": "vision",
        "uid": "u-1",
        "resourceVersion": "1",
        "generation": 1,
    },
    "spec": {"model": {"storageUri": "gs://models/imagenet"}},
}


def cached(pod: dict[str, Any]) -> Cache:
    cache = Cache()
    cache.put(MODELS, OWNER)
    deployment = {
        **wanted()["Deployment"][0],
        "metadata": {**wanted()["Deployment"][0]["metadata"], "uid": "d", "resourceVersion": "2"},
    }
    cache.put(DEPLOYMENTS, deployment)
    cache.put(PODS, pod)
    return cache


def test_it_is_known_asked_and_counted_as_no_replica() -> None:
    cache = cached(live())
    (pod,) = cache.rehearsals(KEY)
    assert cache.pods(KEY) == []
    assert cache.served_pods() == [pod]
    assert cache.labelled_pods(KEY) == [pod]
    assert pod.storage_uri == "gs://models/imagenet"
    assert child.assigned(built()).items() <= pod.assignment.items()


def test_one_that_is_gone_is_forgotten_with_what_it_reported() -> None:
    cache = cached(live())
    cache.reports["uid-r"] = told({15: VersionState.AVAILABLE})
    cache.remove(PODS, live(metadata={"resourceVersion": "6"}))
    assert cache.rehearsals(KEY) == []
    assert cache.reports == {}


@pytest.mark.parametrize(
    "metadata",
    [
        {"ownerReferences": []},
        {"ownerReferences": [{**built()["metadata"]["ownerReferences"][0], "uid": "before"}]},
        {"ownerReferences": [{**built()["metadata"]["ownerReferences"][0], "controller": False}]},
        {"ownerReferences": [{**built()["metadata"]["ownerReferences"][0], "name": "another"}]},
        {"labels": {names.REHEARSAL_LABEL: "another"}},
        {"labels": {names.MODEL_LABEL: "imagenet"}},
    ],
)
def test_labels_alone_or_owners_alone_make_no_pod_a_rehearsal(metadata: dict[str, Any]) -> None:
    cache = cached(live(metadata=metadata))
    assert cache.rehearsals(KEY) == []
    assert cache.pods(KEY) == []
    assert cache.served_pods() == []


def test_a_pod_that_becomes_a_rehearsal_is_no_replica_any_more() -> None:
    stranger = {names.MODEL_LABEL: "imagenet"}
    cache = cached(live(metadata={"labels": stranger}))
    assert [p.rehearsing for p in cache.labelled_pods(KEY)] == [None]
    cache.put(PODS, live(metadata={"resourceVersion": "6"}))
    (pod,) = cache.labelled_pods(KEY)
    assert pod.rehearsing is not None
    assert cache.rehearsals(KEY) == [pod]


# -- what is observed of it


def seen(report: Any = None, **changes: Any) -> RehearsalPod:
    (pod,) = cached(live(**changes)).rehearsals(KEY)
    return observed(pod, report)


def observed(pod: Pod, report: Any = None) -> RehearsalPod:
    found = rehearsal.observe(pod, model(), report, pod.trouble, pod.message)
    assert found is not None
    return found


def reported(state: VersionState, **given: Any) -> Any:
    status = told({15: state}, **given)
    source = replace(status.source, uri="gs://models/imagenet")
    return replace(status, model="imagenet", source=source)


def test_its_report_counts_where_it_is_about_the_resources_own_model_and_source() -> None:
    report = reported(VersionState.PUBLISHED)
    assert seen(report).report == report
    assert seen(replace(report, model="other")).report is None
    assert seen(replace(report, source=replace(report.source, uri="gs://o/x"))).report is None


def test_it_tells_its_version_its_beginning_and_since_when_no_node_takes_it() -> None:
    at = "2026-11-28T12:00:30Z"
    condition = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/3 nodes are available: 3 Insufficient memory.",
        "lastTransitionTime": at,
    }
    pod = seen(status={"phase": "Pending", "conditions": [condition]})
    assert (pod.version, pod.started, pod.gone) == (15, SINCE, False)
    assert pod.trouble is Trouble.UNSCHEDULABLE
    assert "3 Insufficient memory" in pod.message
    assert pod.unschedulable_since == datetime.datetime.fromisoformat(at)
    assert seen().unschedulable_since is None


@pytest.mark.parametrize(
    "changes",
    [
        {"metadata": {"deletionTimestamp": "2026-11-28T12:01:00Z"}},
        {"status": {"phase": "Failed", "reason": "Evicted"}},
    ],
)
def test_one_that_ends_is_gone(changes: dict[str, Any]) -> None:
    assert seen(**changes).gone


# -- the verdict


POD = RehearsalPod(uid="u", name="r", version=15, started=SINCE)
HOLD = Rehearsal(enabled=True, deadline=Duration(600), on_unschedulable="Hold")
SKIP = replace(HOLD, on_unschedulable="Skip")
DEADLINE = datetime.timedelta(seconds=600)


def judged(
    pod: RehearsalPod | None = POD,
    after: datetime.timedelta = datetime.timedelta(seconds=5),
    *,
    refused: str = "",
    refused_since: datetime.datetime | None = None,
    rules: spec.Rehearsal = HOLD,
) -> Verdict:
    return verdict(
        rules,
        pod,
        refused,
        version=15,
        fingerprint="f15",
        since=SINCE,
        now=SINCE + after,
        refused_since=refused_since,
    )


def with_report(state: VersionState, **given: Any) -> RehearsalPod:
    return replace(POD, report=reported(state, **given))


def test_a_version_that_answers_there_has_passed() -> None:
    assert judged(with_report(VersionState.AVAILABLE)).result is CheckResult.PASSED


@pytest.mark.parametrize(
    "state",
    [
        VersionState.DISCOVERED,
        VersionState.FETCHING,
        VersionState.FETCHED,
        VersionState.PUBLISHED,
        VersionState.INCOMPLETE,
    ],
)
def test_it_goes_on_until_then_and_says_how_far_it_is(state: VersionState) -> None:
    found = judged(with_report(state))
    assert found.result is None
    assert "pod r" in found.message
    assert found.again == SINCE + DEADLINE
    later = judged(with_report(state), datetime.timedelta(seconds=300))
    assert later.message == found.message


def test_another_upload_of_the_version_says_nothing() -> None:
    for state in (VersionState.AVAILABLE, VersionState.QUARANTINED):
        assert judged(with_report(state, fingerprints={15: "other"})).result is None


def test_what_the_model_server_refuses_has_failed_with_its_words() -> None:
    reasons = {15: (VersionReason.LOAD_FAILED, "Op type not registered 'Foo'")}
    found = judged(with_report(VersionState.QUARANTINED, reasons=reasons))
    assert found.result is CheckResult.FAILED
    assert "LoadFailed: Op type not registered 'Foo'" in found.message


def test_what_the_operator_itself_has_quarantined_is_no_failure_of_the_rehearsal() -> None:
    reasons = {15: (VersionReason.QUARANTINED_ELSEWHERE, "on another pod")}
    assert judged(with_report(VersionState.QUARANTINED, reasons=reasons)).result is None


@pytest.mark.parametrize("state", [VersionState.PUBLISHED, VersionState.AVAILABLE])
def test_what_brings_the_model_server_down_again_and_again_has_failed(state: VersionState) -> None:
    crashing = replace(
        with_report(state),
        restarts=RESTARTS,
        trouble=Trouble.SERVER_CRASHED,
        message="container model-server was killed for using more memory than its limit",
    )
    found = judged(crashing)
    assert found.result is CheckResult.FAILED
    assert "more memory than its limit" in found.message
    assert judged(replace(crashing, restarts=RESTARTS - 1)).result is not CheckResult.FAILED


def test_a_model_server_that_ends_before_it_has_the_version_says_nothing_of_it() -> None:
    early = replace(with_report(VersionState.FETCHING), restarts=RESTARTS)
    assert judged(early).result is None


def test_what_is_still_loading_at_the_deadline_has_failed() -> None:
    loading = with_report(VersionState.PUBLISHED)
    assert judged(loading, DEADLINE - datetime.timedelta(seconds=1)).result is None
    found = judged(loading, DEADLINE)
    assert found.result is CheckResult.FAILED
    assert "spec.rollout.rehearsal.deadline (10m)" in found.message


@pytest.mark.parametrize(
    "pod",
    [
        None,
        POD,
        with_report(VersionState.FETCHING),
        with_report(VersionState.PUBLISHED, fingerprints={15: "other"}),
    ],
)
def test_at_the_deadline_nothing_is_held_against_a_version_that_was_never_loaded(
    pod: RehearsalPod | None,
) -> None:
    assert judged(pod, DEADLINE).result is CheckResult.INCONCLUSIVE
    assert judged(pod, DEADLINE, rules=SKIP).result is CheckResult.SKIPPED


TROUBLES = [t for t in Trouble if t is not Trouble.SERVER_CRASHED]


@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_pod_that_does_not_come_up_is_waited_for_and_then_skipped_or_held(
    trouble: Trouble,
) -> None:
    pod = replace(POD, trouble=trouble, message="no node takes the pod")
    waiting = judged(pod, PATIENCE - datetime.timedelta(seconds=1))
    assert (waiting.result, waiting.again) == (None, SINCE + PATIENCE)
    assert "no node takes the pod" in waiting.message
    assert judged(pod, PATIENCE).result is CheckResult.INCONCLUSIVE
    assert judged(pod, PATIENCE, rules=SKIP).result is CheckResult.SKIPPED
    assert "no node takes the pod" in judged(pod, PATIENCE).message


def test_patience_counts_from_when_the_scheduler_first_found_no_node() -> None:
    late = SINCE + datetime.timedelta(seconds=100)
    pod = replace(POD, trouble=Trouble.UNSCHEDULABLE, message="no node", unschedulable_since=late)
    assert judged(pod, datetime.timedelta(seconds=159)).result is None
    assert judged(pod, datetime.timedelta(seconds=160)).result is CheckResult.INCONCLUSIVE


def test_a_pod_that_is_refused_is_asked_for_until_patience_ends() -> None:
    quota = "exceeded quota: team"
    assert judged(None, refused=quota).result is None
    assert judged(None, PATIENCE, refused=quota).result is CheckResult.INCONCLUSIVE
    found = judged(None, PATIENCE, refused=quota, rules=SKIP)
    assert (found.result, found.message) == (CheckResult.SKIPPED, quota)


def test_a_clock_that_is_ahead_of_the_api_servers_takes_no_patience_away() -> None:
    behind = SINCE - datetime.timedelta(minutes=5)
    pod = replace(POD, started=behind, trouble=Trouble.UNSCHEDULABLE, message="no node")
    for late in (pod, replace(pod, unschedulable_since=behind)):
        assert judged(late).result is None
        assert judged(late, PATIENCE).result is CheckResult.INCONCLUSIVE


def test_the_pod_that_takes_the_place_of_another_has_all_the_patience_to_be_taken() -> None:
    # The quota still counts the one before, which its node has just ended.
    late = SINCE + datetime.timedelta(seconds=300)
    given: dict[str, Any] = {"refused": "exceeded quota: team", "refused_since": late}
    assert judged(None, datetime.timedelta(seconds=301), **given).result is None
    found = judged(None, datetime.timedelta(seconds=300) + PATIENCE, **given)
    assert found.result is CheckResult.INCONCLUSIVE


def test_a_hold_ends_by_itself_once_the_pod_comes_up() -> None:
    held = replace(POD, trouble=Trouble.UNSCHEDULABLE, message="no node")
    assert judged(held, PATIENCE).result is CheckResult.INCONCLUSIVE
    answers = with_report(VersionState.AVAILABLE)
    assert judged(answers, PATIENCE * 2).result is CheckResult.PASSED


@pytest.mark.parametrize("change", [{"gone": True}, {"version": 14}, {"version": None}])
def test_a_pod_that_goes_or_has_another_version_says_nothing(change: dict[str, Any]) -> None:
    pod = replace(with_report(VersionState.AVAILABLE), **change)
    assert judged(pod).result is None


def test_a_message_is_bounded_whatever_a_pod_says() -> None:
    reasons = {15: (VersionReason.LOAD_FAILED, "x" * 5000)}
    found = judged(with_report(VersionState.QUARANTINED, reasons=reasons))
    assert len(found.message.encode()) < 700


def test_objects_reads_the_restarts_of_its_model_server() -> None:
    statuses = [{"name": "model-server", "restartCount": 4, "state": {"running": {}}}]
    pod = objects.pod(live(status={"containerStatuses": statuses}))
    assert pod is not None
    assert observed(pod).restarts == 4
