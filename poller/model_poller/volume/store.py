"""The layout of the model volume, and the only code that changes it.

    BASE/15/                    served: complete, verified, canonical number
    HIDDEN/.staging/…           being fetched, or on its way out; at a start, all but one fetch goes
    HIDDEN/.retained/14/        complete, not served
    HIDDEN/.quarantine/16.json  what failed, why, and which stored objects it was
    HIDDEN/.records/15.json     which stored objects a version on disk came from
    HIDDEN/.retried             the last word to try a version again that was followed

All of it lies on one mount, so a version changes its place by one rename: whenever the poller is
killed, each version is in exactly one place, whole. HIDDEN may be BASE itself: TF Serving reads
only names that are numbers.

A version that lies on a mounted volume is a symbolic link here; what it points to is never touched.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import logging
import math
import os
import re
import secrets
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from model_poller.errors import InsufficientDiskError
from model_poller.process import threads
from model_poller.status import VersionReason  # noqa: TC001 (msgspec reads it)
from model_poller.versions import MAX_VERSION, parse_number
from model_poller.volume.journal import UNREADABLE

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

_UNFINISHED = re.compile(r"[0-9]+-[0-9a-f]+")

_log = logging.getLogger(__name__)

FULL = (errno.ENOSPC, errno.EDQUOT)
"""What a write to a full volume ends with."""
RESERVE_BYTES = 32 << 20
"""Left free beyond what a version needs: the volume is shared with logs and other versions."""
RESERVE_FILES = 16
_COUNT_SECONDS = 0.5
"""The same in inodes, for what is noted of a version."""


class Record(msgspec.Struct, frozen=True, rename="camel"):
    """What is known of a version on disk beyond its files."""

    version: int
    fingerprint: str = ""
    """Empty for a version that somebody else put here."""
    source: str = ""
    """The storage URI that it came from; empty where that isn't known."""
    proven: bool = False
    """Whether the model server ever reported it AVAILABLE on this volume."""
    size: int = 0
    """Bytes that it takes on the volume; 0 of a link, and where that isn't known."""
    linked: bool = False
    """Whether its files are those in the source, which may be others by now than were checked."""


class Quarantined(msgspec.Struct, frozen=True, rename="camel"):
    """A version that is not tried again until its stored objects change."""

    version: int
    fingerprint: str
    reason: VersionReason
    message: str


@dataclass(frozen=True, slots=True)
class Disk:
    """What lies on the volume."""

    published: Mapping[int, Record]
    retained: Mapping[int, Record]
    quarantined: Mapping[int, Quarantined]

    @property
    def complete(self) -> set[int]:
        """Versions that could be served without a download."""
        return {*self.published, *self.retained}

    def divide(self, sources: Collection[str]) -> tuple[Disk, Disk]:
        """What came from these storage URIs, and versions that came from others.

        Without any URI nothing is known to be another one's; a version whose origin isn't known,
        as of one that somebody put here, is everybody's.
        """

        def part(records: Mapping[int, Record], own: bool) -> dict[int, Record]:
            return {
                version: record
                for version, record in records.items()
                if (not sources or record.source in ("", *sources)) is own
            }

        return (
            Disk(part(self.published, True), part(self.retained, True), self.quarantined),
            Disk(part(self.published, False), part(self.retained, False), {}),
        )


