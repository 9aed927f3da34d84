"""Where the commands print to: a terminal, a file, a pipe that somebody closes, or nothing."""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from datetime import datetime

    from rich.console import RenderableType

NONE: Final = "-"
"""What isn't known, or isn't there."""
_PIPE_WIDTH: Final = 1000
_CONTROLS: Final = dict.fromkeys((*range(32), *range(127, 160)), "�")
_LINE_ENDS: Final = dict.fromkeys((9, 10, 11, 12, 13), " ")


class ReaderGoneError(Exception):
    """Who was to read the output has gone, such as ``head``."""


def prepare() -> None:
    """Have both streams there, and able to print any text."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            # Closed by whoever started the command.
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def plain(text: str) -> str:
    """A text without what a terminal would obey: messages come from pods and model servers."""
    return text.translate({**_CONTROLS, 9: "\t", 10: "\n"})


def line(text: str) -> str:
    """A text as one line."""
    return " ".join(text.translate({**_CONTROLS, **_LINE_ENDS}).split())


def moment(time: datetime | None) -> str:
    """A point in time, in UTC."""
    return NONE if time is None else f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}"


def show(what: RenderableType) -> None:
    """Print for a person; as wide as it needs to be where no terminal says otherwise.

    Raises:
        ReaderGoneError: nobody reads it any more.
        OSError: it can't be written.
    """
    # What prints for programs, or shows pages, does without.
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_PIPE_WIDTH)
    with console.capture() as captured:
        console.print(what)
    write(captured.get())


def show_json(value: object) -> None:
    """Print for a program.

    Raises:
        ReaderGoneError, OSError: as `show`.
    """
    write(json.dumps(msgspec.to_builtins(value), indent=2, ensure_ascii=False) + "\n")


def write(text: str) -> None:
    """Print to standard output, now.

    Raises:
        ReaderGoneError, OSError: as `show`.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise ReaderGoneError from None


def tell(text: str) -> None:
    """One line to standard error, which may have no reader any more."""
    try:
        sys.stderr.write(line(text) + "\n")
        sys.stderr.flush()
    except OSError:
        silence()


def silence() -> None:
    """Print no more, as the reader has gone: what is left over would fail once more at the end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)
