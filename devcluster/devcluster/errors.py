"""Everything that can go wrong, as one tree.

DevclusterError
├── PreconditionError   the machine lacks something; the message says what and how to get it
├── UsageError          an argument is wrong, or asked of a cluster that is not there
├── BuildError          a program or an image could not be built
└── StartError          a program ended, or did not become ready before its deadline
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class DevclusterError(Exception):
    """Base of this package's errors; the message is meant for the person at the terminal."""


class PreconditionError(DevclusterError):
    """The machine lacks something that only a person can give it."""


class UsageError(DevclusterError):
    """The request makes no sense as it was put."""


class BuildError(DevclusterError):
    """A program or an image could not be built."""


class StartError(DevclusterError):
    """A program ended early or did not become ready before its deadline."""


def with_log(problem: str, log: Path, lines: int = 12) -> str:
    """A message with the last lines of a log and where the rest is."""
    try:
        tail = log.read_text(errors="replace").splitlines()[-lines:]
    except OSError:
        tail = []
    shown = "".join(f"\n    {line}" for line in tail)
    return f"{problem}{shown}\n  whole log: {log}"
