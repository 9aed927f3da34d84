"""One request to an ASGI application, without a server."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.types import ASGIApp


class Answer(msgspec.Struct, frozen=True):
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


def ask(
    app: ASGIApp,
    path: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
) -> Answer:
    """Ask, and wait for the whole answer."""
    return asyncio.run(_ask(app, path, method, headers or {}, body))


async def _ask(
    app: ASGIApp, path: str, method: str, headers: Mapping[str, str], body: bytes
) -> Answer:
    parts = urlsplit(path)
    sent: list[Any] = []

    asked = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> dict[str, Any]:
        if not asked:
            # Who has asked stays until it is answered.
            await asyncio.Event().wait()
        return asked.pop()

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": parts.path,
        "raw_path": parts.path.encode(),
        "query_string": parts.query.encode(),
        "root_path": "",
        "headers": [(k.lower().encode(), v.encode()) for k, v in headers.items()],
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 8000),
    }
    await app(scope, receive, send)
    begin = sent[0]
    told = {k.decode(): v.decode() for k, v in begin["headers"]}
    return Answer(begin["status"], told, b"".join(m.get("body", b"") for m in sent[1:]))
