"""Several nodes: where each of them is, and what is different about their programs."""

from __future__ import annotations

import ipaddress
import itertools
import json
import os
import subprocess
import tomllib
from pathlib import Path

import pytest

from devcluster import build, disks, mounts, namespaces, network, topology
from devcluster.addons import NAMES, Addons
from devcluster.certs import Certificates
from devcluster.cli import main
from devcluster.controllers import USERS, Controllers
from devcluster.controlplane import SOCKET_PATH_LIMIT, ControlPlane
from devcluster.errors import UsageError
from devcluster.node import PROXY_USER, NodePrograms, kubelet_user
from devcluster.paths import RUN, STATE
from devcluster.processes import Processes, Program
from devcluster.runtime import Runtime

PROGRAMS = {name: Path("/programs") / name / name for name in build.TOOLS}


def described(state: Path) -> list[NodePrograms]:
    plane = ControlPlane(PROGRAMS, state, Path("/run/x"), port=6443, address="10.9.0.1", node=True)
    nodes = topology.several(3, state, Path("/run/x"))
    return [
        NodePrograms(plane, node, Path("/usr/lib/cni"), "docker.io/x/pause:1") for node in nodes
    ]


@pytest.mark.parametrize("count", [2, 3, topology.MOST_NODES])
def test_no_two_nodes_share_anything(count: int) -> None:
    nodes = topology.several(count, STATE, RUN)
    for field in (
        *("name", "address", "pods", "gateway", "state", "sockets", "images", "kubelet"),
        *("pod_logs", "control_group", "namespace", "link", "disk", "user"),
    ):
        assert len({getattr(node, field) for node in nodes}) == count, field
    parts = [
        ipaddress.ip_network(each) for each in (topology.NODE_NETWORK, *(n.pods for n in nodes))
    ]
    assert not any(one.overlaps(other) for one, other in itertools.combinations(parts, 2))
    everything = ipaddress.IPv4Network(network.POD_NETWORK)
    assert all(part.network_address in everything for part in parts)
    for node in nodes:
        assert ipaddress.ip_address(node.address) in parts[0]
        assert node.address != network.NODE_ADDRESS
        assert ipaddress.ip_address(node.gateway) in ipaddress.ip_network(node.pods)


def test_a_node_has_as_many_pods_as_its_network_has_addresses_for() -> None:
    for node in topology.several(3, STATE, RUN):
        assert node.max_pods < ipaddress.ip_network(node.pods).num_addresses / 2


def test_the_sockets_of_the_last_node_are_not_too_long() -> None:
    last = topology.several(topology.MOST_NODES, STATE, RUN)[-1]
    # containerd names a shim's socket by a digest.
    assert len(f"{last.sockets}/s/{'0' * 64}") <= SOCKET_PATH_LIMIT


def test_the_kernel_takes_the_name_of_the_last_nodes_cable() -> None:
    assert len(topology.several(topology.MOST_NODES, STATE, RUN)[-1].link) < 16


@pytest.mark.parametrize("count", [-1, 0, 16])
def test_more_nodes_than_there_is_room_for_are_refused(count: int) -> None:
    with pytest.raises(UsageError, match=f"{count} nodes: there is room for 1 to 15"):
        topology.several(count, STATE, RUN)


def test_zones_are_told_to_the_api_server(tmp_path: Path) -> None:
    zones = []
    for one in described(tmp_path):
        (argument,) = [each for each in one._kubelet().argv if each.startswith("--node-labels=")]
        zones.append(argument.partition("topology.kubernetes.io/zone=")[2])
    assert zones == ["zone-a", "zone-b", "zone-c"]


def test_every_program_of_a_node_runs_in_its_network(tmp_path: Path) -> None:
    for one in described(tmp_path):
        for program in (*one.programs(), one.runtime.program()):
            assert program.argv[:3] == ("nsenter", f"--net={one.node.namespace}", "--")


def test_what_a_node_writes_for_pods_is_on_its_own_disk(tmp_path: Path) -> None:
    for one in described(tmp_path):
        disk = one.node.disk
        assert disk is not None
        kubelet = one.kubelet_configuration()
        containerd = tomllib.loads(one.runtime.toml())
        (root,) = [each for each in one._kubelet().argv if each.startswith("--root-dir=")]
        for written in (kubelet["podLogsDir"], containerd["root"], root.partition("=")[2]):
            assert Path(written).is_relative_to(disk)


def test_every_file_that_a_program_of_several_nodes_reads_is_written(tmp_path: Path) -> None:
    nodes = described(tmp_path)
    controllers = Controllers(nodes[0].plane, several=True)
    kubelets = [kubelet_user(one.node) for one in nodes]
    Certificates(tmp_path / "pki").ensure(*USERS, PROXY_USER, *kubelets)
    each: list[NodePrograms | Controllers] = [*nodes, controllers]
    for one in each:
        written = one.configuration()
        for program in one.programs():
            assert set(program.inputs) <= set(written)
        for path, content in written.items():
            assert path.suffix == ".toml" or json.loads(content)


def test_a_node_asks_the_api_server_by_an_address_that_it_reaches(tmp_path: Path) -> None:
    nodes = described(tmp_path)
    Certificates(tmp_path / "pki").ensure(PROXY_USER, *(kubelet_user(one.node) for one in nodes))
    for one in nodes:
        for path, content in one.configuration().items():
            if path.parent.name == "kubeconfigs":
                (cluster,) = json.loads(content)["clusters"]
                assert cluster["cluster"]["server"] == "https://10.9.0.1:6443"


