"""Everything that an embedded cluster changes on its machine, to compare it before and after."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from devcluster import mounts, network, paths

#: Where the cluster mounts; what others mount meanwhile is not its doing.
OURS = [paths.STATE, paths.RUN, paths.cache(), Path("/run/netns"), Path("/var/lib/kubelet")]


def run(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def firewall() -> set[str]:
    """Rules and chains, without counters and without the chains that every kernel has."""
    saved = run("iptables-save") + run("ip6tables-save")
    lines = (re.sub(r"\[\d+:\d+\]", "", line) for line in saved.splitlines())
    return {line for line in lines if line.startswith(("-A", ":")) and " ACCEPT " not in line}


def machine() -> dict[str, object]:
    """Everything that a cluster changes on its machine, but for its cache."""
    settings = (*network.SETTINGS, "net/ipv4/conf/all/route_localnet", "vm/overcommit_memory")
    groups = Path("/sys/fs/cgroup")
    return {
        "firewall": firewall(),
        "links": {path.name for path in Path("/sys/class/net").iterdir()},
        "addresses": set(
            re.findall(r"inet6? \S+", run("ip", "address", "show", "scope", "global"))
        ),
        "mounts": set(mounts.below(OURS, Path("/proc/self/mountinfo").read_text())),
        "namespaces": set(run("ip", "netns", "list").splitlines()),
        "loops": set(run("losetup", "--list", "--noheadings", "--output=BACK-FILE").splitlines()),
        "groups": {str(path) for path in groups.glob("*") if path.is_dir()}
        | {str(path) for path in groups.glob(f"*/{paths.NAME}*")},
        "settings": {name: (Path("/proc/sys") / name).read_text() for name in settings},
        "places": {
            place: sorted(path.name for path in Path(place).glob("*"))
            for place in ("/run", "/var/lib/cni", "/var/log/containers", "/usr/libexec/kubernetes")
        }
        | {place: Path(place).exists() for place in ("/var/lib/kubelet", "/run/containerd")},
        "processes": ours(),
    }


def ours() -> set[str]:
    """The processes that run one of the built programs for the whole cluster."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(paths.STATE) in line or str(paths.RUN) in line or line.startswith("/pause"):
            found.add(line)
    return found
