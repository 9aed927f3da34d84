"""How a version that is wanted reaches the replicas: a pure function of memory and observation.

`versions.decide` says which version is the goal. This says who is told to serve it now, and who
goes on with the version before, the stable one. All that has to outlive the operator is in the
`RolloutRecord`; the same input gives the same output, so a pass may be repeated, be late, or follow
a restart.

Nothing moves on while it isn't known how those stand that have the version already.
"""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from inferencemodel_operator import bounds, names
from inferencemodel_operator.conditions import Reason
from inferencemodel_operator.record import (
    TEMPLATE,
    TOLD,
    ActiveVersion,
    CheckRecord,
    Phase,
    QuarantinedVersion,
    RolloutRecord,
    ToldPod,
    VersionsRecord,
)
from inferencemodel_operator.rollouts import checks as rollout_checks
from inferencemodel_operator.rollouts.actions import act, asked
from inferencemodel_operator.rollouts.checks import Finding
from inferencemodel_operator.rollouts.fleet import Fleet, is_given, is_stuck, loads_others
from inferencemodel_operator.rollouts.situation import Dropped, Plan, Situation, Soaking, Trying
from inferencemodel_operator.rollouts.steps import choice, count, steps_of
from inferencemodel_operator.status import RolloutCheck, RolloutStatus
from inferencemodel_operator.versions import MOST, PodVersions, staying
from model_poller.status import CheckResult, GoldenTask, RolloutTask

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from inferencemodel_operator.observed import Replica
    from inferencemodel_operator.spec import InferenceModel, Rollout

SOAK_SECONDS: Final = 1.0
"""How long a version has to answer on the replicas of a step before the next step: one that ends
its server at the first requests is not given to more of them."""
ENDED_SOAK_SECONDS: Final = 60.0
"""The same where the model server of one of them has ended once since it was given the version. It
answers soon after its container was started again, and gets requests only some seconds later, when
its endpoints are back. A second end speaks against the version."""
LIVE_SECONDS: Final = 30.0
"""How long live figures are gathered where a step has no pause of its own."""
SEEN_SECONDS: Final = 1.0
"""How long a rollout that was taken back is shown as such before another one takes its place."""
BACK_SECONDS: Final = 10.0
"""How long its end is waited for."""
RESTARTS: Final = 2
"""So many ends of the model server on a replica that has the version speak against the version."""


def plan(
    model: InferenceModel,
    before: VersionsRecord,
    goal: VersionsRecord,
    stay: VersionsRecord,
    seen: Situation,
) -> Plan:
    """One pass.

    Args:
        model: the resource.
        before: the memory.
        goal: what holds once all replicas are to serve the goal, by `versions.decide`.
        stay: what holds while the version before goes on, by `versions.staying`.
        seen: what is observed.
    """
    return _Pass(model, before, goal, stay, seen).run()


class _FailureError(Exception):
    """The version has to be taken back, or to wait for somebody."""

    def __init__(
        self, reason: Reason, message: str, *, of_template: bool = False, certain: bool = False
    ) -> None:
        """``certain`` is what nobody has to judge: the version is taken back in any case."""
        super().__init__(message)
        self.reason = reason
        self.message = bounds.text(message)
        self.of_template = of_template
        self.certain = certain


