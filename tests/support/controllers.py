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
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any

from devcluster import build
from devcluster.controllers import CONTROLLER_MANAGER
from tests.support.objects import Objects, RefusedError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Self

    from devcluster.client import Api

logger = logging.getLogger(__name__)

REVISION = "deployment.kubernetes.io/revision"
SECONDS = 0.2
"""The least time between two looks."""

_WATCH = 30
"""Seconds; how long a watch lasts."""

_MODEL = "inferencemodel.dev/name"


def revision(template: dict[str, Any]) -> str:
    """A pod template's revision; the real controller counts, here it is a digest."""
    return hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:8]


class DeploymentController:
    """Keeps the Deployments of one namespace until it is left."""

    def __init__(self, kubeconfig: Path, namespace: str) -> None:
        self._objects = Objects(kubeconfig, namespace)
        self._ended = threading.Event()
        self._changed = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        for kind in ("deployments", "replicasets", "pods"):
            threading.Thread(target=self._watch, args=(kind,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._changed.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(SECONDS):
            self._changed.wait()
            self._changed.clear()
            try:
                self._look()
            except Exception:
                # An API server that a test has stopped comes back; what lasts is in the log.
                logger.warning("the simulated Deployment controller failed", exc_info=True)
                self._changed.set()

    def _watch(self, kind: str) -> None:
        """Say whenever an object of a kind has changed; at the latest as each watch begins."""
        while not self._ended.is_set():
            self._changed.set()
            try:
                for _ in self._objects.changes(kind, _MODEL, _WATCH):
                    self._changed.set()
            except RefusedError:
                logger.debug("a watch of %s ended", kind, exc_info=True)
                self._ended.wait(SECONDS)

    def _look(self) -> None:
        sets = {o["metadata"]["uid"]: o for o in self._objects.list("replicasets", _MODEL)}
        pods = self._objects.list("pods", _MODEL)
        for deployment in self._objects.list("deployments", _MODEL):
            metadata = deployment["metadata"]
            present = revision(deployment["spec"]["template"])
            if metadata.get("annotations", {}).get(REVISION) != present:
                self._patch(metadata["name"], metadata={"annotations": {REVISION: present}})
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
                self._patch(metadata["name"], "status", status=status)

    def _patch(self, name: str, *below: str, **patch: Any) -> None:
        # It may have been deleted meanwhile, which its watch tells.
        with suppress(RefusedError):
            self._objects.merge("deployments", name, *below, **patch)


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
