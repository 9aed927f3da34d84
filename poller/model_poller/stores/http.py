"""``https://`` and ``http://``: any web server that shows files.

The URI is a folder, which the server shows as a page of links (the index of nginx, Apache,
``python -m http.server`` and their like) or as a list in JSON; or it is such a list, as a file
``….json`` beside the versions; or it is one archive.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.parse import unquote

from model_poller.errors import InvalidSourceError
from model_poller.metrics import METRICS
from model_poller.stores import Entry, StoredObject
from model_poller.stores.credentials import without_secrets
from model_poller.stores.http_calls import unpacked
from model_poller.stores.one_place import OnePlace
from model_poller.stores.web_index import Odd, read_links, read_list
from model_poller.stores.web_site import Site
from model_poller.versions import ARCHIVE_ENDINGS, split_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

    from model_poller.stores import ByteRange
    from model_poller.stores.credentials import Credentials
    from model_poller.stores.http_calls import Answer
    from model_poller.stores.uri import Location
    from model_poller.stores.web_index import Shown

MAX_CALLS = 1000
"""For the folders of one version, and as many for its files: an index doesn't tell their sizes."""
_MAX_DEPTH = 8


class HttpSource(OnePlace):
    """Versions below one URL."""

    growing = True

    def __init__(self, location: Location, *, credentials: Credentials) -> None:
        """See `Site` for the credentials."""
        super().__init__(location)
        self._site = Site(location, credentials)
        self._is_archive = self.uri.endswith(ARCHIVE_ENDINGS)
        self._is_list = self.uri.endswith(".json")
        self._inside: tuple[str, int | None] = "", None
        """Of one archive: its generation, and the number of the folder that it holds."""
        self._unsized: dict[str, list[str]] = {}
        """Of the last list: paths whose sizes it doesn't tell, by what is right below the URI."""

    def close(self) -> None:
        """Close all connections."""
        self._site.close()

    def survey(self) -> Iterator[StoredObject | Entry]:
        """See `Source.survey`."""
        METRICS.source_requests.labels("list").inc()
        if self._is_archive:
            yield self._one_archive()
            return
        unsized: dict[str, list[str]] = {}
        folders, whole = dict[str, None](), set[str]()
        for shown in self._shown(""):
            top, _, below = shown.name.partition("/")
            if below:
                # The list has all files of all folders.
                whole.add(top)
            if shown.is_folder:
                folders[top] = None
            elif shown.size is not None:
                yield self._listed(shown, shown.name, shown.size)
            elif below:
                unsized.setdefault(top, []).append(shown.name)
            else:
                yield Entry(self._location, top, is_folder=False)
        self._unsized = unsized
        for top in {**folders, **unsized}:
            if top in unsized or top not in whole:
                yield Entry(self._location, top, is_folder=True)

    def files(self, entry: Entry) -> Iterator[StoredObject]:
        """See `Source.files`."""
        if not entry.is_folder:
            yield self._asked(entry.name)
        elif paths := self._unsized.get(entry.name):
            yield from self._sized(entry.name, paths)
        else:
            yield from self._walk(entry.name)

    def file(self) -> StoredObject:
        """The URI itself, as one file of any name.

        Raises:
            As `list`.
        """
        answer, _ = self._site.ask("HEAD", self.uri)
        folder, _, name = self._location.prefix.rpartition("/")
        return self._told(answer, replace(self._location, prefix=folder), unquote(name))

    def open_range(
        self, stored: StoredObject, start: int, length: int
    ) -> AbstractContextManager[ByteRange]:
        """See `Source.open_range`; only the bytes with the listed ETag or time are asked for."""
        return self._site.range(self._url(stored), _pin(stored.generation), start, length)

    def _url(self, stored: StoredObject) -> str:
        url = stored.url
        # The URI itself as the user quoted it.
        return self.uri if unquote(url) == unquote(self.uri) else url

    def _one_archive(self) -> StoredObject:
        answer, _ = self._site.ask("HEAD", self.uri)
        stored = self._told(answer, self._location, unquote(self.uri.rpartition("/")[2]))
        if split_path(stored.path):
            return stored
        if stored.generation != self._inside[0]:
            # Imported only when asked for: a poller pays memory for what it uses.
            from model_poller.archives import peek

            self._inside = stored.generation, peek.number(peek.names(self, stored))
        if (number := self._inside[1]) is not None:
            return replace(stored, version=number)
        return replace(stored, version=self._moment(answer))

    def _moment(self, answer: Answer) -> int:
        """The file is replaced in place, so its time tells its versions apart."""
        try:
            told = parsedate_to_datetime(answer.header("Last-Modified"))
            # A time without a zone is no other for a pod in another zone.
            moment = int((told if told.tzinfo else told.replace(tzinfo=UTC)).timestamp())
        except (ValueError, OverflowError):
            # The latter for a zone that no clock has.
            moment = -1
        if moment < 0:
            raise InvalidSourceError(
                f"{self.uri} has no Last-Modified that could number its versions; call the"
                " file N.zip, put a folder of that number into it, or let the server send the"
                " header"
            )
        return moment

    def _walk(self, top: str) -> Iterator[StoredObject]:
        """All files below a folder that the index shows."""
        folders, paths = [top], []
        # Grows while it is gone through.
        for number, folder in enumerate(folders):
            if number == MAX_CALLS:
                raise InvalidSourceError(
                    f"{self._location.child(top)} shows more than {MAX_CALLS} folders; give the"
                    " version as an archive, or one list of all files in JSON"
                )
            for shown in self._shown(folder):
                path = f"{folder}/{shown.name}"
                if not shown.is_folder and shown.size is not None:
                    yield self._listed(shown, path, shown.size)
                elif not shown.is_folder:
                    paths.append(path)
                elif path.count("/") < _MAX_DEPTH:
                    folders.append(path)
        yield from self._sized(top, paths)

    def _sized(self, top: str, paths: Sequence[str]) -> Iterator[StoredObject]:
        if len(paths) > MAX_CALLS:
            raise InvalidSourceError(
                f"{self._location.child(top)} shows {len(paths)} files without their sizes; give"
                " the version as an archive, or let the server show a list in JSON that has sizes"
            )
        for path in paths:
            yield self._asked(path)

    def _shown(self, folder: str) -> Sequence[Shown]:
        """What the server shows of a folder; empty for the URI itself."""
        url = self.uri if self._is_list and not folder else f"{self._location.child(folder)}"
        is_folder = folder or not self._is_list
        answer, url = self._site.ask("GET", f"{url.rstrip('/')}/" if is_folder else url)
        body = unpacked(answer)
        if not is_folder or "json" in answer.header("Content-Type"):
            # Where a redirect led to may hold what proves who asks.
            return read_list(body, without_secrets(url))
        return read_links(body.decode(errors="replace"), url)

    def _listed(self, shown: Shown, path: str, size: int) -> StoredObject:
        # A list doesn't tell whether ranges are given; the first question for one does.
        return StoredObject(
            self._location,
            path,
            size,
            shown.generation,
            in_ranges=self._site.gives_ranges,
            fault=shown.fault if isinstance(shown, Odd) else "",
        )

    def _asked(self, path: str) -> StoredObject:
        answer, _ = self._site.ask("HEAD", self._location.child(path))
        return self._told(answer, self._location, path)

    def _told(self, answer: Answer, root: Location, path: str) -> StoredObject:
        length = answer.header("Content-Length")
        if not length.isdecimal():
            raise InvalidSourceError(
                f"{root.child(path)} does not tell its Content-Length, without which nobody can see"
                " whether it arrived whole; let the server serve it as a plain file"
            )
        tag = answer.header("ETag")
        # A weak one may stay the same when bytes change.
        generation = tag if tag.startswith('"') else f"{answer.header('Last-Modified')}-{length}"
        return StoredObject(
            root,
            path,
            int(length),
            generation,
            # There are servers that promise ranges and give none.
            in_ranges=self._site.gives_ranges and answer.header("Accept-Ranges").lower() == "bytes",
            is_gzipped=answer.header("Content-Encoding") == "gzip",
        )


def _pin(generation: str) -> dict[str, str]:
    """The header that gets no bytes of another generation."""
    if generation.startswith('"'):
        return {"If-Match": generation}
    moment = generation.rpartition("-")[0]
    return {"If-Unmodified-Since": moment} if moment.endswith(" GMT") else {}
