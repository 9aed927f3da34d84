"""Everything that a status is made from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from inferencemodel_operator.errors import OperatorError
    from inferencemodel_operator.observe.troubles import Trouble
    from inferencemodel_operator.observe.wire import DeploymentStatus
    from inferencemodel_operator.record import VersionsRecord
    from model_poller.status import PollerStatus, VersionStatus


class PodView(msgspec.Struct, frozen=True, kw_only=True):
    """One pod that is not going away."""

    name: str
    ready: bool
    report: PollerStatus | None
    """None while it can't be asked."""
    trouble: Trouble | None = None
    message: str = ""

    @property
    def active(self) -> int | None:
        """The version that the pod answers with, when that is known."""
        return self.report.active_version if self.report else None

    @property
    def unknown(self) -> bool:
        """Whether it is not known what this pod answers with."""
        return self.report is None or not self.report.server_reachable

    def version(self, number: int) -> VersionStatus | None:
        """What the pod tells about one version."""
        if self.report is None:
            return None
        return next((v for v in self.report.versions if v.version == number), None)


class Observed(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the status is made from."""

    pods: tuple[PodView, ...]
    record: VersionsRecord
    wanted: int
    """How many pods are wanted, by the spec or by an autoscaler."""
    deployment: DeploymentStatus | None = None
    deployment_generation: int = 0
    problems: tuple[OperatorError, ...] = ()
    """What stood in the way of the last attempt to apply the children."""

    @property
    def ready(self) -> list[PodView]:
        """The pods that get requests."""
        return [pod for pod in self.pods if pod.ready]

    @property
    def answering(self) -> list[PodView]:
        """The pods that get requests, and those that will again with the version they have.

        A busy machine takes a pod out of service for a moment; what it serves still counts.
        """
        return [pod for pod in self.pods if pod.ready or pod.active is not None]

    @property
    def unknown(self) -> list[PodView]:
        """The pods that get requests although it is not known what they answer with."""
        return [pod for pod in self.ready if pod.unknown]

    @property
    def reports(self) -> list[PollerStatus]:
        """What the pods that can be asked tell, by the pods' names."""
        return [pod.report for pod in self.pods if pod.report is not None]

    @property
    def on_target(self) -> bool:
        """Whether every answering pod is known to have the target, and one of them is ready."""
        return bool(self.ready) and all(
            not pod.unknown and pod.active == self.record.target for pod in self.answering
        )
