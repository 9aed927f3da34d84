"""What is done to the fleet, and when: drawn from a seed, so that a run can be repeated. Pure.

A longer plan begins as a shorter one of the same seed does. What a fault hits is drawn at its turn,
by the number it brings, from what is there then.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence


class Family(StrEnum):
    """Faults of one family are never there at once: two nodes that are gone prove nothing."""

    PROCESS = "process"
    """A program in a pod."""
    NODE = "node"
    """A node, or a program of it."""
    CONTROL = "control"
    """The control plane, and what leads to it."""
    STORE = "store"
    OBJECT = "object"
    """What is written in the API server."""


@dataclass(frozen=True)
class Kind:
    """A kind of fault.

    Attributes:
        name: as it is told, and as ``--only`` wants it.
        family: the family.
        weight: how often it is drawn, beside the others.
        least: seconds that it lasts, at least.
        most: at most.
        several: whether it needs several nodes.
    """

    name: str
    family: Family
    weight: int
    least: float
    most: float
    several: bool = False


KINDS = (
    Kind("kill-model-server", Family.PROCESS, 4, 1, 1),
    Kind("kill-poller", Family.PROCESS, 4, 1, 1),
    Kind("kill-supervisor", Family.PROCESS, 3, 1, 1),
    Kind("kill-operator-leader", Family.PROCESS, 4, 1, 1),
    Kind("kill-operator-standby", Family.PROCESS, 2, 1, 1),
    Kind("restart-operator", Family.PROCESS, 3, 1, 1),
    Kind("kill-dns", Family.PROCESS, 2, 1, 1),
    Kind("kill-ingress-controller", Family.PROCESS, 2, 1, 1),
    Kind("delete-pod", Family.PROCESS, 4, 1, 1),
    Kind("kill-kubelet", Family.NODE, 2, 2, 12, several=True),
    Kind("kill-containerd", Family.NODE, 2, 2, 12, several=True),
    Kind("kill-kube-proxy", Family.NODE, 2, 2, 12, several=True),
    Kind("stop-node", Family.NODE, 3, 5, 60, several=True),
    Kind("cut-node", Family.NODE, 3, 5, 60, several=True),
    Kind("cut-node-from-control-plane", Family.NODE, 3, 5, 60, several=True),
    Kind("fill-node", Family.NODE, 2, 20, 40, several=True),
    Kind("drain-node", Family.NODE, 2, 10, 40, several=True),
    Kind("delete-node", Family.NODE, 1, 5, 15, several=True),
    Kind("kill-api-server", Family.CONTROL, 3, 1, 40),
    Kind("kill-etcd", Family.CONTROL, 2, 1, 20),
    Kind("kill-controllers", Family.CONTROL, 2, 1, 30),
    Kind("refuse-api", Family.CONTROL, 4, 10, 40),
    Kind("compact-etcd", Family.CONTROL, 2, 1, 1),
    Kind("rotate-api-certificate", Family.CONTROL, 1, 1, 1),
    Kind("store-away", Family.STORE, 4, 5, 50),
    Kind("store-refuses", Family.STORE, 4, 5, 50),
    Kind("store-slow", Family.STORE, 3, 10, 50),
    Kind("store-lies", Family.STORE, 4, 10, 50),
    Kind("store-emptied", Family.STORE, 3, 10, 40),
    Kind("store-from-an-old-copy", Family.STORE, 2, 10, 40),
    Kind("notifications-away", Family.STORE, 2, 10, 40),
    Kind("delete-child", Family.OBJECT, 4, 1, 1),
    Kind("edit-child", Family.OBJECT, 4, 1, 1),
    Kind("edit-assignment", Family.OBJECT, 3, 1, 1),
    Kind("steal-lease", Family.OBJECT, 3, 1, 1),
    Kind("older-definition", Family.OBJECT, 1, 10, 30),
)
NAMES = tuple(kind.name for kind in KINDS)


class Quality(StrEnum):
    """What a version is like."""

    GOOD = "good"
    DAMAGED = "damaged"
    """No archive can be read in it."""
    UNLOADABLE = "unloadable"
    """Whole, and no model server loads it."""
    WRONG = "wrong"
    """It answers otherwise than its golden requests say."""
    UNSIGNED = "unsigned"
    """It has no signature."""


@dataclass(frozen=True)
class Fault:
    """One fault of a plan: seconds from the start, how many it lasts, and what draws its target."""

    at: float
    seconds: float
    kind: Kind
    number: int


@dataclass(frozen=True)
class Upload:
    """A new version of one model."""

    at: float
    model: str
    quality: Quality


FIRST_FAULT = 20.0
"""Seconds in which nothing happens but traffic and uploads: what is there then is compared with."""
_GAP = (4.0, 20.0)
_TOGETHER = 0.3
"""How many faults begin while the one before is still there."""
_UPLOAD_GAP = (4.0, 14.0)
_GOOD = 0.7


def faults(
    seed: int, seconds: float, *, several: bool, only: Collection[str] = ()
) -> tuple[Fault, ...]:
    """The faults of a run, in the order of their begin; each ends before ``seconds``."""
    kinds = [
        kind for kind in KINDS if (several or not kind.several) and (not only or kind.name in only)
    ]
    return tuple(_faults(random.Random(f"faults {seed}"), seconds, kinds))  # noqa: S311


def _faults(chance: random.Random, seconds: float, kinds: Sequence[Kind]) -> Iterator[Fault]:
    ends: dict[Family, float] = {}
    before = Fault(FIRST_FAULT, 0.0, kinds[0], 0)
    while True:
        kind = chance.choices(kinds, [each.weight for each in kinds])[0]
        lasts = chance.uniform(kind.least, kind.most)
        gap, together = chance.uniform(*_GAP), chance.random() < _TOGETHER
        number = chance.getrandbits(32)
        beside = before.at + min(gap, before.seconds / 2)
        if together and beside >= ends.get(kind.family, FIRST_FAULT):
            at = beside
        else:
            at = max(ends.values(), default=FIRST_FAULT) + gap
        if at + lasts > seconds:
            return
        ends[kind.family] = at + lasts
        before = Fault(at, lasts, kind, number)
        yield before


def uploads(seed: int, seconds: float, models: Sequence[str]) -> tuple[Upload, ...]:
    """The versions of a run, in the order in which they come."""
    chance = random.Random(f"uploads {seed}")  # noqa: S311
    found, at = [], 5.0
    bad = [quality for quality in Quality if quality is not Quality.GOOD]
    while at < seconds:
        model = chance.choice(models)
        good, other = chance.random() < _GOOD, chance.choice(bad)
        found.append(Upload(at, model, Quality.GOOD if good else other))
        at += chance.uniform(*_UPLOAD_GAP)
    return tuple(found)
