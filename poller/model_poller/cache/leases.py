"""Who fetches a version for all.

A lease is a file KEY.N that only one can make (`O_EXCL`, which the server decides). Nobody takes a
lease over by removing or renaming it, by which two that see the same dead one would remove each
other's: they make KEY.N+1, and again only one can. The highest number counts.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from model_poller.cache import beats
from model_poller.cache.folder import GONE

if TYPE_CHECKING:
    from pathlib import Path

    from model_poller.cache.beats import Beat, Watch
    from model_poller.cache.folder import Folder


@dataclass(frozen=True, slots=True)
class Lease:
    """The newest lease of a key, as it was just seen."""

    number: int
    beat: Beat | None
    """None while it is being made."""
    silent: float
    """Seconds without a sign of life."""
    idle: float
    """Seconds without progress."""

    @property
    def is_free(self) -> bool:
        """Whether somebody else may take its place."""
        if self.beat is not None and self.beat.is_ended:
            return True
        return self.silent >= beats.DEAD_SECONDS or self.idle >= beats.IDLE_SECONDS


def look(folder: Folder, key: str, watch: Watch) -> Lease | None:
    """The newest lease of a key; None: there is none."""
    number = max(_numbers(folder, key), default=None)
    if number is None:
        return None
    path = _path(folder, key, number)
    try:
        content, beat = beats.read(path)
    except OSError as error:
        if error.errno not in GONE:
            raise
        # A newer one's holder has just removed it.
        return look_again(folder, key, watch)
    progress = (beat.phase, beat.done, beat.steps) if beat else content
    return Lease(
        number,
        beat,
        watch.unchanged(path, content),
        watch.unchanged((path, "progress"), progress),
    )


def look_again(folder: Folder, key: str, watch: Watch) -> Lease | None:
    """The same, by what the server has and not what this machine remembers."""
    folder.refresh(folder.leases)
    number = max(_numbers(folder, key), default=None)
    if number is None:
        return None
    return Lease(number, None, watch.unchanged(_path(folder, key, number), b""), 0.0)


def take(folder: Folder, key: str, before: Lease | None, beat: Beat) -> Path | None:
    """Become the one who fetches, after ``before``; None: somebody else did."""
    number = before.number + 1 if before else 0
    path = _path(folder, key, number)
    try:
        beats.write(path, beat, new=True)
    except FileExistsError:
        folder.refresh(folder.leases)
        return None
    # Making it has shown this machine what else is there by now.
    others = set(_numbers(folder, key)) - {number}
    if max(others, default=-1) > number:
        path.unlink(missing_ok=True)
        return None
    for other in others:
        with suppress(OSError):
            _path(folder, key, other).unlink()
    return path


def _numbers(folder: Folder, key: str) -> list[int]:
    found = (path.name.rpartition(".") for path in folder.leases.iterdir())
    return [int(number) for name, _, number in found if name == key and number.isdecimal()]


def _path(folder: Folder, key: str, number: int) -> Path:
    return folder.leases / f"{key}.{number}"
