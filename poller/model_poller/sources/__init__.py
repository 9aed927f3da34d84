"""What a store has to offer: a listing, and ranges of the objects in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from contextlib import AbstractContextManager


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
    """Differs after every overwrite."""


class ByteRange(Protocol):
    """The bytes of one range, in order."""

    def readinto(self, buffer: memoryview) -> int:
        """Fill a part of ``buffer``, at least one byte; 0 at the end."""


class Source(Protocol):
    """A place where versions are stored. Its methods may be called from several threads."""

    @property
    def uri(self) -> str:
        """What the user gave, for messages and for the status."""

    def list(self) -> list[StoredObject]:
        """All objects below the URI.

        Raises:
            BucketNotFoundError, AccessDeniedError, UnreachableError
        """

    def open_range(
        self, stored: StoredObject, start: int, length: int
    ) -> AbstractContextManager[ByteRange]:
        """Bytes ``start`` to ``start + length`` of exactly this generation.

        Raises:
            ObjectChangedError: this generation is gone.
            AccessDeniedError, UnreachableError
        """
