"""Replicas of one model in memory: pods that follow what they are assigned, and what serves there.

Time passes in rounds. In each one the pollers and model servers do their part, the Deployment goes
on with its rollout, and the operator decides once.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from inferencemodel_operator import spec, versions
from inferencemodel_operator.assignment import assignment
from inferencemodel_operator.crashes import CrashWatch
from inferencemodel_operator.observe import objects
from inferencemodel_operator.record import VersionsRecord
from inferencemodel_operator.versions import PodVersions
from model_poller.status import (
    PollerStatus,
    ServedVersion,
    SourceReason,
    SourceState,
    SourceStatus,
    VersionReason,
    VersionState,
    VersionStatus,
)
from model_poller.volume.assignment import Assignment, from_environment, parse
from tests.unit.operator.wire_pods import wire_pod

if TYPE_CHECKING:
    from collections.abc import Iterable

Fate = Literal["good", "crash", "fail", "corrupt"]
URI = "gs://models/m"
SOURCE = SourceStatus(uri=URI, state=SourceState.READY, reason=SourceReason.LISTED)
_numbers = itertools.count(1)


@dataclass
class Stored:
    """A version in the bucket."""

    fate: Fate
    fingerprint: str


@dataclass
class Replica:
    """One pod."""

    template: str
    works: bool
    """Whether the template's model server can start at all."""
    record: VersionsRecord
    """From which the pod started."""
    victims: frozenset[int] = frozenset()
    """Versions that bring this pod down by its own fault."""
    name: str = field(default_factory=lambda: f"pod-{next(_numbers)}")
    disk: dict[int, Stored] = field(default_factory=dict)
    published: set[int] = field(default_factory=set)
    proven: set[int] = field(default_factory=set)
    quarantined: dict[int, tuple[str, VersionReason]] = field(default_factory=dict)
    serving: set[int] = field(default_factory=set)
    restarts: int = 0
    reachable: bool = True

    def __post_init__(self) -> None:
        self.assign(self.record)

    def assign(self, record: VersionsRecord) -> None:
        """Tell it what to serve, in the words that a poller reads."""
        target, served, quarantined = assignment(record).values()
        texts = from_environment(
            {
                "TARGET_VERSION": target,
                "SERVED_VERSIONS": served,
                "QUARANTINED_VERSIONS": quarantined,
            }
        )
        self.assignment: Assignment = parse(texts)

    def turn(self, bucket: dict[int, Stored]) -> None:
        """Fetch, publish, load, retire: one step of each."""
        told = self.assignment
        wanted = set(told.served) or {v for v in (told.target,) if v is not None}
        for version in list(self.disk):
            if self._outdated(version, bucket):
                self._drop(version)
        for version in sorted({*wanted, *bucket}, reverse=True):
            self._fetch(version, bucket)
        for version, (fingerprint, _) in list(self.quarantined.items()):
            if version in bucket and bucket[version].fingerprint != fingerprint:
                del self.quarantined[version]
        for version in list(self.disk):
            if self._withheld(version, self.disk[version]) and version not in self.serving:
                self._drop(version)
        lead = max(wanted, default=None)
        if lead in self.disk:
            self.published |= wanted & self.disk.keys()
        if not self.serving:
            self.published &= wanted | self.proven
        self._load()
        if lead in self.serving:
            self.published &= wanted
            self.serving &= wanted

    def _outdated(self, version: int, bucket: dict[int, Stored]) -> bool:
        if version in self.proven or version not in bucket:
            return False
        loose = version not in self.published or not self.serving
        return loose and self.disk[version].fingerprint != bucket[version].fingerprint

    def _fetch(self, version: int, bucket: dict[int, Stored]) -> None:
        stored = bucket.get(version)
        if stored is None or version in self.disk or version in self.quarantined:
            return
        if self._withheld(version, stored):
            return
        if stored.fate == "corrupt":
            self.quarantined[version] = stored.fingerprint, VersionReason.BAD_ARCHIVE
        else:
            self.disk[version] = stored

    def _withheld(self, version: int, stored: Stored) -> bool:
        return (version, stored.fingerprint) in self.assignment.quarantined

    def _load(self) -> None:
        crashing = any(
            not self.works or v in self.victims or self.disk[v].fate == "crash"
            for v in self.published
        )
        if crashing:
            self.restarts += 1
            self.serving = set()
            return
        for version in list(self.published):
            if self.disk[version].fate == "fail":
                fingerprint = self.disk[version].fingerprint
                self._drop(version)
                self.quarantined[version] = fingerprint, VersionReason.LOAD_FAILED
        self.serving = set(self.published)
        self.proven |= self.serving

    def _drop(self, version: int) -> None:
        self.published.discard(version)
        self.proven.discard(version)
        self.serving.discard(version)
        del self.disk[version]

    def report(self, bucket: dict[int, Stored]) -> PollerStatus:
        """What its poller says."""
        numbers = {*bucket, *self.disk, *self.quarantined}
        return PollerStatus(
            revision="",
            model="m",
            target=self.assignment.target,
            assigned=self.assignment.texts,
            source=SOURCE,
            server_reachable=bool(self.serving),
            served=tuple(
                ServedVersion(version=v, state="AVAILABLE")
                for v in sorted(self.serving, reverse=True)
            ),
            versions=tuple(self._version(v, bucket) for v in sorted(numbers, reverse=True)),
        )

    def _version(self, number: int, bucket: dict[int, Stored]) -> VersionStatus:
        state, reason = VersionState.DISCOVERED, None
        if number in self.serving:
            state = VersionState.AVAILABLE
        elif number in self.published:
            state = VersionState.PUBLISHED
        elif number in self.disk:
            state = VersionState.RETIRED if number in self.proven else VersionState.FETCHED
        elif number in self.quarantined:
            state, reason = VersionState.QUARANTINED, self.quarantined[number][1]
        known = bucket.get(number) or self.disk.get(number)
        fingerprint = known.fingerprint if known else self.quarantined[number][0]
        return VersionStatus(
            version=number,
            state=state,
            in_source=number in bucket,
            fingerprint=fingerprint,
            disk_fingerprint=self.disk[number].fingerprint if number in self.disk else "",
            reason=reason,
            proven=number in self.proven,
        )


