"""``file://`` and ``pvc://``: a folder of this machine, or a volume that is mounted here.

A file system tells nobody reliably that another machine wrote to it, so it is looked at every poll
interval like any other store.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from model_poller.errors import (
    AccessDeniedError,
    BucketNotFoundError,
    ObjectChangedError,
    UnreachableError,
)
from model_poller.metrics import METRICS
from model_poller.stores import StoredObject
from model_poller.stores.one_place import OnePlace
from model_poller.versions import split_path

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

    def list(self) -> list[StoredObject]:
        """See `Source.list`. Links to folders inside of a version are not followed."""
        METRICS.source_requests.labels("list").inc()
        try:
            return list(self._walk())
        except (FileNotFoundError, NotADirectoryError) as error:
            if self.mount.is_dir():
                raise UnreachableError(
                    f"{error.filename} went away while {self.uri} was listed; it is tried again"
                ) from error
            raise BucketNotFoundError(
                f"the folder {self.mount} of {self.uri} does not exist; create it, or correct the"
                " storage URI"
            ) from error
        except PermissionError as error:
            raise self._denied(error) from error
        except OSError as error:
            raise UnreachableError(f"listing {self.uri} failed ({error})") from error

    @contextmanager
    def open_range(self, stored: StoredObject, start: int, length: int) -> Iterator[ByteRange]:
        """See `Source.open_range`."""
        METRICS.source_requests.labels("get").inc()
        try:
            file = os.open(stored.name, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise ObjectChangedError(stored.url) from error
        except PermissionError as error:
            raise self._denied(error) from error
        except OSError as error:
            raise UnreachableError(f"reading {stored.url} failed ({error})") from error
        try:
            if _generation(os.fstat(file)) != stored.generation:
                raise ObjectChangedError(stored.url)
            yield _Range(file, stored, start, length)
        finally:
            os.close(file)

    def _walk(self) -> Iterator[StoredObject]:
        with os.scandir(self.mount) as tops:
            for top in tops:
                if top.is_dir():
                    if split_path(f"{top.name}/file"):
                        yield from self._files(top.path, top.name)
                elif top.is_file() and split_path(top.name):
                    yield self._stored(top.path, top.name)

    def _files(self, folder: str, path: str) -> Iterator[StoredObject]:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    yield from self._files(entry.path, f"{path}/{entry.name}")
                elif entry.is_file():
                    yield self._stored(entry.path, f"{path}/{entry.name}")

    def _stored(self, file: str, path: str) -> StoredObject:
        found = os.stat(file)  # noqa: PTH116
        return StoredObject(
            url=f"{self.uri}/{path}",
            bucket=self._location.bucket,
            name=file,
            path=path,
            size=found.st_size,
            crc32c=None,
            generation=_generation(found),
        )

    def _denied(self, error: OSError) -> AccessDeniedError:
        return AccessDeniedError(
            f"user {os.getuid()} of group {os.getgid()} may not read {error.filename} of"
            f" {self.uri}; give it read permission, or the pod a supplemental group that has it"
        )


class _Range:
    def __init__(self, file: int, stored: StoredObject, start: int, length: int) -> None:
        self._file = file
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


def _generation(found: os.stat_result) -> str:
    return f"{found.st_ino}-{found.st_mtime_ns}-{found.st_size}"
