"""An API server whose etcd was restored from an older copy."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from devcluster.apiserver import ApiServer
from devcluster.controlplane import API_SERVER, STOP_SECONDS
from tests.api.models import Model
from tests.support import crd
from tests.support.kubectl import Kubectl
from tests.support.operators import Operator

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.api

ALL = ("configmap", "deployment", "service", "service")


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


@pytest.mark.runbook("etcd-restored-from-yesterday")
def test_what_is_after_a_restore_is_believed_although_its_versions_are_older(
    tmp_path: Path,
) -> None:
    server = ApiServer()
    try:
        api = server.start()
        restorable = Restorable(server, tmp_path / "etcd")
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
    finally:
        server.stop()


def until_replicas(model: Model, replicas: int) -> None:
    model.until_child(
        "deployment", lambda o: o["spec"]["replicas"] == replicas, what=f"{replicas} replicas"
    )
