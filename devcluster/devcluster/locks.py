"""One at a time, over processes."""

from __future__ import annotations

import contextlib
import fcntl
from typing import TYPE_CHECKING

from devcluster import paths
from devcluster.progress import say

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def exclusive(work: str) -> Iterator[None]:
    """Hold a lock for a kind of work; a second one waits, says so, and then finds it done."""
    path = paths.cache() / f"{work}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"  … waiting for another devcluster that has the lock {path}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