def test_a_kubelet_is_its_node_to_the_api_server() -> None:
    first, second, _ = (kubelet_user(node) for node in topology.several(3, STATE, RUN))
    assert first.name == "system:node:node-1"
    assert second.file == "kubelet-node-2"
    assert f"IP:{topology.several(3, STATE, RUN)[0].address}" in first.names


def test_a_node_reaches_the_pods_of_every_other_one_directly() -> None:
    nodes = topology.several(3, STATE, RUN)
    lines = namespaces.inside(nodes[1], nodes).splitlines()
    assert "route replace 10.244.1.0/24 via 10.244.0.2" in lines
    assert "route replace 10.244.3.0/24 via 10.244.0.4" in lines
    assert not any(nodes[1].pods in line for line in lines)
    assert "address replace 10.244.0.3/24 dev eth0" in lines


def test_a_store_of_images_runs_no_pods(tmp_path: Path) -> None:
    store = Runtime(PROGRAMS, tmp_path / "c.toml", tmp_path / "root", tmp_path / "run", pods=None)
    configuration = tomllib.loads(store.toml())
    assert "io.containerd.grpc.v1.cri" in configuration["disabled_plugins"]
    assert not any("cri" in name for name in configuration["plugins"])


def test_a_node_is_kept_apart_once_and_no_trace_stays() -> None:
    node = topology.several(2, STATE, RUN)[0]
    apart = network.separating("", node, apart=True)
    assert apart == [
        "-I DEVCLUSTER-INPUT -s 10.244.0.2/32 -j DROP",
        "-I DEVCLUSTER-INPUT -s 10.244.1.0/24 -j DROP",
        "-I DEVCLUSTER-OUTPUT -d 10.244.0.2/32 -j DROP",
        "-I DEVCLUSTER-OUTPUT -d 10.244.1.0/24 -j DROP",
    ]
    saved = "\n".join(line.replace("-I ", "-A ", 1) for line in apart)
    assert network.separating(saved, node, apart=True) == []
    assert network.separating(saved, node, apart=False) == [
        line.replace("-I ", "-D ", 1) for line in apart
    ]
    assert network.separating("", node, apart=False) == []


@pytest.mark.parametrize("name", NAMES)
def test_with_several_nodes_no_pod_of_the_cluster_itself_takes_a_port_of_one(name: str) -> None:
    programs = {each: Path(f"/cache/programs/{each}-0123456789abcdef/{each}") for each in NAMES}
    addons = Addons(programs, 8080, 8443, name_servers=False, several=True)
    manifest = addons.manifest(name)
    assert "hostPort" not in manifest
    assert "$" not in manifest
    if name == "traefik":
        assert "type: LoadBalancer\n  allocateLoadBalancerNodePorts: false\n" in manifest
        assert "port: 8080, targetPort: web}" in manifest


def test_a_killed_program_is_not_asked_to_end(tmp_path: Path) -> None:
    processes = Processes(tmp_path / "records", tmp_path / "logs")
    # It would take its time, and write that it was asked.
    script = "trap 'echo asked' TERM; echo ready; while :; do sleep 0.05; done"
    processes.ensure(Program("stubborn", ("sh", "-c", script), {}))
    processes.wait(
        "stubborn", lambda: "ready" in processes.log("stubborn").read_text(), what="ready"
    )
    identity = processes.identity("stubborn")
    assert identity is not None
    processes.kill_all(["stubborn", "never-started"])
    assert not identity.alive()
    assert "asked" not in processes.log("stubborn").read_text()
    assert processes.names() == []


@pytest.mark.parametrize("command", ["stop", "start", "cut", "heal", "fill"])
def test_one_node_alone_can_not_fail(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("devcluster.paths.STATE", tmp_path / "state")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert main(["node", command, "devcluster"]) == 1
    assert "devcluster up --nodes=3" in capsys.readouterr().err


def test_a_node_of_another_name_is_told_with_those_that_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("devcluster.paths.STATE", tmp_path / "state")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "settings.json").write_text('{"nodes": 2}')
    assert main(["node", "stop", "node-3"]) == 1
    assert "no node is called node-3; there are node-1, node-2" in capsys.readouterr().err
    assert main(["node", "fill", "node-2"]) == 1
    assert "start it with `devcluster node start node-2`" in capsys.readouterr().err


def test_the_number_of_nodes_of_a_cluster_that_is_up_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("devcluster.packages.ensure", lambda _: None)
    monkeypatch.setattr("devcluster.paths.STATE", tmp_path / "state")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "state" / "processes").mkdir(parents=True)
    (tmp_path / "state" / "processes" / "etcd.json").write_text("{}")
    assert main(["up", "--nodes=3"]) == 1
    assert "take it down first" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")
def test_a_full_disk_takes_nothing_and_is_as_before_when_it_is_emptied(tmp_path: Path) -> None:
    file, place = tmp_path / "disk.img", tmp_path / "disk"
    try:
        disks.ensure(file, place)
        disks.ensure(file, place)
        before = os.statvfs(place).f_bavail
        disks.fill(place)
        with pytest.raises(OSError, match="No space left"):
            (place / "more").write_bytes(bytes(100_000))
        disks.empty(place)
        (place / "more").unlink(missing_ok=True)
        assert os.statvfs(place).f_bavail == before
        # Room that is taken for nothing is not taken from the machine.
        assert file.stat().st_blocks * 512 < 64 * 2**20
    finally:
        mounts.unmount_below(place)
    done = subprocess.run(["losetup", "--associated", str(file)], capture_output=True, check=True)
    assert done.stdout == b""
