"""``https://`` and ``http://``: any web server that shows files.

The URI is a folder, which the server shows as a page of links (the index of nginx, Apache,
``python -m http.server`` and their like) or as a list in JSON; or it is such a list, as a file
``….json`` beside the versions; or it is one archive.
"""

from __future__ import annotations

import base64
import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote, unquote, urljoin, urlsplit

import msgspec

from model_poller.errors import (
    AccessDeniedError,
    BucketNotFoundError,
    InvalidSourceError,
    ObjectChangedError,
    PollerError,
    UnreachableError,
)
from model_poller.metrics import METRICS
from model_poller.stores import StoredObject
from model_poller.stores.http_calls import Answer, HttpCalls, as_answer
from model_poller.stores.http_ranges import HttpRanges, RefusedError
from model_poller.stores.one_place import OnePlace
from model_poller.versions import ARCHIVE_ENDINGS, split_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from model_poller.stores import ByteRange
    from model_poller.stores.credentials import Credentials
    from model_poller.stores.uri import Location

MAX_CALLS = 1000
"""Of one look, for folders, and as many for files: an index doesn't tell their sizes."""
_MAX_DEPTH = 8
_MAX_HOPS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class _Entry(msgspec.Struct, frozen=True):
    """One file or folder of a list in JSON; nginx's ``autoindex_format json`` has this form."""

    name: str
    type: str = "file"
    """``file`` or ``directory``; names may have folders in them, too."""
    size: Annotated[int, msgspec.Meta(ge=0)] | None = None
    mtime: str = ""
    etag: str = ""

    @property
    def generation(self) -> str:
        """In double quotes, where it can be asked for: a weak ETag can't."""
        if not self.etag:
            return f"{self.mtime}-{self.size}"
        return self.etag if self.etag.startswith(('"', "W/")) else f'"{self.etag}"'


@dataclass(frozen=True, slots=True)
class _Found:
    """A file, as far as its folder's index tells."""

    path: str
    size: int | None
    generation: str


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.targets: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.targets += [value for name, value in attrs if name == "href" and value]


