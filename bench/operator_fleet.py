"""Pods that no node runs, and the stand-in for the poller of each, over real HTTP."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
from aiohttp import web

from bench.operator_process import NAMESPACE
from bench.operator_writers import collection
from inferencemodel_operator import names
from model_poller import status

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from bench.operator_writers import Object, Writers

PODS_EACH = 3
_REVISION = "1"
_BACKLOG = 4096
"""Connections that wait to be taken: an operator that starts opens those of all pods at once."""
_METADATA = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"


class Teller(Protocol):
    """Has the pods report."""

    def tell(self, number: int, version: int) -> None:
        """Have all pods of a model report that they serve a version, the only one."""


class Fleet:
    """The pollers of all pods, told apart by the address that they are asked at."""

    def __init__(self) -> None:
        self._told: dict[str, tuple[int, bytes]] = {}
        self._changed: dict[str, asyncio.Event] = {}

    def tell(self, number: int, version: int) -> None:
        """Have all pods of a model report that they serve a version, the only one."""
        for index in range(PODS_EACH):
            self.say(address(number, index), report(number, {version: "1"}, version))

    def say(self, ip: str, report: status.PollerStatus) -> None:
        """Have one pod report something else."""
        revision = self._told.get(ip, (0, b""))[0] + 1
        report = msgspec.structs.replace(report, revision=f"bench-{revision}")
        self._told[ip] = (revision, status.encode(report))
        self._changed.pop(ip, asyncio.Event()).set()

    async def answer(self, request: web.Request) -> web.Response:
        """``GET /status`` of one of them."""
        assert request.transport is not None
        ip = request.transport.get_extra_info("sockname")[0]
        revision, _ = self._told[ip]
        if request.query.get("after") == f"bench-{revision}":
            changed = self._changed.setdefault(ip, asyncio.Event())
            try:
                async with asyncio.timeout(float(request.query.get("timeout", "0"))):
                    await changed.wait()
            except TimeoutError:
                pass
        return web.Response(body=self._told[ip][1], content_type="application/json")


@asynccontextmanager
async def pollers(*, shared: bool = False) -> AsyncIterator[Fleet]:
    """Pollers on every address of 127/8.

    Args:
        shared: whether other processes answer there, too: any of them gets a connection.
    """
    fleet = Fleet()
    app = web.Application()
    app.router.add_get("/status", fleet.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        # All of 127/8.
        site = web.TCPSite(
            runner,
            "0.0.0.0",  # noqa: S104
            names.POLLER_PORT,
            backlog=_BACKLOG,
            reuse_port=shared,
        )
        await site.start()
        yield fleet
    finally:
        await runner.cleanup()


async def populate(
    writers: Writers, fleet: Teller, resources: int, say: Callable[[str], object] = str
) -> None:
    """Roll out the Deployment of each of the models: pods that are ready and serve version 1.

    Args:
        writers: the kubelets and the controllers.
        fleet: gets what the pods report.
        resources: how many models.
        say: is told how far it is.
    """
    for number in range(resources):
        fleet.tell(number, 1)
    numbers = range(resources)
    revision = {"metadata": {"annotations": {names.REVISION_ANNOTATION: _REVISION}}}
    await writers.merge((_deployment_path(number), revision) for number in numbers)
    deployments = await _uids(writers, "Deployment", "apps/v1")
    await writers.post(_replica_set(number, deployments) for number in numbers)
    say("ReplicaSets are there")
    replica_sets = await _uids(writers, "ReplicaSet", "apps/v1")
    await writers.post(
        _pod(number, index, replica_sets) for number in numbers for index in range(PODS_EACH)
    )
    say("pods are there")
    await writers.merge(
        (f"{_path(number, index)}/status", {"status": _pod_status(address(number, index))})
        for number in numbers
        for index in range(PODS_EACH)
    )
    say("pods are ready")
    counts = ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas")
    status = {"observedGeneration": 1000, **dict.fromkeys(counts, PODS_EACH)}
    await writers.merge(
        (f"{_deployment_path(number)}/status", {"status": status}) for number in numbers
    )


async def _uids(writers: Writers, kind: str, api_version: str) -> dict[str, str]:
    path = collection(
        {"kind": kind, "apiVersion": api_version, "metadata": {"namespace": NAMESPACE}}
    )
    found = await writers.call("GET", path, accept=_METADATA)
    return {obj["metadata"]["name"]: obj["metadata"]["uid"] for obj in found["items"]}


def address(number: int, index: int) -> str:
    """The pod's own address on this machine."""
    serial = number * PODS_EACH + index
    return f"127.{1 + serial // 62500}.{serial // 250 % 250}.{serial % 250 + 1}"


