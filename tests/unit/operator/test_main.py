"""The command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from inferencemodel_operator.main import main, parse
from inferencemodel_operator.settings import (
    DEFAULT_INTERCEPTOR,
    DEFAULT_POLLER_IMAGE,
    Upstream,
)


def test_without_options_it_serves_the_whole_cluster_as_its_pod() -> None:
    options, log_format, log_level = parse(["run"])
    assert options.namespaces == ()
    assert options.kubeconfig is None
    assert (options.poller_access, options.http_port) == ("auto", 8080)
    assert options.settings.poller_image == DEFAULT_POLLER_IMAGE
    assert (log_format, log_level) == ("json", "info")


def test_options_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLLER_IMAGE", "from/environment:1")
    assert parse(["run"])[0].settings.poller_image == "from/environment:1"
    options, log_format, _ = parse(
        [
            "run",
            *("--namespace", "a", "--namespace", "b", "--namespace", "a"),
            *("--kubeconfig", "/k", "--poller-image", "p:1", "--log-format", "text"),
        ]
    )
    assert options.namespaces == ("a", "b")
    assert options.kubeconfig == Path("/k")
    assert options.settings.poller_image == "p:1"
    assert log_format == "text"


def test_several_replicas_share_a_lease_where_the_pod_says_where_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("POD_NAMESPACE", raising=False)
    assert parse(["run"])[0].lease is None
    monkeypatch.setenv("POD_NAMESPACE", "system")
    assert parse(["run"])[0].lease == ("system", "inferencemodel-operator")
    given = ["run", "--lease-namespace=other", "--lease-name=vision", "--selector=team=vision"]
    options, _, _ = parse(given)
    assert options.lease == ("other", "vision")
    assert options.selector == "team=vision"


def test_where_kedas_http_add_on_is_can_be_said() -> None:
    settings = parse(["run"])[0].settings
    assert settings.interceptor == DEFAULT_INTERCEPTOR
    given = [
        "run",
        "--keda-http-interceptor=scaling/proxy:80",
        "--keda-http-scaler=scaling/scaler:81",
        "--cluster-domain=k8s.example.com",
    ]
    settings = parse(given)[0].settings
    assert settings.interceptor == Upstream(namespace="scaling", service="proxy", port=80)
    assert settings.scaler == Upstream(namespace="scaling", service="scaler", port=81)
    assert settings.cluster_domain == "k8s.example.com"


@pytest.mark.parametrize(
    "wrong",
    [
        "--keda-http-interceptor=proxy.scaling:80",
        "--keda-http-interceptor=scaling/proxy",
        "--keda-http-scaler=scaling/scaler:0",
        "--keda-http-scaler=scaling/scaler:65536",
        "--cluster-domain=.local",
    ],
)
def test_an_add_on_that_is_nowhere_is_refused(
    wrong: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse(["run", wrong])
    assert wrong.partition("=")[0] in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong",
    [
        "--lease-namespace=Models",
        "--lease-name=Vision",
        "--lease-name=../vision",
        "--poller-image=",
        "--poller-image=poller: 1",
        "--http-port=65536",
        "--http-port=-1",
    ],
)
def test_what_can_never_work_is_refused_at_once(
    wrong: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse(["run", wrong])
    assert wrong.partition("=")[0] in capsys.readouterr().err.splitlines()[-1]


def test_without_access_to_a_cluster_it_ends_with_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    spared: list[bool] = []
    monkeypatch.setattr("inferencemodel_operator.logs.configure", lambda *_: None)
    # Which would be the tests' own process'.
    monkeypatch.setattr(
        "inferencemodel_operator.garbage.search_seldom", lambda: spared.append(True)
    )
    assert main(["run", "--kubeconfig", str(tmp_path / "absent"), "--http-port=0"]) == 1
    assert spared == [True]
    (line,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert line.exc_info is None
    assert "name a kubeconfig file with --kubeconfig" in line.getMessage()


def test_a_network_policy_lets_in_the_namespace_that_the_operator_runs_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("POD_NAMESPACE", "models")
    assert parse(["run"])[0].settings.namespace == "models"
    monkeypatch.delenv("POD_NAMESPACE")
    assert parse(["run"])[0].settings.namespace == "inferencemodel-system"
