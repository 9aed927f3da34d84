"""Observe, compute, apply, report: the only place where these meet."""

from __future__ import annotations

import asyncio
import datetime
import logging
from typing import TYPE_CHECKING, Final

import msgspec

from inferencemodel_operator import (
    addresses,
    assessment,
    assignment,
    events,
    identity,
    names,
    ownership,
    rehearsal,
    rights,
    store,
    template_trials,
    versions,
)
from inferencemodel_operator.apply import RECHECK_SECONDS
from inferencemodel_operator.children import beside_pods, children
from inferencemodel_operator.children import rehearsal as rehearsal_child
from inferencemodel_operator.cluster import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    HTTP_ROUTES,
    INGRESSES,
    INTERCEPTOR_ROUTES,
    MODELS,
    NETWORK_POLICIES,
    PODS,
    SCALED_OBJECTS,
    SERVICES,
)
from inferencemodel_operator.conditions import ConditionType, Reason
from inferencemodel_operator.confirmation import ConfirmationWatch
from inferencemodel_operator.crashes import CrashWatch
from inferencemodel_operator.errors import (
    ContestedError,
    InvalidModelError,
    InvalidRecordError,
    NamespaceTerminatingError,
    OperatorError,
    PermanentError,
    RefusedError,
    StatusRefusedError,
    TransientError,
)
from inferencemodel_operator.hearsay import HearsayWatch
from inferencemodel_operator.logs import about
from inferencemodel_operator.observe import disruptions
from inferencemodel_operator.observe.hangs import Hangs
from inferencemodel_operator.observe.pollers import askable
from inferencemodel_operator.observe.troubles import Trouble
from inferencemodel_operator.observed import Observed, Replica
from inferencemodel_operator.pace import REPAIR_SECONDS, Bucket, Pace
from inferencemodel_operator.patience import Patience
from inferencemodel_operator.record import (
    QUARANTINED_JSON_KEY,
    Phase,
    RolloutRecord,
    VersionsRecord,
)
from inferencemodel_operator.rehearsal_pods import RehearsalPods
from inferencemodel_operator.rollouts import clock
from inferencemodel_operator.rollouts import plan as rollouts
from inferencemodel_operator.rollouts.checks import Finding
from inferencemodel_operator.rollouts.situation import Plan, Situation, Soaking, Trying
from inferencemodel_operator.status import Status, decode
from inferencemodel_operator.status_refusals import StatusRefusals
from inferencemodel_operator.template_trials import TemplateTrials
from model_poller.status import encode_task

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable, Sequence

    from inferencemodel_operator.apply import Applier
    from inferencemodel_operator.cache import Cache
    from inferencemodel_operator.children.manifest import Manifest
    from inferencemodel_operator.cluster import Cluster
    from inferencemodel_operator.metrics import Metrics
    from inferencemodel_operator.observe.objects import Child, Deployment, Key, Model, Pod
    from inferencemodel_operator.queue import WorkQueue
    from inferencemodel_operator.recorder import Recorder
    from inferencemodel_operator.settings import Settings
    from inferencemodel_operator.spec import InferenceModel
    from inferencemodel_operator.template_updates import TemplateUpdates
    from inferencemodel_operator.waves import Hold

logger = logging.getLogger(__name__)

STATUS_SECONDS: Final = 0.2
"""The least time between two writes of one status: the first change goes out at once, a burst
becomes five writes a second."""
STATUS_BURST: Final = 12
STATUS_REST_SECONDS: Final = 3.0
"""So many writes may follow one another like that, more than a change of version takes; what goes
on changing is then written once in so many seconds."""


_BEHIND_ROUTES: Final = (INGRESSES.kind, HTTP_ROUTES.kind, SCALED_OBJECTS.kind)
"""What the way by the interceptor has to be there for, where there is to be one."""
_ENTRANCES: Final = (INGRESSES.kind, HTTP_ROUTES.kind)
"""What leads requests by it, or no longer."""
WAY_SECONDS: Final = 10.0
"""Until whoever serves these has heard that they lead elsewhere."""


