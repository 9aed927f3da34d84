"""Stores that versions are published to."""

from __future__ import annotations

from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol, runtime_checkable

from model_poller.errors import InvalidSettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from model_poller.stores import Entry, StoredObject
    from model_poller.stores.opening import SourceSettings
    from model_poller.stores.uri import Location


class Destination(Protocol):
    """A source that can be written to. Its methods may be called from several threads."""

    @property
    def uri(self) -> str:
        """What the user gave, for messages."""

    def close(self) -> None:
        """Close all connections."""

    @property
    def locations(self) -> tuple[Location, ...]:
        """The one place."""

    @property
    def mount(self) -> Path | None:
        """See `Source.mount`."""

    def survey(self) -> Iterator[StoredObject | Entry]:
        """See `Source.survey`."""

    def files(self, entry: Entry) -> Iterator[StoredObject]:
        """See `Source.files`."""

    def list(self) -> list[StoredObject]:
        """See `Source.list`."""

    def describe(self, stored: StoredObject) -> StoredObject:
        """See `Source.describe`."""

    def put_new(
        self, name: str, content: IO[bytes], size: int, *, progress: Callable[[int], None]
    ) -> None:
        """Store ``size`` bytes under a new name, which is relative to the bucket.

        Whoever looks sees nothing or all of it. ``progress`` gets the number of bytes just sent,
        negative where some have to be sent again.

        Raises:
            VersionExistsError: there is something under this name; it is left as it is.
            BucketNotFoundError, AccessDeniedError
            UnreachableError: it may or may not be stored.
        """


@runtime_checkable
class TakesFolders(Protocol):
    """A destination that can show a whole folder at once."""

    def put_new_folder(self, name: str, folder: Path, *, progress: Callable[[int], None]) -> None:
        """Store all files of a folder as a new one; see `Destination.put_new`."""


def open_destination(chosen: SourceSettings) -> Destination:
    """The store that the settings name.

    Raises:
        InvalidSettingsError: no credentials are found, or it is a store that is only read.
    """
    (location,) = chosen.locations
    match location.scheme:
        case "gs":
            from model_poller.stores.gcs_upload import GcsUploads

            return GcsUploads(
                location,
                endpoint=chosen.endpoint,
                anonymous=chosen.anonymous,
                credentials=chosen.credentials,
            )
        case "s3":
            from model_poller.stores.s3_upload import S3Uploads

            return S3Uploads(
                location,
                endpoint=chosen.endpoint,
                region=chosen.region,
                path_style=chosen.path_style,
                anonymous=chosen.anonymous,
                credentials=chosen.credentials,
            )
        case "az":
            from model_poller.stores.az_upload import AzureUploads

            return AzureUploads(
                location,
                endpoint=chosen.endpoint,
                account=chosen.azure_account,
                anonymous=chosen.anonymous,
                credentials=chosen.credentials,
            )
        case "file":
            from model_poller.stores.local_upload import LocalUploads

            return LocalUploads(location, Path("/", location.prefix))
        case _:
            raise InvalidSettingsError(
                f"{location.uri} is only read; publish to gs://, s3://, az:// or, for a claim that"
                " is mounted, to file:///FOLDER"
            )
