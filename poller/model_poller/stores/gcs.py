"""``gs://``: Google Cloud Storage and what speaks its JSON API.

The two calls of the API that a poller makes are made here, on the connections that all stores have:
google-cloud-storage, by which versions are uploaded, takes 36 MB more with what it imports, and a
fleet would pay that in each of its pods.
"""

from __future__ import annotations

import base64
import binascii
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

import msgspec

from model_poller.errors import (
    AccessDeniedError,
    BucketNotFoundError,
    ObjectChangedError,
    UnreachableError,
)
from model_poller.metrics import METRICS
from model_poller.stores import StoredObject
from model_poller.stores.google import Anonymous, GoogleIdentity
from model_poller.stores.http_calls import HttpCalls, as_answer, unexpected, unpacked
from model_poller.stores.http_ranges import Asked, HttpRanges, RefusedError
from model_poller.stores.one_place import Bucket, Page

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from contextlib import AbstractContextManager

    from model_poller.stores import ByteRange
    from model_poller.stores.credentials import Credentials
    from model_poller.stores.google import Identity
    from model_poller.stores.uri import Location

PUBLIC_ENDPOINT = "https://storage.googleapis.com"
SCOPE = "https://www.googleapis.com/auth/devstorage.read_only"
PAGE = 1000
"""Objects in an answer; the most that Google gives, and other makers' servers may give all."""
_LIST_FIELDS = "items(name,size,crc32c,generation,contentEncoding),prefixes,nextPageToken"
_PACKED = {"Accept-Encoding": "gzip", "User-Agent": "model_poller (gzip)"}
"""Google packs an answer only where both say so."""


class _Item(msgspec.Struct, rename="camel"):
    name: str
    size: int | str
    """Google writes 64 bits as a text."""
    generation: int | str | None = None
    crc32c: str | None = None
    content_encoding: str | None = None


class _Named(msgspec.Struct):
    name: str


class _Listing(msgspec.Struct, rename="camel"):
    items: list[msgspec.Raw] = []
    prefixes: list[str] = []
    next_page_token: str = ""


class _Fault(msgspec.Struct):
    message: str = ""


class _Refusal(msgspec.Struct):
    error: _Fault


