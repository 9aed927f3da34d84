"""``gs://``: Google Cloud Storage and what speaks its JSON API."""

from __future__ import annotations

import base64
import os
import re
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import google.auth
from google.api_core.exceptions import (
    Forbidden,
    GoogleAPICallError,
    NotFound,
    Unauthorized,
)
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import (
    DefaultCredentialsError,
    GoogleAuthError,
    InvalidOperation,
    RefreshError,
)
from google.cloud import storage
from requests.exceptions import RequestException

from model_poller.errors import (
    AccessDeniedError,
    BucketNotFoundError,
    InvalidSettingsError,
    ObjectChangedError,
    PollerError,
    UnreachableError,
)
from model_poller.metrics import METRICS
from model_poller.stores import StoredObject
from model_poller.stores.google_http import GoogleHttp
from model_poller.stores.google_key import KeyFile
from model_poller.stores.http_ranges import HttpRanges, RefusedError
from model_poller.stores.one_place import Bucket, Page

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from model_poller.stores import ByteRange
    from model_poller.stores.credentials import Credentials
    from model_poller.stores.uri import Location

PUBLIC_ENDPOINT = "https://storage.googleapis.com"
SCOPE = "https://www.googleapis.com/auth/devstorage.read_only"
PAGE = 1000
"""Objects in an answer; the most that Google gives."""
_LIST_FIELDS = "items(name,size,crc32c,generation,contentEncoding),prefixes,nextPageToken"


