"""What a store has to offer: a listing, and ranges of the objects in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from model_poller.stores.http_ranges import Asked
    from model_poller.stores.uri import Location


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object as a listing shows it.

    Root and path are what it is known by, in every comparison; ``url`` is for people.
    """

    root: Location
    """The place that it was listed in."""
    path: str
    """Its name below the root, as it is and not as a URL would have it: ``1/saved_model.pb``."""
    size: int
    """Bytes."""
    generation: str
    """Its validator, which differs after every overwrite: a generation, an ETag, or a file's time
    of change."""
    crc32c: int | None = None
    """None where the store keeps none."""
    md5: bytes | None = None
    """None where the store keeps none, or keeps a better one."""
    crc64nvme: int | None = None
    crc32: int | None = None
    """Both as ``md5``."""
    md5_is_presumed: bool = False
    """Whether ``md5`` is an ETag that only looks like one, which not every store promises."""
    in_ranges: bool = True
    """Whether any range of it can be asked for, or only the whole."""
    is_gzipped: bool = False
    """Whether it is to be unpacked, as its ``Content-Encoding`` says; size and checksums are those
    of what is stored."""
    version: int | None = None
    """The version that it is, where its name doesn't tell."""
    fault: str = ""
    """What the store tells of it that can't be; the version that it belongs to can't be had."""

    @property
    def url(self) -> str:
        """For messages: ``gs://bucket/models/imagenet/1/saved_model.pb``."""
        return self.root.child(self.path)

    @property
    def has_checksum(self) -> bool:
        """Whether the listing tells what its bytes have to be."""
        told = (self.crc32c, self.crc64nvme, self.crc32, self.md5)
        return any(checksum is not None for checksum in told)


@dataclass(frozen=True, slots=True)
class Entry:
    """A name right below the URI that a listing showed, and nothing of what it stands for."""

    root: Location
    name: str
    """Without a slash: ``15`` or ``15.zip``."""
    is_folder: bool


class ByteRange(Protocol):
    """The bytes of one range, in order, and what the answer says of the object they are of."""

    @property
    def validators(self) -> Mapping[str, str]:
        """What differs between one object and the next under its name.

        ``ETag``, ``Last-Modified`` or the store's own, and ``size``, the bytes of the whole; empty
        where nothing is told.
        """

    @property
    def is_listed(self) -> bool:
        """Whether there is a validator that the listing had shown, and it is the same."""

    def readinto(self, buffer: memoryview) -> int:
        """Fill a part of ``buffer``, at least one byte; 0 at the end."""


class WholeObject(ByteRange, Protocol):
    """All bytes of an object, and what the answer tells of it."""

    @property
    def described(self) -> StoredObject:
        """As `Source.describe`."""


@runtime_checkable
class Remarks(Protocol):
    """A source that has more to tell than what it lists."""

    @property
    def remark(self) -> str:
        """One line for users about the last look; empty where there is nothing to say."""


@runtime_checkable
class TellsInReading(Protocol):
    """A source whose `Source.describe` costs a call, which reading a whole object saves."""

    def open_whole(self, stored: StoredObject) -> AbstractContextManager[WholeObject]:
        """Begin to read all of an object.

        Raises:
            As `Source.describe` and `Source.open_range`.
        """


@runtime_checkable
class AsksAhead(Protocol):
    """A source that can be asked for small objects before anybody waits for them."""

    def ask(self, stored: StoredObject) -> Asked:
        """Send the request for all of an object; its answer is `open_asked`'s, or is given up.

        Raises:
            PollerError: it can't be sent.
        """

    def open_asked(self, stored: StoredObject, asked: Asked) -> AbstractContextManager[ByteRange]:
        """Begin to read what was asked for; a `WholeObject` where the source `TellsInReading`.

        If the connection broke meanwhile it is asked for once more.

        Raises:
            As `Source.describe` and `Source.open_range`.
        """


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

    def close(self) -> None:
        """Close all connections."""

    def survey(self) -> Iterator[StoredObject | Entry]:
        """What lies below the URI, by as few calls as show all names right below it.

        Objects come as such where they cost no call more; of the rest, `files` tells.

        Raises:
            BucketNotFoundError, AccessDeniedError, InvalidSourceError, UnreachableError
        """

    def files(self, entry: Entry) -> Iterator[StoredObject]:
        """The objects that an entry of `survey` stands for; none where it went away meanwhile.

        Raises:
            InvalidSourceError: there are more than can be asked for.
            AccessDeniedError, UnreachableError
        """

    def list(self) -> list[StoredObject]:
        """All objects of all versions below the URI, whatever that costs.

        Raises:
            As `survey` and `files`.
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
