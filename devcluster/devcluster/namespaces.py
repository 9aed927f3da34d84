"""A node's network: a namespace of its own, and a cable from there to the cluster's bridge."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import TYPE_CHECKING

from devcluster import commands, mounts
from devcluster.network import BRIDGE, NODE_ADDRESS, SETTINGS
from devcluster.topology import NODE_NETWORK, routes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from devcluster.topology import Node

#: The end of the cable in the node.
_INSIDE = "eth0"


def inside(node: Node, nodes: Sequence[Node]) -> str:
    """What is set up inside the namespace, as lines for ``ip -batch``."""
    prefix = ipaddress.ip_network(NODE_NETWORK).prefixlen
    others = [f"route replace {network} via {address}" for network, address in routes(node, nodes)]
    lines = [
        "link set lo up",
        f"address replace {node.address}/{prefix} dev {_INSIDE}",
        f"link set {_INSIDE} up",
        f"route replace default via {NODE_ADDRESS}",
        *others,
    ]
    return "\n".join([*lines, ""])


def ensure(node: Node, nodes: Sequence[Node]) -> None:
    """Have a node's network as it shall be, connected.

    Raises:
        StartError: a command fails.
    """
    namespace = _namespace(node)
    if not mounts.is_mounted(namespace):
        namespace.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        namespace.touch()
        commands.run("unshare", f"--net={namespace}", "true")
    if not _has_cable(node):
        commands.run(
            *("ip", "link", "add", node.link, "type", "veth"),
            *("peer", "name", _INSIDE, "netns", str(namespace)),
        )
    commands.run("ip", "link", "set", node.link, "master", BRIDGE, "up")
    within = ("nsenter", f"--net={namespace}", "--")
    commands.run(*within, "ip", "-batch", "-", stdin=inside(node, nodes))
    for name, value in SETTINGS.items():
        # What is below /proc/sys/net is the namespace's own that the writing process is in.
        commands.run(*within, "tee", f"/proc/sys/{name}", stdin=value)
    commands.run("ip", "route", "replace", node.pods, "via", node.address)


def disconnect(node: Node) -> None:
    """Take the cable away, so that nothing the node still sends arrives anywhere."""
    if _has_cable(node):
        commands.run("ip", "link", "delete", node.link)


def unplug(node: Node) -> None:
    """Have the cable carry nothing until ``ensure``; the node keeps its end and its routes."""
    commands.run("ip", "link", "set", node.link, "down")


def _has_cable(node: Node) -> bool:
    return Path(f"/sys/class/net/{node.link}").exists()


def _namespace(node: Node) -> Path:
    if node.namespace is None:
        raise ValueError(f"{node.name} is on the machine's own network")
    return node.namespace
