"""``az://``: Azure Blob Storage and what speaks its API."""

from __future__ import annotations

import base64
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlencode, urlsplit

from model_poller.errors import (
    AccessDeniedError,
    BucketNotFoundError,
    ObjectChangedError,
    PollerError,
    UnreachableError,
)
from model_poller.metrics import METRICS
from model_poller.stores import StoredObject
from model_poller.stores.azure import AzureIdentity
from model_poller.stores.http_calls import Answer, HttpCalls, as_answer, unexpected
from model_poller.stores.http_ranges import Asked, HttpRanges, RefusedError, pin, ranged
from model_poller.stores.one_place import Bucket, OnePlace, Page
from model_poller.stores.xml_answers import parse_xml, size, text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager
    from xml.etree.ElementTree import Element

    from model_poller.stores import ByteRange
    from model_poller.stores.credentials import Credentials
    from model_poller.stores.uri import Location

PAGE = 5000
"""Blobs in an answer; the most that Azure gives."""
_MD5_BYTES = 16
_READER = "Storage Blob Data Reader on the container, or the permissions r and l"
_GRANTS = {
    "list": _READER,
    "read": _READER,
    "write": "Storage Blob Data Contributor on the container, or the permission c",
}


class AzureSource(OnePlace, Bucket):
    """Versions in one folder of a container."""

    def __init__(
        self,
        location: Location,
        *,
        endpoint: str | None,
        account: str | None,
        anonymous: bool,
        credentials: Credentials,
    ) -> None:
        """``endpoint`` replaces the account's own; an emulator's has the account in its path.

        Raises:
            InvalidSettingsError: neither an endpoint nor an account is named.
        """
        OnePlace.__init__(self, location)
        Bucket.__init__(self)
        self._identity = AzureIdentity(credentials, account, anonymous=anonymous)
        parts = urlsplit((endpoint or self._identity.endpoint).rstrip("/"))
        self._origin = f"{parts.scheme}://{parts.netloc}"
        self._root = f"{parts.path}/{location.bucket}"
        self._calls = HttpCalls(self._origin)
        self._ranges = HttpRanges(self._origin)

    def close(self) -> None:
        """Close all connections."""
        self._calls.close()
        self._ranges.close()

    def _pages(self, root: Location, folder: str, *, into: bool) -> Iterator[Page]:
        """See `Bucket._pages`."""
        prefix = root.key("")
        query = {"restype": "container", "comp": "list", "include": "metadata"}
        query |= {"maxresults": str(PAGE)}
        query |= {"prefix": prefix + folder} if prefix + folder else {}
        query |= {} if into else {"delimiter": "/"}
        while True:
            METRICS.source_requests.labels("list").inc()
            url = f"{self._origin}{self._root}?{urlencode(query, quote_via=quote)}"
            answer = self._calls.ask("GET", partial(self._identity.prove, "GET", url, {}))
            if answer.status != 200:
                raise self._refused(answer, "list", self.uri)
            page = parse_xml(answer.body)
            if page is None or page.tag != "EnumerationResults":
                raise UnreachableError(f"what was answered about {self.uri} is no listing")
            following = text(page, "NextMarker")
            yield Page(
                [
                    _stored(root, blob)
                    for blob in page.iter("Blob")
                    if not _is_folder(blob) and _name(blob).startswith(prefix + folder)
                ],
                [
                    _name(shown).removeprefix(prefix).removesuffix("/")
                    for shown in page.iter("BlobPrefix")
                ],
                is_last=not following,
            )
            if not following:
                return
            if following == query.get("marker"):
                raise UnreachableError(f"the listing of {self.uri} does not go on where it should")
            query["marker"] = following

    def open_range(
        self, stored: StoredObject, start: int, length: int
    ) -> AbstractContextManager[ByteRange]:
        """See `Source.open_range`."""
        return self._open(stored, start, length, *self._range(stored, start, length), None)

    def ask(self, stored: StoredObject) -> Asked:
        """See `AsksAhead.ask`."""
        return self._ranges.ask(*self._range(stored, 0, stored.size), stored.size)

    def open_asked(self, stored: StoredObject, asked: Asked) -> AbstractContextManager[ByteRange]:
        """See `AsksAhead.open_asked`."""
        return self._open(stored, 0, stored.size, asked.target, asked.headers, asked)

    def _range(
        self, stored: StoredObject, start: int, length: int
    ) -> tuple[str, Mapping[str, str]]:
        # The range, too, is part of what a shared key signs.
        wanted = ranged(pin(stored.generation), start, length)
        url = f"{self._origin}{self.target(stored.root.key(stored.path))}"
        return self._identity.prove("GET", url, wanted)

    @contextmanager
    def _open(
        self,
        stored: StoredObject,
        start: int,
        length: int,
        target: str,
        headers: Mapping[str, str],
        asked: Asked | None,
    ) -> Iterator[ByteRange]:
        METRICS.source_requests.labels("get").inc()
        try:
            with self._ranges.get(target, headers, start, length, asked) as body:
                yield body
        except RefusedError as refusal:
            raise self._refused(as_answer(refusal), "read", stored.url) from refusal

    def target(self, name: str) -> str:
        """The path by which the server knows a blob."""
        return f"{self._root}/{quote(name, safe='/~')}"

    def _refused(self, answer: Answer, wanted: str, where: str) -> PollerError:
        status, told = answer.status, parse_xml(answer.body)
        code = text(told, "Code") if told is not None else ""
        if code == "ContainerNotFound" or (status == 404 and wanted == "list"):
            return BucketNotFoundError(
                f"the container {self._location.bucket} does not exist, or is not public to an"
                f" anonymous caller; create it or correct the storage URI {self.uri}"
            )
        if status in (404, 412, 416):
            return ObjectChangedError(where)
        if status in (401, 403) or code == "PublicAccessNotPermitted":
            who = self._identity.principal
            self._identity.forget()
            return AccessDeniedError(
                f"{who} may not {wanted} {where} ({code or status}); grant {_GRANTS[wanted]} to a"
                " shared access signature"
            )
        return unexpected(
            f"asking for {where} was answered {status} {code}".rstrip() + "; it is tried again",
            answer,
        )


def _stored(root: Location, blob: Element) -> StoredObject:
    told, fault = size(blob, "Content-Length")
    return StoredObject(
        root=root,
        path=_name(blob).removeprefix(root.key("")),
        size=told,
        generation=text(blob, "Etag").strip('"'),
        md5=_md5(text(blob, "Content-MD5")),
        is_gzipped=text(blob, "Content-Encoding") == "gzip",
        fault=fault,
    )


def _md5(told: str) -> bytes | None:
    # Whoever uploads a blob in blocks may write there what they like.
    try:
        md5 = base64.b64decode(told, validate=True)
    except ValueError:
        return None
    return md5 if len(md5) == _MD5_BYTES else None


def _is_folder(blob: Element) -> bool:
    # With a hierarchical namespace, folders are listed as if they were blobs.
    return any(
        element.tag.lower() == "hdi_isfolder" and (element.text or "").lower() == "true"
        for element in blob.iter()
    )


def _name(blob: Element) -> str:
    name = blob.find("Name")
    if name is None:
        return ""
    told = name.text or ""
    # Names that XML can't hold come encoded.
    return unquote(told) if name.get("Encoded") == "true" else told
