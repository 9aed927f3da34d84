"""Looks at everything, again and again: what the API server says, and what the pods answer."""

from __future__ import annotations

import http.client
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chaos import judge
from chaos.fleet import FLEET, NAMESPACE
from chaos.ground import OPERATORS, SYSTEM, UnreadableError
from chaos.judge import Finding
from chaos.seen import INGRESS, Inventory, Look, Pod, Standstill, Told, Usage
from inferencemodel_operator import names
from tests.support.kubectl import condition

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

    from chaos.ground import Ground, Process

_EVERY = 1.5
_USAGE_EVERY = 10.0
_ASK_SECONDS = 2.0
_LATE = 1.5
"""Seconds that the watch may oversleep before the machine counts as standing still."""
KINDS = {
    "configmaps": "/api/v1/namespaces/{}/configmaps",
    "services": "/api/v1/namespaces/{}/services",
    "pods": "/api/v1/namespaces/{}/pods",
    "deployments": "/apis/apps/v1/namespaces/{}/deployments",
    "ingresses": "/apis/networking.k8s.io/v1/namespaces/{}/ingresses",
    "autoscalers": "/apis/autoscaling/v2/namespaces/{}/horizontalpodautoscalers",
    "disruption budgets": "/apis/policy/v1/namespaces/{}/poddisruptionbudgets",
    "leases": "/apis/coordination.k8s.io/v1/namespaces/inferencemodel-system/leases",
}
_MODELS = f"/apis/{names.API_VERSION}/namespaces/{NAMESPACE}/{names.PLURAL}"


class Watching:
    """Looks in threads of its own inside a ``with`` block."""

    def __init__(self, ground: Ground) -> None:
        """Begin with nothing seen."""
        self._ground = ground
        self._stop = threading.Event()
        self._askers = ThreadPoolExecutor(12, thread_name_prefix="ask")
        self.looks: list[Look] = []
        self.findings: list[Finding] = []
        """What is wrong whenever it is there: half versions."""
        self.usages: list[Usage] = []
        self.standstills: list[Standstill] = []
        self._reported: set[str] = set()
        self._threads = [
            threading.Thread(target=run, name=name, daemon=True)
            for name, run in (("looks", self._look_always), ("usage", self._use_always))
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)
        self._askers.shutdown(cancel_futures=True)

    @property
    def running(self) -> bool:
        """Whether nothing is missed."""
        return all(thread.is_alive() for thread in self._threads)

    def inventory(self) -> Inventory:
        """What there is now of what could pile up.

        Raises:
            UnreadableError: the API server doesn't answer.
        """
        objects = {
            kind: sum(
                not _has_ended(obj) for obj in self._ground.read(path.format(NAMESPACE))["items"]
            )
            for kind, path in KINDS.items()
        }
        left, size = [], 0
        for pod, model, volume in self._volumes():
            for place in (".staging", ".quarantine"):
                lying = [each.name for each in _inside(volume / place)]
                if place == ".staging" and lying:
                    left.append(f"{pod}: {', '.join(lying[:5])} in {place}")
            size += sum(each.lstat().st_size for each in _below(volume / model))
        return Inventory(objects, tuple(left), size)

    def _look_always(self) -> None:
        due = time.monotonic()
        while not self._stop.is_set():
            self.looks.append(self._look())
            self._check_base_paths()
            due = max(due + _EVERY, time.monotonic())
            before = time.monotonic()
            wait = due - before
            self._stop.wait(wait)
            late = time.monotonic() - before - wait
            if late > _LATE:
                self.standstills.append(Standstill(time.time() - late, late))

    def _look(self) -> Look:
        at = time.time()
        try:
            pods = self._ground.pods(NAMESPACE)
            system = self._ground.pods(SYSTEM)
            operators = self._ground.pods(OPERATORS)
            told = self._ground.read(_MODELS)["items"]
            nodes = self._ground.read("/api/v1/nodes")["items"]
        except UnreadableError:
            return Look(at, answered=False)
        models = [
            pod
            for pod in pods
            # One that ended, as by an eviction, is kept for people to read.
            if names.MODEL_LABEL in pod["metadata"].get("labels", {}) and not _has_ended(pod)
        ]
        answers = self._askers.map(_ask, models)
        return Look(
            at,
            operators=sum(is_ready(pod) for pod in operators),
            pods=(
                *(_pod(pod, answer) for pod, answer in zip(models, answers, strict=True)),
                *(
                    _pod(pod, None, INGRESS)
                    for pod in system
                    if pod["metadata"]["name"].startswith("traefik")
                ),
            ),
            told=tuple(_told(obj) for obj in told),
            nodes_lost=frozenset(node["metadata"]["name"] for node in nodes if not is_ready(node)),
        )

    def _check_base_paths(self) -> None:
        known = {model.name: model for model in FLEET}
        for pod, name, volume in self._volumes():
            model = known.get(name)
            if model is None or model.scheme == "pvc":
                continue
            for version in _inside(volume / name):
                if not version.name.isdigit():
                    continue
                wrong = self._half(name, version)
                if wrong and version.exists():
                    # It may have left while it was read: once more.
                    wrong = self._half(name, version)
                key = f"{pod} {version.name} {wrong}"
                if wrong and version.exists() and key not in self._reported:
                    self._reported.add(key)
                    text = f"{name}: version {version.name} in the base path of {pod}: {wrong}"
                    self.findings.append(Finding(time.time(), text))

    def _half(self, model: str, version: Path) -> str:
        files = {
            each.relative_to(version).as_posix(): each.lstat().st_size for each in _below(version)
        }
        uploaded = self._ground.stores.versions.get(model, {}).get(int(version.name))
        whole = [{n: len(c) for n, c in uploaded.entries.items()}] if uploaded else []
        return judge.half(files, whole)

    def _volumes(self) -> Iterator[tuple[str, str, Path]]:
        """Of each pod that is on a node's disk: its uid, its model, its model volume."""
        for node in self._ground.nodes():
            for volume in _inside(node.kubelet / "pods"):
                models = volume / "volumes/kubernetes.io~empty-dir/models"
                for folder in _inside(models):
                    if not folder.name.startswith("."):
                        yield volume.name, folder.name, models

    def _use_always(self) -> None:
        while not self._stop.wait(_USAGE_EVERY):
            at = time.time()
            for process in self._ground.processes():
                kind = kind_of(process)
                if kind in ("operator", "poller"):
                    try:
                        self.usages.append(_usage(at, kind, process))
                    except (OSError, ValueError):
                        continue


