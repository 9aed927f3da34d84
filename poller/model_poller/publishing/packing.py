"""Archives that are the same, byte by byte, whenever the same files are packed; and copies."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from contextlib import ExitStack, contextmanager
from typing import IO, TYPE_CHECKING, TypeAlias

from model_poller.archives.unpacking import FREE_RATIO_BYTES, Limits
from model_poller.errors import BrokenVersionError, IncompleteVersionError
from model_poller.status import VersionReason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    Seal: TypeAlias = Callable[[Mapping[str, str]], Mapping[str, bytes]]
    """From the SHA-256 of each file that was packed, by its name, to what is packed behind them."""
    _Add: TypeAlias = Callable[[str, "_Hashed"], None]

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


def pack(folder: Path, into: Path, seal: Seal = lambda _: {}) -> None:
    """Write the files of a folder into an archive, whose name's ending tells the format.

    A name without such an ending is that of a new folder, which gets copies. What ``seal`` is told
    of each file are the bytes that were written, whatever becomes of the file.

    Raises:
        IncompleteVersionError: a file changed meanwhile.
        BrokenVersionError: it became so small that pollers would take it for an attack.
        OSError
    """
    before = _identities(folder)
    with _opened(into) as add:
        found = {}
        for name, (_, _, size, *_) in before.items():
            try:
                with (folder / name).open("rb") as file:
                    content = _Hashed(name, file, size)
                    add(name, content)
            except FileNotFoundError:
                raise _changed(name) from None
            found[name] = content.digest()
        for name, sealed in seal(found).items():
            add(name, _Hashed(name, io.BytesIO(sealed), len(sealed)))
    after = _identities(folder)
    # One file of the new export beside the old ones would be neither.
    if changed := sorted(name for name in before if before[name] != after.get(name)):
        raise _changed(changed[0])
    if into.is_dir():
        return
    whole, packed = sum(size for _, _, size, *_ in before.values()), into.stat().st_size
    if whole > max(FREE_RATIO_BYTES, packed * _LIMITS.ratio):
        raise BrokenVersionError(
            VersionReason.ARCHIVE_TOO_LARGE,
            f"the files can be packed by more than {_LIMITS.ratio} times, which pollers refuse;"
            " publish with --format=tar or --format=folder",
        )


class _Hashed:
    """So many bytes of a file, whose digest grows as they are read."""

    def __init__(self, name: str, file: IO[bytes], size: int) -> None:
        self.size = size
        self._name = name
        self._file = file
        self._left = size
        self._sha256 = hashlib.sha256()

    def begin(self) -> bytes:
        """What it begins with; asked for before anything is read."""
        piece = self._file.read(_COPY_BYTES)
        self._file.seek(0)
        return piece

    def read(self, size: int = _COPY_BYTES, /) -> bytes:
        """The next bytes, at most ``size``; empty at the end.

        Raises:
            IncompleteVersionError: the file is shorter than it was.
        """
        piece = self._file.read(min(size, self._left))
        if not piece and self._left and size:
            raise _changed(self._name)
        self._left -= len(piece)
        self._sha256.update(piece)
        return piece

    def digest(self) -> str:
        """The SHA-256 of what was read, in hexadecimal."""
        return self._sha256.hexdigest()


def _changed(name: str) -> IncompleteVersionError:
    return IncompleteVersionError(
        VersionReason.UNSTABLE_LISTING,
        f"{name[:200]!a} of the export changed while it was packed; publish it when nobody writes"
        " to it any more",
    )


def _identities(folder: Path) -> dict[str, tuple[int, int, int, int, int]]:
    """What tells each file from itself at another time; the third is its size in bytes."""
    found = {}
    for name in names(folder):
        try:
            told = (folder / name).stat()
        except FileNotFoundError:
            raise _changed(name) from None
        found[name] = told.st_dev, told.st_ino, told.st_size, told.st_mtime_ns, told.st_ctime_ns
    return found


@contextmanager
def _opened(into: Path) -> Iterator[_Add]:
    with ExitStack() as stack:
        if into.name.endswith(".zip"):
            yield _zip(stack.enter_context(zipfile.ZipFile(into, "w")))
        elif into.name.endswith(FORMATS):
            yield _tar(stack.enter_context(_tar_file(into)))
        else:
            yield _folder(into)


def _zip(archive: zipfile.ZipFile) -> _Add:
    def add(name: str, content: _Hashed) -> None:
        entry = zipfile.ZipInfo(name, _TIME)
        entry.create_system = 3
        entry.external_attr = (stat.S_IFREG | _MODE) << 16
        entry.file_size = content.size
        begin = content.begin()
        shrinks = len(zlib.compress(begin, 1)) < _WORTH * len(begin)
        entry.compress_type = zipfile.ZIP_DEFLATED if shrinks else zipfile.ZIP_STORED
        with archive.open(entry, "w") as written:
            shutil.copyfileobj(content, written, _COPY_BYTES)

    return add


@contextmanager
def _tar_file(into: Path) -> Iterator[tarfile.TarFile]:
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
        yield stack.enter_context(
            tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT)
        )


def _tar(archive: tarfile.TarFile) -> _Add:
    def add(name: str, content: _Hashed) -> None:
        entry = tarfile.TarInfo(name)
        entry.size = content.size
        entry.mode, entry.mtime = _MODE, _TIME_SECONDS
        archive.addfile(entry, content)

    return add


def _folder(into: Path) -> _Add:
    into.mkdir()

    def add(name: str, content: _Hashed) -> None:
        (into / name).parent.mkdir(parents=True, exist_ok=True)
        with (into / name).open("xb") as written:
            shutil.copyfileobj(content, written, _COPY_BYTES)

    return add
