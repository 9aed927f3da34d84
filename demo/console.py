"""What the demo prints: numbered steps with their times, in plain text that reads well in a log."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

INDENT = "      "


def say(text: str = "") -> None:
    """Print lines below the present step, at once."""
    for line in text.splitlines() or [""]:
        print(f"{INDENT}{line}".rstrip(), flush=True)


def command(*arguments: str) -> None:
    """Show a command as a person would type it."""
    say(f"$ {' '.join(arguments)}")


def table(rows: Sequence[Sequence[str]]) -> None:
    """Print rows in columns; the first row is the header."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        say("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)))


@dataclass
class Steps:
    """Numbers the steps and keeps their times."""

    total: int
    done: list[tuple[str, float]] = field(default_factory=list)

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Announce a step and, when it has ended well, say how long it took."""
        print(f"\n[{len(self.done) + 1}/{self.total}] {title}", flush=True)
        started = time.monotonic()
        yield
        seconds = time.monotonic() - started
        self.done.append((title, seconds))
        say(f"-- {seconds:.1f} s")
