"""What lets a browser into one console: the link that is printed, and what it is exchanged for.

Nothing else is imported here, so that the link is there before the console's packages are.
"""

from __future__ import annotations

import hmac
import secrets
from typing import Final

HOST: Final = "127.0.0.1"
COOKIE: Final = "inferencemodel-console"


class Pass:
    """What has to be shown at the door of one console."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.token = secrets.token_urlsafe(24)
        """In the link that the command prints."""
        self.word = secrets.token_urlsafe(24)
        """In the pages; goes with every request that changes something."""
        self.base = f"/{secrets.token_hex(8)}"
        """Where the pages are. A cookie goes to every port of a host, so it is bound to a path that
        no other program on this machine has."""
        self._cookie = secrets.token_urlsafe(24)

    @property
    def host(self) -> str:
        """The only ``Host`` that is answered."""
        return f"{HOST}:{self.port}"

    @property
    def link(self) -> str:
        """What the user opens."""
        return f"http://{self.host}{self.base}/?token={self.token}"

    @property
    def cookie(self) -> str:
        """What the browser keeps, as ``Set-Cookie`` says it."""
        return f"{COOKIE}={self._cookie}; Path={self.base}; HttpOnly; SameSite=Strict"

    def knows(self, cookies: str) -> bool:
        """Whether a ``Cookie`` header has what the link was exchanged for."""
        found = dict(part.strip().partition("=")[::2] for part in cookies.split(";"))
        return _same(found.get(COOKIE, ""), self._cookie)

    def opens(self, token: str) -> bool:
        """Whether it is the link's token."""
        return _same(token, self.token)

    def may_change(self, word: str) -> bool:
        """Whether it is the word of the pages."""
        return _same(word, self.word)


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode(), wanted.encode())
