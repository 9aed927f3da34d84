"""One pass over a rollout: what is looked at, the rollout as it becomes, and how that may change.

What decides is in the modules beside this one, as functions of a `State`.
"""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from inferencemodel_operator import bounds
from inferencemodel_operator.observe.troubles import CRASHED
from inferencemodel_operator.observed import lacks
from inferencemodel_operator.record import (
    TOLD,
    CheckRecord,
    Phase,
    QuarantinedVersion,
    RolloutRecord,
    ToldPod,
    VersionsRecord,
)
from inferencemodel_operator.rollouts.fleet import Fleet
from inferencemodel_operator.rollouts.steps import count
from inferencemodel_operator.versions import MOST, failed_objects, may_be_good

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from inferencemodel_operator.conditions import Reason
    from inferencemodel_operator.observed import Replica
    from inferencemodel_operator.rollouts.checks import Finding
    from inferencemodel_operator.rollouts.situation import Dropped, Situation, Soaking, Trying
    from inferencemodel_operator.spec import InferenceModel

SOAK_SECONDS: Final = 1.0
"""How long a version has to answer on the replicas of a step before the next step: one that ends
its server at the first requests is not given to more of them."""
COMING_SECONDS: Final = 300.0
"""How long a replica that doesn't serve is taken for one that soon will: the kubelet starts a
container again after at most so long."""


class FailureError(Exception):
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


