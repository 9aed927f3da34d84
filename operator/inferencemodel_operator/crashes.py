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
    from model_poller.status import PollerStatus


class CrashWatch:
    """Counts, pod by pod, the model server's restarts while one version is published."""

    def __init__(self) -> None:
        self._since: dict[str, tuple[int, int]] = {}

    def crashed(self, pod: Pod, report: PollerStatus, record: VersionsRecord) -> int | None:
        """The version during whose load this pod's model server ended again and again.

        None as long as it is loading, or once any version is AVAILABLE.
        """
        published = report.target
        states = {version.version: version.state for version in report.versions}
        if (
            published is None
            or report.active_version is not None
            or states.get(published) is not VersionState.PUBLISHED
        ):
            self._since.pop(pod.uid, None)
            return None
        version, restarts = self._since.get(pod.uid, (None, 0))
        if version != published:
            # All restarts of a pod that never served count, unless another version had its turn.
            others = (VersionState.PUBLISHED, VersionState.RETIRED, VersionState.QUARANTINED)
            first = version is None and not any(
                state in others for number, state in states.items() if number != published
            )
            first = first and not any(
                entry.reason == Reason.SERVER_CRASHED for entry in record.quarantined
            )
            restarts = 0 if first else pod.server_restarts
            self._since[pod.uid] = (published, restarts)
        return published if pod.server_restarts - restarts >= CRASHES else None

    def keep(self, pods: Iterable[Pod]) -> None:
        """Forget all other pods."""
        uids = {pod.uid for pod in pods}
        self._since = {uid: since for uid, since in self._since.items() if uid in uids}
