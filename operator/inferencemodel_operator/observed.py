"""Everything that a status is made from, and what it means that a version is reached.

Every field and condition about versions follows from two notions of this module:

- A replica *gets requests* while its pod is ready, and while it drains: connections that clients
  keep open stay with it until its model server ends.
- A version is *reached* when the wanted number of ready replicas answers with it, and nobody who
  gets requests answers with anything else or can't be asked.
"""

from __future__ import annotations

from collections import Counter
from enum import Enum
from typing import TYPE_CHECKING

import msgspec

from inferencemodel_operator.versions import is_failing, is_unfinished
from model_poller.status import SourceState, VersionReason, VersionState

if TYPE_CHECKING:
    from inferencemodel_operator.errors import OperatorError
    from inferencemodel_operator.observe.troubles import Trouble
    from inferencemodel_operator.observe.wire import DeploymentStatus
    from inferencemodel_operator.record import VersionsRecord
    from inferencemodel_operator.status import RolloutStatus
    from inferencemodel_operator.waves import Hold
    from model_poller.status import PollerStatus, VersionStatus


class Unversioned(Enum):
    """What a replica answers with when that is no version of the spec's source."""

    NOTHING = "no version"
    """Its model server answers, and has no version AVAILABLE."""
    UNKNOWN = "unknown"
    """It can't be asked."""
    OTHER_SOURCE = "another source's version"
    """It is of a pod template from before the source was changed."""


Answer = int | Unversioned


class Replica(msgspec.Struct, frozen=True, kw_only=True):
    """One pod of the InferenceModel's Deployment."""

    name: str
    uid: str = ""
    ready: bool
    report: PollerStatus | None
    """What its poller reports about the spec's source; None while it reports nothing of it."""
    draining: bool = False
    """Deleted, or at its end, and not yet gone."""
    silent: bool = False
    """Its poller doesn't answer, or has ended: one that drains has no more to say."""
    other_source: bool = False
    """Its versions are those of a source from before."""
    current: bool = True
    """Made from the Deployment's present pod template."""
    trouble: Trouble | None = None
    message: str = ""
    """About the trouble."""
    doubt: str = ""
    """Why what its poller reports is not believed."""
    restarts: int = 0
    """Of its model server."""
    evicted: str = ""
    """Why its node ended it, for want of memory or disk; empty where it didn't."""
    template: str = ""
    """Hash of the pod template that it was made from."""
    node: str = ""
    behind_poller: str = ""
    """A container of others that starts only when the poller has its first version."""

    @property
    def answer(self) -> Answer:
        """What its model server answers with."""
        if self.other_source:
            return Unversioned.OTHER_SOURCE
        if self.report is None or not self.report.server_reachable:
            return Unversioned.UNKNOWN
        active = self.report.active_version
        return Unversioned.NOTHING if active is None else active

    @property
    def gets_requests(self) -> bool:
        """Whether clients may get its answers."""
        if self.draining:
            return not self.silent and (self.other_source or isinstance(self.answer, int))
        return self.ready

    def version(self, number: int) -> VersionStatus | None:
        """What the pod reports about one version."""
        if self.report is None:
            return None
        return next((v for v in self.report.versions if v.version == number), None)


class Observed(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the status is made from."""

    pods: tuple[Replica, ...]
    """Those that drain included."""
    record: VersionsRecord
    wanted: int
    """How many replicas are wanted, by the spec or by an autoscaler."""
    deployment: DeploymentStatus | None = None
    """The Deployment's account of its present generation; None while it is about an older one."""
    problems: tuple[OperatorError, ...] = ()
    """What stood in the way of the last attempt to apply the children."""
    hold: Hold | None = None
    """Why the pods don't have the operator's newest template; None when they have it."""
    rollout: RolloutStatus | None = None
    """Of the version that is rolled out, or was last."""

    @property
    def replicas(self) -> list[Replica]:
        """The pods that are not going away."""
        return [pod for pod in self.pods if not pod.draining]

    @property
    def ready(self) -> list[Replica]:
        """The replicas that get requests, for the spec's source."""
        return [pod for pod in self.replicas if pod.ready and not pod.other_source]

    @property
    def unknown(self) -> list[Replica]:
        """The replicas that get requests although it is not known what they answer with."""
        return [pod for pod in self.ready if pod.answer is Unversioned.UNKNOWN]

    @property
    def reports(self) -> list[PollerStatus]:
        """What the replicas that can be asked report, by the pods' names."""
        return [pod.report for pod in self.replicas if pod.report is not None]

    @property
    def answers(self) -> Counter[Answer]:
        """How many pods that get requests answer with what."""
        return Counter(pod.answer for pod in self.pods if pod.gets_requests)

    @property
    def troubled(self) -> Replica | None:
        """A replica that does not come up.

        Of the present pod template alone: what is wrong with the one before may just be mended.
        """
        if self.deployment is None:
            return None
        return next((pod for pod in self.replicas if pod.current and pod.trouble is not None), None)

    @property
    def reached(self) -> int | None:
        """The version that is reached; None while none is, and when no replica is wanted."""
        answers = self.answers
        only = next(iter(answers), None)
        enough = len(self.ready) >= self.wanted > 0
        return only if len(answers) == 1 and enough and isinstance(only, int) else None

    @property
    def on_target(self) -> bool:
        """Whether the target is reached."""
        return self.record.wanted is not None and self.reached == self.record.wanted

    @property
    def is_replacing(self) -> bool:
        """Whether pods of an earlier template give way to those of the present one.

        Not where one of these doesn't come up, for a trouble of its own or because there is nothing
        for it to begin with: what is served goes on with the earlier ones.
        """
        deployment = self.deployment
        if deployment is None:
            return True
        is_under_way = deployment.replicas > deployment.updated_replicas
        return is_under_way and self.troubled is None and not self._is_stranded

    @property
    def _is_stranded(self) -> bool:
        """Whether a pod of the present template can't have the version that it is to begin with."""
        target = self.record.target
        return target is not None and any(
            pod.current and not pod.ready and lacks(pod, target) for pod in self.replicas
        )

    @property
    def rolled_out(self) -> bool:
        """Whether all wanted replicas are there, made from the present pod template."""
        deployment = self.deployment
        return (
            deployment is not None
            and deployment.updated_replicas >= self.wanted
            and deployment.replicas <= deployment.updated_replicas
            and len(self.ready) >= self.wanted
        )


def lacks(pod: Replica, target: int) -> bool:
    """Whether a pod can't get a version from its source, or can't load it, as it stands."""
    if pod.report is None or pod.report.source.state is not SourceState.READY:
        return False
    known = pod.version(target)
    if known is None or known.state is VersionState.QUARANTINED or is_failing(known):
        return True
    return known.reason is VersionReason.QUARANTINED_ELSEWHERE or is_unfinished(known)
