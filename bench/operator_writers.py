"""Writers of objects: many requests at once to the API server, and nothing around them."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson

from demo.errors import OutcomeError
from inferencemodel_operator.access import Access

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from devcluster import Api

WRITERS = 20
Object = dict[str, Any]
PLURALS = {
    "ConfigMap": "configmaps",
    "Deployment": "deployments",
    "HorizontalPodAutoscaler": "horizontalpodautoscalers",
    "InferenceModel": "inferencemodels",
    "Ingress": "ingresses",
    "NetworkPolicy": "networkpolicies",
    "Pod": "pods",
    "PodDisruptionBudget": "poddisruptionbudgets",
    "ReplicaSet": "replicasets",
    "Service": "services",
}


class Writers:
    """20 writers over one pool of connections."""

    def __init__(self, server: str, session: aiohttp.ClientSession) -> None:
        self._server = server
        self._session = session

    async def post(self, objects: Iterable[Object]) -> float:
        """Create objects, 20 at a time; the seconds that it took."""
        waiting = iter(objects)
        started = time.monotonic()

        async def write() -> None:
            for obj in waiting:
                await self.call("POST", collection(obj), obj)

        await asyncio.gather(*(write() for _ in range(WRITERS)))
        return time.monotonic() - started

    async def merge(self, patches: Iterable[tuple[str, Object]]) -> None:
        """Merge something into each of many paths, 20 at a time."""
        waiting = iter(patches)

        async def write() -> None:
            for path, body in waiting:
                await self.call("PATCH", path, body, "application/merge-patch+json")

        await asyncio.gather(*(write() for _ in range(WRITERS)))

    async def count(self, kind: str, api_version: str, namespace: str) -> int:
        """How many objects of a kind there are."""
        path = collection(
            {"kind": kind, "apiVersion": api_version, "metadata": {"namespace": namespace}}
        )
        page = await self.call("GET", f"{path}?limit=1")
        return len(page["items"]) + int(page["metadata"].get("remainingItemCount", 0))

    async def call(
        self,
        method: str,
        path: str,
        body: Object | None = None,
        content_type: str = "application/json",
        accept: str = "application/json",
    ) -> Object:
        """One request.

        Raises:
            OutcomeError: it was refused.
        """
        async with self._session.request(
            method,
            self._server + path,
            data=None if body is None else orjson.dumps(body),
            headers={"Content-Type": content_type, "Accept": accept},
        ) as response:
            answer = await response.read()
            if response.status >= HTTPStatus.BAD_REQUEST:
                raise OutcomeError(f"{method} {path}: {answer.decode()[:500]}")
            found: Object = orjson.loads(answer)
            return found

    @asynccontextmanager
    async def watch(self, path: str) -> AsyncIterator[AsyncIterator[Object]]:
        """The events of a collection from now on."""
        page = await self.call("GET", f"{path}?limit=1")
        version = page["metadata"]["resourceVersion"]
        query = f"?watch=true&resourceVersion={version}"
        async with self._session.get(
            self._server + path + query, timeout=aiohttp.ClientTimeout(total=None)
        ) as response:

            async def events() -> AsyncIterator[Object]:
                rest = b""
                async for chunk in response.content.iter_any():
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        event: Object = orjson.loads(line)
                        yield event

            yield events()


def collection(obj: Object) -> str:
    """The URL path of an object's collection in its namespace."""
    version = obj["apiVersion"]
    root = "/apis" if "/" in version else "/api"
    return f"{root}/{version}/namespaces/{obj['metadata']['namespace']}/{PLURALS[obj['kind']]}"


@asynccontextmanager
async def writers(api: Api) -> AsyncIterator[Writers]:
    """Writers as the cluster's administrator."""
    access = Access(api.kubeconfig)
    connector = aiohttp.TCPConnector(limit=0, ssl=access.ssl_context())
    async with aiohttp.ClientSession(connector=connector, read_bufsize=2**20) as session:
        yield Writers(access.server, session)
