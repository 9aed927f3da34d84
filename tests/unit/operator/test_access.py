"""Where the operator's credentials go, whatever a server answers: to the API server alone."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import aiohttp
import pytest
from aiohttp import web

from inferencemodel_operator import access, cluster
from inferencemodel_operator.access import Access, AstrayError
from inferencemodel_operator.cluster import DEPLOYMENTS, Cluster
from inferencemodel_operator.errors import ApiUnavailableError
from inferencemodel_operator.metrics import Metrics
from inferencemodel_operator.observe import objects, pollers
from inferencemodel_operator.observe.pollers import Pollers
from inferencemodel_operator.observe.reports import Report, Unreachable
from inferencemodel_operator.observe.signs import Signs
from inferencemodel_operator.observe.watches import ModelWatches
from inferencemodel_operator.process import Operator
from inferencemodel_operator.settings import Options, Settings
from tests.support import api_double
from tests.support.api_double import ApiDouble
from tests.support.channels import WAYS, reached

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from pathlib import Path

REDIRECTS = (301, 302, 303, 307, 308)
MODELS = "/apis/inferencemodel.dev/v1alpha1/inferencemodels"


class Liar(ApiDouble):
    """An API server, some of whose paths answer something else."""

    def __init__(self) -> None:
        super().__init__()
        self.lies: dict[str, tuple[int, str]] = {}
        """Status and Location of the answer by the path's ending."""
        self.tokens: set[str | None] = set()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.tokens.add(request.headers.get("Authorization"))
        for ending, (status, location) in self.lies.items():
            if request.path.endswith(ending):
                self.requests[request.path] += 1
                return web.Response(status=status, headers={"Location": location})
        return await super().handle(request)


@pytest.fixture
def liar() -> Iterator[Liar]:
    with api_double.serve(Liar()) as double:
        yield double