class Store:
    """The model volume. One thread may change it; staging is a second one's."""

    def __init__(self, base: Path, hidden: Path, most: int | None = None) -> None:
        """``most``: bytes that may lie below ``hidden``, whatever its disk could hold."""
        self.base = base
        self._most = most
        self._taken = (-math.inf, 0)
        """When that was counted, and how many there were."""
        self._hidden = hidden
        self._staging = hidden / ".staging"
        self._retained = hidden / ".retained"
        self._quarantine = hidden / ".quarantine"
        self._records = hidden / ".records"
        self._retried = hidden / ".retried"
        self.retried = ""
        """What `retry` was told last, by this process or one before."""
        self._unfinished = 0
        self._owed: dict[Path, Record | Quarantined] = {}
        """What could not be written yet. It counts all the same, and is written when it can be."""

    def lock(self) -> None:
        """Keep other pollers away from this volume for as long as this process lives.

        Raises:
            BlockingIOError: another one works on it.
            OSError: the volume can't be written; that it is full is one of `FULL`.
        """
        self._hidden.mkdir(parents=True, exist_ok=True)
        # Never closed: the lock is the open file's.
        self._lock = os.open(self._hidden / ".lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def prepare(self) -> None:
        """Make the folders and clear away what a killed poller left half done.

        On a full volume that has to wait: what is here already can be served, and what goes makes
        room; folders are made by `mend`.

        Raises:
            OSError: the volume can't be written, or isn't one mount.
        """
        left = _entries(self._staging)
        resumable = [path for path in left if _UNFINISHED.fullmatch(path.name)]
        newest = max(resumable, key=lambda path: path.stat().st_mtime, default=None)
        for path in left:
            if path != newest:
                _delete(path)
        self._unfinished = _occupied(newest) if newest else 0
        try:
            self._make_folders()
            self._probe()
        except OSError as error:
            if error.errno not in FULL:
                raise
            _log.warning("%s is full; versions wait for room", self._hidden)
        self.retried = _line(self._retried)
        _unlink_dangling(self.base)
        _unlink_dangling(self._retained)
        complete = self.scan().complete
        for record in _entries(self._records):
            if parse_number(record.stem) not in complete:
                _delete(record)

    def _make_folders(self) -> None:
        for folder in (
            self.base,
            self._staging,
            self._retained,
            self._quarantine,
            self._records,
        ):
            if not folder.is_dir():
                folder.mkdir(parents=True, exist_ok=True)

    def _probe(self) -> None:
        """Two mounts of one volume look alike until something is moved between them."""
        probe = self._staging / ".probe"
        probe.mkdir()
        probe = probe.rename(self.base / ".probe")
        probe.rmdir()

    def scan(self) -> Disk:
        """Look at the volume; any thread may."""
        owed = {e.version: e for e in list(self._owed.values()) if isinstance(e, Quarantined)}
        return Disk(
            published=self._folders(self.base),
            retained=self._folders(self._retained),
            quarantined={
                number: entry
                for path in _entries(self._quarantine)
                if (number := parse_number(path.stem)) is not None
                and (entry := _read(path, Quarantined)) is not None
            }
            | owed,
        )

    def stage(self, version: int, fingerprint: str) -> Path:
        """The folder to build a version in, with what an earlier try for it has left there.

        What is left of other tries goes.
        """
        staged = self._staging / f"{version}-{fingerprint}"
        for path in _entries(self._staging):
            if _UNFINISHED.fullmatch(path.name) and path != staged:
                _delete(path)
        self._unfinished = 0
        self._make_folders()
        staged.mkdir(exist_ok=True)
        return staged

    def leave(self, staged: Path) -> None:
        """Keep a folder of `stage` for another try."""
        self._unfinished = _occupied(staged)

    def discard(self, staged: Path) -> None:
        """Remove a folder of `stage`."""
        shutil.rmtree(staged, ignore_errors=True)

    def adopt(self, model: Path, record: Record) -> None:
        """Make a staged SavedModel durable and move it to the complete ones."""
        # What a link leads to lies elsewhere, and to count it there may take long.
        size = 0 if model.is_symlink() else _occupied(model)
        record = msgspec.structs.replace(record, size=size)
        self._write(self._records / f"{record.version}.json", record)
        _sync_file_system(self._staging)
        place = self._retained / str(record.version)
        if os.path.lexists(place) and not place.is_dir():
            self._throw_away(place)
        model.rename(place)

    def adopt_link(self, folder: Path, record: Record) -> None:
        """Take a SavedModel on a mounted volume for one of the complete ones, by a link."""
        for version in _unlink_dangling(self._retained):
            (self._records / f"{version}.json").unlink(missing_ok=True)
        link = self._staging / f"link.{record.version}"
        link.unlink(missing_ok=True)
        link.symlink_to(folder)
        self.adopt(link, record)

    def publish(self, version: int) -> None:
        """Let the model server see a complete version."""
        place = self.base / str(version)
        if os.path.lexists(place) and not place.is_dir():
            # The model server would take it for a version as well, and it keeps this one away.
            _log.warning("%s is no folder; it makes room for version %d", place, version)
            self._throw_away(place)
        (self._retained / str(version)).rename(place)

    def retire(self, version: int) -> None:
        """Take a version out of the model server's sight, and keep it."""
        source, target = self._published_path(version), self._retained / str(version)
        if os.path.lexists(target):
            # A second folder of this number, such as 0001 beside 1, that somebody else made.
            self._throw_away(target)
        source.rename(target)

    def remove(self, version: int) -> None:
        """Forget a complete version that is not published."""
        self._throw_away(self._retained / str(version))
        self._forget(self._records / f"{version}.json")

    def quarantine(self, entry: Quarantined) -> None:
        """Note that a version failed, and remove what is there of it."""
        self._remember(self._quarantine / f"{entry.version}.json", entry)
        for path in (self._published_path(entry.version), self._retained / str(entry.version)):
            if os.path.lexists(path):
                self._throw_away(path)
        self._forget(self._records / f"{entry.version}.json")

    def release(self, version: int) -> None:
        """Let a quarantined version be tried again."""
        self._forget(self._quarantine / f"{version}.json")

    def retry(self, text: str) -> None:
        """Remember that a word to try a version again was followed."""
        self.retried = text
        try:
            write_atomically(self._retried, text.encode())
        except OSError as error:
            # After a restart it is followed once more.
            _log.warning("%s can't be written: %s", self._retried, error)

    def prove(self, record: Record) -> None:
        """Remember that the model server served a version."""
        proven = msgspec.structs.replace(record, proven=True)
        self._remember(self._records / f"{record.version}.json", proven)

    def space(self) -> tuple[int, int]:
        """Free and total bytes of the volume.

        What an unfinished fetch has left counts as free: the next one goes on from it or clears it.
        """
        usage = shutil.disk_usage(self._hidden)
        free, total = usage.free, usage.total
        if self._most is not None:
            free = min(free, max(0, self._most - self._count()))
            total = min(total, self._most)
        return free + self._unfinished, total

    def _count(self) -> int:
        """Bytes on the volume, counted a moment ago: it is asked for each file of an archive."""
        when, taken = self._taken
        now = time.monotonic()
        if now - when >= _COUNT_SECONDS:
            taken = _occupied(self._hidden)
            self._taken = now, taken
        return taken

    def inodes(self) -> tuple[int, int]:
        """Free and all inodes of the volume; 0 and 0 where its file system doesn't count them."""
        found = os.statvfs(self._hidden)
        return found.f_favail, found.f_files

    def require(self, needed: int, files: int = 0) -> None:
        """Ask for room.

        Raises:
            InsufficientDiskError: fewer than ``needed`` bytes or ``files`` inodes, and a reserve,
                are free.
        """
        left, inodes = self.inodes()
        if inodes and left < files + RESERVE_FILES:
            raise InsufficientDiskError(
                f"{files + RESERVE_FILES} inodes are needed and {left} of {inodes} are free on"
                f" {self._hidden}, whatever room there is in bytes; it goes on by itself when there"
                " are enough: make the volume with more of them, upload versions of fewer files,"
                " or retain fewer versions",
                0,
            )
        free, total = self.space()
        if free < needed + RESERVE_BYTES:
            raise InsufficientDiskError(
                f"{needed + RESERVE_BYTES} bytes are needed and {free} of {total} are free on"
                f" {self._hidden}; it goes on by itself when there is room: enlarge the"
                " volume or retain fewer versions",
                needed,
            )

    def folder(self, version: int) -> Path:
        """Where a complete version lies; any thread may ask, and it may move at once."""
        retained = self._retained / str(version)
        return retained if os.path.lexists(retained) else self._published_path(version)

    def _published_path(self, version: int) -> Path:
        canonical = self.base / str(version)
        if os.path.lexists(canonical):
            return canonical
        for path in _entries(self.base):
            if parse_number(path.name) == version:
                return path
        return canonical

    def _folders(self, parent: Path) -> dict[int, Record]:
        # A link whose end is gone meanwhile may still be what the model server has in memory.
        numbers = {
            parse_number(entry.name)
            for entry in _entries(parent)
            if _is_folder(entry) or (entry.is_symlink() and parent == self.base)
        }
        return {
            number: self._record(number)
            for number in numbers
            if number is not None and number <= MAX_VERSION
        }

    def _record(self, version: int) -> Record:
        path = self._records / f"{version}.json"
        owed = self._owed.get(path)
        if isinstance(owed, Record):
            return owed
        return _read(path, Record) or Record(version)

    def _throw_away(self, path: Path) -> None:
        # A rename that makes nothing new: a full volume has no room for it.
        trash = path.rename(self._staging / f"trash.{path.name}.{secrets.token_hex(4)}")
        # Unlinking gigabytes takes a while, and nobody waits for it: at the next start the
        # rest would go with the staging folder.
        try:
            threads.spawn("trash", lambda: _delete(trash))
        except RuntimeError:
            _delete(trash)

    def _write(self, path: Path, content: Record | Quarantined) -> None:
        write_atomically(path, msgspec.json.encode(content))
        self._owed.pop(path, None)

    def _remember(self, path: Path, content: Record | Quarantined) -> None:
        """Write down what is good to know after a restart; nothing waits for it."""
        try:
            self._write(path, content)
        except OSError as error:
            if path not in self._owed:
                _log.warning("%s can't be written now (%s); it is tried again", path, error)
            self._owed[path] = content

    def mend(self) -> None:
        """Write what could not be written before; make anew what somebody cleared away."""
        with suppress(OSError):
            self._make_folders()
        for path, content in list(self._owed.items()):
            self._remember(path, content)

    def _forget(self, path: Path) -> None:
        self._owed.pop(path, None)
        path.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file so that a reader sees the old or the new content.

    Raises:
        OSError: nothing has changed.
    """
    scratch = path.with_name(f".{path.name}.new")
    try:
        scratch.write_bytes(content)
        scratch.rename(path)
    except OSError:
        with suppress(OSError):
            scratch.unlink(missing_ok=True)
        raise


def _entries(folder: Path) -> list[Path]:
    """What is in a folder; nothing in one that is gone."""
    try:
        return list(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        # A link into another file system that doesn't answer, or not to this user.
        return False


def _line(path: Path) -> str:
    """What a short file says; nothing where it can't be read."""
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return ""


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _unlink_dangling(folder: Path) -> list[str]:
    """Remove links to what is gone, from which nothing could be loaded; returns their names."""
    gone = [entry for entry in _entries(folder) if entry.is_symlink() and _is_dangling(entry)]
    for entry in gone:
        entry.unlink(missing_ok=True)
    return [entry.name for entry in gone]


def _is_dangling(link: Path) -> bool:
    try:
        link.stat()
    except OSError as error:
        # Of a file system that doesn't answer, or not to this user, nothing is known.
        return error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
    return False


def _occupied(folder: Path) -> int:
    """Bytes on the volume below a folder; 0 when it is gone."""
    found = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            # Another thread may remove what is counted.
            with suppress(FileNotFoundError):
                found += (Path(parent) / name).lstat().st_blocks * 512
    return found


_T = TypeVar("_T", Record, Quarantined)


def _read(path: Path, kind: type[_T]) -> _T | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, *UNREADABLE):
        return None


def _sync_file_system(folder: Path) -> None:
    """Bring everything written so far to the disk, in one pass instead of one per file."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(descriptor) != 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error), str(folder))
    finally:
        os.close(descriptor)
