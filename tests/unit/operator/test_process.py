"""The operator as an object: it starts, works, ends when a part ends, and stops."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import socket
import time
from typing import TYPE_CHECKING

import aiohttp
import pytest
from aiohttp import web

from devcluster.ports import free_port
from inferencemodel_operator.errors import LostLeadershipError
from inferencemodel_operator.leadership import Leadership
from inferencemodel_operator.process import Operator
from inferencemodel_operator.settings import Options, Settings
from tests.support import api_double
from tests.support.api_double import ApiDouble

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

MODELS = "/apis/inferencemodel.dev/v1alpha1/inferencemodels"


@pytest.fixture
def api() -> Iterator[ApiDouble]:
    with api_double.serve(ApiDouble()) as double:
        yield double


@pytest.fixture
def port() -> int:
    return free_port()


def options(
    api: ApiDouble, folder: Path, port: int, *, lease: tuple[str, str] | None = None
) -> Options:
    return Options(
        kubeconfig=api_double.kubeconfig(folder, api.url, {"token": "t"}),
        namespaces=(),
        selector=None,
        poller_access="direct",
        http_port=port,
        lease=lease,
        settings=Settings(),
    )


async def until(holds: Callable[[], bool | Awaitable[bool]], what: str) -> None:
    deadline = time.monotonic() + 20
    while True:
        answer = holds()
        if answer if isinstance(answer, bool) else await answer:
            return
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        await asyncio.sleep(0.02)


async def get(port: int, path: str) -> int:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}{path}") as response,
    ):
        return response.status


async def is_ready(port: int) -> bool:
    return await get(port, "/readyz") == 200


async def test_it_works_until_it_is_stopped_and_leaves_nothing_behind(
    api: ApiDouble, tmp_path: Path, port: int
) -> None:
    before = asyncio.all_tasks()
    operator = Operator(options(api, tmp_path, port))
    await operator.start()
    await until(lambda: is_ready(port), "the operator to be ready")
    await until(lambda: api.requests[f"watch {MODELS}"] > 0, "kopf's watch")
    await operator.stop()
    await operator.wait()
    assert asyncio.all_tasks() <= before
    with pytest.raises(aiohttp.ClientConnectionError):
        await get(port, "/livez")


async def test_it_can_be_stopped_while_it_waits_for_its_crd(
    api: ApiDouble, tmp_path: Path, port: int, caplog: pytest.LogCaptureFixture
) -> None:
    api.has_crd = False
    async with Operator(options(api, tmp_path, port)):
        await until(lambda: "kubectl apply -f crds/" in caplog.text, "the advice")
        assert await get(port, "/livez") == 200
        assert await get(port, "/readyz") == 503


async def test_a_watch_that_fails_is_opened_anew(
    api: ApiDouble, tmp_path: Path, port: int, caplog: pytest.LogCaptureFixture
) -> None:
    api.faults = [{"kind": "Status", "code": 500, "message": "no leader"}] * 2
    async with Operator(options(api, tmp_path, port)):
        await until(lambda: api.requests[f"watch {MODELS}"] > 2, "the third watch")
        assert "waiting: running kopf" in caplog.text
        assert await is_ready(port)


async def test_a_crd_that_comes_late_is_found(api: ApiDouble, tmp_path: Path, port: int) -> None:
    # Seen by one API server, and not yet by the next.
    api.has_crd = False
    async with Operator(options(api, tmp_path, port)):
        await until(lambda: api.requests["/apis"] > 1, "kopf to ask again")
        api.has_crd = True
        await until(lambda: is_ready(port), "the operator to be ready")


async def test_it_ends_with_the_reason_when_one_of_its_parts_ends(
    api: ApiDouble, tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lose(_: Leadership) -> None:
        raise LostLeadershipError("Lease system/operator", "another")

    monkeypatch.setattr(Leadership, "run", lose)
    operator = Operator(options(api, tmp_path, port, lease=("system", "operator")))
    await operator.start()
    with pytest.raises(LostLeadershipError, match="another holds it"):
        await operator.wait()
    await operator.stop()


async def test_a_start_that_fails_closes_what_it_had_opened(
    api: ApiDouble, tmp_path: Path, port: int
) -> None:
    # An aiohttp session that is left open is a ResourceWarning, which is an error here.
    with socket.create_server(("0.0.0.0", port)):
        operator = Operator(options(api, tmp_path, port))
        with pytest.raises(OSError, match="address"):
            await operator.start()
        await operator.stop()


class Landlord(ApiDouble):
    """Has a model in each namespace, and refuses some kinds of one of them to everybody."""

    def __init__(self) -> None:
        super().__init__()
        self.refused: tuple[str, ...] = ("*",)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        parts = request.path.split("/")
        namespace = parts[parts.index("namespaces") + 1] if "namespaces" in parts else ""
        if namespace == "speech" and {"*", parts[-1]} & set(self.refused):
            self.requests[f"refused {request.path}"] += 1
            message = f'{parts[-1]} is forbidden: User "operator" cannot list resource'
            status = {"kind": "Status", "message": message, "reason": "Forbidden", "code": 403}
            return web.json_response(status, status=403)
        listing = request.method == "GET" and "watch" not in request.query
        if listing and parts[-2:] == [namespace, "inferencemodels"]:
            self.requests[request.path] += 1
            metadata = {"name": "m", "namespace": namespace, "uid": namespace}
            model = {
                "metadata": {**metadata, "resourceVersion": "1", "generation": 1},
                "spec": {"model": {"storageUri": "gs://models/m"}},
            }
            return web.json_response({"metadata": {"resourceVersion": "1"}, "items": [model]})
        return await super().handle(request)

    def has_written(self, namespace: str) -> bool:
        return any(
            f"/namespaces/{namespace}/" in path and path.endswith(("/m-versions", "/m/status"))
            for path in self.requests
        )


async def test_a_namespace_without_the_roles_keeps_nobody_from_the_others(
    tmp_path: Path, port: int, caplog: pytest.LogCaptureFixture
) -> None:
    """As one that its tenant has deleted, with the roles in it."""
    caplog.set_level(logging.INFO)
    with api_double.serve(Landlord()) as landlord:
        chosen = options(landlord, tmp_path, port)
        chosen = dataclasses.replace(chosen, namespaces=("vision", "speech"))
        async with Operator(chosen):
            await until(lambda: landlord.has_written("vision"), "the model that can be served")
            assert await is_ready(port)
            lines = [r.getMessage() for r in caplog.records if "serving the others" in r.msg]
            assert lines == ["serving the others than namespace speech until the rights are there"]

            landlord.refused = ("pods",)
            path = "/apis/inferencemodel.dev/v1alpha1/namespaces/speech/inferencemodels"
            await until(lambda: landlord.requests[path] >= 2, "the other namespace's models")
            asked = "refused /api/v1/namespaces/speech/pods"
            before = landlord.requests[asked]
            await until(lambda: landlord.requests[asked] >= before + 2, "two more refusals")
            assert not landlord.has_written("speech"), "judged without its pods"

            landlord.refused = ()
            await until(lambda: landlord.has_written("speech"), "the other namespace")
