"""``file://`` and ``pvc://``: a folder of this machine, or a volume that is mounted here.

A file system tells nobody reliably that another machine wrote to it, so it is looked at every poll
interval like any other store.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

from model_poller.archives.paths import MAX_DEPTH
from model_poller.errors import (
    AccessDeniedError,
    BucketNotFoundError,
    InvalidSourceError,
    ObjectChangedError,
    UnreachableError,
)
from model_poller.metrics import METRICS
from model_poller.stores import Entry, StoredObject
from model_poller.stores.one_place import OnePlace

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from model_poller.stores import ByteRange
    from model_poller.stores.uri import Location


class LocalSource(OnePlace):
    """Versions in one folder of a file system that the model server sees too."""

    mount: Path
    growing = True

    def __init__(self, location: Location, mount: Path) -> None:
        """``mount`` is the folder that ``location`` means, here and in the model server."""
        super().__init__(location)
        self.mount = mount

    def close(self) -> None:
        """Nothing is open."""

    def survey(self) -> Iterator[Entry]:
        """See `Source.survey`."""
        METRICS.source_requests.labels("list").inc()
        with self._failing():
            with os.scandir(self.mount) as found:
                entries = [(entry.name, _is_folder(entry)) for entry in found]
            for name, is_folder in entries:
                yield Entry(self._location, name, is_folder)

    def files(self, entry: Entry) -> Iterator[StoredObject]:
        """See `Source.files`. Links to folders inside of a version are not followed."""
        with self._failing():
            if entry.is_folder:
                yield from self._walk(entry.name)
            elif (self.mount / entry.name).is_file():
                yield self._stored(entry.name)

    @contextmanager
    def open_range(self, stored: StoredObject, start: int, length: int) -> Iterator[ByteRange]:
        """See `Source.open_range`."""
        METRICS.source_requests.labels("get").inc()
        with self._opened(stored) as file:
            before = _validators(os.fstat(file))
            if before["generation"] != stored.generation:
                raise ObjectChangedError(stored.url)
            yield _Range(file, before, stored, start, length)
        # Opened anew, for a network file system may answer from what it remembers until then.
        with self._opened(stored) as file:
            if _validators(os.fstat(file)) != before:
                raise ObjectChangedError(stored.url)

    def describe(self, stored: StoredObject) -> StoredObject:
        """See `Source.describe`: it is still the file that was listed."""
        with self.open_range(stored, 0, 0):
            return stored

    @contextmanager
    def _opened(self, stored: StoredObject) -> Iterator[int]:
        try:
            # Of a named pipe, opening would wait for who writes into it.
            flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
            file = os.open(self.mount / stored.path, flags)
        except FileNotFoundError as error:
            raise ObjectChangedError(stored.url) from error
        except PermissionError as error:
            raise self._denied(error) from error
        except OSError as error:
            raise UnreachableError(f"reading {stored.url} failed ({error})") from error
        try:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                raise ObjectChangedError(stored.url)
            yield file
        finally:
            os.close(file)

    @contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, NotADirectoryError) as error:
            if self.mount.is_dir():
                raise UnreachableError(
                    f"{error.filename} went away while {self.uri} was listed; it is tried again"
                ) from error
            if self.mount.exists():
                raise BucketNotFoundError(
                    f"{self.mount} of {self.uri} is a file; give the folder that the versions are"
                    f" in, {self.uri.rpartition('/')[0]}"
                ) from error
            raise BucketNotFoundError(
                f"the folder {self.mount} of {self.uri} does not exist; create it, or correct the"
                " storage URI"
            ) from error
        except PermissionError as error:
            raise self._denied(error) from error
        except OSError as error:
            raise UnreachableError(f"listing {self.uri} failed ({error})") from error

    def _walk(self, top: str) -> Iterator[StoredObject]:
        folders = [top]
        while folders:
            folder = folders.pop()
            if folder.count("/") > MAX_DEPTH:
                raise InvalidSourceError(
                    f"{self._location.child(top)} has more than {MAX_DEPTH} folders in one another;"
                    " remove those that are no part of the model"
                )
            with os.scandir(self.mount / folder) as entries:
                for entry in entries:
                    path = f"{folder}/{entry.name}"
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(path)
                    elif _is_file(entry):
                        yield self._stored(path)

    def _stored(self, path: str) -> StoredObject:
        found = (self.mount / path).stat()
        return StoredObject(
            root=self._location,
            path=path,
            size=found.st_size,
            generation=_generation(found),
        )

    def _denied(self, error: OSError) -> AccessDeniedError:
        return AccessDeniedError(
            f"user {os.getuid()} of group {os.getgid()} may not read {error.filename} of"
            f" {self.uri}; give it read permission, or the pod a supplemental group that has it"
        )


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is one, or leads to what can't be looked at and may be one."""
    try:
        return entry.is_dir()
    except OSError as error:
        # What is wrong with it is told where it is gone into, and spoils nothing beside it.
        return error.errno != errno.ELOOP


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError as error:
        # A link in a circle is as little a file as one that leads nowhere.
        if error.errno == errno.ELOOP:
            return False
        raise


class _Range:
    is_listed = True

    def __init__(
        self, file: int, validators: dict[str, str], stored: StoredObject, start: int, length: int
    ) -> None:
        self._file = file
        self.validators = validators
        self._stored = stored
        self._position = start
        self._end = start + length

    def readinto(self, buffer: memoryview) -> int:
        wanted = buffer[: self._end - self._position]
        try:
            count = os.preadv(self._file, [wanted], self._position)
        except OSError as error:
            raise UnreachableError(f"reading {self._stored.url} failed ({error})") from error
        if not count and wanted:
            raise ObjectChangedError(self._stored.url)
        self._position += count
        return count


def _validators(found: os.stat_result) -> dict[str, str]:
    return {
        "device": str(found.st_dev),
        "generation": _generation(found),
        # Not in the generation: it changes with an owner or a mode too, which the kubelet sets at
        # the start of every pod with an fsGroup.
        "change": str(found.st_ctime_ns),
    }


def _generation(found: os.stat_result) -> str:
    return f"{found.st_ino}-{found.st_mtime_ns}-{found.st_size}"
