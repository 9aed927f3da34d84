"""A way to one API server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
