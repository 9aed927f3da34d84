"""How Flux (its own kstatus library) and Argo CD (its Lua, our rule) judge an InferenceModel."""

from __future__ import annotations

import json
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from devcluster import build
from inferencemodel_operator import assessment, names
from inferencemodel_operator.errors import NameConflictError
from inferencemodel_operator.observe.wire import DeploymentStatus
from inferencemodel_operator.observed import Observed, Replica
from inferencemodel_operator.record import QuarantinedVersion, VersionsRecord
from inferencemodel_operator.spec import decode
from inferencemodel_operator.status import RolloutStatus, Status
from model_poller.status import VersionState
from tests.support.pods import told

PAGE = Path(__file__).parents[2] / "docs" / "gitops.md"
MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
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
        found["status"] = assessment.assess(decode(found), seen, Status(), MOMENT).to_object()
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


def rolling(phase: str, *, quarantined: tuple[QuarantinedVersion, ...] = ()) -> Observed:
    """Version 1 serves, and version 2 has a rollout."""
    return Observed(
        pods=(Replica(name="pod", ready=True, report=ONE),),
        wanted=1,
        record=VersionsRecord(
            target=1, candidate=None if quarantined else 2, quarantined=quarantined
        ),
        deployment=ROLLED_OUT,
        rollout=RolloutStatus(
            version=2,
            from_version=1,
            phase=phase,
            step=1,
            steps=2,
            start_time=MOMENT,
            message="version 2 is looked at",
        ),
    )


ABORTED = QuarantinedVersion(version=2, fingerprint="f2", reason="Aborted", message="aborted")


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
    *(
        (f"a rollout that is {phase}", resource(rolling(phase)), "InProgress", "Progressing")
        for phase in ("Checking", "Rehearsing", "Progressing")
    ),
    ("a rollout that waits", resource(rolling("Paused")), "InProgress", "Suspended"),
    *(
        (
            f"a version that is {phase}",
            resource(rolling(phase, quarantined=(ABORTED,))),
            "Current",
            "Degraded",
        )
        for phase in ("RollingBack", "RolledBack")
    ),
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
    judged = lua(
        tmp_path,
        f"local obj = {as_lua(found)}\n"
        f"local function judge()\n{rule}\nend\n"
        "local health = judge()\n"
        "assert(health.message ~= nil and health.message ~= '')\n"
        "print(health.status)\n",
    )
    assert judged == [verdict]


def lua(directory: Path, program: str) -> list[str]:
    """What a program in Argo CD's own Lua prints."""
    script = directory / "program.lua"
    script.write_text(program)
    glua = build.ensure(["glua"])["glua"]
    done = subprocess.run([glua, script], capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def actions() -> dict[str, Any]:
    (block,) = re.findall(r"```yaml\n(discovery\.lua: .*?)```", PAGE.read_text(), re.DOTALL)
    found: dict[str, Any] = yaml.safe_load(block)
    return found


def enabled(found: dict[str, Any], directory: Path) -> set[str]:
    """The entries of the resource's menu that can be chosen."""
    listed = lua(
        directory,
        f"local obj = {as_lua(found)}\n"
        f"local function discover()\n{actions()['discovery.lua']}\nend\n"
        "for name, action in pairs(discover()) do\n"
        "  print(name .. ' ' .. tostring(action.disabled))\n"
        "end\n",
    )
    split = dict(line.split() for line in listed)
    assert split.keys() == {definition["name"] for definition in actions()["definitions"]}
    return {name for name, disabled in split.items() if disabled == "false"}


def with_check(result: str) -> dict[str, Any]:
    found = resource(rolling("Paused"))
    check = {"name": "signature", "result": result, "time": "2026-01-01T00:00:00Z"}
    found["status"]["model"]["rollout"]["checks"] = [check]
    return found


STEPS = {"promote", "promote-full", "abort"}


@pytest.mark.parametrize(
    ("found", "allowed"),
    [
        pytest.param(resource(None), set(), id="no answer yet"),
        pytest.param(resource(observed(ONE)), set(), id="all is well"),
        pytest.param(resource(rolling("Checking")), STEPS, id="being checked"),
        pytest.param(resource(rolling("Paused")), STEPS, id="waits"),
        pytest.param(with_check("Passed"), STEPS, id="waits, with the same interface"),
        pytest.param(with_check("Failed"), STEPS | {"approve"}, id="waits for an approval"),
        pytest.param(resource(rolling("Baking")), {"promote", "abort"}, id="is watched"),
        pytest.param(resource(rolling("Completed")), set(), id="completed"),
        pytest.param(
            resource(rolling("RolledBack", quarantined=(ABORTED,))), {"retry"}, id="taken back"
        ),
    ],
)
def test_argo_cds_menu_has_what_can_be_done_now(
    found: dict[str, Any], allowed: set[str], tmp_path: Path
) -> None:
    assert enabled(found, tmp_path) == allowed


@pytest.mark.parametrize("action", [definition["name"] for definition in actions()["definitions"]])
@pytest.mark.parametrize("version", [2, 1_767_225_600_123])
def test_an_action_of_argo_cd_is_the_annotation_that_the_operator_reads(
    action: str, version: int, tmp_path: Path
) -> None:
    found = resource(rolling("Paused"))
    found["status"]["model"]["rollout"]["version"] = version
    found["status"]["model"]["quarantined"] = [{"version": version}, {"version": 1}]
    (script,) = (d["action.lua"] for d in actions()["definitions"] if d["name"] == action)
    written = lua(
        tmp_path,
        f"local obj = {as_lua(found)}\n"
        f"local function act()\n{script}\nend\n"
        "for name, value in pairs(act().metadata.annotations) do print(name .. ' ' .. value) end\n",
    )
    assert written == [f"inferencemodel.dev/{action} {version}"]
    assert f"inferencemodel.dev/{action}" in names.ACTION_ANNOTATIONS
