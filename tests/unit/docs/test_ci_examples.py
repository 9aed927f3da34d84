"""The workflow to copy fits the script and the release that it is copied from."""

from __future__ import annotations

import re
import subprocess
import tomllib

import yaml

from tests.support.crd import EXAMPLES, ROOT

CI = EXAMPLES / "ci"
WORKFLOW = yaml.safe_load((CI / "github-actions.yaml").read_text())
STEPS = WORKFLOW["jobs"]["deploy"]["steps"]


def test_every_step_either_uses_an_action_by_version_or_runs_a_command() -> None:
    for step in STEPS:
        assert ("uses" in step) != ("run" in step)
        assert "@v" in step.get("uses", "@v")


def test_the_workflow_installs_this_release() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (checkout,) = [step["with"] for step in STEPS if "repository" in step.get("with", {})]
    assert checkout["ref"] == f"v{project['version']}"
    (install,) = [step["run"] for step in STEPS if "pip install" in step.get("run", "")]
    for lock in re.findall(r"-r inferencemodel/(\S+)", install):
        assert (ROOT / lock).is_file()
    assert "./inferencemodel" in install
    assert {"model_publish", "kubectl-inferencemodel"} <= set(project["scripts"])


def test_the_workflow_gives_the_script_what_it_asks_for() -> None:
    (deploy,) = [step for step in STEPS if "deploy.sh" in step.get("run", "")]
    assert len(deploy["run"].split()) == 3
    used = (CI / "deploy.sh").read_text()
    assert all(f"${{{name}:-" in used for name in deploy["env"])


def test_the_script_explains_itself_when_arguments_are_missing() -> None:
    done = subprocess.run(
        [str(CI / "deploy.sh")], capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 1
    assert "usage: deploy.sh EXPORT_DIR RESOURCE.yaml" in done.stderr
