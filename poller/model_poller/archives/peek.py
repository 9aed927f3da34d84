"""What an archive holds, from a few bytes of it, before all of it is fetched."""

from __future__ import annotations

import io
import logging
import re
from itertools import islice
from typing import IO, TYPE_CHECKING, Any, Final

from model_poller.archives import untar, unzip
from model_poller.archives.compression import gunzip, plain, unzstd
from model_poller.archives.paths import is_noise
from model_poller.errors import PollerError
from model_poller.retry import Deadline
from model_poller.versions import parse_number

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from model_poller.stores import Source, StoredObject

_log = logging.getLogger(__name__)

MAX_BYTES: Final = 4 << 20
"""That are read for it: of a zip its directory, of any other archive the beginning."""
_MAX_PLAIN_BYTES: Final = 64 << 20
_MAX_NAMES: Final = 10_000
_SECONDS = 60.0
_READ_BYTES: Final = 64 << 10
_GRAPH: Final = re.compile(r"(?:[0-9]+/)?saved_model\.pb(?:txt)?")
_PART: Final = re.compile(r"(?:[0-9]+/)?(?:variables|assets|assets\.extra)(?:/.*)?", re.DOTALL)


def names(source: Source, stored: StoredObject) -> list[str]:
    """Names of files in a stored archive, as many as the beginning or a directory at the end show.

    None of one that is damaged or hostile: only who unpacks it judges it.

    Raises:
        ObjectChangedError, AccessDeniedError, UnreachableError
    """
    found: list[str] = []
    if not stored.in_ranges and stored.size > MAX_BYTES:
        return found
    try:
        with io.BufferedReader(_Stored(source, stored), _READ_BYTES) as bundle:
            for name in islice(_names(bundle, stored), _MAX_NAMES):
                bare = re.sub(r"^(?:\./+)+", "", name)
                if bare.strip("./") and not is_noise(bare):
                    found.append(bare)
    except PollerError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever these libraries raise on such bytes
        _log.debug("%s can't be looked into: %r", stored.url, error)
    return found


def number(held: list[str]) -> int | None:
    """The version whose folder is all that an archive holds; None where it isn't one folder."""
    tops = {name.partition("/")[0] for name in held}
    is_folder = any("/" in name for name in held)
    return parse_number(next(iter(tops))) if len(tops) == 1 and is_folder else None


def is_model(held: list[str], path: str) -> bool:
    """Whether it is a SavedModel's archive, as far as its names tell."""
    if any(_GRAPH.fullmatch(name) for name in held):
        return True
    # Of a tar, only the first names are known.
    return not path.endswith(".zip") and any(_PART.fullmatch(name) for name in held)


def _names(bundle: IO[bytes], stored: StoredObject) -> Iterable[str]:
    # As they are read when it is unpacked: Python's own readers see less in some archives, and
    # some of its releases take hours over a header of a few bytes.
    if stored.path.endswith(".zip"):
        return unzip.names(bundle, stored.size)
    return untar.names(_plain(bundle, stored.path), _MAX_PLAIN_BYTES)


def _plain(bundle: IO[bytes], path: str) -> Iterator[bytes]:
    if path.endswith((".zst", ".tzst")):
        return unzstd(bundle, lambda _: None)
    return gunzip(bundle) if path.endswith((".gz", ".tgz")) else plain(bundle)


class _Stored(io.RawIOBase):
    """A stored object as a file; the end comes after `MAX_BYTES` at the latest."""

    def __init__(self, source: Source, stored: StoredObject) -> None:
        super().__init__()
        self._source = source
        self._stored = stored
        self._position = 0
        self._left = MAX_BYTES
        self._deadline = Deadline(_SECONDS, f"looking into {stored.url}")
        # Whole where a server gives no part of it.
        self._content = b"" if stored.in_ranges else self._read(0, stored.size)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._stored.size}
        self._position = max(0, start[whence] + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        length = min(len(buffer), self._stored.size - self._position, self._left)
        if length <= 0:
            return 0
        if self._stored.in_ranges:
            piece = self._read(self._position, length)
        else:
            piece = self._content[self._position : self._position + length]
        buffer[: len(piece)] = piece
        self._position += len(piece)
        self._left -= len(piece)
        return len(piece)

    def _read(self, start: int, length: int) -> bytes:
        piece = memoryview(bytearray(length))
        done = 0
        with self._source.open_range(self._stored, start, length) as body:
            while done < length and (count := body.readinto(piece[done:])):
                done += count
                self._deadline.check()
        return bytes(piece[:done])
