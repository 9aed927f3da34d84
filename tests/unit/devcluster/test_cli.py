"""The command line: what it says when something is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from devcluster import cluster, paths
from devcluster.cli import main

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def nothing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "STATE", tmp_path / "state")
    monkeypatch.setattr(paths, "RUN", tmp_path / "run")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize("arguments", [["kubeconfig"], ["load-image", "operator"]])
def test_without_a_cluster_the_command_that_makes_one_is_named(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 1
    assert "bring it up with `devcluster up`" in capsys.readouterr().err


def test_status_without_a_cluster_fails_and_says_what_does_not_run(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["status"]) == 1
    assert "kube-apiserver           not running" in capsys.readouterr().out


def test_up_without_root_names_the_alternative(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert main(["up"]) == 1
    assert "export KUBECONFIG of any cluster" in capsys.readouterr().err


def test_down_without_a_cluster_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert main(["down"]) == 0


def test_a_log_that_is_not_there_is_told_with_those_that_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logs = tmp_path / "state" / "logs"
    logs.mkdir(parents=True)
    (logs / "kubelet.log").write_text("one\ntwo\nthree\n")
    assert main(["logs", "kubelet", "--lines", "2"]) == 0
    assert capsys.readouterr().out == "two\nthree\n"
    assert main(["logs", "cubelet"]) == 1
    assert "no log of 'cubelet': there are kubelet, coredns" in capsys.readouterr().err


@pytest.mark.parametrize("port", ["0", "65536", "http"])
def test_a_port_that_is_none_is_refused(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["up", "--http-port", port])
    assert "--http-port" in capsys.readouterr().err


def test_a_taken_port_is_told_before_anything_is_started(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("devcluster.packages.ensure", lambda _: None)
    monkeypatch.setattr("devcluster.network.check", lambda: None)
    monkeypatch.setattr(cluster, "_taken", lambda port: port == 80)
    assert main(["up"]) == 1
    error = capsys.readouterr().err
    assert "ports of 127.0.0.1 that are in use: 80" in error
    assert "--http-port" in error
    assert not paths.STATE.exists()


def test_a_program_that_can_not_be_killed_is_told_with_those_that_can(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["kill", "etcd"]) == 1
    assert "etcd does not run" in capsys.readouterr().err
    assert main(["kill", "node-1/etcd"]) == 1
    assert "no program is called node-1/etcd; there are kubelet, " in capsys.readouterr().err
