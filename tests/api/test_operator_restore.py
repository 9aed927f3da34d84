"""An API server whose etcd was restored from an older copy."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from devcluster.apiserver import ApiServer
from devcluster.controlplane import API_SERVER, STOP_SECONDS
from model_poller.status import VersionState
from tests.api.models import Model, world
from tests.support import crd
from tests.support.kubectl import Kubectl
from tests.support.kubelet import Kubelet
from tests.support.operators import Operator
from tests.support.pods import having, told
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from devcluster.client import Api

pytestmark = pytest.mark.api

ALL = ("configmap", "deployment", "service", "service")
AVAILABLE, FETCHED, RETIRED = VersionState.AVAILABLE, VersionState.FETCHED, VersionState.RETIRED


class Restorable:
    """An API server whose etcd can be put back to where it was."""

    def __init__(self, server: ApiServer, copy: Path) -> None:
        self._server = server
        self._copy = copy

    def keep(self) -> None:
        """Copy etcd's data."""
        self._stop()
        shutil.copytree(self._server._state / "etcd", self._copy)
        self._server.start()

    def restore(self) -> None:
        """Put etcd's data back."""
        self._stop()
        shutil.rmtree(self._server._state / "etcd")
        shutil.copytree(self._copy, self._server._state / "etcd")
        self._server.start()

    def _stop(self) -> None:
        for program in (API_SERVER, "etcd"):
            self._server._processes.stop(program, STOP_SECONDS)


@pytest.fixture
def server() -> Iterator[ApiServer]:
    """One of the test's own."""
    made = ApiServer()
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture
def api(server: ApiServer) -> Api:
    return server.start()


@pytest.fixture
def restorable(server: ApiServer, tmp_path: Path) -> Restorable:
    return Restorable(server, tmp_path / "etcd")


@pytest.mark.runbook("etcd-restored-from-yesterday")
def test_what_is_after_a_restore_is_believed_although_its_versions_are_older(
    api: Api, restorable: Restorable
) -> None:
    with crd.installed(api) as namespace:
        kubectl = Kubectl(api.program, api.kubeconfig, namespace)
        changed, deleted = (Model(kubectl).apply(replicas=1) for _ in range(2))
        with Operator(api.kubeconfig, (namespace,)) as operator:
            for model in (changed, deleted):
                model.until_children(*ALL)
            operator.until_quiet()
            restorable.keep()
            changed.patch(replicas=3)
            until_replicas(changed, 3)
            deleted.delete()
            # What is made for it after the restore is the garbage collector's.
            Model(kubectl).apply(replicas=1).until_children(*ALL)
            for number in range(100):
                kubectl("annotate", "--overwrite", "namespace", namespace, f"count={number}")
            operator.until_quiet()

            restorable.restore()

            changed.patch(replicas=2)
            until_replicas(changed, 2)
            deleted.patch(replicas=4)
            until_replicas(deleted, 4)
            Model(kubectl).apply(replicas=1).until_children(*ALL)
            assert "as after a restore" in operator.log()
            operator.until_quiet()
            assert operator.get("/livez") == "ok\n"


@pytest.mark.runbook("etcd-restored-from-yesterday")
def test_the_version_that_came_since_is_rolled_out_again_and_the_status_says_what_answers(
    api: Api, restorable: Restorable
) -> None:
    with world(api) as here:
        model = Model(here.kubectl, kubelet=here.kubelet).apply(replicas=2)
        for _ in range(2):
            model.add_pod().poller.tell(told({1: AVAILABLE}, target=1))
        model.roll_out()
        until_active(model, 1)
        here.operator.until_quiet()
        here.operator.stop()
        restorable.keep()
        here.operator.start()
        for poller in model.pollers():
            poller.serve = having(1, 2)
            poller.tell(told({1: AVAILABLE, 2: FETCHED}, target=1))
        with kubelet(model):
            until_active(model, 2)
            here.operator.until_quiet()

        restorable.restore()

        # What yesterday's copy knows of the pods, their kubelet tells them first.
        with kubelet(model):
            eventually(lambda: "as after a restore" in here.operator.log(), what="the log")
            until_active(model, 2)
        assert [pod.target for pod in model.pods] == ["2", "2"]
        assert [poller.target for poller in model.pollers()] == [2, 2]
        here.operator.until_quiet()


@contextmanager
def kubelet(model: Model) -> Iterator[None]:
    """What carries to pods what they are told; its watch ends with the API server."""
    with Kubelet(model.kubectl) as running:
        for pod in model.pods:
            running.run(pod.name, pod.poller)
        yield


def until_active(model: Model, version: int) -> None:
    model.until(
        lambda o: (
            o["status"]["model"]["activeVersion"] == version
            and o["status"]["model"]["transitionStatus"] == "UpToDate"
        ),
        what=f"version {version} on all replicas",
        within=60,
    )


def until_replicas(model: Model, replicas: int) -> None:
    model.until_child(
        "deployment", lambda o: o["spec"]["replicas"] == replicas, what=f"{replicas} replicas"
    )
