"""What is changed on the machine can be told apart from what was there before."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from devcluster import cgroups, leftovers, mounts, network, packages
from devcluster.errors import PreconditionError
from devcluster.packages import Need

SAVED = """\
*nat
:PREROUTING ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:KUBE-SERVICES - [0:0]
:CNI-HOSTPORT-DNAT - [0:0]
:DOCKER - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A KUBE-SERVICES -d 10.96.0.1/32 -p tcp -j RETURN
COMMIT
*filter
:INPUT ACCEPT [0:0]
:DEVCLUSTER-INPUT - [0:0]
-A INPUT -j DEVCLUSTER-INPUT
-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT
COMMIT
*mangle
:FORWARD ACCEPT [0:0]
COMMIT
"""

MOUNTINFO = """\
21 1 254:0 / / rw - ext4 /dev/vda rw
90 21 0:50 / /run/ours/a/rootfs rw - overlay overlay rw
91 90 0:51 / /run/ours/a/rootfs/dev rw - tmpfs tmpfs rw
92 21 0:52 / /run/ours-not/a rw - tmpfs tmpfs rw
93 21 0:53 / /var/lib/ours/with\\040blank rw - tmpfs tmpfs rw
"""


@pytest.mark.parametrize(
    ("setting", "cores", "weight"),
    [("cpu.shares", 2, 8192), ("cpu.weight", 2, 800), ("cpu.weight", 192, 10000)],
)
def test_pods_weigh_more_than_one_process(
    tmp_path: Path, setting: str, cores: int, weight: int
) -> None:
    (tmp_path / setting).write_text("1024\n")
    cgroups.weigh(tmp_path, cores)
    assert [(path.name, int(path.read_text())) for path in tmp_path.iterdir()] == [
        (setting, weight)
    ]


def test_only_chains_of_a_cluster_are_removed_and_what_leads_there() -> None:
    assert network.removal(SAVED, keep=[]) == [
        "*nat",
        '-D PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES',
        "-F CNI-HOSTPORT-DNAT",
        "-F KUBE-SERVICES",
        "-X CNI-HOSTPORT-DNAT",
        "-X KUBE-SERVICES",
        "COMMIT",
        "*filter",
        "-D INPUT -j DEVCLUSTER-INPUT",
        "-F DEVCLUSTER-INPUT",
        "-X DEVCLUSTER-INPUT",
        "COMMIT",
    ]


def test_chains_that_were_there_before_stay() -> None:
    script = network.removal(SAVED, keep=["KUBE-SERVICES", "CNI-HOSTPORT-DNAT"])
    assert not any("KUBE" in line or "CNI" in line for line in script)


def test_the_api_server_is_closed_to_other_machines() -> None:
    lines = network.rules(6443)["filter"]
    assert lines[2] == "-A DEVCLUSTER-INPUT -p tcp -m tcp --dport 6443 -j DROP"
    assert [line.split(" -i ")[1] for line in lines[:2]] == ["lo -j RETURN", "imdev0 -j RETURN"]


@pytest.mark.parametrize(
    ("route", "conflicting"),
    [
        ({"dst": "10.244.0.0/16", "dev": "vpn0"}, True),
        ({"dst": "10.0.0.0/8", "dev": "vpn0"}, True),
        ({"dst": "10.96.7.7", "dev": "vpn0"}, True),
        ({"dst": "192.168.1.0/24", "dev": "eth0"}, False),
        ({"dst": "default", "dev": "eth0"}, False),
        ({"dst": "10.244.0.0/20", "dev": network.BRIDGE}, False),
    ],
)
def test_networks_of_the_machine_that_overlap_are_found(
    route: dict[str, str], conflicting: bool
) -> None:
    assert bool(network.conflicts(json.dumps([route]))) == conflicting


def test_mounts_are_found_below_the_directories_only_and_the_deepest_comes_first() -> None:
    assert mounts.below([Path("/run/ours"), Path("/var/lib/ours")], MOUNTINFO) == [
        "/run/ours/a/rootfs/dev",
        "/var/lib/ours/with blank",
        "/run/ours/a/rootfs",
    ]


def test_every_hierarchy_of_control_groups_counts() -> None:
    text = (
        "cgroup /cg/cpu cgroup rw 0 0\ntmpfs /cg tmpfs rw 0 0\ncgroup2 /cg/unified cgroup2 rw 0 0\n"
    )
    assert cgroups.hierarchies(text) == [Path("/cg/cpu"), Path("/cg/unified")]


def test_groups_of_version_2_get_the_controllers_that_they_lack(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu memory pids\n")
    (tmp_path / "cgroup.subtree_control").write_text("cpu memory\n")
    assert cgroups.hand_down(tmp_path) == ["cpuset", "pids"]


def test_only_our_links_and_results_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    links, results, state = tmp_path / "containers", tmp_path / "results", tmp_path / "state"
    for directory in (links, results, state):
        directory.mkdir()
    (links / "ours.log").symlink_to(state / "0.log")
    (links / "theirs.log").symlink_to("/var/log/pods/0.log")
    (results / "devcluster-1-eth0").touch()
    (results / "other-1-eth0").touch()
    monkeypatch.setattr(leftovers, "_LOG_LINKS", links)
    monkeypatch.setattr(leftovers, "_NETWORK_RESULTS", results)
    leftovers.remove(state)
    assert [path.name for path in links.iterdir()] == ["theirs.log"]
    assert [path.name for path in results.iterdir()] == ["other-1-eth0"]


def test_without_apt_get_the_missing_programs_and_their_packages_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(packages, "SYSTEM_DIRECTORIES", ())
    needs = [Need("runc", "runc"), Need("ip", "iproute2")]
    with pytest.raises(
        PreconditionError,
        match=r"missing programs: runc, ip\. Install them \(Debian: apt-get install iproute2 runc",
    ):
        packages.ensure(needs)


def test_without_root_the_alternative_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(PreconditionError, match="needs root: run this with sudo, or export KUBEC"):
        packages.require_linux_root()


def test_on_another_system_the_alternative_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    with pytest.raises(PreconditionError, match="needs Linux: use a Linux machine, or export KUBE"):
        packages.require_linux_root()
