"""Which versions leave a cache to make room for another one; pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection


@dataclass(frozen=True, slots=True)
class Held:
    """An entry, as far as evicting goes."""

    key: str
    size: int
    """Bytes."""
    used: float
    """When it was used last, by the clock of the file system; only the order counts."""
    in_use: bool
    """Whether somebody reads it or waits for it."""


def victims(
    entries: Collection[Held], *, needed: int, room: int | None, other: int, free: int
) -> list[Held] | None:
    """The entries to evict, least used first, until ``needed`` bytes fit; no more than that.

    None: they would not fit if all went that may go, so none has to.

    Args:
        entries: all that are held.
        needed: bytes of what is to come; 0 to come back within ``room``.
        room: bytes that may be held altogether; None for all of the disk.
        other: bytes of what is on its way.
        free: bytes free on the disk.
    """
    held = sum(entry.size for entry in entries) + other
    excess = 0 if room is None else held + needed - room
    lacking = max(excess, needed - free, 0)
    chosen: list[Held] = []
    for entry in sorted(entries, key=lambda entry: (entry.used, entry.key)):
        if lacking <= 0:
            break
        if not entry.in_use:
            chosen.append(entry)
            lacking -= entry.size
    return chosen if lacking <= 0 else None
