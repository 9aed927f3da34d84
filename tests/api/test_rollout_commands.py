"""The plugin's actions on rollouts, with the real operator on a real API server.

Pods are objects without a node; their pollers are stubs that serve what they are told to.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from kubectl_inferencemodel.errors import RefusedError
from model_poller.status import VersionState
from tests.api.models import Model, World, world
from tests.api.test_plugin import Plugin
from tests.support.pods import told

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from devcluster.client import Api
    from model_poller.status import PollerStatus

pytestmark = pytest.mark.api

AVAILABLE, FETCHED = VersionState.AVAILABLE, VersionState.FETCHED
WAITING = {
    "steps": [{"replicas": 1, "pause": {}}],
    "checks": {"memory": "Ignore", "signature": "Ignore", "golden": {"mode": "Ignore"}},
}


@pytest.fixture(scope="module")
def here(api_server: Api) -> Iterator[World]:
    with world(api_server) as made:
        yield made


class Commands:
    """The plugin, for one InferenceModel."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.plugin = Plugin(model.kubectl)

    def __call__(self, command: str, *arguments: str, code: int = 0) -> str:
        """What a command prints."""
        return self.plugin(command, self.model.name, *arguments, code=code)

    def json(self, command: str, *arguments: str, code: int = 0) -> Any:
        """The same for programs."""
        return self.plugin.json(command, self.model.name, *arguments, code=code)

    def told(self) -> list[int]:
        """The versions that the replicas are told to serve."""
        replicas = self.json("rollout", code=3)["replicas"]
        return sorted(replica["told"] for replica in replicas)


def serving(*disk: int) -> Callable[[int], PollerStatus]:
    """A poller that has versions on its disk, and serves the one that it is told."""
    return lambda target: told(
        {version: AVAILABLE if version == target else FETCHED for version in disk}, target=target
    )


@contextmanager
def rolling(here: World) -> Iterator[Commands]:
    """Three replicas, the first of which has got version 2 and waits for somebody."""
    with here.model(replicas=3, rollout=WAITING) as model:
        for _ in range(3):
            pod = model.add_pod()
            pod.poller.serve = serving(1)
            pod.poller.tell(told({1: AVAILABLE}, target=1))
        model.roll_out()
        model.until(lambda o: o["status"]["model"]["activeVersion"] == 1, what="version 1")
        for poller in model.pollers():
            poller.serve = serving(1, 2)
            poller.tell(told({1: AVAILABLE, 2: FETCHED}, target=1))
        commands = Commands(model)
        reached = commands("wait", "--version=2", "--for=step=1", "--timeout=60s")
        assert "step 1 of 2, 1 of 1 replicas answer with it" in reached
        yield commands


@pytest.mark.runbook("a-stuck-rollout")
def test_a_promotion_takes_the_version_to_all_replicas(here: World) -> None:
    with rolling(here) as commands:
        assert commands.told() == [1, 1, 2]
        commands.model.until(
            lambda o: o["status"]["model"]["rollout"]["phase"] == "Paused", what="its pause"
        )
        waiting = commands.json("wait", "--version=2", "--timeout=100ms", code=3)
        assert "promote or abort it" in waiting["message"]
        assert "version 2: step" in commands("promote", "--version=2")
        arrived = commands("wait", "--version=2", "--timeout=60s")
        assert "version 2 answers on 3/3 replicas" in arrived
        commands.model.until(
            lambda o: o["status"]["model"]["rollout"]["phase"] == "Completed", what="its end"
        )
        shown = commands("rollout")
        assert "version 2 (from 1) Completed" in shown
        assert "inferencemodel.dev/promote" not in commands.model.get()["metadata"].get(
            "annotations", {}
        )
        with pytest.raises(RefusedError, match=r"nothing of .* is being rolled out"):
            commands("promote")


@pytest.mark.runbook("a-stuck-rollout")
def test_an_aborted_version_goes_back_and_is_tried_again_when_that_is_asked_for(
    here: World,
) -> None:
    with rolling(here) as commands:
        assert "version 2 is taken back" in commands("abort")
        back = commands.json("wait", "--version=2", "--timeout=60s", code=4)
        assert "abort" in back["message"].lower()
        commands.model.until(
            lambda o: o["status"]["model"]["rollout"]["phase"] == "RolledBack", what="its end"
        )
        assert commands.json("rollout", code=4)["outcome"] == "Hopeless"
        with pytest.raises(RefusedError, match=r"nothing of .* is being rolled out"):
            commands("abort")
        assert "version 2 is tried again" in commands("retry")
        again = commands("wait", "--version=2", "--for=step=1", "--timeout=60s")
        assert "version 2: step 1 of 2" in again


@pytest.mark.runbook("a-stuck-rollout")
def test_rollouts_stand_still_until_they_go_on(here: World) -> None:
    with rolling(here) as commands:
        assert "spec.rollout.paused" in commands("pause")
        held = commands("promote")
        assert "kubectl inferencemodel resume" in held
        assert commands.told() == [1, 1, 2]
        commands("resume")
        assert "version 2 answers on 3/3" in commands("wait", "--version=2", "--timeout=60s")


def test_all_steps_are_left_out_when_that_is_asked_for(here: World) -> None:
    with rolling(here) as commands:
        commands.model.patch(rollout={"steps": [{"replicas": 1}, {"replicas": 2, "pause": {}}]})
        assert "version 2: step 2 of 2" in commands("promote", "--full")
        assert "version 2 answers on 3/3" in commands("wait", "--version=2", "--timeout=60s")


def test_an_action_that_comes_too_late_is_dropped_with_its_reason(here: World) -> None:
    with rolling(here) as commands:
        commands.model.kubectl(
            "annotate", "inferencemodel", commands.model.name, "inferencemodel.dev/promote=7"
        )
        name = commands.model.name
        commands.model.until(
            lambda o: "inferencemodel.dev/promote" not in o["metadata"].get("annotations", {}),
            what=f"{name} without a promotion of version 7",
        )
        assert commands.told() == [1, 1, 2]
