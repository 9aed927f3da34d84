"""An API server that is away, restarted or silent for a while: a real one behind a cable."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import aiohttp
import pytest

from devcluster.apiserver import ApiServer
from devcluster.controlplane import API_SERVER, STOP_SECONDS
from inferencemodel_operator import cluster
from inferencemodel_operator.access import Access
from inferencemodel_operator.cache import Cache
from inferencemodel_operator.cluster import SERVICES, Cluster
from inferencemodel_operator.observe.informer import Informer
from inferencemodel_operator.observe.signs import Signs
from tests.api.models import Model
from tests.support import crd
from tests.support.cable import Cable
from tests.support.kubectl import Kubectl
from tests.support.operators import Operator
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from devcluster.client import Api

pytestmark = pytest.mark.api

ALL = ("configmap", "deployment", "service", "service")


def test_an_api_server_that_was_away_is_picked_up_where_it_was(
    api_server: Api, tmp_path: Path
) -> None:
    port = urlsplit(api_server.url).port
    assert port is not None
    with crd.installed(api_server) as namespace, Cable(port) as cable:
        kubectl = Kubectl(api_server.program, api_server.kubeconfig, namespace)
        through_cable = _through(cable, api_server, tmp_path)
        model = Model(kubectl).apply(replicas=1)
        with Operator(through_cable, (namespace,)) as operator:
            model.until_children("configmap", "deployment", "service", "service")
            operator.until_quiet()

            cable.cut()
            eventually(lambda: "will retry" in operator.log(), what="the loss to be noticed")
            model.patch(replicas=3)
            kubectl("delete", "service", model.name)
            assert operator.get("/livez") == "ok\n", "starting anew would not help"
            cable.mend()

            model.until_children("configmap", "deployment", "service", "service")
            model.until_child("deployment", lambda o: o["spec"]["replicas"] == 3, what="3 replicas")
            assert operator.log().count("Operator is stopping") == 0
        model.delete()


def test_what_changed_unseen_is_made_good_after_the_api_server_was_restarted(
    tmp_path: Path,
) -> None:
    server = ApiServer()
    try:
        api = server.start()
        port = urlsplit(api.url).port
        assert port is not None
        with crd.installed(api) as namespace, Cable(port) as cable:
            kubectl = Kubectl(api.program, api.kubeconfig, namespace)
            model = Model(kubectl).apply(replicas=1)
            with Operator(_through(cable, api, tmp_path), (namespace,)) as operator:
                model.until_children(*ALL)
                operator.until_quiet()

                cable.cut()
                model.patch(replicas=3)
                kubectl("delete", "service", model.name)
                # A new API server remembers no changes: every watch is told 410 when it comes back.
                server._processes.stop(API_SERVER, STOP_SECONDS)
                server.start()
                kubectl("create", "configmap", "later")
                cable.mend()

                model.until_children(*ALL)
                model.until_child(
                    "deployment", lambda o: o["spec"]["replicas"] == 3, what="3 replicas"
                )
                assert "listing anew" in operator.log()
                operator.until_quiet()
                assert operator.get("/livez") == "ok\n"
    finally:
        server.stop()


async def test_a_watch_whose_bytes_are_swallowed_is_opened_anew(
    api_server: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "WATCH_TIMEOUT", aiohttp.ClientTimeout(total=None, sock_read=1))
    monkeypatch.setattr(cluster, "REQUEST_TIMEOUT", aiohttp.ClientTimeout(total=2))
    port = urlsplit(api_server.url).port
    assert port is not None
    with crd.installed(api_server) as namespace, Cable(port) as cable:
        kubectl = Kubectl(api_server.program, api_server.kubeconfig, namespace)
        access = Access(_through(cable, api_server, tmp_path))
        cache, changed = Cache(), asyncio.Event()
        async with (
            cluster.connect(access, watches=1) as pool,
            cluster.session(pool, access) as session,
        ):

            def seen(*event: Any) -> None:
                cache.put(event[0], event[2])
                changed.set()

            signs = Signs()
            informer = Informer(
                *(Cluster(access, session), cache, SERVICES, namespace, signs),
                seen=seen,
                gone=lambda _: changed.set(),
            )
            running = asyncio.create_task(informer.run())
            async with asyncio.timeout(30):
                await informer.listed.wait()
                cable.swallow()
                await asyncio.to_thread(kubectl, "create", "service", "clusterip", "s", "--tcp=80")
                await asyncio.to_thread(
                    kubectl,
                    *("label", "service", "s"),
                    "app.kubernetes.io/managed-by=inferencemodel-operator",
                )
                await changed.wait()
            assert cache.child("Service", namespace, "s") is not None
            running.cancel()


def _through(cable: Cable, api: Api, folder: Path) -> Path:
    """A kubeconfig whose API server is at the other end of a cable."""
    path = folder / "kubeconfig"
    path.touch(mode=0o600)
    port = urlsplit(api.url).port
    path.write_text(api.kubeconfig.read_text().replace(f":{port}", f":{cable.port}"))
    return path
