"""From a listing to versions: which objects make up which, and whether all are there."""

from __future__ import annotations

import hashlib
import logging
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from model_poller.checks import integrity
from model_poller.errors import (
    AccessDeniedError,
    IncompleteVersionError,
    OddAnswerError,
    PollerError,
    UnreachableError,
)
from model_poller.status import VersionReason
from model_poller.stores import Entry, StoredObject

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from model_poller.stores.uri import Location

MAX_VERSION = 2**63 - 1
"""TF Serving reads version numbers as int64."""

_MAX_SIZE = 2**63 - 1
"""What a file system counts; Python can't even write down a number of any size."""
_DIGITS = re.compile(r"[0-9]+")
ARCHIVE_ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.zst", ".tzst")
_ARCHIVE = re.compile(rf"([0-9]+)({'|'.join(map(re.escape, ARCHIVE_ENDINGS))})")

MAX_OBJECTS = 100_000
"""That are kept of a listing; a third of a kilobyte each."""
MAX_FILES = 50_000
"""Of a folder version: a larger one would leave no room for others."""
MAX_VERSIONS = 10_000
"""The newest that a look tells of."""
CHOICES = 3
"""Versions that may be had, among which the newest that can be is found."""
MAX_OPENED = 200
"""Versions that a look goes into for that: half uploads may lie above a whole one."""


_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why a version is not taken."""

    reason: VersionReason
    message: str


@dataclass(frozen=True, slots=True)
class StoredVersion:
    """One version in the source."""

    version: int
    objects: tuple[StoredObject, ...]
    """Empty where the look didn't go into it: all that is known then is that it is there."""
    is_archive: bool
    fingerprint: str
    incomplete: Verdict | None = None

    @property
    def size(self) -> int:
        """Bytes to fetch."""
        return sum(stored.size for stored in self.objects)

    @property
    def is_known(self) -> bool:
        """Whether more is known than that it is there."""
        return bool(self.objects)

    @property
    def folder(self) -> str:
        """The path of the version below the storage URI, as it is written there."""
        return self.objects[0].path if self.is_archive else self.objects[0].path.partition("/")[0]


def parse_number(text: str) -> int | None:
    """A version number as it may be written in a bucket: ``0001`` is version 1.

    TF Serving reads a version directory's name by SimpleAtoi, which takes leading zeros.
    """
    if not _DIGITS.fullmatch(text):
        return None
    number = int(text.lstrip("0")[:20] or "0")
    return number if number <= MAX_VERSION else None


def split_path(path: str) -> tuple[str, int] | None:
    """The first part of a path below the URI and its version; None for what is no version's."""
    top, _, rest = path.partition("/")
    archive = None if rest else _ARCHIVE.fullmatch(top)
    number = parse_number(archive[1] if archive else top)
    if number is None or (not archive and not rest):
        return None
    return top, number


def fingerprint(objects: Iterable[StoredObject]) -> str:
    """Identifies stored objects by root, path, generation and size."""
    digest = hashlib.sha256()
    for stored in sorted(objects, key=lambda o: (o.root, o.path)):
        line = f"{stored.root.uri}/{stored.path}\0{stored.generation}\0{stored.size}\n"
        # A file's name may be any bytes, which Python has as surrogates.
        digest.update(line.encode(errors="surrogatepass"))
    return digest.hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Interest:
    """Which versions a look has to look into; of the others their numbers are enough."""

    newest: int = -1
    """The newest on the disk: it and those above it are of interest."""
    wanted: frozenset[int] = frozenset()
    """And so are these."""
    failed: frozenset[tuple[int, str]] = frozenset()
    """Versions with fingerprints that can't be had: they don't count among the `CHOICES`."""
    known: Mapping[int, str] = field(default_factory=dict)
    """Fingerprints from before, which stand for the present ones where nobody looks."""