class HttpSource(OnePlace):
    """Versions below one URL."""

    growing = True

    def __init__(self, location: Location, *, credentials: Credentials) -> None:
        """Credentials are ``HTTP_BEARER_TOKEN``, or ``HTTP_USERNAME`` and ``HTTP_PASSWORD``."""
        super().__init__(location)
        self._credentials = credentials
        self._origin = f"{location.scheme}://{location.bucket}"
        self._lock = threading.Lock()
        self._calls: dict[str, HttpCalls] = {}
        self._ranges: dict[str, HttpRanges] = {}

    def close(self) -> None:
        """Close all connections."""
        for calls in self._calls.values():
            calls.close()
        for ranges in self._ranges.values():
            ranges.close()

    def list(self) -> list[StoredObject]:
        """See `Source.list`."""
        METRICS.source_requests.labels("list").inc()
        if self.uri.endswith(ARCHIVE_ENDINGS):
            return [self._one_archive()]
        found = list(self._walk())
        unknown = sum(file.size is None for file in found)
        if unknown > MAX_CALLS:
            raise InvalidSourceError(
                f"{self.uri} shows {unknown} files without their sizes; give versions as archives,"
                " or let the server show a list in JSON that has sizes"
            )
        return [self._stored(file) for file in found]

    def file(self) -> StoredObject:
        """The URI itself, as one file of any name.

        Raises:
            As `list`.
        """
        return self._told(self._ask("HEAD", self.uri), self.uri, self.uri.rpartition("/")[2])

    @contextmanager
    def open_range(self, stored: StoredObject, start: int, length: int) -> Iterator[ByteRange]:
        """See `Source.open_range`; only the bytes with the listed ETag or time are asked for."""
        METRICS.source_requests.labels("get").inc()
        url = stored.name
        pin = _pin(stored.generation)
        for _ in range(_MAX_HOPS):
            origin, target = _split(url)
            headers = {"Accept-Encoding": "identity", **pin, **self._authorization(origin)}
            try:
                with self._ranges_of(origin).get(target, headers, start, length) as body:
                    yield body
                    return
            except RefusedError as refusal:
                if refusal.status not in _REDIRECTS or not refusal.elsewhere:
                    answer = as_answer(refusal)
                    raise self._refused(answer, stored.url, ObjectChangedError) from refusal
                url = self._next_hop(url, refusal.elsewhere)
        raise UnreachableError(f"{stored.url} redirects more than {_MAX_HOPS} times")

    def _one_archive(self) -> StoredObject:
        answer = self._ask("HEAD", self.uri)
        name = self.uri.rpartition("/")[2]
        path = unquote(name)
        if not split_path(path):
            # The file is replaced in place, so its time tells its versions apart.
            try:
                moment = parsedate_to_datetime(answer.header("Last-Modified"))
            except ValueError:
                raise InvalidSourceError(
                    f"{self.uri} has no Last-Modified that could number its versions; call the"
                    " file N.zip, or let the server send the header"
                ) from None
            ending = next(e for e in ARCHIVE_ENDINGS if path.endswith(e))
            path = f"{int(moment.timestamp())}{ending}"
        return self._told(answer, self.uri, path)

    def _walk(self) -> Iterator[_Found]:
        """All files of versions, folder by folder."""
        folders = [""]
        # Grows while it is gone through.
        for number, folder in enumerate(folders):
            if number == MAX_CALLS:
                raise InvalidSourceError(
                    f"{self.uri} shows more than {MAX_CALLS} folders; give versions as archives, or"
                    " one list of all files in JSON"
                )
            for entry in self._entries(folder):
                path = folder + entry.name.removeprefix("./").rstrip("/")
                is_folder = entry.type == "directory" or entry.name.endswith("/")
                if not split_path(f"{path}/file" if is_folder else path):
                    continue
                if not is_folder:
                    yield _Found(path, entry.size, entry.generation)
                elif path.count("/") < _MAX_DEPTH:
                    folders.append(f"{path}/")

    def _entries(self, folder: str) -> Sequence[_Entry]:
        """What a folder shows; its path ends with a slash unless it is empty."""
        is_list = not folder and self.uri.endswith(".json")
        answer = self._ask("GET", self.uri if is_list else self._url(folder))
        body = answer.body.decode(errors="replace")
        if is_list or "json" in answer.header("Content-Type"):
            return self._json_entries(body)
        return self._links(body, self._url(folder))

    def _json_entries(self, body: str) -> Sequence[_Entry]:
        try:
            return msgspec.json.decode(body, type=tuple[_Entry, ...])
        except msgspec.DecodeError as error:
            raise InvalidSourceError(
                f"{self.uri} shows JSON that is no list of files ({error}); it should be"
                ' [{"name": "1/saved_model.pb", "size": 1234, "etag": "…"}, …]'
            ) from error

    def _links(self, page: str, url: str) -> Sequence[_Entry]:
        parser = _Links()
        parser.feed(page)
        names = []
        for target in parser.targets:
            absolute = urljoin(url, target.partition("#")[0].partition("?")[0])
            name = unquote(absolute.removeprefix(url))
            # Indexes also link to what is above them, and to themselves in another order.
            if absolute.startswith(url) and re.fullmatch(r"[^/]+/?", name) and name not in names:
                names.append(name)
        return tuple(map(_Entry, names))

    def _stored(self, file: _Found) -> StoredObject:
        url = self._url(file.path)
        if file.size is None:
            return self._told(self._ask("HEAD", url), url, file.path)
        return StoredObject(
            url=url,
            bucket=self._location.bucket,
            name=url,
            path=file.path,
            size=file.size,
            crc32c=None,
            generation=file.generation,
        )

    def _told(self, answer: Answer, url: str, path: str) -> StoredObject:
        length = answer.header("Content-Length")
        if not length.isdecimal():
            raise InvalidSourceError(
                f"{url} does not tell its Content-Length, without which nobody can see whether it"
                " arrived whole; let the server serve it as a plain file"
            )
        tag = answer.header("ETag")
        # A weak one may stay the same when bytes change.
        generation = tag if tag.startswith('"') else f"{answer.header('Last-Modified')}-{length}"
        return StoredObject(
            url=url,
            bucket=self._location.bucket,
            name=url,
            path=path,
            size=int(length),
            crc32c=None,
            generation=generation,
            in_ranges=answer.header("Accept-Ranges").lower() == "bytes",
        )

    def _ask(self, method: str, url: str) -> Answer:
        METRICS.source_requests.labels(method.lower()).inc()
        asked = url
        for _ in range(_MAX_HOPS):
            origin, target = _split(url)
            headers = {"Accept-Encoding": "identity", "Accept": "application/json, text/html, */*"}
            answer = self._calls_of(origin).ask(
                method,
                lambda target=target, origin=origin, headers=headers: (  # type: ignore[misc]
                    target,
                    {**headers, **self._authorization(origin)},
                ),
            )
            if answer.status == 200:
                return answer
            if answer.status not in _REDIRECTS:
                raise self._refused(answer, asked, self._missing)
            url = self._next_hop(url, answer.header("Location"))
        raise UnreachableError(f"{asked} redirects more than {_MAX_HOPS} times")

    def _next_hop(self, url: str, elsewhere: str) -> str:
        try:
            target = urljoin(url, elsewhere)
            scheme = urlsplit(target).scheme
        except ValueError as error:
            raise InvalidSourceError(f"{url} redirects to what is no URL ({error})") from None
        if scheme not in ("http", "https") or (self._location.scheme == "https" != scheme):
            raise InvalidSourceError(
                f"{url} redirects to {scheme}://, which is not followed; give the URI of where the"
                " files are"
            )
        return target

    def _authorization(self, origin: str) -> dict[str, str]:
        # Never to another server, whoever redirects there.
        if origin != self._origin:
            return {}
        if token := self._credentials.get("HTTP_BEARER_TOKEN"):
            return {"Authorization": f"Bearer {token}"}
        name, password = (self._credentials.get(f"HTTP_{n}") for n in ("USERNAME", "PASSWORD"))
        if name and password:
            encoded = base64.b64encode(f"{name}:{password}".encode()).decode()
            return {"Authorization": f"Basic {encoded}"}
        return {}

    @property
    def _principal(self) -> str:
        if self._credentials.get("HTTP_BEARER_TOKEN"):
            return "the bearer of HTTP_BEARER_TOKEN"
        return self._credentials.get("HTTP_USERNAME") or "an anonymous caller"

    def _refused(
        self, answer: Answer, where: str, gone: Callable[[str], PollerError]
    ) -> PollerError:
        if answer.status in (401, 403):
            return AccessDeniedError(
                f"{self._principal} may not read {where} ({answer.status}); allow it, or give"
                " HTTP_USERNAME and HTTP_PASSWORD or HTTP_BEARER_TOKEN"
            )
        if answer.status in (404, 410, 412, 416):
            return gone(where)
        return UnreachableError(
            f"reading {where} was answered {answer.status}; it is tried again", answer.retry_after
        )

    def _missing(self, where: str) -> PollerError:
        if where.rstrip("/") == self.uri:
            return BucketNotFoundError(
                f"there is nothing at {where}; correct the storage URI, or let the server show the"
                " folder's index"
            )
        return UnreachableError(f"{where} went away during the listing; it is tried again")

    def _url(self, path: str) -> str:
        prefix = self._location.prefix
        if prefix.endswith(".json"):
            prefix = prefix.rpartition("/")[0]
        prefix = f"{prefix}/" if prefix else ""
        return f"{self._origin}/{prefix}{quote(path)}"

    def _calls_of(self, origin: str) -> HttpCalls:
        with self._lock:
            return self._calls.setdefault(origin, HttpCalls(origin))

    def _ranges_of(self, origin: str) -> HttpRanges:
        with self._lock:
            return self._ranges.setdefault(origin, HttpRanges(origin))


def _pin(generation: str) -> dict[str, str]:
    """The header that gets no bytes of another generation."""
    if generation.startswith('"'):
        return {"If-Match": generation}
    moment = generation.rpartition("-")[0]
    return {"If-Unmodified-Since": moment} if moment.endswith(" GMT") else {}


def _split(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    query = f"?{parts.query}" if parts.query else ""
    return f"{parts.scheme}://{parts.netloc}", f"{parts.path or '/'}{query}"
