"""The operator's own HTTP: /livez, /readyz, /metrics."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from inferencemodel_operator.metrics import Metrics
    from inferencemodel_operator.observe.feed import Feed
    from inferencemodel_operator.observe.signs import Signs


@asynccontextmanager
async def serve(
    port: int, signs: Signs, feed: Feed, metrics: Metrics, refresh: Callable[[], None]
) -> AsyncIterator[None]:
    """Serve on all addresses while the context is open; port 0 serves nothing.

    Args:
        port: the TCP port.
        signs: alive while each watch shows a sign of life.
        feed: ready once it is complete.
        metrics: what is scraped.
        refresh: brings gauges up to date before a scrape.
    """

    async def livez(_: web.Request) -> web.Response:
        dead = signs.dead()
        if dead:
            return web.Response(status=500, text=f"no sign of life of the watches of {dead}\n")
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        if not feed.complete.is_set():
            return web.Response(status=503, text="not everything is listed yet\n")
        return web.Response(text="ok\n")

    async def scrape(_: web.Request) -> web.Response:
        refresh()
        return web.Response(
            body=metrics.render(), headers={"Content-Type": "text/plain; version=0.0.4"}
        )

    if port == 0:
        yield
        return
    application = web.Application()
    application.add_routes(
        [web.get("/livez", livez), web.get("/readyz", readyz), web.get("/metrics", scrape)]
    )
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, port=port).start()
        yield
    finally:
        await runner.cleanup()
