"""The script of examples/ci where two runs of it, or a run and a person, meet at one resource."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from model_poller.status import VersionReason, VersionState
from tests.api.models import Model, World, world
from tests.support.crd import EXAMPLES, ROOT
from tests.support.pods import told
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from devcluster.client import Api
    from model_poller.status import PollerStatus

pytestmark = pytest.mark.api

Object = dict[str, Any]

AVAILABLE, FETCHED, FETCHING, QUARANTINED = (
    VersionState.AVAILABLE,
    VersionState.FETCHED,
    VersionState.FETCHING,
    VersionState.QUARANTINED,
)
FAILED, SUPERSEDED = 1, 10
SERVED = 4
"""The version that is served when a test begins."""


@pytest.fixture(scope="module")
def here(api_server: Api) -> Iterator[World]:
    with world(api_server) as made:
        yield made


class Pipeline:
    """A CI machine whose model_publish prints the number that it is told, once it may."""

    def __init__(self, model: Model, directory: Path, loads: set[int]) -> None:
        self.model = model
        self.directory = directory
        self.loads = loads
        self.stored: set[int] = set()
        self.timeout = "120s"
        self.gate = ""
        self.resource = directory / "resource.yaml"
        self.write_resource()
        kubectl = model.kubectl
        self._program(
            "kubectl",
            # What somebody else does in the moment before the script's own patch.
            f"""\
            case " $* " in
            *" port-forward "*)
              echo "$@" > {directory}/forwarded
              echo "Forwarding from 127.0.0.1:41001 -> 8500"
              echo "Forwarding from [::1]:41001 -> 8500"
              echo "Forwarding from 127.0.0.1:41002 -> 8501"
              exec sleep 600 ;;
            *" --type=json "*)
              number=$(($(cat {directory}/patches-$VERSION 2>/dev/null || echo 0) + 1))
              echo $number > {directory}/patches-$VERSION
              if [ -f {directory}/before-patch-$number ]; then
                {kubectl.program} patch inferencemodel/{model.name} --type=merge \\
                  --patch "$(cat {directory}/before-patch-$number)"
              fi
            esac
            exec {kubectl.program} "$@"
            """,
        )
        self._program(
            "kubectl-inferencemodel", f'exec {sys.executable} -m kubectl_inferencemodel "$@"\n'
        )
        self._program(
            "model_publish",
            f"""\
            touch {directory}/waits-$VERSION
            until [ -f {directory}/published ]; do sleep 0.05; done
            echo $VERSION
            """,
        )
        config = json.loads(kubectl("config", "view", "--raw", "--minify", "-o", "json"))
        config["contexts"][0]["context"]["namespace"] = kubectl.namespace
        self.kubeconfig = directory / "kubeconfig"
        self.kubeconfig.write_text(json.dumps(config))

    def write_resource(self, rollout: Object | None = None, **model: object) -> None:
        spec: Object = {"model": {"storageUri": "gs://models/m", **model}}
        if rollout is not None:
            spec |= {"rollout": rollout, "replicas": len(self.model.pods)}
        self.resource.write_text(json.dumps(self.model.manifest(**spec)))

    def gates_by(self, command: str) -> None:
        """Have the pipeline's own test decide at the first step, and tell what it was given."""
        given = self.directory / "given"
        self.gate = (
            f'echo "$MODEL_URL $MODEL_GRPC $MODEL_VERSION" > {given}; '
            f"kubectl get inferencemodel {self.model.name} "
            f"-o 'jsonpath={{.status.model.rollout.phase}}' >> {given}; {command}"
        )
        rollout = {"steps": [{"replicas": 1, "pause": {}}]}
        # A rollout keeps to the steps of the moment when the version appeared.
        self.model.patch(rollout=rollout)
        self.model.until_reported()
        self.write_resource(rollout)

    def given(self) -> list[str]:
        """What the pipeline's test got to know, and the phase of the rollout at that time."""
        return (self.directory / "given").read_text().split()

    def pins_before_patch(self, number: int, version: int) -> None:
        """Have somebody else pin a version just before the script's so-manyth patch."""
        patch = json.dumps({"spec": {"model": {"version": version}}})
        (self.directory / f"before-patch-{number}").write_text(patch)

    def serve(self, target: int) -> PollerStatus:
        """What a pod reports that is told a version: all that is stored it has on its disk."""
        states = {SERVED: FETCHED}
        states |= {one: FETCHED if one in self.loads else FETCHING for one in self.stored}
        answers = target if target in self.loads else SERVED
        return told({**states, answers: AVAILABLE}, target=target)

    def store(self, *versions: int) -> None:
        """Have versions in the bucket, which the pods' pollers find and fetch."""
        self.stored.update(versions)
        for poller in self.model.pollers():
            poller.tell(self.serve(poller.target or SERVED))

    def start(self, version: int) -> subprocess.Popen[str]:
        self.store(version)
        return subprocess.Popen(
            [EXAMPLES / "ci" / "deploy.sh", "export", self.resource],
            env={
                **os.environ,
                "GATE": self.gate,
                "KUBECONFIG": str(self.kubeconfig),
                "PATH": f"{self.directory}:{os.environ['PATH']}",
                "PYTHONPATH": f"{ROOT / 'plugin'}:{ROOT / 'poller'}",
                "TIMEOUT": self.timeout,
                "VERSION": str(version),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def publish(self, *versions: int) -> None:
        """Let every run's model_publish end, at the same moment, once all these have begun."""
        for version in versions:
            waits = self.directory / f"waits-{version}"
            eventually(waits.exists, what=f"the publication of version {version}")
        (self.directory / "published").touch()

    def run(self, version: int, *, code: int) -> str:
        """One run from its start to its end; what it printed."""
        self.publish()
        return ended(self.start(version), code=code)

    def _program(self, name: str, script: str) -> None:
        program = self.directory / name
        program.write_text(f"#!/bin/sh\n{textwrap.dedent(script)}")
        program.chmod(0o755)


def ended(script: subprocess.Popen[str], *, code: int) -> str:
    printed, _ = script.communicate(timeout=280)
    assert script.returncode == code, printed
    return printed


@contextmanager
def pipeline(
    here: World, directory: Path, *, loads: set[int], replicas: int = 1
) -> Iterator[Pipeline]:
    """A resource on version 4 whose pods load some versions and have no end with the others."""

    with here.model(model={"storageUri": "gs://models/m"}, replicas=replicas) as model:
        ci = Pipeline(model, directory, loads)
        for pod in [model.add_pod() for _ in range(replicas)]:
            pod.poller.serve = ci.serve
            pod.poller.tell(ci.serve(SERVED))
        until_active(model, SERVED)
        model.roll_out()
        yield ci


def until_active(model: Model, version: int) -> None:
    model.until(
        lambda o: o["status"]["model"]["activeVersion"] == version, what=f"version {version}"
    )


def pin(pipeline: Pipeline) -> int | None:
    found: int | None = pipeline.model.get()["spec"]["model"].get("version")
    return found


def until_pinned(pipeline: Pipeline, version: int) -> None:
    eventually(lambda: pin(pipeline) == version, what=f"version {version} to be pinned")


def test_of_two_runs_in_the_same_second_the_newer_wins_and_the_older_leaves_it(
    here: World, tmp_path: Path
) -> None:
    with pipeline(here, tmp_path, loads={6}) as ci:
        older, newer = ci.start(5), ci.start(6)
        ci.publish(5, 6)

        assert "version 6 answers on 1/1 replicas" in ended(newer, code=0)
        ended(older, code=SUPERSEDED)
        assert pin(ci) == 6
        until_active(ci.model, 6)


def test_two_runs_in_the_same_second_may_both_be_the_first(here: World, tmp_path: Path) -> None:
    with pipeline(here, tmp_path, loads={5, 6}) as ci:
        ci.timeout = "5s"
        ci.model.kubectl("delete", "inferencemodel", ci.model.name)
        older, newer = ci.start(5), ci.start(6)
        ci.publish(5, 6)

        until_pinned(ci, 6)
        for script in (older, newer):
            script.communicate(timeout=120)
        assert pin(ci) == 6


def test_a_run_that_comes_after_a_newer_one_touches_nothing(here: World, tmp_path: Path) -> None:
    with pipeline(here, tmp_path, loads={5, 6}) as ci:
        ci.run(6, code=0)
        before = ci.model.get()["metadata"]["generation"]

        printed = ci.run(5, code=SUPERSEDED)

        assert "version 6 is pinned and newer: version 5 is left to it" in printed
        assert ci.model.get()["metadata"]["generation"] == before


def test_a_run_whose_version_is_replaced_while_it_waits_leaves_the_pin(
    here: World, tmp_path: Path
) -> None:
    with pipeline(here, tmp_path, loads={2}) as ci:
        ci.publish()
        script = ci.start(5)
        until_pinned(ci, 5)
        ci.model.patch(model={"version": 2})

        assert "somebody else has set the pin from 5 to 2" in ended(script, code=SUPERSEDED)
        assert pin(ci) == 2


def test_a_version_that_fails_is_taken_back(here: World, tmp_path: Path) -> None:
    with pipeline(here, tmp_path, loads=set()) as ci:
        ci.publish()
        script = ci.start(5)
        until_pinned(ci, 5)
        fail(ci, 5)

        printed = ended(script, code=FAILED)

        assert "version 5 is quarantined" in printed
        assert "going back to version 4" in printed
        assert pin(ci) == SERVED


def fail(ci: Pipeline, version: int) -> None:
    reasons = {version: (VersionReason.LOAD_FAILED, "no graph in it")}
    states = {SERVED: AVAILABLE, version: QUARANTINED}
    ci.model.pods[0].poller.tell(told(states, target=version, reasons=reasons))


def test_a_newer_pin_in_the_moment_of_going_back_stays(here: World, tmp_path: Path) -> None:
    with pipeline(here, tmp_path, loads=set()) as ci:
        ci.pins_before_patch(2, 7)
        ci.publish()
        script = ci.start(5)
        until_pinned(ci, 5)
        fail(ci, 5)

        printed = ended(script, code=SUPERSEDED)

        assert "somebody else has set the pin from 5 to 7" in printed
        assert pin(ci) == 7


def test_an_older_pin_in_the_moment_of_pinning_is_replaced_and_a_newer_one_stays(
    here: World, tmp_path: Path
) -> None:
    with pipeline(here, tmp_path, loads={6}) as ci:
        ci.pins_before_patch(1, 5)
        ci.run(6, code=0)
        assert pin(ci) == 6

        ci.pins_before_patch(1, 9)
        assert "version 9 is pinned and newer" in ci.run(8, code=SUPERSEDED)
        assert pin(ci) == 9


def test_a_resource_that_pins_a_version_itself_is_refused(here: World, tmp_path: Path) -> None:
    with pipeline(here, tmp_path, loads={5}) as ci:
        ci.write_resource(version=3)
        assert "remove spec.model.version" in ci.run(5, code=FAILED)
        assert pin(ci) is None


def test_a_version_that_passes_the_gate_on_the_first_replica_goes_on_to_all(
    here: World, tmp_path: Path
) -> None:
    with pipeline(here, tmp_path, loads={5}, replicas=2) as ci:
        ci.gates_by("true")

        assert "version 5 answers on 2/2 replicas" in ci.run(5, code=0)

        url, grpc, version, phase = ci.given()
        assert url == f"http://127.0.0.1:41002/v1/models/{ci.model.name}"
        assert (grpc, version, phase) == ("127.0.0.1:41001", "5", "Paused")


def test_a_version_that_the_gate_refuses_is_aborted_and_goes_no_further(
    here: World, tmp_path: Path
) -> None:
    with pipeline(here, tmp_path, loads={5}, replicas=2) as ci:
        ci.gates_by("exit 7")

        printed = ci.run(5, code=FAILED)

        assert "the gate refused version 5" in printed
        assert "going back to version 4" in printed
        assert pin(ci) == SERVED
        until_active(ci.model, SERVED)
        (taken_back,) = ci.model.get()["status"]["model"]["quarantined"]
        assert (taken_back["version"], taken_back["reason"]) == (5, "Aborted")


def test_a_version_that_does_not_get_to_its_first_step_never_meets_the_gate(
    here: World, tmp_path: Path
) -> None:
    with pipeline(here, tmp_path, loads=set(), replicas=2) as ci:
        ci.gates_by("true")
        ci.publish()
        script = ci.start(5)
        until_pinned(ci, 5)
        fail(ci, 5)

        assert "version 5 is quarantined" in ended(script, code=FAILED)

        assert not (tmp_path / "given").exists()
        assert pin(ci) == SERVED
