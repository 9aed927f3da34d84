"""From settings to a source; a store's module is imported only when it is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from model_poller.errors import InvalidSettingsError
from model_poller.stores.credentials import Credentials

if TYPE_CHECKING:
    from model_poller.stores import Source
    from model_poller.stores.uri import Location


@dataclass(frozen=True, slots=True)
class SourceSettings:
    """How the stored versions are reached."""

    locations: tuple[Location, ...] = ()
    """Empty: learnt from notifications, which only ``gs://`` offers."""
    endpoint: str | None = None
    """A URL instead of the provider's own."""
    anonymous: bool = False
    region: str | None = None
    path_style: bool = False
    azure_account: str | None = None
    mount: Path | None = None
    """Where the claim of ``pvc://`` is mounted."""
    credentials: Credentials = field(default_factory=Credentials)


def open_source(chosen: SourceSettings) -> Source:
    """The source that the settings name.

    Raises:
        InvalidSettingsError: no credentials are found, or something is missing.
    """
    scheme = chosen.locations[0].scheme if chosen.locations else "gs"
    match scheme:
        case "gs":
            from model_poller.stores.gcs import GcsSource

            return GcsSource(
                chosen.locations,
                endpoint=chosen.endpoint,
                anonymous=chosen.anonymous,
                credentials=chosen.credentials,
            )
        case "s3":
            from model_poller.stores.s3 import S3Source

            return S3Source(
                chosen.locations[0],
                endpoint=chosen.endpoint,
                region=chosen.region,
                path_style=chosen.path_style,
                anonymous=chosen.anonymous,
                credentials=chosen.credentials,
            )
        case "az":
            from model_poller.stores.az import AzureSource

            return AzureSource(
                chosen.locations[0],
                endpoint=chosen.endpoint,
                account=chosen.azure_account,
                anonymous=chosen.anonymous,
                credentials=chosen.credentials,
            )
        case "file" | "pvc":
            from model_poller.stores.local import LocalSource

            location = chosen.locations[0]
            return LocalSource(location, (chosen.mount or Path("/")) / location.prefix)
        case "http" | "https":
            from model_poller.stores.http import HttpSource

            return HttpSource(
                chosen.locations[0],
                credentials=Credentials() if chosen.anonymous else chosen.credentials,
            )
        case _:
            raise InvalidSettingsError(f"{scheme}:// is not supported")
