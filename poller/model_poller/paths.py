"""Names that come from outside, judged before they become paths."""

from __future__ import annotations

from model_poller.errors import BrokenVersionError
from model_poller.status import VersionReason

MAX_DEPTH = 32
MAX_COMPONENT_BYTES = 255
MAX_PATH_BYTES = 1024


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
            folded = name.casefold()
            if folded in self._files:
                self._refuse_if("is a file and a folder at once", name)
            if (twin := self._folders.setdefault(folded, name)) != name:
                self._refuse_if(f"differs only by case from {twin!r}", name)
            name = name.rpartition("/")[0]

    def add_file(self, name: str) -> None:
        """Take in a file.

        Raises:
            BrokenVersionError: reason UnsafeArchive, with the name and what is wrong with it.
        """
        self._refuse_if(_fault(name), name)
        folded = name.casefold()
        if (twin := self._files.get(folded)) is not None:
            same = twin == name
            self._refuse_if(
                "is there twice" if same else f"differs only by case from {twin!r}", name
            )
        if folded in self._folders:
            self._refuse_if("is a file and a folder at once", name)
        if parent := name.rpartition("/")[0]:
            self.add_folder(parent)
        self._files[folded] = name

    def _refuse_if(self, fault: str | None, name: str) -> None:
        if fault:
            raise BrokenVersionError(
                VersionReason.UNSAFE_ARCHIVE,
                f"{self._origin}: the name {name[:200]!r} {fault}; nothing of it was taken. Upload"
                " it anew with plain relative names.",
            )


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
