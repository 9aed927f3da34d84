"""From a listing to versions: which objects make up which, and whether all are there."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from model_poller.checks import integrity
from model_poller.errors import IncompleteVersionError
from model_poller.status import VersionReason

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from model_poller.stores import StoredObject

MAX_VERSION = 2**63 - 1
"""TF Serving reads version numbers as int64."""

_DIGITS = re.compile(r"[0-9]+")
ARCHIVE_ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.zst", ".tzst")
_ARCHIVE = re.compile(rf"([0-9]+)({'|'.join(map(re.escape, ARCHIVE_ENDINGS))})")


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
    is_archive: bool
    fingerprint: str
    incomplete: Verdict | None = None

    @property
    def size(self) -> int:
        """Bytes to fetch."""
        return sum(stored.size for stored in self.objects)

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
    """Identifies stored objects by URL, generation and size."""
    digest = hashlib.sha256()
    for stored in sorted(objects, key=lambda o: o.url):
        line = f"{stored.url}\0{stored.generation}\0{stored.size}\n"
        # A file's name may be any bytes, which Python has as surrogates.
        digest.update(line.encode(errors="surrogatepass"))
    return digest.hexdigest()[:16]


def discover(
    objects: Iterable[StoredObject],
    settled: Mapping[int, str],
    *,
    marker: str | None = None,
    growing: bool = False,
) -> dict[int, StoredVersion]:
    """Group a listing into versions.

    ``settled`` are the fingerprints that an earlier look has seen: a folder counts as complete
    only when its listing did not change between two looks; or, where uploads end with a file named
    ``marker``, when that is there. An archive is one object, which a store shows whole or not at
    all; a file system shows it while it is written (``growing``), so there it has to settle too.
    """
    groups: dict[int, dict[str, list[StoredObject]]] = defaultdict(lambda: defaultdict(list))
    for stored in objects:
        # Consoles show folders by means of empty objects whose name ends with a slash.
        if stored.path.endswith("/") or not (parsed := split_path(stored.path)):
            continue
        top, number = parsed
        groups[number][stored.url.removesuffix(stored.path) + top].append(stored)
    return {
        number: _version(number, group, settled.get(number), marker, growing)
        for number, group in groups.items()
    }


def _version(
    number: int,
    group: Mapping[str, list[StoredObject]],
    settled: str | None,
    marker: str | None,
    growing: bool,
) -> StoredVersion:
    members = tuple(stored for top in sorted(group) for stored in group[top])
    identity = fingerprint(members)
    first = members[0].path
    is_archive = "/" not in first
    verdict = None
    if len(group) > 1:
        places = " and ".join(sorted(group))
        verdict = Verdict(
            VersionReason.DUPLICATE_VERSION,
            f"version {number} is there more than once: {places}; remove all but one",
        )
    elif is_archive:
        if growing and settled != identity:
            verdict = _unstable(first)
    else:
        folder = next(iter(group))
        names = {stored.path.partition("/")[2] for stored in members}
        try:
            integrity.check_names(names)
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
