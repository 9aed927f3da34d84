"""Controllers for an API server that runs without them: Kubernetes' own, or what one would say.

The simulated Deployment controller makes no pods: those are the tests' own. It gives a Deployment
the revision of its pod template and the account of its pods, so that what the operator reads there
is the truth.
"""

from __future__ import annotations

import hashlib
import json
import logging
import subprocess
import tempfile
import threading
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

import kubernetes

from devcluster import build
from devcluster.controllers import CONTROLLER_MANAGER

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Self

    from devcluster.client import Api

logger = logging.getLogger(__name__)

REVISION = "deployment.kubernetes.io/revision"
SECONDS = 0.2
_MODEL = "inferencemodel.dev/name"


def revision(template: dict[str, Any]) -> str:
    """A pod template's revision; the real controller counts, here it is a digest."""
    return hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:8]


class DeploymentController:
    """Keeps the Deployments of one namespace until it is left."""

    def __init__(self, kubeconfig: Path, namespace: str) -> None:
        self._client = kubernetes.config.new_client_from_config(str(kubeconfig))
        self._namespace = namespace
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._client.close()

    def _run(self) -> None:
        while not self._ended.wait(SECONDS):
            try:
                self._look()
            except Exception:
                # An API server that a test has stopped comes back; what lasts is in the log.
                logger.warning("the simulated Deployment controller failed", exc_info=True)

    def _look(self) -> None:
        sets = {o["metadata"]["uid"]: o for o in self._list("apis/apps/v1", "replicasets")}
        pods = self._list("api/v1", "pods")
        for deployment in self._list("apis/apps/v1", "deployments"):
            metadata = deployment["metadata"]
            present = revision(deployment["spec"]["template"])
            if metadata.get("annotations", {}).get(REVISION) != present:
                self._patch(metadata["name"], {"metadata": {"annotations": {REVISION: present}}})
            owned = [
                (pod, sets[uid])
                for pod in pods
                if (uid := _owner(pod)) in sets and _owner(sets[uid]) == metadata["uid"]
            ]
            updated = sum(s["metadata"]["annotations"][REVISION] == present for _, s in owned)
            status = {
                "observedGeneration": metadata["generation"],
                "replicas": len(owned),
                "updatedReplicas": updated,
            }
            if {**deployment["status"], **status} != deployment["status"]:
                self._patch(f"{metadata['name']}/status", {"status": status})

    def _list(self, api: str, plural: str) -> list[dict[str, Any]]:
        path = f"/{api}/namespaces/{self._namespace}/{plural}?labelSelector={_MODEL}"
        found: list[dict[str, Any]] = self._call("GET", path)["items"]
        return found

    def _patch(self, name: str, body: dict[str, Any]) -> None:
        path = f"/apis/apps/v1/namespaces/{self._namespace}/deployments/{name}"
        self._call("PATCH", path, body)

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        configuration = self._client.configuration
        headers = {"Accept": "application/json", "Content-Type": "application/merge-patch+json"}
        token = configuration.get_api_key_with_prefix("BearerToken")
        if token:
            headers["Authorization"] = token
        answer = self._client.call_api(
            method, configuration.host + path, headers, body, _request_timeout=5
        )
        decoded: dict[str, Any] = json.loads(answer.read())
        return decoded


def _owner(obj: dict[str, Any]) -> str | None:
    owners = obj["metadata"].get("ownerReferences", ())
    return next((owner["uid"] for owner in owners if owner.get("controller")), None)


@contextmanager
def running(api: Api, *names: str) -> Iterator[None]:
    """Some of Kubernetes' own controllers, such as ``garbage-collector-controller``.

    They are for an API server of the test's own: what other tests leave behind, they would touch.
    """
    program = build.ensure([CONTROLLER_MANAGER])[CONTROLLER_MANAGER]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [
                *("setpriv", "--pdeathsig=KILL", "--", str(program)),
                f"--kubeconfig={api.kubeconfig}",
                f"--controllers={','.join(names)}",
                "--leader-elect=false",
                "--secure-port=0",
            ],
            stdout=log,
            stderr=log,
        )
        try:
            yield
            assert process.poll() is None, _end_of(log)
        finally:
            process.kill()
            process.wait()


def _end_of(log: IO[bytes]) -> str:
    log.seek(0)
    return log.read()[-2000:].decode()
