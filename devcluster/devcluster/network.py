"""The host's side of the pods' network: a bridge, a few kernel settings, firewall rules.

All of it is written down before it is changed, and put back by ``restore``.
"""

from __future__ import annotations

import ipaddress
import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from devcluster.commands import run
from devcluster.controlplane import SERVICE_NETWORK
from devcluster.errors import PreconditionError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from devcluster.topology import Node

BRIDGE = "imdev0"
POD_NETWORK = "10.244.0.0/20"
#: The bridge's address: the node's, and the pods' gateway. It does not depend on the machine's
#: own networks, which come and go on a laptop.
NODE_ADDRESS = "10.244.0.1"

_FAMILIES = ("iptables", "ip6tables")
_OURS = "DEVCLUSTER-"
#: Chains that the cluster's programs make: kubelet and kube-proxy, the CNI plugins, this module.
_CHAIN = re.compile(rf"(?:KUBE|CNI|{_OURS.rstrip('-')})-\S+")

_FORWARDING = {"net/ipv4/ip_forward": "1"}
#: What pods, Services and NodePorts need of the kernel where there are pods.
SETTINGS = {**_FORWARDING, "net/bridge/bridge-nf-call-iptables": "1"}
#: What kubelet, kube-proxy and the CNI plugins change by themselves.
_CHANGED_BY_OTHERS = (
    "net/bridge/bridge-nf-call-ip6tables",
    "net/ipv4/conf/all/route_localnet",
    "net/ipv4/conf/all/arp_announce",
    "net/ipv4/vs/conntrack",
    "net/netfilter/nf_conntrack_max",
    "net/netfilter/nf_conntrack_tcp_be_liberal",
    "net/netfilter/nf_conntrack_tcp_timeout_established",
    "net/netfilter/nf_conntrack_tcp_timeout_close_wait",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)


def rules(api_port: int) -> dict[str, list[str]]:
    """Our rules for iptables-restore, by table; each chain is hooked in by its name's suffix."""
    outside = f"-A {_OURS}INPUT -p tcp -m tcp --dport {api_port}"
    return {
        "filter": [
            # The API server listens on all addresses, but is for this machine and its pods only.
            f"{outside} -i lo -j RETURN",
            f"{outside} -i {BRIDGE} -j RETURN",
            f"{outside} -j DROP",
            # Where the machine forwards nothing by default (Docker sets that), pods still talk.
            f"-A {_OURS}FORWARD -i {BRIDGE} -j ACCEPT",
            f"-A {_OURS}FORWARD -o {BRIDGE} -j ACCEPT",
        ],
        "nat": [f"-A {_OURS}POSTROUTING -s {POD_NETWORK} ! -d {POD_NETWORK} -j MASQUERADE"],
    }


def separation(node: Node) -> list[str]:
    """Rules of the machine that keep the control plane and a node apart, without -A or -D.

    What the node sends through the machine, to the world outside, is not meant.
    """
    networks = (f"{node.address}/32", node.pods)
    return [
        *(f"{_OURS}INPUT -s {network} -j DROP" for network in networks),
        *(f"{_OURS}OUTPUT -d {network} -j DROP" for network in networks),
    ]


def separating(saved: str, node: Node, *, apart: bool) -> list[str]:
    """What iptables-restore has to be told to have a node kept apart, or not."""
    present = set(saved.splitlines())
    rules = separation(node)
    if apart:
        # Before the rules that let the nodes in.
        return [f"-I {rule}" for rule in rules if f"-A {rule}" not in present]
    return [f"-D {rule}" for rule in rules if f"-A {rule}" in present]


def conflicts(routes: str) -> list[str]:
    """The networks in ``ip -json route`` that the pods' or the Services' would hide."""
    wanted = [ipaddress.ip_network(POD_NETWORK), ipaddress.ip_network(SERVICE_NETWORK)]
    found = []
    for route in json.loads(routes or "[]"):
        if route["dst"] == "default" or route.get("dev") == BRIDGE:
            continue
        network = ipaddress.ip_network(route["dst"], strict=False)
        if any(network.overlaps(each) for each in wanted):
            found.append(f"{network} ({route.get('dev', 'no device')})")
    return found


def check() -> None:
    """See that the machine's own networks leave room.

    Raises:
        PreconditionError: they do not.
    """
    taken = conflicts(run("ip", "-json", "-4", "route", "show"))
    if taken:
        raise PreconditionError(
            f"the cluster's networks {POD_NETWORK} and {SERVICE_NETWORK} overlap with this "
            f"machine's {', '.join(taken)}: use another machine, or export KUBECONFIG of a cluster"
        )


