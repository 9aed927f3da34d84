"""Storing a version so that it is never seen half, and never over another one."""

from __future__ import annotations

import hashlib
import shutil
import time
from dataclasses import dataclass
from enum import Enum
from itertools import groupby
from typing import TYPE_CHECKING

import google_crc32c

from model_poller.checks import manifest
from model_poller.checks.integrity import GRAPH_FILES
from model_poller.errors import (
    CorruptUploadError,
    InvalidSettingsError,
    UnreachableError,
    VersionExistsError,
)
from model_poller.publishing import export, packing
from model_poller.publishing.destination import TakesFolders
from model_poller.publishing.ending import EndedError, answer_within, in_threads
from model_poller.retry import LISTING_SECONDS, Deadline, RetryPolicy, Tries
from model_poller.stores import Entry
from model_poller.versions import MAX_VERSION, parse_number, split_path

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping
    from pathlib import Path

    from model_poller.publishing.destination import Destination
    from model_poller.publishing.export import Proof
    from model_poller.stores import StoredObject
    from model_poller.stores.uri import Location

FOLDER = "folder"
_RACES = 20
"""So often another publisher may be faster before it is told as a failure."""
RETRIES = RetryPolicy(attempts=4, first_seconds=0.5, longest_seconds=30.0)
_THREADS = 8
_LAST_LOOK_SECONDS = 5.0
"""For a last question to the store once a signal has said to end."""
_READ_BYTES = 1 << 20
_MARKER_TURN = 4
"""See `Publisher._turn`."""


class Choice(Enum):
    """How a version's number is found."""

    NEXT = "next"
    TIMESTAMP = "timestamp"


@dataclass(frozen=True, slots=True)
class Published:
    """What was stored."""

    version: int
    uri: str
    bytes: int
    files: int
    """Objects that were stored."""


