"""What can be set of a cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """Which cache, and how it is used."""

    folder: Path
    max_bytes: int | None = None
    """That versions may take in it; None for all of its disk."""
    pod: str = ""
    """Who this is, for others."""
    server: str = ""
    """Which server the source asks, see `key.server`."""
