"""How Flux (its own kstatus library) and Argo CD (its Lua, our rule) judge an InferenceModel."""

from __future__ import annotations

import json
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from devcluster import build
from inferencemodel_operator import assessment
from inferencemodel_operator.errors import NameConflictError
from inferencemodel_operator.observe.wire import DeploymentStatus
from inferencemodel_operator.observed import Observed, Replica
from inferencemodel_operator.record import QuarantinedVersion, VersionsRecord
from inferencemodel_operator.spec import decode
from inferencemodel_operator.status import Status
from model_poller.status import VersionState
from tests.support.pods import told

PAGE = Path(__file__).parents[2] / "docs" / "gitops.md"
ONE = told({1: VersionState.AVAILABLE}, target=1)
FETCHING = told({1: VersionState.AVAILABLE, 2: VersionState.FETCHING}, target=2)
ROLLED_OUT = DeploymentStatus(observed_generation=1, replicas=1, updated_replicas=1)
BROKEN = QuarantinedVersion(version=2, fingerprint="f", reason="LoadFailed", message="no graph")


def resource(seen: Observed | None, **spec: Any) -> dict[str, Any]:
    """An InferenceModel with the status of what was observed."""
    found: dict[str, Any] = {
        "apiVersion": "inferencemodel.dev/v1alpha1",
        "kind": "InferenceModel",
        "metadata": {"name": "m", "namespace": "vision", "uid": "u", "generation": 3},
        "spec": {"model": {"storageUri": "gs://models/m"}, "replicas": 1, **spec},
    }
    if seen is None:
        # The CRD's default.
        found["status"] = {"observedGeneration": -1}
    else:
        moment = datetime(2026, 1, 1, tzinfo=UTC)
        found["status"] = assessment.assess(decode(found), seen, Status(), moment).to_object()
    return found


def observed(report: Any, *, ready: bool = True, target: int = 1, **more: Any) -> Observed:
    quarantined = more.pop("quarantined", ())
    return Observed(
        pods=(Replica(name="pod", ready=ready, report=report),),
        wanted=1,
        record=VersionsRecord(target=target, quarantined=quarantined),
        deployment=ROLLED_OUT,
        **more,
    )


ASLEEP = Observed(
    pods=(),
    wanted=0,
    record=VersionsRecord(target=1),
    deployment=DeploymentStatus(observed_generation=1),
)


def outdated() -> dict[str, Any]:
    found = resource(observed(ONE))
    found["metadata"]["generation"] = 4
    return found


CASES = [
    ("no answer yet", resource(None), "InProgress", "Progressing"),
    ("an older spec's status", outdated(), "InProgress", "Progressing"),
    ("a pod that starts", resource(observed(None, ready=False)), "InProgress", "Progressing"),
    ("another version", resource(observed(FETCHING, target=2)), "InProgress", "Progressing"),
    ("all is well", resource(observed(ONE)), "Current", "Healthy"),
    ("a pod that can't be asked", resource(observed(None)), "InProgress", "Progressing"),
    ("a failed version", resource(observed(ONE, quarantined=(BROKEN,))), "Current", "Degraded"),
    (
        "a name conflict",
        resource(observed(ONE, problems=(NameConflictError("Service", "vision/m"),))),
        "Failed",
        "Degraded",
    ),
    ("suspended", resource(observed(ONE), suspend=True), "Current", "Suspended"),
    ("scaled to zero", resource(ASLEEP, replicas=0), "Current", "Healthy"),
]


def as_lua(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"[{as_lua(k)}] = {as_lua(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "{" + ", ".join(map(as_lua, value)) + "}"
    return json.dumps(value)


@pytest.mark.parametrize(("found", "verdict"), [pytest.param(c[1], c[2], id=c[0]) for c in CASES])
def test_flux_sees_when_a_model_is_settled(found: dict[str, Any], verdict: str) -> None:
    kstatus = build.ensure(["kstatus"])["kstatus"]
    judged = subprocess.run(
        [kstatus], input=json.dumps(found), capture_output=True, text=True, check=True, timeout=30
    )
    assert judged.stdout.split()[0] == verdict, judged.stdout


@pytest.mark.parametrize(("found", "verdict"), [pytest.param(c[1], c[3], id=c[0]) for c in CASES])
def test_argo_cd_sees_a_models_health(found: dict[str, Any], verdict: str, tmp_path: Path) -> None:
    (rule,) = re.findall(r"```lua\n(.*?)```", PAGE.read_text(), re.DOTALL)
    script = tmp_path / "health.lua"
    script.write_text(
        f"local obj = {as_lua(found)}\n"
        f"local function judge()\n{rule}\nend\n"
        "local health = judge()\n"
        "assert(health.message ~= nil and health.message ~= '')\n"
        "print(health.status)\n"
    )
    glua = build.ensure(["glua"])["glua"]
    judged = subprocess.run([glua, script], capture_output=True, text=True, check=True, timeout=30)
    assert judged.stdout.strip() == verdict, judged.stderr
