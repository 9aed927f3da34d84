"""Warm-up requests that a user gives once, for versions that bring none of their own.

TF Serving replays ``assets.extra/tf_serving_warmup_requests`` before it serves a version, and fails
the load of one whose file is not a TFRecord of at most 1000 records. That would quarantine every
version for the fault of one file beside them, so the file is checked before it is put into one.

While the file can't be had, versions wait and what is served stays: a version that is served cold
answers its first requests late, which is what the file was given against.
"""

from __future__ import annotations

import shutil
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from model_poller.errors import (
    InsufficientDiskError,
    InvalidSettingsError,
    PollerError,
    StoppedError,
    WarmupUnavailableError,
)
from model_poller.fetch import download
from model_poller.model_server.records import FILE, FOLDER, MAX_BYTES, check
from model_poller.retry import LISTING_SECONDS, Deadline
from model_poller.stores import StoredObject
from model_poller.stores.credentials import shown_uri
from model_poller.stores.opening import SourceSettings, open_source
from model_poller.stores.uri import Location, parse_uri

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from model_poller.archives.unpacking import Room
    from model_poller.stores import Source
    from model_poller.stores.http import HttpSource

_READ_BYTES = 1 << 20


def locate(text: str, settings: SourceSettings) -> Path | Location:
    """Read where the file is: a path, or a storage URI of one file.

    Raises:
        InvalidSettingsError
    """
    if "://" not in text:
        return Path(text)
    location = parse_uri(text)
    if not location.prefix:
        raise InvalidSettingsError(
            f"{shown_uri(text)} names no file; write the URI of the file itself"
        )
    if location.scheme == "file":
        return Path("/", location.prefix)
    if location.scheme == "pvc":
        claims = [own.bucket for own in settings.locations if own.scheme == "pvc"]
        if not settings.mount or location.bucket not in claims:
            raise InvalidSettingsError(
                f"{shown_uri(text)} lies on a claim that is not mounted here; put the file beside"
                " the versions, or give another URI"
            )
        return settings.mount / location.prefix
    return location


class WarmupRequests:
    """The file that versions get; it is read anew for each."""

    def __init__(
        self,
        where: Path | Location,
        settings: SourceSettings,
        opener: Callable[[SourceSettings], Source] = open_source,
    ) -> None:
        self._where = where
        self._settings = settings
        self._opener = opener

    def put(self, model: Path, *, room: Room, stopped: threading.Event) -> None:
        """Put the file into a version that is not published yet; its own file wins.

        Raises:
            WarmupUnavailableError: the file can't be read, or is not what TF Serving takes.
            InsufficientDiskError, StoppedError, OSError
        """
        target = model / FOLDER / FILE
        if target.exists():
            return
        target.parent.mkdir(exist_ok=True)
        try:
            if isinstance(self._where, Location):
                self._fetch(self._where, target, room, stopped)
            else:
                self._copy(self._where, target, room)
            check(target)
        except BaseException as error:
            target.unlink(missing_ok=True)
            if isinstance(error, ValueError):
                why = f"{error}; write PredictionLogs with tf.io.TFRecordWriter"
                raise self._unavailable(why) from error
            raise

    def _copy(self, path: Path, target: Path, room: Room) -> None:
        try:
            with path.open("rb") as source:
                size = path.stat().st_size
                self._check_size(size)
                room(size)
                with target.open("xb") as copy:
                    shutil.copyfileobj(source, copy, _READ_BYTES)
        except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
            raise self._unavailable(error.strerror) from error

    def _fetch(
        self, location: Location, target: Path, room: Room, stopped: threading.Event
    ) -> None:
        try:
            with closing(self._open(location)) as source:
                found = self._find(location, source)
                self._check_size(found.size)
                room(found.size)
                download(source, {target: found}, stopped=stopped, progress=lambda _: None)
        except (StoppedError, InsufficientDiskError, WarmupUnavailableError):
            raise
        except PollerError as error:
            raise self._unavailable(str(error)) from error

    def _open(self, location: Location) -> Source:
        own = self._settings
        if location.scheme not in ("http", "https"):
            location = replace(location, prefix=location.prefix.rpartition("/")[0])
        if own.locations and own.locations[0].scheme == location.scheme:
            return self._opener(replace(own, locations=(location,)))
        # An endpoint or a region is that of the versions' own store.
        return self._opener(SourceSettings(locations=(location,), credentials=own.credentials))

    def _find(self, location: Location, source: Source) -> StoredObject:
        if location.scheme in ("http", "https"):
            # The index of a web server is read for versions only.
            return cast("HttpSource", source).file()
        name = location.prefix.rpartition("/")[2]
        # It may lie beside versions, which are of no account.
        with Deadline(LISTING_SECONDS, f"listing {source.uri}"):
            for item in source.survey():
                if isinstance(item, StoredObject) and item.path == name:
                    return item
        raise self._unavailable("there is no such file")

    def _check_size(self, size: int) -> None:
        if size > MAX_BYTES:
            raise self._unavailable(f"it has {size} bytes, more than {MAX_BYTES}")

    def _unavailable(self, why: str | None) -> WarmupUnavailableError:
        where = self._where.uri if isinstance(self._where, Location) else self._where
        return WarmupUnavailableError(
            f"the warm-up requests {where} can't be used ({why}); new versions wait for them, what"
            " is served stays: correct the file, or configure none"
        )


def overlay(folder: Path, into: Path) -> None:
    """Make a folder that shows a version's files by links, with an ``assets.extra`` of its own.

    For a version that lies on a mounted volume and is not written to.
    """
    into.mkdir()
    for entry in folder.iterdir():
        if entry.name == FOLDER:
            (into / FOLDER).mkdir()
            for extra in entry.iterdir():
                (into / FOLDER / extra.name).symlink_to(extra)
        else:
            (into / entry.name).symlink_to(entry)