class Elsewhere:
    """A server that must hear of nobody: it remembers all that connect."""

    def __init__(self) -> None:
        self.port = 0
        self.visitors: list[bytes] = []

    async def _hear(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.visitors.append(await reader.read(4096))
        writer.close()

    def address(self, what: str, home: str) -> str:
        """A URL with another scheme, host or port than home, or with another path alone."""
        if what == "scheme":
            return f"https://{urlsplit(home).netloc}/secret"
        if what == "path":
            return f"{home}/secret"
        host = "127.0.0.2" if what == "host" else "127.0.0.1"
        return f"http://{host}:{self.port}/secret"


@pytest.fixture
async def elsewhere() -> AsyncIterator[Elsewhere]:
    made = Elsewhere()
    server = await asyncio.start_server(made._hear, "0.0.0.0", 0)
    made.port = server.sockets[0].getsockname()[1]
    yield made
    server.close()


async def until(holds: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        await asyncio.sleep(0.02)


def config(folder: Path, url: str) -> Path:
    return api_double.kubeconfig(folder, url, {"token": "precious"})


@pytest.mark.parametrize("status", REDIRECTS)
@pytest.mark.parametrize("what", ["host", "port", "scheme", "path"])
async def test_requests_of_the_operator_follow_no_redirect(
    liar: Liar, elsewhere: Elsewhere, tmp_path: Path, status: int, what: str
) -> None:
    liar.lies["/deployments/m"] = liar.lies["/deployments"] = (
        status,
        elsewhere.address(what, liar.url),
    )
    own = Access(config(tmp_path, liar.url))
    wanted = {"metadata": {"namespace": "vision", "name": "m"}}
    async with (
        cluster.connect(own, watches=1) as pool,
        cluster.session(pool, Metrics(), own) as session,
    ):
        api = Cluster(own, session)
        with pytest.raises(ApiUnavailableError, match="redirect"):
            await api.get(DEPLOYMENTS, "vision", "m")
        with pytest.raises(ApiUnavailableError, match="redirect"):
            await api.apply(DEPLOYMENTS, wanted, uid="u")
        with pytest.raises(ApiUnavailableError, match="redirect"):
            await anext(api.list(DEPLOYMENTS, "vision"))
        with pytest.raises(ApiUnavailableError, match="redirect"):
            await anext(api.watch(DEPLOYMENTS, "vision", "1"))
    assert elsewhere.visitors == []
    assert liar.requests["/secret"] == 0
    assert liar.tokens == {"Bearer precious"}


@pytest.mark.parametrize("status", REDIRECTS)
@pytest.mark.parametrize("what", ["host", "port", "scheme", "path"])
@pytest.mark.parametrize("way", WAYS)
async def test_polls_follow_no_redirect(
    liar: Liar, elsewhere: Elsewhere, tmp_path: Path, way: str, status: int, what: str
) -> None:
    liar.lies["/status"] = (status, elsewhere.address(what, liar.url))
    reports: dict[str, Report] = {}
    async with reached(way, tmp_path) as channel:
        asking = Pollers(channel, lambda _: liar.url, reports, lambda _: None, Metrics())
        asking.start([running_pod()])
        await until(lambda: isinstance(reports.get("uid-p"), Unreachable), "an answer")
        await asking.close()
    assert elsewhere.visitors == []
    assert liar.requests["/secret"] == 0
    assert liar.tokens == {"Bearer precious" if way == "proxied" else None}


def running_pod() -> objects.Pod:
    pod = objects.pod(
        {
            "metadata": {
                "name": "p",
                "namespace": "vision",
                "uid": "uid-p",
                "resourceVersion": "1",
                "labels": {"inferencemodel.dev/name": "m"},
            },
            "status": {"phase": "Running", "podIP": "127.0.0.1"},
        }
    )
    assert pod is not None
    return pod


@pytest.mark.parametrize(
    ("status", "what"),
    [*((status, "port") for status in REDIRECTS), (302, "host"), (307, "scheme")],
)
async def test_kopfs_watch_follows_no_redirect_and_goes_on_once_it_is_answered(
    liar: Liar, elsewhere: Elsewhere, tmp_path: Path, status: int, what: str
) -> None:
    liar.lies["/inferencemodels"] = (status, elsewhere.address(what, liar.url))
    options = Options(
        kubeconfig=config(tmp_path, liar.url),
        namespaces=(),
        selector=None,
        poller_access="proxy",
        http_port=0,
        lease=None,
        settings=Settings(),
    )
    async with Operator(options):
        await until(lambda: liar.requests[MODELS] > 1, "two attempts to list")
        liar.lies.clear()
        await until(lambda: liar.requests[f"watch {MODELS}"], "the watch")
    assert elsewhere.visitors == []
    assert liar.tokens == {"Bearer precious"}


@pytest.mark.parametrize("fault", ["it is told to end", "the API server does not answer"])
async def test_a_watch_that_kopf_does_not_get_leaves_its_connection_to_others(
    liar: Liar, fault: str
) -> None:
    asked = asyncio.Event()

    async def went_back(_namespace: str | None, _version: str) -> bool:
        asked.set()
        if fault == "it is told to end":
            await asyncio.Event().wait()
        raise ApiUnavailableError(fault)

    watches = ModelWatches((), Signs(), liar.url, went_back=went_back)
    async with (
        aiohttp.TCPConnector(limit=1) as pool,
        cluster.session(pool, watches) as kopfs,
        cluster.session(pool) as others,
    ):
        liar.lies["/inferencemodels"] = (500, "")
        with pytest.raises(aiohttp.ClientConnectionError):
            await kopfs.get(liar.url + MODELS)
        liar.lies.clear()
        watch = {"watch": "true", "resourceVersion": "1"}
        watching = asyncio.create_task(kopfs.get(liar.url + MODELS, params=watch))
        await asyncio.wait_for(asked.wait(), 20)
        watching.cancel()
        await asyncio.wait([watching])
        async with asyncio.timeout(20):
            assert (await others.get(f"{liar.url}/api")).status == 200
        # Held to here: were it garbage before, so would be its answer, and the connection free.
        assert watching.done()


async def test_a_request_to_another_origin_is_not_sent_at_all(
    liar: Liar, elsewhere: Elsewhere, tmp_path: Path
) -> None:
    own = Access(config(tmp_path, liar.url))
    async with cluster.connect(own, watches=0) as pool, cluster.session(pool, own) as session:
        for what in ("host", "port", "scheme"):
            with pytest.raises(AstrayError, match="not the API server's address"):
                await session.get(elsewhere.address(what, liar.url))
        assert (await session.get(f"{liar.url}/api")).status == 200
    assert elsewhere.visitors == []


async def test_credentials_of_another_server_are_not_taken_for_those_of_this_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    refused: list[str | None] = []

    async def refuse(request: web.Request) -> web.Response:
        refused.append(request.headers.get("Authorization"))
        return web.Response(status=401)

    async with served(refuse) as url:
        own = Access(config(tmp_path, url))
        api_double.kubeconfig(tmp_path, "http://127.0.0.9:9", {"token": "another's"})
        async with cluster.connect(own, watches=0) as pool, cluster.session(pool, own) as session:
            for _ in range(3):
                assert (await session.get(f"{url}/api")).status == 401
    assert set(refused) == {"Bearer precious"}
    assert "http://127.0.0.9:9" in caplog.text


async def test_who_refuses_again_and_again_does_not_start_a_plugin_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(_: web.Request) -> web.Response:
        return web.Response(status=401)

    async with served(refuse) as url:
        own = Access(config(tmp_path, url))
        load, loads = access._from_kubeconfig, 0

        def count(path: Path | None) -> Any:
            nonlocal loads
            loads += 1
            return load(path)

        monkeypatch.setattr(access, "_from_kubeconfig", count)
        async with pollers.session(own) as session:
            async with asyncio.TaskGroup() as group:
                for _ in range(20):
                    group.create_task(_status(session, url))
            assert await _status(session, url) == 401
    assert loads == 1


async def _status(session: aiohttp.ClientSession, url: str) -> int:
    async with session.get(url) as response:
        return response.status


@asynccontextmanager
async def served(handler: Callable[[web.Request], Awaitable[web.Response]]) -> AsyncIterator[str]:
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()
