"""Pods that say too much, on a real API server: it refuses nothing for its size or its letters."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from inferencemodel_operator import cluster
from inferencemodel_operator.access import Access
from inferencemodel_operator.cluster import Cluster, Object
from inferencemodel_operator.observe import hangs
from model_poller.status import SourceReason, SourceState, VersionReason, VersionState
from tests.api.models import Model, World, world
from tests.support.kubectl import condition
from tests.support.pods import told
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from devcluster.client import Api
    from model_poller.status import PollerStatus

pytestmark = pytest.mark.api

AVAILABLE, QUARANTINED = VersionState.AVAILABLE, VersionState.QUARANTINED


@pytest.fixture(scope="module")
def here(api_server: Api) -> Iterator[World]:
    with world(api_server) as made:
        yield made


HONEST = told({1: AVAILABLE}, target=1)


def until_up_to_date(model: Model) -> None:
    model.until(
        lambda o: o["status"]["model"]["transitionStatus"] == "UpToDate", what="version 1 active"
    )


def quarantined(count: int, message: str) -> PollerStatus:
    bad = range(2, 2 + count)
    return told(
        {1: AVAILABLE, **dict.fromkeys(bad, QUARANTINED)},
        target=1,
        reasons=dict.fromkeys(bad, (VersionReason.LOAD_FAILED, message)),
    )


@pytest.mark.parametrize(
    ("count", "message"),
    [(20, "x" * 36_000), (50, "模\0\n\x1b[31m" * 1000), (90, "\U0001f600" * 3000)],
    ids=["36 kB each", "control characters", "many of four bytes"],
)
def test_what_a_pod_says_at_length_is_in_the_status_in_brief(
    here: World, count: int, message: str
) -> None:
    with here.model(replicas=1) as model:
        poller = model.add_pod().poller
        poller.tell(HONEST)
        until_up_to_date(model)

        poller.tell(quarantined(count, message))
        entries = model.until(
            lambda o: o["status"]["model"]["quarantined"], what="what is quarantined"
        )["status"]["model"]["quarantined"]
        assert all(entry["message"].endswith("…") for entry in entries)
        assert all(len(entry["message"].encode()) <= 1024 for entry in entries)
        assert all(entry["message"].isprintable() for entry in entries)
        record = model.until_child(
            "configmap",
            lambda o: "quarantined.json" in o["data"],
            what="record",
            suffix="-versions",
        )
        assert len(json.dumps(record)) < 300_000

        poller.tell(HONEST)
        model.until(lambda o: "quarantined" not in o["status"]["model"], what="its end")


@pytest.mark.parametrize(
    "lie",
    [
        told({2**63: AVAILABLE}, target=1),
        told(dict.fromkeys(range(1, 300_000), VersionState.DISCOVERED)),
    ],
    ids=["2^63", "300,000 versions"],
)
def test_what_is_no_report_counts_as_a_pod_that_can_not_be_asked(here: World, lie: Any) -> None:
    with here.model(replicas=1) as model:
        poller = model.add_pod().poller
        poller.tell(HONEST)
        until_up_to_date(model)

        poller.tell(lie)
        model.until(
            lambda o: condition(o, "Ready")["reason"] == "PollerUnreachable", what="the pod's fault"
        )
        poller.tell(HONEST)
        until_up_to_date(model)
        assert "Traceback" not in here.operator.log()


def test_a_bucket_that_comes_and_goes_is_one_event_with_a_count(here: World) -> None:
    failed = msgspec.structs.replace(
        HONEST,
        source=msgspec.structs.replace(
            HONEST.source,
            state=SourceState.FAILED,
            reason=SourceReason.ACCESS_DENIED,
            message="no right to list",
        ),
    )
    with here.model(replicas=1) as model:
        poller = model.add_pod().poller
        poller.tell(HONEST)
        until_up_to_date(model)

        def events() -> list[dict[str, Any]]:
            return [
                event
                for event in model.kubectl.list("events.events.k8s.io")
                if event["regarding"]["name"] == model.name and event["reason"] == "AccessDenied"
            ]

        def flip() -> bool:
            poller.tell(failed)
            model.until(lambda o: condition(o, "SourceReady")["status"] == "False", what="a fault")
            poller.tell(HONEST)
            model.until(lambda o: condition(o, "SourceReady")["status"] == "True", what="its end")
            return any("series" in event for event in events())

        eventually(flip, what="a series", within=30)
        (event,) = events()
        assert event["series"]["count"] >= 2
        assert event["type"] == "Warning"


def test_a_pod_that_changes_its_word_ten_times_a_second_causes_few_writes_and_then_none(
    here: World,
) -> None:
    with here.model(replicas=1) as model:
        poller = model.add_pod().poller
        poller.tell(HONEST)
        until_up_to_date(model)
        here.operator.until_quiet()
        before = here.operator.requests("create", "patch")

        other = told({1: AVAILABLE, 2: VersionState.FETCHING}, target=1)
        for number in range(100):
            poller.tell(other if number % 2 == 0 else HONEST)
            time.sleep(0.1)

        after = here.operator.requests("create", "patch")
        written = {
            name: count - before.get(name, 0)
            for name, count in after.items()
            if count != before.get(name, 0)
        }
        assert written.get("patch inferencemodels/status", 0) <= 20
        assert written.get("create events", 0) <= 5
        until_up_to_date(model)


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("quarantined.json", '[{"later": ' + "[" * 50_000),
        (
            "quarantined.json",
            json.dumps([{"version": 2, "fingerprint": "f2", "reason": "no such reason " * 2000}]),
        ),
        ("served", ",".join(map(str, range(100)))),
    ],
    ids=["nested", "a long reason", "100 served versions"],
)
@pytest.mark.parametrize("suspended", [False, True])
def test_a_record_that_somebody_has_edited_is_told_and_written_anew_when_it_is_deleted(
    here: World, key: str, text: str, suspended: bool
) -> None:
    with here.model(replicas=1) as model:
        poller = model.add_pod().poller
        poller.tell(HONEST)
        until_up_to_date(model)
        model.patch(suspend=suspended)
        here.operator.until_quiet()
        edit = {"data": {key: text}}
        record = f"{model.name}-versions"
        model.kubectl(
            *("patch", "configmap", record, "--type=merge", "--patch-file=/dev/stdin"),
            stdin=json.dumps(edit),
        )
        found = model.until(
            lambda o: condition(o, "Stalled")["reason"] == "InvalidRecord", what="what is wrong"
        )
        assert f"{record}: data['{key}']" in condition(found, "Stalled")["message"]
        assert condition(found, "ModelLoaded")["reason"] == "InvalidRecord"
        model.kubectl("delete", "configmap", record)
        model.until(lambda o: condition(o, "Stalled")["status"] == "False", what="its end")
        model.patch(suspend=False)
        until_up_to_date(model)
    assert "Traceback" not in here.operator.log()


def test_an_event_of_the_year_0_hides_nothing(here: World) -> None:
    def event(name: str, time: str, note: str) -> None:
        about = {"kind": "Pod", "name": pod.name, "namespace": here.namespace, "uid": uid}
        made = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{pod.name}.{name}"},
            "involvedObject": about,
            "reason": "FailedMount",
            "message": note,
            "lastTimestamp": time,
        }
        model.kubectl("create", "-f", "-", stdin=json.dumps(made))

    with here.model(replicas=1) as model:
        pod = model.add_pod(ready=False)
        uid = model.kubectl.get("pod", pod.name)["metadata"]["uid"]
        event("a", "0000-01-01T00:00:00Z", "odd")
        event("b", "2026-01-01T00:00:00Z", 'secret "nope" not found')
        pod.hang()
        found = model.until(
            lambda o: condition(o, "Ready")["reason"] == "ContainerConfigFailed", what="the cause"
        )
        assert 'Secret "nope" is not there' in condition(found, "Ready")["message"]
    assert "Traceback" not in here.operator.log()


def test_what_is_annotated_on_a_pod_does_not_change_whose_versions_it_has(here: World) -> None:
    with here.model(replicas=1) as model:
        pod = model.add_pod()
        pod.poller.tell(HONEST)
        until_up_to_date(model)
        here.operator.until_quiet()
        before = model.get()["status"]
        pod.kubectl(
            "annotate", "pod", pod.name, "--overwrite", "inferencemodel.dev/storage-uri=gs://b/x"
        )
        pod.poller.tell(told({1: AVAILABLE, 2: VersionState.DISCOVERED}, target=1))
        found = model.until(
            lambda o: o["status"]["model"]["targetVersion"] == 2, what="the next version"
        )
        assert condition(found, "Ready")["status"] == "True"
        assert found["status"]["model"]["activeVersion"] == before["model"]["activeVersion"]


def test_annotations_that_somebody_changes_each_time_are_not_fought_for(here: World) -> None:
    with here.model(replicas=1) as model:
        pod = model.add_pod()
        pod.poller.tell(HONEST)
        until_up_to_date(model)
        here.operator.until_quiet()
        before = here.operator.requests("patch").get("patch pods", 0)
        for _ in range(15):
            pod.kubectl(
                "annotate", "pod", pod.name, "--overwrite", "inferencemodel.dev/target-version=7"
            )
        found = model.until(
            lambda o: condition(o, "Stalled")["reason"] == "Contested", what="the fight"
        )
        assert f"Pod {here.namespace}/{pod.name}" in condition(found, "Stalled")["message"]
        assert here.operator.requests("patch")["patch pods"] - before <= 7


LABELS = {"app.kubernetes.io/managed-by": "inferencemodel-operator"}
POD = {"containers": [{"name": "c", "image": "none"}]}


@pytest.mark.parametrize(
    ("path", "api_version", "kind", "content"),
    [
        ("/api/v1", "v1", "ConfigMap", {}),
        ("/api/v1", "v1", "Pod", {"spec": POD}),
        (
            "/apis/inferencemodel.dev/v1alpha1",
            "inferencemodel.dev/v1alpha1",
            "InferenceModel",
            {"spec": {"model": {"storageUri": "gs://models/deep"}}},
        ),
    ],
    ids=["ConfigMap", "Pod", "InferenceModel"],
)
@pytest.mark.parametrize("levels", [985, 4000])
def test_an_object_that_is_nested_too_deeply_hides_no_other_one(
    here: World, path: str, api_version: str, kind: str, content: dict[str, Any], levels: int
) -> None:
    name = f"deep-{kind.lower()}-{levels}"
    manager = {
        "manager": "x",
        "operation": "Update",
        "apiVersion": api_version,
        "time": "2026-01-01T00:00:00Z",
        "fieldsType": "FieldsV1",
        "fieldsV1": "DEEP",
    }
    made = {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {"name": name, "namespace": here.namespace, "labels": LABELS},
        **content,
    }
    here.kubectl("create", "-f", "-", stdin=json.dumps(made))
    made = here.kubectl.get(kind, name)
    made["metadata"]["managedFields"] = [manager]
    made["metadata"].pop("resourceVersion")
    deep = '{"f:a":' * levels + "{}" + "}" * levels
    url = f"{path}/namespaces/{here.namespace}/{kind.lower()}s/{name}"

    def replaced() -> bool:
        # The operator may write its status meanwhile.
        if kind == "InferenceModel":
            found = here.kubectl.get(kind, name)
            made["metadata"]["resourceVersion"] = found["metadata"]["resourceVersion"]
        here.kubectl(
            *("replace", "--raw", url, "-f", "-"), stdin=json.dumps(made).replace('"DEEP"', deep)
        )
        return True

    eventually(replaced, what=f"the {kind} to be replaced", within=20)
    assert '{"f:a":' * 900 in here.kubectl("get", "--raw", url)
    with here.model(replicas=1) as model:
        model.add_pod().poller.tell(HONEST)
        until_up_to_date(model)
        here.operator.restart()
        model.patch(replicas=2)
        model.until(
            lambda o: condition(o, "Ready")["status"] == "False", what="that one is missing"
        )
    assert "running kopf" not in here.operator.log()
    here.kubectl("delete", kind, name, "--wait=false", "--force", "--grace-period=0")


def test_a_deployment_that_others_annotate_all_the_time_changes_no_status(here: World) -> None:
    with here.model(replicas=1) as model:
        model.add_pod().poller.tell(HONEST)
        until_up_to_date(model)
        here.operator.until_quiet()
        before = model.get()
        for number in range(5):
            model.kubectl("annotate", "deployment", model.name, f"x={number}", "--overwrite")
        here.operator.until_quiet()
        assert model.get()["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]


def test_a_finalizer_of_another_operator_stays(here: World) -> None:
    with here.model(replicas=1) as model:
        model.until_reported()
        finalizers = ["kopf.zalando.org/KopfFinalizerMarker", "example.com/backup"]
        model.kubectl(
            *("patch", "inferencemodel", model.name, "--type=merge", "--patch"),
            json.dumps({"metadata": {"finalizers": finalizers}}),
        )
        model.patch(replicas=2)
        model.until_reported()
        model.kubectl("delete", "inferencemodel", model.name, "--wait=false")
        found = model.until(
            lambda o: condition(o, "Ready")["reason"] == "Terminating", what="that it is held"
        )
        assert found["metadata"]["finalizers"] == finalizers
        model.kubectl(
            *("patch", "inferencemodel", model.name, "--type=merge", "--patch"),
            json.dumps({"metadata": {"finalizers": None}}),
        )


def test_a_child_of_which_others_set_thousands_of_fields_is_told_or_trimmed(here: World) -> None:
    with here.model(replicas=1) as model:
        model.add_pod().poller.tell(HONEST)
        until_up_to_date(model)
        record = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}, "data": {}}
        record["metadata"] = {"name": f"{model.name}-versions"}
        record["data"] = {f"k{number}": "" for number in range(2000)}
        model.patch(suspend=True)
        here.operator.until_quiet()
        for manager in ("one", "two", "three"):
            model.kubectl(
                *("apply", "--server-side", f"--field-manager={manager}", "-f", "-"),
                stdin=json.dumps(record),
            )
        found = model.until(
            lambda o: condition(o, "Stalled")["reason"] == "InvalidRecord", what="what is wrong"
        )
        assert "delete the ConfigMap" in condition(found, "Stalled")["message"]
        model.kubectl("delete", "configmap", f"{model.name}-versions")
        model.patch(suspend=False)
        until_up_to_date(model)


def test_a_strangers_events_do_not_hide_why_a_pod_hangs(api_server: Api) -> None:
    def event(name: str, reason: str, note: str) -> str:
        about = {"kind": "Pod", "namespace": "default", "name": "stuck", "uid": "uid-of-a-pod"}
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"namespace": "default", "name": name},
            "involvedObject": about,
            "type": "Warning",
            "reason": reason,
            "message": note,
            "lastTimestamp": "2026-01-01T00:00:00Z",
        }
        return json.dumps(body)

    strangers = [event(f"a-{number}", "Whatever", "x" * 100) for number in range(120)]
    kubelets = event("stuck.1", "FailedMount", 'secret "bucket-key" not found')
    api_server.kubectl("create", "-f", "-", stdin="\n".join([*strangers, kubelets]))

    async def ask() -> Sequence[Object]:
        access = Access(api_server.kubeconfig)
        async with cluster.connect(access, watches=0) as pool, cluster.session(pool, access) as s:
            return await Cluster(access, s).events_about("default", "uid-of-a-pod", hangs.REASONS)

    assert "FailedMount" in {found["reason"] for found in asyncio.run(ask())}