def discover(
    items: Iterable[StoredObject | Entry],
    settled: Mapping[int, str],
    *,
    marker: str | None = None,
    growing: bool = False,
    interest: Interest = Interest(),
    files: Callable[[Entry], Iterable[StoredObject]] = lambda _: (),
    tolerant: bool = False,
) -> dict[int, StoredVersion]:
    """Group a listing into versions.

    ``settled`` are the fingerprints that an earlier look has seen: a folder counts as complete
    only when its listing did not change between two looks; or, where uploads end with a file named
    ``marker``, when that is there. An archive is one object, which a store shows whole or not at
    all; a file system shows it while it is written (``growing``), so there it has to settle too.

    The listing is read once, as it comes, and no more objects than `MAX_OBJECTS` are kept of it.
    ``files`` is asked for those of an entry, newest version first, until there are `CHOICES`. A
    version that can't be gone into spoils no other; where the store doesn't answer about it, only
    if ``tolerant``, for next time it may. Nor does an object that the store tells nonsense of.

    Raises:
        Whatever reading the listing raises.
    """
    found = _Gathering(interest)
    for item in items:
        found.add(item)
    versions: dict[int, StoredVersion] = {}
    refusal: PollerError | None = None
    choices = opened = 0
    for number in in_order(found.groups, interest.wanted):
        group = found.groups[number]
        if group.entries:
            is_choice = number >= interest.newest and choices < CHOICES and opened < MAX_OPENED
            if is_choice or number in interest.wanted:
                opened += 1
            else:
                group.close()
        verdict = None
        try:
            group.open(files)
        except Exception as error:
            is_odd = isinstance(error, OddAnswerError)
            if isinstance(error, UnreachableError) and not is_odd and not tolerant:
                raise
            group.close()
            verdict = _unopened(number, error)
            if isinstance(error, PollerError):
                refusal = refusal or error
        if group.count > MAX_FILES:
            verdict = Verdict(
                VersionReason.TOO_MANY_FILES,
                f"version {number} has more than {MAX_FILES} files; upload it as an archive, or"
                " with fewer",
            )
        if not group.is_known:
            before = interest.known.get(number, "")
            versions[number] = StoredVersion(number, (), group.is_archive, before, verdict)
        elif group.objects:
            # None: a folder without a file, which is no version.
            version = _version(number, group.objects, settled.get(number), marker, growing)
            versions[number] = version
            choices += number not in interest.wanted and _is_choice(version, interest)
    if refusal and not any(version.objects for version in versions.values()):
        raise refusal
    return versions


def _unopened(number: int, error: Exception) -> Verdict:
    if isinstance(error, AccessDeniedError):
        return Verdict(VersionReason.ACCESS_DENIED, str(error))
    if isinstance(error, PollerError):
        return Verdict(VersionReason.FETCH_FAILED, str(error))
    # Whatever is odd about one version must not keep the others away.
    _log.error("version %d can't be looked into", number, exc_info=error)
    return Verdict(VersionReason.FETCH_FAILED, f"version {number} can't be looked into: {error!r}")


def _is_choice(version: StoredVersion, interest: Interest) -> bool:
    why = version.incomplete
    may_be_had = why is None or why.reason is VersionReason.UNSTABLE_LISTING
    return may_be_had and (version.version, version.fingerprint) not in interest.failed


class _Group:
    """What a listing shows of one version."""

    def __init__(self) -> None:
        self.objects: dict[tuple[Location, str], list[StoredObject]] = {}
        """By where they are: one folder or one archive, or else the version is there twice."""
        self.entries: list[Entry] = []
        self.is_known = True
        """Whether there is nothing more of it than this."""
        self.is_archive = False
        self.count = 0

    def add(self, top: str, stored: StoredObject) -> None:
        self.is_archive = "/" not in stored.path
        self.count += 1
        if stored.size > _MAX_SIZE:
            fault = stored.fault or f"it is listed with more bytes than {_MAX_SIZE}"
            stored = replace(stored, size=0, fault=fault)
        if self.is_known:
            self.objects.setdefault((stored.root, top), []).append(stored)
            if self.count > MAX_FILES:
                self.close()

    def close(self) -> None:
        """Keep no more than that it is there."""
        self.objects, self.entries, self.is_known = {}, [], False

    def open(self, files: Callable[[Entry], Iterable[StoredObject]]) -> None:
        """Look into what the listing only named."""
        for entry in self.entries:
            for stored in files(entry):
                if not stored.path.endswith("/"):
                    self.add(entry.name, stored)
                if not self.is_known:
                    return


