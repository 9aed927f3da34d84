"""Archives that are the same whenever and wherever they are written."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_LEVEL = 6


def tar(files: Mapping[str, bytes], *, epoch: int = 0, programs: tuple[str, ...] = ()) -> bytes:
    """A tar archive.

    Args:
        files: contents by name; they get into the archive in the order of their names.
        epoch: when they were changed, in seconds since 1970.
        programs: the names of those that can be executed.
    """
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in sorted(files):
            entry = tarfile.TarInfo(name)
            entry.size = len(files[name])
            entry.mtime = epoch
            entry.mode = 0o755 if name in programs else 0o644
            archive.addfile(entry, io.BytesIO(files[name]))
    return written.getvalue()


def compressed(content: bytes) -> bytes:
    """The content by gzip, without name and time."""
    return gzip.compress(content, compresslevel=_LEVEL, mtime=0)


def digest(content: bytes) -> str:
    """Its SHA-256, in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def file_digest(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
