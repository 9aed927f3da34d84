"""A way to one API server."""

from __future__ import annotations

from dataclasses import dataclass

import urllib3


@dataclass(frozen=True, slots=True)
class Access:
    """A way to one API server."""

    server: str
    """Without a slash at the end."""
    namespace: str
    """The one that is meant when none is named."""
    authorization: str | None
    pool: urllib3.PoolManager
    impersonation: tuple[tuple[str, str], ...] = ()
    """Headers by which somebody else is meant than who shows the credentials."""

    def headers(self) -> urllib3.HTTPHeaderDict:
        """Those of every request: who asks, and as whom."""
        made = urllib3.HTTPHeaderDict(self.impersonation)
        if self.authorization is not None:
            made["Authorization"] = self.authorization
        return made
