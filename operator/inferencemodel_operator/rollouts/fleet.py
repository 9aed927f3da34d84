"""The replicas that a rollout is about, and what is asked of them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from inferencemodel_operator.observe.troubles import CRASHED
from inferencemodel_operator.observed import Unversioned
from inferencemodel_operator.versions import ON_DISK
from model_poller.status import VersionState

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from inferencemodel_operator.observed import Replica
    from inferencemodel_operator.record import RolloutRecord
    from model_poller.status import VersionStatus

_GIVEN: Final = (VersionState.PUBLISHED, VersionState.AVAILABLE)


class Fleet:
    """Those with the spec's source that don't go away."""

    def __init__(self, replicas: Iterable[Replica]) -> None:
        self.replicas = [r for r in replicas if not r.draining and not r.other_source]

    def among(self, uids: frozenset[str]) -> list[Replica]:
        """Those of these uids."""
        return [replica for replica in self.replicas if replica.uid in uids]

    def all_on(self, version: int) -> bool:
        """Whether all that answer with any version answer with this one."""
        return all(r.answer == version for r in self.replicas if isinstance(r.answer, int))

    def is_steady(self, members: Sequence[Replica], version: int) -> bool:
        """Whether another one may leave its Services: all that have the version serve with it."""
        others = [r for r in self.replicas if r.ready]
        settled = all(
            r.ready and r.answer == version and not (r.report and r.report.draining)
            for r in members
        )
        return settled and len(others) > 1

    def newer(self, version: int) -> list[VersionStatus]:
        """What is told of versions above one that are in the bucket or on a disk."""
        told = (known for r in self.replicas if r.report is not None for known in r.report.versions)
        return [v for v in told if v.version > version and (v.in_source or v.state in ON_DISK)]

    def told(self, version: int) -> list[VersionStatus]:
        """What is told of a version by those that tell of it."""
        known = (replica.version(version) for replica in self.replicas)
        return [status for status in known if status is not None]

    def holders(self, current: RolloutRecord) -> list[VersionStatus]:
        """What is told of the version by those that have all of it."""
        return [status for status in self.told(current.version) if _is_whole(status, current)]

    def has(self, replica: Replica, current: RolloutRecord) -> bool:
        """Whether a replica has all of the version, with the objects that it is about."""
        status = replica.version(current.version)
        return status is not None and _is_whole(status, current)

    def stable(self, current: RolloutRecord) -> VersionStatus | None:
        """What most tell of the version before and its interface; None where nobody tells it."""
        if current.from_version is None:
            return None
        told = self.told(current.from_version)
        return _as_most([status for status in told if status.interface is not None])

    def holder(self, current: RolloutRecord) -> VersionStatus | None:
        """What most of those that have all of the version tell of its interface."""
        return _as_most(self.holders(current))

    def fingerprints(self, version: int) -> Counter[str]:
        """Of the objects that are stored under a number, and how many replicas say so."""
        told = self.told(version)
        return Counter(v.fingerprint for v in told if v.in_source and v.fingerprint)

    def tried(self, version: int) -> set[str]:
        """Fingerprints of what model servers get to load under a number."""
        return {status.tried for status in self.told(version) if status.tried}

    def answers(self) -> list[int]:
        """The versions that clients get, those of the most replicas first."""
        found = Counter(r.answer for r in self.replicas if r.ready and isinstance(r.answer, int))
        return [version for version, _ in sorted(found.items(), key=lambda one: (-one[1], one[0]))]

    def have_proven(self, version: int) -> bool:
        """Whether a version has served on every replica, as far as they can be asked."""
        known = [r.version(version) for r in self.replicas if r.report is not None]
        return all(one is not None and one.proven for one in known)

    def is_unserved(self, target: int) -> bool | None:
        """Whether a version serves nowhere and, as it stands, won't.

        None where it serves nowhere, and nothing is known to stand in its way.
        """
        if not self.replicas or any(replica.answer == target for replica in self.replicas):
            return False
        if any(r.ready and r.answer is Unversioned.UNKNOWN for r in self.replicas):
            return False
        if any(replica.trouble in CRASHED for replica in self.replicas):
            return True
        if any(r.answer is Unversioned.UNKNOWN and r.report is None for r in self.replicas):
            return False
        is_there = any(v.state in ON_DISK or v.in_source for v in self.told(target))
        return None if is_there else True


def _as_most(told: Iterable[VersionStatus]) -> VersionStatus | None:
    """One of those that tell of an interface what most of them tell."""
    groups: list[list[VersionStatus]] = []
    for status in told:
        like = next((group for group in groups if group[0].interface == status.interface), None)
        if like is None:
            groups.append([status])
        else:
            like.append(status)
    return max(groups, key=len)[0] if groups else None


def _is_whole(status: VersionStatus, current: RolloutRecord) -> bool:
    return status.state in ON_DISK and current.fingerprint in ("", status.tried)


def is_given(replica: Replica, version: int) -> bool:
    """Whether a model server has the version to load, or has loaded it."""
    known = replica.version(version)
    return known is not None and known.state in _GIVEN


def is_fetching(replica: Replica, version: int) -> bool:
    """Whether a replica is getting the version from its source."""
    known = replica.version(version)
    return known is not None and known.state is VersionState.FETCHING


def is_stuck(replica: Replica, version: int) -> bool:
    """Whether a model server has the version, doesn't answer with it, and can't blame another."""
    given = is_given(replica, version) and replica.answer != version
    return given and not loads_others(replica, version)


def loads_others(replica: Replica, version: int) -> bool:
    """Whether a model server is busy with loads that nobody wants, and so doesn't load a version.

    A load can't be called off. One that hangs keeps its thread for as long as the server runs.
    """
    served = replica.report.served if replica.report is not None else ()
    loading = {entry.version for entry in served if entry.state == "LOADING"}
    return bool(loading) and version not in loading and replica.answer != version