class _Memory(msgspec.Struct):
    """What spares work for one InferenceModel; losing it costs nothing but that work."""

    uid: str
    """Of the InferenceModel."""
    crashes: CrashWatch
    confirmations: ConfirmationWatch
    hearsay: HearsayWatch = msgspec.field(default_factory=HearsayWatch)
    patience: Patience = msgspec.field(default_factory=Patience)
    statuses: Pace = msgspec.field(
        default_factory=lambda: Pace(
            Bucket(burst=1, seconds=STATUS_SECONDS),
            Bucket(burst=STATUS_BURST, seconds=STATUS_REST_SECONDS),
        )
    )
    """Of the writes of its status."""
    taken: tuple[Status, Status] | None = None
    """A status that the API server took as something else (its CRD is of another release, say),
    and what it made of it: writing it again would change nothing."""
    way_until: float = 0.0
    """Until when requests may come by the interceptor, though nothing leads there any more."""
    soaking: Soaking | None = None
    """Since when a step of its rollout is reached."""
    trying: Trying | None = None
    """Since when replicas have its version without answering with it."""
    shift: clock.Shift = msgspec.field(default_factory=clock.Shift)
    clock: clock.Clock = msgspec.field(default_factory=clock.Clock)
    ready: str = "Unknown"
    told: str = ""


