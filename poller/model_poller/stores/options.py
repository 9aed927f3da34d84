"""The command line's options on how a store is reached."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from model_poller.errors import InvalidSettingsError
from model_poller.process import arguments
from model_poller.stores.credentials import Credentials
from model_poller.stores.opening import SourceSettings

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from model_poller.stores.uri import Location


def add_options(group: argparse._ArgumentGroup) -> None:
    """Declare the options that `source_settings` reads."""
    group.add_argument(
        "--endpoint",
        type=arguments.url,
        metavar="URL",
        help="instead of the provider's own (for gs: STORAGE_EMULATOR_HOST)",
    )
    group.add_argument("--anonymous", action="store_true", help="ask without credentials")
    group.add_argument(
        "--credentials-dir",
        metavar="DIR",
        help="a mounted Secret: files named like the environment variables that they stand for,"
        " or key.json for gs",
    )
    group.add_argument(
        "--region",
        type=arguments.matching("[A-Za-z0-9_-]{1,64}", "a region's name"),
        metavar="REGION",
        help="of s3 (AWS_REGION)",
    )
    group.add_argument(
        "--path-style",
        action="store_true",
        help="s3: the bucket in the path, not in the host's name; always so with --endpoint",
    )
    group.add_argument(
        "--azure-account",
        type=arguments.matching("[a-z0-9]{3,24}(-secondary)?", "a storage account's name"),
        metavar="NAME",
        help="of az (AZURE_STORAGE_ACCOUNT_NAME)",
    )


def source_settings(
    given: argparse.Namespace,
    location: Location | None,
    environment: Mapping[str, str],
    *,
    mount: Path | None = None,
) -> SourceSettings:
    """How ``location`` is reached; ``mount`` is where a claim is mounted.

    Raises:
        InvalidSettingsError: the folder of credentials isn't there.
    """
    endpoint = given.endpoint
    if not endpoint and (location is None or location.scheme == "gs"):
        endpoint = environment.get("STORAGE_EMULATOR_HOST")
    folder = Path(given.credentials_dir) if given.credentials_dir else None
    if folder and not folder.is_dir():
        raise InvalidSettingsError(
            f"--credentials-dir={folder} is no folder; mount the Secret there"
        )
    return SourceSettings(
        locations=(location,) if location else (),
        endpoint=endpoint,
        anonymous=given.anonymous,
        region=given.region,
        path_style=given.path_style or endpoint is not None,
        azure_account=given.azure_account,
        mount=mount,
        credentials=Credentials(environment, folder),
    )
