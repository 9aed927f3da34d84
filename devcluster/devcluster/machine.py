"""One node of several, as if it were a machine: its disk, its network, its programs."""

from __future__ import annotations

import contextlib
import shutil
import signal
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

from devcluster import cgroups, disks, files, mounts, namespaces
from devcluster.client import KubectlError
from devcluster.errors import UsageError
from devcluster.images import NodeImages
from devcluster.node import KUBELET, PROXY
from devcluster.processes import Identity, Processes
from devcluster.runtime import CONTAINERD

if TYPE_CHECKING:
    from collections.abc import Sequence

    from devcluster.client import Api
    from devcluster.node import NodePrograms
    from devcluster.topology import Node

#: In the order in which they end.
PROGRAMS = (KUBELET, PROXY, CONTAINERD)


class Machine:
    """One node of several."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.processes = Processes(node.state / "processes", node.state / "logs")

    @property
    def running(self) -> bool:
        """Whether all of its programs run."""
        return all(self.processes.identity(name) for name in PROGRAMS)

    @property
    def disk(self) -> Path:
        """Where its disk is mounted."""
        if self.node.disk is None:
            raise UsageError(f"{self.node.name} has no disk of its own")
        return self.node.disk

    def start_runtime(self, programs: NodePrograms, nodes: Sequence[Node]) -> None:
        """Have disk, network and containerd, or repair what of it is not as it shall be.

        Raises:
            StartError: something does not work.
        """
        disks.ensure(self.node.state / "disk.img", self.disk)
        disks.empty(self.disk)
        namespaces.ensure(self.node, nodes)
        cgroups.add(self.node.control_group)
        for path, content in programs.configuration().items():
            files.write(path, content)
        for directory in (self.node.images, self.node.kubelet, self.node.pod_logs):
            directory.mkdir(parents=True, exist_ok=True)
        images = NodeImages(programs.plane.programs["ctr"], programs.runtime.socket)
        self.processes.ensure(programs.runtime.program())
        self.processes.wait(CONTAINERD, images.answers, what="it answered")

    def start_programs(self, programs: NodePrograms) -> None:
        """Have the kubelet and kube-proxy run."""
        for program in programs.programs():
            self.processes.ensure(program)

    def stop(self) -> None:
        """Have the node die: nobody is told, and what it has not written to its disk is gone.

        Raises:
            StartError: something does not go.
        """
        # First, so that the end of its connections is not told to others.
        namespaces.disconnect(self.node)
        self.processes.kill_all(PROGRAMS)
        cgroups.kill(self.node.control_group)
        for identity in shims(self.node.sockets / "containerd.sock"):
            identity.signal(signal.SIGKILL)
        mounts.unmount_below(self.node.sockets, self.node.kubelet)
        cgroups.remove_groups(self.node.control_group)
        shutil.rmtree(self.node.sockets, ignore_errors=True)


def ready(node: Node, api: Api) -> bool:
    """Whether a node is Ready, by its kubelet and by the API server."""
    path = "jsonpath={.status.conditions[?(@.type=='Ready')].status}"
    try:
        # What the API server tells of the node may be older than the end of its kubelet.
        urllib.request.urlopen(node.health, timeout=5).close()  # noqa: S310 (http)
        return api.kubectl("get", "node", node.name, "-o", path, timeout=10) == "True"
    except (OSError, KubectlError):
        return False


def shims(socket_path: Path) -> list[Identity]:
    """The processes between containerd and its containers, known by its socket's path."""
    found = []
    for directory in Path("/proc").iterdir():
        if not directory.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            argv = (directory / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if Path(argv[0]).name == "containerd-shim-runc-v2" and str(socket_path) in argv:
                identity = Identity.of(int(directory.name))
                found += [identity] if identity else []
    return found
