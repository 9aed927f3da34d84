"""The console: the Fleet page, and behind it those of each model; thin, as what they say is decided
elsewhere."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Mount, Route

from kubectl_inferencemodel.console import fleet, pages
from kubectl_inferencemodel.console.guard import Guard
from kubectl_inferencemodel.console.replies import SILENCE_SECONDS, Replies, event
from kubectl_inferencemodel.errors import PluginError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request
    from starlette.types import ASGIApp, Receive, Scope, Send

    from kubectl_inferencemodel.cluster import Cluster
    from kubectl_inferencemodel.console.entry import Pass
    from kubectl_inferencemodel.console.feed import Feed
    from kubectl_inferencemodel.following import Key

_FIRST_LIST_SECONDS: Final = 20.0
_MEDIA_TYPES: Final = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


class Console:
    """The pages of one cluster."""

    def __init__(self, cluster: Cluster, feed: Feed, shown: Pass) -> None:
        self._cluster = cluster
        self._feed = feed
        self._pass = shown
        self._replies = Replies(shown, cluster.server)
        self._models: ASGIApp | None = None
        self._files = {
            file.name: (file.read_bytes(), _MEDIA_TYPES[file.suffix])
            for file in pages.STATIC.iterdir()
            if file.suffix in _MEDIA_TYPES
        }

    def app(self) -> ASGIApp:
        """The ASGI application, behind its guard."""
        routes = [
            Route("/", self._fleet),
            Route("/changes", self._fleet_changes),
            Mount("/models", self._of_a_model),
            Route("/static/{name}", self._static),
        ]
        handlers: dict[Any, Any] = {PluginError: self._replies.failed}
        made = Starlette(
            routes=[Mount(self._pass.base, routes=routes)], exception_handlers=handlers
        )
        return Guard(made, self._pass)

    async def _of_a_model(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._models is None:
            # The fleet is shown before there is all that these pages take.
            from kubectl_inferencemodel.console.models import Models

            self._models = Models(self._cluster, self._feed, self._replies).app()
        await self._models(scope, receive, send)

    async def _static(self, request: Request) -> Response:
        found = self._files.get(request.path_params["name"])
        if found is None:
            raise HTTPException(404)
        content, kind = found
        return Response(content, media_type=kind)

    # -- Fleet ----------------------------------------------------------------------------------

    async def _fleet(self, request: Request) -> Response:  # noqa: ARG002
        # Not on a thread of the framework: those take longer to be there than the page.
        return await asyncio.to_thread(self._listed)

    def _listed(self) -> Response:
        # While the list comes.
        pages.prepare("base.html", "fleet.html", "rows.html", "counts.html", "notes.html")
        self._feed.wait(_FIRST_LIST_SECONDS)
        revision, rows = self._feed.revision, self._feed.rows
        return self._replies.page(
            "fleet.html",
            rows=rows,
            counts=fleet.counts(rows),
            namespaces=sorted({row.namespace for row in rows}),
            revision=revision,
            notes=self._notes(),
        )

    async def _fleet_changes(self, request: Request) -> Response:
        text = request.headers.get("last-event-id") or request.query_params.get("after", "")
        after = int(text) if text.isdecimal() and len(text) < 16 else -1
        return self._replies.stream(self._fleet_events(after))

    async def _fleet_events(self, after: int) -> AsyncIterator[str]:
        base = self._pass.base
        with self._feed.subscribed() as subscription:
            changed: set[Key | None] | None = None
            missed = self._feed.since(after)
            if missed is None:
                yield event({"reload": True}, self._feed.revision)
                return
            changed = {*missed}
            while not self._feed.has_ended:
                if changed:
                    revision = self._feed.revision
                    rows = {key: self._feed.row(key) for key in changed if key is not None}
                    told = {
                        "rows": {
                            f"{key[0]}/{key[1]}": None if row is None else pages.row_html(row, base)
                            for key, row in rows.items()
                        },
                        "counts": pages.counts_html(self._feed.rows),
                        "notes": pages.render("notes.html", notes=self._notes()),
                    }
                    yield event(told, revision)
                else:
                    yield ": still here\n\n"
                changed = await subscription.changed(SILENCE_SECONDS)

    def _notes(self) -> list[str]:
        left = self._feed.left_out
        more = [f"{left} more models are not shown: name namespaces with -n"] if left else []
        note = [self._feed.note] if self._feed.note else []
        return [*self._feed.problems.values(), *note, *more]
