"""The example without the operator fits the poller as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from model_poller.settings import parse
from model_poller.stores.uri import Location

EXAMPLE = Path(__file__).parents[3] / "examples/sidecar.yaml"


@pytest.fixture
def pod() -> dict[str, Any]:
    deployment, _ = yaml.safe_load_all(EXAMPLE.read_text())
    spec: dict[str, Any] = deployment["spec"]["template"]["spec"]
    return spec


def test_the_pollers_arguments_are_understood(pod: dict[str, Any]) -> None:
    (poller,), (server,) = pod["initContainers"], pod["containers"]
    chosen = parse(poller["args"], {entry["name"]: entry["value"] for entry in poller["env"]})
    assert chosen.base == Path("/models/resnet")
    assert chosen.source.locations == (Location("my-models", "resnet"),)
    assert chosen.subscription == "projects/my-project/subscriptions/resnet-uploads"
    assert chosen.policy.follow_newest
    probe = server["startupProbe"]
    assert chosen.policy.load_timeout == probe["periodSeconds"] * probe["failureThreshold"]


def test_the_model_server_reads_what_the_poller_writes(pod: dict[str, Any]) -> None:
    (poller,), (server,) = pod["initContainers"], pod["containers"]
    folder = next(a for a in poller["args"] if a.startswith("--server-config-dir=")).split("=")[1]
    assert f"--model_config_file={folder}/models.config" in server["args"]
    assert f"--monitoring_config_file={folder}/monitoring.config" in server["args"]
    shared = [m for m in server["volumeMounts"] if m["name"] == "models"]
    assert shared == [{"name": "models", "mountPath": "/models", "readOnly": True}]
    ports = {p["name"]: p["containerPort"] for p in poller["ports"] + server["ports"]}
    assert ports == {"poller": 8502, "grpc": 8500, "http": 8501}