class State:
    """The inputs of one pass, and the rollout as it becomes."""

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

    def enter(self, phase: Phase, step: int) -> None:
        """The rollout gets to a phase, or to a step."""
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
            evicted=0 if phase is Phase.COMPLETED else current.evicted,
            ends=0 if phase is Phase.COMPLETED else self.all_ends(current),
            ended=self.now if phase is Phase.COMPLETED else None,
            message=self._completion() if phase is Phase.COMPLETED else "",
        )

    def _completion(self) -> str:
        if self.seen.wanted == 1:
            return "the only replica answers with it; all requests went to it while it was tried"
        return "all replicas answer with it"

    def note(self, name: str, finding: Finding) -> None:
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

    def roll_back(self, ongoing: RolloutRecord, reason: str, message: str) -> None:
        """All that have the version go back to the one before, from now on."""
        self.run_of = replace(
            ongoing,
            phase=Phase.ROLLING_BACK,
            reason=reason,
            message=bounds.text(message),
            hold="",
            pods=(),
            ends=0,
            evicted=0,
            carried=None,
            carriers=(),
            settled=None,
            step_started=self.now,
        )

    def look_back(self) -> None:
        """Whether a rollout that is taken back is back everywhere."""
        ongoing = self.run_of
        if ongoing is None or ongoing.phase is not Phase.ROLLING_BACK:
            return
        if all(replica.answer != ongoing.version for replica in self.replicas):
            self.run_of = replace(ongoing, phase=Phase.ROLLED_BACK, ended=self.now)

    def end(self, phase: Phase, message: str) -> None:
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
                carriers=(),
                ends=0,
                evicted=0,
                hold="",
            )

    def quarantine(self, entry: QuarantinedVersion) -> None:
        """Remember what is bad, unless that is known."""
        known = {(e.version, e.fingerprint) for e in self.goal.quarantined}
        if (entry.version, entry.fingerprint) not in known:
            entries = with_entries(self.goal.quarantined, [entry])
            self.goal = replace(self.goal, quarantined=entries)
            self.stay = replace(self.stay, quarantined=entries)

    def is_over(self, since: datetime.datetime, seconds: float) -> bool:
        """Whether a time has passed; if not, the next pass comes then, and the words say when."""
        end = since + datetime.timedelta(seconds=seconds)
        left = (end - self.now).total_seconds()
        if left <= 0:
            return True
        self.wakes.append(left)
        if seconds > SOAK_SECONDS:
            self.words = f"the rollout goes on at {end:%H:%M:%SZ}"
        return False

    def is_overdue(self, started: datetime.datetime) -> bool:
        """Whether ``spec.rollout.deadline`` has passed; if not, the next pass comes then."""
        left = (started - self.now).total_seconds() + self.spec.deadline
        if left > 0:
            self.wakes.append(left)
        return left <= 0

    def wanted(self, current: RolloutRecord) -> int:
        """How many replicas are to have the version in this step."""
        step = current.steps[current.step - 1]
        return count(step, self.seen.wanted, last=current.is_last_step)

    def at_most(self, current: RolloutRecord, members: Sequence[Replica]) -> int:
        """How many may have it by now: the step's share of those that serve, for what an autoscaler
        or a node has yet to bring serves nobody with the version before."""
        serving = {r.uid for r in self.replicas if r.ready}
        if current.is_last_step or not serving:
            return self.seen.wanted
        some = serving | {r.uid for r in members}
        if len(some) == 1 and not members and self._awaits_another(current):
            return 0
        return self._share(current, some)

    def at_most_with(
        self, current: RolloutRecord, members: Sequence[Replica], stranded: Collection[str]
    ) -> int:
        """How many may have it by now if more of the stranded get it."""
        serving = {r.uid for r in self.replicas if r.ready}
        return self._share(current, serving | {r.uid for r in members} | {*stranded})

    def _share(self, current: RolloutRecord, uids: Collection[str]) -> int:
        return count(current.steps[current.step - 1], len(uids), last=current.is_last_step)

    def stranded(self, current: RolloutRecord) -> frozenset[str]:
        """The uids of replicas that serve nobody, for they can't have the version before, and would
        be waited for in vain. They may have this one once it answers on another replica, as they
        couldn't go back."""
        stable = current.from_version
        is_tried = any(r.ready and r.answer == current.version for r in self.members(current))
        if stable is None or not is_tried:
            return frozenset()
        idle = (r for r in self.replicas if not r.ready and r.trouble is None)
        return frozenset(replica.uid for replica in idle if lacks(replica, stable))

    def _awaits_another(self, current: RolloutRecord) -> bool:
        """Whether the only one that serves is not to try the version yet, for soon two may serve:
        others start, or start again after what a bad version has done to them."""
        others = (r for r in self.replicas if not r.ready)
        if self.seen.wanted == 1 or self.is_promoted(current):
            return False
        if not any(_is_coming(replica, current.from_version) for replica in others):
            return False
        return self._is_soon(current)

    def _is_soon(self, current: RolloutRecord) -> bool:
        """Whether a step has yet to last for as long as others are waited for."""
        left = ((current.step_started or self.now) - self.now).total_seconds() + COMING_SECONDS
        if left > 0:
            self.wakes.append(left)
        return left > 0

    def members(self, current: RolloutRecord) -> list[Replica]:
        """The replicas that have been told of the version."""
        return self.replicas if self.tells_all(current) else self.fleet.among(current.told)

    def tells_all(self, current: RolloutRecord) -> bool:
        """Whether all replicas are told of the version, those that come later as well."""
        progressing = current.phase is Phase.PROGRESSING
        return progressing and current.is_last_step and not self.drains()

    def drains(self) -> bool:
        """Whether a replica leaves its Services while it loads the version: where another one
        serves, or soon may."""
        current = self.run_of
        if not self.spec.drain or len(self.replicas) <= 1 or current is None:
            return False
        # Who was told of it may be out of its Services just now.
        able = [r for r in self.replicas if r.ready or r.uid in current.told]
        return len(able) > 1 or self._is_soon(current)

    def ends(self, replica: Replica, current: RolloutRecord) -> int:
        """How often the model server of a replica has ended since it was told of the version."""
        before = {pod.uid: pod.restarts for pod in current.pods}
        return replica.restarts - before.get(replica.uid, replica.restarts)

    def all_ends(self, current: RolloutRecord) -> int:
        """The same of all of them."""
        return sum(max(self.ends(replica, current), 0) for replica in self.members(current))

    def is_passed_over(self, version: int) -> bool:
        """Whether pollers don't bring a version before they are told to serve it, as they do with
        the newest of those that they may fetch."""
        failed = failed_objects(self.goal.quarantined)
        return any(may_be_good(newer, failed) for newer in self.fleet.newer(version))

    def failed(self, version: int) -> set[str]:
        """The fingerprints of what failed under a number."""
        found = failed_objects(self.goal.quarantined)
        return {fingerprint for number, fingerprint in found if number == version}

    def is_frozen(self) -> bool:
        """Whether rollouts are to stand still, which the status says then."""
        if self.spec.paused:
            self.waits = "spec.rollout.paused is true: the rollout stands where it is"
        return self.spec.paused

    def is_promoted(self, current: RolloutRecord) -> bool:
        """Whether somebody has said that the step is over."""
        return current.promoted or current.full

    def is_waiting_step(self, run: RolloutRecord) -> bool:
        """Whether a step is longer than its replicas take."""
        step = run.steps[run.step - 1]
        return step.pause > 0 or step.until_promoted or self.is_measured(run) or self.spec.paused

    def is_measured(self, current: RolloutRecord) -> bool:
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

    def key(self, current: RolloutRecord) -> str:
        """Names the rollout, and where it is measured its step."""
        begun = int(current.started.timestamp())
        step = current.step if self.is_measured(current) else 0
        return f"{current.version}-{begun}.{step}"


def _is_coming(replica: Replica, stable: int | None) -> bool:
    """Whether a replica that doesn't serve soon may, with the version before."""
    if stable is None:
        return False
    if replica.trouble in CRASHED:
        # Where it never answered with that, it may be that by which the server ends.
        known = replica.version(stable)
        return known is not None and known.proven
    return replica.trouble is None and not lacks(replica, stable)


def held(run: RolloutRecord, failure: FailureError) -> RolloutRecord:
    """A rollout that stays where it is until somebody has judged what was found: whoever promoted
    it before didn't know of that."""
    return replace(run, hold=failure.message, promoted=False, full=False)


def with_entries(
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
    if run is None or all(t <= now for t in (run.step_started, run.settled, run.ended) if t):
        return run
    return replace(
        run,
        step_started=min(run.step_started, now) if run.step_started else None,
        settled=min(run.settled, now) if run.settled else None,
        ended=min(run.ended, now) if run.ended else None,
    )
