"""How the base path passes from one version to the next without a moment that nobody answers; pure.

The server's policy (TensorFlow Serving's AvailabilityPreservingPolicy) keeps a version in memory
that left the base path until one that lies there is loaded, as long as one does lie there, and
only that one version is left over. So one that goes back to a lower number may see both renames
with one look, which saves it the wait for the next, a second by default.

What it costs: a version that comes back while the server still has it is not loaded again before
that one is gone, and until then the server takes in nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from model_poller.actions import Publish, Quarantine, Retire

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from model_poller.actions import Action
    from model_poller.planner import Observed

DEAF_SECONDS = 10.0
"""So long the server may be there without a word of what was published; it looks every second by
default. Longer, and it waits for the end of what it serves."""


def leave_early(seen: Observed, target: int, wanted: Collection[int]) -> set[int]:
    """The versions that leave the base path although the target, which lies there, answers not yet.

    That is what answers now. Either it does so alone and has the higher number, so that it would go
    on answering beside a target that has served on this volume; or the server takes in no target as
    long as what it serves lies there.
    """
    record = seen.disk.published.get(target)
    others = seen.disk.published.keys() - {target}
    answering = {s.version for s in seen.served or () if s.state == "AVAILABLE"}
    if record is None or target in answering:
        return set()
    # Of several that are loaded, another one than the target could be the first to answer.
    is_alone = others == answering and len(others) == 1 and set(wanted) == {target}
    is_rollback = is_alone and max(others) > target and record.proven
    return others & answering if is_rollback or _is_deaf(seen, target) else set()


def _is_deaf(seen: Observed, target: int) -> bool:
    publication = seen.publications.get(target)
    # An error may be its word on what was published just now.
    spoken = any(
        s.version == target and (s.state != "END" or s.error_code != "OK")
        for s in seen.served or ()
    )
    return publication is not None and publication.loading > DEAF_SECONDS and not spoken


def without_gap(seen: Observed, actions: Sequence[Action]) -> list[Action]:
    """The actions, but for those that would leave the base path empty under what still answers.

    The server would unload it. So what answers goes back first, whatever is held against it, and
    the next round does the rest.
    """
    leaving = {
        action.version if isinstance(action, Retire) else action.entry.version
        for action in actions
        if isinstance(action, Retire | Quarantine)
    }
    here = seen.disk.published.keys()
    answering = {s.version for s in seen.served or () if s.state == "AVAILABLE"}
    loose = (answering & seen.disk.retained.keys()) - here
    if not loose or not here or here - leaving:
        return list(actions)
    kept: list[Action] = [a for a in actions if not isinstance(a, Retire | Quarantine)]
    back = Publish(max(loose))
    return kept if back in kept else [back, *kept]
