"""How the programs of a cluster are told to run."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from devcluster import build, cgroups, topology
from devcluster.certs import Certificates
from devcluster.controllers import USERS, Controllers
from devcluster.controlplane import AUDIT_POLICY, ControlPlane
from devcluster.errors import UsageError
from devcluster.network import NODE_ADDRESS
from devcluster.node import PROXY_USER, NodePrograms, kubelet_user, usable_resolv_conf


def plane(state: Path, *, node: bool = True) -> ControlPlane:
    programs = {name: Path("/programs") / name / name for name in build.TOOLS}
    return ControlPlane(programs, state, Path("/run/x"), port=6443, address="10.9.0.1", node=node)


def whole(state: Path) -> NodePrograms:
    node = topology.only(state, Path("/run/x"), Path("/cache/containerd"))
    return NodePrograms(plane(state), node, Path("/usr/lib/cni"), "docker.io/x/pause:1")


def test_etcd_listens_on_sockets_only(tmp_path: Path) -> None:
    addresses = [each for each in plane(tmp_path).etcd().argv if "://" in each]
    assert addresses
    assert all(
        each.split("=", 1)[1].removeprefix("default=").startswith("unix:///run/x/")
        for each in addresses
    )


def test_only_an_api_server_for_tests_may_lose_writes_in_a_crash(tmp_path: Path) -> None:
    assert "--unsafe-no-fsync" in plane(tmp_path, node=False).etcd().argv
    assert "--unsafe-no-fsync" not in plane(tmp_path, node=True).etcd().argv


def test_a_directory_too_long_for_a_socket_is_told(tmp_path: Path) -> None:
    long = ControlPlane({}, tmp_path, tmp_path / ("x" * 100), port=1)
    with pytest.raises(UsageError, match="too long for a Unix socket: name a shorter one"):
        long.prepare()


def test_an_api_server_alone_is_not_reachable_from_outside(tmp_path: Path) -> None:
    (tmp_path / "pki").mkdir()
    assert "--bind-address=127.0.0.1" in plane(tmp_path, node=False).api_server().argv


def test_admission_and_authorization_are_those_of_a_normal_cluster(tmp_path: Path) -> None:
    argv = plane(tmp_path).api_server().argv
    assert "--authorization-mode=Node,RBAC" in argv
    assert not any("disable-admission" in each or "anonymous" in each for each in argv)


def test_the_audit_log_has_writes_and_no_heartbeats() -> None:
    first = AUDIT_POLICY["rules"][0]
    assert first == {"level": "None", "verbs": ["get", "list", "watch"]}
    assert AUDIT_POLICY["rules"][-1] == {"level": "Metadata"}


def test_containerd_writes_only_below_our_own_directories(tmp_path: Path) -> None:
    configuration = tomllib.loads(whole(tmp_path).runtime.toml())
    plugins = configuration["plugins"]
    runtime = plugins["io.containerd.cri.v1.runtime"]
    options = runtime["containerd"]["runtimes"]["runc"]["options"]
    written = [
        configuration["root"],
        configuration["state"],
        plugins["io.containerd.server.v1.grpc"]["address"],
        plugins["io.containerd.shim.v1.manager"]["socket_dir"],
        options["Root"],
    ]
    assert all(each.startswith(("/cache/containerd", "/run/x/")) for each in written)
    assert runtime["netns_mounts_under_state_dir"]


def test_containers_start_without_the_right_to_lower_oom_scores(tmp_path: Path) -> None:
    configuration = tomllib.loads(whole(tmp_path).runtime.toml())
    assert configuration["plugins"]["io.containerd.cri.v1.runtime"]["restrict_oom_score_adj"]


def test_the_kubelet_runs_with_swap_and_with_both_kinds_of_control_groups(tmp_path: Path) -> None:
    kubelet = whole(tmp_path).kubelet_configuration()
    assert kubelet["failSwapOn"] is False
    assert kubelet["failCgroupV1"] is False
    assert kubelet["cgroupRoot"] == cgroups.ROOT


def test_the_kubelet_asks_the_api_server_who_may_do_what(tmp_path: Path) -> None:
    kubelet = whole(tmp_path).kubelet_configuration()
    assert kubelet["authentication"]["anonymous"] == {"enabled": False}
    assert kubelet["authorization"] == {"mode": "Webhook"}
    assert kubelet["address"] == NODE_ADDRESS


def test_node_ports_answer_on_this_machine_only(tmp_path: Path) -> None:
    addresses = whole(tmp_path).proxy_configuration()["nodePortAddresses"]
    assert addresses == ["127.0.0.0/8", f"{NODE_ADDRESS}/32"]


def test_every_file_that_a_program_reads_is_written(tmp_path: Path) -> None:
    node = whole(tmp_path)
    controllers = Controllers(node.plane)
    Certificates(tmp_path / "pki").ensure(*USERS, PROXY_USER, kubelet_user(node.node))
    written = node.configuration() | controllers.configuration()
    programs = [*node.programs(), *controllers.programs(), node.runtime.program()]
    read = {path for program in programs for path in program.inputs}
    assert read <= set(written)
    for path, content in written.items():
        assert path.suffix == ".toml" or json.loads(content)


@pytest.mark.parametrize(
    ("machine", "usable"),
    [
        ("nameserver 127.0.0.53\nsearch example.com\n", "search example.com\n"),
        ("nameserver ::1\nnameserver 192.0.2.1\n", "nameserver 192.0.2.1\n"),
        ("", ""),
    ],
)
def test_pods_get_no_name_server_that_only_the_machine_can_ask(machine: str, usable: str) -> None:
    assert usable_resolv_conf(machine) == usable