class GcsSource(Bucket):
    """Versions in one or more places of Google Cloud Storage."""

    mount = None
    growing = False

    def __init__(
        self,
        locations: Iterable[Location],
        *,
        endpoint: str | None,
        anonymous: bool,
        credentials: Credentials,
    ) -> None:
        """``anonymous`` asks without credentials; ``endpoint`` replaces Google's own.

        Raises:
            InvalidSettingsError: no credentials are found.
        """
        super().__init__()
        self._locations = tuple(sorted(locations))
        self._lock = threading.Lock()
        self._ranges = HttpRanges(endpoint or PUBLIC_ENDPOINT)
        self._credentials = find_credentials(credentials, SCOPE, anonymous=anonymous)
        # Else the library looks up the bucket beside every listing, for traces that nobody reads.
        os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")
        self._http = GoogleHttp(self._credentials)
        self._client = storage.Client(
            project="unused",
            credentials=self._credentials,
            client_options={"api_endpoint": endpoint} if endpoint else None,
            _http=self._http.session,
        )

    @property
    def uri(self) -> str:
        """All places, joined by commas."""
        return ", ".join(location.uri for location in self._locations)

    @property
    def locations(self) -> tuple[Location, ...]:
        """Where it looks."""
        return self._locations

    @property
    def principal(self) -> str:
        """Who asks, as far as the credentials tell."""
        if isinstance(self._credentials, AnonymousCredentials):
            return "an anonymous caller"
        return str(
            getattr(self._credentials, "service_account_email", None)
            or getattr(self._credentials, "account", None)
            or "the caller"
        )

    def close(self) -> None:
        """Close all connections."""
        self._ranges.close()
        self._client.close()
        self._http.close()

    def _pages(self, root: Location, folder: str, *, into: bool) -> Iterator[Page]:
        """See `Bucket._pages`."""
        prefix = root.key("")
        try:
            blobs = self._client.list_blobs(
                root.bucket,
                prefix=prefix + folder or None,
                delimiter=None if into else "/",
                fields=_LIST_FIELDS,
                # Else other makers' servers may show all at once, however many there are.
                page_size=PAGE,
                # The connections have their own.
                retry=None,
            )
            shown: set[str] = set()
            for page in blobs.pages:
                METRICS.source_requests.labels("list").inc()
                # Of all pages so far.
                folders, shown = blobs.prefixes - shown, set(blobs.prefixes)
                yield Page(
                    [
                        StoredObject(
                            root=root,
                            path=blob.name.removeprefix(prefix),
                            size=int(blob.size),
                            generation=str(blob.generation),
                            crc32c=_crc32c(blob.crc32c),
                            is_gzipped=blob.content_encoding == "gzip",
                        )
                        for blob in page
                    ],
                    [name.removeprefix(prefix).removesuffix("/") for name in sorted(folders)],
                    is_last=not blobs.next_page_token,
                )
        except NotFound as error:
            raise BucketNotFoundError(
                f"the bucket {root.bucket} does not exist; create it or correct the storage"
                f" URI {root.uri}"
            ) from error
        except (Forbidden, Unauthorized, InvalidOperation) as error:
            # InvalidOperation: an anonymous caller was asked who it is.
            raise self._denied("storage.objects.list", root.uri, str(error)) from error
        except RefreshError as error:
            raise self._no_token(root.uri, error) from error
        except (GoogleAPICallError, GoogleAuthError, RequestException) as error:
            raise UnreachableError(
                f"listing {root.uri} failed ({_first_line(error)}); it is tried again"
            ) from error

    def describe(self, stored: StoredObject) -> StoredObject:
        """See `Source.describe`: the listing has told all."""
        return stored

    @contextmanager
    def open_range(self, stored: StoredObject, start: int, length: int) -> Iterator[ByteRange]:
        """See `Source.open_range`."""
        METRICS.source_requests.labels("get").inc()
        name = quote(stored.root.key(stored.path), safe="")
        target = (
            f"/download/storage/v1/b/{quote(stored.root.bucket, safe='')}/o/{name}"
            f"?alt=media&generation={stored.generation}"
        )
        headers: dict[str, str] = {}
        try:
            with self._lock:
                self._credentials.before_request(self._http.refresh, "GET", target, headers)
        except GoogleAuthError as error:
            raise self._no_token(stored.url, error) from error
        try:
            with self._ranges.get(target, headers, start, length) as body:
                told = body.validators.get("x-goog-generation")
                if told:
                    if told != stored.generation:
                        raise ObjectChangedError(stored.url)
                    # Whatever else is told may change with the object's metadata.
                    body.validators = {"x-goog-generation": told}
                    body.is_listed = True
                yield body
        except RefusedError as refusal:
            if refusal.status in (404, 412, 416):
                raise ObjectChangedError(stored.url) from refusal
            if refusal.status in (401, 403):
                raise self._denied("storage.objects.get", stored.url, refusal.body) from refusal
            raise UnreachableError(
                f"reading {stored.url} was answered {refusal.status}", refusal.retry_after
            ) from refusal

    def _no_token(self, where: str, error: GoogleAuthError) -> PollerError:
        if isinstance(error, RefreshError) and not error.retryable:
            return AccessDeniedError(
                f"the credentials of {self.principal} are refused ({_first_line(error)}), so"
                f" {where} can't be read; renew the key or the identity"
            )
        return UnreachableError(f"no access token for {where} ({_first_line(error)})")

    def _denied(self, permission: str, where: str, detail: str) -> AccessDeniedError:
        # The store's own words name the principal even where the credentials don't.
        told = re.search(r"[\w.+-]+@[\w.-]+(?= does not have)", detail)
        return AccessDeniedError(
            f"{told[0] if told else self.principal} lacks {permission} on {where}; grant"
            " roles/storage.objectViewer on the bucket"
        )


def find_credentials(credentials: Credentials, scope: str, *, anonymous: bool) -> Any:
    """Google's own chain, after a key file of the given ones.

    Raises:
        InvalidSettingsError: there are none.
    """
    if anonymous:
        return AnonymousCredentials()
    try:
        told = credentials.get("GOOGLE_APPLICATION_CREDENTIALS")
        if key := credentials.file("key.json") or (told and Path(told)):
            return KeyFile(key, scope)
        return google.auth.default(scopes=[scope])[0]
    except (DefaultCredentialsError, ValueError, OSError) as error:
        raise InvalidSettingsError(
            f"no Google credentials found ({_first_line(error)}); set"
            " GOOGLE_APPLICATION_CREDENTIALS to a key file, run with a service account that"
            " has an identity, or ask with --anonymous for a public bucket"
        ) from error


def _crc32c(encoded: str | None) -> int | None:
    return int.from_bytes(base64.b64decode(encoded), "big") if encoded else None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
