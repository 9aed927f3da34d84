"""Answers of the API server: read whole where they are what they should be, and no further."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from inferencemodel_operator import cluster
from inferencemodel_operator.access import Access
from inferencemodel_operator.cluster import CONFIG_MAPS, Cluster
from inferencemodel_operator.errors import ApiUnavailableError, NoRightError, RefusedError
from tests.support import api_double

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def served(handler: Handler, folder: Path) -> AsyncIterator[Cluster]:
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    own = Access(api_double.kubeconfig(folder, url, {"token": "t"}))
    async with cluster.connect(own, watches=1) as pool, cluster.session(pool, own) as session:
        yield Cluster(own, session)
    await runner.cleanup()


def endless(head: bytes = b"", status: int = 200) -> Handler:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=status)
        await response.prepare(request)
        await response.write(head)
        for _ in range(700):
            await response.write(b"x" * 10**6)
        return response

    return answer


def store(items: list[dict[str, Any]], sizes: list[int]) -> Handler:
    """An API server that lists objects, and notes how many it is asked for at a time."""

    async def answer(request: web.Request) -> web.Response:
        limit = int(request.query["limit"])
        first = int(request.query.get("continue", "0"))
        sizes.append(limit)
        left = first + limit < len(items)
        metadata = {"resourceVersion": "1", "continue": str(first + limit) if left else ""}
        return web.json_response({"metadata": metadata, "items": items[first : first + limit]})

    return answer


def identity(number: int) -> dict[str, str]:
    return {"name": str(number), "uid": str(number), "resourceVersion": "1"}


async def test_of_large_objects_fewer_are_listed_at_a_time(tmp_path: Path) -> None:
    items = [{"metadata": identity(n), "data": "x" * 10**6} for n in range(30)]
    sizes: list[int] = []
    async with served(store(items, sizes), tmp_path) as api:
        names = [
            item["metadata"]["name"]
            async for page in api.list(CONFIG_MAPS, None)
            for item in page["items"]
        ]
    assert names == [str(number) for number in range(30)]
    assert sizes[:3] == [100, 25, 6]
    assert set(sizes[3:]) == {6}


async def test_an_object_that_can_not_be_one_is_an_error(tmp_path: Path) -> None:
    async with served(endless(), tmp_path) as api:
        with pytest.raises(ApiUnavailableError, match="longer than"):
            await api.get(CONFIG_MAPS, "vision", "m")
        with pytest.raises(ApiUnavailableError, match="longer than"):
            await anext(api.list(CONFIG_MAPS, "vision"))
        with pytest.raises(ApiUnavailableError, match="longer than"):
            await anext(api.watch(CONFIG_MAPS, "vision", "1"))


async def test_an_error_is_told_by_its_beginning(tmp_path: Path) -> None:
    async with served(endless(b"no right at all ", status=403), tmp_path) as api:
        with pytest.raises(RefusedError, match="no right at all xxx") as refused:
            await api.get(CONFIG_MAPS, "vision", "m")
        assert len(str(refused.value)) < 2000
        with pytest.raises(NoRightError, match="no right at all xxx"):
            await anext(api.watch(CONFIG_MAPS, "vision", "1"))


async def test_a_watch_gives_line_after_line_however_they_are_cut(tmp_path: Path) -> None:
    events = [
        {"type": "ADDED", "object": {"metadata": identity(n), "data": "x" * n * 30_000}}
        for n in range(20)
    ]
    text = b"".join(json.dumps(event).encode() + b"\n" for event in events)

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for start in range(0, len(text), 77_777):
            await response.write(text[start : start + 77_777])
        return response

    async with served(answer, tmp_path) as api:
        found = [obj async for _, obj in api.watch(CONFIG_MAPS, "vision", "1")]
    assert found == [event["object"] for event in events]
