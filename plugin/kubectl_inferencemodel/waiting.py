"""Looking again and again: until something has arrived, never will, or the time is up."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.text import Text

from inferencemodel_operator import durations
from kubectl_inferencemodel import output
from kubectl_inferencemodel.arrival import Arrival, Goal, Outcome, look
from kubectl_inferencemodel.errors import NotFoundError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from kubectl_inferencemodel.cluster import Cluster
    from kubectl_inferencemodel.resource import InferenceModel

LOOK_SECONDS: Final = 0.5
"""The pause between two looks."""


class Follower:
    """Looks at the InferenceModel of one name: at the next one, when it is created anew."""

    def __init__(self, cluster: Cluster, name: str, goal: Goal) -> None:
        self._cluster = cluster
        self._name = name
        self._goal = goal
        self._uid: str | None = None

    def look(self) -> Arrival:
        """One look.

        Raises:
            NotFoundError: there was none from the beginning.
            ClusterError: the API server refuses.
        """
        try:
            model = self._cluster.model(self._name)
        except UnavailableError as error:
            # An API server that restarts is waited for like everything else.
            return Arrival(Outcome.WAITING, str(error), unavailable=True)
        except NotFoundError:
            if self._uid is None:
                raise
            return Arrival(Outcome.WAITING, f"{self._name} was deleted, and not created again yet")
        if self._uid not in (None, model.metadata.uid):
            output.tell(f"{self._name} was deleted and created again; the new one is waited for")
        self._uid = model.metadata.uid
        return look(model, self._goal)


class Effect:
    """Looks for what becomes of something that was written to an InferenceModel."""

    def __init__(
        self, cluster: Cluster, of: InferenceModel, judge: Callable[[InferenceModel], Arrival]
    ) -> None:
        self._cluster = cluster
        self._of = of
        self._judge = judge

    def look(self) -> Arrival:
        """One look.

        Raises:
            ClusterError: the API server refuses, or there is no such object any more.
        """
        try:
            model = self._cluster.model(self._of.metadata.name)
        except UnavailableError as error:
            return Arrival(Outcome.WAITING, str(error), unavailable=True)
        if model.metadata.uid != self._of.metadata.uid:
            return Arrival(Outcome.HOPELESS, "it was deleted and created again meanwhile")
        return self._judge(model)


def until(look: Callable[[], Arrival], timeout: float) -> Arrival:
    """Look until it has arrived, will not, or the time is up; progress goes to stderr."""
    console = Console(stderr=True)
    deadline = time.monotonic() + timeout
    before, failures = "", 0
    with console.status("asking the API server") as spinner:
        while True:
            arrival = look()
            failures = failures + 1 if arrival.unavailable else 0
            left = deadline - time.monotonic()
            if arrival.outcome is not Outcome.WAITING or left <= 0:
                return arrival
            spinner.update(
                Text(f"{output.line(arrival.message)} ({durations.text(round(left))} left)")
            )
            if not console.is_terminal and arrival.message != before:
                before = arrival.message
                output.tell(before)
            pause = LOOK_SECONDS * 2 ** min(failures, 4) * random.uniform(0.8, 1.2)  # noqa: S311
            time.sleep(min(pause, left))
