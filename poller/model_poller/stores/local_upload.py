"""Writing to ``file://``, for who publishes versions."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import secrets
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from model_poller.errors import AccessDeniedError, UnreachableError, VersionExistsError
from model_poller.process import leftovers
from model_poller.stores.local import LocalSource

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from model_poller.stores import Entry

_READ_BYTES = 1 << 20
_UNFINISHED = re.compile(r"\.[0-9]+(\.[a-z.]+)?\.[0-9a-f]{8}")
"""The names of what is being written."""
_WITHOUT_LINKS = frozenset({errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EMLINK})
"""What asking for a second name of a file ends with where files have one: on mounted buckets, and
on other systems' file systems (link(2))."""
_WITHOUT_FLAGS = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP})
"""What a rename that may not replace ends with where it is asked of a file system, or of a system,
that has none."""
_NO_REPLACE = 1
_AT_CWD = -100
"""By linux/fs.h and fcntl.h."""


class LocalUploads(LocalSource):
    """A folder that can be written to; it is made with the first version, its parent is not."""

    def survey(self) -> Iterator[Entry]:
        """See `Source.survey`."""
        if self.mount.exists() or not self.mount.parent.is_dir():
            yield from super().survey()

    def put_new(
        self, name: str, content: IO[bytes], size: int, *, progress: Callable[[int], None]
    ) -> None:
        """Write a file, and never over another one; half of it is never seen under its name.

        ``progress`` gets the number of bytes just written.

        Raises:
            VersionExistsError: there is a file of this name.
            AccessDeniedError, UnreachableError
        """
        path = Path("/", name)
        with _failing(path):
            path.parent.mkdir(exist_ok=True)
            leftovers.clear(path.parent, _UNFINISHED)
            unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
            try:
                with unfinished.open("xb") as file, leftovers.held(unfinished):
                    _copy(content, file, size, progress)
                _show(unfinished, path)
            finally:
                unfinished.unlink(missing_ok=True)
            _sync(path.parent)

    def put_new_folder(self, name: str, folder: Path, *, progress: Callable[[int], None]) -> None:
        """Write a whole folder, and never over another one; half of it is never seen.

        Raises:
            As `put_new`.
        """
        path = Path("/", name)
        with _failing(path):
            path.parent.mkdir(exist_ok=True)
            leftovers.clear(path.parent, _UNFINISHED)
            unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
            try:
                unfinished.mkdir()
                with leftovers.held(unfinished):
                    _copy_all(folder, unfinished, progress)
                # A folder that holds something is never replaced.
                unfinished.rename(path)
            except BaseException:
                shutil.rmtree(unfinished, ignore_errors=True)
                raise
            _sync(path.parent)


def _show(unfinished: Path, path: Path) -> None:
    """Give a file its name, if nothing else has it."""
    try:
        # Unlike a rename, a link never replaces.
        path.hardlink_to(unfinished)
    except OSError as error:
        if error.errno not in _WITHOUT_LINKS:
            raise
        try:
            _rename(unfinished, path)
        except OSError as refusal:
            if refusal.errno not in _WITHOUT_FLAGS:
                raise
            _replace(unfinished, path)


def _rename(old: Path, new: Path) -> None:
    """A rename that never replaces, as Linux has it (renameat2(2))."""
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS)) from None
    if call(_AT_CWD, os.fsencode(old), _AT_CWD, os.fsencode(new), _NO_REPLACE):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(new))


def _replace(unfinished: Path, path: Path) -> None:
    """What has the name for a moment is empty, which is no archive yet and nobody else's.

    Whoever is killed in that moment leaves it.
    """
    path.touch(exist_ok=False)
    try:
        unfinished.rename(path)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


@contextmanager
def _failing(path: Path) -> Iterator[None]:
    try:
        yield
    except FileExistsError as error:
        raise _exists(path) from error
    except PermissionError as error:
        raise AccessDeniedError(
            f"user {os.getuid()} may not write {path}; give it write permission on the folder"
        ) from error
    except OSError as error:
        # ENOTEMPTY of a rename has no class of its own.
        if path.exists():
            raise _exists(path) from error
        raise UnreachableError(f"writing {path} failed ({error})") from error


def _exists(path: Path) -> VersionExistsError:
    return VersionExistsError(f"{path} is there already, and is not overwritten")


def _copy_all(folder: Path, to: Path, progress: Callable[[int], None]) -> None:
    for place, _, files in os.walk(folder):
        target = to / os.path.relpath(place, folder)
        target.mkdir(exist_ok=True)
        for file in files:
            source = Path(place, file)
            with source.open("rb") as content, (target / file).open("xb") as written:
                _copy(content, written, source.stat().st_size, progress)
        _sync(target)


def _copy(content: IO[bytes], file: IO[bytes], size: int, progress: Callable[[int], None]) -> None:
    left = size
    while left and (piece := content.read(min(_READ_BYTES, left))):
        file.write(piece)
        left -= len(piece)
        progress(len(piece))
    _sync_file(file)


def _sync_file(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
