"""Unpacking archives from outside, while they arrive."""

from __future__ import annotations

import zlib
from typing import IO, TYPE_CHECKING

from model_poller.archives.compression import gunzip, plain, unzstd
from model_poller.archives.unpacking import DamagedError, Limits, Room, Tree
from model_poller.archives.untar import untar
from model_poller.archives.unzip import unzip
from model_poller.errors import BrokenVersionError
from model_poller.status import VersionReason
from model_poller.versions import parse_number

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["Limits", "Room", "find_model", "unpack"]


def unpack(
    bundle: IO[bytes],
    size: int,
    into: Path,
    *,
    origin: str,
    room: Room,
    stopped: Callable[[], bool],
    limits: Limits,
) -> None:
    """Unpack an archive of ``size`` bytes into a new folder.

    ``origin`` names the archive in messages; its ending tells the format. A read of ``bundle`` may
    wait for bytes that are still on their way: a zip archive's last 75 KiB are read first, then its
    directory, then the entries in the order of their offsets; any other from its first byte to its
    last. Each file's own checksum is compared where the format has one.

    Raises:
        BrokenVersionError: damaged, unsafe or too large; ``into`` may hold a part of it.
        InsufficientDiskError: before the first byte is written where the format tells how many
            come; else before the file that does not fit.
        StoppedError
        Whatever reading ``bundle`` raises.
    """
    tree = Tree(into, size, origin=origin, room=room, stopped=stopped, limits=limits)

    def announce(expanded: int) -> None:
        tree.check_size(expanded)
        room(expanded)

    try:
        if origin.endswith(".zip"):
            unzip(bundle, size, tree)
        elif origin.endswith((".zst", ".tzst")):
            untar(unzstd(bundle, announce), tree)
        elif origin.endswith((".gz", ".tgz")):
            untar(gunzip(bundle), tree)
        else:
            announce(size)
            untar(plain(bundle), tree)
    except (DamagedError, zlib.error) as error:
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