class Network:
    """The network of the cluster, with a file that remembers how the machine was before."""

    def __init__(self, memory: Path) -> None:
        self._memory = memory

    def setup(self, api_port: int, network: str = POD_NETWORK) -> None:
        """Make what is not there yet.

        ``network`` is what is on the bridge: all pods, or of several nodes the nodes.

        Raises:
            StartError: a command fails.
            PreconditionError: the kernel filters no bridged traffic.
        """
        self._remember()
        pods_here = network == POD_NETWORK
        if not _setting("net/bridge/bridge-nf-call-iptables").exists() and shutil.which("modprobe"):
            run("modprobe", "br_netfilter")
        # What passes between nodes is theirs to filter, so the machine need not look at it.
        for name, value in (SETTINGS if pods_here else _FORWARDING).items():
            try:
                _setting(name).write_text(value)
            except FileNotFoundError:
                raise PreconditionError(
                    f"the kernel has no {name}: load its module br_netfilter"
                ) from None
        if not _exists():
            run("ip", "link", "add", BRIDGE, "type", "bridge")
        prefix = ipaddress.ip_network(network).prefixlen
        run("ip", "address", "replace", f"{NODE_ADDRESS}/{prefix}", "dev", BRIDGE)
        run("ip", "link", "set", BRIDGE, "up")
        # The machine itself reaches a Service even where it has no network, so no default route.
        run("ip", "route", "replace", SERVICE_NETWORK, "dev", BRIDGE)
        self._add_rules(api_port)

    def restore(self) -> None:
        """Take away bridge, rules and chains, and put the kernel's settings back.

        Raises:
            StartError: a command fails.
        """
        if not self._memory.exists():
            return
        memory = json.loads(self._memory.read_text())
        for cable in Path("/sys/class/net").glob(f"{BRIDGE}-*"):
            run("ip", "link", "delete", cable.name)
        if _exists():
            run("ip", "link", "delete", BRIDGE)
        for family in _FAMILIES:
            _remove_chains(family, keep=memory["chains"].get(family, []))
        for name, value in memory["settings"].items():
            if _setting(name).exists() and _setting(name).read_text() != value:
                _setting(name).write_text(value)
        self._memory.unlink()

    def separate(self, node: Node, *, apart: bool) -> None:
        """Keep the control plane and a node apart, or have them together again.

        Raises:
            StartError: a command fails.
        """
        script = separating(_save("iptables"), node, apart=apart)
        if script:
            _restore("iptables", ["*filter", *script, "COMMIT"])

    def _remember(self) -> None:
        if self._memory.exists():
            return
        names = (*SETTINGS, *_CHANGED_BY_OTHERS)
        settings = {n: _setting(n).read_text() for n in names if _setting(n).exists()}
        chains = {family: sorted(chains_of(_save(family))) for family in _FAMILIES}
        written = self._memory.with_suffix(".new")
        written.write_text(json.dumps({"settings": settings, "chains": chains}, indent=1))
        written.replace(self._memory)

    def _add_rules(self, api_port: int) -> None:
        present = chains_of(_save("iptables"))
        script = []
        for table, lines in rules(api_port).items():
            hooks = sorted({line.split()[1] for line in lines})
            chains = [*hooks, f"{_OURS}OUTPUT"] if table == "filter" else hooks
            # Naming a chain with a colon makes or empties it, so a second time changes nothing.
            script += [f"*{table}", *(f":{chain} - [0:0]" for chain in chains), *lines]
            for chain in chains:
                if chain not in present:
                    script.append(f"-I {chain.removeprefix(_OURS)} -j {chain}")
            script.append("COMMIT")
        _restore("iptables", script)


def chains_of(saved: str) -> set[str]:
    """The chains in the output of iptables-save that look like a cluster's."""
    return {
        name
        for line in saved.splitlines()
        if line.startswith(":") and _CHAIN.fullmatch(name := line[1:].split()[0])
    }


def removal(saved: str, keep: Iterable[str]) -> list[str]:
    """What iptables-restore has to be told to be rid of a cluster's chains, but those to keep."""
    doomed = chains_of(saved) - set(keep)
    script: list[str] = []
    for table in re.split(r"^(?=\*)", saved, flags=re.MULTILINE):
        lines = table.splitlines()
        here = sorted(chains_of(table) & doomed)
        if not here:
            continue
        script.append(lines[0])
        for line in lines:
            words = line.split()
            if words[:1] == ["-A"] and words[1] not in doomed and doomed & set(words):
                script.append(f"-D {line.removeprefix('-A ')}")
        script += [f"-F {chain}" for chain in here]
        script += [f"-X {chain}" for chain in here]
        script.append("COMMIT")
    return script


def remove_chains(prefixes: tuple[str, ...]) -> None:
    """Take away the chains of one program, known by how their names begin.

    Raises:
        StartError: a command fails.
    """
    for family in _FAMILIES:
        others = [name for name in chains_of(_save(family)) if not name.startswith(prefixes)]
        _remove_chains(family, keep=others)


def _remove_chains(family: str, keep: Iterable[str]) -> None:
    script = removal(_save(family), keep)
    if script:
        _restore(family, script)


def _save(family: str) -> str:
    return run(f"{family}-save")


def _restore(family: str, script: Sequence[str]) -> None:
    run(f"{family}-restore", "--noflush", "--wait", stdin="\n".join([*script, ""]))


def _setting(name: str) -> Path:
    return Path("/proc/sys") / name


def _exists() -> bool:
    return Path(f"/sys/class/net/{BRIDGE}").exists()