class _Pass:
    """The state of one pass: the inputs, and the rollout as it becomes."""

    def __init__(
        self,
        model: InferenceModel,
        before: VersionsRecord,
        goal: VersionsRecord,
        stay: VersionsRecord,
        seen: Situation,
    ) -> None:
        self.model = model
        self.spec = model.spec.rollout
        self.before = before
        self.goal = goal
        self.stay = stay
        self.seen = seen
        self.now = seen.now
        self.run_of = _not_ahead(before.rollout, seen.now)
        self.fleet = Fleet(seen.replicas)
        self.replicas = self.fleet.replicas
        self.wakes: list[float] = []
        self.soaking: Soaking | None = None
        self.trying: Trying | None = None
        self.read: list[str] = []
        self.dropped: list[Dropped] = []
        self.waits = ""
        """Why the rollout waits for somebody, which its record doesn't say."""
        self.words = ""

    # What becomes of it

    def run(self) -> Plan:
        ongoing = self.run_of if self.run_of and not self.run_of.phase.is_ended else None
        if ongoing is not None and self._is_aborted(ongoing):
            return self._take_back(
                ongoing, _FailureError(Reason.ABORTED, "somebody aborted its rollout")
            )
        retried = self._retried(ongoing)
        if retried is not None:
            return retried
        ongoing, read, self.dropped = act(self.seen.actions, ongoing, self.read)
        self.read += read
        if ongoing is not None:
            self.run_of = ongoing
        target, goal = self.before.target, self.goal.target
        if ongoing is not None and ongoing.phase is Phase.BAKING and target == ongoing.version:
            if goal == target:
                return self._bake(ongoing)
            if goal is not None and goal > ongoing.version:
                self._end(Phase.COMPLETED, f"version {goal} came while it was watched")
                ongoing = None
        if goal is None or (target is not None and goal <= target) or self._is_known_pin(goal):
            return self._settle_for(ongoing)
        if self._is_spoilt(goal):
            return self._settle_for(ongoing, instead=goal)
        current = ongoing if ongoing and self._is_about(ongoing, goal) else None
        if current is None and target is not None and self._goes_back(ongoing, goal):
            return self._result(replace(self.stay, candidate=None, rollout=self.run_of))
        if current is None or target is None:
            stable = self._stable(target, goal)
            if stable is None:
                return self._settle_for(ongoing)
            current = self._begin(ongoing, stable, goal)
        self.run_of = current
        return self._go_on(current)

    def _settle_for(self, ongoing: RolloutRecord | None, *, instead: int | None = None) -> Plan:
        """All are told the goal: it is the stable version, or there is nobody to be protected.

        A rollout that runs has lost its version.

        Args:
            ongoing: that rollout.
            instead: a goal that nobody is told, for what is stored of it has failed.
        """
        if ongoing is not None and ongoing.phase is not Phase.ROLLING_BACK:
            bad = next((q for q in self.goal.quarantined if q.version == ongoing.version), None)
            if bad is not None:
                self._roll_back(ongoing, bad.reason, bad.message)
            else:
                wanted = "no version" if self.goal.target is None else f"version {self.goal.target}"
                self._end(Phase.SUPERSEDED, f"{wanted} is wanted instead")
        self._look_back()
        record = self.goal if instead is None else self.stay
        if self.goal.target is None and self.run_of and self.run_of.phase is Phase.ROLLING_BACK:
            # Who has the version has to hear what to go back to.
            record = self.stay
        # One that is pinned is wanted all the same.
        pinned = instead if instead == self.model.spec.model.version else None
        return self._result(replace(record, candidate=pinned, rollout=self.run_of))

    def _goes_back(self, ongoing: RolloutRecord | None, goal: int) -> bool:
        """Whether a rollout that was taken back comes to its end before that of another version.

        So whoever waits for that end sees it. But not for long: what hinders it may be what the
        other version mends.
        """
        if ongoing is not None and ongoing.phase is not Phase.ROLLING_BACK:
            bad = next((q for q in self.goal.quarantined if q.version == ongoing.version), None)
            if bad is None or ongoing.version == goal:
                return False
            self._roll_back(ongoing, bad.reason, bad.message)
        self._look_back()
        run = self.run_of
        if run is None or run.version == goal:
            return False
        if run.phase is Phase.ROLLED_BACK:
            return not self._is_over(run.ended or self.now, SEEN_SECONDS)
        if run.phase is Phase.ROLLING_BACK:
            return not self._is_over(run.step_started or self.now, BACK_SECONDS)
        return False

    def _is_spoilt(self, version: int) -> bool:
        """Whether all that is stored of a version has failed."""
        bad = {e.stored for e in self.goal.quarantined if e.version == version}
        here = self.fleet.fingerprints(version) or self.fleet.tried(version)
        return bool(bad) and here <= bad

    def _roll_back(self, ongoing: RolloutRecord, reason: str, message: str) -> None:
        self.run_of = replace(
            ongoing,
            phase=Phase.ROLLING_BACK,
            reason=reason,
            message=bounds.text(message),
            hold="",
            pods=(),
            carried=None,
            carrying=(),
            settled=None,
            step_started=self.now,
        )

    def _look_back(self) -> None:
        """Whether a rollout that is taken back is back everywhere."""
        ongoing = self.run_of
        if ongoing is None or ongoing.phase is not Phase.ROLLING_BACK:
            return
        if all(replica.answer != ongoing.version for replica in self.replicas):
            self.run_of = replace(ongoing, phase=Phase.ROLLED_BACK, ended=self.now)

    def _end(self, phase: Phase, message: str) -> None:
        """A rollout that runs ends, if one does."""
        ongoing = self.run_of
        if ongoing is not None and not ongoing.phase.is_ended:
            self.run_of = replace(
                ongoing,
                phase=phase,
                message=message,
                ended=self.now,
                pods=(),
                carried=None,
                carrying=(),
                hold="",
            )

    def _take_back(self, ongoing: RolloutRecord, failure: _FailureError) -> Plan:
        """The version is quarantined, and all are told the stable one."""
        stable = ongoing.from_version
        self._roll_back(ongoing, failure.reason.value, failure.message)
        quarantined = _with(self.goal.quarantined, self._entries(ongoing, failure))
        if self.before.target == ongoing.version and stable is not None:
            # From a bake: the version before is still on the disks.
            record = replace(self.goal, target=stable, served=(stable,), active=self._known(stable))
        else:
            record = self.stay
        self._look_back()
        return self._result(
            replace(record, quarantined=quarantined, candidate=None, rollout=self.run_of)
        )

    def _known(self, stable: int) -> ActiveVersion | None:
        tried = self.fleet.tried(stable)
        return ActiveVersion(stable, min(tried)) if tried else None

    def _entries(self, ongoing: RolloutRecord, failure: _FailureError) -> list[QuarantinedVersion]:
        version = ongoing.version
        here = self.fleet.tried(version) | self.fleet.fingerprints(version)
        if ongoing.fingerprint and failure.reason is not Reason.ABORTED:
            # Others that have come under the number meanwhile are another attempt.
            given = (r for r in self.replicas if is_given(r, version))
            here = {known.tried for r in given if (known := r.version(version)) is not None}
        fingerprints = {ongoing.fingerprint, *here} - {""}
        templates = {r.template for r in self.replicas} if failure.of_template else {""}
        return [
            QuarantinedVersion(
                version=ongoing.version,
                fingerprint=f"{fingerprint}{TEMPLATE}{template}" if template else fingerprint,
                reason=failure.reason.value,
                message=failure.message,
            )
            for fingerprint in sorted(fingerprints)
            for template in sorted(templates)
        ]

    # Where it begins

    def _is_known_pin(self, goal: int) -> bool:
        """Whether a version that has served already is pinned: going back to it is no rollout."""
        tried = self.run_of
        if tried is not None and tried.version == goal and tried.phase is not Phase.COMPLETED:
            return False
        # One whose rollout didn't end may have served on a single replica.
        is_known = goal in self.before.proven and self.fleet.have_proven(goal)
        return self.model.spec.model.version == goal and is_known

    def _is_about(self, ongoing: RolloutRecord, goal: int) -> bool:
        if ongoing.phase is Phase.ROLLING_BACK or ongoing.version != goal:
            return False
        stored = self.fleet.fingerprints(goal)
        return not stored or not ongoing.fingerprint or ongoing.fingerprint in stored

    def _stable(self, target: int | None, goal: int) -> int | None:
        """The version that clients go on with meanwhile; None where they would lose nothing.

        It is the target so far. But where that serves nowhere (a pin to a version that isn't there,
        say) or is none (by a ``minVersion`` above all that is there), replicas may serve another.
        """
        if target is not None and not self._is_unserved(target):
            return target
        bad = {entry.version for entry in self.goal.quarantined}
        found = [version for version in self.fleet.answers() if version < goal]
        stable = next((version for version in found if version not in bad), None)
        if stable is not None:
            pods = [PodVersions(report=replica.report) for replica in self.replicas]
            self.stay = staying(self.model.spec.model, stable, self.goal, pods)
        return stable

    def _is_unserved(self, target: int) -> bool:
        """Whether no client would lose anything: the stable version serves nowhere, and won't."""
        found = self.fleet.is_unserved(target)
        if found is None:
            is_bad = any(entry.version == target for entry in self.goal.quarantined)
            return is_bad or self.before.active is None
        return found

    def _begin(self, ongoing: RolloutRecord | None, target: int, goal: int) -> RolloutRecord:
        stored = self.fleet.fingerprints(goal)
        bad = {entry.stored for entry in self.goal.quarantined if entry.version == goal}
        begun = RolloutRecord(
            version=goal,
            fingerprint=min(stored - bad or stored, default=""),
            from_version=target,
            steps=steps_of(self.spec),
            started=self.now,
            retry=self.run_of.retry if self.run_of and self.run_of.version == goal else "",
        )
        if ongoing is None or ongoing.phase is Phase.ROLLING_BACK:
            return begun
        if ongoing.version == goal:
            # Its objects are others by now; who has the former ones gives them back.
            if ongoing.pods:
                failure = _FailureError(
                    Reason.OBJECTS_CHANGED,
                    f"version {goal} was changed in the bucket while it was rolled out; it is "
                    "rolled out anew. Upload changed models under a new number",
                )
                entry = QuarantinedVersion(
                    version=goal,
                    fingerprint=ongoing.fingerprint,
                    reason=failure.reason.value,
                    message=failure.message,
                )
                self._quarantine(entry)
            return begun
        # Who has the version that this one takes the place of keeps it until it gets this one.
        had = self.replicas if self._tells_all(ongoing) else self.fleet.among(ongoing.told)
        carrying = tuple(replica.uid for replica in had)[:TOLD]
        if not carrying and ongoing.carried is not None:
            return replace(begun, carried=ongoing.carried, carrying=ongoing.carrying)
        return replace(begun, carried=ongoing.version, carrying=carrying) if carrying else begun

    def _quarantine(self, entry: QuarantinedVersion) -> None:
        known = {(e.version, e.fingerprint) for e in self.goal.quarantined}
        if (entry.version, entry.fingerprint) not in known:
            entries = _with(self.goal.quarantined, [entry])
            self.goal = replace(self.goal, quarantined=entries)
            self.stay = replace(self.stay, quarantined=entries)

    # How it goes on

    def _go_on(self, ongoing: RolloutRecord) -> Plan:
        try:
            self._advance()
        except _FailureError as failure:
            current = self.run_of or ongoing
            waits = self.spec.on_failure == "Pause" and current.step > 0
            if failure.certain or not waits:
                return self._take_back(current, failure)
            self.run_of = replace(current, hold=failure.message)
        current = self.run_of or ongoing
        if current.hold and not self._is_promoted(current):
            self.waits = current.hold
        if current.phase in (Phase.BAKING, Phase.COMPLETED):
            return self._result(replace(self.goal, candidate=None, rollout=current))
        record = replace(self.stay, candidate=current.version, rollout=current)
        if current.phase is not Phase.PROGRESSING:
            return self._result(record)
        told = None if self._tells_all(current) else current.told
        return self._result(record, self.goal, told)

    def _advance(self) -> None:
        """As many phases and steps as can be taken now.

        Raises:
            _FailureError: the version failed.
        """
        while True:
            current = self.run_of
            assert current is not None  # noqa: S101
            match current.phase:
                case Phase.CHECKING:
                    self._check(current)
                case Phase.REHEARSING:
                    self._rehearse(current)
                case Phase.PROGRESSING:
                    self._progress(current)
            if self.run_of == current or self.run_of is None:
                return

    def _check(self, current: RolloutRecord) -> None:
        version = current.version
        if self._needs_nothing(current):
            self._enter(Phase.PROGRESSING, 1)
            return
        found = next(iter(self.fleet.holders(current)), None)
        if found is None:
            self.words = f"version {version} is being fetched and checked"
            return
        if current.fingerprint == "":
            current = self.run_of = replace(current, fingerprint=found.tried)
        checks = self.spec.checks
        if checks.memory != "Ignore":
            finding = rollout_checks.memory(
                self.model.spec, version, self.stay.served, self.replicas, current.fingerprint
            )
            self._note(rollout_checks.MEMORY, finding)
            if finding.result is CheckResult.FAILED and checks.memory == "Enforce":
                raise _FailureError(finding.reason, finding.message, of_template=True)
        pinned = self.model.spec.model.version is not None
        mode = checks.signature or ("Report" if pinned else "Enforce")
        if mode != "Ignore":
            finding = rollout_checks.signature(self.fleet.stable(current), found)
            self._note(rollout_checks.SIGNATURE, finding)
            is_meant = self.run_of is not None and self.run_of.approved
            if finding.result is CheckResult.FAILED and mode == "Enforce" and not is_meant:
                self.waits = (
                    f"version {version} breaks clients of version {current.from_version}: "
                    f"{finding.message}; approve it if that is meant (`kubectl inferencemodel "
                    f"approve {self.model.name}`), or upload another version"
                )
                return
        if self._is_frozen():
            return
        if self.spec.rehearsal.enabled:
            self._enter(Phase.REHEARSING, current.step)
        else:
            self._enter(Phase.PROGRESSING, 1)

    def _needs_nothing(self, current: RolloutRecord) -> bool:
        """Whether all are to have it as soon as they can, whatever it is."""
        checks = self.spec.checks
        ignored = checks.memory == checks.signature == "Ignore"
        at_once = len(current.steps) == 1 and not self.spec.rehearsal.enabled
        return ignored and at_once and not self.spec.paused

    def _rehearse(self, current: RolloutRecord) -> None:
        finding = self.seen.rehearsal
        if current.full or current.promoted:
            self._note(
                rollout_checks.REHEARSAL,
                Finding(CheckResult.SKIPPED, "somebody promoted the version without it"),
            )
            self._enter(Phase.PROGRESSING, 1)
            return
        if not self.spec.rehearsal.enabled and not self._is_frozen():
            self._note(
                rollout_checks.REHEARSAL,
                Finding(CheckResult.SKIPPED, "spec.rollout.rehearsal is not enabled any more"),
            )
            self._enter(Phase.PROGRESSING, 1)
            return
        if finding is None:
            self.words = f"version {current.version} is loaded by a pod that gets no requests"
            if self.seen.rehearsing:
                self.words += f": {self.seen.rehearsing}"
            return
        self._note(rollout_checks.REHEARSAL, finding)
        if finding.result is CheckResult.FAILED:
            raise _FailureError(finding.reason, finding.message)
        if finding.result is CheckResult.INCONCLUSIVE:
            self.waits = (
                f"the rehearsal of version {current.version} can't be held: {finding.message}; "
                "make room for one more pod, or promote the version without it"
            )
            return
        rehearser = self.seen.rehearser
        if rehearser is not None and not self._judge_golden(current, [rehearser]):
            self.words = f"the golden requests of version {current.version} are being sent"
            return
        if not self._is_frozen():
            self._enter(Phase.PROGRESSING, 1)

    def _progress(self, current: RolloutRecord) -> None:
        version = current.version
        wanted = self._wanted(current)
        members = self._members(current)
        self._refill(current, members, wanted)
        self._watch(current, members)
        on = [r for r in members if r.ready and r.answer == version]
        self._judge_serving(members)
        is_settled = len(on) >= wanted > 0 and (
            not current.is_last_step or self.fleet.all_on(version)
        )
        settled = self._settle(is_settled=is_settled)
        current = self.run_of or current
        if settled is None:
            self._await_step(current, len(on), wanted)
            return
        if self._may_leave(current, on, settled):
            self._leave(current)

    def _refill(self, current: RolloutRecord, members: Sequence[Replica], wanted: int) -> None:
        """Choose who is told of the version: no more than the step wants, and nobody twice.

        Who has it already, or was told before an operator's end, comes first; then those that would
        have it soonest, spread over nodes. Who has it keeps it.
        """
        present = {replica.uid for replica in members}
        chosen = [pod for pod in current.pods if pod.uid in present]
        is_held = current.hold and not self._is_promoted(current)
        may_choose = not (self._is_frozen() or is_held or self._tells_all(current))
        if may_choose and not self.seen.is_replacing and len(chosen) < min(wanted, TOLD):
            room = wanted - len(chosen)
            if self._drains():
                # Who was told while no drain was asked for isn't sent back.
                had = sum(
                    r.report is not None and r.report.target == current.version
                    for r in self.replicas
                    if r.uid not in present
                )
                room = min(room, had or self.fleet.is_steady(members, current.version))
            chosen += choice(self.fleet, current, present, room)
        if tuple(chosen) != current.pods:
            self.run_of = replace(current, pods=tuple(chosen))

    def _watch(self, current: RolloutRecord, members: Sequence[Replica]) -> None:
        """Note since when replicas have the version without answering with it: a step can be much
        older, by a slow fetch, a pause, or a time without replicas."""
        known = self.seen.trying
        before = known.since if known is not None and known.begun == current.started else {}
        since = {
            r.uid: min(before.get(r.uid, self.now), self.now)
            for r in members
            # Who can't be asked for a moment gains no time by it.
            if is_stuck(r, current.version) or (r.report is None and r.uid in before)
        }
        self.trying = Trying(current.started, since) if since else None

    def _judge_serving(self, members: Sequence[Replica]) -> None:
        """What speaks against the version on those that have it.

        Raises:
            _FailureError: something does.
        """
        current = self.run_of
        if current is None:
            return
        for replica in members:
            ends = self._ends(replica, current)
            if ends >= RESTARTS and is_given(replica, current.version):
                raise _FailureError(
                    Reason.CRASHED_SERVING,
                    f"the model server of {replica.name} ended {ends} times since it was given "
                    f"version {current.version}; look at its log, and upload a repaired version",
                    of_template=True,
                    certain=True,
                )
        if current.hold:
            # What was found is told already; figures that go on changing are not written for that.
            return
        if self._is_promoted(current):
            # Somebody has judged for themselves.
            return
        self._judge_golden(current, members)
        checks = self.spec.checks
        if checks.live.mode == "Enforce" and self._is_measured(current):
            finding = self._live(current)
            if finding.result is CheckResult.FAILED:
                self._note(rollout_checks.LIVE, finding)
                raise _FailureError(finding.reason, finding.message)

    def _judge_golden(self, current: RolloutRecord, on: Sequence[Replica]) -> bool:
        """Whether it is known how golden requests went on these, or nobody asks for any.

        Raises:
            _FailureError: the answers are wrong.
        """
        mode = self.spec.checks.golden.mode
        if mode == "Ignore":
            return True
        finding = rollout_checks.golden(current.version, self._key(current), on)
        if finding is None:
            return False
        self._note(rollout_checks.GOLDEN, finding)
        if finding.result is CheckResult.FAILED and mode == "Enforce":
            raise _FailureError(finding.reason, finding.message)
        return True

    def _settle(self, *, is_settled: bool) -> datetime.datetime | None:
        """Since when the step is reached; None while it isn't."""
        current = self.run_of
        if current is None or (current.hold and not self._is_promoted(current)):
            return current.settled if current else None
        if not is_settled:
            # After a restart, what replicas answer with isn't known for a moment.
            heard = all(replica.report is not None for replica in self._members(current))
            if current.settled is not None and heard:
                self.run_of = replace(current, settled=None)
            return None
        if current.settled is not None:
            return current.settled
        if self._is_waiting_step(current):
            self.run_of = replace(current, settled=self.now)
            return self.now
        known = self.seen.soaking
        is_same = known is not None and (known.version, known.step) == (
            current.version,
            current.step,
        )
        if known is None or not is_same or known.since > self.now:
            known = Soaking(current.version, current.step, self.now)
        self.soaking = known
        return known.since

    def _await_step(self, current: RolloutRecord, on: int, wanted: int) -> None:
        """A step that isn't reached yet.

        Raises:
            _FailureError: it had its time.
        """
        version = current.version
        if wanted == 0:
            self.words = "no replica is wanted, so the rollout waits for some"
            return
        if self.seen.is_replacing:
            self.words = "the rollout waits until the Deployment has replaced its pods"
            return
        self.words = f"version {version} answers on {on} of {wanted} replicas of this step"
        if self._is_frozen() or current.hold:
            return
        if self._is_promoted(current):
            return
        # One that isn't there, or still fetches, says nothing about the version.
        members = self._members(current)
        since = self.trying.since if self.trying is not None else {}
        trying = [r for r in members if is_stuck(r, version)]
        stuck = [r.name for r in trying if self._is_overdue(since.get(r.uid, self.now))]
        if stuck:
            raise _FailureError(
                Reason.DEADLINE_EXCEEDED,
                f"version {version} doesn't answer on {bounds.text(', '.join(stuck), 200)} by "
                f"spec.rollout.deadline of {self.spec.deadline} s; look at the model server's log, "
                "or allow more",
            )
        busy = [r.name for r in members if loads_others(r, version)]
        if busy and self._is_overdue(current.step_started or current.started):
            self.words += (
                f"; the model server of {bounds.text(', '.join(busy), 200)} still loads versions "
                "that nobody wants any more, and has no thread for this one: delete the pod"
            )

    def _is_overdue(self, started: datetime.datetime) -> bool:
        left = (started - self.now).total_seconds() + self.spec.deadline
        if left > 0:
            self.wakes.append(left)
        return left <= 0

    def _ends(self, replica: Replica, current: RolloutRecord) -> int:
        """How often the model server of a replica has ended since it was told of the version."""
        before = {pod.uid: pod.restarts for pod in current.pods}
        return replica.restarts - before.get(replica.uid, replica.restarts)

    def _may_leave(
        self, current: RolloutRecord, on: Sequence[Replica], settled: datetime.datetime
    ) -> bool:
        """Whether a step that is reached is over.

        Raises:
            _FailureError: live figures say that the version is worse.
        """
        step = current.steps[current.step - 1]
        is_promoted = self._is_promoted(current)
        if current.hold and not is_promoted:
            self.waits = current.hold
            return False
        if self._is_frozen():
            return False
        golden = self.spec.checks.golden.mode
        if golden != "Ignore" and current.check(rollout_checks.GOLDEN) is None:
            self.words = f"the golden requests of version {current.version} are being sent"
            if not self._is_overdue(settled):
                return False
            raise _FailureError(
                Reason.DEADLINE_EXCEEDED, f"{self.words}, without an end by spec.rollout.deadline"
            )
        measured = self._is_measured(current)
        if is_promoted:
            if measured:
                self._note_live(self._live(current))
            return True
        soak = 0.0 if current.is_last_step else SOAK_SECONDS
        if soak and any(self._ends(replica, current) for replica in on):
            soak = ENDED_SOAK_SECONDS
        pause = max(step.pause, soak)
        if measured and not step.until_promoted and self.spec.checks.live.mode == "Enforce":
            pause = max(pause, LIVE_SECONDS)
        if not self._is_over(settled, pause):
            return False
        if step.until_promoted:
            self.waits = (
                f"step {current.step} of {len(current.steps)}: {len(on)} replicas answer with "
                f"version {current.version}; promote or abort it"
            )
            return False
        return not measured or self._live_allows(current)

    def _is_over(self, since: datetime.datetime, seconds: float) -> bool:
        end = since + datetime.timedelta(seconds=seconds)
        left = (end - self.now).total_seconds()
        if left <= 0:
            return True
        self.wakes.append(left)
        if seconds > SOAK_SECONDS:
            self.words = f"the rollout goes on at {end:%H:%M:%SZ}"
        return False

    def _live_allows(self, current: RolloutRecord) -> bool:
        asked = self.spec.checks.live
        finding = self._live(current)
        if asked.mode == "Report":
            self._note_live(finding)
            return True
        if finding.result is CheckResult.INCONCLUSIVE:
            started = current.settled or self.now
            if not self._is_over(started, self.spec.deadline):
                self.words = f"live figures are gathered: {asked.min_requests} requests are needed"
                return False
            self._note_live(finding)
            if asked.on_inconclusive == "Hold" and self.run_of is not None:
                hold = f"live figures tell nothing: {finding.message}; promote or abort it"
                self.run_of = replace(self.run_of, hold=bounds.text(hold))
                return False
            return True
        self._note_live(finding)
        if finding.result is CheckResult.FAILED:
            raise _FailureError(finding.reason, finding.message)
        return True

    def _live(self, current: RolloutRecord) -> Finding:
        return rollout_checks.live(
            self.spec.checks.live,
            current.version,
            current.from_version,
            self._key(current),
            self.replicas,
            remembered=current.before if current.phase is Phase.BAKING else None,
        )

    def _note_live(self, finding: Finding) -> None:
        self._note(rollout_checks.LIVE, finding)
        if self.run_of is not None and finding.before is not None:
            self.run_of = replace(self.run_of, before=finding.before)

    def _leave(self, current: RolloutRecord) -> None:
        if not current.is_last_step:
            last = len(current.steps)
            self._enter(Phase.PROGRESSING, last if current.full else current.step + 1)
        elif self.spec.bake > 0:
            self._enter(Phase.BAKING, current.step)
        else:
            self._enter(Phase.COMPLETED, current.step)

    def _enter(self, phase: Phase, step: int) -> None:
        current = self.run_of
        assert current is not None  # noqa: S101
        pods = current.pods
        if phase is Phase.BAKING:
            known = {pod.uid for pod in pods}
            more = (ToldPod(r.uid, r.restarts) for r in self.replicas if r.uid not in known)
            pods = (*pods, *more)[:TOLD]
        elif phase is Phase.COMPLETED:
            pods = ()
        if phase is Phase.PROGRESSING and current.full:
            step = len(current.steps)
        self.run_of = replace(
            current,
            phase=phase,
            step=step,
            step_started=self.now,
            settled=None,
            promoted=False,
            hold="",
            pods=pods,
            ended=self.now if phase is Phase.COMPLETED else None,
            message=self._completion() if phase is Phase.COMPLETED else "",
        )

    def _completion(self) -> str:
        if self.seen.wanted == 1:
            return "the only replica answers with it; all requests went to it while it was tried"
        return "all replicas answer with it"

    def _bake(self, current: RolloutRecord) -> Plan:
        """All replicas have it; what would have stopped it before still does."""
        self.run_of = current
        try:
            self._judge_serving(self.replicas)
        except _FailureError as failure:
            if failure.certain or self.spec.on_failure == "Rollback":
                return self._take_back(self.run_of, failure)
            self.run_of = replace(self.run_of, hold=failure.message)
        current = self.run_of
        if current.hold and not self._is_promoted(current):
            self.waits = current.hold
        else:
            began = current.step_started or self.now
            is_over = current.promoted or self._is_over(began, self.spec.bake)
            if is_over and not self._is_frozen():
                self._enter(Phase.COMPLETED, current.step)
        return self._result(replace(self.goal, candidate=None, rollout=self.run_of))

    # Who and how many

    def _wanted(self, current: RolloutRecord) -> int:
        step = current.steps[current.step - 1]
        return count(step, self.seen.wanted, last=current.is_last_step)

    def _members(self, current: RolloutRecord) -> list[Replica]:
        """The replicas that have been told of the version."""
        return self.replicas if self._tells_all(current) else self.fleet.among(current.told)

    def _tells_all(self, current: RolloutRecord) -> bool:
        """Whether all replicas are told of the version, those that come later as well."""
        progressing = current.phase is Phase.PROGRESSING
        return progressing and current.is_last_step and not self._drains()

    def _drains(self) -> bool:
        return self.spec.drain and len(self.replicas) > 1

    def _is_frozen(self) -> bool:
        if self.spec.paused:
            self.waits = "spec.rollout.paused is true: the rollout stands where it is"
        return self.spec.paused

    def _is_promoted(self, current: RolloutRecord) -> bool:
        return current.promoted or current.full

    def _is_measured(self, current: RolloutRecord) -> bool:
        """Whether requests are counted in this step."""
        asked = self.spec.checks.live.mode
        if asked == "Ignore" or self.model.spec.model.num_versions > 1:
            return False
        if current.phase is Phase.BAKING:
            return current.before is not None
        if current.is_last_step:
            # Nobody is left to compare with.
            return False
        step = current.steps[max(current.step - 1, 0)]
        return asked == "Enforce" or step.pause > 0 or step.until_promoted

    # What somebody does

    def _is_aborted(self, ongoing: RolloutRecord) -> bool:
        if asked(self.seen.actions, names.ABORT_ANNOTATION) != ongoing.version:
            return False
        self.read.append(names.ABORT_ANNOTATION)
        return ongoing.phase is not Phase.ROLLING_BACK

    def _retried(self, ongoing: RolloutRecord | None) -> Plan | None:
        """Try a version again that failed: what is remembered against it is forgotten."""
        version = asked(self.seen.actions, names.RETRY_ANNOTATION)
        against = [e for e in self.goal.quarantined if e.version == version]
        if version is None or not against:
            return None
        self.read.append(names.RETRY_ANNOTATION)
        left = tuple(e for e in self.goal.quarantined if e.version != version)
        if ongoing is not None and ongoing.phase is not Phase.ROLLING_BACK:
            # What runs goes on.
            self.goal = replace(self.goal, quarantined=left)
            self.stay = replace(self.stay, quarantined=left)
            return None
        # The next pass begins with it, unless a newer one is there.
        target = self.goal.target
        newer = target if target is not None and target > version else None
        self.wakes.append(0.0)
        self.run_of = RolloutRecord(
            version=version,
            phase=Phase.SUPERSEDED,
            started=self.now,
            ended=self.now,
            retry=f"{version}@{against[0].stored}#{int(self.now.timestamp())}",
            message="it is tried again"
            if newer is None
            else f"nothing is held against it any more; version {newer} goes on",
        )
        kept = self.goal if self.before.target is None else self.stay
        record = replace(
            kept, quarantined=left, candidate=self.before.candidate, rollout=self.run_of
        )
        return self._result(record)

    # What is told of it

    def _note(self, name: str, finding: Finding) -> None:
        """Remember how a check ended, unless that is what is remembered."""
        current = self.run_of
        if current is None:
            return
        message = bounds.text(finding.message, bounds.MESSAGE // 2)
        known = current.check(name)
        if known is not None and (known.result, known.message) == (finding.result, message):
            return
        noted = CheckRecord(name=name, result=finding.result, message=message, time=self.now)
        others = tuple(check for check in current.checks if check.name != name)
        self.run_of = replace(current, checks=(*others, noted))

    def _key(self, current: RolloutRecord) -> str:
        """Names the rollout, and where it is measured its step."""
        begun = int(current.started.timestamp())
        step = current.step if self._is_measured(current) else 0
        return f"{current.version}-{begun}.{step}"

    def _task(self, current: RolloutRecord, *, told: bool) -> RolloutTask | None:
        golden = self.spec.checks.golden
        drain = self._drains() and told and current.phase is Phase.PROGRESSING
        is_on = current.phase in (Phase.PROGRESSING, Phase.BAKING)
        rehearsed = current.phase is Phase.REHEARSING
        asks_golden = told and (is_on or rehearsed) and golden.mode != "Ignore"
        live = is_on and self._is_measured(current)
        if not (drain or asks_golden or live or current.retry):
            return None
        return RolloutTask(
            version=current.version,
            key=self._key(current),
            golden=golden_task(self.spec) if asks_golden else None,
            live=live,
            drain=drain,
            retry=current.retry,
        )

    def _result(
        self,
        record: VersionsRecord,
        candidate: VersionsRecord | None = None,
        told: frozenset[str] | None = frozenset(),
    ) -> Plan:
        run = record.rollout
        record = replace(record, rollout=self._worth_writing(run))
        carried = self._carried(run)
        task = other = None
        if run is not None and not run.phase.is_ended and run.phase is not Phase.ROLLING_BACK:
            baking = run.phase is Phase.BAKING
            task = self._task(run, told=True)
            other = task if baking else self._task(run, told=False)
        elif run is not None and run.phase is Phase.SUPERSEDED and run.retry:
            # Where it is not above the target, it has no rollout of its own to be told of in.
            has_none = record.target is not None and record.target >= run.version
            task = other = self._task(run, told=False) if has_none else None
        if candidate is not None:
            candidate = replace(candidate, quarantined=record.quarantined)
        return Plan(
            record=record,
            candidate=candidate,
            told=told,
            carried=carried,
            carrying=frozenset(run.carrying) if run is not None else frozenset(),
            task=task,
            other_task=other,
            rehearse=run is not None and run.phase is Phase.REHEARSING and bool(record.candidate),
            read=tuple(self.read),
            dropped=tuple(self.dropped),
            soaking=self.soaking,
            trying=self.trying,
            after=min(self.wakes, default=None),
            status=None if run is None else self._status(run),
        )

    def _worth_writing(self, run: RolloutRecord | None) -> RolloutRecord | None:
        """The rollout as it is to be remembered.

        That there was nothing to check by goes along with the next change where that comes within
        seconds: it is found again by then.
        """
        before = self.before.rollout
        if run is None or before is None or replace(run, checks=before.checks) != before:
            return run
        if run.phase is not Phase.PROGRESSING or self._is_waiting_step(run):
            return run
        new = (check for check in run.checks if check not in before.checks)
        return before if all(check.result is CheckResult.SKIPPED for check in new) else run

    def _is_waiting_step(self, run: RolloutRecord) -> bool:
        """Whether a step is longer than its replicas take."""
        step = run.steps[run.step - 1]
        return step.pause > 0 or step.until_promoted or self._is_measured(run) or self.spec.paused

    def _carried(self, run: RolloutRecord | None) -> VersionsRecord | None:
        if run is None or run.carried is None or run.phase.is_ended:
            return None
        if any(entry.version == run.carried for entry in self.goal.quarantined):
            return None
        return replace(self.stay, target=run.carried, served=(run.carried,))

    def _status(self, run: RolloutRecord) -> RolloutStatus:
        is_active = not run.phase.is_ended
        on = sum(r.answer == run.version for r in self.replicas)
        progressing = run.phase is Phase.PROGRESSING
        waits = self.waits if is_active and run.phase is not Phase.ROLLING_BACK else ""
        return RolloutStatus(
            version=run.version,
            from_version=run.from_version,
            phase=Phase.PAUSED if waits else run.phase,
            step=run.step,
            steps=len(run.steps),
            replicas_on=on if is_active else None,
            replicas_wanted=self._wanted(run) if progressing else None,
            start_time=run.started,
            step_started_time=run.step_started,
            end_time=run.ended,
            message=bounds.text(waits or run.message or (self.words if is_active else "")),
            checks=tuple(
                RolloutCheck(
                    name=check.name,
                    result=check.result,
                    message=check.message,
                    time=check.time,
                )
                for check in run.checks
            ),
        )


def _with(
    known: Iterable[QuarantinedVersion], new: Collection[QuarantinedVersion]
) -> tuple[QuarantinedVersion, ...]:
    """What is quarantined, with something new, which is not what is forgotten of too many."""
    before = {(entry.version, entry.fingerprint): entry for entry in known}
    added = [before.pop((entry.version, entry.fingerprint), entry) for entry in new][:MOST]
    entries = [*added, *[*before.values()][: MOST - len(added)]]
    return tuple(sorted(entries, key=lambda e: (-e.version, e.fingerprint)))


def _not_ahead(run: RolloutRecord | None, now: datetime.datetime) -> RolloutRecord | None:
    """A rollout without moments that are still to come, by a clock that was put back: it would wait
    for them."""
    if run is None or max(run.step_started or now, run.settled or now) <= now:
        return run
    return replace(
        run,
        step_started=min(run.step_started, now) if run.step_started else None,
        settled=min(run.settled, now) if run.settled else None,
    )


def golden_task(rollout: Rollout) -> GoldenTask:
    """How golden answers are compared."""
    golden = rollout.checks.golden
    return GoldenTask(
        absolute=golden.absolute,
        relative=golden.relative,
        min_agreement=rollout_checks.percent(golden.min_agreement),
    )