class Reconciler:
    """Brings one InferenceModel at a time to what is wanted, and its status to what is."""

    def __init__(
        self,
        cluster: Cluster,
        cache: Cache,
        queue: WorkQueue[Key],
        applier: Applier,
        settings: Settings,
        metrics: Metrics,
        recorder: Recorder,
        updates: TemplateUpdates,
    ) -> None:
        self._cluster = cluster
        self._cache = cache
        self._queue = queue
        self._applier = applier
        self._settings = settings
        self._metrics = metrics
        self._recorder = recorder
        self._updates = updates
        self._memories: dict[Key, _Memory] = {}
        self._hangs = Hangs(cluster, queue.add_after)
        self._rehearsals = RehearsalPods(cluster, cache, queue.add_after)
        self._trials = TemplateTrials(cluster, queue.add_after)
        self._status_refusals = StatusRefusals()

    def ready_states(self) -> Iterable[str]:
        """The status of the condition Ready of each InferenceModel."""
        return (memory.ready for memory in self._memories.values())

    async def reconcile(self, key: Key) -> None:
        """One pass.

        Raises:
            TransientError: the pass is to be repeated with backoff.
        """
        try:
            await self._reconcile(key)
        finally:
            self._updates.look(key)

    async def _reconcile(self, key: Key) -> None:
        model = self._cache.model(key)
        if model is None or (model.terminating and not model.finalizers):
            # Owner references do the rest.
            self._forget(key)
            return
        memory = self._memories.get(key)
        if memory is not None and memory.uid != model.uid:
            # One that was deleted and made again at once is another one: that it was gone between
            # may never be seen.
            self._forget(key)
            memory = None
        if memory is None:
            memory = self._memories[key] = _Memory(model.uid, CrashWatch(), ConfirmationWatch())
        if model.model is None:
            self._updates.forget(key)
            problems = await _lasting(self._rehearsals.arrange(model, None, None))
            await self._report_invalid(model, memory)
            if problems:
                raise problems[0]
            return
        record, problems = self._remembered(model, model.model)
        record = _by_the_clock(record, memory)
        active = model.is_followed and not problems
        plan = Plan(record=record, status=self._live(model).model.rollout)
        if active:
            plan = self._decide(model, model.model, record, memory)
        wanted, unfit = self._wanted(model.model, plan.record)
        hold = None
        if not active:
            self._updates.forget(key)
            problems += await _lasting(self._rehearsals.arrange(model, model.model, None))
        else:
            unread: OperatorError | None = None
            if unfit is not None:
                self._updates.forget(key)
                self._rehearsals.hold(key, unfit)
            else:
                try:
                    wanted, hold = await self._updates.arrange(model, wanted)
                except OperatorError as error:
                    # The Deployment stays as it is, and all else goes on.
                    unread, (_, wanted) = error, _parted(wanted, (DEPLOYMENTS.kind,))
            done, problems = await self._apply(model, model.model, record, plan, wanted, memory)
            if unread is None:
                self._updates.settle(key, wanted, problems)
            problems = [*(p for p in (unfit, unread) if p is not None), *problems]
            if not problems:
                problems = await _lasting(self._take_away(model, plan))
            elif self._is_remembered(model, plan):
                # What stands in the way of others is nothing to what somebody asks of a rollout.
                problems += (await _outcomes([self._take_away(model, plan)]))[1]
            if plan.after is not None:
                self._queue.add_after(key, plan.after)
            problems = memory.patience.judge(problems, asyncio.get_running_loop().time())
            if done:
                logger.info("%s", ", ".join(done), extra=about(key))
            if done and not problems and len(self._queue):
                # Others wait for their children: what became of these can be told after that.
                self._queue.add(key)
                return
        await self._report(model, model.model, plan, problems, hold, memory)
        # Where the namespace goes, so does the rest.
        for passing in (NamespaceTerminatingError, TransientError):
            for problem in problems:
                if isinstance(problem, passing):
                    raise problem
        if problems:
            self._queue.add_after(key, RECHECK_SECONDS)

    def _forget(self, key: Key) -> None:
        """Drop all that spares work for a resource that is gone."""
        self._memories.pop(key, None)
        self._applier.forget(key)
        self._hangs.forget(key)
        self._rehearsals.forget(key)
        self._trials.forget(key)
        self._status_refusals.forget(key)
        self._metrics.rollouts.forget(key)
        self._updates.forget(key)

    def _wanted(
        self, typed: InferenceModel, record: VersionsRecord
    ) -> tuple[tuple[Manifest, ...], InvalidModelError | None]:
        """The children, without the Deployment where its pods can't be told, and why not."""
        try:
            return children(typed, record, self._settings), None
        except InvalidModelError as problem:
            return beside_pods(typed, record, self._settings), problem

    def _remembered(
        self, model: Model, typed: InferenceModel
    ) -> tuple[VersionsRecord, list[OperatorError]]:
        """What was decided about versions of the spec's source, and why it can't be read."""
        namespace, name = model.key
        config_map = names.versions_config_map(name)
        live = self._cache.child(CONFIG_MAPS.kind, namespace, config_map)
        server = store.of_source(typed.spec.source)
        if live is None or live.owner_uid != model.uid:
            return msgspec.structs.replace(self._recovered(model, typed), store=server), []
        try:
            if live.is_too_large:
                raise InvalidRecordError(f"{namespace}/{config_map}", "", "it is too large")
            data = live.content_object().get("data")
            record = VersionsRecord.from_config_map(data, name=f"{namespace}/{config_map}")
        except InvalidRecordError as problem:
            return VersionsRecord(), [problem]
        record = record.about(typed.spec.model.storage_uri, server)
        if QUARANTINED_JSON_KEY not in (data or {}):
            # It is always written: somebody has emptied the ConfigMap, or taken that away.
            lost = self._recovered(model, typed)
            target = lost.target if record.target is None else record.target
            record = msgspec.structs.replace(record, target=target, quarantined=lost.quarantined)
        return msgspec.structs.replace(record, store=server), []

    def _recovered(self, model: Model, typed: InferenceModel) -> VersionsRecord:
        """What its pods were told last."""
        pods = self._assignable(model, typed)
        return assignment.recovered(
            [pod.assignment for pod in pods],
            self._live(model).model.quarantined if pods else (),
            {pod.template for pod in pods},
        )

    def _decide(
        self, model: Model, typed: InferenceModel, record: VersionsRecord, memory: _Memory
    ) -> Plan:
        pods = [pod for pod in self._cache.pods(model.key) if identity.has_source(pod, typed)]
        memory.crashes.keep(pods)
        contributions, lasting = [], {}
        for pod in pods:
            report = identity.believed(pod, typed, self._cache.reports.get(pod.uid))
            if report is None and pod.terminating:
                continue
            crashed = memory.crashes.crashed(pod, report, record) if report else None
            contributions.append(
                versions.PodVersions(report=report, template=pod.template, crashed=crashed)
            )
            if report is not None and not pod.terminating:
                lasting[pod.uid] = report
        heard = memory.hearsay.look(
            lasting,
            record.quarantined,
            typed.spec.source.poll_interval,
            asyncio.get_running_loop().time(),
        )
        if heard.after is not None:
            self._queue.add_after(model.key, heard.after)
        seen = self._observe(model, typed, record)
        wanted = typed.spec.model
        goal = versions.decide(
            wanted, record, contributions, reached=seen.reached, unfounded=heard.unfounded
        )
        stay = goal
        if record.target not in (None, goal.target):
            stay = versions.staying(wanted, record.target, goal, contributions)
        finding, words = self._rehearsal(model, typed, record.rollout)
        situation = Situation(
            replicas=seen.pods,
            wanted=seen.wanted,
            is_replacing=seen.is_replacing,
            rehearsal=finding,
            rehearsing=words,
            rehearser=self._rehearser(typed, record.rollout),
            soaking=memory.soaking,
            trying=memory.trying,
            actions=model.actions,
            now=_now(),
        )
        plan = rollouts.plan(typed, record, goal, stay, situation)
        memory.soaking, memory.trying = plan.soaking, plan.trying
        if plan.record.wanted != record.wanted:
            logger.info(
                "version %s is wanted instead of %s",
                plan.record.wanted,
                record.wanted,
                extra=about(model.key),
            )
        return plan

    def _rehearsal(
        self, model: Model, typed: InferenceModel, run: RolloutRecord | None
    ) -> tuple[Finding | None, str]:
        """What the rehearsal says of the candidate; None while it goes on, and how far it is."""
        if run is None or run.phase is not Phase.REHEARSING:
            return None, ""
        now = _now()
        found = rehearsal.verdict(
            typed.spec.rollout.rehearsal,
            self._rehearsals.pod(typed, run.version),
            self._rehearsals.refused(model.key),
            version=run.version,
            fingerprint=run.fingerprint,
            since=run.step_started or run.started,
            now=now,
            refused_since=now - datetime.timedelta(seconds=self._rehearsals.refused_for(model.key)),
        )
        if found.again is not None:
            self._queue.add_after(model.key, (found.again - now).total_seconds())
        if found.result is None:
            return None, found.message
        return Finding(found.result, found.message, Reason.REHEARSAL_FAILED), ""

    def _rehearser(self, typed: InferenceModel, run: RolloutRecord | None) -> Replica | None:
        """The pod that rehearses the candidate, as far as its golden requests go."""
        pod = None if run is None else self._rehearsals.pod(typed, run.version)
        if pod is None or pod.gone:
            return None
        return Replica(name=pod.name, uid=pod.uid, ready=False, report=pod.report)

    async def _rehearse(
        self, model: Model, typed: InferenceModel, plan: Plan, template: Manifest
    ) -> str | None:
        """Bring about the pod that rehearses the candidate, where there is to be one."""
        run, wanted = plan.record.rollout, None
        if plan.rehearse and run is not None:
            beside = tuple(v for v in plan.record.served if v < run.version)
            texts = assignment.assignment(plan.record)
            wanted = rehearsal_child.build(
                typed,
                template,
                version=run.version,
                fingerprint=run.fingerprint,
                # With what a replica has in memory while it loads the candidate.
                served=(run.version, *beside) if beside == plan.record.served else (run.version,),
                quarantined=texts[names.QUARANTINED_VERSIONS_ANNOTATION],
                rollout="" if plan.task is None else encode_task(plan.task),
            )
        return ", ".join(await self._rehearsals.arrange(model, typed, wanted)) or None

    def _is_remembered(self, model: Model, plan: Plan) -> bool:
        """Whether what the plan says is in the memory."""
        namespace, name = model.key
        live = self._cache.child(CONFIG_MAPS.kind, namespace, names.versions_config_map(name))
        if live is None or live.owner_uid != model.uid or live.is_too_large:
            return False
        return bool(live.content_object().get("data") == plan.record.to_data())

    async def _take_away(self, model: Model, plan: Plan) -> None:
        """Take away the annotations that have been read, and say which of them meant nothing."""
        if not plan.read:
            return
        answer = await self._cluster.annotate(
            MODELS,
            *model.key,
            uid=model.uid,
            version=model.resource_version,
            annotations=dict.fromkeys(plan.read),
        )
        if answer is not None:
            self._cache.put(MODELS, answer)
        for dropped in plan.dropped:
            logger.warning("%s", dropped.why, extra=about(model.key))
            await self._recorder.record(
                model, events.Change("ActionDropped", dropped.why, warning=True)
            )

    async def _apply(
        self,
        model: Model,
        typed: InferenceModel,
        before: VersionsRecord,
        plan: Plan,
        wanted: tuple[Manifest, ...],
        memory: _Memory,
    ) -> tuple[list[str], list[OperatorError]]:
        """Write what differs: the pods' annotations first, for they are what pollers wait for.

        But what a rollout does is remembered before any pod is told of it.

        Returns:
            What was done to children, in words, and what stood in the way.
        """
        kept = {(child["kind"], child["metadata"]["name"]) for child in wanted}
        # Whether its pods can be told or not.
        kept.add((DEPLOYMENTS.kind, names.deployment(typed.name)))
        templates = [c["spec"]["template"] for c in wanted if c["kind"] == DEPLOYMENTS.kind]
        pods = self._assignable(model, typed)
        memory.confirmations.keep(pods)
        done: list[str] = []
        problems: list[OperatorError] = []
        if plan.candidate is not None and plan.record != before:
            first, wanted = _parted(wanted, (CONFIG_MAPS.kind,))
            done, problems = await _outcomes(self._ensure(model, typed, child) for child in first)
            if problems:
                pods, plan = [], msgspec.structs.replace(plan, rehearse=False)
        way = {(INTERCEPTOR_ROUTES.kind, names.route(typed.name))}
        way.add((SERVICES.kind, names.interceptor(typed.name)))
        leading = tuple(c for c in wanted if (c["kind"], c["metadata"]["name"]) in way)
        wanted = tuple(child for child in wanted if child not in leading)
        ways, lacking = await _outcomes(self._ensure(model, typed, child) for child in leading)
        done, problems = [*done, *ways], [*problems, *lacking]
        if lacking:
            # Requests go on by the way that there is: the interceptor would know no model for them.
            _, wanted = _parted(wanted, _BEHIND_ROUTES)
        surplus = [
            child
            for child in self._cache.children(model.key)
            if (child.kind, child.name) not in kept
        ]
        if any((child.kind, child.name) in way for child in surplus):
            back, stuck, wanted = await self._lead_back(model, typed, wanted, memory)
            done, problems = [*done, *back], [*problems, *stuck]
            if stuck or memory.way_until:
                surplus = [child for child in surplus if (child.kind, child.name) not in way]
        more, others = await _outcomes(
            [
                *(self._assign(pod, typed, plan, memory.confirmations) for pod in pods),
                *(self._ensure(model, typed, child) for child in wanted),
                *(self._rehearse(model, typed, plan, template) for template in templates),
                *(self._remove(model, child) for child in surplus),
            ]
        )
        return [*done, *more], ownership.merge([*problems, *others])

    async def _lead_back(
        self,
        model: Model,
        typed: InferenceModel,
        wanted: tuple[Manifest, ...],
        memory: _Memory,
    ) -> tuple[list[str], list[OperatorError], tuple[Manifest, ...]]:
        """Have requests come past the interceptor again, before the way by it goes.

        Returns:
            What was done, what stood in the way, and the children that are left to do.
        """
        now = asyncio.get_running_loop().time()
        entrances, wanted = _parted(wanted, _ENTRANCES)
        back, stuck = await _outcomes(self._ensure(model, typed, child) for child in entrances)
        if back:
            memory.way_until = now + WAY_SECONDS
        if memory.way_until <= now:
            memory.way_until = 0.0
        if memory.way_until:
            self._queue.add_after(model.key, memory.way_until - now)
        if stuck or memory.way_until:
            # It lets the interceptor in for as long.
            _, wanted = _parted(wanted, (NETWORK_POLICIES.kind,))
        return back, stuck, wanted

    async def _assign(
        self,
        pod: Pod,
        typed: InferenceModel,
        plan: Plan,
        confirmations: ConfirmationWatch,
    ) -> None:
        wanted = assignment.assignment(
            plan.assigned(pod.uid), plan.task_of(pod.uid), pod.assignment
        )
        report = identity.believed(pod, typed, self._cache.reports.get(pod.uid))
        telling = confirmations.look(pod, wanted, report)
        if telling.after is not None:
            self._queue.add_after(pod.key, telling.after)
        if telling.contested:
            rivals = f"somebody else ({', '.join(wanted)})"
            raise ContestedError(PODS.kind, f"{pod.namespace}/{pod.name}", rivals, REPAIR_SECONDS)
        if not telling.annotations:
            return
        if telling.repeated:
            self._metrics.assignments_repeated.inc()
            logger.log(
                logging.INFO if telling.after else logging.WARNING,
                "pod %s has not heard that it is to serve version %s: told again%s",
                pod.name,
                wanted[names.TARGET_VERSION_ANNOTATION],
                "" if telling.after else " for the last time; look at its node's kubelet",
                extra=about(pod.key),
            )
        answer = await self._cluster.annotate(
            PODS, pod.namespace, pod.name, uid=pod.uid, annotations=telling.annotations
        )
        if answer is not None and self._cache.take_answer(PODS, answer, pod):
            self._queue.add(pod.key)

    async def _ensure(self, model: Model, typed: InferenceModel, child: Manifest) -> str | None:
        if child["kind"] == DEPLOYMENTS.kind:
            changed = await self._ensure_pods(model, typed, child)
        else:
            changed = await self._applier.ensure(model, child)
        return f"applied {child['kind']} {child['metadata']['name']}" if changed else None

    async def _ensure_pods(self, model: Model, typed: InferenceModel, child: Manifest) -> bool:
        live = self._cache.deployment(model.key)
        owned = live is not None and live.owner_uid == model.uid
        await self._trials.check(typed, child, live.deployment if live and owned else None)
        try:
            return await self._applier.ensure(model, child)
        except RefusedError as refusal:
            if not typed.spec.template.spec:
                raise
            raise template_trials.explained(refusal, typed, child) from None

    async def _remove(self, model: Model, child: Child) -> str | None:
        if await self._applier.remove(model, child):
            return f"deleted {child.kind} {child.name}"
        return None

    async def _report(
        self,
        model: Model,
        typed: InferenceModel,
        plan: Plan,
        problems: list[OperatorError],
        hold: Hold | None,
        memory: _Memory,
    ) -> None:
        pods = self._cache.pods(model.key)
        await self._hangs.look(model.key, pods)
        await self._rehearsals.look(model.key)
        if any(
            askable(pod) and not pod.terminating and pod.uid not in self._cache.reports
            for pod in pods
        ):
            # A first answer is due within seconds, and reconciles again: nothing is judged before.
            return
        lost = addresses.conflict(self._cache, model)
        problems = problems if lost is None else [*problems, lost]
        seen = msgspec.structs.replace(
            self._observe(model, typed, plan.record, problems, hold), rollout=plan.status
        )
        after = assessment.assess(
            typed,
            seen,
            self._live(model),
            _now(),
            finalizers=", ".join(model.finalizers) if model.terminating else "",
            interceptor_port=self._settings.interceptor.port,
        )
        await self._write(model, after, memory)
        self._metrics.rollouts.show(model.key, after.model.rollout)
        self._tell(model.key, problems, memory)

    def _observe(
        self,
        model: Model,
        typed: InferenceModel,
        record: VersionsRecord,
        problems: Sequence[OperatorError] = (),
        hold: Hold | None = None,
    ) -> Observed:
        child = self._cache.deployment(model.key)
        owned = child if child is not None and child.owner_uid == model.uid else None
        deployment = owned.deployment if owned else None
        return Observed(
            pods=tuple(
                self._replica(pod, typed, deployment) for pod in self._cache.pods(model.key)
            ),
            wanted=_replicas(typed, deployment),
            record=record,
            deployment=deployment.status if deployment and deployment.is_fresh else None,
            problems=tuple(problems),
            hold=hold,
        )

    def _replica(self, pod: Pod, typed: InferenceModel, deployment: Deployment | None) -> Replica:
        return identity.replica(
            self._explained(pod),
            typed,
            self._cache.reports.get(pod.uid),
            current=deployment is not None and self._cache.is_current(pod, deployment),
        )

    def _explained(self, pod: Pod) -> Pod:
        """The pod with why it does not come up, where its own status does not say so: by its
        Events, or by the end of the one before it."""
        if pod.ready or pod.terminating or pod.trouble is not None:
            return pod
        trouble, message = self._hangs.trouble(pod)
        if trouble is None:
            end = disruptions.predecessor(pod, self._cache.pods(pod.key), _now())
            trouble, message = (None, "") if end is None else (Trouble.EVICTED, end)
        return msgspec.structs.replace(pod, trouble=trouble, message=message)

    async def _report_invalid(self, model: Model, memory: _Memory) -> None:
        if model.problem is None:
            return
        after = assessment.assess_invalid(
            model.problem, model.generation, self._live(model), _now()
        )
        await self._write(model, after, memory)
        self._tell(model.key, [model.problem], memory)

    def _assignable(self, model: Model, typed: InferenceModel) -> list[Pod]:
        """The pods that can be told what to serve: the kubelet brings nothing new into the files of
        one that drains."""
        return [
            pod
            for pod in self._cache.pods(model.key)
            if identity.has_source(pod, typed) and not pod.terminating
        ]

    def _live(self, model: Model) -> Status:
        newest = self._cache.model(model.key) or model
        return newest.live_status()

    async def _write(self, model: Model, after: Status, memory: _Memory) -> None:
        ready = after.condition(ConditionType.READY)
        memory.ready = ready.status if ready else "Unknown"
        if self._cache.model(model.key) is None:
            # It is another operator's by now, or gone.
            return
        before = self._live(model)
        if after == before or memory.taken == (after, before):
            return
        now = asyncio.get_running_loop().time()
        wait = memory.statuses.wait(now)
        if wait > 0:
            self._queue.add_after(model.key, wait)
            return
        memory.statuses.take(now)
        namespace, name = model.key
        wanted = {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            "metadata": {"namespace": namespace, "name": name},
            "status": after.to_object(),
        }
        try:
            answer = await self._cluster.apply(MODELS, wanted, uid=model.uid, subresource="status")
        except StatusRefusedError as refusal:
            # Of all things, the status can't tell this.
            if self._status_refusals.refused(model.key, refusal):
                await self._recorder.record(
                    model, events.Change("StatusRefused", str(refusal), warning=True)
                )
            raise
        self._status_refusals.forget(model.key)
        if self._cache.take_answer(MODELS, answer, model):
            self._queue.add(model.key)
        became = decode(answer.get("status") or {})
        memory.taken = None if became == after else (after, became)
        self._metrics.rollouts.changed(before.model.rollout, after.model.rollout, _now())
        for change in events.changes(before, after):
            logger.info("%s: %s", change.reason, change.note, extra=about(model.key))
            await self._recorder.record(model, change)

    def _tell(self, key: Key, problems: list[OperatorError], memory: _Memory) -> None:
        told = "; ".join(
            str(problem)
            for problem in problems
            if isinstance(problem, PermanentError) and not rights.is_missing(problem)
        )
        if told and told != memory.told:
            logger.error("%s", told, extra=about(key))
        memory.told = told


