"""Why a pod does not come up: the object, the field of the InferenceModel, and what to do."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

import pytest

from inferencemodel_operator.cluster import Cluster
from inferencemodel_operator.errors import ApiUnavailableError, NoRightError
from inferencemodel_operator.observe import disruptions, hangs, last_words, objects, references
from inferencemodel_operator.observe.hangs import Hangs
from inferencemodel_operator.observe.troubles import Trouble

if TYPE_CHECKING:
    from collections.abc import Iterable

    from inferencemodel_operator.observe.objects import Key, Pod

SPEC = {
    "imagePullSecrets": [{"name": "registry"}],
    "initContainers": [
        {
            "name": "poller",
            "image": "poller:1",
            "env": [
                {
                    "name": "HTTPS_PROXY",
                    "valueFrom": {"secretKeyRef": {"name": "proxy", "key": "url"}},
                }
            ],
        }
    ],
    "containers": [
        {
            "name": "model-server",
            "image": "server:1",
            "env": [
                {"name": "PLAIN", "value": "v"},
                {
                    "name": "TOKEN",
                    "valueFrom": {"secretKeyRef": {"name": "tokens", "key": "main"}},
                },
                {
                    "name": "LEVEL",
                    "valueFrom": {"configMapKeyRef": {"name": "levels", "key": "log"}},
                },
            ],
        }
    ],
    "volumes": [
        {"name": "models", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}},
        {"name": "model-source", "secret": {"secretName": "bucket-key"}},
        {"name": "warmup", "configMap": {"name": "requests"}},
        {"name": "extra-cas", "configMap": {"name": "company"}},
        {"name": "model-claim", "persistentVolumeClaim": {"claimName": "models-claim"}},
        {"name": "model-cache", "persistentVolumeClaim": {"claimName": "shared"}},
    ],
}
SCHEDULED = {"type": "PodScheduled", "status": "True"}


def pod(name: str = "m-1", template: str = "t", **status: Any) -> Pod:
    found = objects.pod(
        {
            "metadata": {
                "namespace": "vision",
                "name": name,
                "uid": f"uid-{name}",
                "resourceVersion": "1",
                "labels": {"inferencemodel.dev/name": "m", "pod-template-hash": template},
            },
            "spec": SPEC,
            "status": status,
        }
    )
    assert found is not None
    return found


def server(restarts: int = 0, **state: Any) -> list[dict[str, Any]]:
    return [{"name": "model-server", "image": "server:1", "restartCount": restarts, **state}]


def added(statuses: str, container: dict[str, Any]) -> Pod:
    status: dict[str, Any] = {statuses: [container]}
    return pod("m-1", "t", **status)


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return {"state": {"waiting": {"reason": reason, "message": message}}}


def ended(seconds: float = 1, *, code: int = 1, reason: str = "Error", log: str = "") -> Any:
    began = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    over = began + datetime.timedelta(seconds=seconds)
    return {
        "terminated": {
            "exitCode": code,
            "reason": reason,
            "message": log,
            "startedAt": began.isoformat(),
            "finishedAt": over.isoformat(),
        }
    }


# -- what is missing


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            'secret "tokens" not found',
            'Secret "tokens" is not there; create it, or correct spec.server.env[TOKEN]',
        ),
        (
            'configmap "levels" not found',
            'ConfigMap "levels" is not there; create it, or correct spec.server.env[LEVEL]',
        ),
        (
            "couldn't find key main in Secret vision/tokens",
            'Secret "tokens" has no key "main"; add it, or correct spec.server.env[TOKEN]',
        ),
        (
            "couldn't find key log in ConfigMap vision/levels",
            'ConfigMap "levels" has no key "log"; add it, or correct spec.server.env[LEVEL]',
        ),
        (
            'secret "proxy" not found',
            'Secret "proxy" is not there; create it, or correct spec.poller.env[HTTPS_PROXY]',
        ),
        ("container has runAsNonRoot and image will run as root", "image will run as root"),
    ],
)
def test_a_variable_without_its_object_names_object_and_field(words: str, message: str) -> None:
    stuck = pod(containerStatuses=server(**waiting("CreateContainerConfigError", words)))
    assert stuck.trouble is Trouble.CONTAINER_CONFIG_FAILED
    assert message in stuck.message


LOGS = "spec.template.spec.containers[name=logs]"
ADDED: dict[str, Any] = {
    "initContainers": [
        {"name": "poller", "envFrom": [{"configMapRef": {"name": "proxies"}}]},
        {"name": "first", "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "first"}}}]},
    ],
    "containers": [
        {"name": "model-server", "envFrom": [{"secretRef": {"name": "flags"}}]},
        {
            "name": "logs",
            "env": [
                {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "levels", "key": "log"}}}
            ],
        },
    ],
    "volumes": [
        {
            "name": "files",
            "projected": {
                "sources": [
                    {"secret": {"name": "keys"}},
                    {"configMap": {"name": "one"}},
                    {"configMap": {"name": "other"}},
                ]
            },
        }
    ],
}


@pytest.mark.parametrize(
    ("words", "fix"),
    [
        ('configmap "proxies" not found', "spec.template.spec.initContainers[name=poller].envFrom"),
        ('secret "first" not found', "spec.template.spec.initContainers[name=first].env[name=A]"),
        ('secret "flags" not found', "spec.template.spec.containers[name=model-server].envFrom"),
        ("couldn't find key log in ConfigMap vision/levels", f"{LOGS}.env[name=B]"),
        ('configmap "other" not found', "spec.template.spec.volumes[name=files]"),
        ('MountVolume.SetUp failed for volume "files" : references non-existent secret key: a',
         'Secret "keys" has no key "a"; add it, or correct spec.template.spec.volumes[name=files]'),
        ('MountVolume.SetUp failed for volume "files" : references non-existent config key: a',
         'ConfigMap "one" or "other" has no key "a"; add it, or correct '
         "spec.template.spec.volumes[name=files]"),
    ],
)  # fmt: skip
def test_what_an_added_part_of_a_pod_lacks_is_told_with_its_field(words: str, fix: str) -> None:
    told = references.explain(words, references.references(ADDED))
    assert told is not None
    assert told.endswith(fix)


def test_a_claim_that_is_not_there_is_told_with_the_field_that_names_it() -> None:
    words = (
        '0/3 nodes are available: persistentvolumeclaim "models-claim" not found. preemption: '
        "0/3 nodes are available: 3 Preemption is not helpful for scheduling."
    )
    unscheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
    stuck = pod(conditions=[{**unscheduled, "message": words}])
    assert stuck.trouble is Trouble.UNSCHEDULABLE
    assert stuck.message == (
        'no node takes the pod: PersistentVolumeClaim "models-claim" is not there; create it, or '
        "correct spec.model.storageUri"
    )


@pytest.mark.parametrize(
    "words",
    [
        "0/3 nodes are available: pod has unbound immediate PersistentVolumeClaims.",
        "0/1 nodes are available: 1 node(s) didn't find available persistent volumes to bind.",
        "0/2 nodes are available: 2 node(s) had volume node affinity conflict.",
        "0/1 nodes are available: 1 node has pod using PersistentVolumeClaim with the same name and"
        " ReadWriteOncePod access mode.",
    ],
)
def test_claims_without_a_volume_are_told_with_the_fields_that_ask_for_them(words: str) -> None:
    unscheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
    stuck = pod(conditions=[{**unscheduled, "message": words}])
    assert stuck.trouble is Trouble.UNSCHEDULABLE
    assert "kubectl describe pvc" in stuck.message
    assert stuck.message.endswith(
        "asked for by spec.storage.volumeClaimTemplate and spec.model.storageUri and "
        "spec.storage.cache.claimName"
    )


def test_a_cache_that_is_not_there_is_told_with_the_field_that_names_it() -> None:
    words = '0/3 nodes are available: persistentvolumeclaim "shared" not found.'
    unscheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
    stuck = pod(conditions=[{**unscheduled, "message": words}])
    assert stuck.message.endswith("create it, or correct spec.storage.cache.claimName")


def test_a_pod_behind_a_scheduling_gate_is_told_as_that() -> None:
    gated = {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}
    assert "scheduling gates" in pod(conditions=[gated]).message


@pytest.mark.parametrize(
    ("reason", "fix"),
    [
        ("ImagePullBackOff", "with registry (imagePullSecrets)"),
        ("ErrImageNeverPull", "load it on the nodes"),
        ("InvalidImageName", "correct spec.server.image"),
    ],
)
def test_an_image_that_can_not_be_pulled_names_field_and_secrets(reason: str, fix: str) -> None:
    stuck = pod(containerStatuses=server(**waiting(reason)))
    assert stuck.trouble is Trouble.IMAGE_PULL_FAILED
    assert "server:1" in stuck.message
    assert "spec.server.image" in stuck.message
    assert fix in stuck.message


@pytest.mark.parametrize("statuses", ["containerStatuses", "initContainerStatuses"])
def test_the_image_of_an_added_container_is_told_with_where_it_comes_from(statuses: str) -> None:
    logs = {"name": "logs", "image": "logs:1", **waiting("ImagePullBackOff")}
    stuck = added(statuses, logs)
    assert stuck.trouble is Trouble.IMAGE_PULL_FAILED
    assert "logs:1 of container logs" in stuck.message
    assert "spec.template.spec" in stuck.message


# -- what crashes


@pytest.mark.parametrize("statuses", ["containerStatuses", "initContainerStatuses"])
def test_an_added_container_that_ends_again_and_again_is_told(statuses: str) -> None:
    state = {"lastState": ended(log="no such file"), **waiting("CrashLoopBackOff")}
    prepare = {"name": "prepare", "image": "a", "restartCount": 2, **state}
    crashed = added(statuses, prepare)
    assert crashed.trouble is Trouble.CONTAINER_CRASHED
    assert 'container prepare ended with exit code 1, its last words: "no such' in crashed.message
    assert "kubectl logs POD --container prepare --previous" in crashed.message


@pytest.mark.parametrize(
    ("reason", "fix"),
    [
        ("OOMKilled", "raise resources.limits.memory of"),
        ("StartError", "correct command or image of"),
    ],
)
def test_an_added_container_is_mended_where_it_is_added(reason: str, fix: str) -> None:
    state = {"lastState": ended(reason=reason), **waiting("CrashLoopBackOff")}
    for statuses, field in (
        ("containerStatuses", "containers"),
        ("initContainerStatuses", "initContainers"),
    ):
        crashed = added(statuses, {"name": "logs", "restartCount": 2, **state})
        assert f"{fix} spec.template.spec.{field}[name=logs]" in crashed.message
        assert "spec.poller" not in crashed.message


def test_an_init_container_that_did_its_work_in_the_end_crashes_no_more() -> None:
    done = {"state": ended(code=0, reason="Completed"), "lastState": ended()}
    well = pod(initContainerStatuses=[{"name": "prepare", "restartCount": 4, **done}])
    assert well.trouble is None


def test_a_server_that_can_not_start_is_told_at_its_first_restart_with_its_last_words() -> None:
    log = "2026-01-01 00:00:00.1: I server.cc:1] begins\nFailed to start server. Error: no port\n"
    states: list[dict[str, Any]] = [{"state": {"running": {}}}, waiting("CrashLoopBackOff")]
    for state in states:
        crashed = pod(containerStatuses=server(1, lastState=ended(log=log), **state))
        assert crashed.trouble is Trouble.SERVER_CRASHED
        assert 'exit code 1, its last words: "Failed to start server.' in crashed.message


def test_a_poller_that_can_not_read_its_authorities_says_so_with_the_field() -> None:
    told = (
        "model_poller: EXTRA_CA_FILE=/etc/extra-cas/ca.crt is no file of certificates: [X509] no "
        "certificate or crl found; put certificates of authorities into it, in PEM (in a pod of "
        "the operator: into the ConfigMap of spec.poller.extraCAs)\n"
    )
    (status,) = server(1, lastState=ended(code=2, log=told), **waiting("CrashLoopBackOff"))
    crashed = pod(initContainerStatuses=[{**status, "name": "poller"}])
    assert crashed.trouble is Trouble.POLLER_CRASHED
    assert "into the ConfigMap of spec.poller.extraCAs" in crashed.message


def test_a_poller_that_needs_more_memory_is_told_with_the_field() -> None:
    (status,) = server(1, lastState=ended(reason="OOMKilled"), **waiting("CrashLoopBackOff"))
    crashed = pod(initContainerStatuses=[{**status, "name": "poller"}])
    assert "raise spec.poller.resources.limits.memory" in crashed.message


def test_a_container_that_waits_for_the_poller_is_named_while_it_does() -> None:
    running = {"state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}
    proxy = {"name": "mesh-proxy", "image": "proxy:1"}
    poller = [{"name": "poller", "image": "poller:1", **running}]
    held = [*server(**waiting("PodInitializing")), proxy | waiting("PodInitializing")]
    assert pod(initContainerStatuses=poller, containerStatuses=held).behind_poller == "mesh-proxy"
    starting = [*server(**waiting("PodInitializing")), proxy | running]
    assert pod(initContainerStatuses=poller, containerStatuses=starting).behind_poller == ""
    native = [proxy | waiting("PodInitializing"), *poller]
    only = server(**waiting("PodInitializing"))
    assert pod(initContainerStatuses=native, containerStatuses=only).behind_poller == ""
    # Whatever waits for an image is not what the poller waits for.
    before = [{"name": "poller", "image": "poller:1", **waiting("PodInitializing")}]
    assert pod(initContainerStatuses=before, containerStatuses=held).behind_poller == ""


def test_a_server_that_worked_for_long_may_end_once() -> None:
    once = pod(
        containerStatuses=server(1, lastState=ended(3600), state={"running": {}}),
        conditions=[{"type": "Ready", "status": "False"}],
    )
    assert once.trouble is None


def test_a_pod_that_was_ready_since_the_last_start_does_not_crash() -> None:
    start, later = "2026-01-01T00:00:00Z", "2026-01-01T00:10:00Z"
    running = {"state": {"running": {"startedAt": start}}, "lastState": ended()}
    for change, trouble in ((later, None), (start, Trouble.SERVER_CRASHED)):
        ready = {"type": "Ready", "status": "False", "lastTransitionTime": change}
        assert pod(containerStatuses=server(7, **running), conditions=[ready]).trouble is trouble


def test_a_program_that_is_not_in_the_image_is_no_crash_of_the_model() -> None:
    words = 'exec: "/bin/none": stat /bin/none: no such file or directory'
    stuck = pod(
        containerStatuses=server(
            0, lastState=ended(0, code=128, reason="StartError", log=words), **waiting("x")
        )
    )
    assert "can't be started" in stuck.message
    assert "/bin/none" in stuck.message
    assert "spec.server.command" in stuck.message


def test_a_list_of_flags_says_that_one_was_not_understood() -> None:
    usage = '"".\n' + "".join(f"\t--flag_{n}=0\tint32\tan error, or not\n" for n in range(10))
    stuck = pod(containerStatuses=server(2, lastState=ended(log=usage), **waiting("x")))
    assert "list of its flags" in stuck.message
    assert "correct spec.server.args" in stuck.message
    assert "an error, or not" not in stuck.message


@pytest.mark.parametrize(
    ("log", "line"),
    [
        ("", ""),
        ("one\ntwo\n\n", "two"),
        ("Error: bad\nbye\n", "Error: bad"),
        ("F0101 00:00:00.123456  17 a.cc:1] Check failed: x\n*** stack ***", "a.cc:1] Check"),
        ("2026-01-01T00:00:00.5Z error: at 0x7f00deadbeef", "error: at 0x…"),
        ("\x1b[31mfatal: red\x1b[0m", "fatal: red"),
    ],
)
def test_last_words_are_the_line_that_tells_most_without_what_changes(log: str, line: str) -> None:
    assert last_words.telling(log).startswith(line)
    assert bool(last_words.telling(log)) == bool(line)


def test_last_words_have_an_end() -> None:
    assert len(last_words.telling("error " + "x" * 5000).encode()) <= last_words.LENGTH


# -- what hangs


def event(reason: str, note: str = "", second: int = 0) -> dict[str, Any]:
    time = f"2026-01-01T00:00:{second:02}Z"
    return {"reason": reason, "note": note, "deprecatedLastTimestamp": time}


def hanging(name: str = "m-1", template: str = "t") -> Pod:
    creating = {"name": "poller", **waiting("PodInitializing")}
    return pod(name, template, conditions=[SCHEDULED], initContainerStatuses=[creating])


def test_a_pod_whose_init_container_works_before_the_poller_hangs_not() -> None:
    poller = {"name": "poller", **waiting("PodInitializing")}
    first = {"name": "prepare", "state": {"running": {}}}
    assert hanging().is_hanging
    for started in (first, {**first, "state": ended(code=0)}):
        assert not pod(conditions=[SCHEDULED], initContainerStatuses=[started, poller]).is_hanging


@pytest.mark.parametrize(
    ("events", "message"),
    [
        (
            [event("FailedMount", 'MountVolume.SetUp failed for volume "model-source" : secret '
                   '"bucket-key" not found')],
            'can\'t be mounted: Secret "bucket-key" is not there; create it, or correct '
            "spec.source.secretRef",
        ),
        (
            [event("FailedMount", 'MountVolume.SetUp failed for volume "extra-cas" : configmap '
                   '"company" not found')],
            'ConfigMap "company" is not there; create it, or correct '
            "spec.poller.extraCAs.configMap",
        ),
        (
            [event("FailedMount", 'MountVolume.SetUp failed for volume "extra-cas" : references '
                   "non-existent config key: ca.crt")],
            'ConfigMap "company" has no key "ca.crt"; add it, or correct '
            "spec.poller.extraCAs.configMap",
        ),
        (
            [event("FailedMount", 'MountVolume.SetUp failed for volume "warmup" : references '
                   "non-existent config key: requests.txt")],
            'can\'t be mounted: ConfigMap "requests" has no key "requests.txt"; add it, '
            "or correct spec.model.warmup.configMap",
        ),
        (
            [event("FailedCreatePodSandBox", "no IP addresses left")],
            "its network and sandbox can't be set up: no IP addresses left",
        ),
        ([event("FailedMount", "b", 2), event("FailedMount", "a", 1)], "mounted: a; its volumes"),
        ([event("FailedMount", "a", 1), event("Pulling", "image", 2)], None),
        ([event("FailedScheduling", "0/1 nodes are available")], None),
        ([{"reason": "FailedMount", "note": "a", "series": {
            "count": 7, "lastObservedTime": "2026-01-01T00:00:09.000000Z"}},
          event("Pulling", "", 5)], "mounted: a"),
        ([{**event("FailedMount", "b"), "deprecatedLastTimestamp": "0000-01-01T00:00:00Z"},
          event("FailedMount", "a")], "mounted: a"),
        ([], None),
    ],
)  # fmt: skip
def test_events_tell_why_a_pod_hangs(events: list[dict[str, Any]], message: str | None) -> None:
    found = hangs.reading(events, hanging())
    assert (found == "") if message is None else (message in found)


class Events(Cluster):
    """An API server with the Events of some pods."""

    def __init__(self) -> None:
        self.about: dict[str, list[dict[str, Any]]] = {}
        self.asked: list[str] = []
        self.away: Exception | None = None

    async def events_about(
        self, namespace: str, uid: str, reasons: Iterable[str]
    ) -> tuple[dict[str, Any], ...]:
        self.asked.append(uid)
        if self.away is not None:
            raise self.away
        return tuple(self.about.get(uid, ()))


async def test_only_pods_that_hang_for_a_while_are_asked_about_and_one_for_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server, later = Events(), []
    known = Hangs(server, lambda key, seconds: later.append((key, seconds)))
    key: Key = ("vision", "m")
    pods = [hanging("m-1"), hanging("m-2"), pod("m-3", conditions=[SCHEDULED], phase="Running")]
    await known.look(key, pods)
    assert server.asked == []
    assert [entry[0] for entry in later] == [key]

    monkeypatch.setattr(hangs, "FIRST_SECONDS", 0.0)
    known.forget(key)
    server.about = {uid: [event("FailedMount", "why")] for uid in ("uid-m-1", "uid-m-2")}
    await known.look(key, pods)
    assert len(server.asked) == 1
    for stuck in pods[:2]:
        assert known.trouble(stuck)[0] is Trouble.CONTAINER_CONFIG_FAILED
        assert "why" in known.trouble(stuck)[1]
    assert known.trouble(pods[2]) == (None, "")

    server.away = ApiUnavailableError("away")
    await known.look(key, pods)
    assert "why" in known.trouble(pods[0])[1], "what is known stays while nobody can be asked"

    await known.look(key, pods[2:])
    assert known.trouble(pods[0]) == (None, "")


async def test_events_that_may_not_be_read_are_missed_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(hangs, "FIRST_SECONDS", 0.0)
    caplog.set_level("INFO")
    server = Events()
    known = Hangs(server, lambda *_: None)
    server.away = NoRightError("list Event vision: may not")
    for name in ("m", "n"):
        await known.look(("vision", name), [hanging()])
    assert caplog.text.count("list Event vision: may not") == 1

    server.away = None
    await known.look(("vision", "o"), [hanging()])
    assert "reading the Events of pods that don't start is back" in caplog.text


async def test_a_pod_that_waits_for_its_image_does_not_hang_in_its_status_alone() -> None:
    assert hanging().is_hanging
    pulling = [{"name": "poller", **waiting("ImagePullBackOff")}]
    assert not pod(conditions=[SCHEDULED], initContainerStatuses=pulling).is_hanging
    assert not pod(conditions=[]).is_hanging


# -- what is taken away

NOW = datetime.datetime(2026, 1, 1, 0, 5, tzinfo=datetime.UTC)


def taken(target_reason: str, /, **status: Any) -> Pod:
    at = "2026-01-01T00:00:00Z"
    target = {"type": "DisruptionTarget", "status": "True", "reason": target_reason}
    return pod("gone", conditions=[{**target, "lastTransitionTime": at}], **status)


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (
            "The node was low on resource: ephemeral-storage. Threshold quantity: 1Gi, available: "
            "5Mi. Container poller was using 9Gi, request is 0, has larger consumption of it.",
            "spec.server.resources.requests.ephemeral-storage",
        ),
        (
            "Pod ephemeral local storage usage exceeds the total limit of containers 1Gi.",
            "raise spec.server.resources.limits.ephemeral-storage",
        ),
        ('Usage of EmptyDir volume "models" exceeds the limit "1Gi".', "spec.model.retainVersions"),
        (
            "The node was low on resource: memory. Container model-server was using 9Gi.",
            "spec.server.resources.requests.memory",
        ),
        ("The node had condition: [PIDPressure].", "kubectl describe node"),
    ],
)
def test_an_eviction_says_what_evicts_and_which_field_helps(message: str, words: str) -> None:
    evicted = taken("TerminationByKubelet", phase="Failed", reason="Evicted", message=message)
    why = disruptions.predecessor(hanging(), [evicted, hanging()], NOW)
    assert why is not None
    assert why.startswith("pod gone was evicted by its node (Evicted: ")
    assert message[:30] in why
    assert words in why


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("PreemptionByScheduler", "spec.template.priorityClassName"),
        ("DeletionByTaintManager", "spec.template.tolerations"),
        ("EvictionByEvictionAPI", "drained"),
        ("Another", "Another"),
    ],
)
def test_other_disruptions_are_told_by_their_reason(reason: str, words: str) -> None:
    gone = taken(reason, phase="Failed")
    why = disruptions.predecessor(hanging(), [gone], NOW)
    assert why is not None
    assert words in why


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("OutOfcpu", "was ended by its node (OutOfcpu: not enough cpu)"),
        ("NodeShutdown", "if the node comes back"),
        ("OutOfmemory", "requests.memory"),
    ],
)
def test_a_pod_that_its_node_refused_or_ended_is_told(reason: str, words: str) -> None:
    end = ended()["terminated"] | {"finishedAt": "2026-01-01T00:00:00Z"}
    refused = pod(
        "gone",
        phase="Failed",
        reason=reason,
        message="not enough cpu.",
        containerStatuses=server(state={"terminated": end}),
    )
    why = disruptions.predecessor(hanging(), [refused], NOW)
    assert why is not None
    assert words in why


def test_only_the_last_recent_disruption_of_the_same_template_explains_a_start() -> None:
    late = NOW + disruptions.RECENT
    gone = taken("EvictionByEvictionAPI", phase="Failed")
    assert disruptions.predecessor(hanging(), [gone], late) is None
    assert disruptions.predecessor(hanging(template="other"), [gone], NOW) is None
    living = taken("EvictionByEvictionAPI", phase="Running")
    assert disruptions.predecessor(hanging(), [living], NOW) is None
    assert disruptions.predecessor(hanging(), [hanging()], NOW) is None
