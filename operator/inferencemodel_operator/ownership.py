"""Whose a child is, and what a person can do about one that is somebody else's."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from inferencemodel_operator import bounds, names
from inferencemodel_operator.errors import (
    Claim,
    NameConflictError,
    NameConflictsError,
    OperatorError,
    TransientError,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inferencemodel_operator.observe.objects import Child, Model


def check(owner: Model, live: Child, wanted_hash: str) -> None:
    """Make sure that a child may be written.

    A child whose owner reference somebody has removed or edited is still the InferenceModel's
    while it carries the hash of what is wanted, for the owner's uid is in that.

    Raises:
        NameConflictError: it belongs to somebody else.
        TransientError: it is going away, or what owned it is.
    """
    whole_name = f"{live.namespace}/{live.name}"
    if not _is_own(owner, live, wanted_hash):
        if live.owner_uid is not None and live.key == owner.key:
            raise TransientError(
                f"{live.kind} {whole_name} belongs to an InferenceModel of this name that was "
                "deleted; waiting for the garbage collector to remove it"
            )
        claim = Claim(*owner.key, owner.uid) if _is_orphan(owner, live) else None
        raise NameConflictError(live.kind, whole_name, claim=claim)
    if live.terminating:
        raise TransientError(
            f"{live.kind} {whole_name} is being deleted; it is created anew when it is gone"
            f"{_finalizers(live)}"
        )


def merge(problems: Sequence[OperatorError]) -> list[OperatorError]:
    """The same problems, with one for all name conflicts."""
    conflicts = [problem for problem in problems if isinstance(problem, NameConflictError)]
    if not conflicts:
        return list(problems)
    others = [problem for problem in problems if not isinstance(problem, NameConflictError)]
    return [NameConflictsError(_message(conflicts)), *others]


def _message(conflicts: Sequence[NameConflictError]) -> str:
    """What is in the way, and what to do about it, within the bounds of a condition's message."""
    others = [conflict for conflict in conflicts if conflict.claim is None]
    told = _others(others) if others else ""
    orphans = [conflict for conflict in conflicts if conflict.claim is not None]
    claim = orphans[0].claim if orphans else None
    if claim is None:
        return told
    before = f"{told}; " if told else ""
    return before + _orphans(claim, orphans, room=bounds.MESSAGE - len(before.encode()))


def _others(conflicts: Sequence[NameConflictError]) -> str:
    if len(conflicts) == 1:
        return str(conflicts[0])
    return (
        f"{_listing(conflicts)} exist and do not belong to this InferenceModel; delete or rename "
        "them, or create the InferenceModel under another name"
    )


def _command(claim: Claim, orphans: Sequence[NameConflictError]) -> str:
    """What makes the InferenceModel the owner of children without one."""
    owner = {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "name": claim.name,
        "uid": claim.uid,
        "controller": True,
    }
    patch = json.dumps({"metadata": {"ownerReferences": [owner]}}, separators=(",", ":"))
    objects = " ".join(
        f"{orphan.kind.lower()}/{orphan.name.rpartition('/')[2]}" for orphan in orphans
    )
    return f"kubectl --namespace={claim.namespace} patch {objects} --type=merge --patch='{patch}'"


def _orphans(claim: Claim, orphans: Sequence[NameConflictError], room: int) -> str:
    """As many as there is room for: a command that is cut would be none."""
    text = ""
    for count in range(len(orphans), 0, -1):
        some, left = orphans[:count], len(orphans) - count
        them = "it" if len(orphans) == 1 else "them"
        for listing in (_listing(orphans), f"{len(orphans)} objects of its children's names"):
            text = (
                f"{listing} {'belongs' if len(orphans) == 1 else 'belong'} to no InferenceModel "
                f"any more; hand {them} over to this one with `{_command(claim, some)}`"
                f"{f', then the other {left}' if left else ''}, or delete {them}"
            )
            if len(text.encode()) <= room:
                return text
    return text


def _listing(conflicts: Sequence[NameConflictError]) -> str:
    *most, last = (f"{conflict.kind} {conflict.name}" for conflict in conflicts)
    return f"{', '.join(most)} and {last}" if most else last


def _is_own(owner: Model, live: Child, wanted_hash: str) -> bool:
    if live.owner_uid is not None or live.origin is None:
        return live.owner_uid == owner.uid
    origin = live.origin
    return not origin.controlled and (
        owner.uid in origin.owners or origin.desired_hash == wanted_hash
    )


def _is_orphan(owner: Model, live: Child) -> bool:
    """Whether it was a child of an InferenceModel of this name, and is nobody's now."""
    origin = live.origin
    return origin is not None and not origin.owners and origin.managed and live.key == owner.key


def _finalizers(live: Child) -> str:
    finalizers = live.content_object()["metadata"].get("finalizers")
    return f", which waits for {', '.join(finalizers)}" if finalizers else ""
