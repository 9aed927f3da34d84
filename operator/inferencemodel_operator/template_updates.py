"""Gives InferenceModels their turn to get a pod template that the operator changed by itself.

Who has had a turn is written on the Deployments, and so is the template of those that wait: an
operator that starts, or takes over, goes on where the last one was.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final

import msgspec

from inferencemodel_operator import drift, managed_fields, waves
from inferencemodel_operator.children import deployment as deployments
from inferencemodel_operator.cluster import DEPLOYMENTS
from inferencemodel_operator.errors import NamespaceTerminatingError, RefusedError
from inferencemodel_operator.logs import about
from inferencemodel_operator.observe import objects
from inferencemodel_operator.waves import SETTLED, UNWATCHED, WATCHED, Change, Hold, Standing

if TYPE_CHECKING:
    from collections.abc import Iterable

    from inferencemodel_operator.cache import Cache
    from inferencemodel_operator.children.manifest import Manifest
    from inferencemodel_operator.cluster import Cluster
    from inferencemodel_operator.errors import OperatorError
    from inferencemodel_operator.metrics import Metrics
    from inferencemodel_operator.observe.objects import Child, Deployment, Key, Model, Pod
    from inferencemodel_operator.queue import WorkQueue
    from inferencemodel_operator.values import Share

logger = logging.getLogger(__name__)

_GOING: Final = Standing(waits=True, moves=True)
_REFUSED: Final = Standing(waits=True, moves=True, failed=True)


class _Move(msgspec.Struct):
    """How far one is that moves."""

    ready: int
    """The most pods of the new template that were ready at a time."""
    since: float
    """When they became so many, by the clock of this process."""


class TemplateUpdates:
    """Knows how every InferenceModel stands to the newest template, and whose turn it is."""

    def __init__(
        self, cluster: Cluster, cache: Cache, queue: WorkQueue[Key], limit: Share, metrics: Metrics
    ) -> None:
        """Begin with nobody.

        Args:
            cluster: where a Deployment is read with its field managers, which the cache leaves out.
            cache: all InferenceModels and their Deployments.
            queue: gets those whose turn has come.
            limit: how many may restart their pods at a time.
            metrics: tell how many wait.
        """
        self._cluster = cluster
        self._cache = cache
        self._queue = queue
        self._limit = limit
        self._metrics = metrics
        self._standings: dict[Key, Standing] = {}
        """Without those that neither wait nor move."""
        self._moves: dict[Key, _Move] = {}
        """Of those that move."""
        self._refused: dict[Key, str] = {}
        """Hashes of templates that the API server did not take."""
        self._unknown: set[Key] | None = None
        """Those that were not looked at since the start: nobody's turn comes before."""
        self._stopped_by: Key | None = None
        self._count()

    async def arrange(
        self, model: Model, wanted: tuple[Manifest, ...]
    ) -> tuple[tuple[Manifest, ...], Hold | None]:
        """What is to be applied now: the template that the pods have, where another has to wait.

        Returns:
            The children, and why their template isn't the newest; None when it is.

        Raises:
            OperatorError: the Deployment can't be read.
        """
        self._begin()
        newest = next(child for child in wanted if child["kind"] == DEPLOYMENTS.kind)
        chosen, hold = await self._choose(model, newest)
        return tuple(chosen if child is newest else child for child in wanted), hold

    def settle(
        self, key: Key, wanted: Iterable[Manifest], problems: Iterable[OperatorError]
    ) -> None:
        """Take in what stood in the way of applying what `arrange` gave.

        A template that the API server doesn't take is a failure as well as one that doesn't run.
        """
        problems = tuple(problems)
        if any(isinstance(p, NamespaceTerminatingError) for p in problems):
            self.forget(key)
        elif not any(isinstance(p, RefusedError) and p.kind == DEPLOYMENTS.kind for p in problems):
            self._refused.pop(key, None)
        elif self._standings.get(key, SETTLED) == _GOING:
            newest = next(child for child in wanted if child["kind"] == DEPLOYMENTS.kind)
            self._refused[key] = deployments.template_hash(newest)
            self._put(key, _REFUSED)

    def forget(self, key: Key) -> None:
        """An InferenceModel that is gone, suspended or not understood keeps nobody waiting."""
        self._begin()
        self._refused.pop(key, None)
        self._put(key, SETTLED)

    def look(self, key: Key) -> None:
        """Take in that an InferenceModel was looked at, whatever came of it."""
        if self._unknown and key in self._unknown:
            self._unknown.discard(key)
            if not self._unknown:
                self._advance()

    async def _choose(self, model: Model, newest: Manifest) -> tuple[Manifest, Hold | None]:
        found = self._live(model)
        if found is None or found.deployment is None:
            self._put(model.key, SETTLED)
            return newest, None
        live = found.deployment
        match waves.change(live, newest):
            case Change.NONE:
                self._follow(model.key, live)
                return deployments.mark(newest, live.template_update), None
            case Change.FREE:
                self._put(model.key, SETTLED)
                return newest, None
            case Change.OWN:
                before = await self._template(found, newest)
        if before is None or (not live.template_hash and before == newest["spec"]["template"]):
            # Gone meanwhile; or by a release that wrote no hashes, and as it is to be.
            self._put(model.key, SETTLED)
            return newest, None
        return self._take_turns(model.key, live, newest, before)

    def _follow(self, key: Key, live: Deployment) -> None:
        """Take in how far one is that has been given the newest template.

        One that is there has nothing more to do with it: any other write to its Deployment, of an
        annotation even, makes the status one of an older generation for a moment.
        """
        before = self._standings.get(key, SETTLED)
        standing = SETTLED
        if before.moves:
            # What was refused was another template.
            failed = before.failed and not before.waits
            pods = self._pods(key, live)
            standing = waves.standing(live, pods, failed=failed)
            if standing.moves and not standing.failed and self._is_overdue(key, pods):
                standing = waves.overdue(live)
        self._put(key, standing)
        if before.moves and standing == SETTLED and waves.rolled_out(live):
            logger.info(
                "the pods have the operator's newest template; %s",
                self._summary(),
                extra=about(key),
            )

    def _is_overdue(self, key: Key, pods: Iterable[Pod]) -> bool:
        """Whether one that moves has shown nothing of it for too long."""
        now, ready = time.monotonic(), sum(pod.ready for pod in pods)
        move = self._moves.setdefault(key, _Move(ready, now))
        if ready > move.ready:
            move.ready, move.since = ready, now
        left = move.since + waves.PATIENCE - now
        if left > 0:
            self._queue.add_after(key, left)
        return left <= 0

    def _take_turns(
        self, key: Key, live: Deployment, newest: Manifest, before: Manifest
    ) -> tuple[Manifest, Hold | None]:
        pods = self._pods(key, live)
        moves = waves.standing(live, pods).moves
        refused = self._refused.get(key) == deployments.template_hash(newest)
        self._put(key, _REFUSED if refused else Standing(waits=True, moves=moves))
        if not self._may_go(key):
            hold = Hold.WAITING if self._stopped_by is None else Hold.STOPPED
            return deployments.hold(newest, before, live), hold
        if not refused:
            self._put(key, _GOING)
            logger.info(
                "the pods get the operator's newest template; %s", self._summary(), extra=about(key)
            )
        ill = not moves and waves.failing(live, pods)
        return deployments.mark(newest, UNWATCHED if ill else WATCHED), None

    async def _template(self, live: Child, newest: Manifest) -> Manifest | None:
        """The template that the operator has applied; None when the Deployment is gone."""
        held = deployments.held_template(live.content_object())
        if held is not None:
            return held
        obj = await self._cluster.get(DEPLOYMENTS, live.namespace, live.name)
        if obj is None or obj["metadata"]["uid"] != live.uid:
            return None
        whole: Manifest = obj["spec"]["template"]
        part = managed_fields.applied(obj, "spec", "template")
        template = {"kind": live.kind, "spec": {"template": newest["spec"]["template"]}}
        # Where somebody has edited it, what the operator applied is no longer all there: it waits
        # as it is, and gets well with the newest.
        edited = not isinstance(part, dict) or drift.taken(objects.foreign(obj), template)
        return whole if edited else part

    def _pods(self, key: Key, live: Deployment) -> list[Pod]:
        """Those of the present template."""
        return [pod for pod in self._cache.pods(key) if self._cache.is_current(pod, live)]

    def _live(self, model: Model) -> Child | None:
        found = self._cache.deployment(model.key)
        ours = found is not None and found.owner_uid == model.uid and not found.terminating
        return found if ours else None

    def _begin(self) -> None:
        """Find out who moves already, before the first is given a turn."""
        if self._unknown is not None:
            return
        models = list(self._cache.models())
        self._unknown = {model.key for model in models}
        for model in models:
            found = self._live(model)
            if found is not None and found.deployment is not None:
                pods = self._pods(model.key, found.deployment)
                failed = waves.failing(found.deployment, pods)
                self._put(model.key, waves.standing(found.deployment, pods, failed=failed))

    def _may_go(self, key: Key) -> bool:
        return not self._unknown and key in self._plan()

    def _plan(self) -> frozenset[Key]:
        whole = sum(1 for _ in self._cache.models()) if self._limit.percent else 0
        return waves.plan(self._standings, self._limit.of(whole))

    def _put(self, key: Key, standing: Standing) -> None:
        before = self._standings.pop(key, SETTLED)
        if standing != SETTLED:
            self._standings[key] = standing
        if not standing.moves or standing.waits:
            self._moves.pop(key, None)
        if standing == before:
            return
        if not self._unknown:
            self._advance()

    def _advance(self) -> None:
        """Have those looked at whose turn has come; all that wait when it stops or goes on."""
        stopped_by = waves.stopped_by(self._standings)
        wake = {key for key in self._plan() if not self._standings[key].moves}
        if (stopped_by is None) != (self._stopped_by is None):
            wake = {key for key, standing in self._standings.items() if standing.waits}
        if stopped_by != self._stopped_by:
            self._stopped_by = stopped_by
            if stopped_by is None:
                logger.info("the update of pod templates goes on; %s", self._summary())
            else:
                logger.error(
                    "the update of pod templates stops, as the pods don't come up with the newest; "
                    "it goes on when this InferenceModel is repaired, suspended or deleted; %s",
                    self._summary(),
                    extra=about(stopped_by),
                )
        self._count()
        for key in sorted(wake):
            self._queue.add(key)

    def _count(self) -> None:
        for state, count in self._counts().items():
            self._metrics.template_updates.labels(state).set(count)

    def _counts(self) -> dict[str, int]:
        standings = self._standings.values()
        return {
            "pending": sum(s.waits and not s.moves for s in standings),
            "active": sum(s.moves and not s.failed for s in standings),
            "failed": sum(s.failed for s in standings),
        }

    def _summary(self) -> str:
        return ", ".join(f"{count} {state}" for state, count in self._counts().items())
