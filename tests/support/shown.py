"""A fleet to be shown: InferenceModels with statuses, pods and Events as an operator leaves them.

Stand-ins: nothing serves here but one HTTP server, which answers for every poller and every model
server. All times are fixed, so that pictures of it are the same every time.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any, Final

import msgspec

from model_poller.status import (
    CheckResult,
    GoldenStatus,
    Interface,
    PollerStatus,
    ServedVersion,
    SignatureSpec,
    SourceStatus,
    TensorSpec,
    VersionState,
    VersionStatus,
)
from tests.support.http_servers import own_address, serving

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.support.kubectl import Kubectl

Object = dict[str, Any]

NAMESPACES: Final = ("ranking", "speech", "vision")
POLLER_PORT: Final = 8502
LABELS: Final = {
    2: (["Egyptian cat", "tabby", "tiger cat", "lynx"], [0.5731, 0.2144, 0.1502, 0.0121]),
    3: (["Egyptian cat", "tabby", "tiger cat", "lynx"], [0.8124, 0.1033, 0.0612, 0.0087]),
}
"""What each version of ``imagenet`` says of any photo."""
_FINE: Final = {
    "Ready": ("True", "Serving", "all replicas serve"),
    "SourceReady": ("True", "Listed", "the source was listed"),
    "ModelLoaded": ("True", "Loaded", "the version answers on every ready replica"),
    "Reconciling": ("False", "Settled", "everything is as wanted"),
    "Stalled": ("False", "NotStalled", "nothing stands in the way"),
    "RolloutPaused": ("False", "NotPaused", "no rollout waits for anybody"),
}


class Shown(msgspec.Struct):
    """One model, as far as it differs from a settled one."""

    namespace: str
    name: str
    version: int | None = 1
    replicas: int = 2
    conditions: dict[str, tuple[str, str, str]] = {}
    spec: Object = {}
    of: Object = {}
    """``status.model``."""
    summary: str = ""

    @property
    def manifest(self) -> Object:
        """What a user applies."""
        model = {"storageUri": f"gs://acme-models/{self.name}", **self.spec.get("model", {})}
        return {
            "apiVersion": "inferencemodel.dev/v1alpha1",
            "kind": "InferenceModel",
            "metadata": {"name": self.name, "namespace": self.namespace},
            "spec": {"replicas": self.replicas, **self.spec, "model": model},
        }

    def status(self, generation: int = 1) -> Object:
        """What an operator tells."""
        told = {**_FINE, **self.conditions}
        served = [] if self.version is None else [self._served(self.version)]
        active = {} if self.version is None else {"activeVersion": self.version}
        return {
            "observedGeneration": generation,
            "conditions": [
                {
                    "type": kind,
                    "status": state,
                    "reason": reason,
                    "message": message,
                    "observedGeneration": generation,
                    "lastTransitionTime": "2026-03-02T08:00:00Z",
                }
                for kind, (state, reason, message) in told.items()
            ],
            "replicas": self.replicas,
            "readyReplicas": self.replicas,
            "replicaSummary": self.summary or f"{self.replicas}/{self.replicas}",
            "model": {
                "name": self.name,
                **active,
                **(
                    {"targetVersion": self.version, "latestVersion": self.version} if active else {}
                ),
                "transitionStatus": "UpToDate",
                "versions": served,
                **self.of,
            },
        }

    def _served(self, version: int) -> Object:
        return {"version": version, "state": "Available", "replicas": self.replicas}


def _arriving(version: int, before: int, state: str, on: int, of: int) -> Object:
    return {
        "targetVersion": version,
        "latestVersion": version,
        "transitionStatus": "InProgress",
        "versions": [
            {"version": version, "state": state, "replicas": on},
            {"version": before, "state": "Available", "replicas": of - on},
        ],
    }


IMAGENET: Final = Shown(
    "vision",
    "imagenet",
    version=2,
    replicas=4,
    conditions={
        "ModelLoaded": ("False", "Loading", "version 3 answers on 1 of 4 replicas"),
        "RolloutPaused": ("True", "RolloutPaused", "step 2 of 3 waits until version 3 is promoted"),
        "Reconciling": ("True", "ChangingVersion", "version 3 is rolled out"),
    },
    spec={
        "rollout": {
            "steps": [
                {"replicas": 1, "pause": {"duration": "5m"}},
                {"replicas": "50%", "pause": {}},
            ]
        }
    },
    of={
        **_arriving(3, 2, "Available", 2, 4),
        "quarantined": [
            {
                "version": 1,
                "reason": "ChecksumMismatch",
                "message": "saved_model.pb: its SHA-256 is not that of SHA256SUMS",
            }
        ],
        "history": [
            {
                "version": 2,
                "startTime": "2026-03-01T09:12:00Z",
                "activeTime": "2026-03-01T09:12:48Z",
                "duration": "48s",
                "result": "Active",
            },
            {
                "version": 1,
                "startTime": "2026-02-20T16:00:00Z",
                "endTime": "2026-02-20T16:00:31Z",
                "result": "Failed",
                "reason": "ChecksumMismatch",
            },
        ],
        "rollout": {
            "version": 3,
            "fromVersion": 2,
            "phase": "Paused",
            "step": 2,
            "steps": 3,
            "replicasOn": 2,
            "replicasWanted": 2,
            "startTime": "2026-03-02T10:00:00Z",
            "stepStartedTime": "2026-03-02T10:06:10Z",
            "message": "2 replicas answer with version 3; promote or abort it",
            "checks": [
                {
                    "name": "memory",
                    "result": "Passed",
                    "message": "1.2 GB of 4 GB",
                    "time": "2026-03-02T10:00:04Z",
                },
                {
                    "name": "signature",
                    "result": "Passed",
                    "message": "clients of version 2 can go on",
                    "time": "2026-03-02T10:00:21Z",
                },
                {
                    "name": "golden",
                    "result": "Passed",
                    "message": "3 of 3 records have the same answers",
                    "time": "2026-03-02T10:00:58Z",
                },
            ],
        },
    },
)

FLEET: Final = (
    IMAGENET,
    Shown(
        "vision",
        "defects",
        version=7,
        replicas=3,
        conditions={
            "ModelLoaded": (
                "False",
                "LoadFailed",
                "version 8 could not be loaded: Op type not registered 'DecodeAvif'; version 7"
                " goes on serving",
            ),
            "Stalled": (
                "True",
                "LoadFailed",
                "version 8 could not be loaded: Op type not registered 'DecodeAvif'",
            ),
        },
        of={
            "latestVersion": 8,
            "transitionStatus": "BlockedByFailedLoad",
            "quarantined": [
                {"version": 8, "reason": "LoadFailed", "message": "Op type not registered"}
            ],
        },
    ),
    Shown(
        "speech",
        "wake-word",
        version=12,
        replicas=6,
        conditions={"Reconciling": ("True", "ChangingVersion", "version 13 is rolled out")},
        of={
            **_arriving(13, 12, "Fetching", 2, 6),
            "rollout": {
                "version": 13,
                "fromVersion": 12,
                "phase": "Progressing",
                "step": 1,
                "steps": 2,
                "replicasOn": 2,
                "replicasWanted": 3,
                "startTime": "2026-03-02T10:20:00Z",
                "stepStartedTime": "2026-03-02T10:20:30Z",
                "message": "step 1 of 2: 2 of 3 replicas answer with version 13",
            },
        },
    ),
    Shown(
        "speech",
        "diarisation",
        version=None,
        replicas=1,
        summary="0/1",
        conditions={
            "Ready": ("False", "NoVersion", "there is no version to serve yet"),
            "SourceReady": ("True", "Empty", "no version lies in gs://acme-models/diarisation yet"),
            "ModelLoaded": ("False", "NoVersion", "there is no version yet"),
            "Reconciling": ("True", "WaitingForVersion", "it waits for a first version"),
        },
    ),
    Shown("ranking", "home-feed", version=214, replicas=8),
    Shown("ranking", "search", version=88, replicas=5),
    Shown("ranking", "frozen-2024", version=40, replicas=1, spec={"suspend": True}),
    Shown("speech", "captions", version=5, replicas=3),
    Shown("vision", "ocr", version=21, replicas=2),
    Shown("vision", "segmentation", version=3, replicas=2, spec={"model": {"version": 3}}),
)

_PODS: Final = (
    ("imagenet-6f7d9c-2m4xk", "node-a", 3),
    ("imagenet-6f7d9c-8kqwz", "node-b", 3),
    ("imagenet-6f7d9c-p8qzr", "node-c", 2),
    ("imagenet-6f7d9c-x2x5k", "node-a", 2),
)
_EVENTS: Final = (
    ("RolloutPaused", "Normal", "step 2 of 3: promote or abort version 3", "2026-03-02T10:06:10Z"),
    ("VersionActivated", "Normal", "version 2 answers on all replicas", "2026-03-01T09:12:48Z"),
    (
        "ChecksumMismatch",
        "Warning",
        "version 1 is quarantined: SHA-256 differs",
        "2026-02-20T16:00:31Z",
    ),
)


def create(kubectl: Kubectl) -> None:
    """Have the fleet there, with its namespaces."""
    _apply(
        kubectl,
        [
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
            for name in NAMESPACES
        ],
    )
    put(kubectl, *FLEET)
    _apply(kubectl, [_pod(*pod) for pod in _PODS])
    _apply(kubectl, [_pod_status(name, told) for name, _, told in _PODS], status=True)
    _apply(kubectl, _service())
    uid = kubectl.in_namespace("vision").get("inferencemodel", "imagenet")["metadata"]["uid"]
    _apply(kubectl, _events(uid))


def delete(kubectl: Kubectl) -> None:
    """Take it away; pods have no node that would end them."""
    kubectl("delete", "pods", "--all", "-n", "vision", "--force", "--grace-period=0")
    for name in NAMESPACES:
        kubectl("delete", "inferencemodels,events,endpoints,services", "--all", "-n", name)


def put(kubectl: Kubectl, *models: Shown) -> None:
    """Have models there, with their statuses."""
    _apply(kubectl, [shown.manifest for shown in models])
    _apply(
        kubectl,
        [{**_head(shown), "status": shown.status()} for shown in models],
        status=True,
    )


def tell(kubectl: Kubectl, namespace: str, name: str, status: Object) -> None:
    """Write a status, as an operator does."""
    generation = kubectl.in_namespace(namespace).get("inferencemodel", name)["metadata"][
        "generation"
    ]
    told = {**status, "observedGeneration": generation}
    for condition in told["conditions"]:
        condition["observedGeneration"] = generation
    kubectl(
        *("patch", "inferencemodel", name, "-n", namespace, "--subresource=status"),
        *("--type=merge", "--patch", json.dumps({"status": told})),
    )


def _apply(kubectl: Kubectl, objects: Sequence[Object], *, status: bool = False) -> None:
    # A status alone is no whole object.
    subresource = ["--subresource=status", "--validate=false"] if status else []
    kubectl(
        *("apply", "--server-side", "--field-manager=test", "--force-conflicts", "-f", "-"),
        *subresource,
        stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}),
    )


def _head(shown: Shown) -> Object:
    return {key: shown.manifest[key] for key in ("apiVersion", "kind", "metadata")}


def _pod(name: str, node: str, told: int) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": "vision",
            "labels": {"inferencemodel.dev/name": "imagenet"},
            "annotations": {"inferencemodel.dev/target-version": str(told)},
        },
        "spec": {"nodeName": node, "containers": [{"name": "model-server", "image": "none"}]},
    }


def _pod_status(name: str, told: int) -> Object:
    address = own_address()
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "vision"},
        "status": {
            "phase": "Running",
            "podIP": address,
            "podIPs": [{"ip": address}],
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [
                {
                    "name": "model-server",
                    "image": "none",
                    "imageID": "",
                    "ready": True,
                    "restartCount": int(told == 3),
                    "state": {"running": {"startedAt": "2026-03-02T10:00:00Z"}},
                }
            ],
        },
    }


def _service() -> list[Object]:
    """The Service of ``imagenet``, which leads to the stand-in by way of a pod."""
    pod = {"kind": "Pod", "namespace": "vision", "name": _PODS[0][0]}
    subset = {
        "addresses": [{"ip": own_address(), "targetRef": pod}],
        "ports": [{"name": "http", "port": POLLER_PORT}],
    }
    head: Object = {"apiVersion": "v1", "metadata": {"name": "imagenet", "namespace": "vision"}}
    ports = [{"name": "http", "port": 8501}]
    return [
        {**head, "kind": "Service", "spec": {"ports": ports}},
        {**head, "kind": "Endpoints", "subsets": [subset]},
    ]


def _events(uid: str) -> list[Object]:
    about = {
        "apiVersion": "inferencemodel.dev/v1alpha1",
        "kind": "InferenceModel",
        "name": "imagenet",
        "namespace": "vision",
        "uid": uid,
    }
    return [
        {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"imagenet.{number}", "namespace": "vision"},
            "involvedObject": about,
            "reason": reason,
            "type": kind,
            "message": message,
            "firstTimestamp": at,
            "lastTimestamp": at,
            "source": {"component": "inferencemodel.dev/operator"},
        }
        for number, (reason, kind, message, at) in enumerate(_EVENTS)
    ]


@contextmanager
def servers() -> Iterator[list[str]]:
    """What answers for every poller and model server; the paths of what was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            if self.path.startswith("/status"):
                # The API server says whom it was asked for.
                self._answer(msgspec.json.encode(report(self.headers.get("X-Forwarded-Uri", ""))))
            elif self.path.endswith("/metadata"):
                self._answer(json.dumps(metadata(_version(self.path))).encode())
            else:
                self.send_error(404)

        def do_POST(self) -> None:
            asked.append(self.path)
            content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            texts, scores = LABELS[_version(self.path)]
            if "inputs" in content:
                told: Object = {"outputs": {"classes": [texts], "scores": [scores]}}
            else:
                told = {"predictions": [{"classes": texts, "scores": scores}]}
            self._answer(json.dumps(told).encode())

        def _answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with serving(Handler, host=own_address(), port=POLLER_PORT):
        yield asked


