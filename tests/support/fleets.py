"""A fleet of replicas that do as they are told, for tests of decisions: no cluster, no clock.

Each `Fleet.step` is one pass of the operator, by the same two pure functions, and what the pods
make of it. What a version does when it is loaded is up to the test.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from inferencemodel_operator import spec, versions
from inferencemodel_operator.hearsay import HearsayWatch
from inferencemodel_operator.observe.troubles import CRASHES, Trouble
from inferencemodel_operator.observe.wire import DeploymentStatus
from inferencemodel_operator.observed import Observed, Replica
from inferencemodel_operator.record import ActiveVersion, VersionsRecord
from inferencemodel_operator.rollouts import clock
from inferencemodel_operator.rollouts.plan import plan
from inferencemodel_operator.rollouts.situation import Plan, Situation
from model_poller import status
from model_poller.status import (
    AssignmentStatus,
    CheckResult,
    GoldenStatus,
    Interface,
    LiveStatus,
    PollerStatus,
    RolloutTask,
    ServedVersion,
    SourceReason,
    SourceState,
    SourceStatus,
    VersionReason,
    VersionState,
    VersionStatus,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from inferencemodel_operator.rollouts.checks import Finding

URI = "gs://models/m"
LOAD_THREADS = 2
"""Of a model server, as the operator starts it."""
START = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


@dataclass
class Behaviour:
    """What a version does, and what is known of it before."""

    load: str = "good"
    """good, fails, crashes (the server, at load), hangs, or crashes-serving."""
    golden: CheckResult | None = CheckResult.SKIPPED
    """None while it is not told yet."""
    weight: int = 0
    interface: Interface | None = None
    fingerprint: str = ""
    errors: int = 0
    """Of a hundred requests."""
    latency: float = 0.01
    """Seconds."""


@dataclass
class Pod:
    """One replica."""

    uid: str
    node: str = "n1"
    disk: set[tuple[int, str]] = field(default_factory=set)
    quarantined: set[tuple[int, str]] = field(default_factory=set)
    assigned: VersionsRecord = field(default_factory=VersionsRecord)
    task: RolloutTask | None = None
    answers: int | None = None
    given: int | None = None
    restarts: int = 0
    proven: set[int] = field(default_factory=set)
    silent: bool = False
    """Whether it can't be asked."""
    draining: bool = False
    crashed: bool = False
    template: str = "t"
    broken: bool = False
    """Whether its model server ends whatever it is given."""
    down: int = 0
    """For so many steps its server, which has ended, isn't started again."""
    retries: set[str] = field(default_factory=set)
    evicted: bool = False
    """Whether its node has ended it; the object stays."""
    lies: tuple[VersionStatus, ...] = ()
    """What it tells of versions instead of what is."""
    claims: tuple[VersionStatus, ...] = ()
    """What it tells of some versions, beside what is of the others."""
    claims_to_answer: int | None = None
    """The version that it says its model server answers with, whatever that does."""
    hung: set[int] = field(default_factory=set)
    """Loads that don't end, each with a thread of the model server's."""


