"""What the console answers with: pages, parts of pages, what is told as it happens, and errors."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import HTMLResponse, PlainTextResponse, Response, StreamingResponse

from kubectl_inferencemodel.console import fleet, pages
from kubectl_inferencemodel.errors import (
    AnswerError,
    ForbiddenError,
    NotFoundError,
    RefusedError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request

    from kubectl_inferencemodel.console.entry import Pass

SILENCE_SECONDS: Final = 15.0
"""After so long without a change a comment keeps the connection open."""
_STREAMS: Final = 32
"""So many pages are kept up to date at once."""
_STATUS: Final = (
    (NotFoundError, 404),
    (ForbiddenError, 403),
    (AnswerError, 400),
    (RefusedError, 409),
)


class Replies:
    """Those of one console."""

    def __init__(self, shown: Pass, server: str) -> None:
        self._pass = shown
        self._server = server
        self._streams = 0

    @property
    def base(self) -> str:
        """Where the pages are."""
        return self._pass.base

    def page(self, template: str, **values: Any) -> Response:
        """A whole page."""
        return self.part(template, word=self._pass.word, server=self._server, **values)

    def part(self, template: str, **values: Any) -> Response:
        """A part of one."""
        return HTMLResponse(pages.render(template, base=self.base, **values))

    def stream(self, events: AsyncIterator[str]) -> Response:
        """What is told as it happens, until the page is closed."""
        if self._streams >= _STREAMS:
            return PlainTextResponse("too many pages are open\n", 503)

        async def counted() -> AsyncIterator[str]:
            self._streams += 1
            try:
                async for told in events:
                    yield told
            finally:
                self._streams -= 1

        return StreamingResponse(counted(), media_type="text/event-stream")

    def failed(self, request: Request, error: Exception) -> Response:
        """Why something can't be had: as a page where one was asked for."""
        status = next((number for kind, number in _STATUS if isinstance(error, kind)), 502)
        words = fleet.bounded(str(error), 1000)
        if request.method == "GET" and "text/html" in request.headers.get("accept", ""):
            page = self.page("problem.html", words=words, status=status)
            page.status_code = status
            return page
        return PlainTextResponse(words, status)


def event(told: dict[str, Any], number: int) -> str:
    """One thing that is told, as a browser's EventSource reads it."""
    return f"id: {number}\ndata: {json.dumps(told)}\n\n"
