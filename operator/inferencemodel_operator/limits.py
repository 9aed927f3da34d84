"""How many files, sockets among them, the process may have open, and what that allows."""

from __future__ import annotations

import resource
from contextlib import suppress
from typing import Final

MOST_FILES: Final = 65_536
"""More is not asked for: where the hard limit is a billion, programs that are started by the
process, such as an exec plugin of a kubeconfig, may go through all of it."""
OTHER_FILES: Final = 72
"""For what is neither a poll, nor a connection to the API server or of a client: files that are
read, name resolution, an exec plugin; and connections that have just been replaced."""


def raise_open_files() -> None:
    """Raise the soft limit, often 1,024 by default, to the hard one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        # A sandbox may forbid it; `open_files` tells what there is.
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def open_files() -> int:
    """How many files the process may have open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST_FILES if soft == resource.RLIM_INFINITY else soft


def polls(files: int, connections: int) -> int:
    """How many pods can be asked at the same time, so that probes and the API server get theirs.

    Args:
        files: how many the process may have open.
        connections: the most to the API server and of clients.
    """
    return max(1, files - connections - OTHER_FILES)