def _version(path: str) -> int:
    return 3 if "/versions/3" in path else 2


def metadata(version: int) -> Object:
    """What a model server says of a version of ``imagenet``."""
    image = {"dtype": "DT_STRING", "tensor_shape": {"dim": [{"size": "-1", "name": ""}]}}
    many = {"dim": [{"size": "-1", "name": ""}, {"size": "-1", "name": ""}]}
    return {
        "model_spec": {"name": "imagenet", "signature_name": "", "version": str(version)},
        "metadata": {
            "signature_def": {
                "signature_def": {
                    "serving_default": {
                        "inputs": {"image_bytes": image},
                        "outputs": {
                            "classes": {"dtype": "DT_STRING", "tensor_shape": many},
                            "scores": {"dtype": "DT_FLOAT", "tensor_shape": many},
                        },
                    },
                    "thumbnail": {
                        "inputs": {
                            "limit": _tensor("DT_INT32", -1),
                            "pixels": _tensor("DT_FLOAT", -1, 2, 2),
                            "threshold": _tensor("DT_FLOAT", -1),
                        },
                        "outputs": {"scores": {"dtype": "DT_FLOAT", "tensor_shape": many}},
                    },
                }
            }
        },
    }


def _tensor(dtype: str, *sizes: int) -> Object:
    return {
        "dtype": dtype,
        "tensor_shape": {"dim": [{"size": str(size), "name": ""} for size in sizes]},
    }


