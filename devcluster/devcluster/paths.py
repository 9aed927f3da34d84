"""Where things lie on the machine."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

NAME = "inferencemodel-devcluster"

PACKAGE = Path(__file__).resolve().parent
TOOLS = PACKAGE.parent / "tools"
MANIFESTS = PACKAGE / "manifests"
REPOSITORY = PACKAGE.parent.parent

#: What the whole cluster keeps over a reboot (certificates, etcd, kubelet), removed by ``down``.
STATE = Path("/var/lib") / NAME
#: Sockets and mounts; short, because a Unix socket's path is limited to 107 bytes.
RUN = Path("/run") / NAME


def cache() -> Path:
    """What is slow to make and survives ``down``: programs, images, downloads."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / NAME


def default_api_state() -> Path:
    """Where ``api-up`` keeps its API server when no directory is named."""
    return Path(tempfile.gettempdir()) / f"{NAME}-api-{os.getuid()}"