def kind_of(process: Process) -> str:
    """What a process of a pod is; empty for what is none of ours."""
    if process.is_a("model_poller.process.supervisor"):
        return "supervisor"
    if process.is_a("-m model_poller"):
        return "poller"
    if process.is_a("inferencemodel_operator"):
        return "operator"
    if process.is_a("tensorflow_model_server") or process.is_a("development_model_server"):
        return "model server"
    return ""


def _usage(at: float, kind: str, process: Process) -> Usage:
    told = _proc(process, "status")
    fields = dict(line.split(":", 1) for line in told.splitlines() if ":" in line)
    return Usage(
        at=at,
        kind=kind,
        process=f"{process.pod} {process.identity.pid}",
        megabytes=int(fields["VmRSS"].split()[0]) / 1000,
        threads=int(fields["Threads"]),
        files=len(list(_proc_path(process, "fd").iterdir())),
    )


def _proc_path(process: Process, name: str) -> Path:
    return Path(f"/proc/{process.identity.pid}/{name}")


def _proc(process: Process, name: str) -> str:
    return _proc_path(process, name).read_text()


def _inside(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _below(folder: Path) -> Iterator[Path]:
    for each in _inside(folder):
        if each.is_symlink() or each.is_file():
            yield each
        else:
            yield from _below(each)


def is_ready(obj: Any) -> bool:
    """Whether a pod or a node says that it is Ready."""
    return bool(condition(obj, "Ready").get("status") == "True")


def _has_ended(obj: Any) -> bool:
    return obj.get("status", {}).get("phase") in ("Failed", "Succeeded")


def _pod(pod: Any, available: frozenset[int] | None, model: str = "") -> Pod:
    metadata = pod["metadata"]
    return Pod(
        name=metadata["name"],
        model=model or metadata["labels"][names.MODEL_LABEL],
        node=pod["spec"].get("nodeName", ""),
        ready=is_ready(pod),
        leaving="deletionTimestamp" in metadata,
        available=available,
    )


def _ask(pod: Any) -> frozenset[int] | None:
    """What a pod's own model server says AVAILABLE."""
    address = pod.get("status", {}).get("podIP")
    if not address:
        return None
    name = pod["metadata"]["labels"][names.MODEL_LABEL]
    connection = http.client.HTTPConnection(address, names.HTTP_PORT, timeout=_ASK_SECONDS)
    try:
        connection.request("GET", f"/v1/models/{name}")
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    if answer.status != http.HTTPStatus.OK:
        return frozenset()
    statuses = json.loads(body).get("model_version_status", [])
    return frozenset(int(each["version"]) for each in statuses if each["state"] == "AVAILABLE")


def _told(obj: Any) -> Told:
    status = obj.get("status", {})
    model = status.get("model", {})
    ready = condition(obj, "Ready")
    summary = status.get("replicaSummary", "0/0").partition("/")[2]
    return Told(
        model=obj["metadata"]["name"],
        generation=obj["metadata"]["generation"],
        observed_generation=status.get("observedGeneration", 0),
        active=model.get("activeVersion"),
        target=model.get("targetVersion"),
        ready=ready.get("status", "Unknown"),
        reason=f"{ready.get('reason', '')}: {ready.get('message', '')}",
        transition=model.get("transitionStatus", ""),
        ready_replicas=status.get("readyReplicas", 0),
        wanted=int(summary) if summary.isdigit() else 0,
        stalled=condition(obj, "Stalled").get("status", "False"),
    )
