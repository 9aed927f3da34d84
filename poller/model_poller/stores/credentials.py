"""Secrets and identities by name: environment variables, overlaid by the files of a folder."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_USER = re.compile(r"(?<=://)[^\s'\"]*@|[^\s'\"/:@]+:(?!//)[^\s'\"@]*@")
_TRIES = 10
"""For values that change all the time; a kubelet replaces a Secret once a minute."""
_QUERY = re.compile(r"(://[^\s'\"?#]*)[?#][^\s'\"]+")


@dataclass(frozen=True, slots=True)
class Credentials:
    """Read anew at every use, so that a rotated Secret needs no restart."""

    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    folder: Path | None = None
    """A mounted Secret: a file per name, such as ``AWS_ACCESS_KEY_ID``."""

    def get(self, name: str) -> str | None:
        """The value under a name, without the white space around it; None when it has none."""
        file = self.file(name)
        try:
            value = file.read_text().strip() if file else ""
        except (OSError, UnicodeDecodeError):
            value = ""
        return value or self.environment.get(name) or None

    def together(self, *names: str) -> tuple[str | None, ...]:
        """The values under several names, as of one moment: each as `get`.

        What proves who asks only together may be replaced while it is read.
        """
        for _ in range(_TRIES):
            before = self._moment()
            values = tuple(map(self.get, names))
            if before == self._moment():
                break
        return values

    def _moment(self) -> str:
        """Where the link leads by whose swap the kubelet changes all files of a Secret at once."""
        try:
            return str((self.folder / "..data").readlink()) if self.folder else ""
        except OSError:
            return ""

    def file(self, name: str) -> Path | None:
        """The file that a name has in the folder; None without one."""
        path = self.folder / name if self.folder else None
        return path if path and path.is_file() else None


def without_secrets(text: str) -> str:
    """A message without what URLs in it have before an ``@``, and behind a ``?`` or a ``#``."""
    return _QUERY.sub(r"\1?…", _USER.sub("…@", text))


def shown_uri(uri: str) -> str:
    """A URI from outside as a message quotes it, whatever it may hold."""
    scheme, separator, rest = uri.partition("://")
    if not separator:
        scheme, rest = "", uri
    user, at, path = rest.rpartition("@")
    if at and re.search(r"[?#]", user):
        # Either may be a part of the other.
        return repr(f"{scheme}{separator}…")
    place, mark, _ = path.replace("#", "?").partition("?")
    return repr(f"{scheme}{separator}{'…@' if at else ''}{place}{'?…' if mark else ''}")
