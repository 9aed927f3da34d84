"""Where versions are stored, as a user writes it."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, replace
from urllib.parse import quote, unquote, urlsplit

from model_poller.errors import InvalidSettingsError
from model_poller.stores.credentials import shown_uri
from model_poller.versions import ARCHIVE_ENDINGS

ACCESS_POINT = re.compile(
    r"arn:(?P<partition>aws[a-z-]*):s3:"
    r"(?:(?P<region>[a-z0-9-]+):(?P<account>\d{12}):accesspoint[/:]"
    r"(?P<name>[a-z0-9][a-z0-9-]{1,48}[a-z0-9])"
    r"|:\d{12}:accesspoint[/:](?P<alias>[a-z0-9]+\.mrap))"
)
"""The ARN of an S3 access point, or of one of many regions
(https://docs.aws.amazon.com/AmazonS3/latest/userguide/access-points-naming.html)."""

_BUCKET = {
    "gs": r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]",
    # https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html; the oldest
    # buckets, and those of other makers, have capitals, '_' and up to 255 characters.
    "s3": rf"[a-zA-Z0-9][a-zA-Z0-9._-]{{2,254}}|{ACCESS_POINT.pattern}",
    # https://learn.microsoft.com/rest/api/storageservices/naming-and-referencing-containers
    "az": r"\$(?:root|web|logs)|[a-z0-9](?:[a-z0-9]|-(?=[a-z0-9])){2,62}",
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
_OF_THE_WEB = "HTTP_BEARER_TOKEN or HTTP_USERNAME and HTTP_PASSWORD"
_CREDENTIALS = {
    "gs": "key.json",
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "az": "AZURE_STORAGE_SAS_TOKEN",
    "https": _OF_THE_WEB,
    "http": _OF_THE_WEB,
    "pvc": "none",
    "file": "none",
}
_URL_PATH = re.compile(r"(?:[-a-zA-Z0-9._~!$&'()*+,;=:@/]|%[0-9a-fA-F]{2})*")


@dataclass(frozen=True, slots=True, order=True)
class Location:
    """A bucket and the folder in it below which versions are."""

    bucket: str
    """A bucket or an access point's ARN, a container, a host with its port, a claim; empty for
    ``file://``."""
    prefix: str
    """Without slashes at its ends; empty for the whole bucket."""
    scheme: str = "gs"

    def holds(self, bucket: str, name: str) -> bool:
        """Whether an object lies below this place.

        Of an access point the bucket behind it isn't known, so any one may be it.
        """
        return (bucket == self.bucket or self._is_access_point) and f"/{name}".startswith(
            f"/{self.prefix}/".replace("//", "/")
        )

    @property
    def _is_access_point(self) -> bool:
        return self.scheme == "s3" and (
            self.bucket.startswith("arn:") or self.bucket.endswith("-s3alias")
        )

    @property
    def model(self) -> str:
        """The name of the folder that the versions are in; of the bucket where that is all."""
        name = self.folder.prefix.rpartition("/")[2] or self.bucket
        return unquote(name) if self.scheme in ("http", "https") else name

    @property
    def folder(self) -> Location:
        """Where the versions are: a web server's URI may be a list of them, or one, beside them."""
        if self.scheme in ("http", "https") and self.prefix.endswith((".json", *ARCHIVE_ENDINGS)):
            return replace(self, prefix=self.prefix.rpartition("/")[0])
        return self

    @property
    def uri(self) -> str:
        """As a user writes it."""
        whole = f"{self.scheme}://{self.bucket}/{self.prefix}"
        # The root of a file system has no other name.
        return whole.rstrip("/") if self.bucket or self.prefix else whole

    def key(self, path: str) -> str:
        """The name in the bucket of what lies at a path below this place."""
        return f"{self.prefix}/{path}" if self.prefix else path

    def child(self, path: str) -> str:
        """The URI of what lies at a path below this place, for messages and for a web server."""
        # A file system may hold names that are no UTF-8, which no message can.
        if self.scheme in ("http", "https"):
            path = quote(path, errors="surrogateescape")
        else:
            path = path.encode(errors="backslashreplace").decode()
        folder = self.folder
        return f"{folder.scheme}://{folder.bucket}/{folder.key(path)}"


def parse_uri(uri: str) -> Location:
    """Read a storage URI.

    Raises:
        InvalidSettingsError
    """
    scheme, _, rest = uri.partition("://")
    if scheme not in _BUCKET:
        known = ", ".join(_EXAMPLES.values())
        raise InvalidSettingsError(f"{shown_uri(uri)} is no storage URI; write one of {known}")
    _check_secrets(uri, scheme, rest)
    point = ACCESS_POINT.match(rest) if scheme == "s3" else None
    # The name of an access point may come after a slash.
    end = point.end() if point else 0
    bucket, _, prefix = rest[end:].partition("/")
    bucket = rest[:end] + bucket
    if scheme in ("http", "https") and not _URL_PATH.fullmatch(prefix):
        raise InvalidSettingsError(
            f"{shown_uri(uri)} holds characters that no URL has; write its path as a browser shows"
            " it, with %20 for a space"
        )
    # A path begins with a slash.
    is_empty = scheme == "file" and not rest
    if is_empty or not re.fullmatch(_BUCKET[scheme], bucket):
        raise InvalidSettingsError(f"{shown_uri(uri)} is no storage URI; write {_EXAMPLES[scheme]}")
    if scheme in ("http", "https"):
        _check_host(uri, bucket)
    return Location(bucket, prefix.strip("/"), scheme)


def _check_secrets(uri: str, scheme: str, rest: str) -> None:
    """Refuse what is often a secret: the URI is shown in the status and in logs.

    Raises:
        InvalidSettingsError
    """
    is_web = scheme in ("http", "https")
    if re.search(r"[?#]" if is_web else r"\?[A-Za-z0-9_.%-]+=", rest):
        raise InvalidSettingsError(
            f"{shown_uri(uri)}: a storage URI takes no query; give {_CREDENTIALS[scheme]} as"
            " credentials"
        )
    # A password may hold a slash, and what comes before it then looks like a host with a port.
    host, _, path = rest.partition("/")
    if "@" in host or (is_web and "@" in path and re.search(r"^[^[]*:(?!\d*$)", host)):
        raise InvalidSettingsError(
            f"{shown_uri(uri)} is no storage URI, which takes neither user nor password; write"
            f" {_EXAMPLES[scheme]}, and give {_CREDENTIALS[scheme]} as credentials"
        )


def _check_host(uri: str, bucket: str) -> None:
    """Judge a host with its port, before anything connects to it.

    Raises:
        InvalidSettingsError
    """
    try:
        parts = urlsplit(f"http://{bucket}")
        host, port = parts.hostname or "", parts.port
        host.encode("idna")
        if bucket.startswith("["):
            ipaddress.IPv6Address(host)
    except ValueError as error:
        raise InvalidSettingsError(f"{shown_uri(uri)} names no host with a port: {error}") from None
    if not host or port == 0:
        raise InvalidSettingsError(f"{shown_uri(uri)} names no host with a port")
