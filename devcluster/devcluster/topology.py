"""Which nodes a cluster has, and where each of them is: names, addresses, directories. Pure."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from devcluster import cgroups
from devcluster.errors import UsageError
from devcluster.network import NODE_ADDRESS, POD_NETWORK

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

#: The name of the only node, where there is one.
NODE_NAME = "devcluster"
#: Of several nodes each has one of these parts of the pods' network; the first is the nodes' own.
PART_PREFIX = 24
_PARTS = tuple(ipaddress.IPv4Network(POD_NETWORK).subnets(new_prefix=PART_PREFIX))
#: The nodes' own network, on the bridge, with the control plane in it.
NODE_NETWORK = str(_PARTS[0])
MOST_NODES = len(_PARTS) - 1
_ZONES = ("zone-a", "zone-b", "zone-c")


@dataclass(frozen=True)
class Node:
    """Where one node is."""

    name: str
    address: str
    pods: str
    """The network of its pods."""
    gateway: str
    """Its own address in that network."""
    max_pods: int
    state: Path
    """What survives a reboot: configuration, logs of its programs."""
    sockets: Path
    """What does not."""
    images: Path
    """containerd's store."""
    kubelet: Path
    """The kubelet's directory, with the volumes of pods."""
    pod_logs: Path
    control_group: str
    """The group of all its pods."""
    zone: str = ""
    namespace: Path | None = None
    """The file that holds its network namespace; None where that is the machine's own."""
    link: str = ""
    """The end of its cable at the bridge, where it has a namespace."""
    disk: Path | None = None
    """Where its own file system is mounted, with images, volumes and logs; None without one."""

    @property
    def user(self) -> str:
        """The file name of its kubelet's certificate."""
        return f"kubelet-{self.name}" if self.namespace else "kubelet"

    @property
    def inner_address(self) -> str:
        """Where its programs can be asked: its own 127.0.0.1 may be another one than ours."""
        return self.address if self.namespace else "127.0.0.1"

    @property
    def health(self) -> str:
        """Where its kubelet says whether it is well."""
        return f"http://{self.inner_address}:10248/healthz"


def only(state: Path, sockets: Path, images: Path) -> Node:
    """The one node of a cluster that has one: on the machine's own network and disk."""
    return Node(
        name=NODE_NAME,
        address=NODE_ADDRESS,
        pods=POD_NETWORK,
        gateway=NODE_ADDRESS,
        # As many as the pods' network has room for, and more than a test needs.
        max_pods=500,
        state=state,
        sockets=sockets,
        images=images,
        kubelet=state / "kubelet",
        pod_logs=state / "logs" / "pods",
        control_group=cgroups.ROOT,
    )


def several(count: int, state: Path, sockets: Path) -> tuple[Node, ...]:
    """The nodes of a cluster that has several, each with a network and a disk of its own.

    Raises:
        UsageError: the network has no room for so many.
    """
    if not 1 < count <= MOST_NODES:
        raise UsageError(f"{count} nodes: there is room for 1 to {MOST_NODES}")
    return tuple(_numbered(number, state, sockets) for number in range(1, count + 1))


def _numbered(number: int, state: Path, sockets: Path) -> Node:
    name = f"node-{number}"
    directory = state / "nodes" / name
    disk = directory / "disk"
    # The control plane has the first address.
    return Node(
        name=name,
        address=str(_PARTS[0][number + 1]),
        pods=str(_PARTS[number]),
        gateway=str(_PARTS[number][1]),
        # Addresses of pods that have just ended are not free yet.
        max_pods=110,
        state=directory,
        # Short: below it are sockets, whose paths have a limit.
        sockets=sockets / f"n{number}",
        images=disk / "containerd",
        kubelet=disk / "kubelet",
        pod_logs=disk / "pod-logs",
        control_group=f"{cgroups.ROOT}/{name}",
        zone=_ZONES[(number - 1) % len(_ZONES)],
        namespace=sockets / f"n{number}" / "network",
        link=f"imdev0-n{number}",
        disk=disk,
    )


def routes(node: Node, nodes: Sequence[Node]) -> list[tuple[str, str]]:
    """How a node reaches the pods of the others: networks, each with the address it is behind."""
    return [(other.pods, other.address) for other in nodes if other != node]
