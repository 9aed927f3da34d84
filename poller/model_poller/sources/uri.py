"""Where versions are stored, as a user writes it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from model_poller.errors import InvalidSettingsError

_BUCKET = {
    "gs": r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]",
    # https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
    "s3": r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]",
    # https://learn.microsoft.com/rest/api/storageservices/naming-and-referencing-containers
    "az": r"\$root|[a-z0-9](?:[a-z0-9]|-(?=[a-z0-9])){2,62}",
    "https": r"[^/@]+",
    "http": r"[^/@]+",
    "pvc": r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?",
    "file": "",
}
_EXAMPLES = {
    "gs": "gs://BUCKET/FOLDER",
    "s3": "s3://BUCKET/FOLDER",
    "az": "az://CONTAINER/FOLDER",
    "https": "https://HOST/FOLDER/",
    "http": "http://HOST/FOLDER/",
    "pvc": "pvc://CLAIM/FOLDER",
    "file": "file:///FOLDER",
}


@dataclass(frozen=True, slots=True, order=True)
class Location:
    """A bucket and the folder in it below which versions are."""

    bucket: str
    """A bucket, a container, a host with its port, a claim; empty for ``file://``."""
    prefix: str
    """Without slashes at its ends; empty for the whole bucket."""
    scheme: str = "gs"

    def holds(self, bucket: str, name: str) -> bool:
        """Whether an object lies below this place."""
        return bucket == self.bucket and f"/{name}".startswith(
            f"/{self.prefix}/".replace("//", "/")
        )

    @property
    def uri(self) -> str:
        """As a user writes it."""
        return f"{self.scheme}://{self.bucket}/{self.prefix}".rstrip("/")


def parse_uri(uri: str) -> Location:
    """Read a storage URI.

    Raises:
        InvalidSettingsError
    """
    scheme, _, rest = uri.partition("://")
    if scheme not in _BUCKET:
        known = ", ".join(_EXAMPLES.values())
        raise InvalidSettingsError(f"{uri!r} is no storage URI; write one of {known}")
    bucket, _, prefix = rest.partition("/")
    if scheme in ("http", "https") and re.search(r"[?#]", rest):
        # The URI is shown in the status and in logs, and what follows the path is often a secret.
        raise InvalidSettingsError(
            f"{uri.partition('?')[0]!r}: a storage URI takes no query; give HTTP_BEARER_TOKEN or"
            " HTTP_USERNAME and HTTP_PASSWORD as credentials"
        )
    if not re.fullmatch(_BUCKET[scheme], bucket):
        raise InvalidSettingsError(f"{uri!r} is no storage URI; write {_EXAMPLES[scheme]}")
    return Location(bucket, prefix.strip("/"), scheme)
