"""Whether a pod has heard what it is to serve, and when it is told again.

The kubelet carries a pod's annotations into a file that its poller reads. Of two writes within some
seconds it can miss the second until it looks at the pod by itself, a minute or more later; any
further write to the pod brings the file up to date. So what a poller says it was told is compared
with what was written, and where they differ another annotation, a counter, is written.

Where somebody changes the annotations themselves, they are changed back, but not for ever as fast
as that somebody can.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Final

import msgspec

from inferencemodel_operator import names
from inferencemodel_operator.assignment import is_confirmed, missing
from inferencemodel_operator.pace import Bucket, repairs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from inferencemodel_operator.observe.objects import Pod
    from model_poller.status import PollerStatus

FIRST_SECONDS: Final = 1.0
"""A kubelet that doesn't miss an annotation has it in the file within a fifth of that."""
LONGEST_SECONDS: Final = 30.0
REPETITIONS: Final = 10
"""The most for one assignment: three minutes, after which the kubelet has looked by itself."""
_JITTER: Final = 0.25


class Wait(msgspec.Struct, frozen=True):
    """One pod that has not confirmed yet what it is to serve."""

    assignment: Mapping[str, str]
    """The annotations that say so."""
    due: float
    """When it is told again; in seconds of the caller's clock."""
    repetitions: int = 0


def begin(assignment: Mapping[str, str], now: float, jitter: float) -> Wait:
    """Wait for a pod to confirm an assignment that it has from now on."""
    return Wait(assignment, now + _delay(0, jitter))


def again(wait: Wait, now: float, jitter: float) -> Wait | None:
    """The wait after one more repetition; None when it isn't time for one.

    Args:
        wait: the wait so far.
        now: of the clock that made it.
        jitter: of 0 to 1; spreads those that were told at the same moment.
    """
    if now < wait.due or exhausted(wait):
        return None
    repetitions = wait.repetitions + 1
    return Wait(wait.assignment, now + _delay(repetitions, jitter), repetitions)


def exhausted(wait: Wait) -> bool:
    """Whether the pod is not told again."""
    return wait.repetitions >= REPETITIONS


def _delay(repetitions: int, jitter: float) -> float:
    return min(LONGEST_SECONDS, FIRST_SECONDS * 2.0**repetitions) * (1 + _JITTER * jitter)


class Telling(msgspec.Struct, frozen=True):
    """What is to be done about one pod now."""

    annotations: Mapping[str, str] = {}
    """To be written to the pod; nothing when empty."""
    repeated: bool = False
    """Whether they only draw the kubelet's attention to those that are there already."""
    after: float | None = None
    """Seconds after which to look again, whatever happens until then."""
    contested: bool = False
    """Whether nothing is written because somebody undoes it each time."""


class _Written(msgspec.Struct):
    """What was written to one pod last, and how often that may still be written anew."""

    assignment: Mapping[str, str] = {}
    repairs: Bucket = msgspec.field(default_factory=repairs)


class ConfirmationWatch:
    """Follows the pods of one InferenceModel until each has confirmed its assignment.

    Losing it costs a second: the pods are followed from then on, and the counter goes on from what
    is in each pod.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._clock = clock
        self._jitter = jitter
        self._waits: dict[str, Wait] = {}
        self._written: dict[str, _Written] = {}

    def look(self, pod: Pod, assignment: Mapping[str, str], report: PollerStatus | None) -> Telling:
        """Judge one pod.

        Args:
            pod: as it is; one that drains has no file to be brought up to date.
            assignment: the annotations that it is to have.
            report: what its poller says; None while it can't be asked.
        """
        now = self._clock()
        wait = self._waits.get(pod.uid)
        if missing(assignment, pod.assignment):
            written = self._written.setdefault(pod.uid, _Written())
            if written.assignment == assignment and not written.repairs.try_take(now):
                return Telling(contested=True)
            written.assignment = assignment
            self._waits[pod.uid] = wait = begin(assignment, now, self._jitter())
            return Telling(assignment, after=wait.due - now)
        if report is None:
            return Telling()
        if is_confirmed(assignment, report):
            if wait is not None and not wait.repetitions:
                # One that was told again is remembered, or a poller that says now this and now
                # that would be told for ever.
                del self._waits[pod.uid]
            return Telling()
        if wait is None or wait.assignment != assignment:
            self._waits[pod.uid] = wait = begin(assignment, now, self._jitter())
        repeated = again(wait, now, self._jitter())
        if repeated is None:
            return Telling(after=None if exhausted(wait) else wait.due - now)
        self._waits[pod.uid] = repeated
        counter = {names.ASSIGNMENT_ATTEMPT_ANNOTATION: str(pod.attempt + 1)}
        return Telling(
            counter, repeated=True, after=None if exhausted(repeated) else repeated.due - now
        )

    def keep(self, pods: Iterable[Pod]) -> None:
        """Forget all other pods."""
        uids = {pod.uid for pod in pods}
        self._waits = {uid: wait for uid, wait in self._waits.items() if uid in uids}
        self._written = {uid: known for uid, known in self._written.items() if uid in uids}
