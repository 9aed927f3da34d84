"""What this process remembers of the versions in the base path, as it follows from what it sees.

Pure: each look at the volume and each word of the model server makes new books of the old ones.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from model_poller.status import ServedVersion
    from model_poller.volume.store import Disk


LEFT_SECONDS = 60.0
"""So long is remembered when a version left: longer than any model server takes to see it."""


@dataclass(frozen=True, slots=True)
class Publication:
    """What this process saw of a published version. Moments are monotonic seconds."""

    since: float
    end_is_stale: bool
    """The server's END with an error may still be about an earlier version of this number."""
    served: bool = False
    """It was AVAILABLE, so a later silence or failure is the server's, not the version's."""
    loading: float = 0.0
    """For so many seconds was the model server there, and did not have it AVAILABLE yet."""
    heard: float | None = None
    """When the model server last said anything of that; None while it is silent."""
    silent_since: float | None = None
    """When it went away while it had this version to load; None: it has not, or is back."""


@dataclass(frozen=True, slots=True)
class Books:
    """All that is remembered. Moments are monotonic seconds."""

    started: float
    """When this process began."""
    publications: Mapping[int, Publication] = field(default_factory=dict)
    left: Mapping[int, float] = field(default_factory=dict)
    """When versions left the base path."""
    suspects: Mapping[int, int] = field(default_factory=dict)
    """How often the model server was away when a version left that it had to load."""
    is_first: bool = True
    """Whether nothing was looked at yet."""

    def published(self, version: int, now: float, *, end_is_stale: bool) -> Books:
        """The books after a version was moved into the base path."""
        publication = Publication(now, end_is_stale)
        return replace(self, publications={**self.publications, version: publication})

    def after(self, disk: Disk, served: Sequence[ServedVersion] | None, now: float) -> Books:
        """The books after a look at the volume and the model server's last words.

        ``served`` is None while the model server does not answer.
        """
        publications = {}
        for version, record in disk.published.items():
            known = self.publications.get(version) or Publication(
                # Found here at the start, or put here by somebody else.
                since=now,
                end_is_stale=True,
                served=self.is_first and record.proven,
            )
            publications[version] = _after(known, version, served, now)
        gone = self.publications.keys() - publications.keys()
        suspects = {v: n for v, n in self.suspects.items() if v in disk.complete}
        for version in gone & disk.complete:
            if self.publications[version].silent_since is not None:
                suspects[version] = suspects.get(version, 0) + 1
        left = {v: since for v, since in self.left.items() if now - since < LEFT_SECONDS}
        return replace(
            self,
            publications=publications,
            left={**left, **dict.fromkeys(gone, now)},
            suspects={
                version: count
                for version, count in suspects.items()
                if version not in publications or not publications[version].served
            },
            is_first=False,
        )


def _after(
    known: Publication, version: int, served: Sequence[ServedVersion] | None, now: float
) -> Publication:
    if served is None:
        went = known.heard if not known.served else None
        return replace(known, heard=None, silent_since=known.silent_since or went)
    state = next((entry.state for entry in served if entry.version == version), None)
    loading = known.loading
    if known.heard is not None and not known.served:
        loading += now - known.heard
    return Publication(
        since=known.since,
        end_is_stale=known.end_is_stale and state == "END",
        served=known.served or state == "AVAILABLE",
        loading=loading,
        heard=now,
    )
