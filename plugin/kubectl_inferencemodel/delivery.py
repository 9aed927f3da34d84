"""The commands about rollouts: to look at one, to wait for it, and to act on it."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from inferencemodel_operator import durations
from kubectl_inferencemodel import actions, output
from kubectl_inferencemodel.actions import Action
from kubectl_inferencemodel.arguments import (
    MAX_VERSION,
    As,
    Context,
    Kubeconfig,
    Name,
    Namespace,
    Output,
    Timeout,
    Until,
)
from kubectl_inferencemodel.arrival import Arrival, Goal, Outcome
from kubectl_inferencemodel.cluster import Cluster
from kubectl_inferencemodel.errors import ClusterError, ConflictError
from kubectl_inferencemodel.explanation import standing
from kubectl_inferencemodel.picture import Reports, picture
from kubectl_inferencemodel.rollout_display import Watching, show
from kubectl_inferencemodel.waiting import Effect, Follower, until

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kubectl_inferencemodel.actions import Asked
    from kubectl_inferencemodel.resource import InferenceModel

_TRIES: Final = 8
"""So often a resource may have been changed between reading and writing it."""
_GRACE_SECONDS: Final = 5.0
"""After the operator has taken an action, it shows in the status by then, or not at all."""
_SKEW: Final = timedelta(seconds=30)
"""By how much the clocks of this machine and the cluster may differ."""

Version = Annotated[
    int | None,
    typer.Option(min=0, max=MAX_VERSION, help="Refuse, if it is another version by now."),
]
NoWait = Annotated[
    bool, typer.Option("--no-wait", help="Don't wait until the operator has taken it.")
]


def rollout(
    name: Name,
    *,
    watch: Annotated[
        bool,
        typer.Option("--watch", "-w", help="Until the rollout has ended; the next one, if none."),
    ] = False,
    output_: As = Output.TABLE,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """The rollout of NAME: steps, replicas, checks, and what it waits for.

    Ends with 0 when the last rollout is completed or there was none, with 3 while one is in
    progress, and with 4 when the version was taken back or superseded.
    """
    cluster = Cluster(kubeconfig, context, namespace)
    reports = Reports(cluster)
    if watch:
        found = Watching(cluster, reports, name).run(as_json=output_ is Output.JSON)
    else:
        model, pods = cluster.model(name), cluster.all_pods(name)
        found = picture(model, pods, reports.of(pods, model.status.model.target_version))
        show(found, as_json=output_ is Output.JSON)
    raise typer.Exit(found.outcome)


def wait(
    name: Name,
    *,
    version: Annotated[
        int | None,
        typer.Option(min=0, max=MAX_VERSION, help="The version; without it, whatever is wanted."),
    ] = None,
    until_: Until = None,
    timeout: Timeout = "5m",  # type: ignore[assignment]  # typer parses a default like what is typed
    output_: As = Output.TABLE,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Wait until every replica answers with a version, or until a step of its rollout is reached.

    Ends with 0 when it does, with 3 when the time is up, and with 4 as soon as it is known that
    waiting does not help: the version is taken back or quarantined, another one is pinned, or a
    newer one came.
    """
    cluster = Cluster(kubeconfig, context, namespace)
    arrival = until(Follower(cluster, name, Goal(version, until_)).look, timeout)
    told = {"name": name, "version": version, **({"step": until_} if until_ else {})}
    finish(arrival, told, output_=output_, timeout=timeout)


