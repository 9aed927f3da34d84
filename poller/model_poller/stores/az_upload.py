"""Writing to Azure Blob Storage, for who publishes versions."""

from __future__ import annotations

import base64
import hashlib
import secrets
from functools import partial
from typing import IO, TYPE_CHECKING
from urllib.parse import quote

from model_poller.errors import VersionExistsError
from model_poller.stores.az import AzureSource
from model_poller.stores.http_calls import HttpCalls

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from model_poller.stores.http_calls import Answer

BLOCK_BYTES = 64 << 20
"""Azure takes 50,000 blocks."""
_TIMEOUT_SECONDS = 120.0


class AzureUploads(AzureSource):
    """A folder of a container that can be written to."""

    def put_new(
        self, name: str, content: IO[bytes], size: int, *, progress: Callable[[int], None]
    ) -> None:
        """Store a blob, and never over another one; half of it is never seen.

        ``progress`` gets the number of bytes just sent.

        Raises:
            VersionExistsError: there is a blob of this name.
            BucketNotFoundError, AccessDeniedError, UnreachableError
        """
        calls = HttpCalls(self._origin, _TIMEOUT_SECONDS)
        only_new = {"If-None-Match": "*"}
        try:
            if size <= BLOCK_BYTES:
                body = content.read(size)
                md5 = hashlib.md5(body, usedforsecurity=False)
                told = {**only_new, "x-ms-blob-type": "BlockBlob", "Content-MD5": _base64(md5)}
                self._send(calls, name, "", told, body)
                progress(size)
                return
            # Whoever else writes this blob at the same time names other blocks.
            ours, whole, listed = secrets.token_hex(8), hashlib.md5(usedforsecurity=False), ""
            for number, start in enumerate(range(0, size, BLOCK_BYTES)):
                body = content.read(min(BLOCK_BYTES, size - start))
                whole.update(body)
                md5 = hashlib.md5(body, usedforsecurity=False)
                block = base64.b64encode(f"{ours}-{number:05d}".encode()).decode()
                query = f"?comp=block&blockid={quote(block, safe='')}"
                self._send(calls, name, query, {"Content-MD5": _base64(md5)}, body, patient=True)
                listed += f"<Latest>{block}</Latest>"
                progress(len(body))
            told = {**only_new, "x-ms-blob-content-md5": _base64(whole)}
            self._send(
                calls, name, "?comp=blocklist", told, f"<BlockList>{listed}</BlockList>".encode()
            )
        finally:
            calls.close()

    def _send(
        self,
        calls: HttpCalls,
        name: str,
        query: str,
        headers: Mapping[str, str],
        body: bytes,
        *,
        patient: bool = False,
    ) -> Answer:
        url = f"{self._origin}{self.target(name)}{query}"
        given = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(len(body)),
            **headers,
        }
        prepare = partial(self._identity.prove, "PUT", url, given)
        answer = calls.ask("PUT", prepare, body) if patient else calls.send("PUT", *prepare(), body)
        where = f"az://{self._location.bucket}/{name}"
        if answer.status in (409, 412):
            raise VersionExistsError(f"{where} is there already, and is not overwritten")
        if answer.status != 201:
            raise self._refused(answer, "write", where)
        return answer


def _base64(digest: hashlib._Hash) -> str:
    return base64.b64encode(digest.digest()).decode()