def _parted(
    wanted: Sequence[Manifest], kinds: Sequence[str]
) -> tuple[tuple[Manifest, ...], tuple[Manifest, ...]]:
    """The children of these kinds, and the others."""
    named = [child["kind"] in kinds for child in wanted]
    return (
        tuple(child for child, chosen in zip(wanted, named, strict=True) if chosen),
        tuple(child for child, chosen in zip(wanted, named, strict=True) if not chosen),
    )


async def _outcomes(
    work: Iterable[Awaitable[str | None]],
) -> tuple[list[str], list[OperatorError]]:
    """Do all of it at once: what was done, in words, and what stood in the way."""
    done: list[str] = []
    problems: list[OperatorError] = []
    for outcome in await asyncio.gather(*work, return_exceptions=True):
        if isinstance(outcome, str):
            done.append(outcome)
        elif isinstance(outcome, OperatorError):
            problems.append(outcome)
        elif isinstance(outcome, BaseException):
            raise outcome
    return done, problems


async def _lasting(work: Awaitable[object]) -> list[OperatorError]:
    """Do it; what somebody has to change before it can be done, for the status to tell."""
    try:
        await work
    except PermanentError as problem:
        return [problem]
    return []


def _replicas(model: InferenceModel, live: Deployment | None) -> int:
    """How many pods are wanted: by the spec, or else by whoever scales the Deployment."""
    if model.replicas is not None:
        return model.replicas
    return live.replicas if live else 1


def _by_the_clock(record: VersionsRecord, memory: _Memory) -> VersionsRecord:
    """The memories of a rollout, where the clock of this machine was set meanwhile."""
    by = memory.clock.set_by(_now(), asyncio.get_running_loop().time())
    if by:
        memory.soaking = clock.shifted_soaking(memory.soaking, by)
        memory.trying = clock.shifted_trying(memory.trying, by)
    return msgspec.structs.replace(record, rollout=memory.shift.applied(record.rollout, by))


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
