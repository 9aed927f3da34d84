"""What a rollout's plan looks at, and what it gives."""

from __future__ import annotations

import datetime  # noqa: TC003 (msgspec reads it)
from collections.abc import Mapping  # noqa: TC003 (msgspec reads it)

import msgspec

from inferencemodel_operator.observed import Replica  # noqa: TC001 (msgspec reads it)
from inferencemodel_operator.record import VersionsRecord  # noqa: TC001 (msgspec reads it)
from inferencemodel_operator.rollouts.checks import Finding  # noqa: TC001 (msgspec reads it)
from inferencemodel_operator.status import RolloutStatus  # noqa: TC001 (msgspec reads it)
from model_poller.status import RolloutTask  # noqa: TC001 (msgspec reads it)


class Soaking(msgspec.Struct, frozen=True):
    """Since when a step without a pause of its own is reached.

    It is kept by the process alone: to lose it costs `SOAK_SECONDS`, to remember it a write.
    """

    version: int
    step: int
    since: datetime.datetime


class Trying(msgspec.Struct, frozen=True):
    """Since when replicas have had the version without answering with it.

    It is kept by the process alone: to lose it gives them their time once more.
    """

    begun: datetime.datetime
    """Of the rollout."""
    since: Mapping[str, datetime.datetime]
    """By uid."""


class Situation(msgspec.Struct, frozen=True, kw_only=True):
    """What the plan looks at."""

    replicas: tuple[Replica, ...]
    """Those with the spec's source; also those that drain."""
    wanted: int
    """How many there are to be."""
    is_replacing: bool = False
    """Whether the Deployment is replacing pods by those of its present template."""
    soaking: Soaking | None = None
    """What the plan before this one gave by that name."""
    trying: Trying | None = None
    """Likewise."""
    actions: Mapping[str, str] = {}
    """The annotations of the InferenceModel by which somebody acts, see `names`."""
    rehearsal: Finding | None = None
    """How the rehearsal of the candidate ended; None as long as it runs."""
    rehearsing: str = ""
    """How far it is until then, or what keeps it waiting."""
    rehearser: Replica | None = None
    """The pod that rehearses it."""
    now: datetime.datetime


class Dropped(msgspec.Struct, frozen=True):
    """An action that meant nothing."""

    annotation: str
    why: str


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Who is told what, and what is remembered of it."""

    record: VersionsRecord
    """The next memory. A pod that is in none of the groups below is told what it says."""
    candidate: VersionsRecord | None = None
    """What the pods of ``told`` are told."""
    told: frozenset[str] | None = frozenset()
    """Uids; None for all."""
    carried: VersionsRecord | None = None
    """What the pods of ``carrying`` are told that are not in ``told``."""
    carrying: frozenset[str] = frozenset()
    task: RolloutTask | None = None
    """What is asked of the pods of ``told``."""
    other_task: RolloutTask | None = None
    """What is asked of all others."""
    rehearse: bool = False
    """Whether there is to be a rehearsal pod for the candidate."""
    read: tuple[str, ...] = ()
    """The annotations that are to be taken away."""
    dropped: tuple[Dropped, ...] = ()
    soaking: Soaking | None = None
    """For the next pass."""
    trying: Trying | None = None
    """Likewise."""
    after: float | None = None
    """Seconds until something changes by time alone; None when nothing does."""
    status: RolloutStatus | None = None

    def is_told(self, uid: str) -> bool:
        """Whether a pod is among those that are told of the candidate."""
        return self.candidate is not None and (self.told is None or uid in self.told)

    def assigned(self, uid: str) -> VersionsRecord:
        """What a pod is told."""
        if self.candidate is not None and self.is_told(uid):
            return self.candidate
        return self.carried if self.carried is not None and uid in self.carrying else self.record

    def task_of(self, uid: str) -> RolloutTask | None:
        """What is asked of a pod beside that."""
        return self.task if self.is_told(uid) else self.other_task
