"""The console's pages and what they ask for: thin, as what they say is decided elsewhere."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, Final

from starlette.applications import Starlette
from starlette.responses import HTMLResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from kubectl_inferencemodel import comparison
from kubectl_inferencemodel.arguments import MAX_VERSION, is_name
from kubectl_inferencemodel.cluster import MAX_BYTES
from kubectl_inferencemodel.console import doing, fleet, manifest, offers, pages
from kubectl_inferencemodel.console.guard import Guard
from kubectl_inferencemodel.console.trying import Question, Trying
from kubectl_inferencemodel.errors import (
    AnswerError,
    ClusterError,
    ForbiddenError,
    NotFoundError,
    PluginError,
    RefusedError,
)
from kubectl_inferencemodel.picture import Reports

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request
    from starlette.types import ASGIApp

    from kubectl_inferencemodel.cluster import Cluster
    from kubectl_inferencemodel.console.entry import Pass
    from kubectl_inferencemodel.console.feed import Feed
    from kubectl_inferencemodel.following import Key

_FIRST_LIST_SECONDS: Final = 20.0
_SILENCE_SECONDS: Final = 15.0
"""After so long without a change a comment keeps the connection open."""
_LOOK_SECONDS: Final = 2.0
"""Pods and Events of a model whose page is open are looked at so often."""
_LOG_LINES: Final = 300
_STREAMS: Final = 32
"""So many pages are kept up to date at once."""
_STATUS: Final = (
    (NotFoundError, 404),
    (ForbiddenError, 403),
    (AnswerError, 400),
    (RefusedError, 409),
)
_CONTAINERS: Final = ("poller", "model-server")


class Console:
    """The pages of one cluster."""

    def __init__(self, cluster: Cluster, feed: Feed, shown: Pass) -> None:
        self._cluster = cluster
        self._feed = feed
        self._pass = shown
        self._confirmations = doing.Confirmations()
        self._trying = Trying()
        self._streams = 0
        self._schema: dict[str, Any] | None = None

    def app(self) -> ASGIApp:
        """The ASGI application, behind its guard."""
        at = "/models/{namespace}/{name}"
        routes = [
            Route("/", self._fleet),
            Route("/changes", self._fleet_changes),
            Route(at, self._model),
            Route(f"{at}/changes", self._model_changes),
            Route(f"{at}/log", self._log),
            Route(f"{at}/manifest", self._manifest),
            Route(f"{at}/ask", self._ask_twice, methods=["POST"]),
            Route(f"{at}/do", self._do, methods=["POST"]),
            Route(f"{at}/try", self._try),
            Route(f"{at}/predict", self._predict, methods=["POST"]),
            Route(f"{at}/golden", self._golden, methods=["POST"]),
            Route(f"{at}/compare", self._compare),
            Mount("/static", StaticFiles(directory=pages.STATIC)),
        ]
        handlers: dict[Any, Any] = {PluginError: self._failed}
        made = Starlette(
            routes=[Mount(self._pass.base, routes=routes)], exception_handlers=handlers
        )
        return Guard(made, self._pass)

    # -- Fleet ----------------------------------------------------------------------------------

    def _fleet(self, request: Request) -> Response:  # noqa: ARG002
        self._feed.wait(_FIRST_LIST_SECONDS)
        revision, rows = self._feed.revision, self._feed.rows
        return self._page(
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
        return self._stream(self._fleet_events(after))

    async def _fleet_events(self, after: int) -> AsyncIterator[str]:
        base = self._pass.base
        with self._feed.subscribed() as subscription:
            changed: set[Key | None] | None = None
            missed = self._feed.since(after)
            if missed is None:
                yield _event({"reload": True}, self._feed.revision)
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
                    yield _event(told, revision)
                else:
                    yield ": still here\n\n"
                changed = await subscription.changed(_SILENCE_SECONDS)

    def _notes(self) -> list[str]:
        left = self._feed.left_out
        more = [f"{left} more models are not shown: name namespaces with -n"] if left else []
        note = [self._feed.note] if self._feed.note else []
        return [*self._feed.problems.values(), *note, *more]

    # -- Model ----------------------------------------------------------------------------------

    def _model(self, request: Request) -> Response:
        cluster, name = self._of(request)
        return self._page(
            "model.html",
            **self._names(request),
            tab="overview",
            sections=self._sections(cluster, name),
        )

    def _sections(self, cluster: Cluster, name: str) -> dict[str, str]:
        model, pods = cluster.model(name), cluster.all_pods(name)
        reports = Reports(cluster).of(pods, model.status.model.target_version)
        try:
            events = cluster.events(model)
        except ClusterError:
            events = None
        trail = self._feed.trail((cluster.namespace, name))
        return pages.sections(model, pods, reports, events, trail, base=self._pass.base)

    async def _model_changes(self, request: Request) -> Response:
        cluster, name = self._of(request)
        return self._stream(self._model_events(cluster, name))

    async def _model_events(self, cluster: Cluster, name: str) -> AsyncIterator[str]:
        before: dict[str, str] = {}
        silent = 0.0
        with self._feed.subscribed((cluster.namespace, name)) as subscription:
            while not self._feed.has_ended:
                try:
                    found = await asyncio.to_thread(self._sections, cluster, name)
                    told: dict[str, Any] = {
                        "sections": {k: v for k, v in found.items() if before.get(k) != v}
                    }
                    before, problem = found, ""
                except NotFoundError:
                    told, problem = {"gone": True}, "gone"
                except PluginError as error:
                    told = {"problem": fleet.bounded(str(error))}
                    problem = told["problem"]
                if problem or told["sections"]:
                    yield _event(told, 0)
                    silent = 0
                elif silent >= _SILENCE_SECONDS:
                    yield ": still here\n\n"
                    silent = 0
                silent += _LOOK_SECONDS
                await subscription.changed(_LOOK_SECONDS)

    def _log(self, request: Request) -> Response:
        cluster, _ = self._of(request)
        pod, container = (request.query_params.get(key, "") for key in ("pod", "container"))
        if not is_name(pod) or container not in _CONTAINERS:
            raise AnswerError("there is no such container")
        return PlainTextResponse(
            cluster.log(pod, container, _LOG_LINES) or "nothing is written yet"
        )

    def _manifest(self, request: Request) -> Response:
        cluster, name = self._of(request)
        if self._schema is None:
            try:
                self._schema = cluster.schema()
            except ClusterError:
                self._schema = {}
        found = manifest.lines(cluster.object(name), self._schema)
        return self._part("manifest.html", lines=found, known=bool(self._schema))

    # -- Actions --------------------------------------------------------------------------------

    async def _ask_twice(self, request: Request) -> Response:
        cluster, name = self._of(request)
        given = await _json(request)
        key, version = str(given.get("key", "")), _version(given.get("version"))

        def ask() -> Response:
            model = cluster.model(name)
            offer = offers.find(model, key, version)
            word = self._confirmations.add(model, offer)
            return self._part("asked.html", offer=offer, word=word, model=model)

        return await asyncio.to_thread(ask)

    async def _do(self, request: Request) -> Response:
        cluster, name = self._of(request)
        given = await _json(request)
        asked = self._confirmations.take(str(given.get("word", "")), cluster.namespace, name)
        arrival = await asyncio.to_thread(doing.do, cluster, asked)
        return self._part("done.html", arrival=arrival)

    # -- Try it ---------------------------------------------------------------------------------

    def _try(self, request: Request) -> Response:
        cluster, name = self._of(request)
        found = self._trying.form(cluster, name)
        return self._page("try.html", **self._names(request), tab="try", **found)

    async def _predict(self, request: Request) -> Response:
        cluster, name = self._of(request)
        question = await _question(request)
        found = await asyncio.to_thread(self._trying.ask, cluster, name, question)
        return self._part("answers.html", **found)

    async def _golden(self, request: Request) -> Response:
        cluster, name = self._of(request)
        question = await _question(request)
        content, version = await asyncio.to_thread(self._trying.golden, cluster, name, question)
        file = f"{name}-v{version}.golden"
        return Response(
            content,
            media_type="application/octet-stream",
            headers={"content-disposition": f'attachment; filename="{file}"'},
        )

    # -- Compare --------------------------------------------------------------------------------

    def _compare(self, request: Request) -> Response:
        cluster, name = self._of(request)
        model, reports = cluster.model(name), Reports(cluster)
        told = reports.of(cluster.all_pods(name))
        of = model.status.model
        there = {v.version for report in told.values() for v in report.versions}
        there |= {known.version for known in of.versions}
        versions = sorted(there, reverse=True)
        after = _version(request.query_params.get("after"))
        before = _version(request.query_params.get("before"))
        if after is None:
            after = of.target_version if of.target_version is not None else of.active_version
        if before is None:
            before = next((v for v in versions if after is not None and v < after), None)
        compared, problem = "", ""
        if before is None or after is None:
            problem = "there are no two versions to compare yet"
        else:
            try:
                compared = pages.comparison_html(comparison.compare(model, told, before, after))
            except AnswerError as error:
                problem = str(error)
        if reports.problem and not told:
            problem = f"no poller says what is on its disk: {reports.problem}"
        return self._page(
            "compare.html",
            **self._names(request),
            tab="compare",
            versions=versions,
            before=before,
            after=after,
            compared=compared,
            problem=fleet.bounded(problem),
        )

    # -- What they share ------------------------------------------------------------------------

    def _of(self, request: Request) -> tuple[Cluster, str]:
        namespace, name = request.path_params["namespace"], request.path_params["name"]
        if not is_name(namespace) or not is_name(name):
            raise AnswerError("there is no such name")
        return self._cluster.within(namespace), name

    def _names(self, request: Request) -> dict[str, str]:
        return {key: request.path_params[key] for key in ("namespace", "name")}

    def _page(self, template: str, **values: Any) -> Response:
        return self._part(template, word=self._pass.word, server=self._cluster.server, **values)

    def _part(self, template: str, **values: Any) -> Response:
        return HTMLResponse(pages.render(template, base=self._pass.base, **values))

    def _stream(self, events: AsyncIterator[str]) -> Response:
        if self._streams >= _STREAMS:
            return PlainTextResponse("too many pages are open\n", 503)

        async def counted() -> AsyncIterator[str]:
            self._streams += 1
            try:
                async for event in events:
                    yield event
            finally:
                self._streams -= 1

        return StreamingResponse(counted(), media_type="text/event-stream")

    def _failed(self, request: Request, error: Exception) -> Response:
        status = next((number for kind, number in _STATUS if isinstance(error, kind)), 502)
        words = fleet.bounded(str(error), 1000)
        if request.method == "GET" and "text/html" in request.headers.get("accept", ""):
            page = self._page("problem.html", words=words, status=status)
            page.status_code = status
            return page
        return PlainTextResponse(words, status)


def _event(told: dict[str, Any], number: int) -> str:
    return f"id: {number}\ndata: {json.dumps(told)}\n\n"


async def _body(request: Request, limit: int) -> bytes:
    """What a page sends.

    Raises:
        AnswerError: it is longer than anything that is taken.
    """
    whole = bytearray()
    async for chunk in request.stream():
        whole += chunk
        if len(whole) > limit:
            raise AnswerError(f"it is longer than {limit >> 20} MiB")
    return bytes(whole)


async def _json(request: Request, limit: int = 8 << 20) -> dict[str, Any]:
    try:
        found = json.loads(await _body(request, limit))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise AnswerError("that is no question of this page: load it again")
    return found


async def _question(request: Request) -> Question:
    """What is asked of the model: a photo's bytes, or the fields of a form."""
    query = request.query_params
    versions = tuple(v for v in map(_version, query.getlist("version")) if v is not None)
    signature = query.get("signature", "")
    if query.get("photo"):
        return Question(signature, versions, await _body(request, MAX_BYTES * 3 // 4 - 4096), None)
    values = {str(key): str(value) for key, value in (await _json(request)).items()}
    return Question(signature, versions, None, values)


def _version(value: object) -> int | None:
    text = "" if value is None else str(value)
    if not text.isascii() or not text.isdecimal() or len(text) > 19 or int(text) > MAX_VERSION:
        return None
    return int(text)