def report(path: str) -> PollerStatus:
    """What the poller of a pod says, by the path that the API server was asked by."""
    told = next((told for name, _, told in _PODS if name in path), 2)
    golden = GoldenStatus(task="1", result=CheckResult.PASSED, records=3)
    return PollerStatus(
        revision="1",
        model="imagenet",
        target=told,
        source=SourceStatus(uri="gs://acme-models/imagenet"),
        served=(ServedVersion(version=told, state="AVAILABLE"),),
        versions=(
            VersionStatus(
                version=3,
                state=VersionState.AVAILABLE if told == 3 else VersionState.FETCHED,
                weight_bytes=108_400_000,
                interface=_interface(features=TensorSpec(dtype="float32", shape=(-1, 1280))),
                golden=golden if told == 3 else None,
            ),
            VersionStatus(
                version=2,
                state=VersionState.AVAILABLE if told == 2 else VersionState.RETIRED,
                weight_bytes=102_400_000,
                interface=_interface(),
            ),
        ),
    )


def _interface(**more: TensorSpec) -> Interface:
    outputs = {
        "classes": TensorSpec(dtype="string", shape=(-1, 5)),
        "scores": TensorSpec(dtype="float32", shape=(-1, 5)),
        **more,
    }
    image = TensorSpec(dtype="string", shape=(-1,))
    return Interface(
        signatures={
            "serving_default": SignatureSpec(
                method="tensorflow/serving/predict", inputs={"image_bytes": image}, outputs=outputs
            )
        }
    )
