"""What can be done about a model now, with the command that does the same. Pure."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any, Final

import msgspec

from kubectl_inferencemodel import actions
from kubectl_inferencemodel.actions import Action
from kubectl_inferencemodel.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kubectl_inferencemodel.resource import InferenceModel

PAUSE, RESUME, PIN, UNPIN = "pause", "resume", "pin", "unpin"
_EFFECTS: Final[Mapping[Action, str]] = {
    Action.PROMOTE: "Version {version} goes on to the next step, whatever this one waits for.",
    Action.PROMOTE_FULL: "Version {version} goes to all replicas at once, without further steps.",
    Action.ABORT: "Version {version} is taken back from all replicas, and is not tried again.",
    Action.APPROVE: "Version {version} may break with the interface of the version before.",
    Action.RETRY: "Version {version} is tried again; it failed, or was aborted.",
}
_LABELS: Final[Mapping[Action, str]] = {
    Action.PROMOTE: "Promote {version}",
    Action.PROMOTE_FULL: "Promote {version} to all",
    Action.ABORT: "Abort {version}",
    Action.APPROVE: "Approve {version}",
    Action.RETRY: "Retry {version}",
}


class Offer(msgspec.Struct, frozen=True):
    """One thing that can be done."""

    key: str
    """Which one, such as ``promote --full``."""
    version: int | None
    """The version that it is about; None for those that are about none."""
    label: str
    effect: str
    """What it does, as a sentence."""
    change: dict[str, Any]
    """What is merged into the InferenceModel."""
    commands: tuple[str, ...]
    """The command lines that do the same: the plugin's where it has one, and kubectl's own."""
    warning: str = ""
    """What is to be known before."""
    takes_away: bool = False
    """Whether it takes back what is served."""


def offers(model: InferenceModel) -> list[Offer]:
    """What can be done about a model now."""
    return list(_offers(model))


def find(model: InferenceModel, key: str, version: int | None) -> Offer:
    """The offer of a name about a version.

    Raises:
        RefusedError: it can't be done any more; says why.
    """
    for offer in _offers(model):
        if (offer.key, offer.version) == (key, version):
            return offer
    if key in set(Action):
        actions.choose(model, Action(key), version)
    about = "" if version is None else f" about version {version}"
    raise RefusedError(f"{key}{about} is nothing that {model.metadata.name} takes now")


def _offers(model: InferenceModel) -> Iterator[Offer]:
    yield from _rollout(model)
    for failed in model.status.model.quarantined:
        if (found := _action(model, Action.RETRY, failed.version)) is not None:
            yield found
    yield _pause(model)
    yield from _pins(model)


def _rollout(model: InferenceModel) -> Iterator[Offer]:
    running = model.running
    if running is None:
        return
    for action in (Action.PROMOTE, Action.PROMOTE_FULL, Action.ABORT, Action.APPROVE):
        if action is Action.APPROVE and not _breaks(model):
            continue
        if (found := _action(model, action, running.version)) is not None:
            yield found


def _breaks(model: InferenceModel) -> bool:
    running = model.running
    return running is not None and any(
        check.name == "signature" and check.result != "Passed" for check in running.checks
    )


def _action(model: InferenceModel, action: Action, version: int) -> Offer | None:
    try:
        asked = actions.choose(model, action, version)
    except RefusedError:
        return None
    annotation = f"{actions.ANNOTATIONS[action]}={asked.version}"
    return Offer(
        key=str(action),
        version=asked.version,
        label=_LABELS[action].format(version=asked.version),
        effect=_EFFECTS[action].format(version=asked.version),
        change=asked.change,
        commands=(
            _line("inferencemodel", *action.split(), model, f"--version={asked.version}"),
            _line("annotate", "inferencemodel", model, annotation, "--overwrite"),
        ),
        takes_away=action is Action.ABORT,
    )


def _pause(model: InferenceModel) -> Offer:
    paused = model.spec.rollout.paused
    change = actions.pausing(paused=not paused)
    manager = actions.declared_by(model)
    key = RESUME if paused else PAUSE
    return Offer(
        key=key,
        version=None,
        label="Resume rollouts" if paused else "Pause rollouts",
        effect=f"Rollouts of {model.metadata.name} {'go on again' if paused else 'stand still'}.",
        change=change,
        commands=(_line("inferencemodel", key, model), _patch(model, change)),
        warning=_managed("spec.rollout.paused", manager),
    )


def _pins(model: InferenceModel) -> Iterator[Offer]:
    of, pinned = model.status.model, model.spec.model.version
    warning = _managed("spec.model.version", actions.pinned_by(model))
    if pinned is not None:
        change = actions.pinning(None)
        yield Offer(
            key=UNPIN,
            version=None,
            label=f"Unpin {pinned}",
            effect="The newest complete version in the store is served again, now and from now on.",
            change=change,
            commands=(_patch(model, change),),
            warning=warning,
        )
    for known in of.versions:
        if known.version == pinned or known.state in ("Quarantined", "Incomplete"):
            continue
        change = actions.pinning(known.version)
        yield Offer(
            key=PIN,
            version=known.version,
            label=f"Pin {known.version}",
            effect=f"Version {known.version} is served on all replicas, and newer ones are not.",
            change=change,
            commands=(_patch(model, change),),
            warning=warning,
            takes_away=of.active_version not in (None, known.version),
        )


def _managed(field: str, manager: str | None) -> str:
    return f"{field} is managed by {manager}, which may set it back." if manager else ""


def _patch(model: InferenceModel, change: Mapping[str, Any]) -> str:
    merged = json.dumps(change, separators=(",", ":"))
    return _line("patch", "inferencemodel", model, "--type=merge", f"--patch={merged}")


def _line(*parts: str | InferenceModel) -> str:
    """A command line of kubectl; a model stands for its name and namespace."""
    words = ["kubectl"]
    for part in parts:
        if isinstance(part, str):
            words.append(part)
        else:
            words += [part.metadata.name, f"--namespace={part.metadata.namespace}"]
    return shlex.join(words)
