"""What lies where versions should, and what to write instead; pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from model_poller.checks.integrity import GRAPH_FILES
from model_poller.stores import StoredObject
from model_poller.versions import ARCHIVE_ENDINGS, MAX_VERSION, parse_number, split_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from model_poller.stores import Entry
    from model_poller.stores.uri import Location

MAX_NAMES: Final = 1000
"""That are remembered of a listing."""
_SHOWN: Final = 3
_NAME_CHARACTERS: Final = 80
_PARTS: Final = frozenset({*GRAPH_FILES, "variables", "assets", "assets.extra", "fingerprint.pb"})
"""What lies right in a SavedModel's folder."""
_OTHER_ENDINGS: Final = (
    *(".tar.xz", ".txz", ".tar.bz2", ".tbz2", ".tbz", ".tar.lz4", ".tar.lzma", ".tar.br"),
    *(".7z", ".rar", ".gz", ".xz", ".bz2", ".zst"),
)
"""Of archives that are not read."""
_NUMBER: Final = re.compile(r"[0-9]+")


@dataclass(slots=True)
class _Stranger:
    """A name right below the URI that is no version's."""

    is_folder: bool
    has_graph: bool = False
    """Whether a SavedModel lies right in it."""
    version: str = ""
    """One that lies in it, as it is written there."""


class Strangers:
    """The names of one listing that are no versions', as it comes."""

    def __init__(self) -> None:
        self._found: dict[str, _Stranger] = {}

    def among(self, items: Iterable[StoredObject | Entry]) -> Iterator[StoredObject | Entry]:
        """The same items, each of them looked at."""
        for item in items:
            if isinstance(item, StoredObject):
                if item.version is None and not split_path(item.path):
                    self._add(item.path)
            elif not split_path(f"{item.name}/file" if item.is_folder else item.name):
                self._add(f"{item.name}/" if item.is_folder else item.name)
            yield item

    def _add(self, path: str) -> None:
        top, slash, rest = path.partition("/")
        stranger = self._found.get(top)
        if stranger is None:
            if len(self._found) >= MAX_NAMES:
                return
            stranger = self._found[top] = _Stranger(bool(slash))
        stranger.has_graph |= rest in GRAPH_FILES
        if not stranger.version and (place := split_path(rest)):
            stranger.version = place[0]

    def beside_versions(self) -> str:
        """What looks as if it were meant to be a version beside others; empty without any."""
        return "; ".join(self._lookalikes())

    def instead_of_versions(self, location: Location) -> str:
        """What was found where there is no version, and what to write instead."""
        location = location.folder
        uri = location.uri
        if not self._found:
            return _of_nothing(location)
        if self._found.keys() & set(GRAPH_FILES) or self._found.keys() <= _PARTS:
            held = ", ".join(sorted(self._found.keys() & _PARTS)[:_SHOWN])
            if parse_number(location.prefix.rpartition("/")[2]) is not None:
                return f"it is a version itself, with {held}; give the folder above, {_above(uri)}"
            return (
                f"it is a SavedModel itself, with {held}; move that into a folder of its version's"
                f" number, {uri}/1/"
            )
        if "" in self._found:
            inside = self._found[""].version or "1"
            return (
                f"there is {uri}//{inside}, with two slashes in a row; upload it as {uri}/{inside}"
            )
        if lookalikes := self._lookalikes():
            return "; ".join(lookalikes)
        folders = {name: found for name, found in self._found.items() if found.is_folder}
        models = {name: found.version for name, found in folders.items() if found.version}
        if models:
            named = _listed(f"{_short(name)}/{version}" for name, version in models.items())
            places = _listed((f"{uri}/{_short(name)}" for name in models), " or ")
            return f"there is {named}; give the folder that holds one model's versions, {places}"
        if graphs := [name for name, found in folders.items() if found.has_graph]:
            name = _short(graphs[0])
            return (
                f"there is a SavedModel in {name}/; call its folder by the version's number, 1/, or"
                f" move it into one, {name}/1/, and give {uri}/{name}"
            )
        if folders:
            places = _listed((f"{uri}/{_short(name)}" for name in folders), " or ")
            return (
                f"there are other folders; if one of them holds the model's versions, give {places}"
            )
        held = _listed(map(_short, self._found))
        return f"there is only {held}; upload a folder 1/ or an archive 1.zip"

    def _lookalikes(self) -> list[str]:
        found = (_meant(name, stranger) for name, stranger in sorted(self._found.items()))
        return [text for text in found if text][:_SHOWN]


def _meant(name: str, stranger: _Stranger) -> str:
    """Which version a name was meant to be, and how that is written; empty for any other name."""
    shown, lower = _short(name), name.lower()
    if stranger.is_folder:
        return _folder_meant(name, shown)
    if parse_number(name) is not None:
        return f"{shown} is a file; a version is a folder of that name, or an archive {shown}.zip"
    endings = [e for e in (*ARCHIVE_ENDINGS, *_OTHER_ENDINGS) if lower.endswith(e)]
    if not endings:
        return ""
    ending = max(endings, key=len)
    number = _only_number(name[: -len(ending)])
    if ending in _OTHER_ENDINGS:
        packed = f"{number or '1'}.tar.zst or {number or '1'}.zip"
        return f"{shown} is packed in a way that is not read; pack it as {packed}"
    if number:
        return f"{shown} is no version's name; call it {number}{ending}"
    return f"{shown} has no version's number; call it by that, such as 1{ending}"


def _folder_meant(name: str, shown: str) -> str:
    if name.isdecimal() and name.isascii():
        return f"{shown}/ is more than the highest version, {MAX_VERSION}"
    if re.fullmatch(r"(?i)v?[0-9]+(\.[0-9]+)+", name):
        return f"{shown}/ is no version's number; call it by a whole one, such as 1/"
    if re.fullmatch(r"(?i)\s*(v|ver|version|r|rev|step|checkpoint)?[-_. ]*[0-9]+\s*", name):
        return f"{shown}/ is no version's number; call it {_only_number(name)}/"
    return ""


def _only_number(name: str) -> str:
    """The one number in a name; empty where there are more, or none."""
    numbers = _NUMBER.findall(name)
    if len(numbers) != 1 or parse_number(numbers[0]) is None:
        return ""
    return str(int(numbers[0]))


def _of_nothing(location: Location) -> str:
    uri, last = location.uri, location.prefix.rpartition("/")[2]
    if last.lower().endswith((*ARCHIVE_ENDINGS, *GRAPH_FILES)):
        folder = _above(uri)
        if last in GRAPH_FILES and parse_number(folder.rpartition("/")[2]) is not None:
            folder = _above(folder)
        return f"it names a file; give the folder that the versions are in, {folder}"
    return "there is nothing; upload a folder 1/ or an archive 1.zip, or correct the storage URI"


def _above(uri: str) -> str:
    return uri.rpartition("/")[0]


def _short(name: str) -> str:
    name = name.encode(errors="backslashreplace").decode()
    return name if len(name) <= _NAME_CHARACTERS else f"{name[:_NAME_CHARACTERS]}…"


def _listed(names: Iterable[str], last: str = " and ") -> str:
    found = sorted(names)
    more = len(found) - _SHOWN
    if more > 0:
        return f"{', '.join(found[:_SHOWN])}{last}{more} more"
    return last.join(filter(None, [", ".join(found[:-1]), *found[-1:]]))
