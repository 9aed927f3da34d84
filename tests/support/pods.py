"""Pods without a node: the Pod object with a status set by hand, and a poller that is a stub.

For tests on an API server without controllers. The stub speaks the poller's HTTP interface on
a port of 127.0.0.1, which is the pod's address, and tells what the test says.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import msgspec

from model_poller import status
from model_poller.status import (
    PollerStatus,
    ServedVersion,
    SourceReason,
    SourceState,
    SourceStatus,
    VersionReason,
    VersionState,
    VersionStatus,
)
from tests.support.controllers import REVISION, revision
from tests.support.objects import Object, RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from tests.support.kubectl import Kubectl


class StubPoller:
    """Answers ``GET /status`` with long polls."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self.host, self.port = host, port
        self._changed = threading.Condition()
        self._number = 0
        self._status = PollerStatus(revision="", model="m", source=SourceStatus(uri="gs://b/m"))
        self.model, self.uri = "", ""
        """What its pod was made for; what is reported is about that unless a test wants a lie."""
        self._server: ThreadingHTTPServer | None = None
        self._heard: str | None = None
        self.serve: Callable[[int], PollerStatus] | None = None
        """What it tells once it has heard of a target; None for what it told before."""
        self.misses = 0
        """How many changes of what the pod is told it does not hear of before another write."""

    def start(self) -> None:
        """Listen."""
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                query = parse_qs(urlsplit(self.path).query)
                body = stub.answer(query.get("after", [""])[0], query.get("timeout", ["0"])[0])
                if body is None:
                    self.close_connection = True
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def handle_error(self, request: object, client_address: object) -> None:
                """A client that went away is no error."""

        self._server = Server((self.host, self.port), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Listen no more, and hang up on who waits for an answer."""
        with self._changed:
            server, self._server = self._server, None
            self._changed.notify_all()
        if server is not None:
            server.shutdown()
            server.server_close()

    def tell(self, told: PollerStatus, *, lie: bool = False) -> None:
        """Change what is answered: about the pod's own model and source, unless it is a lie."""
        if self.model and not lie:
            source = msgspec.structs.replace(told.source, uri=self.uri)
            told = msgspec.structs.replace(told, model=self.model, source=source)
        with self._changed:
            self._number += 1
            self._status = msgspec.structs.replace(told, revision=f"stub-{self._number}")
            self._changed.notify_all()

    @property
    def target(self) -> int | None:
        """The version that it says it was told to serve."""
        return self._status.target

    def hear(self, target: str | None) -> None:
        """Take in what the pod is told; a poller says it from then on."""
        with self._changed:
            if target in (None, self._heard):
                return
            if self.misses:
                self.misses -= 1
                return
            self._heard = target
            # An empty text is none: whoever serves a version goes on with it.
            number = int(target) if target else None
            report = msgspec.structs.replace(self._status, target=number)
            if self.serve is not None and number is not None:
                report = self.serve(number)
        self.tell(report)

    def answer(self, after: str, timeout: str) -> bytes | None:
        """One answer, at the latest after ``timeout`` seconds; None once it is stopped."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._server is None or self._status.revision != after, float(timeout)
            )
            return None if self._server is None else status.encode(self._status)


def told(
    states: Mapping[int, VersionState],
    *,
    target: int | None = None,
    reasons: Mapping[int, tuple[VersionReason, str]] | None = None,
    source: SourceStatus | None = None,
    fingerprints: Mapping[int, str] | None = None,
    reachable: bool = True,
    proven: Collection[int] = (),
    failures: int = 2,
) -> PollerStatus:
    """What a poller tells about versions that are all in the bucket."""
    return PollerStatus(
        revision="",
        model="m",
        target=target,
        source=source
        or SourceStatus(
            uri="gs://models/m", state=SourceState.READY, reason=SourceReason.LISTED, message=""
        ),
        versions=tuple(
            VersionStatus(
                version=number,
                state=states[number],
                in_source=True,
                fingerprint=(fingerprints or {}).get(number, f"f{number}"),
                reason=(reasons or {}).get(number, (None, ""))[0],
                message=(reasons or {}).get(number, (None, ""))[1],
                proven=number in proven,
                failures=failures if number in (reasons or {}) else 0,
            )
            for number in sorted(states, reverse=True)
        ),
        server_reachable=reachable,
        served=tuple(
            ServedVersion(version=number, state="AVAILABLE")
            for number in sorted(states, reverse=True)
            if states[number] is VersionState.AVAILABLE
        ),
    )


def having(*versions: int) -> Callable[[int], PollerStatus]:
    """A pod with versions on its disk, which answers with the one that it is told."""
    return lambda number: told(
        {
            other: VersionState.AVAILABLE if other == number else VersionState.RETIRED
            for other in versions
        },
        target=number,
    )


@dataclass
class SimulatedPod:
    """A running pod of an InferenceModel, as far as the API server knows.

    It belongs to a ReplicaSet of the InferenceModel's Deployment, as a controller would make it,
    and has the model and source of the Deployment's pod template.
    """

    kubectl: Kubectl
    model: str
    name: str
    template: str = "t1"
    """Hash of its pod template."""
    poller: StubPoller = field(default_factory=StubPoller)

    def create(self, *, ready: bool = True, owners: list[Object] | None = None) -> SimulatedPod:
        """Create the Pod, let its poller listen, and let it run.

        Args:
            ready: whether it gets requests.
            owners: those of a stranger; None for the true ones.
        """
        container = {"image": "none", "imagePullPolicy": "Never"}
        deployment = self.kubectl.until(
            "deployment", self.model, lambda found: found["spec"], what="its Deployment"
        )
        template = deployment["spec"]["template"]
        self.poller.model, self.poller.uri = _subject(template)
        self.poller.start()
        self.kubectl.objects.create(
            "pods",
            {
                "metadata": {
                    "name": self.name,
                    "labels": _labels(self.model, self.template),
                    "annotations": template["metadata"].get("annotations", {}),
                    "ownerReferences": (
                        [self._replica_set(deployment)] if owners is None else owners
                    ),
                },
                "spec": {
                    "initContainers": [
                        {
                            "name": "poller",
                            "restartPolicy": "Always",
                            "args": _poller(template)["args"],
                            "ports": [{"name": "poller", "containerPort": self.poller.port}],
                            **container,
                        }
                    ],
                    "containers": [{"name": "model-server", **container}],
                },
            },
        )
        self.set_status(ready=ready)
        return self

    def _replica_set(self, deployment: Object) -> Object:
        """The owner reference to the ReplicaSet of the pod's template, which is made on demand."""
        name, labels = f"{self.model}-{self.template}", _labels(self.model, self.template)
        spec = {"containers": [{"name": "model-server", "image": "none"}]}
        made: Object = {
            "metadata": {
                "name": name,
                "labels": labels,
                "annotations": {REVISION: revision(deployment["spec"]["template"])},
                "ownerReferences": [_owner(deployment, "Deployment")],
            },
            "spec": {
                "replicas": 0,
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": spec},
            },
        }
        with suppress(RefusedError):
            self.kubectl.objects.create("replicasets", made)
        return _owner(self.kubectl.get("replicaset", name), "ReplicaSet")

    def set_status(self, *, ready: bool, restarts: int = 0) -> None:
        """Be ready or not, after so many restarts of the model server."""
        state: Object = {"image": "none", "imageID": "none", "state": {"running": {}}}
        self._merge_status(
            {
                "phase": "Running",
                "podIP": "127.0.0.1",
                "podIPs": [{"ip": "127.0.0.1"}],
                "conditions": [{"type": "Ready", "status": str(ready)}],
                "initContainerStatuses": [
                    {"name": "poller", "ready": True, "restartCount": 0, **state}
                ],
                "containerStatuses": [
                    {"name": "model-server", "ready": ready, "restartCount": restarts, **state}
                ],
            }
        )

    def evict(self) -> None:
        """Be ended by the node, for want of memory; the object stays."""
        status = {
            "phase": "Failed",
            "reason": "Evicted",
            "message": "The node was low on resource: memory.",
            "conditions": [{"type": "Ready", "status": "False"}],
        }
        self._merge_status(status)
        self.poller.stop()

    def hang(self) -> None:
        """Have a node, and no container that was ever started."""
        creating = {"waiting": {"reason": "ContainerCreating"}}
        container = {"image": "none", "imageID": "none", "restartCount": 0, "state": creating}
        status = {
            "phase": "Pending",
            "podIP": None,
            "podIPs": None,
            "conditions": [
                {"type": "PodScheduled", "status": "True"},
                {"type": "Ready", "status": "False"},
            ],
            "initContainerStatuses": [{"name": "poller", "ready": False, **container}],
            "containerStatuses": [{"name": "model-server", "ready": False, **container}],
        }
        self._merge_status(status)

    @property
    def target(self) -> str | None:
        """The target version that the operator has told this pod."""
        return self._annotation("target-version")

    @property
    def attempt(self) -> str | None:
        """How often the operator has told it again."""
        return self._annotation("assignment-attempt")

    def _annotation(self, name: str) -> str | None:
        annotations: dict[str, Any] = self.kubectl.get("pod", self.name)["metadata"].get(
            "annotations", {}
        )
        return annotations.get(f"inferencemodel.dev/{name}")

    def _merge_status(self, status: Object) -> None:
        self.kubectl.objects.merge("pods", self.name, "status", status=status)

    def delete(self) -> None:
        """Delete the Pod and stop its poller; no error when it is gone already."""
        with suppress(RefusedError):
            self.kubectl.objects.delete("pods", self.name)
        self.poller.stop()


def _labels(model: str, template: str) -> dict[str, str]:
    return {
        "app.kubernetes.io/managed-by": "inferencemodel-operator",
        "inferencemodel.dev/name": model,
        "pod-template-hash": template,
    }


def _owner(obj: Object, kind: str) -> Object:
    metadata = obj["metadata"]
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": True,
    }


def _poller(template: Object) -> Object:
    containers: list[Object] = template["spec"]["initContainers"]
    return next(container for container in containers if container["name"] == "poller")


def _subject(template: Object) -> tuple[str, str]:
    """Model and source of a pod template's poller, by its arguments."""
    arguments = _poller(template)["args"]
    given = dict(argument.removeprefix("--").partition("=")[::2] for argument in arguments)
    return given["model-name"], given["storage-uri"].replace("$$", "$")
