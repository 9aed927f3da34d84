"""An API server in the test's own process, for what a real one doesn't do on demand."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import yaml
from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GROUP = "inferencemodel.dev"


def _kind(name: str, kind: str, *, namespaced: bool) -> dict[str, Any]:
    verbs = ["list", "watch", "patch"]
    return {
        "name": name,
        "singularName": kind.lower(),
        "kind": kind,
        "namespaced": namespaced,
        "verbs": verbs,
    }


class ApiDouble:
    """Lists nothing, and holds watches open in which nothing happens."""

    def __init__(self) -> None:
        self.url = ""
        self.has_crd = True
        self.faults: list[dict[str, Any]] = []
        """Statuses that end the next watches of InferenceModels, one each."""
        self.requests: Counter[str] = Counter()
        """By path, and ``watch`` before it."""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        watching = request.query.get("watch") == "true"
        self.requests[f"{'watch ' if watching else ''}{request.path}"] += 1
        known = self._discovery().get(request.path)
        if known is not None:
            return web.json_response(known)
        if request.path.rpartition("/")[2] in ("v1", "v1alpha1", "v1beta1", "v2"):
            return web.json_response({"message": "not offered"}, status=404)
        if not self.has_crd and request.path.endswith("/inferencemodels"):
            return web.json_response({"message": "page not found"}, status=404)
        if watching:
            return await self._hold(request)
        return web.json_response({"metadata": {"resourceVersion": "1"}, "items": []})

    def _discovery(self) -> dict[str, Any]:
        version = {"groupVersion": f"{GROUP}/v1alpha1", "version": "v1alpha1"}
        group = {"name": GROUP, "versions": [version], "preferredVersion": version}
        answers: dict[str, Any] = {
            "/api": {"versions": ["v1"]},
            "/api/v1": {"resources": [_kind("namespaces", "Namespace", namespaced=False)]},
            "/apis": {"groups": [group] if self.has_crd else []},
        }
        if self.has_crd:
            kind = _kind("inferencemodels", "InferenceModel", namespaced=True)
            answers[f"/apis/{GROUP}/v1alpha1"] = {"resources": [kind]}
        return answers

    async def _hold(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        if self.faults and request.path.endswith("/inferencemodels"):
            event = {"type": "ERROR", "object": self.faults.pop()}
            await response.write(json.dumps(event).encode() + b"\n")
            return response
        await asyncio.Event().wait()
        return response


Double = TypeVar("Double", bound=ApiDouble)


@contextmanager
def serve(double: Double) -> Iterator[Double]:
    """Serve it on a free port of 127.0.0.1 while the context is open, in a thread of its own.

    kopf takes every younger task of its event loop for its own, and waits for it in the end.
    """
    ready, over = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def live() -> None:
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", double.handle)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        double.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        ready.set()
        await over.wait()
        await runner.cleanup()
        # Those that hold a watch open end only now.
        held = asyncio.all_tasks() - {asyncio.current_task()}
        for task in held:
            task.cancel()
        await asyncio.gather(*held, return_exceptions=True)

    thread = threading.Thread(target=lambda: loop.run_until_complete(live()), daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield double
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(10)
        loop.close()


def kubeconfig(path: Path, url: str, user: dict[str, Any]) -> Path:
    """A kubeconfig file for one user of one server."""
    file = path / "kubeconfig"
    file.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "c", "cluster": {"server": url}}],
                "users": [{"name": "u", "user": user}],
                "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                "current-context": "x",
            }
        )
    )
    return file
