"""What the sources share that look into one place."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from model_poller.stores import StoredObject
    from model_poller.stores.uri import Location


class OnePlace:
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

    def add(self, location: Location) -> bool:  # noqa: ARG002
        """Not done: it looks into one place only."""
        return False

    def describe(self, stored: StoredObject) -> StoredObject:
        """See `Source.describe`: the listing has told all there is."""
        return stored
