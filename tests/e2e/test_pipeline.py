"""The script of examples/ci, run for real: it publishes, waits, and goes back."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.conftest import BUCKET_FROM_HERE
from tests.e2e.models import (
    BUCKET_ENDPOINT_IN_CLUSTER,
    DEVELOPMENT_SERVER,
    PUBSUB_ENDPOINT_IN_CLUSTER,
)
from tests.support.crd import EXAMPLES, ROOT
from tests.support.pages import programs
from tests.support.savedmodels import files, unloadable

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.models import Served

pytestmark = pytest.mark.e2e


GATE = """\
import json, os, sys, urllib.request

body = json.dumps({"instances": [1.0]}).encode()
request = urllib.request.Request(os.environ["MODEL_URL"] + ":predict", data=body)
for _ in range(100):
    with urllib.request.urlopen(request, timeout=30) as answer:
        found = json.load(answer)["predictions"][0]
print("version", os.environ["MODEL_VERSION"], "answers", found)
sys.exit(found != float(sys.argv[1]))
"""


class Pipeline:
    """A CI machine: the programs that the script needs, and a kubeconfig for one namespace."""

    def __init__(self, served: Served, directory: Path) -> None:
        self.served = served
        self.resource = directory / "resource.yaml"
        self.resource.write_text(json.dumps(self._resource()))
        folder = directory / "bin"
        folder.mkdir()
        path = programs(folder, kubectl=served.kubectl.program)
        kubeconfig = directory / "kubeconfig"
        shutil.copy(served.kubectl.kubeconfig, kubeconfig)
        self.environment = {
            **os.environ,
            "KUBECONFIG": str(kubeconfig),
            "PATH": path,
            "PYTHONPATH": f"{ROOT / 'plugin'}:{ROOT / 'poller'}",
            "TIMEOUT": "3m",
        }
        self.run("kubectl", "config", "set-context", "--current", "--namespace", served.namespace)

    def gate(self, *, answer: float) -> None:
        """Have the pipeline's own test ask the first replica of two for one prediction."""
        program = self.resource.with_name("gate.py")
        program.write_text(GATE)
        self.environment["GATE"] = f"{sys.executable} {program} {answer}"
        resource = self._resource()
        resource["spec"] |= {
            "replicas": 2,
            "rollout": {"steps": [{"replicas": 1, "pause": {}}]},
        }
        self.resource.write_text(json.dumps(resource))

    def deploy(self, export: Path, *, code: int) -> str:
        """Run the script; what it printed."""
        return self.run(
            *(str(EXAMPLES / "ci" / "deploy.sh"), str(export), str(self.resource)),
            *(f"--endpoint=http://{BUCKET_FROM_HERE}", "--anonymous"),
            code=code,
        )

    def predict(self, x: float) -> float:
        """One prediction by the plugin, through the API server."""
        request = json.dumps({"instances": [x]})
        printed = self.run(
            *("kubectl", "inferencemodel", "predict", self.served.name, "--json=-", "-o", "json"),
            stdin=request,
        )
        return float(json.loads(printed)["predictions"][0])

    def run(self, *argv: str, code: int = 0, stdin: str = "") -> str:
        done = subprocess.run(
            argv,
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=280,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + (done.stderr if code else "")

    def _resource(self) -> dict[str, Any]:
        served = self.served
        pubsub = {"subscription": served.subscription, "endpoint": PUBSUB_ENDPOINT_IN_CLUSTER}
        return {
            "apiVersion": "inferencemodel.dev/v1alpha1",
            "kind": "InferenceModel",
            "metadata": {"name": served.name},
            "spec": {
                "model": {"storageUri": f"gs://{served.bucket.name}/{served.prefix}"},
                "source": {
                    "endpoint": BUCKET_ENDPOINT_IN_CLUSTER,
                    "anonymous": True,
                    "notifications": {"pubsub": pubsub},
                },
                "server": {"image": DEVELOPMENT_SERVER, "imagePullPolicy": "IfNotPresent"},
            },
        }


def damaged(export: Path, directory: Path) -> Path:
    """An export that looks whole, and that no model server can load."""
    copy = directory / "damaged"
    for name, content in unloadable(files(export)).items():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes(content)
    return copy


def test_the_script_deploys_a_model_and_goes_back_from_a_broken_one(
    served: Served, tmp_path: Path
) -> None:
    pipeline = Pipeline(served, tmp_path)
    good, better = served.exports[2], served.exports[3]

    assert "version 1 answers on 1/1 replicas" in pipeline.deploy(good, code=0)
    assert pipeline.predict(1.0) == 2.5

    printed = pipeline.deploy(damaged(better, tmp_path), code=1)
    assert "version 2 is quarantined: LoadFailed" in printed
    assert "going back to version 1" in printed
    assert served.get()["spec"]["model"]["version"] == 1
    assert pipeline.predict(1.0) == 2.5

    assert "version 3 answers on 1/1 replicas" in pipeline.deploy(better, code=0)
    assert pipeline.predict(1.0) == 3.5


def test_the_gate_asks_the_first_replica_before_the_others_get_the_version(
    served: Served, tmp_path: Path
) -> None:
    pipeline = Pipeline(served, tmp_path)
    good, better = served.exports[2], served.exports[3]
    pipeline.gate(answer=2.5)
    pipeline.deploy(good, code=0)

    printed = pipeline.deploy(better, code=1)
    assert "version 2 answers 3.5" in printed
    assert "the gate refused version 2" in printed
    served.until_active(1, replicas=2)
    rollout = served.get()["status"]["model"]["rollout"]
    assert (rollout["version"], rollout["phase"], rollout["step"]) == (2, "RolledBack", 1)

    pipeline.gate(answer=3.5)
    pipeline.deploy(better, code=0)
    served.until_active(3, replicas=2)
