"""The shared folder: what lies where, and the few steps by which anything in it changes.

Every function may raise an OSError, and any may hang: call them where that can be borne.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Annotated, Final

import msgspec

from model_poller.cache.beats import share
from model_poller.cache.key import KEY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType
    from typing import Self

_MAX_ENTRY_BYTES: Final = 32 << 20
GONE: Final = (errno.ENOENT, errno.ESTALE, errno.ENOTDIR)
"""What a name ends with that another machine has removed."""
MODE: Final = 0o2775
"""Of folders: pods of other users with the same group may write there as well."""


@contextmanager
def gone() -> Iterator[None]:
    """Do what is of no account where another machine has removed what it is about."""
    try:
        yield
    except OSError as error:
        if error.errno not in GONE:
            raise


class DamagedError(Exception):
    """An entry isn't what it says; ``id`` tells which."""

    def __init__(self, message: str, id: str = "") -> None:  # noqa: A002
        super().__init__(message)
        self.id = id


class File(msgspec.Struct, frozen=True, array_like=True):
    """One file of an entry; it lies there under its number, so no name leads anywhere."""

    path: str
    size: Annotated[int, msgspec.Meta(ge=0)]
    crc32c: int


class Entry(msgspec.Struct, frozen=True, rename="camel"):
    """``entry.json``, which is written last."""

    id: str
    version: int
    source: str
    fingerprint: str
    pod: str
    """Who fetched it."""
    files: tuple[File, ...]

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(file.size for file in self.files)


class OpenEntry:
    """An entry by its open folder: it stays readable wherever it is moved meanwhile."""

    def __init__(self, folder: int, entry: Entry) -> None:
        self.entry = entry
        self._folder = folder

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Read no more of it."""
        os.close(self._folder)

    def check(self) -> None:
        """See whether its files are there, as large as it says.

        Raises:
            DamagedError
        """
        for number in range(len(self.entry.files)):
            os.close(self.open(number))

    def open(self, number: int) -> int:
        """One of its files.

        Raises:
            DamagedError: it isn't there, or has another size.
        """
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        wanted = self.entry.files[number]
        try:
            file = os.open(str(number), flags, dir_fd=self._folder)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ELOOP):
                raise
            raise DamagedError(f"{wanted.path} is missing", self.entry.id) from None
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode) or found.st_size != wanted.size:
            os.close(file)
            raise DamagedError(
                f"{wanted.path} has {found.st_size} of {wanted.size} bytes", self.entry.id
            )
        return file


class Folder:
    """The layout below one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        top = root / "v1"
        self.entries = top / "entries"
        self.incoming = top / "incoming"
        self.leases = top / "leases"
        self.users = top / "users"
        self.damaged = top / "damaged"
        self.trash = top / "trash"

    def prepare(self) -> None:
        """Make what isn't there."""
        # Not with its parents: what is mounted here may be gone, and this its empty mount point.
        for folder in (
            self.entries.parent,
            self.entries,
            self.incoming,
            self.leases,
            self.users,
            self.damaged,
            self.trash,
        ):
            make(folder)

    def probe(self) -> None:
        """Write something."""
        probe = self.users / f".probe-{secrets.token_hex(8)}"
        try:
            _write(probe, b"\0" * 512)
        finally:
            with suppress(OSError):
                probe.unlink()

    def refresh(self, folder: Path) -> None:
        """Let this machine see anew what is in a folder.

        A network file system's client remembers for up to a minute what is there and what isn't,
        but not of a folder that it changed itself.
        """
        probe = folder / f".look-{secrets.token_hex(8)}"
        # Where nothing can be written, what is seen may be old, which costs a fetch.
        with suppress(OSError):
            os.close(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o664))
            probe.unlink()

    def open(self, key: str) -> OpenEntry | None:
        """An entry; None where there is none.

        Raises:
            DamagedError: it can't be read as one.
        """
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            folder = os.open(self.entries / key, flags)
        except OSError as error:
            if error.errno not in GONE:
                raise
            return None
        try:
            return OpenEntry(folder, _read_entry(folder))
        except BaseException:
            os.close(folder)
            raise

    def set_aside(self, key: str, entry_id: str) -> bool:
        """Take a damaged entry out of the way, if it still is that one; whether it was."""
        try:
            opened = self.open(key)
        except DamagedError as error:
            opened, found = None, error.id
        else:
            if opened is None:
                return False
            with opened:
                found = opened.entry.id
        if found != entry_id:
            return False
        return self._move(self.entries / key, self._aside(key))

    def _aside(self, key: str) -> Path:
        return self.damaged / f"{key}.{secrets.token_hex(4)}"

    def evict(self, key: str) -> Path | None:
        """Take an entry out of sight; where it waits to be deleted, None if another one did it."""
        trash = self.trash / f"{key}.{secrets.token_hex(4)}"
        return trash if self._move(self.entries / key, trash) else None

    def used(self, key: str) -> None:
        """Note that an entry was useful."""
        # By the server's clock where a server holds the file.
        with suppress(OSError):
            os.utime(self.entries / key / "used")

    def finish(self, incoming: Path, entry: Entry, beat: str) -> None:
        """Write an entry's description; its files are on the disk."""
        _write(incoming / "used", b"")
        _write(incoming / "entry.json", msgspec.json.encode(entry))
        (incoming / beat).unlink()

    def publish(self, incoming: Path, key: str) -> bool:
        """Let everybody see a whole entry; whether it is this one that they see."""
        sync(incoming)
        target = self.entries / key
        try:
            try:
                incoming.rename(target)
            except NotADirectoryError:
                # A file or a link, which nobody reads as an entry.
                self._move(target, self._aside(key))
                incoming.rename(target)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
            # Somebody else brought the same.
            return False
        sync(self.entries)
        return True

    def keys(self) -> list[str]:
        """The keys of all entries."""
        return [path.name for path in self.entries.iterdir() if KEY.fullmatch(path.name)]

    def free(self) -> int:
        """Free bytes."""
        found = os.statvfs(self.root)
        return found.f_bavail * found.f_frsize

    def capacity(self) -> int:
        """Bytes of the whole disk."""
        found = os.statvfs(self.root)
        return found.f_blocks * found.f_frsize

    @staticmethod
    def _move(what: Path, to: Path) -> bool:
        try:
            what.rename(to)
        except OSError as error:
            if error.errno not in GONE:
                raise
            return False
        return True


def _read_entry(folder: int) -> Entry:
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        file = os.open("entry.json", flags, dir_fd=folder)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ELOOP):
            raise
        raise DamagedError("its entry.json is missing") from None
    with os.fdopen(file, "rb") as opened:
        content = opened.read(_MAX_ENTRY_BYTES + 1)
    try:
        return msgspec.json.decode(content, type=Entry)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise DamagedError("its entry.json can't be read") from None


def _write(path: Path, content: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, 0o664), "wb") as file:
        share(file.fileno())
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def make(folder: Path) -> None:
    """Make a folder that pods of other users may write to."""
    try:
        folder.mkdir()
    except FileExistsError:
        return
    with suppress(OSError):
        folder.chmod(MODE)


def sync(folder: Path) -> None:
    """Bring a folder's names to the disk."""
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def delete(folder: Path) -> None:
    """Remove a folder with all that is in it, as far as that goes; or what is none."""
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):
        folder.unlink()