class Publisher:
    """Publishes one staged version.

    ``progress`` is called from several threads with the number of bytes just sent; ``say`` with
    what a person may want to know.
    """

    def __init__(
        self,
        destination: Destination,
        location: Location,
        form: str,
        proof: Proof,
        *,
        progress: Callable[[int], None],
        say: Callable[[str], None],
        exported: Path | None = None,
    ) -> None:
        """``form`` is one of `packing.FORMATS` or `FOLDER`; ``exported`` what was staged, for
        messages.
        """
        self._destination = destination
        self._location = location
        self._form = form
        self._proof = proof
        self._export = exported
        self._progress = progress
        self._say = say

    def publish(
        self, staged: Path, scratch: Path, wanted: int | Choice, *, dry_run: bool
    ) -> Published:
        """Choose a number and store the version under it.

        ``scratch`` is a folder with room for the archive.

        Raises:
            VersionExistsError: the wanted version is there, or others were always faster.
            CorruptUploadError: the store keeps something else than was sent, or a part of another
                export under the wanted number.
            BrokenVersionError, IncompleteVersionError: a poller would refuse it.
            BucketNotFoundError, AccessDeniedError, UnreachableError, OSError
        """
        for _ in range(_RACES):
            with self._in_time():
                version, part = self._choose(wanted)
            try:
                files = self._prepare(staged, scratch, version)
                size = sum(path.stat().st_size for path in files.values())
                self._check_part(part, files, version)
                if not dry_run:
                    self._say(f"storing {self._where(version)}: {size / 1e6:.1f} MB")
                    self._store(files, version, part)
            except VersionExistsError:
                if wanted is not Choice.NEXT:
                    raise
                self._say(f"version {version} was published by somebody else just now")
                continue
            return Published(version, self._where(version), size, len(files))
        raise VersionExistsError(
            f"{_RACES} versions in a row were published to {self._location.uri} by others first;"
            " try again later"
        )

    def _choose(self, wanted: int | Choice) -> tuple[int, dict[str, StoredObject]]:
        """A number, and what is there of it already if it is one to go on with."""
        named = self._named()
        highest, of_highest = None, []
        for number in sorted(named, reverse=True):
            if of_highest := self._stored(named[number]):
                highest = number
                break
        if wanted is Choice.NEXT:
            version = 1 if highest is None else highest + 1
            if self._part(of_highest):
                self._say(
                    f"a part of {self._where(version - 1)} is stored, which no poller takes;"
                    f" --version={version - 1} goes on with it if it is of this export"
                )
        elif wanted is Choice.TIMESTAMP:
            version = int(time.time())
        else:
            version = wanted
        if version > MAX_VERSION:
            raise InvalidSettingsError(
                f"there is no version above {MAX_VERSION}, which {self._location.uri} holds"
            )
        found = of_highest if version == highest else self._stored(named.get(version, ()))
        part = self._part(found) if isinstance(wanted, int) else {}
        if part:
            self._say(
                f"version {version} is there in part, as of a publisher that was ended; what lacks"
                " is added"
            )
        elif found:
            there = " and ".join(sorted({stored.root.child(top) for top, stored in found}))
            raise VersionExistsError(
                f"version {version} is there already: {there}; publish under another number"
            )
        if highest is not None and version < highest:
            self._say(
                f"version {version} is below {highest}, which is there, so that pollers which"
                " follow the newest version don't take it"
            )
        return version, part

    def _named(self) -> dict[int, list[tuple[str, StoredObject | Entry]]]:
        """What has the number of each version, and where: half of one has it too.

        What is in folders is looked up by `_stored`: what is in all of them is of no account.
        """
        named: dict[int, list[tuple[str, StoredObject | Entry]]] = {}
        for item in self._destination.survey():
            name = item.name if isinstance(item, Entry) else item.path
            is_folder = isinstance(item, Entry) and item.is_folder
            if parsed := split_path(f"{name}/file" if is_folder else name):
                top, number = parsed
                named.setdefault(number, []).append((top, item))
        return named

    def _stored(
        self, items: Iterable[tuple[str, StoredObject | Entry]]
    ) -> list[tuple[str, StoredObject]]:
        found: list[tuple[str, StoredObject]] = []
        for top, item in items:
            if isinstance(item, Entry):
                found += [(top, stored) for stored in self._destination.files(item)]
            else:
                found.append((top, item))
        return found

    def _there(self, version: int) -> list[tuple[str, StoredObject]]:
        """What is stored of one version, and where."""
        with self._in_time():
            return self._stored(self._named().get(version, ()))

    def _in_time(self) -> Deadline:
        return Deadline(LISTING_SECONDS, f"listing {self._location.uri}")

    def _part(self, there: Iterable[tuple[str, StoredObject]]) -> dict[str, StoredObject]:
        """What there is of a folder without its marker; empty of any other version."""
        found = {stored.path: stored for _, stored in there}
        (top, *others) = {top for top, _ in there} or {""}
        shown_at_once = isinstance(self._destination, TakesFolders)
        if self._form != FOLDER or not self._proof.marker or others or shown_at_once:
            return {}
        is_canonical = top == str(parse_number(top))
        return {} if f"{top}/{self._proof.marker}" in found or not is_canonical else found

    def _check_part(
        self, part: Mapping[str, StoredObject], files: Mapping[str, Path], version: int
    ) -> None:
        """See whether what is there is of these files, before any other one is sent.

        Raises:
            CorruptUploadError: it is not, or nobody can tell.
        """
        for path, stored in sorted(part.items()):
            if path not in files or not _compare(self._destination.describe(stored), files[path]):
                raise CorruptUploadError(
                    f"{self._where(version)} is there in part, without its marker"
                    f" {self._proof.marker}, and its {path} is not this export's; remove the folder"
                    " and publish again, or publish under another number"
                )

    def _prepare(self, staged: Path, scratch: Path, version: int) -> dict[str, Path]:
        """The files to store, by their paths below the storage URI, in order."""
        bundle = scratch / ("bundle" if self._form == FOLDER else f"bundle.{self._form}")
        # A signature is made for one number, so another one needs another archive.
        if self._proof.key or not bundle.exists():
            self._pack(staged, bundle, version)
        if self._form != FOLDER:
            return {f"{version}.{self._form}": bundle}
        # Whoever stores the graph first has the number; the marker says that all is there.
        names = sorted(packing.names(bundle), key=lambda name: (self._turn(name), name))
        return {f"{version}/{name}": bundle / name for name in names}

    def _turn(self, name: str) -> int:
        """When a file of a folder is stored; those of one turn may be stored at once.

        The graph and then the manifest decide who goes on where two publish under one number, or
        one goes on with what another one left: the manifest is no other model's. A signature is
        another one each time it is made, so it is left out of what is left as long as can be.
        """
        turns = dict.fromkeys(GRAPH_FILES, 0) | {manifest.NAME: 1, manifest.SIGNATURE_NAME: 3}
        return _MARKER_TURN if name == self._proof.marker else turns.get(name, 2)

    def _pack(self, staged: Path, bundle: Path, version: int) -> None:
        if bundle.is_dir():
            shutil.rmtree(bundle)
        identity = export.Identity(
            self._export or staged, version, self._proof.model or self._location.model
        )
        packing.pack(
            staged, bundle, lambda packed: export.seal(staged, self._proof, identity, packed)
        )
        export.judge(bundle, self._where(version), self._proof, identity, bundle.parent)

    def _store(self, files: Mapping[str, Path], version: int, part: Collection[str]) -> None:
        try:
            if self._form == FOLDER and isinstance(self._destination, TakesFolders):
                # The graph comes first, and lies at the top.
                bundle = next(iter(files.values())).parent
                self._destination.put_new_folder(
                    self._name(str(version)), bundle, progress=self._progress
                )
            elif self._form == FOLDER:
                self._put_files(files, version, part)
            else:
                ((path, bundle),) = files.items()
                self._put(path, bundle)
        except EndedError as error:
            if not error.left:
                self._tell_whole(files, version, error)
            raise
        try:
            self._verify(files, version)
        except EndedError as error:
            error.left = self._where(version)
            self._say(f"{error.left} is stored whole; only a last look at it was given up")
            raise

    def _put_files(self, files: Mapping[str, Path], version: int, part: Collection[str]) -> None:
        missing = [path for path in files if path not in part]
        begun, is_last = bool(part), False
        try:
            if not begun:
                # Of two publishers only one may go on, even if both have the same graph.
                first = missing.pop(0)
                self._put_once(first, files[first])
                begun = True
            for number, turn in groupby(missing, lambda path: self._turn(path.partition("/")[2])):
                is_last = number == _MARKER_TURN
                in_threads(lambda path: self._put(path, files[path]), turn, _THREADS)
        except VersionExistsError:
            raise
        except BaseException as error:
            if is_last and isinstance(error, EndedError):
                raise
            if begun or isinstance(error, UnreachableError | EndedError):
                self._tell_part(version, error)
            raise

    def _tell_part(self, version: int, error: BaseException) -> None:
        where = self._where(version)
        if isinstance(error, EndedError):
            error.left = where
        self._say(
            f"a part of {where} may be stored, which no poller takes, for its marker comes last;"
            f" publish it again with --version={version} to go on with it, or remove it"
        )

    def _tell_whole(self, files: Mapping[str, Path], version: int, error: EndedError) -> None:
        """Tell of a version that a signal came over whose last part was being stored.

        The store may have had all of it by then, and only its answer was not waited for.
        """
        where, (path, file) = self._where(version), list(files.items())[-1]
        is_there = answer_within(
            _LAST_LOOK_SECONDS,
            lambda: any(_compare(stored, file) is not False for stored in self._found(path)),
        )
        if is_there:
            self._say(f"{where} is stored whole; only the end of it was not waited for")
        elif is_there is None:
            self._say(f"{where} may be stored whole; look for it before it is published again")
        elif self._destination.mount is None:
            self._say(f"{where} is not stored; should it appear yet, it is whole")
        else:
            return
        error.left = where

    def _put(self, path: str, file: Path) -> None:
        tries = Tries(RETRIES)
        while True:
            try:
                return self._put_once(path, file)
            except VersionExistsError:
                # An answer may get lost on its way, after which the same is sent again.
                if self._is_there(path, file):
                    return None
                raise
            except UnreachableError as error:
                if not tries.is_last:
                    self._say(f"{error}; trying again")
                tries.failed(error)

    def _put_once(self, path: str, file: Path) -> None:
        sent = 0

        def count(more: int) -> None:
            nonlocal sent
            sent += more
            self._progress(more)

        try:
            with file.open("rb") as content:
                size = file.stat().st_size
                self._destination.put_new(self._name(path), content, size, progress=count)
        except BaseException:
            self._progress(-sent)
            raise

    def _is_there(self, path: str, file: Path) -> bool:
        return any(_compare(stored, file) for stored in self._found(path))

    def _found(self, path: str) -> list[StoredObject]:
        """What the store has at a path, and tells of it."""
        _, version = split_path(path) or ("", -1)
        found = [stored for _, stored in self._there(version) if stored.path == path]
        return [self._destination.describe(stored) for stored in found]

    def _verify(self, files: Mapping[str, Path], version: int) -> None:
        """See whether the store shows what was sent, and nothing else under that number."""
        where, found, others = self._where(version), {}, set()
        for top, stored in self._there(version):
            if stored.path in files:
                found[stored.path] = stored
            else:
                others.add(top)
        if others:
            raise CorruptUploadError(
                f"version {version} was published twice at once: {where} and"
                f" {', '.join(sorted(others))}; no poller takes it until one of them is removed"
            )
        for path, file in files.items():
            if path not in found or _compare(self._described(found[path]), file) is False:
                raise CorruptUploadError(
                    f"{where}: the store shows something else than what was sent as {path};"
                    " remove the version and publish it anew"
                )

    def _described(self, stored: StoredObject) -> StoredObject:
        # One call for each of thousands of files would take long; what was sent with each of them
        # has told the store its checksum.
        return stored if self._form == FOLDER else self._destination.describe(stored)

    def _name(self, path: str) -> str:
        return f"{self._location.prefix}/{path}".lstrip("/")

    def _where(self, version: int) -> str:
        suffix = "/" if self._form == FOLDER else f".{self._form}"
        return self._location.child(f"{version}{suffix}")


def _compare(stored: StoredObject, file: Path) -> bool | None:
    """Whether a stored object has a file's bytes; None where the store tells too little."""
    if stored.size != file.stat().st_size:
        return False
    checksum, md5 = 0, hashlib.md5(usedforsecurity=False)
    if stored.crc32c is None and stored.md5 is None:
        return None
    with file.open("rb") as content:
        while piece := content.read(_READ_BYTES):
            if stored.crc32c is not None:
                checksum = google_crc32c.extend(checksum, piece)
            else:
                md5.update(piece)
    return checksum == stored.crc32c if stored.crc32c is not None else md5.digest() == stored.md5
