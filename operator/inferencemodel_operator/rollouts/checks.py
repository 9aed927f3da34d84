"""What a rollout judges a version by, before and after replicas have it: pure functions.

Each gives how the check ended, with words for a person, or None while there is nothing to tell yet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from inferencemodel_operator import bounds, interface
from inferencemodel_operator.conditions import Reason
from inferencemodel_operator.record import Figures
from inferencemodel_operator.rollouts.fleet import is_given
from model_poller.status import CheckResult, decode_task

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from inferencemodel_operator import spec
    from inferencemodel_operator.observed import Replica
    from model_poller.status import GoldenStatus, LiveStatus, VersionStatus

MEMORY: Final = "memory"
SIGNATURE: Final = "signature"
REHEARSAL: Final = "rehearsal"
GOLDEN: Final = "golden"
LIVE: Final = "live"


_LONGEST: Final = 1e15
"""Seconds."""


class Finding(msgspec.Struct, frozen=True):
    """How a check ended."""

    result: CheckResult
    message: str = ""
    reason: Reason = Reason.OTHER
    """Of a failed one, for the quarantine."""
    before: Figures | None = None
    """Of live figures: those of the replicas with the version before."""


def memory(
    model: spec.InferenceModelSpec,
    version: int,
    beside: Iterable[int],
    known: Sequence[Replica],
    fingerprint: str = "",
) -> Finding:
    """Whether the weights of a version, and of those in memory while it loads, can fit.

    The sum of the weights is a lower bound of what the model server needs: what doesn't fit by it
    is killed for certain. So of several words about one version the least counts. Where a GPU is
    asked for, they are in another memory.

    Args:
        model: ``spec``.
        version: the one to be loaded.
        beside: those that are served meanwhile.
        known: the replicas that report.
        fingerprint: of the objects to be loaded; some may still have others under the number.
    """
    resources = model.server.resources
    limit = resources.limits.get("memory")
    if limit is None:
        return Finding(CheckResult.SKIPPED, "the model server has no memory limit")
    if any(not _is_plain(name) for name in {**resources.limits, **resources.requests}):
        return Finding(CheckResult.SKIPPED, "weights may be in an accelerator's memory")
    weights = {number: _weight(number, known) for number in beside}
    weights[version] = _weight(version, known, fingerprint)
    if not weights[version]:
        return Finding(CheckResult.SKIPPED, "no pod tells the size of its weights")
    total = sum(weights.values())
    words = ", ".join(
        f"{'' if number == version else 'beside '}version {number} {_size(size)}"
        for number, size in sorted(weights.items(), reverse=True)
        if size
    )
    if total <= limit.value:
        return Finding(CheckResult.PASSED, f"weights in memory: {words}; the limit is {limit}")
    return Finding(
        CheckResult.FAILED,
        f"its weights don't fit into memory: {words}, and the limit of the model server is "
        f"{limit}; raise spec.server.resources.limits.memory, or upload a smaller version",
        Reason.INSUFFICIENT_MEMORY,
    )


def _is_plain(resource: str) -> bool:
    return resource in ("cpu", "memory", "ephemeral-storage") or resource.startswith("hugepages-")


def _weight(number: int, known: Iterable[Replica], fingerprint: str = "") -> int:
    told = (version for replica in known if (version := replica.version(number)) is not None)
    here = (version for version in told if fingerprint in ("", version.tried))
    return min((version.weight_bytes for version in here if version.weight_bytes), default=0)


def _size(count: int) -> str:
    for unit, size in (("Gi", 2**30), ("Mi", 2**20), ("Ki", 2**10)):
        if count >= size:
            return f"{count / size:.1f}{unit}"
    return f"{count} bytes"


def signature(before: VersionStatus | None, after: VersionStatus) -> Finding:
    """Whether clients of the one version can go on with the other."""
    if after.interface is None:
        return Finding(CheckResult.SKIPPED, "no pod tells its signatures")
    if after.interface.message:
        return Finding(CheckResult.INCONCLUSIVE, after.interface.message)
    if before is None or before.interface is None or before.interface.message:
        return Finding(CheckResult.SKIPPED, "nothing is known of the signatures before")
    differences = interface.differences(before.interface, after.interface)
    if not differences:
        return Finding(CheckResult.PASSED)
    words = bounds.text(interface.message(differences), bounds.MESSAGE // 2)
    if any(difference.breaking for difference in differences):
        return Finding(CheckResult.FAILED, words, Reason.SIGNATURE_INCOMPATIBLE)
    return Finding(CheckResult.PASSED, words)


def golden(version: int, key: str, replicas: Iterable[Replica]) -> Finding | None:
    """What came of the golden requests on those that have the version.

    A failure on one of them is one; else one that passed is enough.
    """
    told: list[GoldenStatus] = []
    is_old = False
    for replica in replicas:
        status = replica.version(version)
        if status is not None and status.golden is not None and _same(key, status.golden.task):
            # Whose model server was not given it can't have sent them.
            if is_given(replica, version):
                told.append(status.golden)
        elif replica.report is not None and replica.answer == version:
            assigned = replica.report.assigned
            task = decode_task(assigned.rollout) if assigned else None
            is_old = is_old or assigned is None or task is None
    for result in (CheckResult.FAILED, CheckResult.PASSED, CheckResult.INCONCLUSIVE):
        found = next((one for one in told if one.result is result), None)
        if found is not None:
            return Finding(found.result, found.message, Reason.GOLDEN_MISMATCH)
    if told:
        return Finding(CheckResult.SKIPPED, told[0].message or "it comes with no golden requests")
    if is_old:
        return Finding(CheckResult.SKIPPED, "the pods' poller is of a release that sends none")
    return None


def _same(key: str, task: str) -> bool:
    """Whether two tasks are of one rollout, be it of different steps."""
    return key.rpartition(".")[0] == task.rpartition(".")[0]


class _Sum(msgspec.Struct):
    """Counts of several replicas."""

    requests: int = 0
    errors: int = 0
    seconds: float = 0.0

    def add(self, live: LiveStatus) -> None:
        self.requests += live.requests
        self.errors += live.errors
        # Sums of what a pod says stay numbers that can be written.
        self.seconds += min(max(live.ok_seconds, 0.0), _LONGEST)

    @property
    def error_part(self) -> float:
        return self.errors / self.requests if self.requests else 0.0

    @property
    def latency(self) -> float:
        """Seconds; 0 while no request went well."""
        good = self.requests - self.errors
        return self.seconds / good if good > 0 else 0.0


def live(
    asked: spec.LiveCheck,
    version: int,
    before: int | None,
    key: str,
    replicas: Iterable[Replica],
    *,
    remembered: Figures | None = None,
) -> Finding:
    """How requests go on those with the version, beside those with the one before.

    Inconclusive as long as there are too few of them on either side; Skipped where there are none.

    Args:
        asked: ``spec.rollout.checks.live``.
        version: the new one.
        before: the stable one.
        key: of the task by which replicas count.
        replicas: all of them.
        remembered: the figures of the version before, where no replica has it any more.
    """
    new, old = _Sum(), _Sum()
    for replica in replicas:
        figures = replica.report.live if replica.report is not None else None
        if figures is None or figures.task != key or figures.version != replica.answer:
            continue
        if replica.answer == version:
            new.add(figures)
        elif replica.answer == before:
            old.add(figures)
    if not new.requests and not old.requests:
        return Finding(CheckResult.SKIPPED, "no replica got requests")
    few = f"fewer than {asked.min_requests} requests"
    words = _told(new, version)
    if remembered is None:
        words = f"{words}; {_told(old, before)}"
        if old.requests >= asked.min_requests:
            remembered = Figures(old.error_part, old.latency)
    if new.requests < asked.min_requests:
        return Finding(CheckResult.INCONCLUSIVE, f"{few}: {words}")
    errors = remembered.error_part if remembered else old.error_part
    if new.error_part - errors > percent(asked.max_error_increase):
        return Finding(CheckResult.FAILED, f"more requests fail: {words}", Reason.ERROR_RATE)
    if remembered is None:
        return Finding(CheckResult.INCONCLUSIVE, f"{few}: {words}")
    slower = 1 + percent(asked.max_latency_increase)
    if remembered.latency and new.latency > remembered.latency * slower:
        return Finding(CheckResult.FAILED, f"requests take longer: {words}", Reason.LATENCY)
    return Finding(CheckResult.PASSED, words, before=remembered)


def _told(counts: _Sum, version: int | None) -> str:
    if not counts.requests:
        return f"version {version} no request"
    return (
        f"version {version} {counts.requests} requests, {100 * counts.error_part:.1f} % failed, "
        f"mean {1000 * counts.latency:.1f} ms"
    )


def percent(text: str) -> float:
    """``1%`` as 0.01; the CRD lets nothing else through."""
    return float(text.rstrip("%")) / 100
