"""Names that come from outside, judged before they become paths."""

from __future__ import annotations

import unicodedata

from model_poller.errors import BrokenVersionError
from model_poller.status import VersionReason

MAX_DEPTH = 32
"""A SavedModel's files are at most three folders deep."""
MAX_COMPONENT_BYTES = 255
"""What Linux's file systems take (NAME_MAX)."""
MAX_PATH_BYTES = 1024
"""Leaves most of Linux's 4096 (PATH_MAX) to the folder above."""


class Names:
    """The file names of one version; refuses those that could leave its folder or hide another.

    ``origin`` is what holds them, for messages.
    """

    def __init__(self, origin: str) -> None:
        self._origin = origin
        self._files: dict[str, str] = {}
        self._folders: dict[str, str] = {}

    def add_folder(self, name: str) -> None:
        """Take in a folder.

        Raises:
            BrokenVersionError: reason UnsafeArchive, with the name and what is wrong with it.
        """
        self._refuse_if(_fault(name), name)
        while name:
            folded = _folded(name)
            if folded in self._files:
                self._refuse_if("is a file and a folder at once", name)
            known = folded in self._folders
            if (twin := self._folders.setdefault(folded, name)) != name:
                self._refuse_if(_likeness(name, twin), name)
            if known:
                return
            name = name.rpartition("/")[0]

    def add_file(self, name: str) -> None:
        """Take in a file.

        Raises:
            BrokenVersionError: reason UnsafeArchive, with the name and what is wrong with it.
        """
        self._refuse_if(_fault(name), name)
        folded = _folded(name)
        if (twin := self._files.get(folded)) is not None:
            self._refuse_if(_likeness(name, twin), name)
        if folded in self._folders:
            self._refuse_if("is a file and a folder at once", name)
        if parent := name.rpartition("/")[0]:
            self.add_folder(parent)
        self._files[folded] = name

    def _refuse_if(self, fault: str | None, name: str) -> None:
        if fault:
            raise BrokenVersionError(
                VersionReason.UNSAFE_ARCHIVE,
                f"{self._origin}: the name {name[:200]!a} {fault}; nothing of it was taken. Upload"
                " it anew with plain relative names.",
            )


def is_noise(name: str) -> bool:
    """What macOS adds to folders, and to every archive it makes."""
    last = name.rpartition("/")[2]
    return name.startswith("__MACOSX/") or last in (".DS_Store", "__MACOSX") or last[:2] == "._"


def _folded(name: str) -> str:
    """What names share that some file systems take for one (Unicode 3.13, D145)."""
    if name.isascii():
        return name.lower()
    folded = unicodedata.normalize("NFD", name).casefold()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", folded))


def _likeness(name: str, twin: str) -> str:
    if name == twin:
        return "is there twice"
    if unicodedata.normalize("NFC", name) == unicodedata.normalize("NFC", twin):
        return f"differs from {twin[:200]!a} only by how its accents are encoded"
    return f"differs only by case from {twin[:200]!a}"


def _fault(name: str) -> str | None:
    if not name:
        return "is empty"
    if name.startswith("/"):
        return "is absolute"
    if "\\" in name:
        return "has a backslash"
    if any(ord(character) < 0x20 or ord(character) == 0x7F for character in name):
        return "has a control character"
    parts = name.split("/")
    if ".." in parts:
        return "leads out of its folder"
    if "" in parts or "." in parts:
        return "has an empty part"
    if len(parts) > MAX_DEPTH:
        return f"is more than {MAX_DEPTH} folders deep"
    try:
        lengths = [len(part.encode()) for part in parts]
    except UnicodeEncodeError:
        return "is not valid Unicode"
    if sum(lengths) + len(parts) > MAX_PATH_BYTES:
        return f"is longer than {MAX_PATH_BYTES} bytes"
    if max(lengths) > MAX_COMPONENT_BYTES:
        return f"has a part longer than {MAX_COMPONENT_BYTES} bytes"
    return None