def promote(
    name: Name,
    *,
    full: Annotated[
        bool, typer.Option("--full", help="To all replicas at once, without further steps.")
    ] = False,
    version: Version = None,
    no_wait: NoWait = False,
    timeout: Timeout = "30s",  # type: ignore[assignment]  # typer parses a default like what is typed
    output_: As = Output.TABLE,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Have the version that is being rolled out go on to the next step."""
    action = Action.PROMOTE_FULL if full else Action.PROMOTE
    _act(Cluster(kubeconfig, context, namespace), name, action, version, no_wait, timeout, output_)


def abort(
    name: Name,
    *,
    version: Version = None,
    no_wait: NoWait = False,
    timeout: Timeout = "30s",  # type: ignore[assignment]
    output_: As = Output.TABLE,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Take the version that is being rolled out back, and don't try it again."""
    cluster = Cluster(kubeconfig, context, namespace)
    _act(cluster, name, Action.ABORT, version, no_wait, timeout, output_)


def retry(
    name: Name,
    *,
    version: Annotated[
        int | None,
        typer.Option(min=0, max=MAX_VERSION, help="Default: the newest quarantined one."),
    ] = None,
    no_wait: NoWait = False,
    timeout: Timeout = "30s",  # type: ignore[assignment]
    output_: As = Output.TABLE,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Try a version again that failed or was aborted."""
    cluster = Cluster(kubeconfig, context, namespace)
    _act(cluster, name, Action.RETRY, version, no_wait, timeout, output_)


def approve(
    name: Name,
    *,
    version: Version = None,
    no_wait: NoWait = False,
    timeout: Timeout = "30s",  # type: ignore[assignment]
    output_: As = Output.TABLE,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Have a version go on whose interface breaks with the one before, as that is meant."""
    cluster = Cluster(kubeconfig, context, namespace)
    _act(cluster, name, Action.APPROVE, version, no_wait, timeout, output_)


def pause(
    name: Name,
    *,
    no_wait: NoWait = False,
    timeout: Timeout = "30s",  # type: ignore[assignment]
    output_: As = Output.TABLE,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Have rollouts of NAME stand still where they are (spec.rollout.paused)."""
    _pause(Cluster(kubeconfig, context, namespace), name, no_wait, timeout, output_, paused=True)


def resume(
    name: Name,
    *,
    no_wait: NoWait = False,
    timeout: Timeout = "30s",  # type: ignore[assignment]
    output_: As = Output.TABLE,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Have rollouts of NAME go on again."""
    _pause(Cluster(kubeconfig, context, namespace), name, no_wait, timeout, output_, paused=False)


def _act(
    cluster: Cluster,
    name: str,
    action: Action,
    version: int | None,
    no_wait: bool,
    timeout: float,
    output_: Output,
) -> None:
    begun = datetime.now(UTC)
    model = cluster.model(name)
    asked = actions.choose(model, action, version)
    model = written(cluster, model, asked)
    told = {"name": name, "action": str(action), "version": asked.version}
    if no_wait:
        arrival = Arrival(Outcome.ARRIVED, f"asked for: {action}, version {asked.version}")
    else:
        judge = Judge(cluster, model, asked, begun)
        arrival = until(Effect(cluster, model, judge).look, timeout)
    finish(arrival, told, output_=output_, timeout=timeout)


def written(cluster: Cluster, model: InferenceModel, asked: Asked) -> InferenceModel:
    """Write an action; returns the InferenceModel as it was before it.

    Raises:
        RefusedError: meanwhile there is nothing any more to act on.
        ConflictError: others change the resource all the time.
    """
    # The version stays the one that whoever asks has seen.
    before, _ = changed(
        model,
        lambda now: actions.choose(now, asked.action, asked.version).change,
        cluster.patch,
        lambda: cluster.model(model.metadata.name),
    )
    return before


def changed(
    model: InferenceModel,
    change: Callable[[InferenceModel], Mapping[str, Any] | None],
    write: Callable[[InferenceModel, Mapping[str, Any]], InferenceModel],
    read: Callable[[], InferenceModel],
) -> tuple[InferenceModel, InferenceModel]:
    """Change an InferenceModel, beginning anew where somebody else was faster.

    Args:
        model: as it was read.
        change: what is to be merged into it; None where it is so already.
        write: merges.
        read: reads it again.

    Returns:
        As it was before, and as it is now.

    Raises:
        ConflictError: others change it all the time.
    """
    for left in range(_TRIES, 0, -1):
        wanted = change(model)
        if wanted is None:
            break
        try:
            return model, write(model, wanted)
        except ConflictError:
            if left == 1:
                raise
            # What has changed is the operator's status, mostly.
            model = read()
    return model, model


class Judge:
    """What becomes of an action; one that the operator dropped is told by an Event."""

    def __init__(
        self, cluster: Cluster, before: InferenceModel, asked: Asked, begun: datetime
    ) -> None:
        self._cluster = cluster
        self._before = before
        self._asked = asked
        self._begun = begun
        self._taken: float | None = None

    def __call__(self, now: InferenceModel) -> Arrival:
        """What has become of it by now."""
        arrival = actions.became(self._asked, self._before, now)
        if arrival.message != actions.TAKEN:
            return arrival
        if self._taken is None:
            self._taken = time.monotonic()
        if dropped := self._dropped(now):
            return Arrival(Outcome.HOPELESS, f"the operator did not act on it: {dropped}")
        if time.monotonic() < self._taken + _GRACE_SECONDS:
            return arrival
        hint = ""
        if now.spec.rollout.paused:
            hint = f"; rollouts stand still until kubectl inferencemodel resume {now.metadata.name}"
        elif now.running is not None:
            # It may wait for another word than this one.
            hint = f"; {standing(now)}"
        return Arrival(Outcome.ARRIVED, f"{actions.TAKEN}{hint}")

    def _dropped(self, now: InferenceModel) -> str:
        try:
            events = self._cluster.events(now)
        except ClusterError:
            # Not everybody may read Events; the action is written all the same.
            return ""
        return actions.dropped(self._asked, events, since=self._begun - _SKEW)


def _pause(
    cluster: Cluster, name: str, no_wait: bool, timeout: float, output_: Output, *, paused: bool
) -> None:
    change = actions.pausing(paused=paused)
    before, model = changed(
        cluster.model(name),
        lambda now: None if now.spec.rollout.paused == paused else change,
        cluster.patch,
        lambda: cluster.model(name),
    )
    if before.spec.rollout.paused != paused and (manager := actions.declared_by(before)):
        output.tell(
            f"spec.rollout.paused is managed by {manager}, which may set it back:"
            " change it there, too"
        )
    told = {"name": name, "paused": paused}
    if no_wait:
        arrival = Arrival(Outcome.ARRIVED, f"spec.rollout.paused is {str(paused).lower()}")
    else:
        judge = lambda now: actions.stands(now, paused=paused)  # noqa: E731
        arrival = until(Effect(cluster, model, judge).look, timeout)
    finish(arrival, told, output_=output_, timeout=timeout)


def finish(
    arrival: Arrival, told: Mapping[str, object], *, output_: Output, timeout: float
) -> None:
    """Tell how a wait ended, and end the command with its exit code.

    Args:
        arrival: how it ended.
        told: what was waited for, for programs.
        output_: whether a program reads it.
        timeout: seconds that were waited for at most.
    """
    if output_ is Output.JSON:
        outcome = arrival.outcome.name.capitalize()
        output.show_json({**told, "outcome": outcome, "message": arrival.message})
    elif arrival.outcome is Outcome.ARRIVED:
        output.write(output.line(arrival.message) + "\n")
    else:
        start = (
            f"not within {durations.text(timeout)}" if arrival.outcome is Outcome.WAITING else "no"
        )
        output.tell(f"{start}: {arrival.message} (kubectl inferencemodel why {told['name']})")
    raise typer.Exit(arrival.outcome)
