"""An API server that is away, restarted or silent for a while: a real one behind a cable."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import time
from contextlib import ExitStack, closing, contextmanager
from datetime import datetime
from http import HTTPStatus
from http.client import HTTPSConnection
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
from tests.api import accounts
from tests.api.models import Model
from tests.support import audit, crd
from tests.support.cable import Cable
from tests.support.kubectl import Kubectl, condition
from tests.support.operators import WRITES, Operator
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from devcluster.client import Api
    from tests.support.rendering import Programs

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
            eventually(lambda: "waiting: watching" in operator.log(), what="the loss to be noticed")
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


def test_an_api_server_that_throttles_is_obeyed_and_all_is_done_afterwards(
    api_server: Api, programs: Programs, tmp_path: Path
) -> None:
    with crd.installed(api_server) as namespace:
        kubectl = Kubectl(api_server.program, api_server.kubeconfig, namespace)
        accounts.installed(kubectl, programs, namespace)
        account = accounts.login(kubectl, tmp_path)
        with Operator(account.kubeconfig, (namespace,)) as operator:
            earlier = Model(kubectl).apply()
            earlier.until_children(*ALL)
            operator.until_quiet()

            def refused() -> int:
                return sum(operator.requests(*WRITES, outcome="429").values())

            with _throttled(kubectl, account):
                since = time.monotonic()
                models = [Model(kubectl).apply() for _ in range(10)]
                one_round = len(models) * (len(ALL) + 1)  # the children and the status
                eventually(lambda: refused() >= 3 * one_round, what="three rounds", within=45)
                # Each answer asks to wait for a second at least.
                assert refused() <= one_round * (2 + time.monotonic() - since)
                assert operator.get("/livez") == "ok\n", "starting anew would not help"
                assert not any(model.children() for model in models)

            for model in models:
                model.until_children(*ALL)
                eventually(
                    lambda model=model: _conditions(model) == _conditions(earlier),  # type: ignore[misc]
                    what=f"{model.name} to be as one that was never refused",
                )
        if api_server.audit_log is not None:
            assert min(_pauses(api_server, namespace)) >= 1


def _pauses(api: Api, namespace: str) -> Iterator[float]:
    """The seconds from each answer 429 to the next request for the same.

    Without creates: their address is that of a kind, not of an object.
    """
    refused: dict[str, datetime] = {}
    for entry in audit.entries(api, namespace):
        if entry["verb"] == "create":
            continue
        uri = entry["requestURI"]
        if uri in refused:
            yield (audit.received(entry) - refused.pop(uri)).total_seconds()
        if entry["responseStatus"]["code"] == HTTPStatus.TOO_MANY_REQUESTS:
            refused[uri] = datetime.fromisoformat(entry["stageTimestamp"])


def _conditions(model: Model) -> dict[str, tuple[str, str]]:
    """Status and reason of each."""
    found = model.until_reported()["status"]["conditions"]
    return {one["type"]: (one["status"], one["reason"]) for one in found}


@contextmanager
def _throttled(kubectl: Kubectl, account: Kubectl) -> Iterator[None]:
    """Let the API server answer 429 to all that an account asks, inside the block.

    A level without seats and without any to borrow
    (https://kubernetes.io/docs/concepts/cluster-administration/flow-control/) still serves one
    request at a time, so there is one that does not end: its body never comes. Watches that are
    open go on.
    """
    name = f"jail-{kubectl.namespace}"
    api = "flowcontrol.apiserver.k8s.io/v1"
    who = {"namespace": kubectl.namespace, "name": accounts.NAME}
    whatever = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"]}
    level = {
        "type": "Limited",
        "limited": {
            "nominalConcurrencyShares": 0,
            "borrowingLimitPercent": 0,
            "limitResponse": {"type": "Reject"},
        },
    }
    schema = {
        "priorityLevelConfiguration": {"name": name},
        "matchingPrecedence": 100,
        "rules": [
            {
                "subjects": [{"kind": "ServiceAccount", "serviceAccount": who}],
                "resourceRules": [{**whatever, "clusterScope": True}],
                "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
            }
        ],
    }
    contents = {"PriorityLevelConfiguration": level, "FlowSchema": schema}
    try:
        for kind, spec in contents.items():
            kubectl.apply(
                {"apiVersion": api, "kind": kind, "metadata": {"name": name}, "spec": spec}
            )
        # Told once the API server goes by it.
        kubectl.until(
            *("flowschema", name),
            lambda o: condition(o, "Dangling").get("status") == "False",
            what="to be in force",
            within=30,
        )
        path = f"/api/v1/namespaces/{kubectl.namespace}/configmaps"
        with ExitStack() as unfinished:

            def refused() -> bool:
                unfinished.enter_context(closing(_request(account, "POST", path, length=1)))
                with closing(_request(account, "GET", path)) as asked:
                    return asked.getresponse().status == HTTPStatus.TOO_MANY_REQUESTS

            eventually(refused, what="requests to be refused", within=10)
            yield
    finally:
        kubectl("delete", "flowschema,prioritylevelconfiguration", name, "--ignore-not-found")


def _request(account: Kubectl, method: str, path: str, length: int = 0) -> HTTPSConnection:
    """Send the head of a request with an account's token, and none of the body."""
    config = json.loads(account("config", "view", "--raw", "--minify", "--flatten", "-o", "json"))
    server, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    authority = base64.b64decode(server["certificate-authority-data"]).decode()
    connection = HTTPSConnection(
        urlsplit(server["server"]).netloc,
        context=ssl.create_default_context(cadata=authority),
        timeout=30,
    )
    connection.putrequest(method, path)
    connection.putheader("Authorization", f"Bearer {user['token']}")
    connection.putheader("Content-Type", "application/json")
    connection.putheader("Content-Length", str(length))
    connection.endheaders()
    return connection


def _through(cable: Cable, api: Api, folder: Path) -> Path:
    """A kubeconfig whose API server is at the other end of a cable."""
    path = folder / "kubeconfig"
    path.touch(mode=0o600)
    port = urlsplit(api.url).port
    path.write_text(api.kubeconfig.read_text().replace(f":{port}", f":{cable.port}"))
    return path
