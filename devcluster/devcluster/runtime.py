"""How containerd runs: pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from devcluster.packages import SYSTEM_DIRECTORIES
from devcluster.processes import Program

if TYPE_CHECKING:
    from pathlib import Path

CONTAINERD = "containerd"
_SHIM = "containerd-shim-runc-v2"

#: What no cluster of ours has a use for.
_DISABLED = (
    "io.containerd.nri.v1.nri",
    "io.containerd.snapshotter.v1.blockfile",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.erofs",
    "io.containerd.snapshotter.v1.zfs",
    "io.containerd.tracing.processor.v1.otlp",
)
#: What makes a container runtime of a store of images.
_KUBELETS = (
    "io.containerd.cri.v1.images",
    "io.containerd.cri.v1.runtime",
    "io.containerd.grpc.v1.cri",
)


@dataclass(frozen=True)
class Pods:
    """What containerd has to know to run pods."""

    plugins: Path
    """The directory of the CNI plugins."""
    networks: Path
    """The directory of their configuration."""
    sandbox_image: str


@dataclass(frozen=True)
class Runtime:
    """One containerd; everything it writes is below directories of ours."""

    programs: dict[str, Path]
    configuration: Path
    """The file that it reads."""
    root: Path
    """Images and writable layers."""
    sockets: Path
    pods: Pods | None
    """None for a store of images that runs nothing."""
    within: tuple[str, ...] = ()
    """What goes before its command line."""

    @property
    def socket(self) -> Path:
        """Where it listens."""
        return self.sockets / "containerd.sock"

    def program(self) -> Program:
        """The container runtime; it finds its shim, and the shim finds runc, through PATH."""
        places = [str(self.programs[_SHIM].parent), *SYSTEM_DIRECTORIES]
        program = str(self.programs[CONTAINERD])
        return Program(
            CONTAINERD,
            (*self.within, program, f"--config={self.configuration}"),
            {"PATH": ":".join(places)},
            inputs=(self.configuration,),
        )

    def toml(self) -> str:
        """The content of its configuration."""
        disabled = _DISABLED if self.pods else (*_DISABLED, *_KUBELETS)
        listed = "\n".join(f"  {_quoted(plugin)}," for plugin in disabled)
        return f"""\
version = 3
root = {_quoted(self.root)}
state = {_quoted(self.sockets / "containerd")}
imports = []
disabled_plugins = [
{listed}
]

[plugins."io.containerd.server.v1.grpc"]
address = {_quoted(self.socket)}

[plugins."io.containerd.server.v1.ttrpc"]
address = {_quoted(f"{self.socket}.ttrpc")}

[plugins."io.containerd.internal.v1.opt"]
path = {_quoted(self.root / "opt")}

[plugins."io.containerd.shim.v1.manager"]
socket_dir = {_quoted(self.sockets / "s")}
{self._pods(self.pods) if self.pods else ""}"""

    def _pods(self, pods: Pods) -> str:
        return f"""
[plugins."io.containerd.cri.v1.images"]
snapshotter = "overlayfs"

[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = {_quoted(pods.sandbox_image)}

[plugins."io.containerd.cri.v1.runtime"]
# Where root lacks CAP_SYS_RESOURCE, as in many virtual machines and containers, a lower value than
# containerd's own can't be set, and no container would start.
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true

[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = [{_quoted(pods.plugins)}]
conf_dir = {_quoted(pods.networks)}
use_internal_loopback = true

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
SystemdCgroup = false
Root = {_quoted(self.sockets / "runc")}
"""


def _quoted(text: object) -> str:
    # A JSON string is a basic string of TOML too.
    return json.dumps(str(text))
