"""Unpacking archives from outside: everything is judged before a byte is written."""

from __future__ import annotations

import gzip
import lzma
import stat
import tarfile
import zipfile
import zlib
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Literal, Protocol

from model_poller.errors import BrokenVersionError, StoppedError
from model_poller.paths import Names
from model_poller.status import VersionReason
from model_poller.versions import parse_number

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Self

_COPY_BYTES = 1 << 20
_ENCRYPTED = 0x1
_FREE_RATIO_BYTES = 64 << 20
"""Below this expanded size the ratio is not looked at: small text compresses very well."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much an archive may hold."""

    entries: int = 100_000
    expanded_bytes: int = 256 << 30
    ratio: int = 200
    """Expanded bytes per stored byte; deflate can't do better than about 1000."""


class Room(Protocol):
    """Asks for free disk before bytes are written."""

    def __call__(self, needed: int, /) -> None:
        """Raise InsufficientDiskError when ``needed`` bytes aren't free."""


@dataclass(frozen=True, slots=True)
class _Job:
    archive: Path
    into: Path
    origin: str
    room: Room
    stopped: Callable[[], bool]
    limits: Limits


def unpack(
    archive: Path,
    into: Path,
    *,
    origin: str,
    room: Room,
    stopped: Callable[[], bool],
    limits: Limits,
) -> None:
    """Unpack a zip or tar archive into a new folder.

    ``origin`` names the archive in messages; its ending tells the format.

    Raises:
        BrokenVersionError: damaged, unsafe or too large; ``into`` may hold a part of it.
        InsufficientDiskError: zip: before the first byte is written; tar: as it goes.
        StoppedError
    """
    into.mkdir()
    job = _Job(archive, into, origin, room, stopped, limits)
    try:
        if origin.endswith(".zip"):
            _unzip(job)
        else:
            _untar(job)
    except (
        EOFError,
        NotImplementedError,
        ValueError,
        gzip.BadGzipFile,
        lzma.LZMAError,
        tarfile.TarError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise BrokenVersionError(
            VersionReason.BAD_ARCHIVE,
            f"{origin} is damaged or is no such archive ({error}); upload it anew",
        ) from error


def find_model(tree: Path, version: int, origin: str) -> Path:
    """The SavedModel's folder in an unpacked archive: the top itself, or the folder of its number.

    Raises:
        BrokenVersionError: neither.
    """
    entries = sorted(tree.iterdir())
    if len(entries) == 1 and entries[0].is_dir():
        number = parse_number(entries[0].name)
        if number == version:
            return entries[0]
        if number is not None:
            raise BrokenVersionError(
                VersionReason.BAD_ARCHIVE,
                f"{origin} holds the folder {entries[0].name}, which is version {number}, not"
                f" {version}; rename one of them",
            )
    if any(entry.name.startswith("saved_model.pb") for entry in entries):
        return tree
    held = ", ".join(entry.name[:50] for entry in entries[:5]) or "nothing"
    raise BrokenVersionError(
        VersionReason.MISSING_SAVED_MODEL,
        f"{origin} holds {held}; it should hold the folder {version} with saved_model.pb in it, or"
        " saved_model.pb and its folders themselves",
    )


def _too_large(origin: str, what: str) -> BrokenVersionError:
    return BrokenVersionError(
        VersionReason.ARCHIVE_TOO_LARGE,
        f"{origin} {what}; nothing of it was taken. If it is a real model, upload it as a folder.",
    )


def _check_size(job: _Job, expanded: int, stored: int) -> None:
    if expanded > job.limits.expanded_bytes:
        raise _too_large(job.origin, f"expands to more than {job.limits.expanded_bytes} bytes")
    if expanded > _FREE_RATIO_BYTES and expanded > job.limits.ratio * stored:
        raise _too_large(job.origin, f"expands to more than {job.limits.ratio} times its size")


def _unsafe(origin: str, name: str, what: str) -> BrokenVersionError:
    return BrokenVersionError(
        VersionReason.UNSAFE_ARCHIVE,
        f"{origin}: {name[:200]!r} is {what}; nothing of it was taken. Archives may hold plain"
        " files and folders only.",
    )


def _is_noise(name: str) -> bool:
    """What macOS adds to every archive it makes."""
    return name.startswith("__MACOSX/") or name.rpartition("/")[2] in (".DS_Store", "__MACOSX")


def _copy(source: IO[bytes], target: Path, size: int, stopped: Callable[[], bool]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("xb", buffering=0) as file:
        left = size
        while left:
            if stopped():
                raise StoppedError("unpacking was given up")
            chunk = source.read(min(_COPY_BYTES, left))
            if not chunk:
                raise EOFError(f"{target.name} is cut: {left} bytes are missing")
            left -= len(chunk)
            file.write(chunk)
        if source.read(1):
            raise EOFError(f"{target.name} is longer than it says")


def _unzip(job: _Job) -> None:
    with zipfile.ZipFile(job.archive) as bundle:
        infos = bundle.infolist()
        if len(infos) > job.limits.entries:
            raise _too_large(job.origin, f"has more than {job.limits.entries} entries")
        names = Names(job.origin)
        files: dict[str, zipfile.ZipInfo] = {}
        for info in infos:
            # zipfile cuts a name at a NUL byte, so the name as it is stored is judged.
            name = info.orig_filename.removeprefix("./")
            if _is_noise(name):
                continue
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _unsafe(job.origin, name, "a link or a device")
            if info.flag_bits & _ENCRYPTED:
                raise _unsafe(job.origin, name, "encrypted")
            if name.endswith("/"):
                names.add_folder(name.rstrip("/"))
            else:
                names.add_file(name)
                files[name] = info
        stored = job.archive.stat().st_size
        if any(not 0 <= info.header_offset < stored for info in infos):
            raise zipfile.BadZipFile("an entry lies outside of it")
        if sum(info.compress_size for info in infos) > stored:
            raise _unsafe(job.origin, infos[0].filename, "stored in the same bytes as another")
        expanded = sum(info.file_size for info in files.values())
        _check_size(job, expanded, stored)
        job.room(expanded)
        for name, info in files.items():
            with bundle.open(info) as source:
                _copy(source, job.into / name, info.file_size, job.stopped)


class _StrictHeader(tarfile.TarInfo):
    """tarfile takes a damaged header or a missing end mark for the end; here both are errors."""

    @classmethod
    def fromtarfile(cls, bundle: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(bundle)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"{error} at byte {bundle.offset}") from error


def _untar(job: _Job) -> None:
    stored = job.archive.stat().st_size
    mode: Literal["r:", "r:gz"] = "r:" if job.origin.endswith(".tar") else "r:gz"
    with tarfile.open(job.archive, mode, tarinfo=_StrictHeader) as bundle:
        names = Names(job.origin)
        expanded = 0
        for entries, member in enumerate(bundle, 1):
            if entries > job.limits.entries:
                raise _too_large(job.origin, f"has more than {job.limits.entries} entries")
            name = member.name.removeprefix("./")
            if _is_noise(name) or name == ".":
                continue
            if member.isdir():
                names.add_folder(name)
                continue
            source = bundle.extractfile(member) if member.isreg() else None
            if source is None or member.issparse():
                raise _unsafe(job.origin, name, "a link, a device or a sparse file")
            names.add_file(name)
            expanded += member.size
            _check_size(job, expanded, stored)
            job.room(member.size)
            with source:
                _copy(source, job.into / name, member.size, job.stopped)
