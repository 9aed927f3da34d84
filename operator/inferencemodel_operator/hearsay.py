"""Tells a version that one pod alone says is there from one that others have yet to find.

A message about a new version goes to one pod, and the others may find it minutes later. So one
pod's word is taken at once. But once two others have looked since, and don't find it, it is that
pod's word alone: it may be wrong, about a bucket that only it sees, or untrue. No version that is
there may wait for one that isn't.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

import msgspec

from inferencemodel_operator import bounds
from inferencemodel_operator.versions import AGAINST, ON_DISK, failed_objects, may_be_good
from model_poller.status import SourceState

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from inferencemodel_operator.record import QuarantinedVersion
    from model_poller.status import PollerStatus

LOOK_SECONDS: Final = 60.0
"""How long a pod has for a look into its bucket: after `spec.source.pollInterval`, or at once where
it is told to serve a version that it doesn't know."""
FOLLOWED: Final = 8
"""Versions whose time is kept, newest first; whoever was alone with one of them for too long is not
believed about others either."""


class Hearsay(msgspec.Struct, frozen=True):
    """What is to be made of the words of single pods now."""

    unfounded: frozenset[int] = frozenset()
    """Versions that are not there, whatever one pod says."""
    after: float | None = None
    """Seconds until there may be more of them; None when time alone makes none."""


class HearsayWatch:
    """Follows the versions of one InferenceModel that one pod alone tells of.

    Losing it costs the time of a look.
    """

    def __init__(self) -> None:
        self._since: dict[tuple[str, int, bool], float] = {}
        """By a pod's uid, a version that it doesn't find, and whether it is told to serve it."""
        self._alone: set[str] = set()
        """The uids of pods that were alone with a version for too long."""

    def look(
        self,
        reports: Mapping[str, PollerStatus],
        quarantined: Iterable[QuarantinedVersion],
        poll_interval: float,
        now: float,
    ) -> Hearsay:
        """Judge what pods tell.

        Args:
            reports: by the pods' uids, without those that go away.
            quarantined: what is known to be bad; who tells of nothing else under a number tells of
                no version.
            poll_interval: ``spec.source.pollInterval`` in seconds.
            now: in seconds of a clock that only goes on.
        """
        self._alone &= reports.keys()
        if len(reports) <= AGAINST:
            self._since = {}
            return Hearsay()
        failed = failed_objects(quarantined)
        known = {uid: _known(report, failed) for uid, report in reports.items()}
        counts = Counter(version for versions in known.values() for version in versions)
        single = {version for version, count in counts.items() if count == 1}
        tellers = {version: uid for uid, versions in known.items() for version in versions & single}
        against = {
            version: found
            for version in sorted(single, reverse=True)
            if len(found := [uid for uid in reports if _misses(reports[uid], known[uid], version)])
            >= AGAINST
        }
        since: dict[tuple[str, int, bool], float] = {}
        waits: dict[int, float] = {}
        for version in [*against][:FOLLOWED]:
            ends = []
            for uid in against[version]:
                told = reports[uid].target == version
                begun = since[uid, version, told] = self._since.get((uid, version, told), now)
                ends.append(begun + LOOK_SECONDS + (0 if told else poll_interval))
            waits[version] = sorted(ends)[AGAINST - 1] - now
        self._since = since
        self._alone |= {tellers[version] for version, left in waits.items() if left <= 0}
        unfounded = frozenset(version for version in against if tellers[version] in self._alone)
        later = (left for version, left in waits.items() if version not in unfounded)
        return Hearsay(unfounded, min(later, default=None))


def _known(report: PollerStatus, failed: Collection[tuple[int, str]]) -> frozenset[int]:
    """The versions that a pod tells of as there, in the bucket or on its disk."""
    return frozenset(
        v.version
        for v in report.versions
        if (v.in_source or v.state in ON_DISK) and may_be_good(v, failed)
    )


def _misses(report: PollerStatus, known: Collection[int], version: int) -> bool:
    """Whether a pod has looked into its bucket, and would tell of a version if that were there."""
    if report.source.state is not SourceState.READY or version in known:
        return False
    # Of many versions, only the newest are told.
    newest = max((v.version for v in report.versions if v.in_source), default=-1)
    return len(report.versions) < bounds.VERSIONS or version > newest
