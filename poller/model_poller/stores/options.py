"""The command line's options on how a store is reached."""

from __future__ import annotations

from argparse import ArgumentTypeError
from pathlib import Path
from typing import TYPE_CHECKING

from model_poller.errors import InvalidSettingsError
from model_poller.process import arguments
from model_poller.stores import trust
from model_poller.stores.connections import check_environment
from model_poller.stores.credentials import Credentials
from model_poller.stores.opening import SourceSettings

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping

    from model_poller.stores.uri import Location


_region = arguments.matching("[a-zA-Z0-9][a-zA-Z0-9._-]{0,63}", "a region's name")
_account = arguments.matching("[a-z0-9]{3,24}(-secondary)?", "a storage account's name")


def _azure_authority(host: str) -> str:
    # Imported only when asked for: a poller pays memory for what it uses.
    from model_poller.stores.azure import azure_authority

    return arguments.url(azure_authority(host))


_VARIABLES: Mapping[str, Mapping[str, Callable[[str], str]]] = {
    "gs": {"STORAGE_EMULATOR_HOST": arguments.url},
    "s3": {
        "AWS_REGION": _region,
        "AWS_DEFAULT_REGION": _region,
        "AWS_ENDPOINT_URL": arguments.url,
        "AWS_ENDPOINT_URL_S3": arguments.url,
        "AWS_ENDPOINT_URL_STS": arguments.url,
        "AWS_EC2_METADATA_SERVICE_ENDPOINT": arguments.url,
        # The one server here that is asked by a URL with a query.
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": lambda uri: arguments.url(uri.partition("?")[0]),
    },
    "az": {
        "AZURE_STORAGE_ACCOUNT_NAME": _account,
        "AZURE_AUTHORITY_HOST": _azure_authority,
        "AZURE_POD_IDENTITY_AUTHORITY_HOST": arguments.url,
    },
}
"""By scheme: the variables that stand for options or servers, and how they are read."""
_PAIRS: Mapping[str, tuple[str, str]] = {
    "s3": ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
    "http": ("HTTP_USERNAME", "HTTP_PASSWORD"),
    "https": ("HTTP_USERNAME", "HTTP_PASSWORD"),
}
"""By scheme: what proves who asks only together."""


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
        type=_region,
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
        type=_account,
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
        InvalidSettingsError: the folder of credentials isn't there, or a variable can't be.
    """
    endpoint = given.endpoint
    if not endpoint and (location is None or location.scheme == "gs"):
        endpoint = environment.get("STORAGE_EMULATOR_HOST")
    folder = Path(given.credentials_dir) if given.credentials_dir else None
    if folder and not folder.is_dir():
        raise InvalidSettingsError(
            f"--credentials-dir={folder} is no folder; mount the Secret there"
        )
    credentials = Credentials(environment, folder)
    scheme = location.scheme if location else "gs"
    for name, read in _VARIABLES.get(scheme, {}).items():
        if value := credentials.get(name):
            try:
                read(value)
            except ArgumentTypeError as error:
                raise InvalidSettingsError(f"{name}: {error}") from None
    given_of_pair = [name for name in _PAIRS.get(scheme, ()) if credentials.get(name)]
    is_needed = not (given.anonymous or credentials.get("HTTP_BEARER_TOKEN"))
    if len(given_of_pair) == 1 and is_needed:
        (lacking,) = set(_PAIRS[scheme]) - set(given_of_pair)
        raise InvalidSettingsError(
            f"{given_of_pair[0]} is there without {lacking}; give both, or none of them"
        )
    # Also where the folder itself is reached otherwise: notifications and warm-up requests may not.
    if environment.get(trust.EXTRA):
        trust.check()
    if scheme in ("gs", "s3", "az", "https") and not (endpoint or "").startswith("http://"):
        check_environment()
    return SourceSettings(
        locations=(location,) if location else (),
        endpoint=endpoint,
        anonymous=given.anonymous,
        region=given.region,
        path_style=given.path_style or endpoint is not None,
        azure_account=given.azure_account,
        mount=mount,
        credentials=credentials,
    )
