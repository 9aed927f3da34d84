"""Writing to S3, for who publishes versions."""

from __future__ import annotations

import base64
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import quote

import google_crc32c

from model_poller.checks.crc32c import combine
from model_poller.errors import PollerError, UnreachableError, VersionExistsError
from model_poller.stores.aws import UNSIGNED_PAYLOAD
from model_poller.stores.http_calls import HttpCalls
from model_poller.stores.s3 import S3Source
from model_poller.stores.xml_answers import parse_xml, text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from model_poller.stores.http_calls import Answer

PART_BYTES = 64 << 20
"""S3 takes 10,000 parts, and no fewer than 5 MiB in one."""
_TIMEOUT_SECONDS = 120.0
"""Putting the parts of a large object together takes S3 a while."""


class S3Uploads(S3Source):
    """A folder of a bucket that can be written to."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        """See `S3Source`."""
        super().__init__(*arguments, **named)
        self._open: dict[str, str] = {}
        """Names of objects whose parts are sent, by the query that tells the upload."""

    def close(self) -> None:
        """Give up the uploads that are under way in other threads, and close all connections."""
        calls = HttpCalls(self._origin)
        for upload, name in self._open.copy().items():
            self._give_up(calls, name, upload)
        calls.close()
        super().close()

    def put_new(
        self, name: str, content: IO[bytes], size: int, *, progress: Callable[[int], None]
    ) -> None:
        """Store an object, and never over another one; half of it is never seen.

        ``progress`` gets the number of bytes just sent.

        Raises:
            VersionExistsError: there is an object of this name.
            BucketNotFoundError, AccessDeniedError, UnreachableError
        """
        calls = HttpCalls(self._origin, _TIMEOUT_SECONDS)
        try:
            if size <= PART_BYTES:
                body = content.read(size)
                told = {"If-None-Match": "*", **_checksum(google_crc32c.value(body))}
                self._require(self._send(calls, "PUT", name, "", told, body), name)
                progress(size)
            else:
                self._put_parts(calls, name, content, size, progress)
        finally:
            calls.close()

    def _put_parts(
        self,
        calls: HttpCalls,
        name: str,
        content: IO[bytes],
        size: int,
        progress: Callable[[int], None],
    ) -> None:
        kind = {"x-amz-checksum-algorithm": "CRC32C", "x-amz-checksum-type": "FULL_OBJECT"}
        begun = self._require(self._send(calls, "POST", name, "?uploads=", kind), name)
        told = parse_xml(begun.body)
        found = text(told, "UploadId") if told is not None else ""
        if not found:
            # What knows of no uploads would take each part, and what gives them up, for the object.
            raise UnreachableError(
                f"what was answered about {self._url(name)} begins no upload in parts; if it goes"
                " on so, correct the endpoint"
            )
        upload = f"uploadId={quote(found, safe='')}"
        self._open[upload] = name
        try:
            listed, whole = "", 0
            for number, start in enumerate(range(0, size, PART_BYTES), 1):
                part = content.read(min(PART_BYTES, size - start))
                checksum = google_crc32c.value(part)
                whole = combine(whole, checksum, len(part))
                query = f"?partNumber={number}&{upload}"
                answer = self._patiently(calls, "PUT", name, query, _checksum(checksum), part)
                # Some makers' servers want to be told each part's checksum once more.
                listed += (
                    f"<Part><ChecksumCRC32C>{_encoded(checksum)}</ChecksumCRC32C>"
                    f"<ETag>{self._require(answer, name).header('ETag')}</ETag>"
                    f"<PartNumber>{number}</PartNumber></Part>"
                )
                progress(len(part))
            ending = {
                "If-None-Match": "*",
                **_checksum(whole),
                "x-amz-checksum-type": "FULL_OBJECT",
            }
            body = f"<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>".encode()
            try:
                answer = self._send(calls, "POST", name, f"?{upload}", ending, body)
                ended = parse_xml(self._require(answer, name).body)
                # S3 may find the fault after it has said that all is well.
                if ended is None or ended.tag == "Error":
                    raise UnreachableError(f"storing {self._url(name)} failed; publish it again")
            except UnreachableError:
                if not self._has_become(calls, name, upload, size):
                    raise
        except BaseException:
            self._give_up(calls, name, upload)
            raise
        finally:
            self._open.pop(upload, None)

    def _has_become(self, calls: HttpCalls, name: str, upload: str, size: int) -> bool:
        """Whether an upload whose last answer got lost is an object by now; else it is given up.

        Not every maker's server tells a checksum, by which what is sent once more would be known
        for what is there. But nobody else knows of the upload, so where it is gone it was ended.
        """
        with suppress(PollerError):
            ended = self._patiently(calls, "DELETE", name, f"?{upload}", {}, b"")
            if ended.status == 404:
                there = self._ask("HEAD", name)
                return there.status == 200 and there.header("Content-Length") == str(size)
        return False

    def _give_up(self, calls: HttpCalls, name: str, upload: str) -> None:
        # Parts that belong to nothing are paid for too.
        with suppress(PollerError):
            self._patiently(calls, "DELETE", name, f"?{upload}", {}, b"")

    def _send(
        self,
        calls: HttpCalls,
        method: str,
        name: str,
        query: str,
        headers: Mapping[str, str],
        body: bytes = b"",
    ) -> Answer:
        return calls.send(method, *self._prepared(method, name, query, headers), body)

    def _patiently(
        self,
        calls: HttpCalls,
        method: str,
        name: str,
        query: str,
        headers: Mapping[str, str],
        body: bytes,
    ) -> Answer:
        return calls.ask(method, lambda: self._prepared(method, name, query, headers), body)

    def _prepared(
        self, method: str, name: str, query: str, headers: Mapping[str, str]
    ) -> tuple[str, Mapping[str, str]]:
        target = self.target(name) + query
        given = {"Content-Type": "application/octet-stream", **headers}
        url = self._origin + target
        return target, self._identity.sign("s3", method, url, given, payload=UNSIGNED_PAYLOAD)

    def _require(self, answer: Answer, name: str) -> Answer:
        where = self._url(name)
        if answer.status == 412:
            raise VersionExistsError(f"{where} is there already, and is not overwritten")
        if answer.status == 409:
            raise UnreachableError(f"{where} is being written by somebody else; publish it again")
        if answer.status != 200:
            raise self._refused(answer, "s3:PutObject", where)
        return answer

    def _url(self, name: str) -> str:
        return f"s3://{self._location.bucket}/{name}"


def _checksum(crc32c: int) -> dict[str, str]:
    return {
        "x-amz-sdk-checksum-algorithm": "CRC32C",
        "x-amz-checksum-crc32c": _encoded(crc32c),
    }


def _encoded(crc32c: int) -> str:
    return base64.b64encode(crc32c.to_bytes(4, "big")).decode()
