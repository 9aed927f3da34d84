"""What a store has to offer: a listing, and ranges of the objects in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from model_poller.stores.uri import Location


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object as a listing shows it."""

    url: str
    """For messages: ``gs://bucket/models/imagenet/1/saved_model.pb``."""
    bucket: str
    name: str
    path: str
    """The part of the name below the storage URI: ``1/saved_model.pb``."""
    size: int
    """Bytes."""
    crc32c: int | None
    """None where the store keeps none."""
    generation: str
    """Differs after every overwrite: a generation, an ETag, or a file's time of change."""
    md5: bytes | None = None
    """None where the store keeps none, or keeps a better one."""
    crc64nvme: int | None = None
    crc32: int | None = None
    """Both as ``md5``."""
    in_ranges: bool = True
    """Whether any range of it can be asked for, or only the whole."""

    @property
    def has_checksum(self) -> bool:
        """Whether the listing tells what its bytes have to be."""
        told = (self.crc32c, self.crc64nvme, self.crc32, self.md5)
        return any(checksum is not None for checksum in told)


class ByteRange(Protocol):
    """The bytes of one range, in order."""

    def readinto(self, buffer: memoryview) -> int:
        """Fill a part of ``buffer``, at least one byte; 0 at the end."""


class Source(Protocol):
    """A place where versions are stored. Its methods may be called from several threads."""

    @property
    def uri(self) -> str:
        """What the user gave, for messages and for the status."""

    @property
    def locations(self) -> tuple[Location, ...]:
        """Where it looks."""

    @property
    def mount(self) -> Path | None:
        """The folder below which versions lie on a file system that the model server sees too.

        Folder versions are published by a symbolic link to ``mount / folder``; nothing is copied.
        None: everything has to be fetched.
        """

    @property
    def growing(self) -> bool:
        """Whether an object is shown while it is still written, as on a file system."""

    def add(self, location: Location) -> bool:
        """Look into this place too from now on; whether it is new."""

    def close(self) -> None:
        """Close all connections."""

    def list(self) -> list[StoredObject]:
        """All objects below the URI.

        Raises:
            BucketNotFoundError, AccessDeniedError, UnreachableError
        """

    def describe(self, stored: StoredObject) -> StoredObject:
        """The same object with the checksums that only a call of its own tells, if any.

        Raises:
            ObjectChangedError: this generation is gone.
            AccessDeniedError, UnreachableError
        """

    def open_range(
        self, stored: StoredObject, start: int, length: int
    ) -> AbstractContextManager[ByteRange]:
        """Bytes ``start`` to ``start + length`` of exactly this generation.

        Raises:
            ObjectChangedError: this generation is gone.
            AccessDeniedError, UnreachableError
        """
