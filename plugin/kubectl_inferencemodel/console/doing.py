"""Actions: asked for, asked once more, done with the user's rights, and what became of them."""

from __future__ import annotations

import secrets
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import msgspec

from kubectl_inferencemodel import actions, delivery
from kubectl_inferencemodel.actions import Action, Asked
from kubectl_inferencemodel.arrival import Arrival, Outcome
from kubectl_inferencemodel.console import offers
from kubectl_inferencemodel.errors import RefusedError
from kubectl_inferencemodel.waiting import Effect

if TYPE_CHECKING:
    from collections.abc import Callable

    from kubectl_inferencemodel.cluster import Cluster
    from kubectl_inferencemodel.console.offers import Offer
    from kubectl_inferencemodel.resource import InferenceModel

_VALID_SECONDS: Final = 120.0
"""So long after the first question the second one may be answered."""
_OPEN: Final = 100
"""So many actions may wait for their second question."""
_LOOK_SECONDS: Final = 0.3
_WAIT_SECONDS: Final = 8.0
"""So long an action is followed; what comes later, the page shows."""


class Pending(msgspec.Struct, frozen=True):
    """An action that was asked for once."""

    namespace: str
    name: str
    uid: str
    key: str
    version: int | None
    until: float
    """By the monotonic clock."""


class Confirmations:
    """The actions that wait to be asked for once more, each for one use and some time."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._pending: dict[str, Pending] = {}
        self._lock = threading.Lock()

    def add(self, model: InferenceModel, offer: Offer) -> str:
        """Remember an action; returns the word by which it is confirmed."""
        word = secrets.token_urlsafe(18)
        of = model.metadata
        until = self._clock() + _VALID_SECONDS
        with self._lock:
            while len(self._pending) >= _OPEN:
                del self._pending[next(iter(self._pending))]
            self._pending[word] = Pending(
                of.namespace, of.name, of.uid, offer.key, offer.version, until
            )
        return word

    def take(self, word: str, namespace: str, name: str) -> Pending:
        """The action that is confirmed; nobody gets it again.

        Raises:
            RefusedError: there is none, or it is about another model.
        """
        with self._lock:
            found = self._pending.pop(word, None)
        if found is None or found.until < self._clock():
            raise RefusedError("this was not asked for, or too long ago: begin again")
        if (found.namespace, found.name) != (namespace, name):
            raise RefusedError("this was asked for about another model: begin again")
        return found


def do(cluster: Cluster, asked: Pending) -> Arrival:
    """Write an action, and follow it for some seconds.

    Raises:
        RefusedError: meanwhile it can't be done any more.
        ClusterError: the API server refuses.
    """
    begun = datetime.now(UTC)
    model = _same(cluster, asked)
    offer = offers.find(model, asked.key, asked.version)
    if offer.key in set(Action) and offer.version is not None:
        action = Asked(Action(offer.key), offer.version)
        before = delivery.written(cluster, model, action)
        return _followed(cluster, model, delivery.Judge(cluster, before, action, begun))
    model, _ = delivery.changed(
        model,
        lambda now: offers.find(now, asked.key, asked.version).change,
        cluster.patch,
        lambda: _same(cluster, asked),
    )
    if offer.key in (offers.PAUSE, offers.RESUME):
        paused = offer.key == offers.PAUSE
        return _followed(cluster, model, lambda now: actions.stands(now, paused=paused))
    return _followed(cluster, model, _judged)


def _same(cluster: Cluster, asked: Pending) -> InferenceModel:
    model = cluster.model(asked.name)
    if model.metadata.uid != asked.uid:
        raise RefusedError(
            f"{asked.name} was deleted and created again meanwhile: look at it first"
        )
    return model


def _judged(now: InferenceModel) -> Arrival:
    if not now.judged:
        return Arrival(Outcome.WAITING, "it is written; the operator has not looked at it yet")
    of = now.status.model
    return Arrival(Outcome.ARRIVED, f"version {of.target_version} is wanted on all replicas now")


def _followed(
    cluster: Cluster, model: InferenceModel, judge: Callable[[InferenceModel], Arrival]
) -> Arrival:
    effect = Effect(cluster, model, judge)
    deadline = time.monotonic() + _WAIT_SECONDS
    while True:
        arrival = effect.look()
        if arrival.outcome is not Outcome.WAITING or time.monotonic() > deadline:
            return arrival
        time.sleep(_LOOK_SECONDS)
