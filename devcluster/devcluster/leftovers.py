"""What the node's programs write to fixed places outside the cluster's own directories."""

from __future__ import annotations

import contextlib
from pathlib import Path

from devcluster.node import POD_NETWORK_NAME

#: The kubelet's links to the logs of containers.
_LOG_LINKS = Path("/var/log/containers")
#: What libcni remembers of the networks that it has set up.
_NETWORK_RESULTS = Path("/var/lib/cni/results")


def remove(state: Path) -> None:
    """Remove what is ours, and the directories that are empty then."""
    for link in _LOG_LINKS.glob("*.log"):
        if link.is_symlink() and link.readlink().is_relative_to(state):
            link.unlink()
    for result in _NETWORK_RESULTS.glob(f"{POD_NETWORK_NAME}-*"):
        result.unlink()
    for directory in (_LOG_LINKS, _NETWORK_RESULTS, _NETWORK_RESULTS.parent):
        with contextlib.suppress(OSError):
            directory.rmdir()
