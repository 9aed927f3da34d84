"""Tells a version that brings the model server down from one that is still loading."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inferencemodel_operator.conditions import Reason
from inferencemodel_operator.observe.troubles import CRASHES
from model_poller.status import VersionState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from inferencemodel_operator.observe.objects import Pod
    from inferencemodel_operator.record import VersionsRecord
    from model_poller.status import PollerStatus, VersionStatus

_HAD_ITS_TURN = frozenset(
    {
        VersionState.PUBLISHED,
        VersionState.AVAILABLE,
        VersionState.RETIRED,
        VersionState.QUARANTINED,
    }
)


class CrashWatch:
    """Counts, pod by pod, the model server's restarts while one version is published.

    Whether they speak against the version is decided in `versions`: they may be the fault of the
    pod, or of its template.
    """

    def __init__(self) -> None:
        self._since: dict[str, tuple[tuple[int, str] | None, int]] = {}
        """By a pod's uid: version and fingerprint of what it tries, or None, and its restarts
        before."""

    def crashed(self, pod: Pod, report: PollerStatus, record: VersionsRecord) -> int | None:
        """The version during whose load this pod's model server ended again and again.

        None as long as it is loading, and once the pod has served it. That an older version beside
        it is AVAILABLE between two ends of the server changes nothing.
        """
        published = _loading(report)
        if published is None:
            # Those so far are of something else: of what it tried before this one, say.
            self._since[pod.uid] = (None, pod.server_restarts)
            return None
        attempt = (published.version, published.tried)
        before, restarts = self._since.get(pod.uid, (None, 0))
        if before != attempt:
            if before is not None or not _is_first(report, published, record):
                restarts = pod.server_restarts
            self._since[pod.uid] = (attempt, restarts)
        return published.version if pod.server_restarts - restarts >= CRASHES else None

    def keep(self, pods: Iterable[Pod]) -> None:
        """Forget all other pods."""
        uids = {pod.uid for pod in pods}
        self._since = {uid: since for uid, since in self._since.items() if uid in uids}


def _loading(report: PollerStatus) -> VersionStatus | None:
    """The target, while it is given to the model server and never was AVAILABLE on this pod."""
    target = next((v for v in report.versions if v.version == report.target), None)
    if target is None or target.state is not VersionState.PUBLISHED or target.proven:
        return None
    return target


def _is_first(report: PollerStatus, published: VersionStatus, record: VersionsRecord) -> bool:
    """Whether no other version can have caused a restart of this pod's model server."""
    others = (v for v in report.versions if v.version != published.version)
    return not any(v.proven or v.state in _HAD_ITS_TURN for v in others) and not any(
        entry.reason == Reason.SERVER_CRASHED for entry in record.quarantined
    )
