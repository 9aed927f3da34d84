"""A whole poller with everything around it, driven step by step in one thread."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import shutil
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from model_poller.bring import Bringer, Demands
from model_poller.look import Looker
from model_poller.planner import Policy
from model_poller.poller import Poller
from model_poller.volume.assignment import Assignment
from model_poller.volume.store import Store
from tests.unit.poller.doubles import Clock, FakeServer, MemorySource

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator
    from pathlib import Path

    from model_poller.golden.watch import Check
    from model_poller.status import PollerStatus, RolloutTask, VersionStatus
    from model_poller.stores import Source

ALONE = Policy(follow_newest=True)
TOLD = Policy(follow_newest=False)
NOTHING = Demands()


class World:
    """A pod: its volume, its bucket, its model server and its poller."""

    def __init__(
        self,
        root: Path,
        policy: Policy = ALONE,
        *,
        demands: Demands = NOTHING,
        source: Source | None = None,
        golden: Check | None = None,
    ) -> None:
        """``source`` instead of a bucket in memory; ``golden`` sends recorded requests."""
        self._golden = golden
        self.policy = policy
        self.demands = demands
        self.clock = Clock()
        self.source = MemorySource()
        self._read: Source = source or self.source
        self.store = Store(root / "imagenet", root)
        self.root = root
        self.assignment = Assignment()
        self.wanted: tuple[Hashable, float] | None = None
        """What the poller wants figures for, and how often."""
        self.store.prepare()
        self.server = FakeServer(self.store.base)
        self.start()

    def start(self) -> None:
        """A new process on the same volume."""
        self.store.prepare()
        self.poller = Poller(
            "imagenet",
            self.policy,
            Bringer(self._read, self.store, self.demands),
            look_now=lambda: None,
            hurry=lambda _: None,
            want_figures=self._want,
            clock=self.clock,
            spawn=lambda work: work(),
            golden=self._golden,
        )
        self.looker = Looker(
            self._read,
            30.0,
            self.poller.on_look,
            marker=self.demands.marker,
            interest=self.poller.interest,
        )
        self.poller.on_assignment(self.assignment)

    def tell(self, target: int, *served: int, quarantined: Iterable[tuple[int, str]] = ()) -> None:
        """Assign a target, with all that is served beside it and what failed elsewhere."""
        self.assignment = Assignment(target, served, frozenset(quarantined))
        self.poller.on_assignment(self.assignment)

    def ask(self, rollout: RolloutTask | None) -> None:
        """What a rollout asks from now on."""
        self.assignment = dataclasses.replace(self.assignment, rollout=rollout)
        self.poller.on_assignment(self.assignment)

    def _want(self, reason: Hashable, seconds: float) -> None:
        self.wanted = None if reason is None else (reason, seconds)

    def look(self) -> None:
        self.looker.look(self.clock)

    def step(self) -> None:
        self.poller.on_served(self.server.status())
        self.poller.step()

    def turn(self, seconds: float = 2.0) -> None:
        """Let time pass, and everybody do their part once."""
        self.clock.now += seconds
        self.look()
        self.step()
        self.server.poll()
        self.step()

    def settle(self, turns: int = 12, seconds: float = 2.0) -> PollerStatus:
        for _ in range(turns):
            self.turn(seconds)
        return self.status()

    def status(self) -> PollerStatus:
        return self.poller.board.read()

    def version(self, number: int) -> VersionStatus:
        return next(v for v in self.status().versions if v.version == number)

    def base(self) -> dict[str, dict[str, bytes]]:
        """All files in the base path, by folder."""
        return {
            folder.name: {
                path.relative_to(folder).as_posix(): path.read_bytes()
                for path in folder.rglob("*")
                if path.is_file()
            }
            for folder in self.store.base.iterdir()
        }

    def retained(self) -> list[str]:
        return sorted(p.name for p in (self.root / ".retained").iterdir())

    def staged(self) -> list[str]:
        return sorted(p.name for p in (self.root / ".staging").iterdir())


class Killed(BaseException):
    """The process is gone."""


@dataclass
class Fate:
    """Whether the process was killed."""

    dead: bool = False


@contextmanager
def killed_at(count: int) -> Iterator[Fate]:
    """Kill the process before its ``count``-th change of the disk; nothing works after it."""
    left, lock, fate = count, threading.Lock(), Fate()
    alive = threading.current_thread()

    def sabotage(original: Callable[..., Any], *, counts: bool) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal left
            # The thread that empties the trash belongs to no step.
            if counts or threading.current_thread() is alive:
                with lock:
                    left -= counts
                    fate.dead = fate.dead or left < 0
                if fate.dead:
                    raise Killed
            return original(*arguments, **options)

        return call

    patched: list[tuple[Any, str]] = [
        (pathlib.Path, "rename"),
        (pathlib.Path, "write_bytes"),
        (pathlib.Path, "unlink"),
        (pathlib.Path, "symlink_to"),
        (pathlib.Path, "touch"),
        (os, "pwrite"),
        (shutil, "rmtree"),
    ]
    originals = [(owner, name, getattr(owner, name)) for owner, name in patched]
    for owner, name, original in originals:
        setattr(owner, name, sabotage(original, counts=name != "rmtree"))
    try:
        yield fate
    except Killed:
        pass
    finally:
        for owner, name, original in originals:
            setattr(owner, name, original)
