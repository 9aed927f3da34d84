"""Who may talk to the console: the browser that has followed the link, and no page of others.

It listens on 127.0.0.1, which every program and every web page on this machine can reach. So each
request has to name this very host and port (a page that has its own name lead here doesn't), to
come from a page of the console where the browser says from where, and to carry the cookie that the
link's token was exchanged for. What changes anything also carries a word that only the pages know.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs

from starlette.responses import PlainTextResponse, RedirectResponse

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from kubectl_inferencemodel.console.entry import Pass

WORD_HEADER: Final = "x-console-word"
_CONTENT_SECURITY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' blob: data:; media-src 'self' blob:; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'"
)
_HEADERS: Final = (
    (b"content-security-policy", _CONTENT_SECURITY.encode()),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(self), microphone=(), geolocation=()"),
    (b"cache-control", b"no-store"),
)
_READING: Final = frozenset({"GET", "HEAD"})
_OWN: Final = frozenset({"", "same-origin", "none"})
"""What a browser says of where a request comes from, when it is a page of ours or the user."""


class Guard:
    """Turns away what doesn't belong here; ASGI."""

    def __init__(self, app: ASGIApp, shown: Pass) -> None:
        self._app = app
        self._pass = shown

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                named = {name for name, _ in _HEADERS}
                kept = [pair for pair in message.get("headers", ()) if pair[0] not in named]
                message = {**message, "headers": [*kept, *_HEADERS]}
            await send(message)

        answer = self._refusal(scope)
        await (answer or self._app)(scope, receive, guarded)

    def _refusal(self, scope: Scope) -> ASGIApp | None:
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        if headers.get("host") != self._pass.host:
            return _no(421, "this console is only asked by the address that it has printed")
        origin = headers.get("origin")
        if origin is not None and origin != f"http://{self._pass.host}":
            return _no(403, "requests of other pages are refused")
        if (token := _token(scope)) is not None:
            # The user follows the link from wherever it is shown.
            if scope["method"] != "GET" or not self._pass.opens(token):
                return _no(
                    403, "the token is not that of this console: use the link it has printed"
                )
            to = RedirectResponse(f"{self._pass.base}/", status_code=303)
            to.headers["set-cookie"] = self._pass.cookie
            return to
        if headers.get("sec-fetch-site", "") not in _OWN:
            return _no(403, "requests of other pages are refused")
        if not self._pass.knows(headers.get("cookie", "")):
            return _no(403, "open the link that kubectl inferencemodel ui has printed")
        if scope["method"] in _READING:
            return None
        if scope["method"] != "POST" or origin is None:
            return _no(403, "only pages of this console may change anything")
        if not self._pass.may_change(headers.get(WORD_HEADER, "")):
            return _no(403, "the page is of another run of the console: load it again")
        return None


def _token(scope: Scope) -> str | None:
    asked = parse_qs(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
    return asked["token"][0] if "token" in asked else None


def _no(status: int, words: str) -> PlainTextResponse:
    return PlainTextResponse(f"{words}\n", status)
