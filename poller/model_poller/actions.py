"""What a plan is made of: the steps that the shell knows how to take."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from model_poller.versions import parse_number

if TYPE_CHECKING:
    from model_poller.versions import StoredVersion
    from model_poller.volume.store import Quarantined, Record


@dataclass(frozen=True, slots=True)
class Fetch:
    """Bring a version to the volume; runs beside everything else."""

    stored: StoredVersion


@dataclass(frozen=True, slots=True)
class StopFetch:
    """Give up the fetch that runs."""


@dataclass(frozen=True, slots=True)
class Publish:
    """Move a complete version into the base path."""

    version: int
    end_is_stale: bool = field(default=False, compare=False)
    """Whether the server tells already that this number ended with an error."""


@dataclass(frozen=True, slots=True)
class Retire:
    """Move a version out of the base path and keep it."""

    version: int


@dataclass(frozen=True, slots=True)
class Remove:
    """Delete a complete version that is not published."""

    version: int
    why: str


@dataclass(frozen=True, slots=True)
class Quarantine:
    """Take a version away until its stored objects change."""

    entry: Quarantined


@dataclass(frozen=True, slots=True)
class Release:
    """Let a quarantined version be tried again."""

    version: int


@dataclass(frozen=True, slots=True)
class TryAgain:
    """Follow, once, a word of the operator that a version is to be tried again."""

    text: str
    """`RolloutTask.retry`."""

    def names(self, version: int, fingerprint: str) -> bool:
        """Whether it is about these objects."""
        objects, mark, _ = self.text.partition("#")
        number, at, named = objects.partition("@")
        return bool(mark and at) and (parse_number(number), named) == (version, fingerprint)


@dataclass(frozen=True, slots=True)
class Prove:
    """Remember on the disk that the model server served a version."""

    record: Record


Action = Fetch | StopFetch | Publish | Retire | Remove | Quarantine | Release | TryAgain | Prove
