"""Archives that are the same, byte by byte, whenever the same files are packed."""

from __future__ import annotations

import gzip
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from contextlib import ExitStack
from typing import IO, TYPE_CHECKING

from model_poller.archives.unpacking import FREE_RATIO_BYTES, Limits
from model_poller.errors import BrokenVersionError
from model_poller.status import VersionReason

if TYPE_CHECKING:
    from pathlib import Path

FORMATS = ("zip", "tar", "tar.gz", "tar.zst")
_MODE = 0o644
_TIME = (1980, 1, 1, 0, 0, 0)
"""The earliest that a zip archive can tell; as Unix time:"""
_TIME_SECONDS = 315_532_800
_LIMITS = Limits()
_COPY_BYTES = 1 << 20
_WORTH = 0.8
"""Files whose begin does not shrink below this are stored as they are."""


def names(folder: Path) -> list[str]:
    """All files below a folder, sorted."""
    found = []
    for place, _, files in os.walk(folder):
        relative = os.path.relpath(place, folder)
        found += [file if relative == "." else f"{relative}/{file}" for file in files]
    return sorted(found)


def pack(folder: Path, into: Path) -> None:
    """Write the files of a folder into an archive, whose name's ending tells the format.

    Raises:
        BrokenVersionError: it became so small that pollers would take it for an attack.
        OSError
    """
    if into.name.endswith(".zip"):
        _zip(folder, into)
    else:
        _tar(folder, into)
    whole, packed = sum((folder / name).stat().st_size for name in names(folder)), into.stat()
    if whole > max(FREE_RATIO_BYTES, packed.st_size * _LIMITS.ratio):
        raise BrokenVersionError(
            VersionReason.ARCHIVE_TOO_LARGE,
            f"the files can be packed by more than {_LIMITS.ratio} times, which pollers refuse;"
            " publish with --format=tar or --format=folder",
        )


def _zip(folder: Path, into: Path) -> None:
    with zipfile.ZipFile(into, "w") as archive:
        for name in names(folder):
            entry = zipfile.ZipInfo(name, _TIME)
            entry.create_system = 3
            entry.external_attr = (stat.S_IFREG | _MODE) << 16
            entry.file_size = (folder / name).stat().st_size
            with (folder / name).open("rb") as content:
                begin = content.read(_COPY_BYTES)
                content.seek(0)
                shrinks = len(zlib.compress(begin, 1)) < _WORTH * len(begin)
                entry.compress_type = zipfile.ZIP_DEFLATED if shrinks else zipfile.ZIP_STORED
                with archive.open(entry, "w") as written:
                    shutil.copyfileobj(content, written, _COPY_BYTES)


def _tar(folder: Path, into: Path) -> None:
    with ExitStack() as stack:
        stream: IO[bytes] = stack.enter_context(into.open("wb"))
        if into.name.endswith(".gz"):
            stream = stack.enter_context(
                gzip.GzipFile("", "wb", 6, stream, mtime=0)  # type: ignore[arg-type]
            )
        elif into.name.endswith(".zst"):
            import zstandard

            # Several threads pack the same whatever their number.
            packer = zstandard.ZstdCompressor(level=3, threads=-1)
            stream = stack.enter_context(packer.stream_writer(stream))
        archive = stack.enter_context(
            tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT)
        )
        for name in names(folder):
            entry = tarfile.TarInfo(name)
            entry.size = (folder / name).stat().st_size
            entry.mode, entry.mtime = _MODE, _TIME_SECONDS
            with (folder / name).open("rb") as content:
                archive.addfile(entry, content)
