"""A span of time for people: as the spec writes one."""

from __future__ import annotations

from typing import Final

_UNITS: Final = (("h", 3600), ("m", 60), ("s", 1))


def text(seconds: float) -> str:
    """``30m``, ``1h30m`` or ``1.5s``; from a minute on in whole seconds."""
    seconds = max(seconds, 0.0)
    if seconds < 59.95:
        return f"{seconds:.1f}".removesuffix(".0") + "s"
    left, parts = round(seconds), ""
    for unit, size in _UNITS:
        count, left = divmod(left, size)
        parts += f"{count}{unit}" if count else ""
    return parts
