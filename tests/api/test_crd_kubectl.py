"""What kubectl shows of an InferenceModel, and the two subresources."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from devcluster.client import KubectlError
from inferencemodel_operator import names
from tests.support import crd

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devcluster.client import Api

pytestmark = pytest.mark.api

Object = dict[str, Any]

TRANSITION = "2026-01-01T00:00:00Z"

STATUS: Object = {
    "observedGeneration": 1,
    "conditions": [
        {
            "type": kind,
            "status": status,
            "reason": reason,
            "message": "3/3 replicas serve version 2",
            "observedGeneration": 1,
            "lastTransitionTime": TRANSITION,
        }
        for kind, status, reason in (
            ("Ready", "True", "ServingTargetVersion"),
            ("SourceReady", "True", "Listed"),
            ("ModelLoaded", "True", "Available"),
            ("Reconciling", "False", "UpToDate"),
            ("Stalled", "Unknown", "NotObservedYet"),
        )
    ],
    "url": "http://imagenet.example.com/v1/models/imagenet",
    "replicas": 3,
    "readyReplicas": 3,
    "replicaSummary": "3/3",
    "selector": names.selector_text("imagenet"),
    "model": {
        "name": "imagenet",
        "activeVersion": 2,
        "targetVersion": 2,
        "latestVersion": 3,
        "transitionStatus": "UpToDate",
        "versions": [
            {"version": 3, "state": "Quarantined", "replicas": 0},
            {"version": 2, "state": "Available", "replicas": 3},
        ],
        "quarantined": [{"version": 3, "reason": "LoadFailed", "message": "no such op: Foo"}],
        "history": [
            {
                "version": 3,
                "startTime": TRANSITION,
                "endTime": TRANSITION,
                "result": "Failed",
                "reason": "LoadFailed",
            },
            {
                "version": 2,
                "startTime": TRANSITION,
                "activeTime": TRANSITION,
                "duration": "2.8s",
                "result": "Active",
            },
        ],
        "lastFailureInfo": {
            "version": 3,
            "reason": "LoadFailed",
            "message": "no such op: Foo",
            "time": TRANSITION,
            "pod": "imagenet-0",
        },
        "rollout": {
            "version": 3,
            "fromVersion": 2,
            "phase": "RolledBack",
            "step": 1,
            "steps": 2,
            "replicasOn": 0,
            "replicasWanted": 1,
            "startTime": TRANSITION,
            "stepStartedTime": TRANSITION,
            "endTime": TRANSITION,
            "message": "version 3 was taken back: LoadFailed",
            "checks": [
                {"name": "memory", "result": "Passed", "message": "fits", "time": TRANSITION},
                {"name": "signature", "result": "Skipped", "message": "first", "time": TRANSITION},
            ],
        },
    },
}
"""Every field of the status."""


@pytest.fixture(scope="module")
def namespace(api_server: Api) -> Iterator[str]:
    with crd.installed(api_server) as name:
        api_server.kubectl(
            *("apply", "--namespace", name, "-f", "-"),
            stdin=json.dumps(
                {
                    "apiVersion": names.API_VERSION,
                    "kind": names.KIND,
                    "metadata": {"name": "imagenet"},
                    "spec": {"model": {"storageUri": "gs://models/imagenet"}, "replicas": 3},
                }
            ),
        )
        # Not settled, to all who follow kstatus, before the operator has answered.
        assert read(api_server, name)["status"] == {"observedGeneration": -1}
        write_status(api_server, name, STATUS)
        yield name


def write_status(api: Api, namespace: str, status: Object) -> None:
    api.kubectl(
        *("patch", "inferencemodel", "imagenet", "--namespace", namespace),
        *("--subresource=status", "--type=merge", "--patch", json.dumps({"status": status})),
    )


def read(api: Api, namespace: str) -> Object:
    answer = api.kubectl("get", "tfm", "imagenet", "--namespace", namespace, "-o", "json")
    found: Object = json.loads(answer)
    return found


def table(api: Api, namespace: str, *options: str) -> tuple[list[str], list[str]]:
    """The header and the one row."""
    header, row = api.kubectl("get", "tfm", "--namespace", namespace, *options).splitlines()
    return header.split(), row.split()


def test_get_tells_what_every_replica_serves(api_server: Api, namespace: str) -> None:
    header, row = table(api_server, namespace)
    assert header == [
        "NAME",
        "VERSION",
        "TARGET",
        "READY",
        "REPLICAS",
        "STATUS",
        "ROLLOUT",
        "URL",
        "AGE",
    ]
    assert row[:-1] == [
        *("imagenet", "2", "2", "True", "3/3", "UpToDate", "RolledBack"),
        "http://imagenet.example.com/v1/models/imagenet",
    ]


def test_get_wide_adds_the_newest_version_the_reason_and_the_source(
    api_server: Api, namespace: str
) -> None:
    header, row = table(api_server, namespace, "-o", "wide")
    assert header[-3:] == ["LATEST", "REASON", "SOURCE"]
    assert row[-3:] == ["3", "ServingTargetVersion", "gs://models/imagenet"]


def test_every_field_of_the_status_is_kept(api_server: Api, namespace: str) -> None:
    assert read(api_server, namespace)["status"] == STATUS


def test_a_status_beside_the_spec_is_ignored_so_that_only_the_subresource_writes_it(
    api_server: Api, namespace: str
) -> None:
    api_server.kubectl(
        *("patch", "tfm", "imagenet", "--namespace", namespace, "--type=merge"),
        *("--patch", json.dumps({"status": {"url": "http://elsewhere"}})),
    )
    assert read(api_server, namespace)["status"]["url"] == STATUS["url"]


def test_writing_the_status_is_no_new_generation(api_server: Api, namespace: str) -> None:
    before = read(api_server, namespace)["metadata"]["generation"]
    write_status(api_server, namespace, {"observedGeneration": 7})
    after = read(api_server, namespace)
    write_status(api_server, namespace, {"observedGeneration": 1})
    assert after["status"]["observedGeneration"] == 7
    assert after["metadata"]["generation"] == before


@pytest.mark.parametrize(
    "status",
    [
        {"model": {"transitionStatus": "Pinned"}},
        {"model": {"versions": [{"version": 1, "state": "Ready"}]}},
        {"conditions": [{**STATUS["conditions"][0], "reason": "not one word"}]},
        {"conditions": [{**STATUS["conditions"][0], "status": "Maybe"}]},
    ],
)
def test_a_status_outside_the_closed_sets_is_refused(
    api_server: Api, namespace: str, status: Object
) -> None:
    with pytest.raises(KubectlError, match="is invalid"):
        write_status(api_server, namespace, status)


def test_scale_sets_the_replicas_and_tells_autoscalers_the_selector(
    api_server: Api, namespace: str
) -> None:
    place = ("--namespace", namespace)
    api_server.kubectl("scale", "inferencemodel/imagenet", "--replicas=5", *place)
    assert read(api_server, namespace)["spec"]["replicas"] == 5
    scale = json.loads(
        api_server.kubectl("get", "tfm", "imagenet", "--subresource=scale", "-o", "json", *place)
    )
    assert scale["spec"]["replicas"] == 5
    assert scale["status"] == {"replicas": 3, "selector": "inferencemodel.dev/name=imagenet"}


def test_wait_gates_on_the_active_version(api_server: Api, namespace: str) -> None:
    gate = "--for=jsonpath={.status.model.activeVersion}=2"
    met = api_server.kubectl(
        *("wait", "inferencemodel/imagenet", gate, "--timeout=10s", "--namespace", namespace)
    )
    assert "condition met" in met


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("", "every new version is brought to every replica"),
        ("spec", "What is wanted."),
        ("spec.model.storageUri", "gs://BUCKET/FOLDER"),
        ("spec.model.version", "Without it, the newest complete version is."),
        ("spec.source.pollInterval", "such as 30s, 5m or 1h30m"),
        ("spec.source.secretRef", "the operator never reads it"),
        ("spec.server.resources.limits", "What the container may use at most"),
        ("spec.server.batching.maxBatchSize", "TensorFlow Serving's default is 1000."),
        ("spec.template.affinity.podAntiAffinity", "Keeps the pods away"),
        ("status.model.activeVersion", "The version that was reached last"),
        ("status.conditions", "Stalled (somebody has to change something)"),
    ],
)
def test_explain_reads_well(api_server: Api, namespace: str, field: str, words: str) -> None:
    explained = api_server.kubectl("explain", f"inferencemodel.{field}".rstrip("."))
    assert words in " ".join(explained.split())
