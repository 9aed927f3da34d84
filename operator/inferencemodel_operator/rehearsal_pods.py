"""Makes the pods that rehearse versions, and takes them away again.

Like everything here it looks at what is: a pod that nobody wants any more goes, whoever asked for
it and when, be it an operator that was killed a moment later.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import msgspec

from inferencemodel_operator import rehearsal
from inferencemodel_operator.apply import RECHECK_SECONDS
from inferencemodel_operator.children.manifest import digest
from inferencemodel_operator.children.rehearsal import assigned
from inferencemodel_operator.cluster import PODS
from inferencemodel_operator.confirmation import ConfirmationWatch
from inferencemodel_operator.errors import (
    ConflictError,
    ContestedError,
    NameConflictError,
    PermanentError,
    RefusedError,
)
from inferencemodel_operator.identity import believed
from inferencemodel_operator.observe.hangs import Hangs
from inferencemodel_operator.pace import REPAIR_SECONDS
from model_poller.status import PollerStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from inferencemodel_operator.cache import Cache
    from inferencemodel_operator.children.manifest import Manifest
    from inferencemodel_operator.cluster import Cluster
    from inferencemodel_operator.observe.objects import Key, Model, Pod
    from inferencemodel_operator.rehearsal import RehearsalPod
    from inferencemodel_operator.spec import InferenceModel

_REST_SECONDS: Final = RECHECK_SECONDS * 0.9
"""How long a pod that was refused is not asked for again: what frees a quota is not watched."""
STORING_SECONDS: Final = 300.0
"""How long a pod that has done its work may take to put what it has fetched into the cache, where
the replicas wait for it. Its grace period is no time for that: the model server ignores its end,
and would keep its memory until the last second of it."""
_GLANCE_SECONDS: Final = 5.0
"""How soon it is looked whether it has."""


class _Held(msgspec.Struct, frozen=True):
    """A pod that was refused."""

    wanted: str
    """The hash of it."""
    problem: PermanentError
    until: float


class _Memory(msgspec.Struct):
    """What spares requests for one InferenceModel."""

    confirmations: ConfirmationWatch = msgspec.field(default_factory=ConfirmationWatch)
    held: _Held | None = None
    since: float | None = None
    """Since when there is no pod for that reason or another, by the clock of this process."""

    def judge(self) -> None:
        """Note since when what is wanted can't be had."""
        if self.held is None:
            self.since = None
        elif self.since is None:
            self.since = time.monotonic()


