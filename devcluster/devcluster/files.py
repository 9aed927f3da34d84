"""Writes files so that nobody sees half of one, and only where the content changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def write(path: Path, content: str, mode: int = 0o600) -> None:
    """Have a file hold the content.

    A file that holds it already is not touched: some programs restart when theirs is.
    """
    if path.exists() and path.read_text() == content:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.new")
    unfinished.touch(mode=mode)
    unfinished.write_text(content)
    unfinished.replace(path)
