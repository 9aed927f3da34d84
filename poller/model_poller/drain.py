"""How a pod leaves its Services before its model server loads another version; pure.

While it loads, a server answers more slowly, and so does whatever shares its cores. So where the
operator asks for it, the pod's own readiness probe fails first (``GET /drainz``), the version is
published once nobody's requests come any more, and the pod is back when it answers. It is decided
here, so that no pod stays out because an operator is gone.

Where the version comes with golden requests, and a rollout asks for them, the pod is out until they
were answered well: nobody else gets the answers of a version that fails them, also while it is
taken back.

What goes back to a lower number is urgent, and doesn't wait.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from model_poller.actions import Publish
from model_poller.planner import is_withheld
from model_poller.status import CheckResult

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from model_poller.actions import Action
    from model_poller.live import Scrape
    from model_poller.planner import Observed
    from model_poller.status import GoldenStatus

LEAST_SECONDS: Final = 10.0
"""From the first failed probe until no new request should come: five probes a second apart, as the
operator's pod template has it, one more that was just under way, and what EndpointSlices, proxies
and Ingress controllers take."""
QUIET_SECONDS: Final = 2.0
"""Without a request for so long, nobody has a connection in use any more."""
MOST_SECONDS: Final = 27.0
"""Clients keep gRPC connections for up to 16.5 s, by the operator's flags of the model server."""
LIMIT_SECONDS: Final = 300.0
"""After that the pod is back whatever the load has come to: what answered still does. Counted anew
for golden requests."""
LOOK_SECONDS: Final = 1.0
"""How often requests are counted meanwhile."""


@dataclass(frozen=True, slots=True)
class Drain:
    """A change that the pod is out for. Moments are monotonic seconds."""

    target: int
    since: float
    counted: int | None = None
    """Requests since the server's start, as last heard; None: nothing was heard yet."""
    heard: float = 0.0
    moved: float = 0.0
    """When the number was last another one."""
    is_on: bool = False
    """The version answers, and its golden requests are not known to be answered well."""

    def is_out(self, now: float) -> bool:
        """Whether the pod keeps itself out of its Services."""
        return now - self.since < LIMIT_SECONDS

    def is_through(self, now: float) -> bool:
        """Whether no requests are to be expected any more."""
        is_quiet = self.counted is not None and self.heard - self.moved >= QUIET_SECONDS
        return now - self.since >= (LEAST_SECONDS if is_quiet else MOST_SECONDS)


def after(
    before: Drain | None,
    seen: Observed,
    target: int | None,
    scrape: Scrape | None,
    golden: Mapping[int, GoldenStatus] | None = None,
) -> Drain | None:
    """The change after a look at what is; None where there is none to be out for.

    ``golden`` is what came of versions' golden requests; None: nobody sends any.
    """
    if before is not None and target is not None:
        unproven = _unproven(before, seen, target, golden)
        if unproven is not None:
            return unproven
    task, answering = seen.assignment.rollout, seen.answering
    if (
        task is None
        or not task.drain
        or target is None
        or target not in seen.disk.complete
        or is_withheld(seen, target)
        or answering is None
        or answering >= target
    ):
        # Also where the version answers, failed, or is called off, and where nothing answers.
        return None
    drain = before if before and before.target == target else Drain(target, seen.now)
    if scrape is None or scrape.begun <= max(drain.since, drain.heard):
        return drain
    counted = scrape.figures.good + scrape.figures.bad
    moved = drain.moved if counted == drain.counted else scrape.begun
    return replace(drain, counted=counted, heard=scrape.begun, moved=moved)


def _unproven(
    before: Drain, seen: Observed, target: int, golden: Mapping[int, GoldenStatus] | None
) -> Drain | None:
    """The change that is at its end but for golden requests; None where it isn't."""
    if seen.answering is None:
        # Perhaps the server went away over one of them.
        return before if before.is_on else None
    if seen.answering != before.target:
        return None
    if target != before.target:
        # It is taken back, or the next one is here.
        return before if before.is_on and target < before.target else None
    task = seen.assignment.rollout
    if golden is None or task is None or not (task.drain and task.golden):
        return None
    found = golden.get(target) if task.version == target else None
    if task.version != target or (found and found.result is not CheckResult.FAILED):
        return None
    return before if before.is_on else replace(before, is_on=True, since=seen.now)


def hold(drain: Drain | None, seen: Observed, actions: Sequence[Action]) -> list[Action]:
    """The actions, without what gives the server another version to load too early."""
    if drain is None or drain.is_on or drain.is_through(seen.now):
        return list(actions)
    return [a for a in actions if not isinstance(a, Publish) or seen.available(a.version)]