class RehearsalPods:
    """The pods that rehearse versions, of all InferenceModels."""

    def __init__(self, cluster: Cluster, cache: Cache, later: Callable[[Key, float], None]) -> None:
        """Know of none.

        Args:
            cluster: where they are.
            cache: what is known of them.
            later: has an InferenceModel looked at again after so many seconds.
        """
        self._cluster = cluster
        self._cache = cache
        self._later = later
        self._hangs = Hangs(cluster, later)
        self._memories: dict[Key, _Memory] = {}
        self._going: dict[Key, set[str]] = {}
        """The uids of those that were asked to go, until that is seen."""
        self._storing: dict[Key, dict[str, float]] = {}
        """The uids of those that are to go once the cache has what they fetched, and since when."""

    async def look(self, key: Key) -> None:
        """Ask why a pod hangs, when it is time."""
        await self._hangs.look(key, [p for p in self._cache.rehearsals(key) if not p.terminating])

    def pod(self, model: InferenceModel, version: int) -> RehearsalPod | None:
        """The pod that rehearses a version; of several the newest that is to stay."""
        found = [self._observe(pod, model) for pod in self._cache.rehearsals(model.key)]
        pods = [pod for pod in found if pod is not None and pod.version == version]
        return max(pods, key=lambda pod: (not pod.gone, pod.started), default=None)

    def _observe(self, pod: Pod, model: InferenceModel) -> RehearsalPod | None:
        trouble, message = pod.trouble, pod.message
        if trouble is None:
            trouble, message = self._hangs.trouble(pod)
        report = self._cache.reports.get(pod.uid)
        seen = rehearsal.observe(pod, model, report, trouble, message)
        if seen is not None and pod.uid in self._storing.get(pod.key, ()):
            return msgspec.structs.replace(seen, gone=True)
        return seen

    def refused(self, key: Key) -> str:
        """Why the pod that is wanted can't be made; empty where it can."""
        memory = self._memories.get(key)
        return str(memory.held.problem) if memory is not None and memory.held is not None else ""

    def refused_for(self, key: Key) -> float:
        """Seconds for which that has been so, as far as this process knows."""
        memory = self._memories.get(key)
        return 0.0 if memory is None or memory.since is None else time.monotonic() - memory.since

    async def arrange(
        self, model: Model, typed: InferenceModel | None, wanted: Manifest | None
    ) -> list[str]:
        """Make the pod that is wanted, and take away all others.

        Args:
            model: whose pods they are.
            typed: the same, as far as it can be understood.
            wanted: the pod; None for none.

        Returns:
            What was done, in words.

        Raises:
            TransientError: it may work later.
        """
        done, present = [], None
        pods = self._cache.rehearsals(model.key)
        self._keep(model.key, pods)
        for pod in pods:
            if wanted is not None and pod.name == wanted["metadata"]["name"]:
                present = pod
                self._storing.get(model.key, {}).pop(pod.uid, None)
            if (present is not pod or pod.terminating) and await self._delete(pod):
                done.append(f"deleted {PODS.kind} {pod.name}")
        if wanted is None or typed is None:
            self.forget(model.key)
            return done
        memory = self._memories.setdefault(model.key, _Memory())
        if present is None:
            done += await self._create(model.key, wanted, memory)
        else:
            memory.held = None
            # What has its name and ends is waited for.
            if not present.terminating:
                await self._tell(present, typed, wanted, memory)
        memory.judge()
        return done

    def hold(self, key: Key, problem: PermanentError) -> None:
        """Leave all as it is: which pod is wanted can't be told."""
        memory = self._memories.setdefault(key, _Memory())
        memory.held = _Held("", problem, 0)
        memory.judge()

    def forget(self, key: Key) -> None:
        """Drop what is remembered for an InferenceModel."""
        self._memories.pop(key, None)
        self._keep(key, self._cache.rehearsals(key))
        self._hangs.forget(key)

    async def _delete(self, pod: Pod) -> bool:
        going = self._going.get(pod.key, set())
        if pod.rehearsing is None or pod.rehearsing.deleted or pod.uid in going:
            return False
        if not pod.terminating and self._is_storing(pod):
            self._later(pod.key, _GLANCE_SECONDS)
            return False
        await self._cluster.delete(PODS, pod.namespace, pod.name, uid=pod.uid)
        self._going[pod.key] = {*going, pod.uid}
        return True

    def _is_storing(self, pod: Pod) -> bool:
        """Whether a pod that is to go still brings to the cache what replicas wait for."""
        report = self._cache.reports.get(pod.uid)
        if not isinstance(report, PollerStatus) or report.cache is None or not report.cache.storing:
            return False
        now = time.monotonic()
        return (
            now - self._storing.setdefault(pod.key, {}).setdefault(pod.uid, now) < STORING_SECONDS
        )

    def _keep(self, key: Key, pods: Iterable[Pod]) -> None:
        uids = {pod.uid for pod in pods}
        if going := self._going.pop(key, set()) & uids:
            self._going[key] = going
        storing = self._storing.pop(key, {})
        if kept := {uid: since for uid, since in storing.items() if uid in uids}:
            self._storing[key] = kept

    async def _create(self, key: Key, wanted: Manifest, memory: _Memory) -> list[str]:
        about, now = digest(wanted), time.monotonic()
        if memory.held is not None and memory.held.wanted == about and now < memory.held.until:
            return []
        name = wanted["metadata"]["name"]
        try:
            answer = await self._cluster.create(PODS, wanted)
        except ConflictError:
            # One of its own would be known, or will be in a moment.
            taken = NameConflictError(PODS.kind, f"{key[0]}/{name}")
            memory.held = _Held(about, taken, now + _REST_SECONDS)
        except RefusedError as refusal:
            memory.held = _Held(about, refusal, now + _REST_SECONDS)
        else:
            memory.held = None
            self._cache.put(PODS, answer)
            return [f"created {PODS.kind} {name}"]
        self._later(key, RECHECK_SECONDS)
        return []

    async def _tell(
        self, pod: Pod, model: InferenceModel, wanted: Manifest, memory: _Memory
    ) -> None:
        memory.confirmations.keep([pod])
        report = believed(pod, model, self._cache.reports.get(pod.uid))
        telling = memory.confirmations.look(pod, assigned(wanted), report)
        if telling.after is not None:
            self._later(pod.key, telling.after)
        if telling.contested:
            problem = ContestedError(
                PODS.kind, f"{pod.namespace}/{pod.name}", "somebody else", REPAIR_SECONDS
            )
            memory.held = _Held("", problem, 0)
        if not telling.annotations:
            return
        answer = await self._cluster.annotate(
            PODS, pod.namespace, pod.name, uid=pod.uid, annotations=telling.annotations
        )
        if answer is not None and self._cache.take_answer(PODS, answer, pod):
            self._later(pod.key, 0)