_READ_NAME = msgspec.json.Decoder(_Named)
_READ_ITEM = msgspec.json.Decoder(_Item)


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
        identity: Identity | None = None,
    ) -> None:
        """``anonymous`` asks without credentials; ``endpoint`` replaces Google's own.

        ``identity`` asks instead of the one that the credentials name.

        Raises:
            InvalidSettingsError: no credentials are found.
        """
        super().__init__()
        self._locations = tuple(sorted(locations))
        self._calls = HttpCalls(endpoint or PUBLIC_ENDPOINT)
        self._ranges = HttpRanges(endpoint or PUBLIC_ENDPOINT)
        if identity is None and not anonymous:
            identity = GoogleIdentity(credentials, SCOPE)
            identity.begin()
        self._identity: Identity = identity or Anonymous()

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
        return self._identity.principal

    def close(self) -> None:
        """Close all connections."""
        self._calls.close()
        self._ranges.close()

    def _pages(self, root: Location, folder: str, *, into: bool) -> Iterator[Page]:
        """See `Bucket._pages`."""
        prefix = root.key("")
        query = {"fields": _LIST_FIELDS, "maxResults": str(PAGE), "prettyPrint": "false"}
        query |= {"prefix": prefix + folder} if prefix + folder else {}
        query |= {} if into else {"delimiter": "/"}
        while True:
            page = self._page(root, query)
            METRICS.source_requests.labels("list").inc()
            yield Page(
                _listed(root, prefix + folder, page.items),
                [name.removeprefix(prefix).removesuffix("/") for name in sorted(page.prefixes)],
                is_last=not page.next_page_token,
            )
            if not page.next_page_token:
                return
            if page.next_page_token == query.get("pageToken"):
                raise UnreachableError(f"the listing of {root.uri} does not go on where it should")
            query["pageToken"] = page.next_page_token

    def _page(self, root: Location, query: dict[str, str]) -> _Listing:
        target = f"/storage/v1/b/{quote(root.bucket, safe='')}/o?{urlencode(query)}"
        for is_last in (False, True):
            answer = self._calls.ask("GET", lambda: (target, {**_PACKED, **self._identity.prove()}))
            if answer.status != 401 or is_last:
                break
            # A token may be revoked before it expires.
            self._identity.forget()
        content = unpacked(answer)
        if answer.status == 200:
            try:
                return msgspec.json.decode(content, type=_Listing)
            except msgspec.MsgspecError as error:
                raise UnreachableError(
                    f"what was answered about {root.uri} is no listing ({error})"
                ) from error
        if answer.status == 404:
            raise BucketNotFoundError(
                f"the bucket {root.bucket} does not exist; create it or correct the storage"
                f" URI {root.uri}"
            )
        if answer.status in (401, 403):
            raise self._denied("storage.objects.list", root.uri, _told(content))
        raise unexpected(
            f"listing {root.uri} failed ({answer.status} {_told(content)}); it is tried again",
            answer,
        )

    def describe(self, stored: StoredObject) -> StoredObject:
        """See `Source.describe`: the listing has told all."""
        return stored

    def open_range(
        self, stored: StoredObject, start: int, length: int
    ) -> AbstractContextManager[ByteRange]:
        """See `Source.open_range`."""
        return self._open(stored, start, length, None)

    def ask(self, stored: StoredObject) -> Asked:
        """See `AsksAhead.ask`."""
        return self._ranges.ask(self._target(stored), self._identity.prove(), stored.size)

    def open_asked(self, stored: StoredObject, asked: Asked) -> AbstractContextManager[ByteRange]:
        """See `AsksAhead.open_asked`."""
        return self._open(stored, 0, stored.size, asked)

    def _target(self, stored: StoredObject) -> str:
        name = quote(stored.root.key(stored.path), safe="")
        # Google's own lists them; not every maker's server does.
        pinned = f"&generation={stored.generation}" if stored.generation else ""
        return (
            f"/download/storage/v1/b/{quote(stored.root.bucket, safe='')}/o/{name}"
            f"?alt=media{pinned}"
        )

    @contextmanager
    def _open(
        self, stored: StoredObject, start: int, length: int, asked: Asked | None
    ) -> Iterator[ByteRange]:
        METRICS.source_requests.labels("get").inc()
        target = asked.target if asked else self._target(stored)
        headers = asked.headers if asked else self._identity.prove()
        try:
            with self._ranges.get(target, headers, start, length, asked) as body:
                told = body.validators.get("x-goog-generation")
                if told:
                    if stored.generation not in ("", told):
                        raise ObjectChangedError(stored.url)
                    # Whatever else is told may change with the object's metadata.
                    body.validators = {"x-goog-generation": told}
                    body.is_listed = bool(stored.generation)
                yield body
        except RefusedError as refusal:
            if refusal.status in (404, 412, 416):
                raise ObjectChangedError(stored.url) from refusal
            if refusal.status == 401:
                self._identity.forget()
            if refusal.status in (401, 403):
                raise self._denied("storage.objects.get", stored.url, refusal.body) from refusal
            raise unexpected(
                f"reading {stored.url} was answered {refusal.status}", as_answer(refusal)
            ) from refusal

    def _denied(self, permission: str, where: str, detail: str) -> AccessDeniedError:
        # The store's own words name the principal even where the credentials don't.
        told = re.search(r"[\w.+-]+@[\w.-]+(?= does not have)", detail)
        return AccessDeniedError(
            f"{told[0] if told else self.principal} lacks {permission} on {where}; grant"
            " roles/storage.objectViewer on the bucket"
        )


def _listed(root: Location, prefix: str, items: list[msgspec.Raw]) -> list[StoredObject]:
    """What lies below a prefix.

    Raises:
        UnreachableError: something in it has no name.
    """
    found = []
    for item in items:
        try:
            name = _READ_NAME.decode(item).name
        except msgspec.MsgspecError as error:
            raise UnreachableError(
                f"what was answered about {root.uri} is no listing ({error})"
            ) from error
        if name.startswith(prefix):
            found.append(_stored(root, name.removeprefix(root.key("")), item))
    return found


def _stored(root: Location, path: str, told: msgspec.Raw) -> StoredObject:
    try:
        item = _READ_ITEM.decode(told)
        size = int(item.size)
        crc32c = int.from_bytes(base64.b64decode(item.crc32c), "big") if item.crc32c else None
        if size < 0:
            raise ValueError(f"a size of {size}")
    except (msgspec.MsgspecError, ValueError, binascii.Error) as error:
        return StoredObject(root, path, 0, "", fault=f"it is listed with what can't be ({error})")
    return StoredObject(
        root=root,
        path=path,
        size=size,
        generation=str(item.generation or ""),
        crc32c=crc32c,
        is_gzipped=item.content_encoding == "gzip",
    )


def _told(content: bytes) -> str:
    """What a refusal says, in Google's form or another."""
    try:
        told = msgspec.json.decode(content, type=_Refusal).error.message
    except msgspec.MsgspecError:
        told = content.decode(errors="replace")
    return (told.splitlines() or [""])[0][:300]