class Fleet:
    """An InferenceModel, its bucket, its pods and the operator's memory."""

    def __init__(self, replicas: int = 3, *, stable: int | None = 1, **fields: Any) -> None:
        self.replicas = replicas
        self.fields = fields
        self.now = START
        self.bucket: dict[int, Behaviour] = {}
        self.pods: dict[str, Pod] = {}
        self.record = VersionsRecord()
        self.actions: dict[str, str] = {}
        self.rehearsal: Finding | None = None
        self.is_replacing = False
        """Whether pods of an earlier template are still there."""
        self.slow = False
        """Whether what is in the bucket is still on its way."""
        self.lost: set[int] = set()
        """Versions whose fetch fails."""
        self.backoff = 0
        """For so many steps a server that has ended isn't started again."""
        self.slow_starts: set[str] = set()
        """Uids of pods that don't come up yet."""
        self.requests = 0
        """That each replica gets between two steps."""
        self.made = 0
        self.writes = 0
        """Of the memory."""
        self.tellings: list[tuple[str, int | None]] = []
        """Who was newly told which target."""
        self.plan = Plan(record=self.record)
        self.hearsay = HearsayWatch()
        self.model_fields: dict[str, Any] = {}
        if stable is not None:
            self.upload(stable)
            self.record = VersionsRecord(
                target=stable,
                served=(stable,),
                active=ActiveVersion(stable, f"f{stable}"),
                source=URI,
            )
        self.scale(replicas)
        if stable is not None:
            for pod in self.pods.values():
                pod.disk = {(stable, f"f{stable}")}
                pod.answers, pod.given, pod.proven = stable, stable, {stable}
                pod.assigned = self.record
            # The templates that work are learnt by looking.
            self.step()
            self.tellings.clear()
            self.writes = 0

    @property
    def model(self) -> spec.InferenceModel:
        """The resource, of the fields that the test gave."""
        return spec.decode(
            {
                "metadata": {"name": "m", "namespace": "vision", "uid": "u"},
                "spec": {
                    "model": {"storageUri": URI, **self.model_fields},
                    "replicas": self.replicas,
                    **self.fields,
                },
            }
        )

    def upload(self, version: int, load: str = "good", **fields: Any) -> None:
        """Put a version into the bucket, or others objects under its number."""
        fields.setdefault("fingerprint", f"f{version}")
        self.bucket[version] = Behaviour(load=load, **fields)

    def scale(self, replicas: int) -> None:
        """Let there be so many: new ones start with what the memory says, the last ones go."""
        self.replicas = replicas
        while sum(not pod.evicted for pod in self.pods.values()) < replicas:
            self.made += 1
            uid = f"p{self.made}"
            self.pods[uid] = Pod(uid, node=f"n{self.made % 2}", assigned=self.record)
        there = [uid for uid, pod in self.pods.items() if not pod.evicted]
        for uid in sorted(there, key=lambda uid: int(uid[1:]))[replicas:]:
            del self.pods[uid]

    def evict(self, *uids: str) -> None:
        """Have nodes end pods, which are replaced while their objects stay."""
        for uid in uids:
            pod = self.pods[uid]
            pod.evicted, pod.answers, pod.silent = True, None, True
        self.scale(self.replicas)

    def kill(self, *uids: str) -> None:
        """Replace pods by new ones."""
        for uid in uids:
            self.pods.pop(uid, None)
        self.scale(self.replicas)

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.now += datetime.timedelta(seconds=seconds)

    def set_clock(self, seconds: float) -> None:
        """Set the clock of the operator's machine, which it notices before its next pass."""
        by = datetime.timedelta(seconds=seconds)
        self.now += by
        self.record = msgspec.structs.replace(
            self.record, rollout=clock.shifted(self.record.rollout, by)
        )
        self.plan = msgspec.structs.replace(
            self.plan,
            soaking=clock.shifted_soaking(self.plan.soaking, by),
            trying=clock.shifted_trying(self.plan.trying, by),
        )

    def on(self, version: int) -> list[str]:
        """Who answers with a version."""
        return sorted(uid for uid, pod in self.pods.items() if pod.answers == version)

    def told(self, version: int) -> list[str]:
        """Who is told to serve it."""
        return sorted(uid for uid, pod in self.pods.items() if pod.assigned.target == version)

    @property
    def phase(self) -> str:
        """Of the rollout."""
        return self.plan.status.phase if self.plan.status else ""

    def operate(self) -> Plan:
        """One pass of the operator, up to what it writes."""
        model = self.model
        seen = Observed(
            pods=tuple(self._replica(pod) for pod in self.pods.values()),
            record=self.record,
            wanted=self.replicas,
            deployment=DeploymentStatus(
                replicas=len(self.pods) + self.is_replacing, updated_replicas=len(self.pods)
            ),
        )
        reports = [
            versions.PodVersions(
                report=replica.report,
                template=pod.template,
                crashed=pod.given if pod.crashed and not pod.silent else None,
            )
            for pod, replica in zip(self.pods.values(), seen.pods, strict=True)
        ]
        heard = self.hearsay.look(
            {r.uid: r.report for r in seen.replicas if r.report is not None},
            self.record.quarantined,
            model.spec.source.poll_interval,
            self.now.timestamp(),
        )
        goal = versions.decide(
            model.spec.model,
            self.record,
            reports,
            reached=seen.reached,
            unfounded=heard.unfounded,
        )
        stay = goal
        if self.record.target not in (None, goal.target):
            stay = versions.staying(model.spec.model, self.record.target, goal, reports)
        return plan(
            model,
            self.record,
            goal,
            stay,
            Situation(
                replicas=seen.pods,
                wanted=self.replicas,
                is_replacing=seen.is_replacing,
                soaking=self.plan.soaking,
                trying=self.plan.trying,
                actions=self.actions,
                rehearsal=self.rehearsal,
                now=self.now,
            ),
        )

    def step(self, *, seconds: float = 0.5) -> None:
        """A pass, all that it writes, and what the pods make of it."""
        self.plan = self.operate()
        self.remember()
        self.tell(self.pods)
        for annotation in self.plan.read:
            self.actions.pop(annotation, None)
        self.work()
        self.wait(seconds)

    def remember(self) -> None:
        """Write the memory, as it is read again."""
        data = self.plan.record.to_data()
        self.writes += data != self.record.to_data()
        self.record = VersionsRecord.from_config_map(data)

    def tell(self, uids: Iterable[str]) -> None:
        """Write to these pods what they are to serve."""
        for uid in list(uids):
            pod = self.pods[uid]
            assigned = self.plan.assigned(uid)
            if assigned.target != pod.assigned.target:
                self.tellings.append((uid, assigned.target))
            pod.assigned, pod.task = assigned, self.plan.task_of(uid)

    def work(self) -> None:
        """Let the pods do as they are told."""
        for pod in self.pods.values():
            if pod.uid not in self.slow_starts and not pod.evicted:
                self._work(pod)

    def run(self, steps: int = 40, *, seconds: float = 0.5) -> None:
        """So many steps."""
        for _ in range(steps):
            self.step(seconds=seconds)

    def _work(self, pod: Pod) -> None:
        if pod.broken:
            pod.restarts += 1
            return
        if pod.task and pod.task.retry and pod.task.retry not in pod.retries:
            pod.retries.add(pod.task.retry)
            number, _, rest = pod.task.retry.partition("@")
            pod.quarantined.discard((int(number), rest.partition("#")[0]))
        withheld = {(e.version, e.stored) for e in pod.assigned.quarantined} | pod.quarantined
        pod.disk |= self._fetched(pod, withheld)
        pod.disk -= {entry for entry in pod.disk if entry in withheld and entry[0] != pod.answers}
        if pod.down:
            pod.down -= 1
            return
        target = pod.assigned.target
        if self.bucket:
            # What was deleted from the source goes, but for what is served or is to be.
            stable = pod.task.stable if pod.task and pod.task.version == target else None
            needed = {*self.bucket, pod.answers, pod.given, target, stable}
            pod.disk = {entry for entry in pod.disk if entry[0] in needed}
        fingerprint = dict(pod.disk).get(target) if target is not None else None
        if target is None or fingerprint is None or (target, fingerprint) in withheld:
            return
        if pod.given != target:
            pod.given, pod.crashed = target, False
        behaviour = self.bucket.get(target, Behaviour())
        match behaviour.load:
            case "fails":
                pod.quarantined.add((target, fingerprint))
                pod.given = pod.answers
            case "crashes":
                pod.answers, pod.down = None, self.backoff
                pod.restarts += 1
                pod.crashed = pod.restarts >= CRASHES
            case "hangs" if len(pod.hung) < LOAD_THREADS:
                pod.hung.add(target)
            case _ if len(pod.hung) >= LOAD_THREADS:
                pass
            case "crashes-serving" if pod.answers == target:
                pod.answers, pod.down = None, self.backoff
                pod.restarts += 1
            case _:
                pod.answers = target
                pod.proven.add(target)

    def _fetched(self, pod: Pod, withheld: set[tuple[int, str]]) -> set[tuple[int, str]]:
        """What a pod brings: what is asked for, and the newest where that is above all it has."""
        stored = {version: (version, known.fingerprint) for version, known in self.bucket.items()}
        here = {number for number, _ in pod.disk}
        found = {v for v, entry in stored.items() if entry not in withheld and v not in self.lost}
        asked = {pod.assigned.target, *pod.assigned.served}
        if pod.task is not None and pod.task.fetch:
            asked.add(pod.task.version)
        newest = max(found, default=-1)
        if newest > max(here, default=-1):
            asked.add(newest)
        return set() if self.slow else {stored[version] for version in found & asked - here}

    def _replica(self, pod: Pod) -> Replica:
        return Replica(
            name=pod.uid,
            uid=pod.uid,
            node=pod.node,
            ready=pod.answers is not None,
            report=None if pod.silent else self._report(pod),
            draining=pod.draining or pod.evicted,
            evicted="was evicted by its node" if pod.evicted else "",
            restarts=pod.restarts,
            template="u" if pod.broken else pod.template,
            trouble=Trouble.SERVER_CRASHED
            if pod.broken or (pod.answers is None and pod.restarts >= CRASHES)
            else None,
        )

    def _report(self, pod: Pod) -> PollerStatus:
        text = status.encode_task(pod.task) if pod.task else ""
        answers = pod.answers if pod.claims_to_answer is None else pod.claims_to_answer
        return PollerStatus(
            revision="",
            model="m",
            target=pod.assigned.target,
            assigned=AssignmentStatus(target=str(pod.assigned.target or ""), rollout=text),
            source=SourceStatus(uri=URI, state=SourceState.READY, reason=SourceReason.LISTED),
            versions=pod.lies or self._versions(pod),
            server_reachable=pod.answers is not None,
            served=(
                *(ServedVersion(version=number, state="LOADING") for number in sorted(pod.hung)),
                *(ServedVersion(version=n, state="AVAILABLE") for n in (answers,) if n),
            ),
            live=self._live(pod),
        )

    def _versions(self, pod: Pod) -> tuple[VersionStatus, ...]:
        disk = dict(pod.disk)
        told = {
            number: self._version(pod, number, disk.get(number)) for number in {*disk, *self.bucket}
        }
        told |= {claimed.version: claimed for claimed in pod.claims}
        return tuple(told[number] for number in sorted(told, reverse=True))

    def _live(self, pod: Pod) -> LiveStatus | None:
        if pod.task is None or not pod.task.live or pod.answers is None:
            return None
        behaviour = self.bucket.get(pod.answers, Behaviour())
        errors = self.requests * behaviour.errors // 100
        return LiveStatus(
            task=pod.task.key,
            version=pod.answers,
            requests=self.requests,
            errors=errors,
            ok_seconds=(self.requests - errors) * behaviour.latency,
        )

    def _version(self, pod: Pod, number: int, here: str | None) -> VersionStatus:
        behaviour = self.bucket.get(number)
        stored = behaviour.fingerprint if behaviour else here or ""
        golden = None
        if pod.task and pod.task.golden and pod.answers == number == pod.task.version:
            result = behaviour.golden if behaviour else CheckResult.SKIPPED
            if result is not None:
                golden = GoldenStatus(task=pod.task.key, result=result, message="record 1 differs")
        known = VersionStatus(
            version=number,
            state=VersionState.DISCOVERED,
            in_source=behaviour is not None,
            fingerprint=stored,
            disk_fingerprint=here if here and here != stored else "",
            proven=number in pod.proven,
            weight_bytes=behaviour.weight if behaviour and here else 0,
            interface=behaviour.interface if behaviour and here else None,
            golden=golden,
        )
        if (number, stored) in pod.quarantined:
            return msgspec.structs.replace(
                known, state=VersionState.QUARANTINED, reason=VersionReason.LOAD_FAILED
            )
        if here is None and number in self.lost:
            return msgspec.structs.replace(known, reason=VersionReason.FETCH_FAILED, failures=2)
        if here is None:
            return known
        if pod.answers == number:
            state = VersionState.AVAILABLE
        elif pod.given == number:
            state = VersionState.PUBLISHED
        else:
            state = VersionState.RETIRED if number in pod.proven else VersionState.FETCHED
        return msgspec.structs.replace(known, state=state)
