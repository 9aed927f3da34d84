"""What a program writes to stdout and stderr, which may take no more: a full disk, a closed pipe.

Python tries once more at its end what it could not write, and where that fails ends with a code of
its own (120).
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import TextIO


def write(stream: TextIO | None, line: str) -> None:
    """Write a line; nothing where the stream was closed before the program began.

    Raises:
        OSError: it can't be written, and nothing else will be.
    """
    if stream is None:
        return
    try:
        stream.write(f"{line}\n")
        stream.flush()
    except OSError:
        _drop(stream)
        raise


def settle(stream: TextIO | None) -> None:
    """Leave nothing for Python's end that can't be written."""
    if stream is None:
        return
    try:
        stream.flush()
    except OSError:
        _drop(stream)


def _drop(stream: TextIO) -> None:
    # A stream without a descriptor is no file of the system's.
    with suppress(OSError), open(os.devnull, "wb") as nowhere:  # noqa: PTH123
        os.dup2(nowhere.fileno(), stream.fileno())
