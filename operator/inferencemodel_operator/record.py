"""What the operator remembers about versions, in the ConfigMap ``NAME-versions``."""

from __future__ import annotations

import re
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec

from inferencemodel_operator import bounds, store
from inferencemodel_operator.errors import InvalidRecordError
from model_poller.status import CheckResult, Count  # noqa: TC001 (msgspec reads them)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

TARGET_KEY: Final = "target"
CANDIDATE_KEY: Final = "candidate"
ROLLOUT_KEY: Final = "rollout.json"
SERVED_KEY: Final = "served"
QUARANTINED_KEY: Final = "quarantined"
"""What pods have to know of `QUARANTINED_JSON_KEY`, which is read back instead."""
QUARANTINED_JSON_KEY: Final = "quarantined.json"
ACTIVE_KEY: Final = "active"
TEMPLATES_KEY: Final = "templates.json"
SOURCE_KEY: Final = "source"
STORE_KEY: Final = "store"

LISTED: Final = 50
"""Of the quarantined versions, pods are told the newest so many."""

PROOFS: Final = bounds.VERSIONS
TEMPLATES: Final = 10
"""So many pod templates are remembered; a rollout has two."""
_TEMPLATE: Final = "+template:"
"""In a fingerprint, between that of the stored objects and that of the pod template."""

_FINGERPRINT: Final = re.compile(r"[0-9A-Za-z._-]{0,64}")

TOLD: Final = 2000
"""The most pods that a step before the last can name."""

SERVED: Final = 10
"""The most versions that are served at once, by the CRD."""

# What the operator writes is within these bounds; anybody who may edit ConfigMaps can write more.
_Name = Annotated[str, msgspec.Meta(max_length=bounds.NAME)]
_REASON: Final = r"^[A-Za-z]{1,64}\Z"
_Reason = Annotated[str, msgspec.Meta(pattern=_REASON)]
_Message = Annotated[str, msgspec.Meta(max_length=bounds.MESSAGE)]
_Time = Annotated[datetime, msgspec.Meta(tz=True)]
_LONGEST: Final = 1e9
"""Seconds."""
_YEARS: Final = range(1970, 9000)
"""What can be reckoned with."""
_Tried = Annotated[str, msgspec.Meta(max_length=2 * bounds.NAME)]


def tried_in(template: str, stored: str) -> str:
    """The fingerprint of what failed in pods of one template; of any where none is named."""
    return f"{stored}{_TEMPLATE}{template}" if template else stored


