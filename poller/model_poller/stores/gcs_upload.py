"""Writing to Google Cloud Storage, for who publishes versions."""

from __future__ import annotations

import base64
import io
import os
import re
from typing import IO, TYPE_CHECKING

import google_crc32c
from google.api_core.exceptions import (
    Forbidden,
    GoogleAPICallError,
    NotFound,
    PreconditionFailed,
    RetryError,
    Unauthorized,
)
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import GoogleAuthError
from google.cloud import storage
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
from google.cloud.storage.retry import DEFAULT_RETRY
from requests.exceptions import RequestException

from model_poller.errors import (
    AccessDeniedError,
    BucketNotFoundError,
    PollerError,
    UnreachableError,
    VersionExistsError,
)
from model_poller.stores.gcs import GcsSource
from model_poller.stores.google import key_file
from model_poller.stores.google_token import LibraryIdentity, find_credentials

if TYPE_CHECKING:
    from collections.abc import Callable

    from model_poller.stores.credentials import Credentials
    from model_poller.stores.uri import Location

SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"
CHUNK_BYTES = 32 << 20
"""Each is one request of a resumable upload; a multiple of 256 KiB."""
_TIMEOUT_SECONDS = 60.0
_RETRY_SECONDS = 60.0
_READ_BYTES = 1 << 20


class GcsUploads(GcsSource):
    """A folder of a bucket that can be written to."""

    def __init__(
        self,
        location: Location,
        *,
        endpoint: str | None,
        anonymous: bool,
        credentials: Credentials,
    ) -> None:
        """See `GcsSource`; the credentials have to allow writing."""
        found = (
            AnonymousCredentials() if anonymous else find_credentials(key_file(credentials), SCOPE)
        )
        super().__init__(
            [location],
            endpoint=endpoint,
            anonymous=anonymous,
            credentials=credentials,
            identity=LibraryIdentity(found),
        )
        self._bucket = location.bucket
        # Else the library looks up the bucket for traces that nobody reads.
        os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")
        self._writer = storage.Client(
            project="unused",
            credentials=found,
            client_options={"api_endpoint": endpoint} if endpoint else None,
        )

    def close(self) -> None:
        """Close all connections."""
        super().close()
        self._writer.close()

    def put_new(
        self, name: str, content: IO[bytes], size: int, *, progress: Callable[[int], None]
    ) -> None:
        """Store an object, and never over another one; half of it is never seen.

        ``progress`` gets the number of bytes just sent.

        Raises:
            VersionExistsError: there is an object of this name.
            BucketNotFoundError, AccessDeniedError, UnreachableError
        """
        where = f"gs://{self._bucket}/{name}"
        begin = content.tell()
        blob = self._writer.bucket(self._bucket).blob(
            name, chunk_size=CHUNK_BYTES if size > CHUNK_BYTES else None
        )
        # With its checksum an object is refused whose bytes are others.
        blob.crc32c = base64.b64encode(_checksum(content).to_bytes(4, "big")).decode()
        content.seek(begin)
        try:
            blob.upload_from_file(
                _Told(content, progress),
                size=size,
                content_type="application/octet-stream",
                if_generation_match=0,
                checksum="crc32c",
                timeout=_TIMEOUT_SECONDS,
                # Nothing is stored twice under the precondition.
                retry=DEFAULT_RETRY.with_timeout(_RETRY_SECONDS),
            )
        except PreconditionFailed as error:
            raise VersionExistsError(f"{where} is there already, and is not overwritten") from error
        except (
            GoogleAPICallError,
            RetryError,
            GoogleAuthError,
            RequestException,
            InvalidResponse,
            DataCorruption,
        ) as error:
            raise self._failed(where, error) from error

    def _failed(self, where: str, error: Exception) -> PollerError:
        # Of a resumable upload the query is all that is needed to go on with it.
        told = re.sub(r"\?\S*", "?…", (str(error).splitlines() or [type(error).__name__])[0])[:300]
        if isinstance(error, NotFound):
            return BucketNotFoundError(
                f"the bucket {self._bucket} does not exist; create it or correct the storage URI"
            )
        if isinstance(error, (Forbidden, Unauthorized)):
            return AccessDeniedError(
                f"{self.principal} lacks storage.objects.create on {where}; grant"
                " roles/storage.objectCreator on the bucket"
            )
        return UnreachableError(f"storing {where} failed ({told})")


class _Told(io.RawIOBase):
    """A file that tells how far it was read."""

    def __init__(self, content: IO[bytes], progress: Callable[[int], None]) -> None:
        super().__init__()
        self._content = content
        self._progress = progress

    def read(self, size: int = -1) -> bytes:
        piece = self._content.read(size)
        self._progress(len(piece))
        return piece

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        before = self._content.tell()
        position = self._content.seek(offset, whence)
        self._progress(position - before)
        return position

    def tell(self) -> int:
        return self._content.tell()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True


def _checksum(content: IO[bytes]) -> int:
    checksum = 0
    while piece := content.read(_READ_BYTES):
        checksum = google_crc32c.extend(checksum, piece)
    return checksum