class _Gathering:
    """A listing, as far as it has come, within bounds: of the lowest numbers less is kept."""

    def __init__(self, interest: Interest) -> None:
        self.groups: dict[int, _Group] = {}
        self._wanted = interest.wanted
        self._needed = interest.wanted | interest.known.keys()
        self._kept = 0
        self._open_from = self._named_from = 0
        """Of lower numbers, only the presence is noted; and of lower ones still, nothing."""

    def add(self, item: StoredObject | Entry) -> None:
        if isinstance(item, Entry):
            parsed = split_path(f"{item.name}/file" if item.is_folder else item.name)
            if parsed and (group := self._group(parsed[1])):
                group.is_archive = not item.is_folder
                if group.is_known:
                    group.entries.append(item)
        # Consoles show folders by means of empty objects whose name ends with a slash.
        elif not item.path.endswith("/") and (place := _place(item)):
            top, number = place
            if group := self._group(number):
                was_known = group.is_known
                group.add(top, item)
                if group.is_known:
                    self._kept += 1
                elif was_known:
                    self._kept -= MAX_FILES
        if self._kept > MAX_OBJECTS or len(self.groups) > 2 * MAX_VERSIONS:
            self._prune()

    def _group(self, number: int) -> _Group | None:
        group = self.groups.get(number)
        if group is None and (number >= self._named_from or number in self._needed):
            group = self.groups[number] = _Group()
            if number < self._open_from and number not in self._wanted:
                group.close()
        return group

    def _prune(self) -> None:
        self._kept = 0
        for place, number in enumerate(in_order(self.groups, self._wanted)):
            group = self.groups[number]
            count = sum(map(len, group.objects.values()))
            if place and self._kept + count > MAX_FILES and number not in self._wanted:
                group.close()
                self._open_from = max(self._open_from, number + 1)
            else:
                self._kept += count
            if place >= MAX_VERSIONS and number not in self._needed:
                del self.groups[number]
                self._named_from = max(self._named_from, number + 1)


def in_order(numbers: Iterable[int], wanted: Collection[int]) -> list[int]:
    """Versions by how much they are wanted: those that are, then from the newest down."""
    return sorted(numbers, key=lambda number: (number in wanted, number), reverse=True)


def _place(stored: StoredObject) -> tuple[str, int] | None:
    if stored.version is not None:
        return stored.path, stored.version
    return split_path(stored.path)


def _version(
    number: int,
    group: Mapping[tuple[Location, str], list[StoredObject]],
    settled: str | None,
    marker: str | None,
    growing: bool,
) -> StoredVersion:
    members = tuple(stored for top in sorted(group) for stored in group[top])
    identity = fingerprint(members)
    first = members[0].path
    is_archive = "/" not in first
    verdict = None
    if faulty := next((stored for stored in members if stored.fault), None):
        verdict = Verdict(VersionReason.FETCH_FAILED, f"{faulty.url}: {faulty.fault}")
    elif len(group) > 1:
        places = " and ".join(root.child(top) for root, top in sorted(group))
        verdict = Verdict(
            VersionReason.DUPLICATE_VERSION,
            f"version {number} is there more than once: {places}; remove all but one",
        )
    elif is_archive:
        if growing and settled != identity:
            verdict = _unstable(first)
    else:
        ((root, top),) = group
        folder = root.child(top)
        names = {stored.path.partition("/")[2]: stored.size for stored in members}
        try:
            integrity.check_names(names)
            integrity.check_sizes(names)
        except IncompleteVersionError as error:
            verdict = Verdict(error.reason, f"{folder}: {error}")
        else:
            if marker and marker not in names:
                verdict = Verdict(
                    VersionReason.MISSING_MARKER,
                    f"{folder}: its marker {marker} is missing; upload it when all else is there",
                )
            elif not marker and settled != identity:
                verdict = _unstable(folder)
    return StoredVersion(number, members, is_archive, identity, verdict)


def _unstable(what: str) -> Verdict:
    return Verdict(
        VersionReason.UNSTABLE_LISTING,
        f"{what}: its objects changed since the last look; it is taken once two looks show the"
        " same",
    )
