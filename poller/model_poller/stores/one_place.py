"""What sources share: the plain answers, and the listing of a bucket page by page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from model_poller.stores import Entry, StoredObject
from model_poller.versions import split_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from model_poller.stores.uri import Location


class Listing:
    """All objects, from the two calls that a look makes."""

    def survey(self) -> Iterator[StoredObject | Entry]:
        """See `Source.survey`."""
        raise NotImplementedError

    def files(self, entry: Entry) -> Iterator[StoredObject]:
        """See `Source.files`."""
        raise NotImplementedError

    def list(self) -> list[StoredObject]:
        """See `Source.list`."""
        found: list[StoredObject] = []
        for item in self.survey():
            if isinstance(item, StoredObject):
                found.append(item)
            elif split_path(f"{item.name}/file" if item.is_folder else item.name):
                found += self.files(item)
        return found


class OnePlace(Listing):
    """The plain answers of a `Source`."""

    mount: Path | None = None
    growing = False

    def __init__(self, location: Location) -> None:
        self._location = location

    @property
    def uri(self) -> str:
        """As the user wrote it."""
        return self._location.uri

    @property
    def locations(self) -> tuple[Location, ...]:
        """Where it looks."""
        return (self._location,)

    def describe(self, stored: StoredObject) -> StoredObject:
        """See `Source.describe`: the listing has told all there is."""
        return stored


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a bucket's listing."""

    objects: Sequence[StoredObject]
    folders: Sequence[str]
    """Names right below, where folders were not gone into."""
    is_last: bool


class Bucket(Listing):
    """A store that lists all objects below a prefix, or those right below it, page by page.

    One page shows most places whole. Of one that it doesn't, further looks list the names right
    below it, and the folders that are asked for: what a look costs doesn't grow with what the
    bucket keeps of old.
    """

    def __init__(self) -> None:
        self._large: set[Location] = set()

    @property
    def locations(self) -> tuple[Location, ...]:
        """See `Source.locations`."""
        raise NotImplementedError

    def _pages(self, root: Location, folder: str, *, into: bool) -> Iterator[Page]:
        """The listing below a folder of a place, which ends with a slash or is empty.

        ``into`` goes into the folders below it, too.

        Raises:
            BucketNotFoundError, AccessDeniedError, UnreachableError
        """
        raise NotImplementedError

    def survey(self) -> Iterator[StoredObject | Entry]:
        """See `Source.survey`."""
        for root in self.locations:
            yield from self._survey(root)

    def _survey(self, root: Location) -> Iterator[StoredObject | Entry]:
        if root not in self._large:
            first = next(self._pages(root, "", into=True))
            if first.is_last:
                yield from first.objects
                return
            self._large.add(root)
        for page in self._pages(root, "", into=False):
            yield from page.objects
            for name in page.folders:
                yield Entry(root, name, is_folder=True)

    def files(self, entry: Entry) -> Iterator[StoredObject]:
        """See `Source.files`."""
        for page in self._pages(entry.root, f"{entry.name}/", into=True):
            yield from page.objects
