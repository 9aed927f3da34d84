"""What is wrong is said with what to do, and what was served is still served."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e.models import DEVELOPMENT_SERVER
from tests.support.kubectl import Object, condition
from tests.support.savedmodels import archive, unloadable

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.models import Served

pytestmark = pytest.mark.e2e

Files = dict[str, bytes]


def _escaping(files: Files, folder: str) -> bytes:
    return archive({**files, "../../../etc/escaped": b"x"}, folder=folder)


def _bomb(files: Files, folder: str) -> bytes:
    return archive({**files, "assets/zeros": bytes(64 << 20)}, folder=folder)


def _without_saved_model(files: Files, folder: str) -> bytes:
    return archive({n: c for n, c in files.items() if n != "saved_model.pb"}, folder=folder)


def _without_shard(files: Files, folder: str) -> bytes:
    return archive({n: c for n, c in files.items() if ".data-" not in n}, folder=folder)


def _truncated(files: Files, folder: str) -> bytes:
    whole = archive(files, folder=folder)
    return whole[: len(whole) // 2]


def _garbage(files: Files, folder: str) -> bytes:
    return archive({**files, "variables/variables.index": b"no index"}, folder=folder)


def _cut_graph(files: Files, folder: str) -> bytes:
    graph = files["saved_model.pb"]
    return archive({**files, "saved_model.pb": graph[: len(graph) // 2]}, folder=folder)


def _unloadable(files: Files, folder: str) -> bytes:
    return archive(unloadable(files), folder=folder)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_escaping, "UnsafeArchive"),
        (_bomb, "ArchiveTooLarge"),
        (_without_saved_model, "MissingSavedModel"),
        (_without_shard, "MissingVariables"),
        (_truncated, "BadArchive"),
        (_garbage, "MissingVariables"),
        (_cut_graph, "MissingSavedModel"),
        (_unloadable, "LoadFailed"),
    ],
)
def test_a_bad_archive_is_quarantined_while_the_version_before_it_is_served(
    served_once: Served, spoil: Callable[[Files, str], bytes], reason: str
) -> None:
    """One resource lives through all the cases; each takes the next version number."""
    served = served_once
    bad = served.next_version()

    served.upload_raw(bad, spoil(served.files(offset=3), str(bad)))

    def told(obj: Object) -> bool:
        model = obj["status"]["model"]
        quarantined = {q["version"]: q for q in model.get("quarantined", [])}
        return quarantined[bad]["reason"] == reason and bool(quarantined[bad]["message"])

    served.until(told, what=f"version {bad} quarantined as {reason}", within=90)
    model = served.get()["status"]["model"]
    assert model["activeVersion"] < bad
    assert served.predict(1.0) == 2.5
    assert condition(served.get(), "Ready")["status"] == "True"


def test_a_repaired_upload_of_the_same_number_is_served(served_once: Served) -> None:
    served = served_once
    bad = served.next_version()
    served.upload_raw(bad, _truncated(served.files(offset=3), str(bad)))
    served.until(
        lambda o: any(q["version"] == bad for q in o["status"]["model"].get("quarantined", [])),
        what=f"version {bad} quarantined",
    )

    served.upload(bad, offset=3)

    served.until_active(bad, replicas=1)
    assert served.predict(1.0) == 3.5


def test_a_folder_is_served_only_when_its_last_file_is_there(served: Served) -> None:
    served.upload(1, offset=2)
    served.apply(replicas=1, pollInterval="5s")
    served.until_active(1, replicas=1)
    files = served.files(offset=3)
    last = next(name for name in files if ".data-" in name)

    for name in files:
        if name != last:
            served.bucket.upload(f"{served.prefix}/2/{name}", files[name])
    served.until(
        lambda o: any(
            v["version"] == 2 and v["state"] == "Incomplete"
            for v in o["status"]["model"].get("versions", [])
        ),
        what="version 2 told as incomplete",
    )
    served.bucket.upload(f"{served.prefix}/2/{last}", files[last])

    served.until_active(2, replicas=1)


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("gs://no-such-bucket-here/models", "BucketNotFound"),
        ("gs://models/nothing-below-this", "NoVersionFound"),
    ],
)
def test_a_source_that_gives_nothing_is_told_with_what_to_do(
    served: Served, uri: str, reason: str
) -> None:
    served.apply(replicas=1, storageUri=uri)

    found = served.until(
        lambda o: condition(o, "SourceReady").get("reason") == reason,
        what=f"SourceReady told as {reason}",
    )

    assert condition(found, "SourceReady")["status"] == "False"
    assert uri.split("/")[2] in condition(found, "SourceReady")["message"]
    assert condition(found, "Ready")["status"] == "False"


def test_a_subscription_that_is_gone_is_told_and_polling_goes_on(served: Served) -> None:
    served.upload(1, offset=2)
    served.apply(
        replicas=1, pollInterval="5s", subscription="projects/development/subscriptions/gone"
    )
    served.until_active(1, replicas=1)

    served.until(
        lambda o: (
            condition(o, "SourceReady").get("reason") == "NotificationsDown"
            and "projects/development/subscriptions/gone" in condition(o, "SourceReady")["message"]
        ),
        what="SourceReady told as NotificationsDown",
    )
    served.upload(2, offset=3)

    served.until_active(2, replicas=1)


def test_somebody_elses_service_of_the_same_name_is_left_untouched(served: Served) -> None:
    theirs: Object = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": served.name},
        "spec": {"ports": [{"port": 80}], "selector": {"app": "theirs"}},
    }
    served.kubectl.apply(theirs)
    before = served.kubectl.get("service", served.name)

    served.apply(replicas=1)
    told = served.until(
        lambda o: condition(o, "Stalled").get("reason") == "NameConflict",
        what="Stalled told as NameConflict",
    )

    assert served.name in condition(told, "Stalled")["message"]
    assert served.kubectl.get("service", served.name) == before


def set_quota(served: Served, name: str, hard: dict[str, str]) -> None:
    """Limit what the namespace may have, from when the API server knows of it."""
    served.kubectl.apply(
        {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": {"name": name},
            "spec": {"hard": hard},
        }
    )
    served.kubectl.until(
        "resourcequota", name, lambda found: found["status"].get("hard"), what="the quota"
    )


def test_pods_that_the_namespace_refuses_are_told_and_come_when_it_takes_them(
    served: Served,
) -> None:
    set_quota(served, "no-pods", {"pods": "0"})
    served.upload(1, offset=2)
    served.apply(replicas=1)
    served.until(lambda obj: condition(obj, "Ready")["reason"] == "PodsRefused", what="PodsRefused")
    message = condition(served.get(), "Ready")["message"]
    assert "exceeded quota: no-pods" in message
    assert "raise the namespace's ResourceQuota" in message

    served.kubectl("delete", "resourcequota", "no-pods")
    served.until_active(1, replicas=1)


def test_a_namespace_that_asks_for_limits_is_told_field_by_field(served: Served) -> None:
    set_quota(served, "limits", {"limits.cpu": "8"})
    served.upload(1, offset=2)
    served.apply(replicas=1)
    told = served.until(
        lambda obj: condition(obj, "Ready")["reason"] == "PodsRefused",
        what="PodsRefused",
        within=20,
    )
    missing = "set spec.server.resources.limits.cpu, spec.poller.resources.limits.cpu"
    assert missing in condition(told, "Ready")["message"]

    limited = {"resources": {"limits": {"cpu": 1}}}
    served.patch({"server": limited, "poller": limited})
    served.until_active(1, replicas=1)


TOKEN = {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "tokens", "key": "main"}}}
OTHER_KEY = {"kind": "Secret", "metadata": {"name": "tokens"}, "stringData": {"other": "key"}}
ITS_KEY = {**OTHER_KEY, "stringData": {"main": "key"}}
BUCKET_KEY = {"kind": "Secret", "metadata": {"name": "bucket-key"}, "stringData": {"key": "{}"}}


@pytest.mark.parametrize(
    ("spec", "there", "words", "remedy"),
    [
        (
            {"server": {"env": [TOKEN]}},
            None,
            'Secret "tokens" is not there; create it, or correct spec.server.env[TOKEN]',
            ITS_KEY,
        ),
        (
            {"server": {"env": [TOKEN]}},
            OTHER_KEY,
            'Secret "tokens" has no key "main"; add it, or correct spec.server.env[TOKEN]',
            ITS_KEY,
        ),
        (
            # A volume: neither the pod's conditions nor its containers say a word of it.
            {"source": {"secretRef": {"name": "bucket-key"}, "anonymous": None}},
            None,
            'Secret "bucket-key" is not there; create it, or correct spec.source.secretRef',
            BUCKET_KEY,
        ),
    ],
)
def test_what_a_pod_lacks_is_named_with_its_field_and_taken_when_it_is_there(
    served: Served, spec: Object, there: Object | None, words: str, remedy: Object
) -> None:
    served.upload(1, offset=2)
    if there is not None:
        served.kubectl.apply({"apiVersion": "v1", **there})
    # Without a pod of before, which would serve on.
    served.apply(replicas=0)
    served.patch({**spec, "replicas": 1})
    told = served.until(
        lambda o: condition(o, "Ready")["reason"] == "ContainerConfigFailed",
        what="Ready told as ContainerConfigFailed",
    )
    assert words in condition(told, "Ready")["message"]

    served.kubectl.apply({"apiVersion": "v1", **remedy})
    served.until(
        lambda o: condition(o, "Ready")["reason"] != "ContainerConfigFailed",
        what="another look of the kubelet",
        within=240,
    )


def test_a_claim_that_is_not_there_is_named_with_its_field(served: Served) -> None:
    served.kubectl.apply(
        {
            "apiVersion": "inferencemodel.dev/v1alpha1",
            "kind": "InferenceModel",
            "metadata": {"name": served.name},
            "spec": {
                "model": {"storageUri": "pvc://no-such-claim/models"},
                "server": {"image": DEVELOPMENT_SERVER},
            },
        }
    )
    told = served.until(
        lambda o: condition(o, "Ready")["reason"] == "Unschedulable",
        what="Ready told as Unschedulable",
    )
    message = condition(told, "Ready")["message"]
    assert 'PersistentVolumeClaim "no-such-claim" is not there' in message
    assert "spec.model.storageUri" in message


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("--rest_api_num_threads=many", "a list of its flags"),
        ("--thread_pool_factory_config_file=/none", "Failed to start server"),
    ],
)
def test_a_server_that_can_not_start_is_told_at_once_in_its_own_words(
    served: Served, argument: str, words: str
) -> None:
    served.upload(1, offset=2)
    served.apply(replicas=1)
    served.until_active(1, replicas=1)

    served.patch({"server": {"args": [argument]}})
    told = served.until(
        lambda o: condition(o, "Stalled")["status"] == "True" and condition(o, "Stalled"),
        what="Stalled",
    )
    assert words in condition(told, "Stalled")["message"]
    assert served.predict(1.0) == 2.5, "the pod before it still serves"

    served.patch({"server": {"args": []}})
    served.until(
        lambda o: (
            condition(o, "Stalled")["status"] == "False"
            and condition(o, "Reconciling")["status"] == "False"
        ),
        what="to be settled again",
    )