def _path(number: int, index: int) -> str:
    return f"/api/v1/namespaces/{NAMESPACE}/pods/model-{number}-{index}"


def _deployment_path(number: int) -> str:
    return f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/model-{number}"


def _controller(kind: str, name: str, uids: Mapping[str, str]) -> list[Object]:
    owner = {"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": uids[name]}
    return [{**owner, "controller": True}]


def _replica_set(number: int, deployments: Mapping[str, str]) -> Object:
    name = f"model-{number}"
    labels = names.labels(name) | {"pod-template-hash": "t1"}
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": f"{name}-t1",
            "namespace": NAMESPACE,
            "labels": labels,
            "annotations": {names.REVISION_ANNOTATION: _REVISION},
            "ownerReferences": _controller("Deployment", name, deployments),
        },
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": names.SERVER_CONTAINER, "image": "none"}]},
            },
        },
    }


def _pod(number: int, index: int, replica_sets: Mapping[str, str]) -> Object:
    name = f"model-{number}"
    container = {"image": "none", "command": ["none"]}
    poller = {
        "name": names.POLLER_CONTAINER,
        "restartPolicy": "Always",
        "args": [f"--model-name={name}", f"--storage-uri={_uri(number)}"],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{name}-{index}",
            "namespace": NAMESPACE,
            "labels": names.labels(name) | {"pod-template-hash": "t1"},
            "annotations": {names.TARGET_VERSION_ANNOTATION: "1"},
            "ownerReferences": _controller("ReplicaSet", f"{name}-t1", replica_sets),
        },
        "spec": {
            "automountServiceAccountToken": False,
            "initContainers": [container | poller],
            "containers": [{"name": names.SERVER_CONTAINER} | container],
        },
    }


def _pod_status(ip: str) -> dict[str, Any]:
    running = {"ready": True, "restartCount": 0, "image": "none", "imageID": ""} | {
        "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
    }
    return {
        "phase": "Running",
        "podIP": ip,
        "podIPs": [{"ip": ip}],
        "conditions": [{"type": "Ready", "status": "True"}],
        "initContainerStatuses": [{"name": names.POLLER_CONTAINER} | running],
        "containerStatuses": [{"name": names.SERVER_CONTAINER} | running],
    }


def _uri(number: int) -> str:
    """As `operator_create.model` has it."""
    return f"gs://models/model-{number}"


def report(
    number: int,
    stored: Mapping[int, str],
    serves: int,
    assigned: status.AssignmentStatus | None = None,
) -> status.PollerStatus:
    """What a pod of a model reports that has all of these versions on its disk.

    Args:
        number: of the model.
        stored: versions and their fingerprints.
        serves: the one that its model server answers with.
        assigned: what it was told; None for a poller that doesn't tell.
    """
    return status.PollerStatus(
        revision="",
        model=f"model-{number}",
        target=serves,
        assigned=assigned,
        source=status.SourceStatus(
            uri=_uri(number),
            state=status.SourceState.READY,
            reason=status.SourceReason.LISTED,
        ),
        versions=tuple(
            status.VersionStatus(
                version=version,
                state=_state(version, serves),
                in_source=True,
                fingerprint=fingerprint,
                proven=version <= serves,
                golden=_golden(version, assigned) if version == serves else None,
            )
            for version, fingerprint in sorted(stored.items(), reverse=True)
        ),
        server_reachable=True,
        served=(status.ServedVersion(version=serves, state="AVAILABLE"),),
    )


def _state(version: int, serves: int) -> status.VersionState:
    if version == serves:
        return status.VersionState.AVAILABLE
    return status.VersionState.RETIRED if version < serves else status.VersionState.FETCHED


def _golden(version: int, assigned: status.AssignmentStatus | None) -> status.GoldenStatus | None:
    """No version comes with golden requests."""
    task = status.decode_task(assigned.rollout) if assigned is not None else None
    if task is None or task.golden is None or task.version != version:
        return None
    return status.GoldenStatus(task=task.key, result=status.CheckResult.SKIPPED)
