"""What becomes of what nobody needs in a cache: evicting, and clearing up after the dead."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from model_poller.cache import beats
from model_poller.cache.eviction import Held, victims
from model_poller.cache.folder import DamagedError, delete, gone
from model_poller.cache.key import KEY

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator
    from pathlib import Path

    from model_poller.cache.beats import Watch
    from model_poller.cache.copying import Pulse
    from model_poller.cache.folder import Folder

RESERVE_BYTES: Final = 64 << 20
"""Left free: others may have less patience with a full disk."""
FORGOTTEN_SECONDS: Final = 3600.0
"""A lease that ended without an entry, or whose holder died, is remembered as long."""
BEAT: Final = "beat"
"""The file by which the writer of an entry shows that it lives."""
_INCOMING: Final = re.compile(r"[0-9a-f]{16}\.([0-9]{1,19})")
_OURS: Final = re.compile(
    rf"({KEY.pattern}|incoming|[0-9a-f]{{16}})\.[0-9a-f]{{1,19}}|\.(look|probe)-[0-9a-f]{{16}}"
)
"""Names that some pod has given. Others are left alone: file servers have folders of their own in
each of a volume's."""


@dataclass(frozen=True, slots=True)
class Keeper:
    """Keeps one cache within its bounds; several may at once."""

    folder: Folder
    watch: Watch
    room: int | None
    """Bytes that entries may take; None for all of the disk."""
    pulse: Pulse

    def make_room(self, needed: int, *, is_full: bool = False) -> str:
        """Evict what has to go for so many bytes; empty, or why they can't have room.

        ``is_full``: whatever the file system says is free isn't.

        Raises:
            SharedError
        """
        if self.room is not None and needed > self.room:
            return f"a version of {needed} bytes is larger than all that it may hold, {self.room}"
        self._empty(self.folder.trash, self._used())
        chosen = self._victims(needed, is_full=is_full)
        if chosen is None:
            # Kept for whoever wants to look at them, but not at that price.
            self._empty(self.folder.damaged, set())
            chosen = self._victims(needed, is_full=is_full)
        if chosen is None:
            with self.pulse:
                free = self.folder.free()
            return (
                f"it has no room for {needed} bytes{self._limit}: {free} are free on its disk, and"
                " no version is left there that could be evicted"
            )
        for held in chosen:
            self._evict(held.key)
        return ""

    def lacks(self, needed: int) -> str:
        """Why so many bytes can't be kept with nothing evicted; empty where they can.

        Raises:
            SharedError
        """
        with self.pulse:
            free = self.folder.free()
        if free - RESERVE_BYTES >= needed and (self.room is None or needed <= self.room):
            return ""
        return f"it had no room for {needed} bytes{self._limit} when another pod fetched them"

    @property
    def _limit(self) -> str:
        """What it may hold, as a part of a sentence."""
        return "" if self.room is None else f" of the {self.room} that it may hold"

    def clear_up(self) -> bool:
        """Remove what the dead have left; whether somebody may turn out to be dead yet.

        Raises:
            SharedError
        """
        used, users = self._look_at_users()
        coming = self._clear_incoming()
        kept = {*users, *coming}
        self._empty(self.folder.trash, used)
        for path in sorted(self._ours(self.folder.damaged), key=self._age)[1:]:
            with self.pulse:
                delete(path)
        kept |= self._clear_leases()
        self.watch.forget_all_but(kept)
        # Others may have stored at the same time as this one.
        self.make_room(0)
        return bool(users or coming)

    def _victims(self, needed: int, *, is_full: bool) -> list[Held] | None:
        used = self._used()
        entries = list(self._held(used))
        with self.pulse:
            coming = [_INCOMING.fullmatch(path.name) for path in self.folder.incoming.iterdir()]
            free = self.folder.free()
        other = sum(int(match[1]) for match in coming if match)
        if is_full:
            free = 0
        elif needed:
            free -= RESERVE_BYTES
        return victims(entries, needed=needed, room=self.room, other=other, free=free)

    def _held(self, used: set[str]) -> Iterator[Held]:
        with self.pulse:
            keys = self.folder.keys()
            capacity = self.folder.capacity()
        for key in keys:
            moment = 0.0
            with self.pulse:
                try:
                    opened = self.folder.open(key)
                except DamagedError as error:
                    self.folder.set_aside(key, error.id)
                    continue
                if opened is None:
                    continue
                with opened:
                    size = opened.entry.size
                if size > capacity:
                    # What nothing can be would have all the others make room for it.
                    self.folder.set_aside(key, opened.entry.id)
                    continue
                with gone():
                    moment = (self.folder.entries / key / "used").stat().st_mtime
            yield Held(key, size, moment, key in used)

    def _evict(self, key: str) -> None:
        with self.pulse:
            trash = self.folder.evict(key)
        # Who came meanwhile reads on from what is in the trash, which waits for that.
        if trash is not None and key not in self._used():
            with self.pulse:
                delete(trash)

    def _used(self) -> set[str]:
        return self._look_at_users()[0]

    def _look_at_users(self) -> tuple[set[str], set[Hashable]]:
        """The keys that are in use, and the files of their users, who may be dead as well."""
        used: set[str] = set()
        users: set[Hashable] = set()
        with self.pulse:
            self.folder.refresh(self.folder.users)
        for path in self._ours(self.folder.users):
            silent = self._silent(path)
            if silent >= beats.DEAD_SECONDS:
                with self.pulse, gone():
                    path.unlink()
                continue
            key = path.name.partition(".")[0]
            if KEY.fullmatch(key):
                used.add(key)
            users.add(path)
        return used, users

    def _clear_incoming(self) -> set[Hashable]:
        coming: set[Hashable] = set()
        for path in self._ours(self.folder.incoming):
            if self._silent(path / BEAT) < beats.DEAD_SECONDS:
                coming.add(path / BEAT)
                continue
            # Two may do it; and its writer, if it lives after all, finds it gone.
            trash = self.folder.trash / f"incoming.{secrets.token_hex(4)}"
            with self.pulse, gone():
                path.rename(trash)
                delete(trash)
        return coming

    def _clear_leases(self) -> set[Hashable]:
        leases: set[Hashable] = set()
        for path in self._ours(self.folder.leases):
            if self._silent(path) >= FORGOTTEN_SECONDS:
                with self.pulse, gone():
                    path.unlink()
            else:
                leases |= {path, (path, "progress")}
        return leases

    def _empty(self, folder: Path, used: set[str]) -> None:
        for path in self._ours(folder):
            if path.name.partition(".")[0] not in used:
                with self.pulse:
                    delete(path)

    def _ours(self, folder: Path) -> list[Path]:
        """What pods have put there."""
        with self.pulse:
            return [path for path in folder.iterdir() if _OURS.fullmatch(path.name)]

    def _age(self, path: Path) -> float:
        """By which older ones come later, and what another pod has just removed last."""
        moment = 0.0
        with self.pulse, gone():
            moment = path.lstat().st_mtime
        return -moment

    def _silent(self, path: Path) -> float:
        """For how many seconds nobody has written it, as far as it was watched."""
        content: Hashable = b""
        with self.pulse, gone():
            content, _ = beats.read(path)
        return self.watch.unchanged(path, content)
