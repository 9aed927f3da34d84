"""What is told of the versions on the disk beyond their state: their interface, their weights.

Each version is read once, when it has come or is found at the start, on a thread beside the main
loop: a mounted volume may not answer for long.
"""

from __future__ import annotations

import logging
import queue
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec

from model_poller.checks import interface
from model_poller.process import threads
from model_poller.status import Interface

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from model_poller.volume.store import Record

RETRY_SECONDS: Final = 30.0
"""After a version could not be read: somebody may have moved it meanwhile, or a mount is away."""
GONE: Final = 4
"""So many of versions that have left the disk are still told, above all of those that failed."""
_TRIES: Final = 3
_SHARD: Final = re.compile(r"variables\.data-[0-9]{5,10}-of-([0-9]{5,10})")

Key = tuple[int, str, str]
"""Version, fingerprint and source: what is another one has other files."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Description:
    """What was read of a version."""

    weight_bytes: int
    interface: Interface
    size: int = 0
    """Of the interface, in a report."""
    is_passing: bool = False
    """Whether it is an error that may heal."""


def key(record: Record) -> Key:
    """What a version on the disk is known by."""
    return record.version, record.fingerprint, record.source


def describe(folder: Path) -> Description:
    """Read a version's folder.

    Raises:
        OSError
    """
    read = interface.read(folder)
    return Description(weight_bytes(folder), read, len(msgspec.json.encode(read)))


def weight_bytes(folder: Path) -> int:
    """The bytes of a SavedModel's variables; 0 where there are none.

    Raises:
        OSError
    """
    variables = folder / "variables"
    if not variables.is_dir():
        return 0
    sizes: dict[int, int] = {}
    for path in variables.iterdir():
        if match := _SHARD.fullmatch(path.name):
            count = int(match[1])
            sizes[count] = sizes.get(count, 0) + path.stat().st_size
    # Shards of a lower count are left from an earlier export; see `integrity.check_names`.
    return sizes[max(sizes)] if sizes else 0


def _start_thread(work: Callable[[], None]) -> None:
    threads.spawn("reading versions", work)


class Descriptions:
    """Those of the versions on the disk. Its methods are the main loop's."""

    def __init__(
        self,
        folder: Callable[[int], Path],
        wake: Callable[[], None],
        clock: Callable[[], float],
        spawn: Callable[[Callable[[], None]], None] | None = None,
    ) -> None:
        """``folder`` tells where a version lies; ``wake`` is called when some were read.

        ``spawn`` starts what may take long beside the loop; None: on a thread.
        """
        self._folder = folder
        self._wake = wake
        self._clock = clock
        self._spawn = spawn or _start_thread
        self._ended: queue.SimpleQueue[tuple[Key, Description | None]] = queue.SimpleQueue()
        self._known: dict[Key, Description] = {}
        self._gone: dict[Key, Description] = {}
        """Of versions that have left the disk, the last to go at the end."""
        self._not_before: dict[Key, float] = {}
        self._reading: list[Key] = []

    def look(self, records: Iterable[Record]) -> Mapping[Key, Description]:
        """What is known of these versions, and of the last that were among them; what lacks is
        read."""
        wanted = {key(record) for record in records}
        now = self._clock()
        # What went while it was read may be something else's.
        were = {k: v for k, v in self._known.items() if not v.is_passing}
        self._take_in(now)
        self._known |= {k: v for k, v in self._gone.items() if k in wanted}
        gone = {k: v for k, v in (self._gone | were).items() if k not in wanted}
        self._gone = dict([*gone.items()][-GONE:])
        self._known = {k: v for k, v in self._known.items() if k in wanted}
        self._not_before = {k: v for k, v in self._not_before.items() if k in wanted}
        missing = [
            k
            for k in sorted(wanted, reverse=True)
            if now >= self._not_before.get(k, now)
            and (k not in self._known or self._known[k].is_passing)
        ]
        if missing and not self._reading:
            self._reading = missing
            try:
                self._spawn(lambda: self._read(tuple(missing)))
            except RuntimeError as error:
                _log.warning("versions can't be read now: %s", error)
                self._reading = []
            self._take_in(now)
        return {**self._gone, **self._known}

    def _take_in(self, now: float) -> None:
        while not self._ended.empty():
            which, description = self._ended.get()
            self._reading.remove(which)
            if description is not None:
                self._known[which] = description
            if description is None or description.is_passing:
                self._not_before[which] = now + RETRY_SECONDS

    def _read(self, keys: Iterable[Key]) -> None:
        for which in keys:
            description = None
            try:
                description = self._describe(which[0])
            except Exception:  # noqa: BLE001 - the loop has to hear of its end
                _log.exception("version %d can't be read", which[0])
                message = f"version {which[0]} can't be read; see the poller's log"
                description = Description(0, Interface(message=message))
            finally:
                self._ended.put((which, description))
                self._wake()

    def _describe(self, version: int) -> Description | None:
        for _ in range(_TRIES):
            try:
                return describe(self._folder(version))
            except FileNotFoundError:
                # Published or retired between the two.
                continue
            except OSError as error:
                message = f"version {version} can't be read: {error.strerror}"
                _log.warning("%s; it is tried again", message)
                return Description(0, Interface(message=message), is_passing=True)
        return None