@dataclass
class Replicas:
    """A Deployment's pods, the bucket, and the operator with its memory."""

    wanted: int
    num_versions: int = 1
    bucket: dict[int, Stored] = field(default_factory=dict)
    pods: list[Replica] = field(default_factory=list)
    record: VersionsRecord = field(default_factory=VersionsRecord)
    watch: CrashWatch = field(default_factory=CrashWatch)
    active: int | None = None
    """The status' activeVersion."""
    template: str = "t1"
    works: bool = True
    pin: int | None = None
    targets: list[int | None] = field(default_factory=list)
    """Of all rounds."""

    def __post_init__(self) -> None:
        self.pods = [self.pod() for _ in range(self.wanted)]

    def pod(self, victims: Iterable[int] = ()) -> Replica:
        """A new pod of the present template."""
        return Replica(self.template, self.works, self.record, frozenset(victims))

    def upload(self, version: int, fate: Fate = "good") -> None:
        """Put a version into the bucket, over what is there."""
        self.bucket[version] = Stored(fate, f"f{version}.{next(_numbers)}")

    def roll(self, template: str, *, works: bool) -> None:
        """Change the pod template: one pod more, until it serves."""
        self.pods = [pod for pod in self.pods if pod.template != self.template or pod.serving]
        self.template, self.works = template, works
        self.pods.append(self.pod())

    def replace(self, index: int, victims: Iterable[int] = ()) -> None:
        """Delete a pod; another one takes its place."""
        old = self.pods.pop(index % len(self.pods))
        new = self.pod(victims)
        if old.template != self.template:
            # The old ReplicaSet makes it anew.
            new = Replica(old.template, old.works, self.record, frozenset(victims))
        self.pods.append(new)

    def restart_operator(self) -> None:
        """All that is left is the ConfigMap."""
        self.watch = CrashWatch()
        self.record = VersionsRecord.from_config_map(self.record.to_data())

    def turn(self, *, operator: bool = True) -> None:
        """One round."""
        for pod in self.pods:
            pod.turn(self.bucket)
        self._roll_on()
        self._observe()
        if operator:
            self.decide()

    def decide(self) -> VersionsRecord:
        """Let the operator decide and tell."""
        self.record = self.decision()
        for pod in self.pods:
            pod.assign(self.record)
        self.targets.append(self.record.target)
        return self.record

    def decision(self) -> VersionsRecord:
        """What the operator would decide now."""
        model = spec.Model(storage_uri=URI, num_versions=self.num_versions, version=self.pin)
        told = [self._told(pod) for pod in self.pods]
        return versions.decide(model, self.record, told, reached=self.active)

    def settle(self, rounds: int = 40) -> None:
        """Let time pass."""
        for _ in range(rounds):
            self.turn()

    def _told(self, pod: Replica) -> PodVersions:
        if not pod.reachable:
            return PodVersions(report=None, template=pod.template)
        report = pod.report(self.bucket)
        seen = objects.pod(wire_pod(pod.name, template=pod.template, restarts=pod.restarts))
        assert seen is not None
        crashed = self.watch.crashed(seen, report, self.record)
        return PodVersions(report=report, template=pod.template, crashed=crashed)

    def _observe(self) -> None:
        """As the status does: reached is what the wanted number answers with, and nobody else."""
        answers = {max(pod.serving) for pod in self.pods if pod.serving}
        ready = sum(bool(pod.serving) for pod in self.pods)
        if len(answers) == 1 and ready >= self.wanted:
            self.active = answers.pop()

    def _roll_on(self) -> None:
        """One pod of the template before goes for each new one that serves."""
        old = [pod for pod in self.pods if pod.template != self.template]
        new = [pod for pod in self.pods if pod.template == self.template]
        if old and all(pod.serving for pod in new):
            self.pods.remove(old[0])
            new_needed = len(old) > 1
            if new_needed:
                self.pods.append(self.pod())