class QuarantinedVersion(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A version that failed for a reason which the same stored objects will not heal."""

    version: Count
    fingerprint: _Tried
    """Of the stored objects that failed; the quarantine ends when they change."""
    reason: _Reason
    message: _Message = ""

    @property
    def stored(self) -> str:
        """The fingerprint of the stored objects alone."""
        return self.fingerprint.partition(_TEMPLATE)[0]

    @property
    def template(self) -> str:
        """That of the pod template in which they failed; empty for any."""
        return self.fingerprint.partition(_TEMPLATE)[2]


class WorkingTemplate(msgspec.Struct, frozen=True):
    """A pod template whose model server has answered requests."""

    template: _Name
    """Its hash."""
    versions: Annotated[tuple[Count, ...], msgspec.Meta(max_length=PROOFS)]
    """With which versions, newest first: the newest `PROOFS` of them."""


class ActiveVersion(msgspec.Struct, frozen=True):
    """A version that all wanted replicas have served."""

    version: int
    fingerprint: str
    """Of the objects that were served: others under the same number have to prove themselves."""

    def __str__(self) -> str:
        return f"{self.version}@{self.fingerprint}"


class Phase(StrEnum):
    """Where a rollout is."""

    CHECKING = "Checking"
    """No replica is told of the version yet: it is fetched, and looked at."""
    REHEARSING = "Rehearsing"
    """A pod that gets no requests loads it."""
    PROGRESSING = "Progressing"
    """Replicas are given it, step by step."""
    PAUSED = "Paused"
    """It waits for somebody. In the memory it is `RolloutRecord.hold` that says so."""
    BAKING = "Baking"
    """All replicas have it, and it is watched on."""
    ROLLING_BACK = "RollingBack"
    """All replicas are told the version before, and some still answer with this one."""
    COMPLETED = "Completed"
    ROLLED_BACK = "RolledBack"
    SUPERSEDED = "Superseded"
    """Another version took its place before it was everywhere."""

    @property
    def is_ended(self) -> bool:
        """Whether nothing more comes of it."""
        return self in (Phase.COMPLETED, Phase.ROLLED_BACK, Phase.SUPERSEDED)


class PlannedStep(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """One step, as the spec had it when the rollout began."""

    replicas: Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,9}%?\Z")]
    pause: Annotated[float, msgspec.Meta(ge=0, le=_LONGEST)] = 0.0
    """Seconds that are waited once so many replicas answer with the version."""
    until_promoted: bool = False


class ToldPod(msgspec.Struct, frozen=True, array_like=True):
    """A pod that was told of the new version."""

    uid: _Name
    restarts: Count
    """Of its model server, before that."""


class CheckRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How one check ended."""

    name: _Name
    result: CheckResult
    message: _Message = ""
    time: _Time


class Figures(msgspec.Struct, frozen=True):
    """How requests went on replicas with the version before, while the new one was beside them."""

    error_part: float
    """Of 1."""
    latency: float
    """Mean, in seconds."""


class RolloutRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """The rollout that runs, or the one that ran last."""

    version: Count
    fingerprint: _Name = ""
    """Of the stored objects; with others it begins anew."""
    from_version: Count | None = None
    phase: Phase = Phase.CHECKING
    steps: Annotated[tuple[PlannedStep, ...], msgspec.Meta(max_length=21)] = ()
    """As the spec had them at the start, with the implied last one."""
    step: int = 0
    """Counted from 1; 0 before the first."""
    pods: Annotated[tuple[ToldPod, ...], msgspec.Meta(max_length=TOLD)] = ()
    """Those that were told of the version; in the last step all are."""
    ends: Count = 0
    """Of their model servers since then, when this step began."""
    evicted: Count = 0
    """How many of them their nodes have ended, for want of memory or disk."""
    carried: Count | None = None
    """The version of a rollout that this one took the place of."""
    carriers: Annotated[tuple[ToldPod, ...], msgspec.Meta(max_length=TOLD)] = ()
    """Pods that go on with that one until it is their turn."""
    started: _Time
    step_started: _Time | None = None
    settled: _Time | None = None
    """Since when as many replicas as the step wants answer with the version."""
    ended: _Time | None = None
    hold: _Message = ""
    """Why it waits for somebody; empty while it doesn't."""
    promoted: bool = False
    """Whether somebody has promoted it out of this step."""
    promotion_read: bool = False
    """Whether the annotation that did so has been read, and has been there ever since: what is
    still to be taken away must not promote the next step as well."""
    full: bool = False
    """Whether somebody has promoted it to all replicas."""
    approved: bool = False
    """Whether somebody has approved of its interface."""
    before: Figures | None = None
    """What a bake compares with."""
    retry: _Tried = ""
    """What pods are told of a version that is tried again, see `RolloutTask.retry`."""
    reason: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z]{0,64}\Z")] = ""
    """Why it was rolled back."""
    message: _Message = ""
    checks: Annotated[tuple[CheckRecord, ...], msgspec.Meta(max_length=8)] = ()

    def check(self, name: str) -> CheckRecord | None:
        """How one check ended; None when it hasn't."""
        return next((check for check in self.checks if check.name == name), None)

    @property
    def told(self) -> frozenset[str]:
        """The uids of ``pods``."""
        return frozenset(pod.uid for pod in self.pods)

    @property
    def carrying(self) -> frozenset[str]:
        """The uids of ``carriers``."""
        return frozenset(pod.uid for pod in self.carriers)

    @property
    def is_sound(self) -> bool:
        """Whether it can be gone on with."""
        times = (self.started, self.step_started, self.settled, self.ended)
        has_step = self.phase not in (Phase.PROGRESSING, Phase.BAKING) or self.step >= 1
        return (
            all(time is None or time.year in _YEARS for time in times)
            and self.phase is not Phase.PAUSED
            and 0 <= self.step <= len(self.steps)
            and (has_step or self.phase.is_ended)
            and (self.phase.is_ended or bool(self.steps))
        )

    @property
    def is_last_step(self) -> bool:
        """Whether all replicas are wanted."""
        return self.step >= len(self.steps)


_Quarantined = Annotated[tuple[QuarantinedVersion, ...], msgspec.Meta(max_length=bounds.VERSIONS)]
_Templates = Annotated[tuple[WorkingTemplate, ...], msgspec.Meta(max_length=TEMPLATES)]


class VersionsRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The memory that outlives pods and operator."""

    target: int | None = None
    """The version that a new pod starts with; None while none is known. While another one is rolled
    out, the stable one."""
    candidate: int | None = None
    """The version that is being rolled out; None while none is."""
    rollout: RolloutRecord | None = None
    """Of the candidate, or the last one."""
    served: tuple[int, ...] = ()
    """All versions that every pod is to serve, highest first: the target and those beside it."""
    quarantined: tuple[QuarantinedVersion, ...] = ()
    """Newest first."""
    active: ActiveVersion | None = None
    """What all wanted replicas were last known to serve. It is not taken back."""
    templates: tuple[WorkingTemplate, ...] = ()
    """Those that work: what crashes in one of them is the version's fault."""
    source: str = ""
    """The storage URI that all this is about; empty where an older release has written it."""
    store: str = ""
    """The server that it is asked of (`store`); empty where an older release has written it."""

    @property
    def wanted(self) -> int | None:
        """What all replicas are to serve in the end."""
        return self.target if self.candidate is None else self.candidate

    @property
    def proven(self) -> frozenset[int]:
        """The versions that are known to have answered requests."""
        served = {version for known in self.templates for version in known.versions}
        return frozenset(served if self.active is None else served | {self.active.version})

    def about(self, source: str, on: str = "") -> VersionsRecord:
        """The same, where it is about this storage URI on this server; else nothing is known."""
        known = self.source in ("", source) and store.same(self.store, on)
        return self if known else VersionsRecord()

    def works(self, template: str) -> bool:
        """Whether a pod of this template has ever answered requests."""
        return any(known.template == template for known in self.templates)

    def has_served_another(self, template: str, version: int) -> bool:
        """Whether a pod of this template has answered with a version that is not this one."""
        return any(
            known.template == template and any(v != version for v in known.versions)
            for known in self.templates
        )

    @classmethod
    def from_config_map(
        cls, data: Mapping[str, str] | None, *, name: str = "NAME-versions"
    ) -> VersionsRecord:
        """Read the ``data`` of the ConfigMap; ``name`` is for the error alone.

        Raises:
            InvalidRecordError: somebody else has written there.
        """
        data = data or {}
        target, candidate = data.get(TARGET_KEY), data.get(CANDIDATE_KEY)
        served = [part for part in data.get(SERVED_KEY, "").split(",", SERVED) if part]
        if len(served) > SERVED:
            raise InvalidRecordError(name, SERVED_KEY, f"it names more than {SERVED} versions")
        rollout = _decode(data, ROLLOUT_KEY, RolloutRecord | None, name, empty="null")
        if rollout is not None and not rollout.is_sound:
            raise InvalidRecordError(name, ROLLOUT_KEY, "it is no state of a rollout")
        return cls(
            target=None if target is None else _number(target, name, TARGET_KEY),
            candidate=None if candidate is None else _number(candidate, name, CANDIDATE_KEY),
            rollout=rollout,
            served=tuple(_number(part, name, SERVED_KEY) for part in served),
            quarantined=_decode(data, QUARANTINED_JSON_KEY, _Quarantined, name),
            active=_active(data.get(ACTIVE_KEY), name),
            templates=_decode(data, TEMPLATES_KEY, _Templates, name),
            source=data.get(SOURCE_KEY, ""),
            store=data.get(STORE_KEY, ""),
        )

    def assigned(self) -> dict[str, str]:
        """The part of the ConfigMap's ``data`` that pods are told as well."""
        return {
            TARGET_KEY: "" if self.target is None else str(self.target),
            SERVED_KEY: ",".join(map(str, self.served)),
            QUARANTINED_KEY: _compact(_newest_first(self.quarantined)),
        }

    def to_data(self) -> dict[str, str]:
        """The ``data`` of the ConfigMap."""
        ordered = _newest_first(self.quarantined)
        texts = {
            **self.assigned(),
            CANDIDATE_KEY: "" if self.candidate is None else str(self.candidate),
            ROLLOUT_KEY: "" if self.rollout is None else _encode(self.rollout),
            ACTIVE_KEY: "" if self.active is None else str(self.active),
            TEMPLATES_KEY: _encode(self.templates) if self.templates else "",
            SOURCE_KEY: self.source,
            STORE_KEY: self.store,
        }
        # What is not known is absent, so that a new pod sees nothing of it.
        given = {key: text for key, text in texts.items() if text}
        return {QUARANTINED_JSON_KEY: _encode(ordered), **given}


def is_reason(text: str) -> bool:
    """Whether it can be read back as the reason of a quarantined version."""
    return re.match(_REASON, text) is not None


def _active(text: str | None, name: str) -> ActiveVersion | None:
    if text is None:
        return None
    number, _, fingerprint = text.partition("@")
    if len(fingerprint) > bounds.NAME:
        raise InvalidRecordError(name, ACTIVE_KEY, "its fingerprint is too long")
    return ActiveVersion(_number(number, name, ACTIVE_KEY), fingerprint)


def _number(text: str, name: str, key: str) -> int:
    number = bounds.number(text)
    if number is None:
        raise InvalidRecordError(name, key, f"{text[:50]!r} is no version number")
    return number


def _decode(data: Mapping[str, str], key: str, kind: Any, name: str, *, empty: str = "[]") -> Any:
    try:
        return msgspec.json.decode(data.get(key, empty), type=kind)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise InvalidRecordError(name, key, bounds.text(str(error), bounds.NAME)) from None
    except RecursionError:
        raise InvalidRecordError(name, key, "it is nested too deeply") from None


def _encode(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _newest_first(entries: Iterable[QuarantinedVersion]) -> list[QuarantinedVersion]:
    return sorted(entries, key=lambda entry: entry.version, reverse=True)


def _compact(entries: Iterable[QuarantinedVersion]) -> str:
    """``NUMBER@FINGERPRINT`` of each, as pollers read it."""
    known = dict.fromkeys(
        (entry.version, entry.stored) for entry in entries if _FINGERPRINT.fullmatch(entry.stored)
    )
    return ",".join(f"{version}@{stored}" for version, stored in list(known)[:LISTED])


def uncompacted(text: str) -> Iterator[tuple[int, str]]:
    """The numbers and fingerprints that stand under `QUARANTINED_KEY`; what is none is left out."""
    for entry in text.split(",", LISTED)[:LISTED]:
        number, at, stored = entry.partition("@")
        version = bounds.number(number)
        if version is not None and at and _FINGERPRINT.fullmatch(stored):
            yield version, stored
