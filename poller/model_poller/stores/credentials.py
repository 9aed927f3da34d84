"""Secrets and identities by name: environment variables, overlaid by the files of a folder."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


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

    def file(self, name: str) -> Path | None:
        """The file that a name has in the folder; None without one."""
        path = self.folder / name if self.folder else None
        return path if path and path.is_file() else None
