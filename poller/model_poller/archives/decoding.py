"""Objects that a store keeps as gzip, and says so: what is meant is what comes out of it.

``gsutil cp -z`` and its like upload them so, with ``Content-Encoding: gzip``. The store's checksum
is that of the stored bytes, so these are fetched, and unpacked here.
"""

from __future__ import annotations

import shutil
import zlib
from typing import TYPE_CHECKING, Final

from model_poller.archives.compression import gunzip
from model_poller.archives.unpacking import DamagedError, Limits, Room
from model_poller.errors import BrokenVersionError, StoppedError
from model_poller.status import VersionReason

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_MAGIC: Final = b"\x1f\x8b"
_ROOM_BYTES: Final = 64 << 20
"""That are asked for ahead at the most: gzip doesn't tell how much comes out. As much again as is
there already, so that what is small has room on a small volume."""


def decode(
    packed: Path,
    into: Path,
    *,
    origin: str,
    room: Room,
    stopped: Callable[[], bool],
    limits: Limits,
) -> None:
    """Write what a stored object means, which is itself where it is no gzip after all.

    Raises:
        BrokenVersionError: damaged, or too large.
        InsufficientDiskError, StoppedError, OSError
    """
    into.parent.mkdir(parents=True, exist_ok=True)
    if not is_gzip(packed):
        shutil.copyfile(packed, into)
        return
    stored = packed.stat().st_size
    written = granted = 0
    try:
        with packed.open("rb") as bundle, into.open("wb") as plain:
            for piece in gunzip(bundle):
                written += len(piece)
                if stopped():
                    raise StoppedError("unpacking was given up")
                if excess := limits.excess(written, stored):
                    raise BrokenVersionError(
                        VersionReason.ARCHIVE_TOO_LARGE,
                        f"{origin} is stored with Content-Encoding gzip and {excess}; upload it as"
                        " it is",
                    )
                if written > granted:
                    ahead = min(_ROOM_BYTES, max(written, stored))
                    room(ahead)
                    granted = written + ahead
                plain.write(piece)
    except (DamagedError, zlib.error) as error:
        raise BrokenVersionError(
            VersionReason.BAD_ARCHIVE,
            f"{origin} is stored with Content-Encoding gzip and is damaged ({error}); upload it"
            " anew",
        ) from error


def is_gzip(file: Path) -> bool:
    """Whether a file begins as gzip does."""
    with file.open("rb") as content:
        return content.read(len(_MAGIC)) == _MAGIC
