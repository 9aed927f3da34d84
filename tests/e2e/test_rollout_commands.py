"""Rollouts by the command line alone, on a whole cluster: record, publish, wait, look, act."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from kubectl_inferencemodel.errors import RefusedError
from model_poller.publishing.main import main as model_publish
from tests.api.test_plugin import Plugin
from tests.e2e.conftest import BUCKET_FROM_HERE
from tests.support.kubectl import Kubectl

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.models import Served

pytestmark = pytest.mark.e2e

STEPS = {"rollout": {"steps": [{"replicas": 1, "pause": {}}]}}


class Commands:
    """The plugin and the publisher, for one InferenceModel."""

    def __init__(self, served: Served) -> None:
        self.served = served
        kubectl = served.kubectl
        self.plugin = Plugin(Kubectl(kubectl.program, kubectl.kubeconfig, served.namespace))

    def __call__(self, command: str, *arguments: str, code: int = 0) -> str:
        """What a command prints."""
        return self.plugin(command, self.served.name, *arguments, code=code)

    def json(self, command: str, *arguments: str, code: int = 0) -> Any:
        """The same for programs."""
        return self.plugin.json(command, self.served.name, *arguments, code=code)

    def publish(self, version: int, *more: str, offset: int) -> None:
        """Publish an export."""
        served = self.served
        export = str(served.exports[offset])
        uri = f"gs://{served.bucket.name}/{served.prefix}"
        store = (f"--endpoint=http://{BUCKET_FROM_HERE}", "--anonymous")
        assert model_publish([export, uri, f"--version={version}", *store, *more]) == 0

    def replicas_with(self, version: int) -> int:
        """How many pods' pollers say that their server answers with a version."""
        found = self.json("rollout", code=3)
        return sum(replica["answers"] == version for replica in found["replicas"])


@pytest.fixture
def commands(served: Served) -> Commands:
    """Three replicas on version 1, and a first step that waits for somebody."""
    made = Commands(served)
    made.publish(1, offset=2)
    served.apply(replicas=3)
    served.patch(STEPS)
    served.until_active(1, replicas=3)
    return made


def test_golden_records_of_one_version_stop_another_and_let_an_equal_one_pass(
    commands: Commands, tmp_path: Path
) -> None:
    request, golden = tmp_path / "request.json", tmp_path / "golden"
    request.write_text(json.dumps({"instances": [1.0, 4.0]}))
    told = commands.json("record", f"--json={request}", f"--out={golden}")
    assert (told["version"], told["records"]) == (1, 1)

    commands.publish(2, f"--golden={golden}", offset=3)
    taken_back = commands.json("wait", "--version=2", "--timeout=2m", code=4)
    assert "3.5" in taken_back["message"], "what it answers instead of 2.5"
    commands.served.until(
        lambda o: o["status"]["model"]["rollout"]["phase"] == "RolledBack",
        what="all replicas back on version 1",
        within=60,
    )
    assert commands.served.predict(1.0) == 2.5
    shown = commands("rollout", code=4)
    assert "golden" in shown
    assert "Failed" in shown

    commands.publish(3, f"--golden={golden}", offset=2)
    reached = commands("wait", "--version=3", "--for=step=1", "--timeout=2m")
    assert "step 1 of 2, 1 of 1 replicas answer with it" in reached
    assert commands.replicas_with(3) == 1
    shown = commands("rollout", code=3)
    assert "golden" in shown
    assert "Passed" in shown
    assert commands.json("diff", "1", "3")["goldenFailed"] is False

    assert "step 2 of 2" in commands("promote", "--version=3")
    assert "version 3 answers on 3/3 replicas" in commands("wait", "--version=3", "--timeout=2m")
    assert "Completed" in commands("rollout")


@pytest.mark.runbook("a-stuck-rollout")
def test_a_version_is_aborted_retried_paused_and_promoted(commands: Commands) -> None:
    commands.publish(2, offset=3)
    commands("wait", "--version=2", "--for=step=1", "--timeout=2m")
    with pytest.raises(RefusedError, match=r"version 1 of .* is not being rolled out"):
        commands("abort", "--version=1")
    assert "version 2 is taken back" in commands("abort")
    aborted = commands.json("wait", "--version=2", "--timeout=2m", code=4)
    assert "Aborted" in aborted["message"]
    with pytest.raises(RefusedError, match=r"nothing of .* is being rolled out|taken back"):
        commands("promote")
    commands.served.until_active(1, replicas=3)

    assert "version 2 is tried again" in commands("retry")
    commands("wait", "--version=2", "--for=step=1", "--timeout=2m")
    assert "spec.rollout.paused" in commands("pause")
    assert commands.replicas_with(2) == 1
    assert "promote or abort it" in commands("resume")
    assert "version 2" in commands("promote", "--full")
    assert "version 2 answers on 3/3" in commands("wait", "--version=2", "--timeout=2m")
    assert commands.served.predict(1.0) == 3.5
