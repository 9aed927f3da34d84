"""The pages of one model and what they ask for: thin, as what they say is decided elsewhere.

What they take is imported when the first of them is asked for, not before the fleet is shown.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, Router

from kubectl_inferencemodel import comparison
from kubectl_inferencemodel.arguments import MAX_VERSION, is_name
from kubectl_inferencemodel.cluster import MAX_BYTES
from kubectl_inferencemodel.console import doing, fleet, manifest, offers, sections
from kubectl_inferencemodel.console.replies import SILENCE_SECONDS, event
from kubectl_inferencemodel.console.trying import Question, Trying
from kubectl_inferencemodel.errors import AnswerError, ClusterError, NotFoundError, PluginError
from kubectl_inferencemodel.picture import Reports

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request
    from starlette.types import ASGIApp

    from kubectl_inferencemodel.cluster import Cluster
    from kubectl_inferencemodel.console.feed import Feed
    from kubectl_inferencemodel.console.replies import Replies

_LOOK_SECONDS: Final = 2.0
"""Pods and Events of a model whose page is open are looked at so often."""
_LOG_LINES: Final = 300
_CONTAINERS: Final = ("poller", "model-server")


class Models:
    """The pages of each model of one cluster."""

    def __init__(self, cluster: Cluster, feed: Feed, replies: Replies) -> None:
        self._cluster = cluster
        self._feed = feed
        self._replies = replies
        self._confirmations = doing.Confirmations()
        self._trying = Trying()
        self._schema: dict[str, Any] | None = None

    def app(self) -> ASGIApp:
        """The ASGI application, below where the models are."""
        at = "/{namespace}/{name}"
        return Router(
            [
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
            ]
        )

    # -- Model ----------------------------------------------------------------------------------

    def _model(self, request: Request) -> Response:
        cluster, name = self._of(request)
        return self._replies.page(
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
        return sections.sections(model, pods, reports, events, trail, base=self._replies.base)

    async def _model_changes(self, request: Request) -> Response:
        cluster, name = self._of(request)
        return self._replies.stream(self._model_events(cluster, name))

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
                    yield event(told, 0)
                    silent = 0
                elif silent >= SILENCE_SECONDS:
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
        return self._replies.part("manifest.html", lines=found, known=bool(self._schema))

    # -- Actions --------------------------------------------------------------------------------

    async def _ask_twice(self, request: Request) -> Response:
        cluster, name = self._of(request)
        given = await _json(request)
        key, version = str(given.get("key", "")), _version(given.get("version"))

        def ask() -> Response:
            model = cluster.model(name)
            offer = offers.find(model, key, version)
            word = self._confirmations.add(model, offer)
            return self._replies.part("asked.html", offer=offer, word=word, model=model)

        return await asyncio.to_thread(ask)

    async def _do(self, request: Request) -> Response:
        cluster, name = self._of(request)
        given = await _json(request)
        asked = self._confirmations.take(str(given.get("word", "")), cluster.namespace, name)
        arrival = await asyncio.to_thread(doing.do, cluster, asked)
        return self._replies.part("done.html", arrival=arrival)

    # -- Try it ---------------------------------------------------------------------------------

    def _try(self, request: Request) -> Response:
        cluster, name = self._of(request)
        found = self._trying.form(cluster, name)
        return self._replies.page("try.html", **self._names(request), tab="try", **found)

    async def _predict(self, request: Request) -> Response:
        cluster, name = self._of(request)
        question = await _question(request)
        found = await asyncio.to_thread(self._trying.ask, cluster, name, question)
        return self._replies.part("answers.html", **found)

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
                compared = sections.comparison_html(comparison.compare(model, told, before, after))
            except AnswerError as error:
                problem = str(error)
        if reports.problem and not told:
            problem = f"no poller says what is on its disk: {reports.problem}"
        return self._replies.page(
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
