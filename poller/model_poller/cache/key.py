"""The name of a version in a cache: everything that tells its bytes from others; pure."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from model_poller.stores import StoredObject
    from model_poller.stores.opening import SourceSettings
    from model_poller.versions import StoredVersion

KEY: Final = re.compile(r"[0-9]{1,19}-[0-9a-f]{40}")
_CACHED: Final = frozenset({"gs", "s3", "az", "http", "https"})
"""What lies on a file system is read where it is."""


def server(settings: SourceSettings) -> str:
    """Which of all servers of its kind a source asks: buckets of one name may be on several.

    Raises:
        InvalidSettingsError: nothing tells which, so the source can't be opened either.
    """
    credentials = settings.credentials
    scheme = settings.locations[0].scheme if settings.locations else "gs"
    told = [settings.endpoint or ""]
    if scheme == "s3":
        told += [
            credentials.get("AWS_ENDPOINT_URL_S3") or credentials.get("AWS_ENDPOINT_URL") or ""
        ]
    if scheme == "az":
        # Imported by the source already.
        from model_poller.stores.azure import AzureIdentity

        identity = AzureIdentity(credentials, settings.azure_account, anonymous=True)
        told += [identity.account or ""]
        if not settings.endpoint:
            # A connection string with a shared access signature names no account.
            told += [identity.endpoint]
    return "\0".join(told)


def key(stored: StoredVersion, server: str) -> str | None:
    """The name of a version's entry; None for one whose bytes nothing tells from others.

    The digest is over more than the fingerprint that pods are told: that has 64 bits, and no store.
    """
    if not stored.objects or not all(map(_is_identified, stored.objects)):
        return None
    digest = hashlib.sha256(f"{server}\0{stored.version}\0{stored.fingerprint}\n".encode())
    for member in sorted(stored.objects, key=lambda o: (o.root, o.path)):
        md5 = member.md5.hex() if member.md5 else ""
        line = (
            f"{member.root.uri}/{member.path}\0{member.generation}\0{member.size}\0"
            f"{member.crc32c}\0{md5}\n"
        )
        digest.update(line.encode(errors="surrogatepass"))
    return f"{stored.version}-{digest.hexdigest()[:40]}"


def _is_identified(stored: StoredObject) -> bool:
    """Whether its validator differs after an overwrite.

    A web server may tell no more than a size, or a weak ETag, which stays the same for other bytes.
    """
    if stored.root.scheme not in _CACHED or not stored.generation:
        return False
    if stored.root.scheme in ("http", "https"):
        return not stored.generation.startswith(("-", "W/"))
    return True
